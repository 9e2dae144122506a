"""The metrics, for many models at once: log-probabilities (M, N, C) and targets (M, N) to numbers (M,)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lossfit.calibration.reliability import Reliability, binned
from lossfit.calibration.selective import risks, weighted_risks

BINS = 15
COVERAGES = tuple((i + 1) / 50 for i in range(50))


class Metric(NamedTuple):
    """A metric.

    Attributes:
        function: of scores, targets and weights, differentiable in the weights where it depends on them smoothly.
        higher: whether more is better.
        title: what to call it.
        percent: whether it is told in percent.
        needs_probabilities: or whether scores do.
        two_classes: whether it is one of the second of two classes.
    """

    function: Callable[..., Tensor]
    higher: bool
    title: str
    percent: bool
    needs_probabilities: bool
    two_classes: bool = False

    @property
    def factor(self) -> int:
        """From the number to what is told."""
        return 100 if self.percent else 1

    def weighted(self, weight: Tensor | None) -> Metric:
        """The same of rows that count by these weights (S, N): those of model m are in row m S // M."""
        if weight is None:
            return self

        def function(scores: Tensor, target: Tensor) -> Tensor:
            return self.function(scores, target, by_model(weight, len(scores)))

        return self._replace(function=function)


def by_model(weight: Tensor, models: int) -> Tensor:
    """Weights (S, N) for the models of S splits, split by split, (M, N)."""
    return weight.repeat_interleave(models // len(weight), 0)


def mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """The mean over rows, (M, N) to (M,); 0 if no row has weight."""
    if weight is None:
        return values.double().mean(1)
    weight = weight.double()
    return ratio((values.double() * weight).sum(1), weight.sum(1))


def accuracy(log_p: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    return mean(log_p.argmax(2) == target, weight)


def balanced_accuracy(log_p: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean recall over the classes that occur."""
    hits, _, of_class = _counts(log_p, target, weight)
    return ratio(ratio(hits, of_class).sum(1), (of_class > 0).sum(1).double())


def macro_f1(log_p: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean F1 over all classes; 0 for a class that is neither there nor predicted."""
    hits, predicted, of_class = _counts(log_p, target, weight)
    return ratio(2 * hits, predicted + of_class).mean(1)


def log_loss(log_p: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    return -mean(log_p.gather(2, target.unsqueeze(2)).squeeze(2), weight)


def brier(log_p: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean over rows of the squared distance between probabilities and the one-hot label, in [0, 2]."""
    p = log_p.double().exp()
    of_target = p.gather(2, target.unsqueeze(2)).squeeze(2)
    return mean(p.square().sum(2) - of_target.square() + (1 - of_target).square(), weight)


def calibration_error(log_p: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Expected calibration error: mean distance of confidence and accuracy over 15 equal bins of the confidence."""
    found = reliability(log_p, target, weight)
    return ratio((found.confidence - found.hits).abs().sum(1), found.rows.sum(1))


def classwise_calibration_error(log_p: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """The mean over classes of the expected calibration error of the class's own probability."""
    hits = one_hot(target, log_p.shape[2]).mT
    each = None if weight is None else weight.unsqueeze(1).expand(hits.shape)
    found = binned(log_p.double().exp().clamp(max=1.0).mT, hits, BINS, weight=each)
    return ratio((found.confidence - found.hits).abs().sum(2), found.rows.sum(2)).mean(1)


def adaptive_calibration_error(log_p: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Expected calibration error over 15 bins with as many rows each as ties allow."""
    confidence, predicted = log_p.double().max(2)
    found = binned(confidence.exp().clamp(max=1.0), predicted == target, BINS, "equal_mass", weight)
    return ratio((found.confidence - found.hits).abs().sum(1), found.rows.sum(1))


def aurc(log_p: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Area under the risk-coverage curve: the error rate among the most confident rows, averaged over coverages."""
    if weight is None:
        return _risks(log_p, target).mean(1)
    found, reached = _weighted_risks(log_p, target, weight)
    return mean(found, reached.diff(dim=1, prepend=reached.new_zeros(len(reached), 1)))


METRICS = {
    "accuracy": Metric(accuracy, True, "Accuracy", True, False),
    "balanced_accuracy": Metric(balanced_accuracy, True, "Balanced accuracy", True, False),
    "macro_f1": Metric(macro_f1, True, "Macro F1", True, False),
    "log_loss": Metric(log_loss, False, "Log loss", False, True),
    "brier": Metric(brier, False, "Brier score", False, True),
    "calibration_error": Metric(calibration_error, False, "Calibration error", True, True),
    "aurc": Metric(aurc, False, "Area under risk-coverage", True, True),
}
ON_REQUEST = {
    "classwise_calibration_error": Metric(
        classwise_calibration_error, False, "Classwise calibration error", True, True
    ),
    "adaptive_calibration_error": Metric(adaptive_calibration_error, False, "Adaptive calibration error", True, True),
}
"""Besides those of other modules: measured if it is asked for."""


def reliability(log_p: Tensor, target: Tensor, weight: Tensor | None = None) -> Reliability:
    """Rows, or their weight, sum of confidences and hits in each bin of the confidence, (M, 15) each."""
    confidence, predicted = log_p.double().max(2)
    return binned(confidence.exp().clamp(max=1.0), predicted == target, BINS, weight=weight)


def risk_coverage(log_p: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """The error rate among the most confident 2%, 4%, ... 100% of the rows, (M, 50)."""
    if weight is None:
        found = _risks(log_p, target)
        n = found.shape[1]
        return found[:, [max(1, round(c * n)) - 1 for c in COVERAGES]]
    found, reached = _weighted_risks(log_p, target, weight)
    wanted = reached[:, -1:] * torch.tensor(COVERAGES, dtype=reached.dtype)
    return found.gather(1, torch.searchsorted(reached, wanted - 1e-9 * reached[:, -1:]).clamp(max=found.shape[1] - 1))


def _risks(log_p: Tensor, target: Tensor) -> Tensor:
    """The error rate among the k most confident rows, k = 1 .. N, (M, N)."""
    confidence, predicted = log_p.max(2)
    return risks(confidence, predicted == target)


def _weighted_risks(log_p: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    confidence, predicted = log_p.max(2)
    return weighted_risks(confidence, predicted == target, weight)


def _counts(log_p: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Hits, predictions and rows of each class, or their weight, (M, C) each."""
    predicted = log_p.argmax(2)
    zero = log_p.new_zeros(len(log_p), log_p.shape[2], dtype=torch.float64)
    each = torch.ones_like(predicted, dtype=torch.float64) if weight is None else weight.double()
    hits = zero.scatter_add(1, target, each * (predicted == target))
    return hits, zero.scatter_add(1, predicted, each), zero.scatter_add(1, target, each)


def ratio(above: Tensor, below: Tensor) -> Tensor:
    """The ratio, and 0 where both are 0."""
    return torch.where(below > 0, above / torch.where(below > 0, below, 1.0), 0.0)
