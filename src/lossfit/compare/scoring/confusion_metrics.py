"""Metrics that are functions of the confusion matrix, for many models at once: scores (M, N, C) and targets (M, N)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lossfit.compare.scoring.metrics import Metric, ratio

OfMatrix = Callable[[Tensor], Tensor]
"""From confusion matrices (M, C, C) of weights, true classes by predicted ones, to numbers (M,)."""


def confusion(scores: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """How many rows of each class are taken for each class, or their weight, (M, C, C); differentiable in weights."""
    classes = scores.shape[2]
    cell = target * classes + scores.argmax(2)
    each = torch.ones_like(cell, dtype=torch.float64) if weight is None else weight.double()
    return each.new_zeros(len(scores), classes**2).scatter_add(1, cell, each).view(-1, classes, classes)


def metric(of_matrix: OfMatrix) -> Callable[..., Tensor]:
    """The function of scores, targets and weights from one of the confusion matrix."""

    def function(scores: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        return of_matrix(confusion(scores, target, weight))

    return function


def f_beta(beta: float) -> OfMatrix:
    """F-beta of the last class, the positive one of two; 0 if it is neither there nor predicted."""

    def of_matrix(matrix: Tensor) -> Tensor:
        return _f(matrix, beta)[:, -1]

    return of_matrix


def weighted_f1(matrix: Tensor) -> Tensor:
    """The mean F1 of the classes, each counted by its rows."""
    rows = matrix.sum(2)
    return ratio((rows * _f(matrix)).sum(1), rows.sum(1))


def geometric_mean(matrix: Tensor) -> Tensor:
    """The geometric mean of the recalls of the classes that occur; 0 if one of them is 0."""
    hits, rows = matrix.diagonal(dim1=1, dim2=2), matrix.sum(2)
    there = rows > 0
    none = (there & (hits <= 0)).any(1)
    logarithm = torch.where(there & (hits > 0), ratio(hits, rows).clamp(min=torch.finfo(rows.dtype).tiny), 1.0).log()
    return torch.where(none, 0.0, (logarithm.sum(1) / there.sum(1).clamp(min=1)).exp())


def jaccard(matrix: Tensor) -> Tensor:
    """Mean over all classes of the hits over the rows that are of the class or predicted as it."""
    hits = matrix.diagonal(dim1=1, dim2=2)
    return ratio(hits, matrix.sum(1) + matrix.sum(2) - hits).mean(1)


def matthews(matrix: Tensor) -> Tensor:
    """Matthews' correlation of true and predicted classes, in [-1, 1]; 0 where either is one class alone.

    Source: J. Gorodkin, "Comparing Two K-category Assignments by a K-category Correlation Coefficient", 2004,
    section 2.
    """
    rows, predicted, total = matrix.sum(2), matrix.sum(1), matrix.sum((1, 2))
    covariance = matrix.diagonal(dim1=1, dim2=2).sum(1) * total - (rows * predicted).sum(1)
    spread = (total**2 - (rows**2).sum(1)) * (total**2 - (predicted**2).sum(1))
    some = spread > 1e-12 * total**4
    return torch.where(some, covariance / torch.where(some, spread, 1.0).sqrt(), 0.0)


def kappa(power: int | None = None) -> OfMatrix:
    """Cohen's kappa; a mistake counts by the distance of the classes' numbers to ``power``, or the same if None.

    0 where true and predicted are the same class alone.

    Source: J. Cohen, "Weighted Kappa: Nominal Scale Agreement with Provision for Scaled Disagreement or Partial
    Credit", 1968.
    """

    def of_matrix(matrix: Tensor) -> Tensor:
        at = torch.arange(matrix.shape[1], dtype=matrix.dtype)
        distance = (at.unsqueeze(1) - at).abs()
        cost = (distance > 0).to(matrix) if power is None else distance**power
        by_chance = matrix.sum(2, keepdim=True) * matrix.sum(1, keepdim=True) / matrix.sum((1, 2), keepdim=True)
        expected = (cost * by_chance).sum((1, 2))
        some = expected > 0
        return torch.where(some, 1 - (cost * matrix).sum((1, 2)) / torch.where(some, expected, 1.0), 0.0)

    return of_matrix


def expected_cost(costs: Tensor) -> OfMatrix:
    """The mean cost of a row, from what each true class (rows) costs if it is taken for each class (columns)."""

    def of_matrix(matrix: Tensor) -> Tensor:
        return ratio((costs.to(matrix) * matrix).sum((1, 2)), matrix.sum((1, 2)))

    return of_matrix


def _f(matrix: Tensor, beta: float = 1.0) -> Tensor:
    """F-beta of each class (M, C)."""
    hits, rows, predicted = matrix.diagonal(dim1=1, dim2=2), matrix.sum(2), matrix.sum(1)
    return ratio((1 + beta**2) * hits, beta**2 * rows + predicted)


METRICS = {
    "f1": Metric(metric(f_beta(1.0)), True, "F1 of the positive class", True, False, True),
    "f2": Metric(metric(f_beta(2.0)), True, "F2 of the positive class", True, False, True),
    "f0.5": Metric(metric(f_beta(0.5)), True, "F0.5 of the positive class", True, False, True),
    "weighted_f1": Metric(metric(weighted_f1), True, "Weighted F1", True, False),
    "geometric_mean": Metric(metric(geometric_mean), True, "Geometric mean of recalls", True, False),
    "jaccard": Metric(metric(jaccard), True, "Jaccard index", True, False),
    "matthews": Metric(metric(matthews), True, "Matthews correlation", False, False),
    "kappa": Metric(metric(kappa()), True, "Cohen's kappa", False, False),
    "quadratic_kappa": Metric(metric(kappa(2)), True, "Quadratic-weighted kappa", False, False),
}
