"""What each row does to a metric, so that the metric's variance over other rows is known from these rows alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lossfit.compare.scoring.metrics import Metric

NUMBERS = 1 << 21
"""Scores that are looked at at once: a bound on the memory."""
GROUPS = 20
"""The least number of groups of rows that are left out one at a time, where a metric has no derivative."""


def influences(
    metric: Metric, scores: Tensor, target: Tensor, weight: Tensor | None = None
) -> tuple[np.ndarray, np.ndarray]:
    r"""A metric of M models, (M,), and the influence of each row on it, (M, N).

    The influence of row i is :math:`D_i = n\, w_i\, \partial\theta / \partial w_i`, where :math:`\theta(w)` is the
    metric of rows that count by the weights w. A metric does not change if all weights double, so the influences of a
    model sum to 0; the metric without row i is about :math:`\theta - D_i / n`; and the variance of the metric over
    other rows is about :math:`\sum D_i^2 / (n (n - 1))`. For the accuracy, the influence is hit minus mean; for the
    balanced accuracy :math:`n (h - r_y) / (C n_y)` with the recall :math:`r_y`; for the area under the curve it has
    the placement values. The derivative is taken by automatic differentiation, so every metric that is computed by
    differentiable steps from weights has its influences, and no formula can differ from its metric.

    Args:
        metric: its function takes scores (M, N, C), targets (M, N) or (M, N, C), and weights (M, N).
        scores: log-probabilities or scores, (M, N, C).
        target: of each row (N,) or (N, C): the same for all models.
        weight: what the rows count (N,), not negative and not all 0; 1 each if not given.

    Returns:
        float64 values and float32 influences, in the direction of the metric.

    Source: B. Efron, "Nonparametric Standard Errors and Confidence Intervals", 1981, section 3 (the infinitesimal
    jackknife); E. DeLong, D. DeLong and D. Clarke-Pearson, "Comparing the Areas under Two or More Correlated Receiver
    Operating Characteristic Curves", 1988, for the placement values.

    Example:
        >>> import torch
        >>> from lossfit.compare.scoring.metrics import METRICS
        >>> log_p = torch.tensor([[[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]]]).log()
        >>> values, rows = influences(METRICS["accuracy"], log_p, torch.tensor([0, 1, 1, 0]))
        >>> values.tolist(), rows.tolist()
        ([0.75], [[0.25, 0.25, -0.75, 0.25]])
    """
    each = torch.ones(len(target), dtype=torch.float64) if weight is None else weight.double()
    values, found = np.empty(len(scores)), np.empty(scores.shape[:2], dtype=np.float32)
    models = max(1, NUMBERS // max(1, scores[0].numel()))
    for start in range(0, len(scores), models):
        part = slice(start, start + models)
        some = scores[part]
        weights = each.expand(len(some), -1).clone().requires_grad_()
        with torch.enable_grad():
            value = metric.function(some, target.expand(len(some), *target.shape), weights)
            (gradient,) = torch.autograd.grad(value.sum(), weights)
        values[part] = value.detach().numpy()
        found[part] = (len(target) * each * gradient).numpy()
    return values, found


def jackknife_influences(
    function: Callable[[Tensor, Tensor], Tensor], scores: Tensor, target: Tensor, cells: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    r"""The same for a metric without derivatives, by leaving out one group of rows at a time.

    The rows of group g share :math:`(n - n_g)(\theta - \theta_{(g)}) / n_g`. Rows of a group are then one unit: give
    ``cells`` as the groups of the :class:`~lossfit.compare.verdict.variance.Layout`.

    Args:
        function: of scores (M, N, C) and targets (M, N) or (M, N, C), to numbers (M,).
        scores, target: as in :func:`influences`.
        cells: the group of each row (N,), as :func:`jackknife_cells` has it.

    Source: B. Efron and C. Stein, "The Jackknife Estimate of Variance", 1981, section 1.
    """
    every = target.expand(len(scores), *target.shape)
    values = function(scores, every).double().numpy()
    found = np.zeros(scores.shape[:2], dtype=np.float32)
    n = len(target)
    for cell in np.unique(cells):
        out = torch.from_numpy(cells == cell)
        size = int(out.sum())
        if size < n:
            left = function(scores[:, ~out], every[:, ~out]).double().numpy()
            found[:, out.numpy()] = ((n - size) * (values - left) / size)[:, None]
    return values, found - found.mean(1, keepdims=True)


def jackknife_cells(folds: np.ndarray, groups: np.ndarray | None = None, at_least: int = GROUPS) -> np.ndarray:
    """Groups of rows (N,) that lie within one fold in every repeat: folds (R, N), and at least ``at_least`` of them.

    Rows of one of the user's ``groups`` (N,) stay together.
    """
    unit = np.arange(folds.shape[1]) if groups is None else np.unique(groups, return_inverse=True)[1]
    cell: np.ndarray = np.unique(folds, axis=1, return_inverse=True)[1].reshape(-1)
    parts = -(-at_least // (int(cell.max()) + 1))
    if parts == 1:
        return cell
    # The units of a cell are dealt out to its parts in turn.
    first = np.unique(unit, return_index=True)[1]
    rank = np.empty(len(first), dtype=np.int64)
    for c in np.unique(cell):
        of_cell = cell[first] == c
        rank[of_cell] = np.arange(of_cell.sum()) % parts
    found: np.ndarray = np.unique(cell * parts + rank[unit], return_inverse=True)[1].reshape(-1)
    return found
