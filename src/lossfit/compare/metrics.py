"""The metrics, for many models at once: log-probabilities (M, N, C) and targets (M, N) to numbers (M,)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lossfit.calibration.reliability import Reliability, binned
from lossfit.calibration.selective import risks

BINS = 15
COVERAGES = tuple((i + 1) / 50 for i in range(50))


class Metric(NamedTuple):
    """A metric: its function, whether more is better, what to call it, and whether it is told in percent."""

    function: Callable[[Tensor, Tensor], Tensor]
    higher: bool
    title: str
    percent: bool
    needs_probabilities: bool


def accuracy(log_p: Tensor, target: Tensor) -> Tensor:
    return (log_p.argmax(2) == target).double().mean(1)


def balanced_accuracy(log_p: Tensor, target: Tensor) -> Tensor:
    """Mean recall over the classes that occur."""
    hits, _, of_class = _counts(log_p, target)
    recall = hits / of_class.clamp(min=1)
    return recall.sum(1) / (of_class > 0).sum(1)


def macro_f1(log_p: Tensor, target: Tensor) -> Tensor:
    """Mean F1 over all classes; 0 for a class that is neither there nor predicted."""
    hits, predicted, of_class = _counts(log_p, target)
    return (2 * hits / (predicted + of_class).clamp(min=1)).mean(1)


def log_loss(log_p: Tensor, target: Tensor) -> Tensor:
    return -log_p.gather(2, target.unsqueeze(2)).squeeze(2).double().mean(1)


def brier(log_p: Tensor, target: Tensor) -> Tensor:
    """Mean over rows of the squared distance between probabilities and the one-hot label, in [0, 2]."""
    return (log_p.double().exp() - one_hot(target, log_p.shape[2])).square().sum(2).mean(1)


def calibration_error(log_p: Tensor, target: Tensor) -> Tensor:
    """Expected calibration error: mean distance of confidence and accuracy over 15 equal bins of the confidence."""
    return reliability(log_p, target).error()


def aurc(log_p: Tensor, target: Tensor) -> Tensor:
    """Area under the risk-coverage curve: the error rate among the most confident rows, averaged over coverages."""
    return _risks(log_p, target).mean(1)


METRICS = {
    "accuracy": Metric(accuracy, True, "Accuracy", True, False),
    "balanced_accuracy": Metric(balanced_accuracy, True, "Balanced accuracy", True, False),
    "macro_f1": Metric(macro_f1, True, "Macro F1", True, False),
    "log_loss": Metric(log_loss, False, "Log loss", False, True),
    "brier": Metric(brier, False, "Brier score", False, True),
    "calibration_error": Metric(calibration_error, False, "Calibration error", True, True),
    "aurc": Metric(aurc, False, "Area under risk-coverage", True, True),
}


def reliability(log_p: Tensor, target: Tensor) -> Reliability:
    """Rows, sum of confidences and hits in each bin of the confidence, (M, 15) each."""
    confidence, predicted = log_p.double().max(2)
    return binned(confidence.exp().clamp(max=1.0), predicted == target, BINS)


def risk_coverage(log_p: Tensor, target: Tensor) -> Tensor:
    """The error rate among the most confident 2%, 4%, ... 100% of the rows, (M, 50)."""
    found = _risks(log_p, target)
    n = found.shape[1]
    return found[:, [max(1, round(c * n)) - 1 for c in COVERAGES]]


def _risks(log_p: Tensor, target: Tensor) -> Tensor:
    """The error rate among the k most confident rows, k = 1 .. N, (M, N)."""
    confidence, predicted = log_p.max(2)
    return risks(confidence, predicted == target)


def _counts(log_p: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hits, predictions and rows of each class, (M, C) each."""
    predicted = log_p.argmax(2)
    zero = log_p.new_zeros(len(log_p), log_p.shape[2], dtype=torch.float64)
    one = torch.ones_like(predicted, dtype=torch.float64)
    hits = zero.scatter_add(1, target, (predicted == target).double())
    return hits, zero.scatter_add(1, predicted, one), zero.scatter_add(1, target, one)
