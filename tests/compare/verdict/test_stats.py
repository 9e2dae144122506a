"""Intervals, against scipy; many tests at once, against closed testing."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from lossfit.compare.verdict.stats import holm, t_test


def closed_testing(p_values: list[float]) -> list[float]:
    """The largest Bonferroni p-value of all the sets that a hypothesis is in."""
    members = range(len(p_values))
    sets = [s for k in range(1, len(p_values) + 1) for s in itertools.combinations(members, k)]
    return [max(min(1.0, len(s) * min(p_values[i] for i in s)) for s in sets if one in s) for one in members]


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 1.0) | st.sampled_from([0.0, 0.01, 0.05, 0.5, 1.0]), max_size=7))
def test_holm_is_closed_testing_by_bonferroni(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(closed_testing(p_values), rel=1e-12)


def test_holm_keeps_the_order_given() -> None:
    assert holm([0.04, 0.01, 0.9, 0.03]) == pytest.approx([0.09, 0.04, 0.9, 0.09])
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def weighted_closed_testing(p_values: list[float], weights: list[float]) -> list[float]:
    """The largest weighted Bonferroni p-value of all the sets that a hypothesis is in."""
    members = range(len(p_values))
    sets = [s for k in range(1, len(p_values) + 1) for s in itertools.combinations(members, k)]

    def of_set(s: tuple[int, ...]) -> float:
        return min(1.0, min(p_values[i] * sum(weights[j] for j in s) / weights[i] for i in s))

    return [max(of_set(s) for s in sets if one in s) for one in members]


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.sampled_from([0.5, 1.0, 3.0])), max_size=6))
def test_weighted_holm_is_closed_testing_by_weighted_bonferroni(pairs: list[tuple[float, float]]) -> None:
    p_values, weights = [p for p, _ in pairs], [w for _, w in pairs]
    assert holm(p_values, weights) == pytest.approx(weighted_closed_testing(p_values, weights), rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("degrees", [4, 60])
def test_a_t_test_is_that_of_scipy(degrees: int) -> None:
    mean, error = np.array([0.1, -0.2, 0.0]), np.array([0.05, 0.1, 0.2])
    reach, p = t_test(mean, error, degrees)
    assert reach == pytest.approx(reference.t(degrees).ppf(0.975) * error)
    assert p == pytest.approx(2 * reference.t(degrees).sf(np.abs(mean) / error))


def test_what_has_no_error_is_sure() -> None:
    reach, p = t_test(np.array([0.0, 0.1]), np.zeros(2), 60)
    assert reach.tolist() == [0, 0]
    assert p.tolist() == [1, 0]
