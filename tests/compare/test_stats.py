"""Tests of differences, against scipy, closed testing and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from lossfit.compare.stats import holm, paired_difference

DIFFERENCES = [0.013, -0.004, 0.021, 0.008, 0.017, -0.001, 0.012]


def longhand(differences: list[float], ratio: float) -> tuple[float, float, float, float]:
    count = len(differences)
    mean = sum(differences) / count
    variance = sum((d - mean) ** 2 for d in differences) / (count - 1)
    error = math.sqrt((1 / count + ratio) * variance)
    t = reference.t(count - 1)
    p_value = 2 * min(t.cdf(mean / error), t.sf(mean / error))
    return mean, mean - t.ppf(0.975) * error, mean + t.ppf(0.975) * error, p_value


@pytest.mark.parametrize("differences", [DIFFERENCES, [-d for d in DIFFERENCES], [0.1, 0.3], np.array(DIFFERENCES)])
@pytest.mark.parametrize("ratio", [0.0, 0.25, 1.0])
def test_paired_difference(differences: list[float], ratio: float) -> None:
    assert paired_difference(differences, ratio) == pytest.approx(longhand(list(differences), ratio), rel=1e-10)


def test_without_overlap_it_is_the_plain_t_test() -> None:
    expected = reference.ttest_1samp(DIFFERENCES, 0.0)
    interval = expected.confidence_interval(0.95)
    found = paired_difference(DIFFERENCES, 0.0)
    assert found == pytest.approx((np.mean(DIFFERENCES), interval.low, interval.high, expected.pvalue), rel=1e-10)


@pytest.mark.parametrize("ratio", [0.0, 0.25])
@pytest.mark.parametrize("shift", np.linspace(-0.03, 0.02, 11))
def test_the_interval_holds_0_where_the_p_value_is_above_5_percent(ratio: float, shift: float) -> None:
    found = paired_difference(np.array(DIFFERENCES) + shift, ratio)
    assert (found.low <= 0 <= found.high) == (found.p_value >= 0.05)


def test_differences_without_variance() -> None:
    assert paired_difference([0.0] * 5, 0.25) == (0.0, 0.0, 0.0, 1.0)
    assert paired_difference([0.25] * 4, 0.25) == (0.25, 0.25, 0.25, 0.0)
    assert paired_difference([-0.5] * 4, 0.25) == (-0.5, -0.5, -0.5, 0.0)
    assert paired_difference([0.1] * 3, 0.25) == pytest.approx((0.1, 0.1, 0.1, 0.0))  # a mean that rounds


@pytest.mark.parametrize("differences", [[], [0.1]])
def test_a_difference_needs_two_splits(differences: list[float]) -> None:
    with pytest.raises(ValueError, match=f"`differences` from at least 2 splits, but got {len(differences)}"):
        paired_difference(differences, 0.25)


def test_the_level_holds_where_the_correlation_of_splits_is_as_assumed() -> None:
    rng = np.random.default_rng(0)
    trials, count, ratio = 2000, 8, 0.25
    rho = ratio / (1 + ratio)  # two splits share this part of their variance
    shared, own = rng.normal(size=(trials, 1)), rng.normal(size=(trials, count))
    draws = math.sqrt(rho) * shared + math.sqrt(1 - rho) * own
    rate = np.mean([paired_difference(d, ratio).p_value < 0.05 for d in draws])
    naive = np.mean([paired_difference(d, 0.0).p_value < 0.05 for d in draws])
    assert rate == pytest.approx(0.05, abs=0.015)
    assert naive > 0.15


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
