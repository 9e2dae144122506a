"""Rows dealt out to folds."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from lossfit.compare.data import folds
from lossfit.compare.data.dataset import Dataset
from lossfit.compare.data.folds import draw
from lossfit.compare.errors import InputError
from lossfit.compare.training.task import FoldRows


def data(labels: np.ndarray, **more: Any) -> Dataset:
    classes = labels.shape[1] if labels.ndim == 2 else labels.max() + 1
    return Dataset("test", labels, [f"c{c}" for c in range(classes)], "", **more)


def shuffled(*counts: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


@pytest.mark.parametrize("counts", [(50, 30, 20), (97, 3, 3), (7, 6, 5), (1000, 11)])
@pytest.mark.parametrize("count", [3, 5, 8])
def test_each_class_is_spread_evenly(counts: tuple[int, ...], count: int) -> None:
    labels = shuffled(*counts)
    found = draw(data(labels), count, 3, seed=4)
    assert (found.rows == np.arange(len(labels))).all()
    for repeat in found.repeats:
        sizes = np.bincount(repeat.fold, minlength=count)
        assert sizes.max() - sizes.min() <= 1
        for c in range(len(counts)):
            own = np.bincount(repeat.fold[labels == c], minlength=count)
            assert own.max() - own.min() <= 1
        for pair in combinations(range(count), 2):
            assert set(labels[~np.isin(repeat.fold, pair)]) == set(range(len(counts)))
    assert not (found.repeats[0].fold == found.repeats[1].fold).all()


def test_trainings_leave_out_two_folds_each() -> None:
    found = draw(data(shuffled(50, 30)), 5, 2)
    assert found.pairs == list(combinations(range(5), 2))
    for r in range(2):
        for pair in found.pairs:
            parts = [found.train(r, pair), *found.held_out(r, pair)]
            assert np.sort(np.concatenate(parts)).tolist() == list(range(80))
            assert [set(found.repeats[r].fold[part]) for part in parts[1:]] == [{pair[0]}, {pair[1]}]


def test_every_row_is_tested_once_in_each_pass_by_a_model_that_never_saw_it() -> None:
    found = draw(data(shuffled(50, 30)), 5, 1)
    rows = as_rows(found, np.zeros(80))
    tested = np.zeros((4, 80), dtype=int)
    for k, use in enumerate(rows.uses):
        validation = np.concatenate([piece.rows for piece in use.validation])
        assert np.sort(validation).tolist() == np.flatnonzero(found.repeats[0].fold != k).tolist()
        for (m, place), piece, j in zip(use.models, use.test, use.passes, strict=True):
            assert rows.pairs[m][place] == k
            assert rows.pairs[m][1 - place] == (k + j + 1) % 5
            assert not np.intersect1d(piece.rows, rows.train[m]).size
            assert np.concatenate(rows.held_out[m])[piece.at].tolist() == piece.rows.tolist()
            assert found.rows[use.places].tolist() == piece.rows.tolist()
            tested[j, use.places] += 1
    assert (tested == 1).all()


def as_rows(found: folds.Folds, labels: np.ndarray) -> FoldRows:
    train = [found.train(0, pair) for pair in found.pairs]
    held_out = [found.held_out(0, pair) for pair in found.pairs]
    own = found.repeats[0]
    return FoldRows(
        0, found.count, found.pairs, train, held_out, [], [], labels, own.trained, own.chosen, found.rows, found.test
    )


def test_a_repeat_depends_on_the_seed_and_its_number_alone() -> None:
    rows = data(shuffled(50, 30))
    three, one = draw(rows, 5, 3, seed=7), draw(rows, 5, 1, seed=7)
    assert (three.repeats[0].fold == one.repeats[0].fold).all()
    assert not (draw(rows, 5, 1, seed=8).repeats[0].fold == one.repeats[0].fold).all()


@pytest.mark.parametrize("many", [False, True])
def test_groups_stay_together(many: bool) -> None:
    groups = np.repeat(np.arange(40), 5)
    labels = shuffled(120, 80)
    labels = np.stack([labels == 0, np.arange(200) % 3 == 0], 1) if many else labels
    found = draw(data(labels, groups=groups), 5, 2)
    for repeat in found.repeats:
        assert all(len(set(repeat.fold[groups == g])) == 1 for g in range(40))
        assert set(repeat.fold) == set(range(5))


def test_fewer_groups_than_folds() -> None:
    found = draw(data(shuffled(30, 30), groups=np.arange(60) % 4), 5, 1)
    assert found.count == 4
    assert found.notes == ["There are 4 folds, one for each group."]
    with pytest.raises(InputError, match=r"at least 3 groups to deal out to folds, but there are 2"):
        draw(data(shuffled(30, 30), groups=np.arange(60) % 2))


def test_a_class_in_too_few_groups() -> None:
    labels = np.array([0] * 40 + [1] * 10)
    groups = np.r_[np.arange(40) % 8, np.full(10, 9)]
    with pytest.raises(InputError, match=r"'c1' is in 1 groups only"):
        draw(data(labels, groups=groups))


def test_classes_with_fewer_rows_than_folds_are_told() -> None:
    found = draw(data(shuffled(40, 4, 3)), 5, 1)
    assert found.notes == ["Fewer rows than folds, so that some folds have none, are of the classes 'c1', 'c2'."]
    with pytest.raises(InputError, match=r"needs at least 3 rows.* Too few have: 'c1' \(2\)\."):
        draw(data(shuffled(40, 2)))
    with pytest.raises(InputError, match="a class of its own"):
        draw(data(np.arange(20)))


def test_several_right_classes_are_there_and_not_in_every_training() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random((60, 4)) < [0.5, 0.1, 0.9, 0.3]
    found = draw(data(labels), 5, 2)
    for repeat in found.repeats:
        assert np.ptp(np.bincount(repeat.fold)) <= 1
        for pair in found.pairs:
            own = labels[~np.isin(repeat.fold, pair)]
            assert (own.any(0) & ~own.all(0)).all()
    labels[:, 1] = np.arange(60) == 3
    with pytest.raises(InputError, match="'c1' is the rarest"):
        draw(data(labels))


def test_given_rows_are_in_no_fold() -> None:
    labels, test = shuffled(50, 30), np.arange(80) % 4 == 0
    found = draw(data(labels, test=test), 5, 2)
    assert found.test.tolist() == found.tested.tolist() == np.flatnonzero(test).tolist()
    assert found.rows.tolist() == np.flatnonzero(~test).tolist()
    uses = as_rows(found, labels).uses
    assert len(uses) == 1
    assert len(uses[0].validation) == 20
    assert all(piece.rows.tolist() == found.test.tolist() for piece in uses[0].test)
    with pytest.raises(InputError, match="at least 2 rows to test on, but got 1"):
        draw(data(labels, test=np.arange(80) == 0))


@pytest.mark.parametrize("kind", ["classes", "groups", "several"])
def test_at_most_so_many_rows(kind: str) -> None:
    labels, groups = shuffled(700, *((290, 10) if kind == "classes" else (300,))), np.arange(1000) // 10
    if kind == "several":
        labels = np.stack([labels == 0, labels == 1], 1)
    found = draw(data(labels, groups=groups if kind == "groups" else None), 5, 2, max_rows=200)
    assert 190 <= len(found.rows) <= 201
    assert (np.diff(found.rows) > 0).all()
    assert all(len(repeat.fold) == len(found.rows) for repeat in found.repeats)
    assert found.notes == [f"Of 1,000 rows {len(found.rows):,} take part (--max-rows)."]
    if kind == "classes":
        assert np.bincount(labels[found.rows]).tolist() == [140, 58, 3]
    if kind == "groups":
        assert all((np.bincount(groups[found.rows], minlength=100) == n).any() for n in (0, 10))


def test_noise_is_on_the_labels_to_train_on_alone() -> None:
    labels = shuffled(3000, 2000, 1000)
    found = draw(data(labels), 5, 2, label_noise=0.3)
    for repeat in found.repeats:
        assert (repeat.chosen == labels).all()
        wrong = repeat.trained != labels
        assert wrong.mean() == pytest.approx(0.3, abs=0.02)
        shift = (repeat.trained - labels)[wrong] % 3
        assert np.bincount(shift)[1:] / wrong.sum() == pytest.approx([0.5, 0.5], abs=0.03)
    many = np.random.default_rng(0).random((500, 3)) < 0.5
    turned = draw(data(many), 5, 1, label_noise=0.2).repeats[0].trained != many
    assert turned.mean(0) == pytest.approx([0.2] * 3, abs=0.06)


def test_votes_are_drawn_row_by_row_and_repeat_by_repeat() -> None:
    votes = np.tile([[6.0, 3.0, 1.0]], (4000, 1))
    labels = np.zeros(4000, dtype=int)
    labels[:6] = [1, 1, 1, 2, 2, 2]
    found = draw(data(labels, votes=votes), 5, 2)
    for repeat in found.repeats:
        assert np.bincount(repeat.chosen) / 4000 == pytest.approx([0.6, 0.3, 0.1], abs=0.03)
        assert (repeat.trained == repeat.chosen).all()
    assert not (found.repeats[0].chosen == found.repeats[1].chosen).all()
    rows, drawn = folds.whole(data(labels, votes=votes), 0)
    assert len(rows) == 4000
    assert np.bincount(drawn) / 4000 == pytest.approx([0.6, 0.3, 0.1], abs=0.03)
