"""Intervals of single differences, and many tests at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats


def t_test(
    mean: float | np.ndarray, error: float | np.ndarray, degrees: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far the 95% intervals of means reach, and the two-sided p-values, by their standard errors.

    A mean without an error is sure: its p-value is 1 if it is 0, else 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(np.abs(mean) / np.asarray(error), degrees)
    sure = np.where(np.asarray(mean) == 0, 1.0, 0.0)
    return stats.t.ppf(0.975, degrees) * error, np.where(np.asarray(error) == 0, sure, p)


def holm(p_values: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """P-values adjusted for testing all of them, in the order given.

    Args:
        p_values: of the single tests.
        weights: positive numbers, chosen before the data were seen: a test with twice the weight gets twice the share
            of the level. Equal ones if not given.

    Source: S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979, section 2, and 4 for the weights.

    Example:
        >>> from lossfit.compare.verdict.stats import holm
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03], weights=[2, 1, 1])]
        [0.02, 0.06, 0.06]
    """
    share = [1.0] * len(p_values) if weights is None else list(weights)
    order = sorted(range(len(p_values)), key=lambda i: p_values[i] / share[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        left = sum(share[j] for j in order[rank:]) / share[i]
        largest = max(largest, min(1.0, p_values[i] * left))
        adjusted[i] = largest
    return adjusted
