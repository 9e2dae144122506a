"""What is pruned and stopped, against the same trainings to the end."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from lossfit.compare.candidates import candidates
from lossfit.compare.scoring.fixed_test import groups
from lossfit.compare.training import train
from lossfit.compare.training.task import Task
from lossfit.compare.verdict.summary import chosen
from trainings import CLASSES, FEATURES, agree, changed, setting, task

TRIALS = 5


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    """Sums in another order then differ too little to change what a training comes to."""
    torch.set_default_dtype(torch.float64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)


def whole(name: str = "focal", *, metric: str = "log_loss", count: int = 3, trials: int = TRIALS, **how: Any) -> Task:
    plain = task(name, candidates.settings(candidates.candidates()[name], trials, 0), count=count, metric=metric, **how)
    if name == "class_weights":  # and rows that count differently
        plain = changed(plain, weight=np.random.default_rng(0).uniform(0.5, 2, len(plain.rows.labels)))
    return plain


def best_so_far(record: dict[str, Any], checkpoint: int) -> float:
    """Of the log loss; more is better."""
    return -min(record["curve_values"][:checkpoint])


@pytest.mark.parametrize("hidden", [0, 6])
@pytest.mark.parametrize("name", ["focal", "exact", "for_macro_f1", "logit_adjustment", "class_weights"])
def test_halving_keeps_the_better_half_twice_and_does_not_disturb_it(name: str, hidden: int) -> None:
    plain = whole(name, hidden=hidden)
    full, found = train.train(plain), train.train(changed(plain, rungs=(2, 4)))
    for s in range(3):
        alive = list(range(TRIALS))
        ends = dict.fromkeys(alive, 24)
        for checkpoint in (2, 4):
            order = sorted(alive, key=lambda t: -best_so_far(full[s * TRIALS + t], checkpoint))
            for t in order[len(alive) // 2 :]:
                ends[t] = 3 * checkpoint
            alive = order[: len(alive) // 2]
        for t in range(TRIALS):
            record, expected = found[s * TRIALS + t], full[s * TRIALS + t]
            assert record["pruned"] == (t not in alive)
            assert record["steps"] == record["curve_steps"][-1] == ends[t]
            done = len(record["curve_steps"])
            for key in ("curve_values", "curve_gaps"):
                assert np.array(record[key]) == pytest.approx(np.array(expected[key][:done]), rel=1e-9)
            if t in alive:
                agree(record, expected, rel=1e-9)
            assert not record["failed"]
            assert not record["stopped"]


def test_what_has_failed_is_pruned_first() -> None:
    settings = [setting(rate) for rate in (float("inf"), 0.02, float("inf"), 0.03)]
    found = train.train(changed(task(settings=settings), rungs=(2, 4)))
    assert [r["pruned"] for r in found][::2] == [True, True]
    assert [r["failed"] for r in found] == [True, False, True, False]
    assert sum(not r["pruned"] for r in found) == 1


def mixed(patience: int) -> Task:
    """Of two splits the first is learnt at once; accuracy cannot improve."""
    plain = whole("cross_entropy", metric="accuracy", count=2, noise=0.0)
    split = plain.rows.splits[0]
    apart = 50 * np.eye(CLASSES, FEATURES)
    far = tuple(apart[plain.rows.labels[rows]] for rows in (split.train, split.validation, split.test))
    return changed(plain, matrices=[far, plain.rows.matrices[1]], patience=patience)


@pytest.mark.parametrize("patience", [1, 2, 7])
def test_a_split_ends_when_none_of_its_models_improves(patience: int) -> None:
    found, full = train.train(mixed(patience)), train.train(mixed(0))
    for record in found[:TRIALS]:
        assert record["steps"] == min(3 * (1 + patience), 24)
        assert record["stopped"] == (patience < 7)
        assert (record["best_step"], record["test_accuracy"]) == (3, 1.0)
    values = np.array([record["curve_values"] for record in full[TRIALS:]])
    best = np.maximum.accumulate(values, 1)
    improves = (np.diff(best, prepend=-1, axis=1) > 0).any(0)
    stale = [0]
    for better in improves:
        stale.append(0 if better else stale[-1] + 1)
    ends = next((3 * k for k, n in enumerate(stale) if n == patience), 24)
    for record, expected in zip(found[TRIALS:], full[TRIALS:], strict=True):
        assert record["steps"] == ends
        assert record["validation"] == max(expected["curve_values"][: ends // 3])
        if ends == 24:
            agree(record, expected, rel=1e-9, leave=("stopped",))


EVERYTHING: dict[str, Any] = {"rungs": (2, 4), "patience": 2}


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_a_split_does_not_depend_on_the_others(name: str) -> None:
    """Their validation rows may be its test rows."""
    plain = changed(whole(name, metric="accuracy", hidden=6), **EVERYTHING)
    found = train.train(plain)
    assert len(found) == 3 * TRIALS
    for s in range(3):
        own = {k: [getattr(plain.rows, k)[s]] for k in ("splits", "matrices", "seeds")}
        alone = train.train(changed(plain, **own))
        for record, expected in zip(found[s * TRIALS :], alone, strict=False):
            agree(record, expected, rel=1e-9, leave=("split",))


MEASURED = ("test_", "bin_", "risks", "class_", "confused_")


def test_nothing_is_decided_by_test_rows() -> None:
    plain = changed(whole(metric="macro_f1"), **EVERYTHING)
    turned = plain.rows.labels.copy()
    rows = plain.rows.splits[0].test
    turned[rows] = (turned[rows] + 1) % CLASSES
    found, other = train.train(plain)[:TRIALS], train.train(changed(plain, labels=turned))[:TRIALS]
    for a, b in zip(found, other, strict=True):
        kept = {key: value for key, value in a.items() if not key.startswith(MEASURED)}
        assert {key: b[key] for key in kept} == kept
    assert [r["test_accuracy"] for r in found] != [r["test_accuracy"] for r in other]


def test_progress_goes_to_1_where_all_ends_early() -> None:
    shares: list[float] = []
    train.train(changed(mixed(1), rungs=(2, 4)), shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_with_several_metrics_nothing_is_decided_by_one() -> None:
    plain = whole(count=1)
    found = train.train_for(changed(plain, **EVERYTHING), ["accuracy", "log_loss"])
    for metric, records in found.items():
        for record, expected in zip(records, train.train(changed(plain, metric=metric)), strict=True):
            agree(record, expected, rel=1e-9)


@pytest.mark.parametrize("free", [[], [candidates.FREE["single_label"]["macro_f1"]]])
def test_given_test_rows_are_left_out_a_tenth_at_a_time(free: list[candidates.Candidate]) -> None:
    plain = whole(metric="macro_f1", count=2, trials=4)
    given = [replace(s, test=plain.rows.splits[0].test) for s in plain.rows.splits]
    matrices = [(train_x, validation, plain.rows.matrices[0][2]) for train_x, validation, _ in plain.rows.matrices]
    plain = changed(plain, splits=given, matrices=matrices, rungs=(2, 4), free=free, fixed_test=True)
    found = train.train(plain)
    rows = plain.rows.labels[given[0].test]
    frame = pl.DataFrame([{**r, "params": ""} for r in found], infer_schema_length=None)
    best = chosen(frame, "macro_f1")
    assert frame["left_out_accuracy"].is_not_null().sum() == best.height == 2 * (1 + len(free))
    for row in best.iter_rows(named=True):
        assert len(row["left_out_macro_f1"]) == len(set(row["left_out_log_loss"])) == 10
        # A mean over rows is the mean of those without a group of them, weighted by how many are left.
        left = [len(rows) - len(rows[i::10]) for i in range(10)]
        for metric in ("accuracy", "log_loss", "brier"):
            whole_value = np.average(row[f"left_out_{metric}"], weights=left)
            assert whole_value == pytest.approx(row[f"test_{metric}"], rel=1e-9)


def test_tenths_have_their_share_of_each_class() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [70, 50, 30]))
    tenths = groups(labels).numpy()
    for c, count in enumerate((70, 50, 30)):
        assert np.bincount(tenths[labels == c], minlength=10).tolist() == [count // 10] * 10
    assert groups(np.zeros((4, 2), dtype=bool)).tolist() == [0, 1, 2, 3]
