"""Influences of rows on metrics, against the formulas and against leaving rows out."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lossfit.compare.scoring import metrics, multilabel_metrics
from lossfit.compare.verdict.influence import influences

M, N = 3, 120


def single(classes: int, rows: int = N, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (rows,), generator=rng)
    z = torch.randn(M, rows, classes, generator=rng, dtype=torch.float64)
    z += 1.5 * torch.nn.functional.one_hot(y, classes)
    return z.log_softmax(2), y


def several(classes: int, rows: int = N, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    y = torch.rand(rows, classes, generator=rng) < 0.4
    return torch.randn(M, rows, classes, generator=rng, dtype=torch.float64) + y.double(), y


def weights(rows: int = N, seed: int = 1) -> Tensor:
    return torch.rand(rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


# The formulas of the specification, for rows that count the same.


def of_accuracy(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    hit = p.argmax(1) == y
    return hit - hit.mean()


def of_log_loss(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    own = -np.log(p[np.arange(len(y)), y])
    return own - own.mean()


def of_balanced_accuracy(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    hit, classes = p.argmax(1) == y, np.unique(y)
    recall = {c: hit[y == c].mean() for c in classes}
    return np.array([len(y) * (h - recall[c]) / (len(classes) * (y == c).sum()) for h, c in zip(hit, y, strict=True)])


def of_macro_f1(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    said, n, classes = p.argmax(1), len(y), p.shape[1]
    size = [(y == c).sum() + (said == c).sum() for c in range(classes)]
    f = [2 * ((y == c) & (said == c)).sum() / size[c] if size[c] else 0.0 for c in range(classes)]
    own = [2 * (a == b) / size[a] - f[a] / size[a] - f[b] / size[b] for a, b in zip(y, said, strict=True)]
    return n / classes * np.array(own)


def of_calibration_error(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    confidence, hit = p.max(1), p.argmax(1) == y
    bins = np.ceil(confidence * 15 - 1e-12).astype(int)
    gap = {b: (confidence - hit)[bins == b].sum() for b in set(bins.tolist())}
    error = sum(abs(g) for g in gap.values()) / len(y)
    return np.array([np.sign(gap[b]) * (c - h) - error for b, c, h in zip(bins.tolist(), confidence, hit, strict=True)])


FORMULAS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "accuracy": of_accuracy,
    "log_loss": of_log_loss,
    "balanced_accuracy": of_balanced_accuracy,
    "macro_f1": of_macro_f1,
    "calibration_error": of_calibration_error,
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("classes", [2, 5])
def test_influences_are_those_of_the_formulas(name: str, classes: int) -> None:
    log_p, y = single(classes)
    values, found = influences(metrics.METRICS[name], log_p, y)
    assert values == pytest.approx(metrics.METRICS[name].function(log_p, y.expand(M, -1)).numpy(), rel=1e-12)
    for m in range(M):
        assert found[m] == pytest.approx(FORMULAS[name](log_p[m].exp().numpy(), y.numpy()), rel=1e-5, abs=1e-6)


def left_out(metric: metrics.Metric, scores: Tensor, y: Tensor, w: Tensor, rows: Tensor) -> np.ndarray:
    kept = torch.ones(len(y), dtype=torch.bool)
    kept[rows] = False
    target = y[kept]
    return metric.function(scores[:, kept], target.expand(M, *target.shape), w[kept].expand(M, -1)).numpy()


CASES = [*((name, metrics.METRICS[name], single) for name in metrics.METRICS)]
CASES += [(name, multilabel_metrics.METRICS[name], several) for name in multilabel_metrics.METRICS]


@pytest.mark.parametrize(("name", "metric", "draw"), CASES, ids=[f"{c[2].__name__}-{c[0]}" for c in CASES])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_row_left_out_changes_the_metric_by_its_influence(
    name: str, metric: metrics.Metric, draw: Callable[..., tuple[Tensor, Tensor]], weighted: bool
) -> None:
    scores, y = draw(4, 400)
    w = weights(400) if weighted else torch.ones(400, dtype=torch.float64)
    values, found = influences(metric, scores, y, w if weighted else None)
    assert found.sum(1) == pytest.approx(np.zeros(M), abs=1e-3)
    jackknife = np.stack([400 * (values - left_out(metric, scores, y, w, torch.tensor([i]))) for i in range(400)], 1)
    for m in range(M):
        # A row may turn the sign of a bin of the calibration error whose gap is smaller than a row.
        assert np.corrcoef(found[m], jackknife[m])[0, 1] > (0.9 if name == "calibration_error" else 0.99)
        assert found[m].std() == pytest.approx(jackknife[m].std(), rel=0.05)
