"""Tests of differences, against scipy, closed testing and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from lossfit.compare.verdict.stats import holm, jackknife, needed, paired_difference, power, probability_best

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


def test_probability_best_of_two_is_that_of_the_corrected_mean() -> None:
    rng = np.random.default_rng(0)
    d = rng.normal(0.3, 1.0, 200)
    found = probability_best(np.stack([d, np.zeros(200)]), 0.25, resamples=20000)
    error = math.sqrt((1 / 200 + 0.25) * d.var())
    assert found[0] == pytest.approx(reference.norm.cdf(d.mean() / error), abs=0.015)
    assert found.sum() == pytest.approx(1)
    naive = probability_best(np.stack([d, np.zeros(200)]), 0.0)
    assert naive[0] > 0.99 > found[0]


def test_probability_best_turns_with_the_direction_and_repeats() -> None:
    values = np.random.default_rng(1).normal(size=(4, 9))
    assert probability_best(values, 0.25) == pytest.approx(probability_best(-values, 0.25, higher=False))
    assert not np.array_equal(probability_best(values, 0.25), probability_best(values, 0.25, seed=1))


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros((0, 3))])
def test_probability_best_needs_a_table(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"`values` of shape \(losses, splits\), but got \("):
        probability_best(values, 0.25)


@pytest.mark.parametrize(("effect", "splits", "ratio", "level"), [(0.02, 20, 0.25, 0.05), (0.04, 5, 1.0, 0.1)])
def test_power_by_simulation(effect: float, splits: int, ratio: float, level: float) -> None:
    rng, trials, rho = np.random.default_rng(0), 20000, ratio / (1 + ratio)
    shared, own = rng.normal(size=(trials, 1)), rng.normal(size=(trials, splits))
    d = effect + 0.02 * (math.sqrt(rho / (1 - rho)) * shared + own)  # a split's own deviation is 0.02
    t = d.mean(1) / (d.std(1, ddof=1) * math.sqrt(1 / splits + ratio))
    rate = (t > reference.t(splits - 1).ppf(1 - level / 2)).mean()
    assert power(effect, 0.02, splits, ratio, level) == pytest.approx(rate, abs=0.01)


@pytest.mark.parametrize("effect", [0.035, 0.05, 0.2])
def test_the_splits_needed_are_the_fewest_with_the_power(effect: float) -> None:
    found = needed(effect, 0.02, 5, 0.25, 0.05)
    assert found.splits is not None
    assert power(effect, 0.02, found.splits, 0.25, 0.05) >= 0.8
    assert found.splits == 2 or power(effect, 0.02, found.splits - 1, 0.25, 0.05) < 0.8


def test_the_rows_needed_have_the_power() -> None:
    found = needed(0.01, 0.02, 10, 1.0, 0.01)
    assert found.splits is None  # they share too much
    assert found.rows is not None
    assert power(0.01, 0.02 / math.sqrt(found.rows), 10, 1.0, 0.01) == pytest.approx(0.8, abs=0.01)


def test_nothing_is_needed_where_nothing_is_to_be_told() -> None:
    assert needed(0.0, 0.02, 5, 0.25, 0.05) == needed(0.01, 0.0, 5, 0.25, 0.05) == (None, None)


class TestSharedTestRows:
    """What rows do that all splits are tested on, which the differences of splits do not show."""

    def test_the_jackknife_of_a_mean_is_its_variance(self) -> None:
        rows = np.random.default_rng(0).normal(size=25)
        left_out = np.array([np.delete(rows, i).mean() for i in range(25)])
        assert jackknife(left_out) == pytest.approx(rows.var(ddof=1) / 25)
        assert jackknife(None) == jackknife(left_out[:1]) == 0

    def test_the_variances_add_up_with_the_degrees_of_freedom_of_welch(self) -> None:
        rng = np.random.default_rng(1)
        d, left_out = rng.normal(1, 1, 8), rng.normal(1, 0.1, 10)
        own, shared = (1 / 8 + 0.6) * d.var(ddof=1), 9 / 10 * ((left_out - left_out.mean()) ** 2).sum()
        degrees = (own + shared) ** 2 / (own**2 / 7 + shared**2 / 9)
        found = paired_difference(d, 0.6, left_out)
        error = math.sqrt(own + shared)
        assert found.p_value == pytest.approx(2 * reference.t(degrees).sf(d.mean() / error))
        assert found.high - found.mean == pytest.approx(reference.t(degrees).ppf(0.975) * error)
        assert paired_difference(d, 0.6, np.full(10, 0.3)) == paired_difference(d, 0.6)

    def test_splits_that_agree_do_not_settle_what_the_rows_leave_open(self) -> None:
        left_out = np.linspace(0.0, 0.02, 10)
        assert paired_difference([0.01] * 5, 0.6).p_value == 0
        assert paired_difference([0.01] * 5, 0.6, left_out).p_value > 0.1

    def test_no_more_than_the_level_is_called_different_on_given_rows(self) -> None:
        """Two losses that are equal on all rows there could be differ on 200 of them."""
        rng, wrong = np.random.default_rng(2), np.zeros(2)
        for _ in range(400):
            of_row = rng.choice([-1.0, 0.0, 1.0], 200, p=[0.1, 0.8, 0.1])  # in every split
            own = rng.choice([-1.0, 0.0, 1.0], (10, 200), p=[0.02, 0.96, 0.02])
            d = of_row + own
            tenths = np.arange(200) % 10
            left_out = np.array([d[:, tenths != g].mean() for g in range(10)])
            means = d.mean(1)
            wrong += [paired_difference(means, 0.6, v).p_value < 0.05 for v in (None, left_out)]
        assert wrong[0] > 60
        assert wrong[1] < 28

    def test_the_probability_to_be_best_is_less_certain(self) -> None:
        values = np.array([[0.72, 0.73, 0.72, 0.73], [0.71, 0.72, 0.71, 0.72]])
        left_out = np.array([[0.725] * 10, np.linspace(0.70, 0.73, 10)])
        assert probability_best(values, 0.6)[0] == 1
        sure = probability_best(values, 0.6, left_out)
        scale = math.sqrt(jackknife(left_out[1] - left_out[0]))
        assert sure[0] == pytest.approx(reference.norm.cdf(0.01 / scale), abs=0.03)
        assert sure.sum() == pytest.approx(1)
