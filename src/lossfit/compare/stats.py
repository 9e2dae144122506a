"""Whether a difference between two losses, measured on splits of the same data, is more than chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Difference(NamedTuple):
    """A mean difference with its 95% interval and two-sided p-value."""

    mean: float
    low: float
    high: float
    p_value: float


def paired_difference(differences: Sequence[float] | np.ndarray, test_to_train: float) -> Difference:
    r"""The corrected resampled t-test.

    Splits of the same data share rows, so their differences vary less than those of fresh data would. The variance of
    their mean is taken as :math:`(1/J + n_{test} / n_{train}) s^2` with J - 1 degrees of freedom. It is a correction
    by rule of thumb: the level is near 5% where test rows are the main source of variation, and above where the
    training set is.

    Args:
        differences: one per split, at least 2.
        test_to_train: test rows over rows that the fit saw, validation included.

    Source: C. Nadeau and Y. Bengio, "Inference for the Generalization Error", 2003, section 4.

    Example:
        >>> from lossfit.compare.stats import paired_difference
        >>> found = paired_difference([0.01, 0.02, 0.03, 0.02], test_to_train=0.25)
        >>> round(found.mean, 4), round(found.low, 4), round(found.high, 4), round(found.p_value, 4)
        (0.02, 0.0016, 0.0384, 0.0405)
    """
    values = np.asarray(differences, dtype=float)
    count = len(values)
    if count < 2:
        raise ValueError(f"Expected `differences` from at least 2 splits, but got {count}.")
    mean = float(values.mean())
    error = math.sqrt((1 / count + test_to_train) * float(values.var(ddof=1)))
    if error == 0:
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    reach = float(stats.t.ppf(0.975, count - 1)) * error
    return Difference(mean, mean - reach, mean + reach, float(2 * stats.t.sf(abs(mean) / error, count - 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for testing all of them, in the order given.

    Source: S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979, section 2.

    Example:
        >>> from lossfit.compare.stats import holm
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, p_values[i] * (len(p_values) - rank)))
        adjusted[i] = largest
    return adjusted
