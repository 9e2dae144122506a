"""Rows to train on, to choose on and to test on, drawn again for every split."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold

from lossfit.compare.data.dataset import Dataset
from lossfit.compare.errors import InputError

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.2
_ATTEMPTS = 200
_GROUP_ATTEMPTS = 20
# Above, stratifying takes seconds a split, and matters less.
_MANY_GROUPS = 2000
_MOST_KEPT = 0.9

Parts = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rows to test on, to choose on and to train on."""


@dataclass(frozen=True)
class Split:
    """Row indices, and the labels that training and validation see, which noise may have changed."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    seen: np.ndarray


def draw(data: Dataset, count: int, seed: int, label_noise: float = 0.0, max_rows: int | None = None) -> list[Split]:
    """Independent random splits, stratified: every class is in every part.

    scikit-learn's stratified splitters may leave a class of a few rows out of a part, in which balanced accuracy and
    macro F1 would have no value. Here each class is cut by itself. Where rows come in groups, scikit-learn's
    ``StratifiedGroupKFold`` cuts them into fifths, of which one, drawn evenly, is for testing and another for choosing;
    more than 2,000 groups are cut by ``GroupShuffleSplit``. Parts without one of the classes are drawn again.

    Where the rows to test on are given, splits differ in what is trained on and chosen on.

    Args:
        data: the rows. With votes, the labels that are trained and validated on are drawn from each row's votes, one
            rater a row.
        count: how many splits.
        seed: split s depends on (seed, s) alone.
        label_noise: the share of training labels to replace by another class, drawn evenly.
        max_rows: how many rows a split has at most, drawn again for each, in the shares of the whole, but at least one
            of each class in each part. Given rows to test on come on top, themselves at most as many, and the same in
            every split.

    Where any number of classes may be right, rows are drawn until each part has rows with and without each class, and
    noise turns labels one by one.

    Raises:
        InputError: a class has fewer than 3 rows, there are fewer than 2 given rows to test on, or no such parts are
            found.
    """
    if data.test is not None and data.test.sum() < 2:
        raise InputError(f"Expected at least 2 rows to test on, but got {int(data.test.sum())}.")
    if data.labels.ndim == 1:
        _check_classes(data)
    if data.groups is not None:
        _check_groups(data, data.groups)
    given = None if data.test is None else _given_test(data, data.test, seed, max_rows)
    return [_draw_one(data, np.random.default_rng((seed, s)), label_noise, max_rows, given) for s in range(count)]


def _check_classes(data: Dataset) -> None:
    if data.counts.max() == 1:
        raise InputError(
            f"Each of the {data.rows} rows has a class of its own: the target holds ids or measurements, not classes."
        )
    least, counts = 3, data.counts
    if data.test is not None:
        least, counts = 2, np.bincount(data.labels[~data.test], minlength=len(data.classes))
    few = [(name, n) for name, n in zip(data.classes, counts, strict=True) if n < least]
    if few:
        told = ", ".join(f"{name!r} ({n})" for name, n in few[:10])
        told += f" and {len(few) - 10} more" if len(few) > 10 else ""
        needed = "3 rows, one each to train, to choose and to test"
        if data.test is not None:
            needed = "2 rows besides those to test on, one each to train and to choose"
        raise InputError(
            f"Every class needs at least {needed}. Too few have: {told}. Leave these rows out, or merge the classes."
        )


def _check_groups(data: Dataset, groups: np.ndarray) -> None:
    least = 3 if data.test is None else 2
    if data.test is not None:
        both = np.intersect1d(groups[data.test], groups[~data.test])
        if len(both):
            raise InputError(f"Groups must not cross splits, but {len(both)} of them have rows to test on and others.")
        groups = groups[~data.test]
    if len(np.unique(groups)) < least:
        raise InputError(f"Expected at least {least} groups to split, but there are {len(np.unique(groups))}.")


def _given_test(data: Dataset, test: np.ndarray, seed: int, max_rows: int | None) -> np.ndarray:
    rows = np.flatnonzero(test)
    return _at_most(data, rows, max_rows or len(rows), np.random.default_rng((seed, 0, 1)))


def _draw_one(
    data: Dataset, rng: np.random.Generator, label_noise: float, max_rows: int | None, given: np.ndarray | None
) -> Split:
    pool = np.arange(data.rows) if data.test is None else np.flatnonzero(~data.test)
    if data.groups is not None:
        parts = _grouped(data, pool, rng)
    elif data.labels.ndim == 2:
        parts = _drawn_whole(data, pool, rng)
    else:
        parts = _drawn_by_class(data, pool, rng)
    if max_rows is not None and len(pool) > max_rows:
        sizes = [round(max_rows * len(part) / len(pool)) for part in parts]
        test, validation, train = (_at_most(data, p, n, rng) for p, n in zip(parts, sizes, strict=True))
        parts = test, validation, train
    test, validation, train = parts
    return Split(train, validation, test if given is None else given, _seen(data, train, rng, label_noise))


def _shares(data: Dataset) -> tuple[float, float]:
    """Of the rows that are split, how many are to test on and how many to choose on."""
    return (TEST_SHARE, VALIDATION_SHARE) if data.test is None else (0.0, VALIDATION_SHARE / (1 - TEST_SHARE))


def _drawn_by_class(data: Dataset, pool: np.ndarray, rng: np.random.Generator) -> Parts:
    """Each class is cut by itself, and has a row in each part."""
    shares = _shares(data)
    parts: list[list[np.ndarray]] = [[], [], []]
    for c in range(len(data.classes)):
        rows = rng.permutation(pool[data.labels[pool] == c])
        test, validation = (max(1, round(share * len(rows))) if share else 0 for share in shares)
        for part, piece in zip(parts, np.split(rows, [test, test + validation]), strict=True):
            part.append(piece)
    test_rows, validation_rows, train_rows = (rng.permutation(np.concatenate(part)) for part in parts)
    return test_rows, validation_rows, train_rows


def _drawn_whole(data: Dataset, pool: np.ndarray, rng: np.random.Generator) -> Parts:
    test, validation = (max(1, round(share * len(pool))) if share else 0 for share in _shares(data))
    for _ in range(_ATTEMPTS):
        parts = np.split(rng.permutation(pool), [test, test + validation])
        if _all_there(data, parts):
            return parts[0], parts[1], parts[2]
    raise _no_parts(data)


def _grouped(data: Dataset, pool: np.ndarray, rng: np.random.Generator) -> Parts:
    """Parts that no group crosses."""
    assert data.groups is not None
    groups = np.unique(data.groups[pool], return_inverse=True)[1]
    for attempt in range(_GROUP_ATTEMPTS):
        by_class = data.labels.ndim == 1 and groups.max() < _MANY_GROUPS and attempt < _GROUP_ATTEMPTS // 2
        parts = (_stratified_groups if by_class else _shuffled_groups)(data, pool, groups, rng)
        if parts is not None and _all_there(data, parts):
            return tuple(rng.permutation(part) for part in parts)  # type: ignore[return-value]
    raise _no_parts(data)


def _stratified_groups(
    data: Dataset, pool: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> list[np.ndarray] | None:
    held_out = 2 if data.test is None else 1
    # Fifths of the rows; quarters of what is left when the test rows are given.
    folds = min(3 + held_out, int(groups.max()) + 1)
    cut = StratifiedGroupKFold(folds, shuffle=True, random_state=int(rng.integers(2**31)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        try:
            found = [part for _, part in cut.split(pool, data.labels[pool], groups)]
        except ValueError:  # every class has fewer rows than there are folds
            return None
    # The largest groups are always in the first folds, which must not always be the ones to test on.
    order = rng.permutation(folds)
    parts = [found[i] for i in order[:held_out]]
    parts = [*([] if held_out == 2 else [np.array([], dtype=int)]), *parts]
    return [*(pool[part] for part in parts), pool[np.concatenate([found[i] for i in order[held_out:]])]]


def _shuffled_groups(data: Dataset, pool: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    test_share, validation_share = _shares(data)
    rest, test = np.arange(len(pool)), np.array([], dtype=int)
    if test_share:
        rest, test = _halves(groups, rest, test_share, rng)
    train, validation = _halves(groups, rest, validation_share / (1 - test_share), rng)
    return [pool[test], pool[validation], pool[train]]


def _halves(
    groups: np.ndarray, rows: np.ndarray, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    cut = GroupShuffleSplit(1, test_size=share, random_state=int(rng.integers(2**31)))
    large, small = next(cut.split(rows, groups=groups[rows]))
    return rows[large], rows[small]


def _all_there(data: Dataset, parts: list[np.ndarray]) -> bool:
    """Whether each part, but for an empty one to test on, has what its metrics need of each class."""
    used = [data.labels[part] for part in (parts if data.test is None else parts[1:])]
    if data.labels.ndim == 2:
        return all(bool((labels.any(0) & ~labels.all(0)).all()) for labels in used)
    return all(len(np.unique(labels)) == len(data.classes) for labels in used)


def _no_parts(data: Dataset) -> InputError:
    if data.groups is None:
        rare = data.classes[int(np.minimum(data.counts, data.rows - data.counts).argmin())]
        return InputError(
            f"The rows cannot be split so that each part has rows with and without each class; {rare!r} is the rarest. "
            "Leave it out, or gather more rows."
        )
    pairs = [len(np.unique(data.groups[_of_class(data, c)])) for c in range(len(data.classes))]
    rare, least = data.classes[int(np.argmin(pairs))], min(pairs)
    return InputError(
        f"The groups cannot be split so that each part has rows of each class; {rare!r} is in {least} groups only. "
        "Leave it out, or group by something finer."
    )


def _of_class(data: Dataset, c: int) -> np.ndarray:
    found: np.ndarray = data.labels[:, c] if data.labels.ndim == 2 else data.labels == c
    return found


def _at_most(data: Dataset, rows: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Some of the rows, each class in its share, and one row of each class at least."""
    if len(rows) <= size:
        return rows
    if data.labels.ndim == 2:
        for _ in range(_ATTEMPTS):
            chosen = rng.permutation(rows)[: max(size, 1)]
            if _all_there(data, [chosen] * 3):
                return chosen
        raise InputError(f"Of {len(rows)} rows, {size} do not hold all classes; raise --max-rows.")
    share = size / len(rows)
    of_class = [rows[data.labels[rows] == c] for c in range(len(data.classes))]
    return rng.permutation(
        np.concatenate([rng.permutation(own)[: max(1, round(share * len(own)))] for own in of_class])
    )


def equalised(data: Dataset, splits: list[Split], seed: int) -> list[Split]:
    """The splits with parts of the same sizes, so that they can be trained side by side; as they are, if that would
    cost a part more than a tenth of its rows.

    Which rows are left out is drawn, but for the first row of each class.
    """
    parts = ("train", "validation", "test")
    sizes = {part: [len(getattr(split, part)) for split in splits] for part in parts}
    if data.labels.ndim == 2 or any(min(found) < _MOST_KEPT * max(found) for found in sizes.values()):
        return splits
    rng = np.random.default_rng((seed, 2))
    return [
        replace(split, **{part: _exactly(data, getattr(split, part), min(sizes[part]), rng) for part in parts})
        for split in splits
    ]


def _exactly(data: Dataset, rows: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    if len(rows) == size:
        return rows
    rows = rng.permutation(rows)
    first = np.unique(data.labels[rows], return_index=True)[1]
    rest = np.delete(np.arange(len(rows)), first)
    return rng.permutation(rows[np.concatenate([first, rest])[:size]])


def _seen(data: Dataset, train: np.ndarray, rng: np.random.Generator, label_noise: float) -> np.ndarray:
    """The labels that training and validation see."""
    seen = data.labels.copy()
    if data.labels.ndim == 2:
        seen[train] ^= rng.random((len(train), len(data.classes))) < label_noise
        return seen
    if data.votes is not None:
        share = data.votes.cumsum(1) / data.votes.sum(1, keepdims=True)
        # Votes that are fractions may add up to a little less than their sum.
        seen = (rng.random((data.rows, 1)) > share[:, :-1]).sum(1)
    if label_noise:
        flipped = train[rng.random(len(train)) < label_noise]
        classes = len(data.classes)
        seen[flipped] = (seen[flipped] + rng.integers(1, classes, len(flipped))) % classes
    return seen
