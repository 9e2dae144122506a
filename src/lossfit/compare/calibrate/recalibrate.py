"""What temperature, vector and matrix scaling do to predictions, measured on rows that did not fit them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lossfit.calibration import MatrixScaling, TemperatureScaling, VectorScaling
from lossfit.calibration.reliability import Reliability, binned
from lossfit.calibration.scaling import Scaling
from lossfit.compare.errors import InputError

AS_IS = "as_is"
TITLES = {
    AS_IS: "As they are",
    "temperature": "Temperature scaling",
    "vector": "Vector scaling",
    "matrix": "Matrix scaling",
}
"""The methods, from the simplest on."""
MOST = {"log_loss": math.inf, "brier": 2.0}
"""The largest value of a metric, where it is not 1."""
METRICS = {
    "log_loss": "Log loss",
    "brier": "Brier score",
    "calibration_error": "Calibration, %",
    "calibration_error_equal_mass": "  equal mass, %",
    "accuracy": "Accuracy, %",
}
BINS = 15
FEWEST_ROWS = 20
MOST_CLASSES = 50
RIDGES = (1.0, 10.0, 100.0, 1000.0)
_CHUNK = 2_000_000

Report = Callable[[str, float], None]


class Estimate(NamedTuple):
    """A number on the test rows, with a 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Outcome:
    """What was found.

    Attributes:
        methods: those that were tried, from :data:`TITLES`.
        fitted: the scalings to keep: fitted on the rows to fit by, or with folds on all rows.
        logits: of every method, the logits of all rows; with folds, of each by the scaling fitted without it.
        part: where each row was: 0 to fit by, 1 to test; with folds, the number of its fold.
        tested: the rows that the numbers are of.
        found: the metrics of every method on these rows.
        change: their differences to the predictions as they are.
        recommended: the method to use.
        ridge: of matrix scaling.
        noise: the calibration error that the recommended probabilities would show on average if they were true.
    """

    methods: list[str]
    fitted: dict[str, Scaling]
    logits: dict[str, Tensor]
    part: Tensor
    tested: Tensor
    found: dict[str, dict[str, Estimate]]
    change: dict[str, dict[str, Estimate]]
    recommended: str
    ridge: float | None
    noise: float

    def reliability(self, method: str, labels: Tensor, bins: int = 10) -> Reliability:
        """Of the test rows, in bins of equal mass."""
        p, predicted = self.logits[method][self.tested].softmax(1).max(1)
        return binned(p.clamp(max=1.0), predicted == labels[self.tested], bins, "equal_mass")


def run(
    z: Tensor,
    y: Tensor,
    *,
    test_share: float = 0.5,
    folds: int | None = None,
    ridge: float | None = None,
    resamples: int = 1000,
    seed: int = 0,
    report: Report = lambda _, __: None,
) -> Outcome:
    """Fit the scalings on a part of the rows and measure them on the other.

    A method is recommended only if its log loss is below that of the simpler one recommended so far, by a 95% interval
    of the difference. An interval is 1.96 standard errors to either side, from resamples of the test rows; the fits
    stay as they are.

    Args:
        z: logits (N, C).
        y: class indices (N,).
        test_share: of the rows, to measure on.
        folds: measure every row by scalings fitted on the other folds, instead.
        ridge: of matrix scaling; if not given, chosen by 3 folds of the rows to fit by.
        resamples: of the bootstrap.
        seed: fixes the parts and the bootstrap.
        report: told what is at work, and the share that is done.

    Raises:
        InputError: there are too few rows, or an argument is out of range.
    """
    _check(y, test_share, folds, ridge, resamples)
    generator = torch.Generator().manual_seed(seed)
    part = _parts(y, folds or 0, test_share, generator)
    methods = [m for m in TITLES if m != "matrix" or z.shape[1] <= MOST_CLASSES or ridge is not None]
    whole = torch.ones_like(part, dtype=torch.bool)
    # Each entry: the rows to fit by, and those that the scaling is used on.
    splits = [(part != k, part == k) for k in range(folds)] if folds else []
    splits.append((whole if folds else part == 0, whole))
    logits = {m: z.clone() for m in methods}
    fitted: dict[str, Scaling] = {}
    chosen = ridge
    for i, (by, on) in enumerate(splits):
        for j, method in enumerate(methods[1:]):
            report(f"Fitting {TITLES[method].lower()}", 0.5 * (i + j / 3) / len(splits))
            if method == "matrix" and ridge is None:
                chosen = _choose_ridge(z[by], y[by])
            scaling = make(method, z.shape[1], chosen).fit(z[by], y[by])
            if not folds or i < folds:
                logits[method][on] = scaling(z[on])
            fitted[method] = scaling
    tested = whole if folds else part == 1
    scores = {m: _rows(logits[m][tested], y[tested]) for m in methods}
    drawn: dict[str, dict[str, list[Tensor]]] = {m: {k: [] for k in METRICS} for m in methods}
    n, done = int(tested.sum()), 0
    while done < resamples:
        step = min(max(1, _CHUNK // n), resamples - done)
        at = torch.randint(n, (step, n), generator=generator)
        for m in methods:
            for k, values in _metrics(*(v[at] for v in scores[m])).items():
                drawn[m][k].append(values)
        done += step
        report("Resampling the test rows", 0.5 + 0.5 * done / resamples)
    exact = {m: {k: v.item() for k, v in _metrics(*scores[m]).items()} for m in methods}
    samples = {m: {k: torch.cat(v) for k, v in drawn[m].items()} for m in methods}
    found = {m: {k: _interval(exact[m][k], samples[m][k], 0.0, MOST.get(k, 1.0)) for k in METRICS} for m in methods}

    def difference(a: str, b: str, k: str) -> Estimate:
        return _interval(exact[a][k] - exact[b][k], samples[a][k] - samples[b][k])

    recommended = AS_IS
    for m in methods[1:]:
        if difference(m, recommended, "log_loss").high < 0:
            recommended = m
    change = {m: {k: difference(m, AS_IS, k) for k in METRICS} for m in methods[1:]}
    confidence = scores[recommended][2].expand(200, -1)
    hits = torch.rand(confidence.shape, generator=generator, dtype=confidence.dtype) < confidence
    noise = binned(confidence, hits, BINS).error().mean().item()
    return Outcome(methods, fitted, logits, part, tested, found, change, recommended, chosen, noise)


def make(method: str, classes: int, ridge: float | None = None) -> Scaling:
    if method == "temperature":
        return TemperatureScaling()
    return VectorScaling(classes) if method == "vector" else MatrixScaling(classes, ridge or 0.0)


def _check(y: Tensor, test_share: float, folds: int | None, ridge: float | None, resamples: int) -> None:
    if len(y) < FEWEST_ROWS:
        raise InputError(f"Expected at least {FEWEST_ROWS} rows to fit and test by, but got {len(y)}.")
    if not 0 < test_share < 1 or not 2 <= round(test_share * len(y)) <= len(y) - 2:
        raise InputError(f"Expected --test-share in (0, 1), with two rows at least in each part, but got {test_share}.")
    if folds is not None and not 2 <= folds <= len(y) // 2:
        raise InputError(f"Expected --folds of at least 2 and at most {len(y) // 2}, but got {folds}.")
    if ridge is not None and not 0 <= ridge < math.inf:
        raise InputError(f"Expected --ridge in [0, inf), but got {ridge}.")
    if resamples < 100:
        raise InputError(f"Expected --resamples of at least 100, but got {resamples}.")


def _parts(y: Tensor, folds: int, test_share: float, generator: torch.Generator) -> Tensor:
    """The part of each row, every class spread evenly."""
    shuffled = torch.randperm(len(y), generator=generator)
    order = shuffled[y[shuffled].argsort(stable=True)]
    at = torch.arange(len(y), dtype=torch.float64)
    if folds:
        dealt = (at % folds).long()
    else:
        dealt = ((at + 1) * test_share + 0.5).floor().long() - (at * test_share + 0.5).floor().long()
    return torch.empty_like(dealt).scatter(0, order, dealt)


def _choose_ridge(z: Tensor, y: Tensor) -> float:
    """The ridge of the lowest log loss on the folds left out; the strongest if they tie."""
    part = _parts(y, 3, 0.0, torch.Generator().manual_seed(0))

    def log_loss(ridge: float) -> float:
        total = 0.0
        for k in range(3):
            scaling = MatrixScaling(z.shape[1], ridge).fit(z[part != k], y[part != k])
            total += _rows(scaling(z[part == k]), y[part == k])[0].sum().item()
        return total

    return min(reversed(RIDGES), key=log_loss)


def _rows(z: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """Log loss, Brier score, confidence and hit of each row."""
    log_p = z.log_softmax(1)
    p = log_p.exp()
    confidence, predicted = p.max(1)
    log_loss = -log_p.gather(1, y.unsqueeze(1)).squeeze(1)
    brier = (p - one_hot(y, z.shape[1])).square().sum(1)
    return log_loss, brier, confidence.clamp(max=1.0), (predicted == y).double()


def _metrics(log_loss: Tensor, brier: Tensor, confidence: Tensor, hits: Tensor) -> dict[str, Tensor]:
    """Numbers of the rows (..., N) to metrics (...)."""
    return {
        "log_loss": log_loss.mean(-1),
        "brier": brier.mean(-1),
        "calibration_error": binned(confidence, hits, BINS).error(),
        "calibration_error_equal_mass": binned(confidence, hits, BINS, "equal_mass").error(),
        "accuracy": hits.mean(-1),
    }


def _interval(value: float, samples: Tensor, least: float = -math.inf, most: float = math.inf) -> Estimate:
    """Around the value: the resamples of a calibration error are too high on average, so their quantiles are not."""
    half = 1.959964 * samples.std().item()
    return Estimate(value, max(value - half, least), min(value + half, most))
