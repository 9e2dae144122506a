"""The rule by which a loss is recommended, in one place: :func:`advise`."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from lossfit.compare.data import splits
from lossfit.compare.verdict import stats

SHARED = 0.6
"""In place of test rows over training rows in the corrected test."""
LEVEL = 0.02
ERRORS = 2.0
TEST_TO_TRAIN = splits.TEST_SHARE / (1 - splits.TEST_SHARE)


class Advice(NamedTuple):
    """What the rule says.

    Attributes:
        recommended: the candidate to use.
        better: whether it is measurably better than the reference.
        p_values: of each other candidate against the reference, adjusted.
        held_back: the losses that are measurably better than the reference, but not than what is free.
    """

    recommended: str
    better: bool
    p_values: dict[str, float]
    held_back: list[str]


def verdict(difference: float, p_value: float, *, higher: bool = True) -> str:
    """Whether a difference is "better", "worse" or "undecided", at :data:`LEVEL`."""
    if p_value > LEVEL or difference == 0:
        return "undecided"
    return "better" if (difference > 0) == higher else "worse"


def advise(
    values: Mapping[str, np.ndarray],
    reference: str,
    free: Collection[str] = (),
    left_out: Mapping[str, np.ndarray] | None = None,
    *,
    higher: bool = True,
) -> Advice:
    """Which loss to recommend, from a metric on the test rows of the same splits for every candidate.

    1. Every candidate is compared to the reference by the differences within splits: a corrected resampled t-test with
       :data:`SHARED` = 0.6 in the place of test rows over training rows. p-values are adjusted over all candidates by
       Holm's method, in which what is free has half of the level and the losses share the other half. A candidate is
       *better* if its mean is better and its adjusted p-value is at most :data:`LEVEL` = 2%.
    2. A loss that is better must also beat what is free: it must be better, by the same test at the same level, than
       every free variant of the reference whose mean is above the reference's. One more hurdle needs no adjustment.
    3. Recommended is the best mean among the losses that pass. If none does but some candidate is better, it is the
       free variant with the best mean. If no candidate is better, it is the reference.

    The usual ratio, 0.25 for 60/20/20, is right if splits differ in their test rows alone. Splits share training rows
    too: two random 60% parts have 60% in common, so of the variance that training rows cause, 60% is common to all
    splits and does not average out, against 20% of what test rows cause. If the part of training rows is v, the ratio
    that keeps the level is r / (1 - r) with r = 0.2 (1 - v) + 0.6 v: 0.25 at v = 0, 0.67 at v = 0.5, 1.5 at v = 1.
    v cannot be seen from splits of one data set. Between the halves of the data sets in ``benchmarks/advice.py`` the
    ratio was below 0.2 for most. The rule takes 0.6, and a level at which a single candidate without a true difference
    is called better in about 1% of comparisons at v = 0.5, and in fewer below. See docs/recommendation.md.

    Args:
        values: by candidate, one number per split, at least 2; all candidates on the same splits.
        reference: the candidate to stay with, in ``values``.
        free: the candidates that need no trainings besides the reference's.
        left_out: if all splits share their test rows, by candidate the mean over splits without one group of these rows
            at a time: see :func:`lossfit.compare.verdict.stats.paired_difference`.
        higher: whether more of the metric is better.

    Example:
        >>> import numpy as np
        >>> from lossfit.compare.verdict.rule import advise
        >>> base = np.array([0.70, 0.72, 0.71, 0.69, 0.71])
        >>> found = advise({"cross_entropy": base, "focal": base + np.array([8, 9, 10, 9, 9]) / 100}, "cross_entropy")
        >>> found.recommended, found.better
        ('focal', True)
    """
    means = {name: float(np.mean(v)) * (1 if higher else -1) for name, v in values.items()}
    adjusted = p_values(values, reference, free, left_out)
    better = [name for name, p in adjusted.items() if p <= LEVEL and means[name] > means[reference]]
    rivals = [name for name in adjusted if name in free and means[name] > means[reference]]
    trained = [name for name in better if name not in free]
    passing = [
        n for n in trained if all(means[n] > means[r] and _p_value(values, n, r, left_out) <= LEVEL for r in rivals)
    ]
    recommended = max(passing or (rivals if better else []) or [reference], key=means.__getitem__)
    return Advice(
        recommended,
        recommended in better,
        adjusted,
        [name for name in trained if name not in passing],
    )


def best_guess(
    values: Mapping[str, np.ndarray],
    reference: str,
    free: Collection[str] = (),
    left_out: Mapping[str, np.ndarray] | None = None,
    *,
    higher: bool = True,
) -> str:
    """What to use if one has to choose, and the rule of :func:`advise` does not tell: no claim that it is better.

    The best mean of the reference and its free variants; or the loss with the best mean of those whose mean is better
    than that by at least :data:`ERRORS` = 2 standard errors of the corrected test, with 0.25 for test rows over
    training rows. The 2 was chosen by the regret on the data sets of ``benchmarks/advice.py``.

    Args:
        values, reference, free, left_out, higher: as in :func:`advise`.
    """
    means = {name: float(np.mean(v)) * (1 if higher else -1) for name, v in values.items()}
    start = max([reference, *(name for name in values if name in free)], key=means.__getitem__)
    known = [name for name in values if name not in free and name != reference]
    better = [n for n in known if means[n] > means[start]]
    found = [n for n in better if means[n] - means[start] >= ERRORS * _error(values, n, start, left_out)]
    return max([start, *found], key=means.__getitem__)


def _error(values: Mapping[str, np.ndarray], name: str, other: str, left_out: Mapping[str, np.ndarray] | None) -> float:
    differences = values[name] - values[other]
    own = (1 / len(differences) + usual_ratio(left_out)) * float(differences.var(ddof=1))
    return math.sqrt(own + stats.jackknife(between(left_out, name, other)))


def usual_ratio(left_out: Mapping[str, np.ndarray] | None) -> float:
    """In the place of test rows over training rows where only these are meant: 0.25; :data:`SHARED` if all test rows
    are shared, since their part of the variance is then counted apart.
    """
    return TEST_TO_TRAIN if left_out is None else SHARED


def between(left_out: Mapping[str, np.ndarray] | None, name: str, other: str) -> np.ndarray | None:
    """The difference of two candidates without one group of the shared test rows at a time, if they are shared."""
    return None if left_out is None else left_out[name] - left_out[other]


def p_values(
    values: Mapping[str, np.ndarray],
    reference: str,
    free: Collection[str] = (),
    left_out: Mapping[str, np.ndarray] | None = None,
) -> dict[str, float]:
    """Of every candidate but the reference, adjusted: the first step of :func:`advise`."""
    others = [name for name in values if name != reference]
    count = sum(name in free for name in others)
    # Half of the level each, if there are both.
    weights = [(len(others) - count) / count if name in free and count < len(others) else 1.0 for name in others]
    adjusted = stats.holm([_p_value(values, name, reference, left_out) for name in others], weights)
    return dict(zip(others, adjusted, strict=True))


def _p_value(
    values: Mapping[str, np.ndarray], name: str, other: str, left_out: Mapping[str, np.ndarray] | None
) -> float:
    return stats.paired_difference(values[name] - values[other], SHARED, between(left_out, name, other)).p_value


def difference(values: np.ndarray, base: np.ndarray, left_out: np.ndarray | None = None) -> dict[str, Any]:
    """By the rule's test, not adjusted, with its 95% interval."""
    found = stats.paired_difference(values - base, SHARED, left_out)
    return {"difference": found.mean, "ci95": [found.low, found.high], "p_value": found.p_value}


def level(name: str, others: Collection[str], free: Collection[str] = ()) -> float:
    """What a candidate's own p-value must not exceed if it is the first to be called better, of those besides the
    reference.
    """
    count = sum(other in free for other in others)
    share = count if name in free else len(others) - count
    return LEVEL / share / (2 if 0 < count < len(others) else 1)
