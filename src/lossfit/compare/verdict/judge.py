"""From what was measured to what is said: the choice, and apart from it the claims."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from lossfit.compare.verdict import claims, variance
from lossfit.compare.verdict.choice import posterior
from lossfit.compare.verdict.claims import Side
from lossfit.compare.verdict.prior import Known, Prior
from lossfit.compare.verdict.variance import Differences, Layout, Passes

HEAVY_TAILS = frozenset({"log_loss"})
"""Metrics on which a single row may have any influence: their claims count all of the variance between trainings."""

Claim = Literal["better_than_free", "better_than_reference", "none"]


class Gain(NamedTuple):
    """A measured difference, more being better, with its 95% interval and whether it is a claim."""

    mean: float
    low: float
    high: float
    side: Side


class Judged(NamedTuple):
    """What is said of one candidate.

    Attributes:
        name: of the candidate.
        estimate: the metric, and its 95% interval, in the metric's own direction; ``side`` is "undecided".
        over_reference, over_free: measured gains, in the direction in which more is better.
        expected: the gain over what is free that is expected, with other data sets in mind; a fraction.
        probability_best: of all candidates.
        known: the prior that was used.
    """

    name: str
    estimate: Gain
    over_reference: Gain
    over_free: Gain
    expected: float
    probability_best: float
    known: Known


class Verdict(NamedTuple):
    """What a comparison says.

    Attributes:
        advised: the candidate to use.
        claim: whether it is measurably better, for models trained on these rows: than the reference and what is free,
            than the reference alone, or neither.
        candidates: all of them, in the order given, those that failed with NaN.
        reference, free: the candidates they were compared to. They are the same where nothing is free.
        critical_reference, critical_free: what the t values of all candidates had to reach.
        to_free: the differences to what is free, for whoever needs more.
    """

    advised: Judged
    claim: Claim
    candidates: list[Judged]
    reference: str
    free: str
    critical_reference: float
    critical_free: float
    to_free: Differences


def judge(
    passes: Passes,
    layout: Layout,
    metric: str,
    prior: Prior,
    *,
    reference: str,
    free: str | None = None,
    higher: bool = True,
    seed: int = 0,
) -> Verdict:
    """The advice, the claims, and what is said of each candidate.

    Args:
        passes: of every candidate ever started.
        layout: of the rows.
        metric: its name.
        prior: what other data sets said.
        reference: the candidate to stay with.
        free: the candidate that costs no more than the reference; the reference itself if None, or if it failed.
        higher: whether more of the metric is better.
        seed: fixes all draws.

    Raises:
        ValueError: no candidate has a value, or the reference has none.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> folds = np.stack([rng.permutation(300) % 5 for _ in range(2)])
        >>> hits = rng.random((1, 2, 4, 300)) < np.array([0.7, 0.8]).reshape(2, 1, 1, 1)
        >>> values = hits.mean(3)
        >>> passes = Passes(["cross_entropy", "focal"], values, values.mean(2), hits - values[..., None])
        >>> found = judge(passes, Layout(folds, 20), "accuracy", Prior(), reference="cross_entropy")
        >>> found.advised.name, found.claim, round(found.advised.over_reference.mean, 3)
        ('focal', 'better_than_free', 0.092)
    """
    sign = 1 if higher else -1
    oriented = passes._replace(
        values=sign * passes.values, influence=sign * passes.influence, validation=sign * passes.validation
    )
    ran = passes.repeats() > 0
    at = passes.names.index(reference)
    if not ran[at]:
        raise ValueError(f"Expected the reference {reference!r} to have a value in every pass of the first repeat.")
    base = at if free is None or not ran[passes.names.index(free)] else passes.names.index(free)
    heavy = metric in HEAVY_TAILS
    to_reference = variance.differences(oriented, at, layout)
    to_free = to_reference if base == at else variance.differences(oriented, base, layout)
    alone = variance.differences(oriented, None, layout)
    critical_reference = claims.critical_value(to_reference.units, seed=seed)
    critical_free = critical_reference if base == at else claims.critical_value(to_free.units, seed=seed)
    known = [prior.of(metric, name) for name in passes.names]
    chosen = posterior(to_free, known, seed)
    judged = [
        Judged(
            name,
            _estimate(alone, c, sign, heavy),
            _gain(to_reference, c, critical_reference, heavy),
            _gain(to_free, c, critical_free, heavy),
            float(chosen.mean[c]) / 100,
            float(chosen.probability_best[c]),
            known[c],
        )
        for c, name in enumerate(passes.names)
    ]
    advised = judged[chosen.best]
    return Verdict(
        advised, claim(advised), judged, reference, passes.names[base], critical_reference, critical_free, to_free
    )


def claim(candidate: Judged) -> Claim:
    """What may be said of a candidate."""
    if candidate.over_reference.side != "better":
        return "none"
    return "better_than_free" if candidate.over_free.side == "better" else "better_than_reference"


def _gain(found: Differences, c: int, critical: float, heavy: bool) -> Gain:
    mean, error = float(found.mean[c]), float(found.error(heavy_tails=heavy)[c])
    reach = float(claims.reach(np.array(error)))
    return Gain(mean, mean - reach, mean + reach, claims.side(mean, error, critical))


def _estimate(alone: Differences, c: int, sign: int, heavy: bool) -> Gain:
    found = _gain(alone, c, np.inf, heavy)
    ends = sorted((sign * found.low, sign * found.high))
    return Gain(sign * found.mean, ends[0], ends[1], "undecided")
