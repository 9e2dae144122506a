"""Settings that Optuna proposes."""

import logging
import math

import numpy as np
import optuna
import pytest
from scipy.stats import qmc

from lossfit.compare.candidates import sampling
from lossfit.compare.candidates.sampling import RANGES, Tried

SEARCH = {"gamma": (0.5, 1.0, 2.0, 5.0)}


@pytest.mark.parametrize("seed", [0, 5])
def test_the_first_are_halton_points(seed: int) -> None:
    found = sampling.spread(7, seed)
    points = qmc.Halton(2, seed=seed).random(7)
    for column, (name, (low, high)) in zip(points.T, RANGES.items(), strict=True):
        assert [one[name] for one in found] == pytest.approx(low * (high / low) ** column)
    assert sampling.spread(3, seed) == found[:3]


def test_seeds_of_any_size() -> None:
    """Those of splits are a million times the user's."""
    assert len(sampling.spread(2, (1 << 32) - 1)) == 2
    assert len(sampling.propose(tried(), SEARCH, 2, (1 << 32) * 1_000_003 - 1)) == 2


def tried(seed: int = 0, count: int = 16) -> list[Tried]:
    """Best at a learning rate of 0.05 and gamma 5."""
    rng, found = np.random.default_rng(seed), []
    for one in sampling.spread(count, seed):
        gamma = float(rng.choice(SEARCH["gamma"]))
        found.append(Tried({**one, "gamma": gamma}, math.log(one["learning_rate"]) + gamma))
    return found


def test_more_are_proposed_where_results_were_good() -> None:
    found = [one for seed in range(5) for one in sampling.propose(tried(seed), SEARCH, 4, seed)]
    rates, gammas = np.array([one["learning_rate"] for one in found]), [one["gamma"] for one in found]
    low, high = RANGES["learning_rate"]
    assert np.log(rates).mean() > (math.log(low) + math.log(high)) / 2 + 0.2
    assert np.mean(gammas) > np.mean(SEARCH["gamma"]) + 0.5
    assert set(gammas) <= set(SEARCH["gamma"])
    for name, (least, most) in RANGES.items():
        assert all(least <= one[name] <= most for one in found)


def test_what_was_pruned_counts_as_worse_than_what_was_not() -> None:
    pruned = [one._replace(pruned_at=50) if one.setting["gamma"] == 5 else one for one in tried()]
    found = [one["gamma"] for seed in range(5) for one in sampling.propose(pruned, SEARCH, 4, seed)]
    plain = [one["gamma"] for seed in range(5) for one in sampling.propose(tried(), SEARCH, 4, seed)]
    assert np.mean(found) < np.mean(plain) - 0.5


def test_the_same_seed_and_results_give_the_same_settings() -> None:
    found = sampling.propose(tried(), SEARCH, 4, 3)
    assert sampling.propose(tried(), SEARCH, 4, 3) == found
    assert sampling.propose(tried(), SEARCH, 4, 4) != found
    assert len({one["learning_rate"] for one in found}) == 4
    other = [one._replace(value=-one.value) for one in tried()]
    assert sampling.propose(other, SEARCH, 4, 3) != found


def test_failed_trainings_are_no_results() -> None:
    failed = [one._replace(value=-math.inf) for one in tried(count=2)]
    assert len(sampling.propose(failed, SEARCH, 3, 0)) == 3
    assert len(sampling.propose([Tried(sampling.spread(1, 0)[0], 0.5)], {}, 2, 0)) == 2


def test_optuna_is_as_talkative_as_before(caplog: pytest.LogCaptureFixture) -> None:
    before = optuna.logging.get_verbosity()
    with caplog.at_level(logging.DEBUG):
        sampling.propose(tried(), SEARCH, 2, 0)
    assert optuna.logging.get_verbosity() == before
    assert not caplog.records
