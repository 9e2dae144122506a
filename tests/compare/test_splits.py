"""Splits of the rows, and what their labels become."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from lossfit.compare.data import Dataset
from lossfit.compare.errors import InputError
from lossfit.compare.splits import Split, draw

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
