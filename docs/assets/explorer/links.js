// The links of the catalogue on two classes: the loss of a row and its pull -dl/dd at the gap d. The tests compare every
// one with the library's.
"use strict";

const lossfitLinks = (() => {
  const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
  const sigmoid = (x) => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));
  const density = (x) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);

  // The normal distribution function: a series where it is near 1/2, a continued fraction in the tails.
  function normal(x) {
    if (Math.abs(x) < 3) {
      let term = x;
      let sum = x;
      for (let k = 3; Math.abs(term) > 1e-17 * Math.abs(sum); k += 2) {
        term *= (x * x) / k;
        sum += term;
      }
      return 0.5 + density(x) * sum;
    }
    let below = Math.abs(x);
    for (let k = 80; k > 0; k--) {
      below = Math.abs(x) + k / below;
    }
    const tail = density(x) / below;
    return x < 0 ? tail : 1 - tail;
  }

  const hyper = (key, label, min, max, step, value) => ({key, label, min, max, step, value});

  const links = {
    cross_entropy: {
      title: "Cross-entropy",
      formula: "−log p",
      code: "CrossEntropyLoss",
      hypers: [],
      at: (d) => ({loss: softplus(-d), pull: sigmoid(-d)}),
    },
    expected_accuracy: {
      title: "Expected accuracy",
      formula: "1 − p",
      code: "ExpectedAccuracyLoss",
      hypers: [],
      at: (d) => ({loss: sigmoid(-d), pull: sigmoid(-d) * sigmoid(d)}),
    },
    gamma_cross_entropy: {
      title: "Gamma cross-entropy",
      formula: "−log(γ + (1 − γ) p) / (1 − γ)",
      code: "GammaCrossEntropyLoss",
      hypers: [hyper("gamma", "γ", 0, 1, 0.01, 0.1)],
      at: (d, {gamma}) => {
        const odds = Math.exp(-d);
        const damped = 1 / (1 + gamma * odds);
        const y = odds * damped;
        const x = (1 - gamma) * y;
        const loss = gamma === 0 ? softplus(-d) : x < 1e-20 ? y : (y * Math.log1p(x)) / x;
        return {loss, pull: sigmoid(-d) * damped};
      },
    },
    focal: {
      title: "Focal",
      formula: "(1 − p)^γ (−log p)",
      code: "FocalLoss",
      hypers: [hyper("gamma", "γ", 0, 5, 0.1, 2)],
      at: (d, {gamma}) => {
        const nats = softplus(-d);
        const weight = Math.exp(-gamma * softplus(d));
        return {loss: weight * nats, pull: weight * (sigmoid(-d) + gamma * nats * sigmoid(d))};
      },
    },
    poly: {
      title: "Poly-1",
      formula: "−log p + ε (1 − p)",
      code: "PolyLoss",
      hypers: [hyper("coefficients", "ε", -0.9, 8, 0.1, 1)],
      at: (d, {coefficients}) => {
        const miss = sigmoid(-d);
        return {loss: softplus(-d) + coefficients * miss, pull: miss * (1 + coefficients * sigmoid(d))};
      },
    },
    generalized_cross_entropy: {
      title: "Generalised cross-entropy",
      formula: "(1 − p^q) / q",
      code: "GeneralizedCrossEntropyLoss",
      hypers: [hyper("q", "q", 0, 1, 0.01, 0.7)],
      at: (d, {q}) => {
        const nats = softplus(-d);
        const x = q * nats;
        return {loss: x < 1e-20 ? nats : (-nats * Math.expm1(-x)) / x, pull: Math.exp(-x) * sigmoid(-d)};
      },
    },
    symmetric_cross_entropy: {
      title: "Symmetric cross-entropy",
      formula: "α (−log p) − β A (1 − p)",
      code: "SymmetricCrossEntropyLoss",
      hypers: [
        hyper("alpha", "α", 0, 2, 0.05, 0.1),
        hyper("beta", "β", 0, 2, 0.05, 1),
        hyper("log_zero", "A", -8, 0, 0.5, -4),
      ],
      at: (d, {alpha, beta, log_zero: zero}) => {
        const miss = sigmoid(-d);
        return {loss: alpha * softplus(-d) - beta * zero * miss, pull: miss * (alpha - beta * zero * sigmoid(d))};
      },
    },
    squared: {
      title: "Squared",
      formula: "(1 − p)²",
      code: "SquaredLoss",
      hypers: [],
      at: (d) => ({loss: sigmoid(-d) ** 2, pull: 2 * sigmoid(-d) ** 2 * sigmoid(d)}),
    },
    exponential: {
      title: "Exponential",
      formula: "exp(−p)",
      code: "ExponentialLoss",
      hypers: [],
      at: (d) => ({loss: Math.exp(-sigmoid(d)), pull: Math.exp(-sigmoid(d)) * sigmoid(d) * sigmoid(-d)}),
    },
    logistic_margin: {
      title: "Logistic with a margin",
      formula: "log(1 + exp(m − d))",
      code: "LogisticMarginLoss",
      hypers: [hyper("margin", "m", -2, 5, 0.1, 1)],
      at: (d, {margin}) => ({loss: softplus(margin - d), pull: sigmoid(margin - d)}),
    },
    exponential_margin: {
      title: "Exponential of the gap",
      formula: "exp(−s d)",
      code: "ExponentialMarginLoss",
      hypers: [hyper("scale", "s", 0.05, 1, 0.05, 0.5)],
      at: (d, {scale}) => ({loss: Math.exp(-scale * d), pull: scale * Math.exp(-scale * d)}),
    },
    hinge: {
      title: "Hinge",
      formula: "max(0, m − d)",
      code: "HingeLoss",
      hypers: [hyper("margin", "m", 0, 5, 0.1, 1)],
      at: (d, {margin}) => ({loss: Math.max(0, margin - d), pull: margin > d ? 1 : 0}),
    },
    squared_hinge: {
      title: "Squared hinge",
      formula: "max(0, m − d)²",
      code: "HingeLoss",
      fixed: {squared: true},
      hypers: [hyper("margin", "m", 0, 5, 0.1, 1)],
      at: (d, {margin}) => ({loss: Math.max(0, margin - d) ** 2, pull: 2 * Math.max(0, margin - d)}),
    },
    smooth_accuracy: {
      title: "Smooth accuracy",
      formula: "sigmoid(−β d)",
      code: "SmoothAccuracyLoss",
      hypers: [hyper("beta", "β", 0.1, 8, 0.1, 1)],
      at: (d, {beta}) => ({loss: sigmoid(-beta * d), pull: beta * sigmoid(beta * d) * sigmoid(-beta * d)}),
    },
    exact: {
      title: "EXACT",
      formula: "1 − P, here 1 − Φ(d / (σ√2))",
      code: "ExactLoss",
      hypers: [hyper("sigma", "σ", 0.1, 4, 0.1, 1)],
      at: (d, {sigma}) => {
        const u = d / (sigma * Math.SQRT2);
        return {loss: normal(-u), pull: density(u) / (sigma * Math.SQRT2)};
      },
    },
    exact_log: {
      title: "EXACT, −log P",
      formula: "−log P, here −log Φ(d / (σ√2))",
      code: "ExactLoss",
      fixed: {log: true},
      hypers: [hyper("sigma", "σ", 0.1, 4, 0.1, 1)],
      at: (d, {sigma}) => {
        const u = d / (sigma * Math.SQRT2);
        // Far out the distribution function underflows; its logarithm and slope go on.
        const far = u < -30;
        const loss = far ? (u * u) / 2 + Math.log(-u * Math.sqrt(2 * Math.PI)) : u > 0 ? -Math.log1p(-normal(-u)) : -Math.log(normal(u));
        const slope = far ? -u - 1 / u : density(u) / normal(u);
        return {loss, pull: slope / (sigma * Math.SQRT2)};
      },
    },
  };
  return {links, sigmoid, defaults: (link) => Object.fromEntries(link.hypers.map((h) => [h.key, h.value]))};
})();
