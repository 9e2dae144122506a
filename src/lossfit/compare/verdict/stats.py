"""Whether a difference between two losses, measured on splits of the same data, is more than chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats


class Difference(NamedTuple):
    """A mean difference with its 95% interval and two-sided p-value."""

    mean: float
    low: float
    high: float
    p_value: float


def paired_difference(
    differences: Sequence[float] | np.ndarray, test_to_train: float, left_out: np.ndarray | None = None
) -> Difference:
    r"""The corrected resampled t-test.

    Splits of the same data share rows, so their differences vary less than those of fresh data would. The variance of
    their mean is taken as :math:`(1/J + n_{test} / n_{train}) s^2` with J - 1 degrees of freedom. It is a correction
    by rule of thumb: the level is near 5% where test rows are the main source of variation, and above where the
    training set is.

    What all splits share does not show in their differences. If they share all test rows, the variance that these cause
    is added, as :func:`jackknife` has it, and the degrees of freedom are those of the sum.

    Args:
        differences: one per split, at least 2.
        test_to_train: test rows over rows that the fit saw, validation included.
        left_out: the mean difference without one group of the shared test rows at a time, if all are shared.

    Source: C. Nadeau and Y. Bengio, "Inference for the Generalization Error", 2003, section 4; B. L. Welch, "The
    Generalization of Student's Problem when Several Different Population Variances are Involved", 1947, for the sum.

    Example:
        >>> from lossfit.compare.verdict.stats import paired_difference
        >>> found = paired_difference([0.01, 0.02, 0.03, 0.02], test_to_train=0.25)
        >>> round(found.mean, 4), round(found.low, 4), round(found.high, 4), round(found.p_value, 4)
        (0.02, 0.0016, 0.0384, 0.0405)
    """
    values = np.asarray(differences, dtype=float)
    count = len(values)
    if count < 2:
        raise ValueError(f"Expected `differences` from at least 2 splits, but got {count}.")
    mean = float(values.mean())
    own, shared = (1 / count + test_to_train) * float(values.var(ddof=1)), jackknife(left_out)
    error = math.sqrt(own + shared)
    degrees = float(count - 1)
    if left_out is not None and shared > 0:
        # As shares of the variance, which may be small enough for its square to vanish.
        part = own / (own + shared)
        degrees = 1 / (part**2 / (count - 1) + (1 - part) ** 2 / (len(left_out) - 1))
    reach, p = t_test(mean, error, degrees)
    return Difference(mean, mean - float(reach), mean + float(reach), float(p))


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


def jackknife(left_out: np.ndarray | None) -> float:
    r"""The variance of a number that rows cause, from the number without one of G groups of them at a time.

    :math:`\frac{G - 1}{G} \sum_g (d_g - \bar d)^2`; 0 for None and for less than two groups.

    Source: B. Efron and C. Stein, "The Jackknife Estimate of Variance", 1981, section 1.
    """
    if left_out is None or len(left_out) < 2:
        return 0.0
    return (len(left_out) - 1) * float(np.var(left_out))


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


def probability_best(
    values: np.ndarray,
    test_to_train: float,
    left_out: np.ndarray | None = None,
    *,
    higher: bool = True,
    resamples: int = 4000,
    seed: int = 0,
) -> np.ndarray:
    r"""How often each loss has the best mean when the splits are drawn again, (L,).

    A bootstrap over splits, the same ones for all losses. Means over J splits of the same data vary less than means
    over fresh data, so each resampled deviation is widened by :math:`\sqrt{1 + J n_{test} / n_{train}}`, the factor of
    the corrected t-test. Ties share. If all splits share their test rows, what other ones would change is drawn
    besides, normal with the covariance of the jackknife.

    Args:
        values: a metric by loss and split, (L, J), with L and J at least 1.
        test_to_train: as in :func:`paired_difference`.
        left_out: the means without one group of the shared test rows at a time, (L, G).
        higher: whether more is better.
        resamples: of the splits.
        seed: fixes them.

    Source: B. Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979, section 2, for the bootstrap.

    Example:
        >>> import numpy as np
        >>> from lossfit.compare.verdict.stats import probability_best
        >>> probability_best(np.array([[0.70, 0.72, 0.71], [0.60, 0.61, 0.62], [0.70, 0.72, 0.71]]), 0.25)
        array([0.5, 0. , 0.5])
    """
    found = np.asarray(values, dtype=float)
    if found.ndim != 2 or not found.size:
        raise ValueError(f"Expected `values` of shape (losses, splits), but got {found.shape}.")
    count = found.shape[1]
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), resamples) / count
    mean = found.mean(1)
    means = mean + math.sqrt(1 + count * test_to_train) * (drawn @ (found - mean[:, None]).T)
    if left_out is not None:
        groups = left_out.shape[1]
        away = left_out - left_out.mean(1, keepdims=True)
        means += math.sqrt((groups - 1) / groups) * (rng.standard_normal((resamples, groups)) @ away.T)
    means = means if higher else -means
    # Sums in another order may differ in the last digit, which is a tie.
    best = means >= means.max(1, keepdims=True) - 1e-12
    share: np.ndarray = (best / best.sum(1, keepdims=True)).mean(0)
    return share


def power(effect: float, deviation: float, splits: int, test_to_train: float, level: float) -> float:
    """The chance that the corrected test finds a true effect, by the noncentral t distribution.

    Args:
        effect: the true difference.
        deviation: standard deviation of the differences of single splits, above 0.
        splits: how many, at least 2.
        test_to_train: as in :func:`paired_difference`.
        level: of the two-sided test.

    Example:
        >>> from lossfit.compare.verdict.stats import power
        >>> round(power(0.02, 0.02, 20, 0.25, 0.05), 2)
        0.41
    """
    shift = abs(effect) / (deviation * math.sqrt(1 / splits + test_to_train))
    return float(stats.nct.sf(stats.t.ppf(1 - level / 2, splits - 1), splits - 1, min(shift, 30.0)))


class Needed(NamedTuple):
    """What would tell a difference, each if the other stays: more splits, or times as many rows; None if neither."""

    splits: int | None
    rows: float | None


def needed(
    effect: float,
    deviation: float,
    splits: int,
    test_to_train: float,
    level: float,
    *,
    chance: float = 0.8,
    most: int = 1000,
) -> Needed:
    """An estimate of how many splits, or how many times the rows, find an effect as large as the one measured.

    The effect and its variance are taken as they were measured, which they are not exactly. More splits do not help
    without end: what they share does not average out. More rows do: the variance is taken to fall as one over them.

    Args:
        effect, deviation, splits, test_to_train, level: as in :func:`power`, of what was measured.
        chance: the power asked for.
        most: splits to consider.

    Example:
        >>> from lossfit.compare.verdict.stats import needed
        >>> needed(0.02, 0.02, 5, 0.25, 0.05)
        Needed(splits=None, rows=6.4)
        >>> needed(0.04, 0.02, 5, 0.25, 0.05)
        Needed(splits=9, rows=1.6)
    """
    if effect == 0 or deviation == 0:
        return Needed(None, None)

    def enough(count: int) -> bool:
        return power(effect, deviation, count, test_to_train, level) >= chance

    at = None
    if enough(most):
        low, high = 1, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        at = high
    degrees = splits - 1
    critical = float(stats.t.ppf(1 - level / 2, degrees))
    shift = optimize.brentq(lambda x: stats.nct.sf(critical, degrees, x) - chance, 0.0, 10 * critical + 10)
    rows = (shift * deviation * math.sqrt(1 / splits + test_to_train) / abs(effect)) ** 2
    return Needed(at, round(max(1.0, float(rows)), 1))
