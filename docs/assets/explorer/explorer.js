// The page: controls, three curves, and the plane.
"use strict";

(() => {
  const page = document.getElementById("explorer");
  const {links, sigmoid, defaults} = lossfitLinks;
  const {rows, make, score, train, judge} = lossfitTraining;
  const SVG = "http://www.w3.org/2000/svg";
  const WIDTH = 300;
  const HEIGHT = 210;
  const LEFT = 38;
  const BOTTOM = 36;
  const REACH = 3.6;
  const PLANE = 360;
  const by = (id) => document.getElementById(id);
  let settings = {};
  let seed = 7;
  let waiting = 0;

  function element(name, attributes = {}, text = null) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) {
      made.setAttribute(key, value);
    }
    if (text !== null) {
      made.textContent = text;
    }
    return made;
  }

  const shown = (x) => (Object.is(Math.round(x * 1000) / 1000, -0) ? "0" : String(Math.round(x * 1000) / 1000));

  // ---- controls

  function fillLosses() {
    for (const [name, link] of Object.entries(links)) {
      by("loss").append(new Option(link.title, name));
    }
    by("loss").value = "gamma_cross_entropy";
  }

  function fillHypers() {
    const link = links[by("loss").value];
    settings = defaults(link);
    by("hypers").replaceChildren(
      ...link.hypers.map((h) => {
        const line = document.createElement("p");
        const label = Object.assign(document.createElement("label"), {htmlFor: `hyper-${h.key}`});
        label.textContent = h.label === h.key ? h.key : `${h.label} (${h.key})`;
        const output = Object.assign(document.createElement("output"), {textContent: shown(h.value)});
        output.setAttribute("for", `hyper-${h.key}`);
        const {min, max, step, value} = h;
        const slider = Object.assign(document.createElement("input"), {type: "range", id: `hyper-${h.key}`, min, max, step, value});
        slider.addEventListener("input", () => {
          settings[h.key] = Number(slider.value);
          output.textContent = shown(settings[h.key]);
          draw();
        });
        line.append(label, output, slider);
        return line;
      }),
    );
    if (!link.hypers.length) {
      const none = document.createElement("p");
      none.textContent = "No hyper-parameter.";
      by("hypers").append(none);
    }
  }

  function code(link) {
    const given = {...settings, ...(link.fixed || {})};
    const told = Object.entries(given).map(([key, value]) => `${key}=${value === true ? "True" : shown(value)}`);
    return `lossfit.${link.code}(${told.join(", ")})`;
  }

  // ---- curves

  const CURVES = [
    {id: "curve-loss", title: "loss l", top: 5, of: ({loss}) => loss},
    {id: "curve-sensitivity", title: "sensitivity −dl/dp", log: true, of: ({pull}, d) => pull / (sigmoid(d) * sigmoid(-d))},
    {id: "curve-pull", title: "gradient −dl/dd", top: 2, of: ({pull}) => pull},
  ];

  function curve(spec, link) {
    const overP = by("axis").value === "p";
    const [low, high] = overP ? [0, 1] : [-6, 6];
    const right = WIDTH - 8;
    const floor = HEIGHT - BOTTOM;
    const [logLow, logHigh] = [Math.log10(0.05), 2];
    const x = (value) => LEFT + ((value - low) / (high - low)) * (right - LEFT);
    const y = (value) =>
      spec.log
        ? floor - ((Math.log10(Math.max(value, 1e-9)) - logLow) / (logHigh - logLow)) * (floor - 8)
        : floor - (value / spec.top) * (floor - 8);
    const svg = element("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img"});
    const ticks = spec.log ? [0.1, 1, 10, 100] : Array.from({length: spec.top === 5 ? 6 : 5}, (_, i) => (i * spec.top) / (spec.top === 5 ? 5 : 4));
    for (const tick of ticks) {
      svg.append(element("line", {class: "grid", x1: LEFT, x2: right, y1: y(tick), y2: y(tick)}));
      svg.append(element("text", {x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end"}, shown(tick)));
    }
    for (let i = 0; i <= (overP ? 5 : 6); i++) {
      const tick = low + ((high - low) * i) / (overP ? 5 : 6);
      svg.append(element("line", {class: "grid", x1: x(tick), x2: x(tick), y1: 8, y2: floor}));
      svg.append(element("text", {x: x(tick), y: floor + 15, "text-anchor": "middle"}, shown(tick)));
    }
    svg.append(element("text", {x: (LEFT + right) / 2, y: HEIGHT - 4, "text-anchor": "middle"}, overP ? "probability of the target p" : "gap d"));
    const clip = `${spec.id}-clip`;
    svg.append(element("clipPath", {id: clip}));
    svg.lastChild.append(element("rect", {x: LEFT, y: 6, width: right - LEFT, height: floor - 6}));
    for (const [name, drawn, given] of [["reference", links.cross_entropy, {}], ["chosen", link, settings]]) {
      const points = [];
      for (let i = 0; i <= 160; i++) {
        const at = overP ? 0.003 + (0.994 * i) / 160 : low + ((high - low) * i) / 160;
        const d = overP ? Math.log(at / (1 - at)) : at;
        const value = spec.of(drawn.at(d, given), d);
        points.push(`${x(at).toFixed(2)},${Math.max(-1000, Math.min(2000, y(value))).toFixed(2)}`);
      }
      svg.append(element("polyline", {class: name, points: points.join(" "), "clip-path": `url(#${clip})`}));
    }
    const even = spec.of(link.at(0, settings), 0);
    const low01 = spec.of(link.at(Math.log(1 / 99), settings), Math.log(1 / 99));
    svg.setAttribute("aria-label", `${spec.title} of ${link.title}: ${shown(low01)} at p = 0.01, ${shown(even)} at p = 0.5`);
    by(spec.id).replaceChildren(svg);
  }

  // ---- the plane

  function boundary(model) {
    const cells = 48;
    const at = (i) => -REACH + (2 * REACH * i) / cells;
    const value = Array.from({length: cells + 1}, (_, i) => Array.from({length: cells + 1}, (_, j) => score(model, at(i), at(j))));
    const pixel = (i, j) => `${((i / cells) * PLANE).toFixed(1)},${(PLANE - (j / cells) * PLANE).toFixed(1)}`;
    const parts = [];
    for (let i = 0; i < cells; i++) {
      for (let j = 0; j < cells; j++) {
        const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
        const crossed = [];
        corners.forEach(([a, b], k) => {
          const [c, e] = corners[(k + 1) % 4];
          const [u, v] = [value[a][b], value[c][e]];
          if (u > 0 !== v > 0) {
            const share = u / (u - v);
            crossed.push(pixel(a + share * (c - a), b + share * (e - b)));
          }
        });
        for (let k = 0; k + 1 < crossed.length; k += 2) {
          parts.push(`M${crossed[k]}L${crossed[k + 1]}`);
        }
      }
    }
    return parts.join("");
  }

  function point(row) {
    const x = ((row.x + REACH) / (2 * REACH)) * PLANE;
    const y = PLANE - ((row.y + REACH) / (2 * REACH)) * PLANE;
    const wrong = row.label === row.side ? "" : " wrong";
    return row.label > 0
      ? element("circle", {class: `first${wrong}`, cx: x.toFixed(1), cy: y.toFixed(1), r: 4})
      : element("path", {class: `second${wrong}`, d: `M${x.toFixed(1)} ${(y - 5).toFixed(1)}l4.6 8h-9.2z`});
  }

  function plane(link) {
    const shape = by("shape").value;
    const [rare, noise, steps] = ["rare", "noise", "steps"].map((id) => Number(by(id).value));
    const hidden = by("model").value === "hidden" ? 12 : 0;
    const data = rows(shape, 240, rare, noise, seed);
    const test = rows(shape, 4000, rare, 0, seed + 1000);
    const trained = {};
    for (const [name, chosen, given] of [["reference", links.cross_entropy, {}], ["chosen", link, settings]]) {
      const model = make(hidden, 3);
      train(model, data, (d) => chosen.at(d, given), {steps});
      trained[name] = {model, ...judge(model, test)};
    }
    const svg = element("svg", {viewBox: `0 0 ${PLANE} ${PLANE}`, role: "img"});
    data.forEach((row) => svg.append(point(row)));
    for (const name of ["reference", "chosen"]) {
      svg.append(element("path", {class: name, d: boundary(trained[name].model)}));
    }
    const percent = (x) => `${(100 * x).toFixed(1)}%`;
    svg.setAttribute("aria-label", `Decision boundaries of ${link.title} and of cross-entropy among ${data.length} rows of two classes`);
    by("plane").replaceChildren(svg);
    by("found-title").textContent = link.title;
    for (const name of ["reference", "chosen"]) {
      by(`${name}-accuracy`).textContent = percent(trained[name].accuracy);
      by(`${name}-balanced`).textContent = percent(trained[name].balanced);
      by(`${name}-nats`).textContent = trained[name].nats.toFixed(3);
    }
    page.dataset.trained = `${by("loss").value} ${JSON.stringify(settings)} ${shape} ${rare} ${noise} ${hidden} ${steps} ${seed}`;
  }

  function draw() {
    const link = links[by("loss").value];
    by("formula").textContent = link.formula;
    by("code").textContent = code(link);
    by("chosen-name").textContent = link.title;
    CURVES.forEach((spec) => curve(spec, link));
    clearTimeout(waiting);
    waiting = setTimeout(() => plane(link), 120);
  }

  fillLosses();
  fillHypers();
  by("loss").addEventListener("change", () => {
    fillHypers();
    draw();
  });
  for (const id of ["axis", "shape", "model"]) {
    by(id).addEventListener("change", draw);
  }
  for (const id of ["rare", "noise", "steps"]) {
    by(id).addEventListener("input", () => {
      by(`${id}-shown`).textContent = id === "steps" ? by(id).value : `${Math.round(100 * by(id).value)}%`;
      draw();
    });
  }
  by("again").addEventListener("click", () => {
    seed += 1;
    draw();
  });
  page.hidden = false;
  draw();
})();
