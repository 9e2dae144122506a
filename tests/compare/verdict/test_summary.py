"""From trainings to an answer, on results that are made up so that the answer is known."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from lossfit.compare.candidates import candidates
from lossfit.compare.data import folds
from lossfit.compare.data.dataset import Dataset
from lossfit.compare.outcome import Outcome
from lossfit.compare.plan import Plan
from lossfit.compare.report import wording
from lossfit.compare.scoring import metrics
from lossfit.compare.training.models import Architecture
from lossfit.compare.verdict import evidence, summary
from lossfit.compare.verdict.judge import judge
from lossfit.compare.verdict.prior import Known, Prior

ROWS, TRIALS, FOLDS, REPEATS = 400, 2, 5, 2
NETWORK = Architecture("mlp", 8, 2, 32)
RATES = {"cross_entropy": 0.6, "focal": 0.75, "poly": 0.64, "squared": 0.4}
DATA = Dataset("test", np.arange(ROWS) % 2, ["no", "yes"], "")
DRAWN = folds.draw(DATA, FOLDS, REPEATS)


def plan(metric: str = "accuracy", **more: Any) -> Plan:
    return Plan("t.csv", "y", metric=metric, losses="focal,poly,squared", trials=TRIALS, **more)


def passes(own: Plan, rates: dict[str, float] = RATES, repeats: int = REPEATS) -> pl.DataFrame:
    """Hits of every row, drawn anew for each pass but for half of the rows."""
    rng, found = np.random.default_rng(0), []
    easy = rng.random(ROWS)
    for candidate in own.candidates:
        rate = rates.get(candidate.name, rates.get(candidate.name.partition("+")[0]))
        for repeat in range(repeats if rate is not None else 0):
            for j in range(FOLDS - 1):
                luck = np.where(np.arange(ROWS) % 2, easy, rng.random(ROWS))
                hits = (luck < rate).astype(float)
                row: dict[str, Any] = {"loss": candidate.name, "repeat": repeat, "pass": j, "validation": hits.mean()}
                for name in own.kind.measured(own.metric):
                    row |= {f"test_{name}": hits.mean(), f"influence_{name}": pl.Series(hits - hits.mean())}
                found.append(row)
    return pl.DataFrame(found)


def results(own: Plan) -> pl.DataFrame:
    """The second setting is the better one, and its best checkpoint is the sixth of eight."""
    found = []
    for candidate in own.candidates:
        settings = candidates.settings(candidate, TRIALS, 0)
        for repeat in range(REPEATS):
            for fold in range(FOLDS):
                for t, setting in enumerate(settings):
                    found.append(
                        {
                            "loss": candidate.name,
                            "repeat": repeat,
                            "fold": fold,
                            "trial": t,
                            "params": json.dumps(candidate.describe(setting)),
                            "learning_rate": setting["learning_rate"],
                            "weight_decay": setting["weight_decay"],
                            "chosen": t == 1,
                            "failed": False,
                            "pruned": False,
                            "stopped": False,
                            "best_step": 300 if t else 50,
                            "steps": 400,
                            "validation": 0.7 if t else 0.6,
                            "step": [0.5 + fold / 4] if candidate.tuned else [],
                            "seconds": 0.5,
                        }
                    )
    return pl.DataFrame(found)


def outcome(own: Plan | None = None, **changes: Any) -> Outcome:
    own = own or plan()
    made = Outcome(own, DATA, DRAWN, results(own), passes(own), 12.0, 320, NETWORK, "cpu")
    return replace(made, **changes)


def entries(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["loss"]: entry for entry in found["losses"]}


def test_it_says_what_the_judge_says() -> None:
    made = outcome()
    found = summary.summarise(made, Prior())
    names = [c.name for c in made.plan.candidates]
    assert names == ["cross_entropy", "focal", "poly", "squared"]
    expected = judge(
        evidence.passes(made.passes, names, "accuracy", DRAWN, REPEATS),
        evidence.layout(DRAWN, DATA, REPEATS),
        "accuracy",
        Prior(),
        reference="cross_entropy",
    )
    assert found["advised"]["loss"] == found["recommended"]["loss"] == expected.advised.name == "focal"
    assert found["advised"]["claim"] == expected.claim == "better_than_free"
    assert found["recommended"]["better_than_cross_entropy"]
    gain = expected.advised.over_reference
    assert found["advised"]["gain_over_reference"] == {"mean": gain.mean, "ci95": [gain.low, gain.high]}
    assert found["advised"]["gain_over_free"]["expected"] == expected.advised.expected
    assert found["advised"]["probability_best"] == expected.advised.probability_best
    for judged in expected.candidates:
        entry = entries(found)[judged.name]
        assert entry["test"]["accuracy"]["mean"] == judged.estimate.mean
        assert entry["vs_cross_entropy"]["difference"] == judged.over_reference.mean
        assert entry["vs_cross_entropy"]["verdict"] == judged.over_reference.side
        assert entry["vs_free"]["difference"] == judged.over_free.mean
        assert entry["repeats"] == REPEATS
    sides = {loss: entry["vs_cross_entropy"]["verdict"] for loss, entry in entries(found).items()}
    assert sides == {"cross_entropy": "undecided", "focal": "better", "poly": "undecided", "squared": "worse"}
    assert found["critical_values"]["over_reference"] == expected.critical_reference
    assert found["alternatives"] == ["poly", "cross_entropy"]
    assert found["free"] == found["reference"] == "cross_entropy"


def test_where_less_is_better_the_least_is_advised() -> None:
    found = summary.summarise(outcome(plan("log_loss")), Prior())
    assert found["advised"]["loss"].startswith("squared")
    assert found["advised"]["gain_over_reference"]["mean"] > 0
    versus = entries(found)["squared"]["vs_cross_entropy"]
    assert versus["difference"] < 0
    assert versus["ci95"][0] < versus["difference"] < versus["ci95"][1]
    assert versus["verdict"] == "better"
    assert "points" not in versus


def test_the_prior_may_overrule_what_is_measured_but_not_the_claims() -> None:
    known = Prior({"accuracy": {"poly": Known(9.0, 1e-6), "focal": Known(-9.0, 1e-6)}})
    found = summary.summarise(outcome(), known)
    assert found["advised"]["loss"] == "poly"
    assert found["advised"]["claim"] == "none"
    assert entries(found)["focal"]["vs_cross_entropy"]["verdict"] == "better"


def test_the_setting_and_its_steps_are_those_of_most_choices() -> None:
    own = plan("balanced_accuracy")
    found = entries(summary.summarise(outcome(own), Prior()))
    for candidate in own.candidates:
        setting = candidates.settings(candidate, TRIALS, 0)[1]
        entry = found[candidate.name]
        assert entry["params"] == candidate.describe(setting)
        assert entry["tuned"] == candidate.tuned
        # 300 of 400 steps on three fifths of the rows; on all there are as many.
        assert entry["training"] == {
            "learning_rate": setting["learning_rate"],
            "weight_decay": setting["weight_decay"],
            "steps": 300,
            "of": 400,
            "batch": 128,
        }
        assert entry["step"] == ([1.0] if candidate.tuned else [])


def test_a_choice_that_pruned_the_setting_does_not_say_when_to_end() -> None:
    rows = results(plan()).with_columns(pruned=(pl.col("fold") < 2) & (pl.col("trial") == 1))
    rows = rows.with_columns(best_step=pl.when(pl.col("pruned")).then(50).otherwise("best_step"))
    found = entries(summary.summarise(outcome(results=rows), Prior()))
    assert found["focal"]["training"]["steps"] == 300
    assert found["focal"]["pruned_settings"] == 2 * REPEATS


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("loss", ["focal", "cross_entropy"])
def test_a_candidate_that_failed_is_last_and_not_compared(loss: str) -> None:
    own = plan()
    failed = results(own).with_columns(failed=(pl.col("loss") == loss))
    rows = passes(own, {name: rate for name, rate in RATES.items() if name != loss})
    found = summary.summarise(outcome(results=failed, passes=rows), Prior())
    assert entries(found)[loss]["vs_cross_entropy"] is None
    assert entries(found)[loss]["test"]["accuracy"] == {"mean": None, "ci95": [None, None]}
    assert found["failed_settings"] == TRIALS * FOLDS * REPEATS
    if loss == "focal":
        assert found["losses"][-1]["loss"] == "focal"
        assert found["advised"]["loss"] == "poly"
    else:
        assert found["advised"]["loss"] == "cross_entropy"
        assert found["advised"]["claim"] == "none"
        assert wording.answer(found)[0].startswith("Nothing can be compared to cross-entropy")


def test_all_failed() -> None:
    rows = results(plan()).with_columns(failed=pl.lit(True))
    found = summary.summarise(outcome(results=rows, passes=pl.DataFrame()), Prior())
    assert found["advised"]["loss"] == "cross_entropy"
    assert wording.answer(found)[0].startswith("Nothing can be compared")


def test_a_loss_that_raced_in_one_repeat_is_judged_by_it() -> None:
    rows = passes(plan()).filter((pl.col("repeat") == 0) | (pl.col("loss") != "squared"))
    found = entries(summary.summarise(outcome(passes=rows), Prior()))
    assert found["squared"]["repeats"] == 1
    assert found["squared"]["vs_cross_entropy"]["verdict"] == "worse"


class TestAnswers:
    """The first sentences, with the numbers of the summary."""

    def told(self, own: Plan | None = None, known: Prior | None = None, **changes: Any) -> str:
        return " ".join(wording.answer(summary.summarise(outcome(own, **changes), known or Prior())))

    def test_a_proven_gain(self) -> None:
        told = self.told()
        assert told.startswith("Use focal loss, gamma ")
        assert "points of accuracy expected over cross-entropy, the best of all with a probability of 100%." in told
        assert "Measured over cross-entropy's " in told
        assert "Measurably better than cross-entropy, for models trained on these rows." in told
        assert "Measurably worse than cross-entropy: squared loss (" in told
        assert "Next: poly loss (" in told

    def test_a_bet_without_proof(self) -> None:
        rows = passes(plan(), {"cross_entropy": 0.6, "focal": 0.61, "poly": 0.6, "squared": 0.6})
        told = self.told(passes=rows)
        if "Stay with" not in told:
            assert "Not proven better than cross-entropy: the difference may be chance. Still the best bet." in told

    def test_what_is_free(self) -> None:
        own = plan("balanced_accuracy")
        rows = passes(own)
        better = rows.filter(pl.col("loss") == "focal").with_columns(loss=pl.lit("cross_entropy+tuned_prior"))
        rest = rows.filter(~pl.col("loss").is_in(["focal", "focal+tuned_prior", "cross_entropy+tuned_prior"]))
        told = self.told(own, passes=pl.concat([rest, better]))
        assert told.startswith("Use cross-entropy, prior tuned, which costs no training: it is the best of all")
        assert "Measurably better than cross-entropy, for models trained on these rows." in told

    def test_better_than_the_reference_but_not_than_what_is_free(self) -> None:
        own = plan("balanced_accuracy")
        rows = passes(own, {**RATES, "cross_entropy+tuned_prior": 0.75})
        known = Prior({"balanced_accuracy": {"focal": Known(5.0, 0.01), "focal+tuned_prior": Known(-9.0, 0.01)}})
        told = self.told(own, known, passes=rows)
        assert told.startswith("Use focal loss")
        assert "Not proven better than cross-entropy, prior tuned: the difference may be chance. Still the best" in told

    def test_staying(self) -> None:
        told = self.told(known=Prior({"accuracy": dict.fromkeys(RATES, Known(-20.0, 1e-9))}))
        assert told.startswith("Stay with cross-entropy (")

    def test_nothing_else(self) -> None:
        own = Plan("t.csv", "y", losses="cross_entropy", trials=TRIALS)
        found = summary.summarise(outcome(own), Prior())
        value = wording.number(found["losses"][0]["test"]["accuracy"]["mean"], "accuracy")
        assert wording.answer(found) == [f"Cross-entropy reaches {value}% accuracy; nothing else was compared."]

    def test_a_damaged_prior_is_told(self) -> None:
        assert "The prior is lost." in self.told(known=Prior(note="The prior is lost."))

    def test_what_other_data_sets_do_not_know_is_told(self) -> None:
        measured = {"cross_entropy": Known(0.0, 0.1), "poly": Known(-1.0, 0.1), "squared": Known(-2.0, 0.1)}
        told = self.told(known=Prior({"accuracy": measured}))
        stands_in = "the median of all candidates by accuracy stands in."
        assert told.endswith(f"Other data sets say nothing about focal loss: {stands_in}")
        assert "Other data sets" not in self.told(known=Prior({"accuracy": {**measured, "focal": Known(0.0, 0.1)}}))
        told = self.told(plan("brier"), known=Prior({"accuracy": measured}))
        assert told.endswith(f"No other data set was measured by Brier score: {stands_in}")


def test_every_metric_is_judged_by_itself() -> None:
    found = summary.summarise(outcome(), Prior())
    for entry in found["losses"]:
        assert set(entry["differences"]) == set(metrics.METRICS)
    told = wording.other_metrics(found)
    assert any(line.startswith("Balanced accuracy, points - better: focal loss (+") for line in told)
    assert math.isfinite(found["losses"][0]["expected"])
