"""The critical value of the largest |t|, against distributions that are known."""

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from lossfit.compare.verdict import claims


def of_independent(count: int) -> float:
    """The 95% quantile of the largest |t| of independent normals over one common chi, by integration."""

    def below(x: float) -> float:
        def inside(s: float) -> float:
            return (2 * stats.norm.cdf(x * s) - 1) ** count * stats.chi.pdf(s * 60**0.5, 60) * 60**0.5

        return float(integrate.quad(inside, 0.3, 2.0)[0])

    return float(optimize.brentq(lambda x: below(x) - 0.95, 1.5, 4.5, xtol=1e-6))


@pytest.mark.parametrize("count", [1, 2, 10, 20])
def test_independent_candidates(count: int) -> None:
    assert claims.critical_value(np.eye(count)) == pytest.approx(of_independent(count), abs=0.03)


def test_candidates_that_do_the_same_count_once() -> None:
    rows = np.random.default_rng(0).normal(size=(1, 50))
    same = claims.critical_value(np.repeat(rows, 30, 0) * np.linspace(1, 3, 30)[:, None])
    assert same == pytest.approx(stats.t.ppf(0.975, 60), abs=0.02)


def test_the_value_is_the_same_again_and_candidates_without_a_difference_do_not_count() -> None:
    rows = np.random.default_rng(1).normal(size=(7, 50)).astype(np.float32)
    assert claims.critical_value(rows) == claims.critical_value(rows)
    assert claims.critical_value(np.concatenate([rows, np.zeros((5, 50), np.float32)])) == claims.critical_value(rows)
    assert claims.critical_value(np.zeros((3, 50))) == pytest.approx(stats.t.ppf(0.975, 60))
    assert claims.critical_value(np.zeros((0, 50))) == pytest.approx(stats.t.ppf(0.975, 60))


@pytest.mark.parametrize(
    ("gain", "error", "expected"),
    [
        (0.03, 0.01, "better"),
        (-0.03, 0.01, "worse"),
        (0.02, 0.01, "undecided"),
        (0.0, 0.0, "undecided"),
        (0.001, 0.0, "better"),
        (np.nan, np.nan, "undecided"),
    ],
)
def test_sides(gain: float, error: float, expected: str) -> None:
    assert claims.side(gain, error, 2.5) == expected
