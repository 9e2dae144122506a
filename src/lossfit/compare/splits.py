"""Rows to train on, to choose on and to test on, drawn again for every split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lossfit.compare.data import Dataset
from lossfit.compare.errors import InputError

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.2
_ATTEMPTS = 200


@dataclass(frozen=True)
class Split:
    """Row indices, and the labels that training and validation see, which noise may have changed."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    seen: np.ndarray


def draw(data: Dataset, count: int, seed: int, label_noise: float = 0.0) -> list[Split]:
    """Independent random splits, stratified: every class is in every part.

    scikit-learn's stratified splitters may leave a class of a few rows out of a part, in which balanced accuracy and
    macro F1 would have no value. Here each class is cut by itself.

    Args:
        data: the rows. With votes, the labels that are trained and validated on are drawn from each row's votes, one
            rater a row.
        count: how many splits.
        seed: split s depends on (seed, s) alone.
        label_noise: the share of training labels to replace by another class, drawn evenly.

    Where any number of classes may be right, rows are drawn until each part has rows with and without each class, and
    noise turns labels one by one.

    Raises:
        InputError: a class has fewer than 3 rows, or no such parts are found.
    """
    if data.labels.ndim == 2:
        return [_draw_many(data, np.random.default_rng((seed, s)), label_noise) for s in range(count)]
    few = [(name, n) for name, n in zip(data.classes, data.counts, strict=True) if n < 3]
    if few:
        listed = ", ".join(f"{name!r} ({n})" for name, n in few[:10])
        listed += f" and {len(few) - 10} more" if len(few) > 10 else ""
        raise InputError(
            f"Every class needs at least 3 rows, one each to train, to choose and to test. Too few have: {listed}. "
            "Leave these rows out, or merge the classes."
        )
    return [_draw_one(data, np.random.default_rng((seed, s)), label_noise) for s in range(count)]


def _draw_one(data: Dataset, rng: np.random.Generator, label_noise: float) -> Split:
    parts: list[list[np.ndarray]] = [[], [], []]
    for c in range(len(data.classes)):
        rows = rng.permutation(np.flatnonzero(data.labels == c))
        test = max(1, round(TEST_SHARE * len(rows)))
        validation = max(1, round(VALIDATION_SHARE * len(rows)))
        for part, piece in zip(parts, np.split(rows, [test, test + validation]), strict=True):
            part.append(piece)
    test_rows, validation_rows, train_rows = (rng.permutation(np.concatenate(part)) for part in parts)
    seen = data.labels.copy()
    if data.votes is not None:
        share = data.votes.cumsum(1) / data.votes.sum(1, keepdims=True)
        seen = (rng.random((data.rows, 1)) > share).sum(1)
    if label_noise:
        flipped = train_rows[rng.random(len(train_rows)) < label_noise]
        classes = len(data.classes)
        seen[flipped] = (seen[flipped] + rng.integers(1, classes, len(flipped))) % classes
    return Split(train_rows, validation_rows, test_rows, seen)


def _draw_many(data: Dataset, rng: np.random.Generator, label_noise: float) -> Split:
    test, validation = (max(1, round(share * data.rows)) for share in (TEST_SHARE, VALIDATION_SHARE))
    for _ in range(_ATTEMPTS):
        parts = np.split(rng.permutation(data.rows), [test, test + validation])
        if all((data.labels[part].any(0) & ~data.labels[part].all(0)).all() for part in parts):
            break
    else:
        rare = data.classes[int(np.minimum(data.counts, data.rows - data.counts).argmin())]
        raise InputError(
            f"The rows cannot be split so that each part has rows with and without each class; {rare!r} is the rarest. "
            "Leave it out, or gather more rows."
        )
    test_rows, validation_rows, train_rows = parts
    seen = data.labels.copy()
    turned = rng.random((len(train_rows), len(data.classes))) < label_noise
    seen[train_rows] ^= turned
    return Split(train_rows, validation_rows, test_rows, seen)
