"""Counts by class and what rows do to them, against scikit-learn and by leaving rows out."""

import json
import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats as scipy_stats
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from lossfit.compare.outcome import Outcome
from lossfit.compare.plan import Plan
from lossfit.compare.report import classes, learning
from lossfit.compare.running import engine
from lossfit.compare.scoring import class_counts
from lossfit.compare.scoring.class_counts import MEASURES, count, difference, one_hot
from lossfit.compare.verdict.summary import summarise
from trainings import QUICK

ROWS, CLASSES, PASSES = 40, 5, 3


def labels(several: bool, seed: int = 0) -> tuple[np.ndarray, list[np.ndarray]]:
    """Right ones, and those predicted in each pass."""
    rng = np.random.default_rng(seed)
    if several:
        return rng.random((ROWS, CLASSES)) < 0.4, [rng.random((ROWS, CLASSES)) < 0.5 for _ in range(PASSES)]
    actual = rng.integers(0, CLASSES, ROWS)
    told = [np.where(rng.random(ROWS) < 0.6, actual, rng.integers(0, CLASSES, ROWS)) for _ in range(PASSES)]
    return actual, told


def counted(actual: np.ndarray, told: list[np.ndarray], weight: np.ndarray | None = None) -> class_counts.Counted:
    return count(one_hot(actual, CLASSES), [one_hot(p, CLASSES) for p in told], weight)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("several", [False, True])
def test_measures_are_those_of_scikit_learn(several: bool, weighted: bool) -> None:
    actual, told = labels(several)
    weight = np.random.default_rng(1).uniform(0.5, 2, ROWS) if weighted else None
    found = counted(actual, told, weight)
    for p, own in enumerate(told):
        precision, recall, f1, _ = precision_recall_fscore_support(
            actual, own, labels=range(CLASSES), sample_weight=weight, average=None, zero_division=0
        )
        for name, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
            np.testing.assert_allclose(found.values[name][p], expected, rtol=1e-10)
        if not several:
            matrix = confusion_matrix(actual, own, labels=range(CLASSES), sample_weight=weight)
            np.testing.assert_allclose(found.hits[p], matrix.diagonal())
            np.testing.assert_allclose(found.predicted[p], matrix.sum(0))
            np.testing.assert_allclose(found.actual[p], matrix.sum(1))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("several", [False, True])
def test_influences_are_derivatives_by_the_weight_of_a_row(several: bool, measure: str) -> None:
    actual, told = labels(several)
    weight = np.random.default_rng(1).uniform(0.5, 2, ROWS)
    found = counted(actual, told, weight).influence[measure].toarray()
    assert found.sum(0) == pytest.approx(0, abs=1e-9)
    for i in (0, 7, 23):
        ends = []
        for change in (1e-5, -1e-5):
            moved = weight.copy()
            moved[i] += change
            ends.append(counted(actual, told, moved).values[measure].mean(0))
        expected = ROWS * weight[i] * (ends[0] - ends[1]) / 2e-5
        assert found[i] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_error_of_a_recall_is_that_of_its_rows_and_of_the_passes() -> None:
    actual, told = labels(False)
    other = labels(False, 5)[1]
    own, base = counted(actual, told), counted(actual, [np.where(actual == 2, p, actual) for p in other])
    found = difference(own, base, "recall")
    for c in range(CLASSES):
        rows = actual == c
        hits = np.mean(
            [
                (a == c).astype(float) - (np.where(actual == 2, b, actual) == c)
                for a, b in zip(told, other, strict=True)
            ],
            0,
        )
        d = hits[rows]
        of_rows = ((d - d.mean()) ** 2).sum() / rows.sum() ** 2 * ROWS / (ROWS - 1)
        passes = own.values["recall"][:, c] - base.values["recall"][:, c]
        assert found.mean[c] == pytest.approx(d.mean())
        assert found.error[c] == pytest.approx(math.sqrt(of_rows + 2 * passes.var(ddof=1) / PASSES))


def test_rows_of_a_group_are_one_unit() -> None:
    actual, told = labels(False)
    doubled = counted(np.repeat(actual, 2), [np.repeat(p, 2) for p in told])
    zero = counted(np.repeat(actual, 2), [np.repeat(actual, 2)] * PASSES)
    found = difference(doubled, zero, "f1", np.repeat(np.arange(ROWS), 2))
    expected = difference(counted(actual, told), counted(actual, [actual] * PASSES), "f1")
    np.testing.assert_allclose(found.error, expected.error)


def test_a_class_without_rows_is_not_tested() -> None:
    actual, told = labels(False)
    actual = np.where(actual == 3, 1, actual)
    found = difference(counted(actual, told), counted(actual, [actual] * PASSES), "f1")
    assert np.isnan(found.mean).tolist() == [False, False, False, True, False]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("detail")
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 120)
    frame = pl.DataFrame(
        {"x": label + rng.normal(0, 0.8, 120), "w": rng.integers(1, 4, 120), "y": [f"c{c}" for c in label]}
    )
    frame.write_csv(folder / "t.csv")
    plan = Plan(str(folder / "t.csv"), "y", losses="focal", metric="macro_f1", folds=3, repeats=2, trials=2, weight="w")
    return engine.run(plan, folder / "out", limits=QUICK)


def test_predictions_give_the_metrics_again(outcome: Outcome) -> None:
    actual = one_hot(outcome.data.labels, 3)
    for row in outcome.passes.iter_rows(named=True):
        found = count(actual, [one_hot(np.array(row["predicted"]), 3)], outcome.data.weight)
        assert found.values["f1"].mean() == pytest.approx(row["test_macro_f1"])
        assert found.values["recall"].mean() == pytest.approx(row["test_balanced_accuracy"])
        np.testing.assert_allclose(
            found.influence["f1"].toarray().mean(1), row["influence_macro_f1"], rtol=1e-4, atol=1e-4
        )


def test_the_view_of_the_classes(outcome: Outcome) -> None:
    summary = summarise(outcome)
    found = classes.view(outcome, summary)
    assert set(found.charts) == {"by_class", "confusion"}
    spec = json.dumps(found.charts["by_class"].to_dict())
    actual = one_hot(outcome.data.labels, 3)
    for loss, key in (("focal", "value"), ("cross_entropy", "reference")):
        told = outcome.passes.filter(pl.col("loss") == loss)["predicted"].to_list()
        recall = count(actual, [one_hot(np.array(p), 3) for p in told], outcome.data.weight).values["recall"]
        assert f'"{key}": {float(f"{100 * recall[:, 1].mean():.5g}")}' in spec
    for loss, pairs in found.confused.items():
        assert {pair[0] for pair in pairs} <= {"c0", "c1", "c2"}, loss
    matrix: dict[str, Any] = found.charts["confusion"].to_dict()
    rows = next(iter(matrix["datasets"].values()))
    for loss in ("Focal loss", "Cross-entropy"):
        for name in ("c0", "c1", "c2"):
            shares = [r["share"] for r in rows if r["loss"] == loss and r["actual"] == name]
            assert sum(shares) == pytest.approx(1, abs=1e-4)


def test_intervals_of_classes_are_of_the_t_distribution(outcome: Outcome) -> None:
    counts = classes._Counts(outcome)
    (row, *_) = classes._differences("focal", "f1", counts, "cross_entropy", {"c0": 1, "c1": 1, "c2": 1})
    own = difference(counts.of("focal", 4), counts.of("cross_entropy", 4), "f1")
    reach = 100 * scipy_stats.t(60).ppf(0.975) * own.error[0]
    assert row["high"] - row["difference"] == pytest.approx(reach)
    assert row["difference"] - row["low"] == pytest.approx(reach)


def test_a_stopped_choice_counts_with_its_last_value() -> None:
    best = pl.DataFrame(
        {
            "loss": ["focal"] * 3,
            "curve_steps": [[10, 20, 30], [10, 20], [10]],
            "curve_values": [[0.1, 0.3, 0.9], [0.2, 0.4], [0.6]],
        }
    )
    found = learning.course(best, "focal", "curve_values")
    # At 30 one of three is left, which is fewer than half.
    assert {step: float(v) for step, v in found.items()} == {
        10: pytest.approx((0.1 + 0.2 + 0.6) / 3),
        20: pytest.approx((0.3 + 0.4 + 0.6) / 3),
    }
