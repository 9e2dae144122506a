"""Counts by class and confusions, against loops over the rows and scikit-learn."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from lossfit.compare.plan import Plan
from lossfit.compare.report import classes, learning
from lossfit.compare.running import engine
from lossfit.compare.scoring import class_counts
from lossfit.compare.verdict import rule, stats
from lossfit.compare.verdict.summary import chosen, summarise

ROWS, CLASSES = 40, 5


def scores(models: int = 4, classes: int = CLASSES, rows: int = ROWS) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(models, rows, classes), torch.randint(classes, (models, rows))


@pytest.mark.parametrize("weighted", [False, True])
def test_counts_and_confusions(weighted: bool) -> None:
    log_p, target = scores()
    weight = torch.rand(4, ROWS) if weighted else None
    found = class_counts.of_confusions(log_p, target, weight)
    assert set(found) == set(class_counts.NAMES)
    for m in range(4):
        each = None if weight is None else weight[m].numpy()
        matrix = confusion_matrix(target[m], log_p[m].argmax(1), labels=range(CLASSES), sample_weight=each)
        np.testing.assert_allclose(found["class_hits"][m], matrix.diagonal(), rtol=1e-6)
        np.testing.assert_allclose(found["class_rows"][m], matrix.sum(1), rtol=1e-6)
        np.testing.assert_allclose(found["class_predicted"][m], matrix.sum(0), rtol=1e-6)
        again = np.diag(np.array(found["class_hits"][m], dtype=float))
        columns = (found[f"confused_{name}"][m] for name in ("actual", "predicted", "rows"))
        for a, p, n in zip(*columns, strict=True):
            assert n > 0
            again[a, p] += n
        np.testing.assert_allclose(again, matrix, rtol=1e-6)
        assert all(isinstance(n, float if weighted else int) for n in found["class_hits"][m])


def test_many_classes_keep_the_most_frequent_confusions() -> None:
    log_p, target = scores(1, 600, 3000)
    target[0, :50], log_p[0, :50, 7] = 3, 100.0
    found = class_counts.of_confusions(log_p, target, None)
    assert len(found["class_rows"][0]) == 600
    assert len(found["confused_rows"][0]) == class_counts.MOST_PAIRS
    assert (found["confused_actual"][0][0], found["confused_predicted"][0][0]) == (3, 7)
    assert found["confused_rows"][0] == sorted(found["confused_rows"][0], reverse=True)


@pytest.mark.parametrize("weighted", [False, True])
def test_any_number_of_right_classes(weighted: bool) -> None:
    predicted, labels = torch.rand(2, ROWS, CLASSES) > 0.5, torch.rand(2, ROWS, CLASSES) > 0.3
    weight = torch.rand(2, ROWS) if weighted else None
    found = class_counts.of_classes(predicted, labels, weight)
    hits = np.zeros(CLASSES)
    for i in range(ROWS):
        each = 1.0 if weight is None else float(weight[1, i])
        hits += each * (predicted[1, i] & labels[1, i]).numpy()
    np.testing.assert_allclose(found["class_hits"][1], hits, rtol=1e-6)
    precision, recall, _, _ = precision_recall_fscore_support(
        labels[1], predicted[1], sample_weight=None if weight is None else weight[1], average=None
    )
    np.testing.assert_allclose(hits / np.array(found["class_predicted"][1]), precision, rtol=1e-6)
    np.testing.assert_allclose(hits / np.array(found["class_rows"][1]), recall, rtol=1e-6)


@pytest.mark.parametrize("higher", [True, False])
def test_the_counts_of_the_chosen_are_kept(higher: bool) -> None:
    sign = 1 if higher else -1
    nothing = -sign * math.inf
    records = [
        {"loss": loss, "split": s, "trial": t, "failed": v == nothing, "pruned": p, "validation": v, "class_hits": [1]}
        for loss in ("focal", "poly")
        for s, (values, pruned) in enumerate(
            [
                ([0.1, 0.5, 0.5], [False, False, False]),  # the first of ties
                ([0.9, 0.2, 0.1], [True, False, False]),  # not the pruned one
                ([0.3, -math.inf, 0.2], [True, False, True]),  # unless all others failed
            ]
        )
        for t, (v, p) in enumerate(zip([sign * x for x in values], pruned, strict=True))
    ]
    thinned = class_counts.thin(records, higher=higher)
    assert [r["trial"] for r in thinned if r["class_hits"] is not None] == [1, 1, 0] * 2
    best = chosen(pl.DataFrame(records), "accuracy" if higher else "log_loss")
    assert best["trial"].to_list() == [1, 1, 0] * 2
    assert all(r["class_hits"] == [1] for r in records)


def test_differences_are_those_of_the_corrected_test() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.3, 1, (8, 4))
    values[:5, 1] = np.nan
    values[1:, 2] = np.nan
    values[:, 3] = 0.0
    found = classes.differences(values)
    raw = []
    for c in (0, 1, 3):
        own = values[np.isfinite(values[:, c]), c]
        expected = stats.paired_difference(own, rule.TEST_TO_TRAIN)
        assert found.mean[c] == pytest.approx(expected.mean, abs=1e-12)
        assert found.low[c] == pytest.approx(expected.low, abs=1e-12)
        assert found.high[c] == pytest.approx(expected.high, abs=1e-12)
        raw.append(stats.paired_difference(own, rule.SHARED).p_value)
    np.testing.assert_allclose(found.p_value[[0, 1, 3]], stats.holm(raw))
    assert np.isnan(found.mean[2])
    assert np.isnan(found.p_value[2])


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> engine.Outcome:
    folder = tmp_path_factory.mktemp("detail")
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 120)
    frame = pl.DataFrame(
        {"x": label + rng.normal(0, 0.8, 120), "w": rng.integers(1, 4, 120), "y": [f"c{c}" for c in label]}
    )
    frame.write_csv(folder / "t.csv")
    plan = Plan(str(folder / "t.csv"), "y", losses="focal", metric="macro_f1", splits=3, trials=2, weight="w")
    return engine.run(plan, folder / "out")


def test_what_is_kept_is_of_the_chosen_trainings(outcome: engine.Outcome) -> None:
    """By the counts of the chosen training one finds the test metrics of that training again."""
    best = chosen(outcome.results, "macro_f1")
    assert outcome.results["class_hits"].is_not_null().sum() == best.height
    for row in best.iter_rows(named=True):
        hits, predicted, actual = (np.array(row[f"class_{name}"]) for name in ("hits", "predicted", "rows"))
        assert hits.sum() / actual.sum() == pytest.approx(row["test_accuracy"])
        assert (hits / actual).mean() == pytest.approx(row["test_balanced_accuracy"])
        assert (2 * hits / (predicted + actual)).mean() == pytest.approx(row["test_macro_f1"])
        assert sum(row["confused_rows"]) == pytest.approx(actual.sum() - hits.sum())


def test_the_view_of_the_classes(outcome: engine.Outcome) -> None:
    summary = summarise(outcome)
    best = chosen(outcome.results, "macro_f1")
    found = classes.view(best, summary)
    assert set(found.charts) == {"by_class", "confusion"}
    spec = json.dumps(found.charts["by_class"].to_dict())
    focal, base = (classes.measures(best, name, summary)["recall"] for name in ("focal", "cross_entropy"))
    assert f'"value": {float(f"{100 * focal[:, 1].mean():.5g}")}' in spec
    assert f'"reference": {float(f"{100 * base[:, 1].mean():.5g}")}' in spec
    for loss, pairs in found.confused.items():
        assert {pair[0] for pair in pairs} <= {"c0", "c1", "c2"}, loss
    matrix: dict[str, Any] = found.charts["confusion"].to_dict()
    rows = next(iter(matrix["datasets"].values()))
    for loss in ("Focal loss", "Cross-entropy"):
        for name in ("c0", "c1", "c2"):
            shares = [r["share"] for r in rows if r["loss"] == loss and r["actual"] == name]
            assert sum(shares) == pytest.approx(1, abs=1e-4)


def test_a_stopped_split_counts_with_its_last_value() -> None:
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


def test_a_part_with_few_counts_keeps_them(tmp_path: Path) -> None:
    """Records without counts come first, more of them than are looked at to guess a table's columns."""
    from lossfit.compare.running import store

    records = [{"split": 0, "params": {}, "class_hits": None} for _ in range(150)]
    store.write_part(
        tmp_path / "a.parquet", "0" * 64, [*records, {"split": 0, "params": {}, "class_hits": [1, 2]}], 0, 0.1
    )
    assert pl.read_parquet(tmp_path / "a.parquet")["class_hits"][-1].to_list() == [1, 2]
