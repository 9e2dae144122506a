"""Which candidates are measurably better or worse than another one, however many were tried."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import stats

LEVEL = 0.95
DEGREES = 60
DRAWS = 40_000

Side = Literal["better", "worse", "undecided"]


def critical_value(units: np.ndarray, level: float = LEVEL, seed: int = 0) -> float:
    r"""What the largest :math:`|t|` of all candidates stays below with probability ``level`` if none differs.

    The t values are drawn from a multivariate t distribution with 60 degrees of freedom and the correlation of the
    candidates' row influences: twenty losses that do nearly the same to each row count little more than one.

    Args:
        units: the mean influence differences of all candidates ever started (L, U). Those that are 0 everywhere, as
            those of the reference to itself, do not count.
        level: of the quantile.
        seed: fixes the draws; the same input gives the same number.

    Source: C. Dunnett, "A Multiple Comparison Procedure for Comparing Several Treatments with a Control", 1955,
    section 3; T. Hothorn, F. Bretz and P. Westfall, "Simultaneous Inference in General Parametric Models", 2008,
    section 3.

    Example:
        >>> import numpy as np
        >>> from lossfit.compare.verdict.claims import critical_value
        >>> one = np.array([[0.5, -0.5, 1.0, -1.0]])
        >>> round(critical_value(one), 2), round(critical_value(np.repeat(one, 20, 0)), 2)
        (2.0, 2.0)
    """
    norms = np.sqrt((units.astype(float) ** 2).sum(1))
    different = units[norms > 0] / norms[norms > 0, None]
    if len(different) <= 1:
        return float(stats.t.ppf((1 + level) / 2, DEGREES))
    values, vectors = np.linalg.eigh(np.asarray(different @ different.T, dtype=float))
    root = (vectors * np.sqrt(values.clip(min=0))).T  # (L, L), z = e @ root
    rng = np.random.default_rng(seed)
    largest = np.empty(DRAWS)
    block = max(1, (1 << 22) // len(different))
    for start in range(0, DRAWS, block):
        count = min(block, DRAWS - start)
        z = rng.standard_normal((count, len(root)))
        largest[start : start + count] = np.abs(z @ root).max(1)
    scale = np.sqrt(rng.chisquare(DEGREES, DRAWS) / DEGREES)
    return float(np.quantile(largest / scale, level))


def side(gain: float, error: float, critical: float) -> Side:
    """Whether a gain is "better", "worse" or "undecided": its t value against :func:`critical_value`.

    A gain without an error is sure. NaN, of a candidate that failed, is undecided.
    """
    if not np.isfinite(gain) or gain == 0 or abs(gain) < critical * error:
        return "undecided"
    return "better" if gain > 0 else "worse"


def reach(error: np.ndarray) -> np.ndarray:
    """How far the 95% intervals of single differences reach, by their standard errors."""
    return np.asarray(stats.t.ppf(0.975, DEGREES) * error)
