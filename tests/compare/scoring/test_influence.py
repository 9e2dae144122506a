"""Influences of rows on metrics, against the formulas and against leaving rows out."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lossfit.compare.scoring import metrics
from lossfit.compare.scoring.influence import influences, jackknife_cells, jackknife_influences
from lossfit.compare.scoring.tasks import MULTI_LABEL, SINGLE_LABEL

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


def left_out(metric: metrics.Metric, scores: Tensor, y: Tensor, w: Tensor) -> np.ndarray:
    """Of one model, (1, N, C), the metric without each row in turn: rows without weight are as if not there."""
    n = len(y)
    found: Tensor = metric.function(scores.expand(n, -1, -1), y.expand(n, *y.shape), w * (1 - torch.eye(n)))
    return found.numpy()


CASES = [(name, card, single) for name, card in SINGLE_LABEL.choices().items()]
CASES += [(name, card, several) for name, card in MULTI_LABEL.choices().items()]
BINNED = ("calibration_error", "classwise_calibration_error")
ROUGH = "adaptive_calibration_error"
"""Its bins' edges move with every row, more than the row itself matters: the influence leaves that out."""


@pytest.mark.parametrize(
    ("name", "metric", "draw"),
    [c for c in CASES if c[0] != ROUGH],
    ids=[f"{c[2].__name__}-{c[0]}" for c in CASES if c[0] != ROUGH],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_row_left_out_changes_the_metric_by_its_influence(
    name: str, metric: metrics.Metric, draw: Callable[..., tuple[Tensor, Tensor]], weighted: bool
) -> None:
    n = 150
    scores, y = draw(7, n)
    w = weights(n) if weighted else torch.ones(n, dtype=torch.float64)
    values, found = influences(metric, scores, y, w if weighted else None)
    assert found.sum(1) == pytest.approx(np.zeros(M), abs=1e-3)
    for m in range(M):
        jackknife = n * (values[m] - left_out(metric, scores[m : m + 1], y, w))
        # A row may turn the sign of a bin whose gap is smaller than a row, and a bin's edge may move.
        assert np.corrcoef(found[m], jackknife)[0, 1] > (0.6 if name in BINNED else 0.98)
        assert found[m].std() == pytest.approx(jackknife.std(), rel=0.35 if name in BINNED else 0.1)


def test_the_area_under_the_curve_has_the_placement_values() -> None:
    """DeLong's: of a positive row the share of negative ones below, of a negative one that of positive ones above."""
    log_p, y = single(2)
    score, positive = (log_p[..., 1] - log_p[..., 0]).numpy(), y.numpy() == 1
    _, found = influences(SINGLE_LABEL.choices()["auc"], log_p, y)
    for m in range(M):
        above = (score[m][:, None] > score[m]) + 0.5 * (score[m][:, None] == score[m])
        placed = np.where(positive, above[:, ~positive].mean(1), above[positive].mean(0))
        area = above[positive][:, ~positive].mean()
        expected = N / np.where(positive, positive.sum(), (~positive).sum()) * (placed - area)
        assert found[m] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "macro_f1", "log_loss", "brier", "auc"])
def test_groups_left_out_agree_with_the_influences(name: str) -> None:
    log_p, y = single(3, 2000)
    card = SINGLE_LABEL.choices()[name]
    folds = np.stack([np.random.default_rng(r).permutation(2000) % 5 for r in range(2)])
    cells = jackknife_cells(folds)
    values, found = influences(card, log_p, y)
    again, shared = jackknife_influences(card.function, log_p, y, cells)
    assert again == pytest.approx(values, rel=1e-12)
    for m in range(M):
        exact, rough = (np.bincount(cells, rows[m]) for rows in (found, shared))
        assert np.corrcoef(exact, rough)[0, 1] > 0.98
        assert (rough**2).sum() == pytest.approx((exact**2).sum(), rel=0.15)


@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("grouped", [False, True])
def test_cells_lie_in_one_fold_of_each_repeat(repeats: int, grouped: bool) -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 60, 300) if grouped else None
    of_group = np.stack([rng.permutation(60) % 5 for _ in range(repeats)])
    folds = of_group[:, groups] if grouped else np.stack([rng.permutation(300) % 5 for _ in range(repeats)])
    cells = jackknife_cells(folds, groups)
    assert len(np.unique(cells)) >= 20
    for cell in np.unique(cells):
        assert all(len(set(fold[cells == cell])) == 1 for fold in folds)
    if groups is not None:
        assert all(len(set(cells[groups == g])) == 1 for g in set(groups.tolist()))


DEGENERATE = {
    "one row": (torch.tensor([[[0.3, 0.7]]]).log().double(), torch.tensor([1])),
    "always right": (single(3)[0][:1], single(3)[0][0].argmax(1)),
    "one class there": (single(3)[0], torch.ones(N, dtype=torch.int64)),
    "one class predicted": ((single(3)[0] - torch.tensor([0.0, 30, 30])).log_softmax(2), single(3)[1]),
    "all scores tied": (torch.zeros(M, N, 3, dtype=torch.float64).log_softmax(2), single(3)[1]),
    "sure and wrong": (torch.tensor([[[0.0, -800.0]] * 4]).double(), torch.tensor([1, 0, 1, 1])),
}


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("name", SINGLE_LABEL.choices())
def test_influences_are_finite_and_sum_to_nothing_on_any_input(name: str, case: str) -> None:
    log_p, y = DEGENERATE[case]
    values, found = influences(SINGLE_LABEL.choices()[name], log_p, y)
    assert np.isfinite(values).all()
    assert np.isfinite(found).all()
    assert found.sum(1) == pytest.approx(np.zeros(len(log_p)), abs=1e-3)


@pytest.mark.parametrize("name", SINGLE_LABEL.choices())
def test_a_row_without_weight_has_no_influence_and_changes_no_other(name: str) -> None:
    log_p, y = single(4)
    w = weights()
    w[::3] = 0
    values, found = influences(SINGLE_LABEL.choices()[name], log_p, y, w)
    kept = w > 0
    some, of_some = influences(SINGLE_LABEL.choices()[name], log_p[:, kept], y[kept], w[kept])
    assert (found[:, ~kept.numpy()] == 0).all()
    if name != ROUGH:  # whose bins hold as many rows each, whatever these weigh
        assert values == pytest.approx(some, rel=1e-9)
        assert found[:, kept.numpy()] * kept.sum().item() / N == pytest.approx(of_some, rel=1e-4, abs=1e-5)


def test_models_are_taken_in_parts_without_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    log_p, y = single(4)
    whole = influences(SINGLE_LABEL.choices()["macro_f1"], log_p, y)
    monkeypatch.setattr("lossfit.compare.scoring.influence.NUMBERS", 1)
    parts = influences(SINGLE_LABEL.choices()["macro_f1"], log_p, y)
    assert (whole[0] == parts[0]).all()
    assert (whole[1] == parts[1]).all()
