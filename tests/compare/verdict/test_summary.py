"""From trainings to an answer, on results that are made up so that the answer is known."""

import json
import math
import re

import numpy as np
import polars as pl
import pytest
from scipy import stats

from lossfit.compare.candidates import candidates
from lossfit.compare.data import dataset
from lossfit.compare.plan import Plan
from lossfit.compare.report import wording
from lossfit.compare.running import engine
from lossfit.compare.scoring import metrics
from lossfit.compare.training.models import Architecture
from lossfit.compare.verdict import summary

NETWORK = Architecture("mlp", 8, 10, 32)

SPLITS, TRIALS = 6, 2
# Per split, for the better of the two settings on validation.
TEST = {
    "cross_entropy": [0.50, 0.52, 0.48, 0.51, 0.49, 0.50],
    "focal": [0.60, 0.62, 0.57, 0.61, 0.60, 0.60],
    "poly": [0.505, 0.515, 0.485, 0.51, 0.49, 0.50],
    "squared": [0.30, 0.31, 0.29, 0.33, 0.30, 0.30],
}


def records() -> list[dict[str, object]]:
    found = []
    for loss, values in TEST.items():
        candidate = candidates.candidates()[loss]
        settings = candidates.settings(candidate, TRIALS, 0)
        for split, value in enumerate(values):
            for trial in range(TRIALS):
                right = trial == split % 2
                found.append(
                    {
                        "loss": loss,
                        "split": split,
                        "trial": trial,
                        "params": json.dumps(candidate.describe(settings[trial])),
                        "learning_rate": settings[trial]["learning_rate"],
                        "weight_decay": settings[trial]["weight_decay"],
                        "failed": False,
                        "pruned": False,
                        "stopped": False,
                        "validation": 0.7 if right else 0.6,
                        # The other setting would do better on the test rows, which may not matter.
                        **{f"test_{metric}": value if right else 0.99 for metric in metrics.METRICS},
                        "seconds": 0.5,
                    }
                )
    return found


def outcome(rows: list[dict[str, object]], metric: str = "accuracy") -> engine.Outcome:
    plan = Plan("yeast", metric=metric, losses="focal,poly,squared", splits=SPLITS, trials=TRIALS)
    return engine.Outcome(plan, dataset.load("yeast"), pl.DataFrame(rows), 12.0, NETWORK, "cpu")


def entries(found: dict[str, object]) -> dict[str, dict[str, object]]:
    return {entry["loss"]: entry for entry in found["losses"]}


def test_the_setting_is_chosen_on_validation() -> None:
    found = entries(summary.summarise(outcome(records())))
    for loss, values in TEST.items():
        assert found[loss]["test"]["accuracy"]["mean"] == pytest.approx(np.mean(values))
        assert found[loss]["test"]["accuracy"]["std"] == pytest.approx(np.std(values, ddof=1))


def test_where_less_is_better_the_least_is_chosen() -> None:
    rows = records()
    for row in rows:
        row["validation"] = -row["validation"]
    found = summary.summarise(outcome(rows, "log_loss"))
    assert entries(found)["focal"]["test"]["log_loss"]["mean"] == pytest.approx(np.mean(TEST["focal"]))
    assert [e["loss"] for e in found["losses"]] == ["squared", "cross_entropy", "poly", "focal"]
    assert found["recommended"]["loss"] == "squared"


def test_differences_are_paired_and_adjusted() -> None:
    found = entries(summary.summarise(outcome(records())))
    p_values = {}
    for loss in ("focal", "poly", "squared"):
        d = np.subtract(TEST[loss], TEST["cross_entropy"])
        error = math.sqrt((1 / SPLITS + 0.2 / 0.8) * d.var(ddof=1))
        versus = found[loss]["vs_cross_entropy"]
        assert versus["difference"] == pytest.approx(d.mean())
        reach = stats.t.ppf(0.975, SPLITS - 1) * error
        assert versus["ci95"] == pytest.approx([d.mean() - reach, d.mean() + reach])
        p_values[loss] = 2 * stats.t.sf(abs(d.mean()) / error, SPLITS - 1)
        assert versus["p_value"] == pytest.approx(p_values[loss])
    ranked = sorted(p_values, key=p_values.__getitem__)
    expected, largest = {}, 0.0
    for i, loss in enumerate(ranked):
        largest = max(largest, min(1.0, p_values[loss] * (3 - i)))
        expected[loss] = largest
    assert {loss: found[loss]["vs_cross_entropy"]["p_holm"] for loss in expected} == pytest.approx(expected)
    assert found["cross_entropy"]["vs_cross_entropy"]["difference"] == 0


def test_the_best_of_the_measurably_better_is_recommended() -> None:
    found = summary.summarise(outcome(records()))
    assert [e["loss"] for e in found["losses"]] == ["focal", "poly", "cross_entropy", "squared"]
    assert found["recommended"]["loss"] == "focal"
    assert found["recommended"]["better_than_cross_entropy"]
    sides = {e["loss"]: summary.verdict(e["vs_cross_entropy"], "accuracy") for e in found["losses"]}
    assert sides == {"focal": "better", "poly": "undecided", "cross_entropy": "undecided", "squared": "worse"}


def test_if_none_is_measurably_better_cross_entropy_stays() -> None:
    rows = [row for row in records() if row["loss"] != "focal"]
    plan = Plan("yeast", losses="poly,squared", splits=SPLITS, trials=TRIALS)
    found = summary.summarise(engine.Outcome(plan, dataset.load("yeast"), pl.DataFrame(rows), 1.0, NETWORK, "cpu"))
    assert found["losses"][0]["loss"] == "poly"
    assert found["recommended"]["loss"] == "cross_entropy"
    assert not found["recommended"]["better_than_cross_entropy"]
    assert found["model"] == "a network with one hidden layer of 32 units: 8 features to 10 classes, 618 parameters"


def test_failed_trainings_are_passed_over_and_counted() -> None:
    rows = records()
    for row in rows:
        if row["loss"] == "poly" and row["split"] == 0 and row["trial"] == 0:
            row.update(failed=True, validation=math.inf)
    found = summary.summarise(outcome(rows))
    poly = entries(found)["poly"]
    assert found["failed_trainings"] == poly["failed_trainings"] == 1
    assert poly["test"]["accuracy"]["mean"] == pytest.approx(np.mean([0.99, *TEST["poly"][1:]]))


def test_a_pruned_training_is_chosen_only_where_all_others_failed() -> None:
    rows = records()
    for row in rows:  # the one that is better on validation
        row["pruned"] = row["trial"] == row["split"] % 2
        if row["loss"] == "poly" and row["split"] == 0 and not row["pruned"]:
            row.update(failed=True, validation=-math.inf)
    found = summary.summarise(outcome(rows))
    assert entries(found)["focal"]["test"]["accuracy"]["mean"] == pytest.approx(0.99)
    expected = np.mean([TEST["poly"][0], *[0.99] * (SPLITS - 1)])
    assert entries(found)["poly"]["test"]["accuracy"]["mean"] == pytest.approx(expected)
    assert found["search"]["pruned"] == len(TEST) * SPLITS
    assert entries(found)["poly"]["pruned_trainings"] == SPLITS
    assert f"given up: {len(TEST) * SPLITS} of {len(TEST) * SPLITS * TRIALS} trainings" in wording.searched(found)


def test_the_setting_shown_is_the_best_on_average_where_all_splits_try_the_same() -> None:
    rows = records()
    for row in rows:
        row["validation"] = [0.7, 0.6][row["trial"]] if row["split"] < 5 else [0.0, 0.6][row["trial"]]
    shown = entries(summary.summarise(outcome(rows)))["focal"]
    tried = candidates.settings(candidates.candidates()["focal"], TRIALS, 0)[1]
    assert shown["params"] == {"gamma": tried["gamma"]}
    assert shown["training"] == {k: tried[k] for k in ("learning_rate", "weight_decay")}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("failing_splits", [1, 5, 6])
def test_a_loss_without_a_result_in_every_split_is_not_compared(failing_splits: int) -> None:
    rows = records()
    for row in rows:
        if row["loss"] == "poly" and row["split"] < failing_splits:
            row.update(failed=True, validation=-math.inf)
    found = summary.summarise(outcome(rows))
    assert found["losses"][-1]["loss"] == "poly"
    assert found["losses"][-1]["vs_cross_entropy"] is None
    assert found["recommended"]["loss"] == "focal"


@pytest.mark.parametrize(
    ("failing", "told"),
    [
        (
            ["cross_entropy"],
            "Nothing can be compared to cross-entropy: in a split or more, every training of it failed",
        ),
        ([name for name in TEST if name != "cross_entropy"], "reaches 50.0% accuracy; in a split or more, every"),
    ],
)
def test_the_answer_says_what_failed(failing: list[str], told: str) -> None:
    rows = records()
    for row in rows:
        if row["loss"] in failing and row["split"] == 0:
            row.update(failed=True, validation=-math.inf)
    found = summary.summarise(outcome(rows))
    assert found["recommended"]["loss"] == "cross_entropy"
    answer = wording.answer(found)
    assert len(answer) == 1
    assert told in answer[0]


def with_free(points: float) -> dict[str, object]:
    """Macro F1, with a prior tuned that lifts it by so many points, and a split more or less."""
    free = [0.50 + points / 100 + d for d in (0.002, 0.018, -0.022, 0.014, -0.012, 0.001)]
    rows = [row for row in records() if row["loss"] == "cross_entropy"]
    best = [{**row, "loss": "cross_entropy+tuned_prior", "params": "{}"} for row in rows]
    for row in best:
        row |= {f"test_{metric}": free[row["split"]] for metric in metrics.METRICS}
    return summary.summarise(outcome([*records(), *best], "macro_f1"))


def test_a_loss_is_recommended_only_if_it_beats_what_is_free() -> None:
    found = with_free(9.9)
    assert found["recommended"]["loss"] == "cross_entropy+tuned_prior"
    assert found["recommended"]["better_than_cross_entropy"]
    assert found["recommended"]["better_than_free"] == []
    assert found["held_back"] == ["focal"]
    assert "PriorTuning" in " ".join(found["recommended"]["code"])
    assert found["trainings"] == len(TEST) * SPLITS * TRIALS  # what is free trains nothing
    found = with_free(0.2)
    assert found["recommended"]["loss"] == "focal"
    (over,) = found["recommended"]["better_than_free"]
    assert over["loss"] == "cross_entropy+tuned_prior"
    assert over["difference"] == pytest.approx(np.mean(TEST["focal"]) - 0.502, abs=1e-3)
    assert {e["loss"]: e["free"] for e in found["losses"]}["cross_entropy+tuned_prior"]


def test_a_guess_that_is_free_says_so() -> None:
    """It need not be the most probable one."""
    rows = [row for row in records() if row["loss"] == "cross_entropy"]
    for row in list(rows):
        value = row["test_macro_f1"] + 0.002 + 0.01 * (-1) ** row["split"]  # type: ignore[operator]
        rows.append({**row, "loss": "cross_entropy+tuned_prior", "params": "{}", "test_macro_f1": value})
    found = summary.summarise(outcome(rows, "macro_f1"))
    assert found["best_guess"]["loss"] == "cross_entropy+tuned_prior"
    assert re.search("prior tuned, which is free and the best of all with a probability", wording.answer(found)[-1])


def test_what_would_tell_a_difference_is_estimated_for_the_undecided() -> None:
    found = entries(summary.summarise(outcome(records())))
    assert found["focal"]["needed"] is None
    assert found["poly"]["needed"]["splits"] is None or found["poly"]["needed"]["splits"] > SPLITS
    assert found["poly"]["needed"]["rows"] > 1
    assert sum(e["probability_best"] for e in found.values()) == pytest.approx(1)
    assert found["focal"]["probability_best"] > 0.99
    assert found["focal"]["vs_cross_entropy"]["points"] == pytest.approx(
        100 * (np.mean(TEST["focal"]) - np.mean(TEST["cross_entropy"]))
    )


def test_no_loss_is_distinguishable_is_said_where_it_is_true() -> None:
    rows = [row for row in records() if row["loss"] in ("cross_entropy", "poly")]
    plan = Plan("yeast", losses="poly", splits=SPLITS, trials=TRIALS)
    found = summary.summarise(engine.Outcome(plan, dataset.load("yeast"), pl.DataFrame(rows), 1.0, NETWORK, "cpu"))
    assert not found["distinguishable"]
    assert wording.answer(found)[0] == (
        "No loss is distinguishable from cross-entropy (50.0% accuracy) on this data: stay with it."
    )
    assert found["best_guess"]["loss"] == "cross_entropy"
    entries(found)["poly"]["vs_cross_entropy"]["difference"] = 1e-17  # type: ignore[index]
    assert wording.answer(found)[1:] == ["None is better on average either."]
    rows = [row for row in records() if row["loss"] in ("cross_entropy", "squared")]
    plan = Plan("yeast", losses="squared", splits=SPLITS, trials=TRIALS)
    found = summary.summarise(engine.Outcome(plan, dataset.load("yeast"), pl.DataFrame(rows), 1.0, NETWORK, "cpu"))
    assert found["distinguishable"]
    assert wording.answer(found)[0].startswith("Stay with cross-entropy (50.0% accuracy)")


def test_the_answer_says_what_was_beaten_and_held_back() -> None:
    told = " ".join(wording.answer(with_free(0.2)))
    assert told.startswith("Train with Focal loss, gamma ")
    assert "It beats what is free too: +9.8 points over cross-entropy, prior tuned." in told
    told = " ".join(wording.answer(with_free(9.9)))
    assert told.startswith("Keep cross-entropy and tune it after training: +9.9 points")
    assert "Not measurably better than what is free: focal loss." in told


def test_keys_that_others_rely_on() -> None:
    found = summary.summarise(outcome(records()))
    assert {"source", "metric", "recommended", "losses", "trainings", "seconds"} <= set(found)
    assert {"loss", "params"} <= set(found["recommended"])
    for entry in found["losses"]:
        assert {"loss", "params", "test", "vs_cross_entropy"} <= set(entry)
        assert set(entry["test"]) == set(metrics.METRICS)
        for value in entry["test"].values():
            assert set(value) == {"mean", "std"}
        assert {"difference", "ci95", "p_value"} <= set(entry["vs_cross_entropy"])
    assert found["trainings"] == len(TEST) * SPLITS * TRIALS
    assert found["seconds"] == 12.0
    json.dumps(found, allow_nan=False)
