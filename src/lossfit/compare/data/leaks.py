"""Columns that tell the target by themselves, as a copy of it under another name does."""

from __future__ import annotations

import shlex

import numpy as np
import polars as pl

from lossfit.compare.errors import listed

_ROWS = 2000
_SHARE = 0.99
_FEWEST = 30
_ROWS_OF_A_CLASS = 5


def note(labels: np.ndarray, numeric: pl.DataFrame, categorical: pl.DataFrame) -> str | None:
    """A warning that names the columns; None if there are none.

    A column of categories leaks if the most frequent class of each category is right in 99% of the rows; a column of
    numbers, if the rows of each class are together when they are sorted by it.
    """
    if labels.ndim != 1 or len(labels) < _FEWEST:
        return None
    rows = np.linspace(0, len(labels) - 1, min(len(labels), _ROWS)).astype(int)
    classes = labels[rows]
    if not 2 <= len(np.unique(classes)) <= len(classes) // _ROWS_OF_A_CLASS:
        return None
    most = np.bincount(classes).max() / len(classes)
    found = [c.name for c in categorical if most < _SHARE and _tells(c.gather(rows), classes)]
    found += [c.name for c in numeric if _sorts(c.gather(rows).to_numpy(), classes)]
    if not found:
        return None
    one = len(found) == 1
    drop = ",".join(found[:10])
    return (
        f"Warning: {'the column' if one else 'the columns'} {listed(found)} {'tells' if one else 'each tell'} the "
        f"target in nearly every row, alone. If {'it is' if one else 'they are'} not known before the target, leave "
        f"{'it' if one else 'them'} out by --drop {shlex.quote(drop)}."
    )


def _tells(column: pl.Series, classes: np.ndarray) -> bool:
    number = column.cast(pl.String).fill_null("").rank("dense").cast(pl.Int64).to_numpy() - 1
    kinds = int(number.max()) + 1
    if kinds < 2 or kinds * 5 > len(classes):
        return False
    counts = np.zeros((kinds, int(classes.max()) + 1), dtype=np.int64)
    np.add.at(counts, (number, classes), 1)
    return bool(counts.max(1).sum() >= _SHARE * len(classes))


def _sorts(values: np.ndarray, classes: np.ndarray) -> bool:
    known = ~np.isnan(values)
    values, classes = values[known], classes[known]
    if len(values) < _FEWEST or len(np.unique(classes)) < 2:
        return False
    order = np.argsort(values, kind="stable")
    values, classes = values[order], classes[order]
    changes = np.flatnonzero(np.diff(classes))
    if len(changes) != len(np.unique(classes)) - 1:
        return False
    return bool((values[changes] < values[changes + 1]).all())
