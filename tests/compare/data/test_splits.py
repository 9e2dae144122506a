"""Splits of the rows, and what their labels become."""

import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from lossfit.compare.data import duplicates
from lossfit.compare.data.dataset import Dataset
from lossfit.compare.data.splits import Split, draw, equalised
from lossfit.compare.errors import InputError

COUNTS = [40, 3, 17, 4]


def dataset(counts: list[int], votes: np.ndarray | None = None) -> Dataset:
    """Rows of these counts in no order; with votes, in the order of the classes."""
    labels = np.repeat(np.arange(len(counts)), counts)
    if votes is None:
        labels = np.random.default_rng(7).permutation(labels)
    return Dataset("test", labels, [f"class {c}" for c in range(len(counts))], "", votes=votes)


def equal(a: Split, b: Split) -> bool:
    return all(np.array_equal(getattr(a, part), getattr(b, part)) for part in ("train", "validation", "test", "seen"))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(3, 60), min_size=2, max_size=6), st.integers(0, 2**32))
def test_parts_are_disjoint_exhaustive_and_stratified(counts: list[int], seed: int) -> None:
    data = dataset(counts)
    for split in draw(data, 2, seed):
        rows = np.concatenate([split.train, split.validation, split.test])
        assert sorted(rows.tolist()) == list(range(data.rows))
        for c, count in enumerate(counts):
            train, validation, test = (
                int((data.labels[part] == c).sum()) for part in (split.train, split.validation, split.test)
            )
            assert min(train, validation, test) >= 1
            assert abs(test - 0.2 * count) <= 0.5
            assert abs(validation - 0.2 * count) <= 0.5
        assert np.array_equal(split.seen, data.labels)


def test_rows_of_a_part_are_not_in_the_order_of_the_classes() -> None:
    split = draw(dataset([50, 50]), 1, 0)[0]
    for part in (split.train, split.validation, split.test):
        assert np.any(np.diff(part) < 0)
        assert np.any(np.diff(dataset([50, 50]).labels[part]) < 0)


def test_a_split_does_not_depend_on_how_many_there_are() -> None:
    data = dataset(COUNTS)
    few, many = draw(data, 2, 5, 0.3), draw(data, 6, 5, 0.3)
    assert all(equal(a, b) for a, b in zip(few, many[:2], strict=True))
    assert len(many) == 6


def test_splits_differ_between_their_numbers_and_seeds() -> None:
    data = dataset(COUNTS)
    found = [split for seed in range(4) for split in draw(data, 4, seed)]
    assert len({tuple(split.test) for split in found}) == 16
    assert equal(draw(data, 1, 3)[0], found[12])


def test_every_row_is_tested_on_about_equally_often() -> None:
    data = dataset([30, 20])
    tested = np.bincount(np.concatenate([s.test for s in draw(data, 500, 0)]), minlength=50)
    assert chisquare(tested).pvalue > 1e-3


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.9])
def test_label_noise_changes_training_labels_at_its_rate(rate: float) -> None:
    data = dataset([6000, 3000, 500, 500])
    plain, noisy = draw(data, 1, 0)[0], draw(data, 1, 0, rate)[0]
    assert np.array_equal(plain.train, noisy.train)
    assert np.array_equal(plain.test, noisy.test)
    held_out = np.concatenate([noisy.validation, noisy.test])
    assert np.array_equal(noisy.seen[held_out], data.labels[held_out])
    before, after = data.labels[noisy.train], noisy.seen[noisy.train]
    count = len(noisy.train)
    # Were flips to the same class possible, a quarter of them would not be seen.
    assert np.mean(before != after) == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / count))
    for c in range(4):
        others = np.bincount(after[(before == c) & (after != c)], minlength=4)
        assert others[c] == 0
        assert chisquare(np.delete(others, c)).pvalue > 1e-3


def test_almost_full_noise_leaves_no_label() -> None:
    data = dataset([100, 100, 100])
    split = draw(data, 1, 0, 1 - 1e-12)[0]
    assert not np.any(split.seen[split.train] == data.labels[split.train])
    assert set(split.seen) == {0, 1, 2}


def test_noise_differs_between_splits() -> None:
    first, second = draw(dataset([100, 100]), 2, 0, 0.5)
    assert not np.array_equal(first.seen, second.seen)


def test_labels_seen_follow_the_votes_and_those_of_the_test_do_not() -> None:
    votes = np.repeat([[5, 3, 0], [1, 6, 3], [0, 0, 4]], [3000, 2000, 500], axis=0)
    data = dataset([3000, 2000, 500], votes)
    labels = data.labels.copy()
    first, second = draw(data, 2, 0)
    for split in (first, second):
        for rows in (split.train, split.validation):
            for c, shares in enumerate(([5 / 8, 3 / 8], [0.1, 0.6, 0.3], [0.0, 0.0, 1.0])):
                drawn = np.bincount(split.seen[rows[data.labels[rows] == c]], minlength=3)
                likely = np.flatnonzero(shares)
                assert drawn[likely].sum() == drawn.sum()  # nobody draws a class that no rater chose
                if len(likely) > 1:
                    assert chisquare(drawn[likely], np.array(shares)[likely] * drawn.sum()).pvalue > 1e-3
    assert not np.array_equal(first.seen, second.seen)
    assert np.array_equal(data.labels, labels)


def test_noise_comes_on_top_of_votes() -> None:
    votes = np.repeat([[3, 1], [1, 3]], 500, axis=0)
    data = dataset([500, 500], votes)
    plain, noisy = draw(data, 1, 0)[0], draw(data, 1, 0, 0.25)[0]
    changed = np.flatnonzero(plain.seen != noisy.seen)
    assert np.isin(changed, noisy.train).all()
    assert len(changed) / len(noisy.train) == pytest.approx(0.25, abs=0.06)


def test_classes_of_too_few_rows_are_named() -> None:
    expected = "at least 3 rows, one each to train, to choose and to test. Too few have: 'class 1' (2), 'class 3' (1)."
    with pytest.raises(InputError, match=re.escape(expected)):
        draw(dataset([5, 2, 3, 1]), 1, 0)
    draw(dataset([3, 3]), 1, 0)


def test_a_class_for_each_row_is_none() -> None:
    with pytest.raises(InputError, match="Each of the 40 rows has a class of its own: the target holds ids or"):
        draw(dataset(40 * [1]), 1, 0)


class TestGroups:
    """Rows that stay together."""

    @staticmethod
    def grouped(counts: list[int], groups: int, seed: int = 0) -> Dataset:
        data = dataset(counts)
        return replace(data, groups=np.random.default_rng(seed).integers(0, groups, data.rows))

    @pytest.mark.parametrize("groups", [12, 60, 3000])
    def test_no_group_crosses_a_split(self, groups: int) -> None:
        data = self.grouped([4000, 1500, 900], groups)
        assert data.groups is not None
        for split in draw(data, 3, 1):
            parts = split.test, split.validation, split.train
            assert sorted(np.concatenate(parts).tolist()) == list(range(data.rows))
            kinds = [set(data.groups[part]) for part in parts]
            assert not kinds[0] & kinds[1]
            assert not kinds[2] & (kinds[0] | kinds[1])
            for part, share in zip(parts, (0.2, 0.2, 0.6), strict=True):
                assert len(part) / data.rows == pytest.approx(share, abs=0.1)
                assert set(data.labels[part]) == {0, 1, 2}
                assert np.mean(data.labels[part] == 0) == pytest.approx(0.625, abs=0.05)

    def test_large_groups_are_tested_on_too_and_not_always(self) -> None:
        data = dataset([100, 100])
        sizes = [50, 30, 20, *(10 * [10])]
        data = replace(data, groups=np.repeat(np.arange(13), sizes))
        assert data.groups is not None
        tested = [set(data.groups[split.test]) for split in draw(data, 60, 0)]
        for group in range(13):
            assert 2 <= sum(group in found for found in tested) <= 30

    def test_splits_depend_on_seed_and_number_alone(self) -> None:
        data = self.grouped([300, 100], 40)
        few, many = draw(data, 2, 5), draw(data, 4, 5)
        assert all(equal(a, b) for a, b in zip(few, many[:2], strict=True))
        assert not equal(many[0], many[1])
        assert not equal(draw(data, 1, 6)[0], few[0])

    def test_three_groups_are_enough_if_each_has_every_class(self) -> None:
        data = replace(dataset([30, 30]), groups=np.arange(60) % 3)
        split = draw(data, 1, 0)[0]
        assert {len(split.train), len(split.validation), len(split.test)} == {20}

    @pytest.mark.parametrize("groups", [1, 2])
    def test_fewer_are_not(self, groups: int) -> None:
        data = replace(dataset([30, 30]), groups=np.arange(60) % groups)
        with pytest.raises(InputError, match=f"Expected at least 3 groups to split, but there are {groups}"):
            draw(data, 1, 0)

    def test_a_class_of_too_few_groups_is_named(self) -> None:
        data = dataset([60, 6])
        data = replace(data, groups=np.where(data.labels == 1, np.cumsum(data.labels) % 2, np.arange(66) % 9))
        with pytest.raises(InputError, match=r"each part has rows of each class; 'class 1' is in 2 groups only"):
            draw(data, 1, 0)

    def test_rare_classes_that_scikit_learn_warns_of(self) -> None:
        data = dataset([60, 3])
        data = replace(data, groups=np.where(data.labels == 1, np.cumsum(data.labels), np.arange(63) % 9))
        for split in draw(data, 4, 0):
            assert all(set(data.labels[part]) == {0, 1} for part in (split.train, split.validation, split.test))

    def test_any_number_of_right_classes(self) -> None:
        rng = np.random.default_rng(0)
        data = Dataset("test", rng.random((300, 3)) < 0.4, list("abc"), "", groups=np.arange(300) % 50)
        assert data.groups is not None
        for split in draw(data, 3, 0):
            parts = split.test, split.validation, split.train
            assert sum(len(set(data.groups[part])) for part in parts) == 50
            assert sum(len(part) for part in parts) == 300

    def test_parts_of_one_size(self) -> None:
        data = self.grouped([400, 100, 12], 100)
        drawn = draw(data, 6, 0)
        assert len({len(split.train) for split in drawn}) > 1
        alike = equalised(data, drawn, 0)
        for part in ("train", "validation", "test"):
            rows = [set(getattr(split, part).tolist()) for split in drawn]
            kept = [set(getattr(split, part).tolist()) for split in alike]
            assert {len(found) for found in kept} == {min(len(found) for found in rows)}
            assert all(a <= b for a, b in zip(kept, rows, strict=True))
            assert all(len(set(data.labels[list(found)])) == 3 for found in kept)

    def test_parts_of_very_different_sizes_stay(self) -> None:
        data = replace(dataset([100, 100]), groups=np.repeat(np.arange(5), [120, 30, 20, 20, 10]))
        drawn = draw(data, 6, 0)
        assert equalised(data, drawn, 0) is drawn


class TestGivenTest:
    """Rows to test on that the user gives."""

    DATA = replace(dataset([50, 30, 20]), test=np.arange(100) % 4 == 0)

    def test_they_are_those_and_the_others_are_cut(self) -> None:
        assert self.DATA.test is not None
        first, second = draw(self.DATA, 2, 0)
        for split in (first, second):
            assert split.test.tolist() == list(range(0, 100, 4))
            assert sorted([*split.train, *split.validation]) == np.flatnonzero(~self.DATA.test).tolist()
            for c in range(3):
                own = np.sum(self.DATA.labels[~self.DATA.test] == c)
                assert np.sum(self.DATA.labels[split.validation] == c) == pytest.approx(own / 4, abs=0.5)
        assert not np.array_equal(first.train, second.train)

    def test_classes_need_rows_to_train_and_choose_on(self) -> None:
        data = dataset([50, 3])
        rare = np.flatnonzero(data.labels == 1)
        draw(replace(data, test=np.isin(np.arange(53), rare[:1]) | (np.arange(53) == 0)), 1, 0)
        with pytest.raises(
            InputError, match=r"at least 2 rows besides those to test on.* Too few have: 'class 1' \(1\)"
        ):
            draw(replace(data, test=np.isin(np.arange(53), rare[:2])), 1, 0)

    @pytest.mark.parametrize("rows", [0, 1])
    def test_what_other_rows_would_change_needs_two(self, rows: int) -> None:
        with pytest.raises(InputError, match=f"Expected at least 2 rows to test on, but got {rows}"):
            draw(replace(self.DATA, test=np.arange(100) < rows), 1, 0)

    def test_groups_must_not_cross(self) -> None:
        data = replace(self.DATA, groups=np.arange(100) % 4)
        for split in draw(data, 4, 0):
            assert not set(split.train % 4) & set(split.validation % 4)
        with pytest.raises(InputError, match="Groups must not cross splits, but 5 of them have rows to test on and"):
            draw(replace(data, groups=np.arange(100) % 10), 1, 0)

    def test_any_number_of_right_classes(self) -> None:
        labels = np.random.default_rng(0).random((100, 3)) < 0.5
        data = Dataset("test", labels, list("abc"), "", test=self.DATA.test)
        split = draw(data, 1, 0)[0]
        assert split.test.tolist() == list(range(0, 100, 4))
        assert len(split.validation) == 19


class TestMaxRows:
    """At most so many rows a split."""

    def test_splits_hold_a_share_of_each_class_and_differ(self) -> None:
        data = dataset([6000, 3000, 990, 10])
        drawn = draw(data, 3, 0, max_rows=1000)
        for split in drawn:
            parts = split.train, split.validation, split.test
            assert [len(part) for part in parts] == pytest.approx([600, 200, 200], abs=3)
            assert len(set(np.concatenate(parts))) == sum(len(part) for part in parts)
            for part in parts:
                counts = np.bincount(data.labels[part], minlength=4)
                assert counts[:3] / len(part) == pytest.approx([0.6, 0.3, 0.1], abs=0.01)
                assert counts[3] == 1
        assert len(set(drawn[0].train) & set(drawn[1].train)) < 100

    def test_fewer_rows_are_all_taken(self) -> None:
        data = dataset([60, 30])
        for a, b in zip(draw(data, 3, 0), draw(data, 3, 0, max_rows=90), strict=True):
            assert equal(a, b)

    def test_given_test_rows_come_on_top_and_are_the_same(self) -> None:
        data = replace(dataset([500, 500]), test=np.arange(1000) % 2 == 0)
        first, second = draw(data, 2, 0, max_rows=100)
        assert (len(first.train), len(first.validation), len(first.test)) == (75, 25, 100)
        assert np.array_equal(first.test, second.test)
        assert set(first.test % 2) == {0}
        assert len(draw(data, 1, 0, max_rows=499)[0].test) == pytest.approx(499, abs=1)

    def test_groups_stay_together(self) -> None:
        data = replace(dataset([3000, 3000]), groups=np.arange(6000) % 80)
        assert data.groups is not None
        split = draw(data, 1, 0, max_rows=600)[0]
        kinds = [set(data.groups[part]) for part in (split.train, split.validation, split.test)]
        assert sum(len(found) for found in kinds) == len(set.union(*kinds))
        assert len(split.train) + len(split.validation) + len(split.test) == pytest.approx(600, abs=4)

    def test_any_number_of_right_classes(self) -> None:
        data = Dataset("test", np.random.default_rng(0).random((2000, 3)) < 0.3, list("abc"), "")
        split = draw(data, 1, 0, max_rows=100)[0]
        assert (len(split.train), len(split.validation), len(split.test)) == (60, 20, 20)


class TestDuplicates:
    """Rows of the same features."""

    @staticmethod
    def rows(x: list[int], words: list[str] | None = None) -> Dataset:
        words = words or ["u"] * len(x)
        return replace(
            dataset([len(x) // 2, len(x) - len(x) // 2]),
            numeric=pl.DataFrame({"x": x}).cast(pl.Float64),
            categorical=pl.DataFrame({"w": words}),
        )

    def test_they_are_counted_as_longhand(self) -> None:
        rng = np.random.default_rng(0)
        x = rng.integers(0, 60, 100).tolist()
        words = rng.choice(["u", "v"], 100).tolist()
        data = self.rows(x, words)
        drawn = draw(data, 5, 0)
        pairs = list(zip(x, words, strict=True))
        leaking = []
        for split in drawn:
            known = {pairs[i] for i in [*split.train, *split.validation]}
            leaking.append(sum(pairs[i] in known for i in split.test))
        repeated = sum(pairs.count(pair) > 1 for pair in pairs)
        assert duplicates.count(data, drawn) == (repeated, np.mean(leaking))
        told = (
            f"Duplicates: {repeated} of 100 rows have the same features as another row. In the mean over the splits, "
        )
        assert (duplicates.note(data, drawn) or "").startswith(f"{told}{np.mean(leaking):.1f} of 20 test rows have a")

    def test_none(self) -> None:
        data = self.rows(list(range(20)))
        assert duplicates.note(data, draw(data, 2, 0)) is None

    def test_groups_keep_them_together(self) -> None:
        x = [i // 2 for i in range(40)]
        data = replace(self.rows(x), groups=np.array(x))
        assert duplicates.note(data, draw(data, 3, 0)) == (
            "Duplicates: 40 of 40 rows have the same features as another row, but none has its twin on the other side "
            "of a split."
        )

    def test_of_texts_and_images(self) -> None:
        images = np.zeros((8, 3, 3, 1), dtype=np.uint8)
        images[:, 0, 0, 0] = [0, 1, 2, 3, 4, 5, 6, 6]
        data = Dataset("test", np.arange(8) % 2, ["a", "b"], "", images=images)
        drawn = draw(data, 2, 0)
        assert duplicates.count(data, drawn)[0] == 2
        assert duplicates.count(replace(data, text=pl.DataFrame({"t": list("abcdefgh")})), drawn)[0] == 0
        assert duplicates.count(replace(data, text=pl.DataFrame({"t": list("abcdefgg")})), drawn)[0] == 2
