"""Metrics of many models at once, against scikit-learn, torchmetrics and longhand."""

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss
from torch import Tensor
from torchmetrics.classification import MulticlassCalibrationError

from lossfit.compare.scoring import metrics

M, N, C = 3, 211, 5
Reference = Callable[[np.ndarray, np.ndarray], float]


def sk_balanced(p: np.ndarray, y: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class may be predicted and never be there
        return float(balanced_accuracy_score(y, p.argmax(1)))


def sk_f1(p: np.ndarray, y: np.ndarray) -> float:
    return float(f1_score(y, p.argmax(1), labels=range(p.shape[1]), average="macro", zero_division=0))


def longhand_brier(p: np.ndarray, y: np.ndarray) -> float:
    rows = [sum((p[i, c] - (c == y[i])) ** 2 for c in range(p.shape[1])) for i in range(len(p))]
    return sum(rows) / len(rows)


def longhand_bins(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rows, confidence and hits of each bin, (3, 15)."""
    found = np.zeros((3, 15))
    for row, target in zip(p, y, strict=True):
        confidence = row.max()
        b = next(b for b in range(15) if confidence <= (b + 1) / 15 + 1e-12)
        found[:, b] += 1, confidence, row.argmax() == target
    return found


def longhand_calibration(p: np.ndarray, y: np.ndarray) -> float:
    rows, confidence, hits = longhand_bins(p, y)
    return sum(r / len(p) * abs(c / r - h / r) for r, c, h in zip(rows, confidence, hits, strict=True) if r)


def longhand_risks(p: np.ndarray, y: np.ndarray) -> list[float]:
    ranked = sorted(range(len(p)), key=lambda i: -p[i].max())
    wrong = [p[i].argmax() != y[i] for i in ranked]
    return [sum(wrong[:k]) / k for k in range(1, len(p) + 1)]


REFERENCES: dict[str, Reference] = {
    "accuracy": lambda p, y: float(accuracy_score(y, p.argmax(1))),
    "balanced_accuracy": sk_balanced,
    "macro_f1": sk_f1,
    "log_loss": lambda p, y: float(log_loss(y, p, labels=range(p.shape[1]))),
    "brier": longhand_brier,
    "calibration_error": longhand_calibration,
    "aurc": lambda p, y: float(np.mean(longhand_risks(p, y))),
}


def random_batch(classes: int = C, rows: int = N) -> tuple[Tensor, Tensor]:
    log_p = (2 * torch.randn(M, rows, classes, dtype=torch.float64)).log_softmax(2)
    return log_p, torch.randint(classes, (M, rows))


def never(log_p: Tensor, classes: list[int]) -> Tensor:
    """Log-probabilities by which these classes are not predicted."""
    z = log_p.clone()
    z[..., classes] -= 20
    return z.log_softmax(2)


def batches() -> dict[str, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    log_p, y = random_batch()
    return {
        "all classes": (log_p, y),
        "classes that are not there": (log_p, y.clamp(1, 3)),
        "classes that are not predicted": (never(log_p, [0, 3]), y),
        "classes neither there nor predicted": (never(log_p, [0, 4]), y.clamp(1, 3)),
        "one class there, another predicted": (never(log_p, [1, 2, 3, 4]), torch.full_like(y, 2)),
        "always right": (log_p, log_p.argmax(2)),
        "two classes": random_batch(2),
        "one row": random_batch(rows=1),
    }


BATCHES = batches()


def test_every_metric_has_a_reference() -> None:
    assert REFERENCES.keys() == metrics.METRICS.keys()


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("case", BATCHES)
def test_metrics(name: str, case: str) -> None:
    log_p, y = BATCHES[case]
    expected = [REFERENCES[name](p, t) for p, t in zip(log_p.exp().numpy(), y.numpy(), strict=True)]
    found = metrics.METRICS[name].function(log_p, y)
    assert found.shape == (M,)
    assert found.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", REFERENCES)
def test_models_at_once_equal_one_by_one(name: str) -> None:
    function = metrics.METRICS[name].function
    log_p, y = random_batch()
    each = [function(log_p[m : m + 1], y[m : m + 1]).item() for m in range(M)]
    assert function(log_p, y).tolist() == pytest.approx(each, rel=1e-13)
    assert len(set(each)) == M


@pytest.mark.parametrize("name", REFERENCES)
def test_metrics_of_float32_are_summed_in_float64(name: str) -> None:
    log_p, y = random_batch()
    log_p = log_p.float()
    found = metrics.METRICS[name].function(log_p, y)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(metrics.METRICS[name].function(log_p.double(), y).tolist(), rel=1e-12)


@pytest.mark.parametrize("name", REFERENCES)
def test_order_of_rows_does_not_matter(name: str) -> None:
    log_p, y = random_batch()
    order = torch.randperm(N)
    function = metrics.METRICS[name].function
    assert function(log_p[:, order], y[:, order]).tolist() == pytest.approx(function(log_p, y).tolist(), rel=1e-12)


@pytest.mark.parametrize("name", [name for name, metric in metrics.METRICS.items() if not metric.needs_probabilities])
def test_metrics_that_need_no_probabilities_take_logits(name: str) -> None:
    z, y = 3 * torch.randn(M, N, C), torch.randint(C, (M, N))
    function = metrics.METRICS[name].function
    assert function(z, y).tolist() == function(z.log_softmax(2), y).tolist()


def test_more_is_better_where_it_is_said() -> None:
    y = torch.arange(N).remainder(C).expand(1, N)
    wrong = torch.full((1, N, C), 1e-9, dtype=torch.float64).scatter(2, ((y + 1) % C).unsqueeze(2), 1.0).log()
    right = torch.full((1, N, C), 1e-9, dtype=torch.float64).scatter(2, y.unsqueeze(2), 1.0).log()
    for name, metric in metrics.METRICS.items():
        good, bad = metric.function(right, y).item(), metric.function(wrong, y).item()
        assert (good > bad) == metric.higher, name


@pytest.mark.parametrize("spread", [0.3, 2.0, 6.0])
def test_calibration_error_is_that_of_torchmetrics(spread: float) -> None:
    log_p = (spread * torch.randn(M, 997, C, dtype=torch.float64)).log_softmax(2)
    y = torch.randint(C, (M, 997))
    for m, found in enumerate(metrics.calibration_error(log_p, y).tolist()):
        expected = MulticlassCalibrationError(C, n_bins=15, norm="l1")(log_p[m].exp(), y[m])
        assert found == pytest.approx(expected.item(), rel=1e-5)


def test_reliability_counts_the_rows_of_each_bin() -> None:
    log_p, y = random_batch(rows=500)
    found = torch.stack(metrics.reliability(log_p, y), 1)
    for m in range(M):
        expected = longhand_bins(log_p[m].exp().numpy(), y[m].numpy())
        assert found[m].numpy() == pytest.approx(expected, rel=1e-9)
        assert (expected[0] > 0).sum() > 8


def test_a_confidence_of_1_is_in_the_last_bin() -> None:
    log_p = torch.tensor([[[0.0, -math.inf], [0.0, -math.inf], [-800.0, 0.0], [1e-7, -16.0]]])
    count, confidence, hits = metrics.reliability(log_p, torch.tensor([[0, 1, 1, 0]]))
    assert count.tolist() == [[0.0] * 14 + [4.0]]
    assert confidence.tolist() == [[0.0] * 14 + [4.0]]
    assert hits.tolist() == [[0.0] * 14 + [3.0]]


def test_a_bin_holds_its_upper_end() -> None:
    p = torch.tensor([[0.6, 0.4], [0.8, 0.2], [0.61, 0.39]], dtype=torch.float64)
    count, _, _ = metrics.reliability(p.log()[None] - 1e-15, torch.zeros(1, 3, dtype=torch.int64))
    assert count.nonzero()[:, 1].tolist() == [8, 9, 11]


def test_risk_coverage_is_the_error_rate_of_the_most_confident() -> None:
    log_p, y = random_batch(rows=500)
    found = metrics.risk_coverage(log_p, y)
    assert found.shape == (M, len(metrics.COVERAGES))
    assert list(metrics.COVERAGES) == pytest.approx(np.linspace(0.02, 1, 50).tolist())
    for m in range(M):
        risks = longhand_risks(log_p[m].exp().numpy(), y[m].numpy())
        assert found[m].tolist() == pytest.approx([risks[10 * (i + 1) - 1] for i in range(50)], rel=1e-12)


def test_risk_coverage_of_few_rows_starts_with_one() -> None:
    log_p, y = random_batch(rows=3)
    found = metrics.risk_coverage(log_p, y)
    for m in range(M):
        risks = longhand_risks(log_p[m].exp().numpy(), y[m].numpy())
        assert found[m, [0, 24, 49]].tolist() == [risks[0], risks[1], risks[2]]


def test_rows_of_the_same_confidence_stay_in_order() -> None:
    p = torch.tensor([[0.3, 0.7], [0.7, 0.3], [0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)
    y = torch.tensor([[0, 0, 0, 1]])
    log_p = torch.where(p == 0.7, math.log(0.7), torch.where(p == 0.3, math.log(0.3), p.log()))[None]
    assert metrics.aurc(log_p, y).item() == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    z = torch.tensor([[1.0, 0.0], [2.0, 0.0]]).double()[torch.randint(2, (1, 1000))]
    y = torch.randint(2, (1, 1000))
    risks = longhand_risks(z[0].softmax(1).numpy(), y[0].numpy())
    assert metrics.aurc(z.log_softmax(2), y).item() == pytest.approx(np.mean(risks), rel=1e-12)


@pytest.mark.parametrize("wrong", [0, 1])
def test_without_ranking_the_risk_is_the_error_rate(wrong: int) -> None:
    log_p = torch.full((1, 40, 4), math.log(0.25), dtype=torch.float64)
    y = torch.full((1, 40), wrong)
    assert metrics.aurc(log_p, y).item() == wrong
    assert metrics.calibration_error(log_p, y).item() == pytest.approx(abs((1 - wrong) - 0.25))


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_metrics_of_tied_scores_agree_with_each_other(data: st.DataObject) -> None:
    rows, classes = data.draw(st.integers(1, 9)), data.draw(st.integers(2, 4))
    numbers = st.lists(st.integers(-2, 2), min_size=rows * classes, max_size=rows * classes)
    log_p = torch.tensor(data.draw(numbers)).double().view(1, rows, classes).log_softmax(2)
    y = torch.tensor([data.draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows))])
    for name, reference in REFERENCES.items():
        expected = reference(log_p[0].exp().numpy(), y[0].numpy())
        if name != "aurc":  # ties of confidence are by rounding there
            assert metrics.METRICS[name].function(log_p, y).item() == pytest.approx(expected, rel=1e-9, abs=1e-12), name
    accuracy = metrics.accuracy(log_p, y).item()
    assert metrics.risk_coverage(log_p, y)[0, -1].item() == pytest.approx(1 - accuracy)
    assert metrics.reliability(log_p, y)[2].sum().item() == pytest.approx(rows * accuracy)
    assert metrics.reliability(log_p, y)[0].sum().item() == rows
