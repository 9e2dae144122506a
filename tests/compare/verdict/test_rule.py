"""The rule of the recommendation: its steps on made-up numbers, its level by simulation."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats as reference

from lossfit.compare.verdict import rule

FREE = "cross_entropy+tuned_prior"
BASE = np.array([0.50, 0.53, 0.48, 0.51, 0.49, 0.52, 0.50, 0.47])
NOISE = np.array([0.5, -0.5, 0.4, -0.4, 0.3, -0.3, 0.6, -0.6]) / 100


def shifted(points: float, factor: float = 1.0, turn: int = 0) -> np.ndarray:
    return BASE + points / 100 + factor * np.roll(NOISE, turn)


def longhand(differences: np.ndarray) -> float:
    count = len(differences)
    error = np.sqrt((1 / count + 0.6) * differences.var(ddof=1))
    return float(2 * reference.t(count - 1).sf(abs(differences.mean()) / error))


def test_without_a_difference_the_reference_stays() -> None:
    found = rule.advise({"cross_entropy": BASE, "focal": shifted(0.2), "poly": shifted(-0.3, turn=1)}, "cross_entropy")
    assert found.recommended == "cross_entropy"
    assert not found.better
    assert found.held_back == []


def test_the_p_values_are_those_of_the_wider_test_with_half_of_the_level_for_what_is_free() -> None:
    values = {"cross_entropy": BASE, FREE: shifted(2), "focal": shifted(3, turn=1), "poly": shifted(1, turn=2)}
    single = {name: longhand(values[name] - BASE) for name in (FREE, "focal", "poly")}
    found = rule.p_values(values, "cross_entropy", [FREE])
    assert min(single, key=single.__getitem__) == "focal"
    assert found["focal"] == pytest.approx(4 * single["focal"])  # a quarter of the level
    assert found[FREE] == pytest.approx(
        max(found["focal"], single[FREE] * 3 / 2)
    )  # two of the remaining three quarters
    assert found["poly"] == pytest.approx(single["poly"])
    without = rule.p_values({k: v for k, v in values.items() if k != FREE}, "cross_entropy", [FREE])
    assert without["focal"] == pytest.approx(2 * single["focal"])


@pytest.mark.parametrize("higher", [True, False])
def test_the_best_of_the_better_is_recommended_in_either_direction(higher: bool) -> None:
    sign = 1 if higher else -1
    values = {"cross_entropy": BASE, "a": shifted(sign * 10, turn=1), "b": shifted(sign * 12), "c": shifted(-sign * 20)}
    found = rule.advise(values, "cross_entropy", higher=higher)
    assert found.recommended == "b"
    assert found.better
    assert found.p_values["c"] <= rule.LEVEL


def test_the_level_is_that_of_a_difference_that_just_passes() -> None:
    """Of a single candidate, at two-sided 2%."""
    reach = reference.t(len(BASE) - 1).ppf(0.99) * np.sqrt((1 / len(BASE) + 0.6) * NOISE.var(ddof=1)) * 100
    for factor, better in ((1.001, True), (0.999, False)):
        found = rule.advise({"cross_entropy": BASE, "focal": shifted(factor * reach)}, "cross_entropy")
        assert found.better is better


def test_what_is_free_is_recommended_if_a_loss_does_not_beat_it() -> None:
    values = {"cross_entropy": BASE, FREE: shifted(10), "focal": shifted(10.1, turn=1)}
    found = rule.advise(values, "cross_entropy", [FREE])
    assert found.recommended == FREE
    assert found.better
    assert found.held_back == ["focal"]
    values["focal"] = shifted(20, turn=1)
    found = rule.advise(values, "cross_entropy", [FREE])
    assert found.recommended == "focal"
    assert found.held_back == []


def test_what_is_free_and_does_not_help_holds_nothing_back() -> None:
    values = {"cross_entropy": BASE, FREE: shifted(-0.1, 30), "focal": shifted(10, turn=1)}
    assert rule.advise(values, "cross_entropy", [FREE]).recommended == "focal"


def test_a_loss_held_back_by_what_is_not_measurably_better_itself() -> None:
    values = {"cross_entropy": BASE, FREE: shifted(9, 30), "focal": shifted(10, turn=1)}
    found = rule.advise(values, "cross_entropy", [FREE])
    assert (found.recommended, found.better, found.held_back) == (FREE, False, ["focal"])


def test_identical_results_are_no_finding() -> None:
    found = rule.advise({"cross_entropy": BASE, FREE: BASE.copy(), "focal": BASE.copy()}, "cross_entropy", [FREE])
    assert (found.recommended, found.better) == ("cross_entropy", False)
    assert found.p_values == {FREE: 1.0, "focal": 1.0}


def test_the_level_of_the_first_is_its_share() -> None:
    values = {"cross_entropy": BASE, FREE: shifted(9), "a": shifted(1, 9), "b": shifted(-1, 9), "c": shifted(0, 9)}
    names = [FREE, "a", "b", "c"]
    single, adjusted = longhand(values[FREE] - BASE), rule.p_values(values, "cross_entropy", [FREE])[FREE]
    assert rule.level(FREE, names, [FREE]) == pytest.approx(rule.LEVEL * single / adjusted) == rule.LEVEL / 2
    assert rule.level("a", names, [FREE]) == pytest.approx(rule.LEVEL / 6)
    assert rule.level("a", ["a", "b"], [FREE]) == pytest.approx(rule.LEVEL / 2)


def test_the_guess_is_the_best_of_what_is_free_unless_a_loss_is_two_errors_better() -> None:
    error = 100 * np.sqrt((1 / len(BASE) + 0.25) * NOISE.var(ddof=1))
    values = {"cross_entropy": BASE, FREE: shifted(0.1, 0.0), "focal": shifted(0.1 + 1.99 * error)}
    assert rule.best_guess(values, "cross_entropy", [FREE]) == FREE
    values["focal"] = shifted(0.1 + 2.01 * error)
    assert rule.best_guess(values, "cross_entropy", [FREE]) == "focal"
    values[FREE] = shifted(-1)
    assert rule.best_guess({k: values[k] for k in ("cross_entropy", FREE)}, "cross_entropy", [FREE]) == "cross_entropy"
    assert rule.best_guess(values, "cross_entropy", [FREE], higher=False) == FREE


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    path = Path(__file__).parents[3] / "benchmarks" / "simulation.py"
    spec = importlib.util.spec_from_file_location("simulation", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["simulation"] = module
    spec.loader.exec_module(module)
    return module


SETTINGS = [
    {"losses": 1, "splits": 20, "training": 0.5, "own": 0.0, "free": False},
    {"losses": 1, "splits": 5, "training": 0.5, "own": 0.0, "free": False},
    {"losses": 10, "splits": 8, "training": 0.5, "own": 0.0},
    {"losses": 5, "splits": 20, "training": 0.5, "own": 0.2, "discrete": True},
    {"losses": 5, "splits": 20, "training": 0.0, "own": 0.0},
]


def test_without_a_difference_at_most_10_of_400_recommend_another(simulation: ModuleType) -> None:
    found = [simulation.recommendations(simulation.Setting(**s), 400, 3)["recommended_other"] for s in SETTINGS]
    assert max(found) <= 10


@pytest.mark.parametrize("looser", [{"SHARED": 0.25}, {"LEVEL": 0.06}])
def test_a_looser_rule_would_recommend_others_too_often(
    simulation: ModuleType, monkeypatch: pytest.MonkeyPatch, looser: dict[str, float]
) -> None:
    for name, value in looser.items():
        monkeypatch.setattr(rule, name, value)
    assert simulation.recommendations(simulation.Setting(**SETTINGS[0]), 400, 3)["recommended_other"] > 10


def test_a_large_difference_is_found(simulation: ModuleType) -> None:
    found = simulation.recommendations(simulation.Setting(5, 20, 0.2, effect=5.0), 100, 3)
    assert found["recommended_best"] >= 80


def test_simulated_splits_share_what_they_are_said_to_share(simulation: ModuleType) -> None:
    """Of the variance of a difference, 20% of the test rows' part and 60% of the training rows' part are common."""
    rng = np.random.default_rng(0)
    for training, own in ((0.0, 0.0), (0.5, 0.0), (1.0, 0.0), (0.5, 0.5)):
        setting = simulation.Setting(1, 2, training, own, free=False)
        drawn = [simulation.comparison(setting, rng) for _ in range(3000)]
        d = np.array([c["loss_0"] - c["cross_entropy"] for c in drawn])
        assert d.var() == pytest.approx(1, abs=0.06)
        shared = (1 - own) * (0.6 * training + 0.2 * (1 - training))
        assert np.corrcoef(d.T)[0, 1] == pytest.approx(shared, abs=0.06)
