// A small model on made-up rows in the plane, trained by full-batch Adam with the gradient that a link gives.
"use strict";

const lossfitTraining = (() => {
  const {sigmoid} = lossfitLinks;

  // mulberry32: the same numbers in every browser.
  function random(seed) {
    let state = seed >>> 0;
    const even = () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    const gauss = () => Math.sqrt(-2 * Math.log(1 - even())) * Math.cos(2 * Math.PI * even());
    return {even, gauss};
  }

  const shapes = {
    clouds: (side, r) => [side * 1 + 0.9 * r.gauss(), side * 0.6 + 0.9 * r.gauss()],
    // A tenth of the first class lies far on the wrong side, as mistakes of measurement do.
    far: (side, r) =>
      side > 0 && r.even() < 0.1
        ? [-2.6 + 0.25 * r.gauss(), -2.2 + 0.25 * r.gauss()]
        : [side * 1 + 0.6 * r.gauss(), side * 0.6 + 0.6 * r.gauss()],
    moons: (side, r) => {
      const angle = Math.PI * r.even();
      const [x, y] = side > 0 ? [Math.cos(angle) - 0.5, Math.sin(angle) - 0.25] : [0.5 - Math.cos(angle), 0.25 - Math.sin(angle)];
      return [1.7 * x + 0.2 * r.gauss(), 1.7 * y + 0.2 * r.gauss()];
    },
  };

  // Rows with their class (1 and -1) and the label that training sees.
  function rows(shape, count, rare, noise, seed) {
    const r = random(seed);
    return Array.from({length: count}, () => {
      const side = r.even() < rare ? 1 : -1;
      const [x, y] = shapes[shape](side, r);
      const label = r.even() < noise ? -side : side;
      return {x, y, side, label};
    });
  }

  // Score of the first class less that of the second one. Parameters in one array: linear is (w, v, b).
  function make(hidden, seed) {
    const r = random(seed);
    const size = hidden ? 4 * hidden + 1 : 3;
    const parameters = Float64Array.from({length: size}, () => 0);
    if (hidden) {
      for (let j = 0; j < hidden; j++) {
        parameters[3 * j] = r.gauss();
        parameters[3 * j + 1] = r.gauss();
        parameters[3 * j + 2] = 0.5 * r.gauss();
        parameters[3 * hidden + j] = r.gauss() / Math.sqrt(hidden);
      }
    }
    return {hidden, parameters};
  }

  function score(model, x, y, units) {
    const {hidden, parameters: p} = model;
    if (!hidden) {
      return p[0] * x + p[1] * y + p[2];
    }
    let sum = p[4 * hidden];
    for (let j = 0; j < hidden; j++) {
      const unit = Math.tanh(p[3 * j] * x + p[3 * j + 1] * y + p[3 * j + 2]);
      if (units) {
        units[j] = unit;
      }
      sum += p[3 * hidden + j] * unit;
    }
    return sum;
  }

  // The mean loss, and its gradient added into `gradient`.
  function step(model, data, at, gradient, decay) {
    const {hidden, parameters: p} = model;
    const units = new Float64Array(hidden);
    let total = 0;
    for (const row of data) {
      const {loss, pull} = at(row.label * score(model, row.x, row.y, units));
      total += loss / data.length;
      const by = (-pull * row.label) / data.length;
      if (!hidden) {
        gradient[0] += by * row.x;
        gradient[1] += by * row.y;
        gradient[2] += by;
        continue;
      }
      gradient[4 * hidden] += by;
      for (let j = 0; j < hidden; j++) {
        gradient[3 * hidden + j] += by * units[j];
        const below = by * p[3 * hidden + j] * (1 - units[j] * units[j]);
        gradient[3 * j] += below * row.x;
        gradient[3 * j + 1] += below * row.y;
        gradient[3 * j + 2] += below;
      }
    }
    for (let i = 0; i < p.length; i++) {
      gradient[i] += decay * p[i];
    }
    return total;
  }

  function train(model, data, at, {steps, rate = 0.05, decay = 1e-3}) {
    const {parameters: p} = model;
    const [first, second] = [new Float64Array(p.length), new Float64Array(p.length)];
    let loss = NaN;
    for (let t = 1; t <= steps; t++) {
      const gradient = new Float64Array(p.length);
      loss = step(model, data, at, gradient, decay);
      for (let i = 0; i < p.length; i++) {
        const g = Math.max(-1e6, Math.min(1e6, gradient[i]));
        first[i] = 0.9 * first[i] + 0.1 * g;
        second[i] = 0.999 * second[i] + 0.001 * g * g;
        p[i] -= (rate * (first[i] / (1 - 0.9 ** t))) / (Math.sqrt(second[i] / (1 - 0.999 ** t)) + 1e-8);
      }
    }
    return loss;
  }

  // Accuracy and balanced accuracy by the true classes, and the mean surprise -log p under the sigmoid.
  function judge(model, data) {
    const hits = {1: 0, [-1]: 0};
    const counts = {1: 0, [-1]: 0};
    let nats = 0;
    for (const row of data) {
      const z = score(model, row.x, row.y);
      const d = row.side * z;
      counts[row.side] += 1;
      hits[row.side] += (z > 0 ? 1 : -1) === row.side;
      nats -= Math.log(Math.max(sigmoid(d), 1e-300)) / data.length;
    }
    const recalls = [1, -1].filter((side) => counts[side]).map((side) => hits[side] / counts[side]);
    return {
      accuracy: (hits[1] + hits[-1]) / data.length,
      balanced: recalls.reduce((a, b) => a + b) / recalls.length,
      nats,
    };
  }

  return {rows, make, score, step, train, judge, shapes: Object.keys(shapes)};
})();
