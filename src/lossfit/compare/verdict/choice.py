"""What to use: what the rows say, shrunk towards what other data sets said. No claim depends on this choice."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lossfit.compare.verdict.prior import WORST, Known
from lossfit.compare.verdict.variance import Differences

DRAWS = 4000


class Posterior(NamedTuple):
    """Of the gains of L candidates over what is free, in points: mean, variance, and the chance of being the best.

    A candidate that failed has the mean -inf, variance 0 and chance 0.
    """

    mean: np.ndarray
    variance: np.ndarray
    probability_best: np.ndarray

    @property
    def best(self) -> int:
        """The candidate with the largest mean, the first if they tie."""
        return int(self.mean.argmax())


def posterior(over_free: Differences, prior: list[Known], seed: int = 0) -> Posterior:
    r"""Empirical Bayes: the gain of each candidate over what is free, given the user's rows and other data sets.

    The measured gain z is half the sum of the test and the validation difference, clipped below at -10 points, with
    the variance :math:`V = V_{row} + V_b`. With a prior mean :math:`\mu` and variance :math:`\tau^2` the weight is
    :math:`w = \tau^2 / (\tau^2 + V)`, the mean :math:`\mu + w (z - \mu)` and the variance :math:`w V`. What is free
    differs by 0 from itself, for sure. The chance of being best is counted over 4,000 draws; ties share.

    Args:
        over_free: the differences to what is free, in the direction in which more is better, as fractions.
        prior: of each candidate, in points.
        seed: fixes the draws.

    Source: B. Efron and C. Morris, "Data Analysis Using Stein's Estimator and its Generalizations", 1975, section 2.

    Example:
        >>> import numpy as np
        >>> from lossfit.compare.verdict.prior import Known
        >>> from lossfit.compare.verdict.variance import Differences
        >>> gains, zero = np.array([0.0, 0.03]), np.zeros(2)
        >>> found = Differences(gains, gains, np.array([0.0, 1e-4]), zero, zero, np.zeros((2, 9)))
        >>> posterior(found, [Known(0.0, 1.0), Known(0.0, 1.0)]).mean.tolist()  # 3 points with an error of 1
        [0.0, 1.5]
    """
    mu = np.array([known.mean for known in prior])
    tau = np.array([known.variance for known in prior])
    z = (50 * (over_free.mean + over_free.validation)).clip(min=WORST)
    v = 1e4 * (over_free.v_row + over_free.v_b)
    # An infinite tau, of a flat prior, has all the weight on the rows.
    left = v / (tau + v) if np.isfinite(tau).all() else np.where(np.isfinite(tau), v / (tau + v), 0.0)
    sure = v == 0
    mean = np.where(sure, z, z - left * (z - mu))
    variance = np.where(sure, 0.0, (1 - left) * v)
    there = np.isfinite(mean)
    mean, variance = np.where(there, mean, -np.inf), np.where(there, variance, 0.0)
    rng = np.random.default_rng(seed)
    draws = mean + np.sqrt(variance) * rng.standard_normal((DRAWS, len(mean)))
    best = draws == draws.max(1, keepdims=True)
    return Posterior(mean, variance, np.where(there, (best / best.sum(1, keepdims=True)).mean(0), 0.0))
