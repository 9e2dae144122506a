"""The metrics that are measured if they are asked for, against scikit-learn's, with weights, on any input."""

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from torch import Tensor

from lossfit.compare.scoring import confusion_metrics, tasks
from lossfit.compare.scoring.tasks import MULTI_LABEL, SINGLE_LABEL

M, N = 3, 90
Reference = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


def one_vs_rest(function: Callable[..., float], by_rows: bool = False) -> Reference:
    """The mean over the classes that occur of a binary metric; of two classes, of the second."""

    def reference(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
        if p.shape[1] == 2:
            return function(y == 1, p[:, 1], sample_weight=w)
        there = np.unique(y)
        each = [function(y == c, p[:, c], sample_weight=w) for c in there]
        return float(np.average(each, weights=[w[y == c].sum() if by_rows else 1.0 for c in there]))

    return reference


def geometric_mean(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    recall = [np.average(p.argmax(1)[y == c] == c, weights=w[y == c]) for c in np.unique(y)]
    return float(np.prod(recall) ** (1 / len(recall)))


def bins(p: np.ndarray, hit: np.ndarray, w: np.ndarray, at: np.ndarray) -> float:
    return sum(abs((w * (p - hit))[at == b].sum()) for b in set(at.tolist())) / w.sum()


def classwise(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    return float(np.mean([bins(q, y == c, w, np.maximum(np.ceil(q * 15 - 1e-12), 1)) for c, q in enumerate(p.T)]))


def adaptive(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    confidence = p.max(1)
    below = np.array([(confidence < c).sum() for c in confidence])
    return bins(confidence, p.argmax(1) == y, w, below * 15 // len(y))


def top(k: int) -> Reference:
    return lambda p, y, w: float(np.average((np.argsort(-p, 1)[:, :k] == y[:, None]).any(1), weights=w))


def predicted(function: Callable[..., float], **options: object) -> Reference:
    return lambda p, y, w: float(function(y, p.argmax(1), sample_weight=w, **options))


def macro(function: Callable[..., float], **options: object) -> Reference:
    return lambda p, y, w: predicted(function, labels=range(p.shape[1]), zero_division=0, **options)(p, y, w)


SINGLE: dict[str, Reference] = {
    "auc": one_vs_rest(sk.roc_auc_score),
    "weighted_auc": one_vs_rest(sk.roc_auc_score, by_rows=True),
    "average_precision": one_vs_rest(sk.average_precision_score),
    "top_3_accuracy": top(3),
    "top_5_accuracy": top(5),
    "f1": lambda p, y, w: predicted(sk.f1_score, labels=[p.shape[1] - 1], average="macro", zero_division=0)(p, y, w),
    "f2": lambda p, y, w: predicted(sk.fbeta_score, labels=[p.shape[1] - 1], average="macro", zero_division=0, beta=2)(
        p, y, w
    ),
    "f0.5": lambda p, y, w: predicted(
        sk.fbeta_score, labels=[p.shape[1] - 1], average="macro", zero_division=0, beta=0.5
    )(p, y, w),
    "weighted_f1": macro(sk.f1_score, average="weighted"),
    "geometric_mean": geometric_mean,
    "jaccard": macro(sk.jaccard_score, average="macro"),
    "matthews": predicted(sk.matthews_corrcoef),
    "kappa": predicted(sk.cohen_kappa_score),
    "quadratic_kappa": predicted(sk.cohen_kappa_score, weights="quadratic"),
    "classwise_calibration_error": classwise,
    "adaptive_calibration_error": adaptive,
}
SEVERAL: dict[str, Reference] = {
    "mean_average_precision": lambda z, y, w: float(
        np.mean(
            [sk.average_precision_score(y[:, c], z[:, c], sample_weight=w) for c in range(y.shape[1]) if y[:, c].any()]
        )
    ),
    "coverage_error": lambda z, y, w: float(sk.coverage_error(y, z, sample_weight=w)),
}


def cases() -> Iterator[tuple[str, Tensor, Tensor]]:
    rng = torch.Generator().manual_seed(0)

    def drawn(classes: int, rows: int = N) -> tuple[Tensor, Tensor]:
        y = torch.randint(classes, (rows,), generator=rng)
        z = torch.randn(M, rows, classes, generator=rng, dtype=torch.float64)
        return (z + torch.nn.functional.one_hot(y, classes)).log_softmax(2), y

    yield "two classes", *drawn(2)
    yield "six classes", *drawn(6)
    log_p, y = drawn(6)
    yield "classes that are not there", log_p, y.clamp(1, 3)
    log_p, y = drawn(5)
    yield "tied scores", log_p.exp().mul(4).round().add(1).log().log_softmax(2), y
    log_p, y = drawn(2)
    yield "tied scores of two", log_p.exp().mul(4).round().add(1).log().log_softmax(2), y
    log_p, y = drawn(3)
    yield "a class never predicted", (log_p - torch.tensor([20.0, 0, 0])).log_softmax(2), y
    log_p, y = drawn(3)
    yield "one class alone", log_p, y.expand(M, -1) * 0 + 1
    yield "few rows", *drawn(2, 4)


CASES = {name: (log_p, y) for name, log_p, y in cases()}


def test_every_metric_has_a_reference() -> None:
    assert SINGLE.keys() == SINGLE_LABEL.on_request.keys()
    assert SEVERAL.keys() == MULTI_LABEL.on_request.keys()
    assert set(tasks.ALIASES.values()) <= tasks.CARDS.keys()
    assert not tasks.ALIASES.keys() & tasks.CARDS.keys()


# Of tied scores the references know no order, and at an edge the bin depends on the last digit.
UNTIED = ("top_3_accuracy", "top_5_accuracy", "classwise_calibration_error")


@pytest.mark.parametrize(("name", "case"), [(n, c) for n in SINGLE for c in CASES if not (n in UNTIED and "tied" in c)])
@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_of_one_right_class(name: str, case: str, weighted: bool) -> None:
    log_p, y = CASES[case]
    targets = y if y.ndim == 2 else y.expand(M, -1)
    weight = torch.rand(targets.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1
    w = weight if weighted else torch.ones_like(weight)
    found = SINGLE_LABEL.on_request[name].function(log_p, targets, weight if weighted else None)
    assert found.shape == (M,)
    for m in range(M):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = SINGLE[name](log_p[m].exp().numpy(), targets[m].numpy(), w[m].numpy())
        if np.isnan(expected):  # undefined: chance for the area, 0 else
            expected = 0.5 if "auc" in name else 0.0
        assert found[m].item() == pytest.approx(expected, rel=1e-9, abs=1e-12), m


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_of_several_right_classes(name: str, tied: bool, weighted: bool) -> None:
    rng = torch.Generator().manual_seed(2)
    labels = torch.rand(M, N, 4, generator=rng) < torch.tensor([0.5, 0.1, 0.3, 0.0])
    scores = torch.randn(M, N, 4, generator=rng, dtype=torch.float64) + labels
    scores = scores.round() if tied else scores
    weight = torch.rand(M, N, generator=rng, dtype=torch.float64) + 0.1
    found = MULTI_LABEL.on_request[name].function(scores, labels, weight if weighted else None)
    for m in range(M):
        w = weight[m].numpy() if weighted else np.ones(N)
        assert found[m].item() == pytest.approx(SEVERAL[name](scores[m].numpy(), labels[m].numpy(), w), rel=1e-9)


def test_top_k_of_equal_scores_agrees_with_the_prediction() -> None:
    scores, y = torch.zeros(1, 4, 4), torch.tensor([[0, 1, 2, 3]])
    hits = SINGLE_LABEL.on_request["top_3_accuracy"].function(scores, y)
    assert hits.item() == 0.75


def test_the_expected_cost_longhand() -> None:
    costs = torch.tensor([[0.0, 5.0, 1.0], [2.0, 0.0, 3.0], [1.0, 1.0, 0.0]])
    scores = torch.eye(3)[torch.tensor([[0, 1, 2, 0]])].double()
    found = confusion_metrics.metric(confusion_metrics.expected_cost(costs))(scores, torch.tensor([[0, 0, 1, 2]]))
    assert found.item() == pytest.approx((0 + 5 + 3 + 1) / 4)
