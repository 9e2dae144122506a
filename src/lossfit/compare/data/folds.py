"""Rows dealt out to folds, in each repeat anew."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from lossfit.compare.data.dataset import Dataset
from lossfit.compare.errors import InputError, listed

FOLDS, REPEATS = 5, 2
LEAST_FOLDS = 3
"""One to train on, one to choose on and one to test on."""
_LEAST_ROWS = 3
_ATTEMPTS = 200
_GROUP_ATTEMPTS = 20
# Above, stratifying takes seconds, and matters less.
_MANY_GROUPS = 2000


@dataclass(frozen=True)
class Repeat:
    """One partition of the rows, and the labels that are seen in it.

    Attributes:
        fold: of each row of :class:`Folds` (n,), from 0.
        trained: the labels to train on, of every row of the data: drawn from votes, and changed by noise.
        chosen: the labels to choose on: drawn from votes.
    """

    fold: np.ndarray
    trained: np.ndarray
    chosen: np.ndarray


@dataclass(frozen=True)
class Folds:
    """R repeats of a partition into K folds.

    For every two folds a model is trained on the others. It is tested on each of the two, where the other one helps to
    choose it. Where the rows to test on are given, both help to choose it.

    Attributes:
        count: K.
        rows: the rows that are dealt out (n,), ascending.
        repeats: R of them.
        test: given rows to test on, the same in all; empty if rows are tested out of their fold.
        notes: what should be known of them.
    """

    count: int
    rows: np.ndarray
    repeats: list[Repeat]
    test: np.ndarray
    notes: list[str]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The folds that the trainings of a repeat leave out."""
        return list(combinations(range(self.count), 2))

    @property
    def tested(self) -> np.ndarray:
        """The rows that are tested, in the order of their influences."""
        return self.test if len(self.test) else self.rows

    def train(self, repeat: int, pair: tuple[int, int]) -> np.ndarray:
        """The rows that a model is trained on."""
        return self.rows[~np.isin(self.repeats[repeat].fold, pair)]

    def held_out(self, repeat: int, pair: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the two folds that it leaves out."""
        fold = self.repeats[repeat].fold
        return self.rows[fold == pair[0]], self.rows[fold == pair[1]]


def draw(
    data: Dataset,
    folds: int = FOLDS,
    repeats: int = REPEATS,
    seed: int = 0,
    label_noise: float = 0.0,
    max_rows: int | None = None,
) -> Folds:
    """Folds of the rows; each class is spread over all of them as evenly as can be.

    Where rows come in groups, scikit-learn's ``StratifiedGroupKFold`` deals the groups out, or ``GroupKFold`` where
    they are more than 2,000 or several classes may be right. Where any number of classes may be right, rows are dealt
    out until every training has rows with and without each class.

    Args:
        data: the rows. With votes, the labels that are trained and chosen on are drawn from each row's votes, one rater
            a row and repeat.
        folds: K, at least 3. Where there are fewer groups, it is as many.
        repeats: R. Repeat r depends on (seed, r) alone.
        seed: of all draws.
        label_noise: the share of labels to train on that is replaced by another class, drawn evenly.
        max_rows: as many rows are dealt out at most, each class in its share, but 3 rows of each at least. Of given
            rows to test on as many again.

    Raises:
        InputError: a class has fewer than 3 rows, there are fewer than 2 given rows to test on or 3 groups, or no such
            folds are found.
    """
    if data.test is not None and data.test.sum() < 2:
        raise InputError(f"Expected at least 2 rows to test on, but got {int(data.test.sum())}.")
    notes: list[str] = []
    if data.labels.ndim == 1:
        notes += _check_classes(data, folds)
    if data.groups is not None:
        folds, told = _check_groups(data, data.groups, folds)
        notes += told
    rng = np.random.default_rng((seed, 0, 1))
    free = np.arange(data.rows) if data.test is None else np.flatnonzero(~data.test)
    rows = np.sort(_at_most(data, free, max_rows, rng))
    given = np.array([], dtype=np.int64)
    if data.test is not None:
        given = np.sort(_at_most(data, np.flatnonzero(data.test), max_rows, rng))
    if len(rows) < len(free):
        notes.append(f"Of {len(free):,} rows {len(rows):,} take part (--max-rows).")
    found = [_repeat(data, rows, folds, np.random.default_rng((seed, r)), label_noise) for r in range(repeats)]
    return Folds(folds, rows, found, given, notes)


def whole(data: Dataset, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """All rows that are not given to test on, and labels to train on, of every row of the data."""
    rows = np.arange(data.rows) if data.test is None else np.flatnonzero(~data.test)
    return rows, _drawn_labels(data, np.random.default_rng((seed, 0)))


def _repeat(data: Dataset, rows: np.ndarray, folds: int, rng: np.random.Generator, label_noise: float) -> Repeat:
    if data.groups is not None:
        fold = _grouped(data, rows, folds, rng)
    elif data.labels.ndim == 2:
        fold = _dealt_whole(data, rows, folds, rng)
    else:
        fold = _dealt_by_class(data.labels[rows], folds, rng)
    chosen = _drawn_labels(data, rng)
    return Repeat(fold, _noisy(data, chosen, rng, label_noise), chosen)


def _dealt_by_class(labels: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Class after class, each in an order of its own, to the folds in turn: sizes differ by one at most."""
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    fold = np.empty(len(labels), dtype=np.int64)
    fold[order] = rng.permutation(folds)[np.arange(len(labels)) % folds]
    return fold


def _dealt_whole(data: Dataset, rows: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    for _ in range(_ATTEMPTS):
        fold = rng.permutation(np.arange(len(rows)) % folds)
        if _all_there(data, rows, fold, folds):
            return fold
    raise _no_folds(data, rows)


def _grouped(data: Dataset, rows: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Folds that no group crosses."""
    assert data.groups is not None
    groups = np.unique(data.groups[rows], return_inverse=True)[1]
    for attempt in range(_GROUP_ATTEMPTS):
        by_class = data.labels.ndim == 1 and groups.max() < _MANY_GROUPS and attempt < _GROUP_ATTEMPTS // 2
        kind = StratifiedGroupKFold if by_class else GroupKFold
        cut = kind(folds, shuffle=True, random_state=int(rng.integers(2**31)))
        fold = np.empty(len(rows), dtype=np.int64)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The least populated class")
            try:
                for k, (_, part) in enumerate(cut.split(rows, data.labels[rows] if by_class else None, groups)):
                    fold[part] = k
            except ValueError:  # every class has fewer rows than there are folds
                continue
        if np.bincount(fold, minlength=folds).all() and _all_there(data, rows, fold, folds):
            return fold
    raise _no_folds(data, rows)


def _all_there(data: Dataset, rows: np.ndarray, fold: np.ndarray, folds: int) -> bool:
    """Whether every training has what it needs of each class."""
    labels = data.labels[rows]
    for pair in combinations(range(folds), 2):
        seen = labels[~np.isin(fold, pair)]
        if seen.ndim == 2:
            if not (seen.any(0) & ~seen.all(0)).all():
                return False
        elif len(np.unique(seen)) < len(data.classes):
            return False
    return True


def _no_folds(data: Dataset, rows: np.ndarray) -> InputError:
    labels = data.labels[rows]
    if data.groups is None:
        counts = labels.sum(0)
        rare = data.classes[int(np.minimum(counts, len(labels) - counts).argmin())]
        return InputError(
            f"The rows cannot be dealt out so that every training has rows with and without each class; {rare!r} is "
            "the rarest. Leave it out, or gather more rows."
        )
    of_class = [labels[:, c] if labels.ndim == 2 else labels == c for c in range(len(data.classes))]
    counts = [len(np.unique(data.groups[rows][own])) for own in of_class]
    rare, least = data.classes[int(np.argmin(counts))], min(counts)
    return InputError(
        f"The groups cannot be dealt out so that every training has rows of each class; {rare!r} is in {least} groups "
        "only. Leave it out, or group by something finer."
    )


def _check_classes(data: Dataset, folds: int) -> list[str]:
    """A note of the classes with fewer rows than folds."""
    if data.counts.max() == 1:
        raise InputError(
            f"Each of the {data.rows} rows has a class of its own: the target holds ids or measurements, not classes."
        )
    counts = data.counts if data.test is None else np.bincount(data.labels[~data.test], minlength=len(data.classes))
    few = [(name, n) for name, n in zip(data.classes, counts, strict=True) if n < _LEAST_ROWS]
    if few:
        told = ", ".join(f"{name!r} ({n})" for name, n in few[:10])
        told += f" and {len(few) - 10} more" if len(few) > 10 else ""
        besides = "" if data.test is None else " besides those to test on"
        raise InputError(
            f"Every class needs at least {_LEAST_ROWS} rows{besides}, so that each training has one. Too few have: "
            f"{told}. Leave these rows out, or merge the classes."
        )
    small = [name for name, n in zip(data.classes, counts, strict=True) if n < folds]
    if not small:
        return []
    return [f"Fewer rows than folds, so that some folds have none, are of the classes {listed(small)}."]


def _check_groups(data: Dataset, groups: np.ndarray, folds: int) -> tuple[int, list[str]]:
    """As many folds as there are groups, at most."""
    if data.test is not None:
        both = np.intersect1d(groups[data.test], groups[~data.test])
        if len(both):
            raise InputError(f"Groups must not cross folds, but {len(both)} of them have rows to test on and others.")
        groups = groups[~data.test]
    count = len(np.unique(groups))
    if count < LEAST_FOLDS:
        raise InputError(f"Expected at least {LEAST_FOLDS} groups to deal out to folds, but there are {count}.")
    return min(folds, count), ([f"There are {count} folds, one for each group."] if count < folds else [])


def _at_most(data: Dataset, rows: np.ndarray, size: int | None, rng: np.random.Generator) -> np.ndarray:
    """Some of the rows, each class in its share, and 3 rows of each class at least; whole groups."""
    if size is None or len(rows) <= size:
        return rows
    if data.groups is not None:
        names, of_row = np.unique(data.groups[rows], return_inverse=True)
        place = np.empty(len(names), dtype=np.int64)
        place[rng.permutation(len(names))] = np.arange(len(names))
        order = np.argsort(place[of_row], kind="stable")
        ends = np.append(np.flatnonzero(np.diff(place[of_row][order])) + 1, len(rows))
        return rows[order[: int(ends[max(int(np.searchsorted(ends, size, "right")) - 1, 0)])]]
    if data.labels.ndim == 2:
        return rng.permutation(rows)[:size]
    share = size / len(rows)
    of_class = [rng.permutation(rows[data.labels[rows] == c]) for c in range(len(data.classes))]
    return np.concatenate([own[: max(_LEAST_ROWS, round(share * len(own)))] for own in of_class])


def _drawn_labels(data: Dataset, rng: np.random.Generator) -> np.ndarray:
    """The labels, or one vote of each row."""
    if data.votes is None:
        return data.labels.copy()
    share = data.votes.cumsum(1) / data.votes.sum(1, keepdims=True)
    # Votes that are fractions may add up to a little less than their sum.
    found: np.ndarray = (rng.random((data.rows, 1)) > share[:, :-1]).sum(1)
    return found


def _noisy(data: Dataset, labels: np.ndarray, rng: np.random.Generator, label_noise: float) -> np.ndarray:
    """Labels of which a share is another class."""
    if not label_noise:
        return labels
    if labels.ndim == 2:
        return labels ^ (rng.random(labels.shape) < label_noise)
    classes = len(data.classes)
    shift = np.where(rng.random(data.rows) < label_noise, rng.integers(1, classes, data.rows), 0)
    return (labels + shift) % classes
