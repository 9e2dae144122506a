"""What is pruned and stopped for each fold, against the same trainings to the end."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from lossfit.compare.candidates import candidates
from lossfit.compare.training import train
from lossfit.compare.training.task import Task
from trainings import CLASSES, FEATURES, agree, changed, setting, task

TRIALS, FOLDS = 5, 4


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    """Sums in another order then differ too little to change what a training comes to."""
    torch.set_default_dtype(torch.float64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)


def whole(name: str = "focal", *, metric: str = "log_loss", **how: Any) -> Task:
    settings = candidates.settings(candidates.candidates()[name], TRIALS, 0)
    plain = task(name, settings, count=FOLDS, metric=metric, **how)
    if name == "class_weights":  # and rows that count differently
        plain = changed(plain, weight=np.random.default_rng(0).uniform(0.5, 2, len(plain.rows.labels)))
    return plain


def of_folds(whole: Task) -> list[list[dict[str, Any]]]:
    """The records of the loss itself, by fold and setting."""
    (metric,) = whole.recipe.metrics
    found = [r for r in train.train(whole)[metric].settings if r["loss"] == whole.recipe.candidate.name]
    return [[r for r in found if r["fold"] == k] for k in range(FOLDS)]


def best_so_far(record: dict[str, Any], checkpoint: int) -> float:
    """The log loss, negated: more is better."""
    return -min(record["curve_values"][:checkpoint])


@pytest.mark.parametrize("hidden", [0, 6])
@pytest.mark.parametrize("name", ["focal", "exact", "for_macro_f1", "logit_adjustment", "class_weights"])
def test_halving_keeps_the_better_half_twice_and_does_not_disturb_it(name: str, hidden: int) -> None:
    plain = whole(name, hidden=hidden)
    full, found = of_folds(plain), of_folds(changed(plain, rungs=(2, 4)))
    for own, expected in zip(found, full, strict=True):
        alive = list(range(TRIALS))
        ends = dict.fromkeys(alive, 24)
        for checkpoint in (2, 4):
            order = sorted(alive, key=lambda t: -best_so_far(expected[t], checkpoint))
            for t in order[len(alive) // 2 :]:
                ends[t] = 3 * checkpoint
            alive = order[: len(alive) // 2]
        for t, (record, to_the_end) in enumerate(zip(own, expected, strict=True)):
            assert record["pruned"] == (t not in alive)
            assert record["steps"] == record["curve_steps"][-1] == ends[t]
            done = len(record["curve_steps"])
            for key in ("curve_values", "curve_gaps"):
                assert np.array(record[key]) == pytest.approx(np.array(to_the_end[key][:done]), rel=1e-9)
            if t in alive:
                agree(record, to_the_end, rel=1e-9, leave=("chosen",))
            assert not record["failed"]
            assert not record["stopped"]
            assert record["chosen"] == (t in alive)


def test_what_has_failed_is_pruned_first() -> None:
    settings = [setting(rate) for rate in (float("inf"), 0.02, float("inf"), 0.03)]
    for found in of_folds(changed(task(settings=settings, count=FOLDS), rungs=(2, 4))):
        assert [r["pruned"] for r in found][::2] == [True, True]
        assert [r["failed"] for r in found] == [True, False, True, False]
        assert sum(not r["pruned"] for r in found) == 1


def test_a_pruned_setting_is_chosen_where_all_others_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two settings the better one is kept, and then breaks down in each of its checkpoints' measurements."""
    plain = task(settings=[setting(0.05), setting(0.002)], count=FOLDS)
    assert all(r["chosen"] == (r["trial"] == 0) for own in of_folds(changed(plain, rungs=(2,))) for r in own)
    broken = changed(plain, settings=[setting(float("inf")), setting(float("inf"))], rungs=(2,))
    assert not any(r["chosen"] for own in of_folds(broken) for r in own)


def learnt_at_once(patience: int) -> Task:
    """The accuracy of all is 1 from the first checkpoint on."""
    plain = whole("cross_entropy", metric="accuracy", noise=0.0)
    apart, rows = 50 * np.eye(CLASSES, FEATURES), plain.rows
    far = [
        (apart[rows.labels[own]], apart[rows.labels[np.concatenate(held)]], apart[:0])
        for own, held in zip(rows.train, rows.held_out, strict=True)
    ]
    return changed(plain, matrices=far, patience=patience)


@pytest.mark.parametrize("patience", [1, 2, 7])
def test_what_does_not_improve_ends(patience: int) -> None:
    for own in of_folds(learnt_at_once(patience)):
        for record in own:
            assert record["steps"] == min(3 * (1 + patience), 24)
            assert record["stopped"] == (patience < 7)
            assert (record["best_step"], record["validation"]) == (3, 1.0)


@pytest.mark.parametrize("patience", [1, 2])
def test_a_fold_ends_when_none_of_its_settings_improves(patience: int) -> None:
    plain = whole("cross_entropy", metric="accuracy", hidden=6)
    plain = changed(plain, settings=plain.recipe.settings[: 6 - 2 * patience])
    full, found = of_folds(plain), of_folds(changed(plain, patience=patience))
    ends = []
    for own, expected in zip(found, full, strict=True):
        values = np.array([record["curve_values"] for record in expected])
        improves = (np.diff(np.maximum.accumulate(values, 1), prepend=-1, axis=1) > 0).any(0)
        stale = [0]
        for better in improves:
            stale.append(0 if better else stale[-1] + 1)
        ends.append(next((3 * k for k, n in enumerate(stale) if n == patience), 24))
        for record, to_the_end in zip(own, expected, strict=True):
            assert record["steps"] == ends[-1]
            assert record["validation"] == max(to_the_end["curve_values"][: ends[-1] // 3])
    assert min(ends) < 24


def test_progress_goes_to_1_where_all_ends_early() -> None:
    shares: list[float] = []
    train.train(changed(learnt_at_once(1), rungs=(2, 4)), shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
