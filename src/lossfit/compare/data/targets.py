"""Columns to labels: classes, several of them, or votes."""

from __future__ import annotations

import numpy as np
import polars as pl

from lossfit.compare.errors import InputError


def classes(column: pl.Series) -> tuple[np.ndarray, list[str]]:
    """Class indices (N,), and the names of the classes in the order of their values.

    Raises:
        InputError: values are missing, or are no classes, or there is one class only.
    """
    if column.dtype.is_nested():
        raise InputError(f"Expected the target {column.name!r} to hold classes, but it is {column.dtype}.")
    if column.dtype.is_decimal():
        column = column.cast(pl.Float64)
    missing = column.is_null()
    if column.dtype.is_float():
        missing |= column.is_nan()
    if missing.any():
        at = missing.arg_true().to_list()
        raise InputError(
            f"The target {column.name!r} is missing in {len(at)} rows, the first of them row {at[0] + 1} of the data."
        )
    if column.dtype.is_float() and (column != column.round()).any():
        raise InputError(
            f"The target {column.name!r} holds fractions ({column.n_unique()} distinct values): lossfit compares "
            "classifiers, and needs classes."
        )
    if column.dtype.is_float():
        whole = column.cast(pl.Int64, strict=False)
        if whole.has_nulls():
            strange = column.filter(whole.is_null())[0]
            raise InputError(f"The target {column.name!r} holds {strange:g}, which is no class.")
        column = whole
    values = column.unique().sort()
    names = [str(v) for v in values]
    if len(names) < 2:
        raise InputError(
            f"The target {column.name!r} has one class only, {names[0]!r}; there is nothing to tell apart."
        )
    index = {value: i for i, value in enumerate(values)}
    return np.array([index[v] for v in column], dtype=np.int64), names


def right(columns: pl.DataFrame) -> tuple[np.ndarray, list[str]]:
    """Which classes are right (N, C), from columns of 0 and 1 or of false and true.

    Raises:
        InputError: values are missing or others, or the same in every row.
    """
    for column in columns:
        if column.null_count():
            at = column.is_null().arg_true()[0] + 1
            raise InputError(f"The target {column.name!r} is missing in {column.null_count()} rows, first in row {at}.")
        if not (column.dtype == pl.Boolean or (column.dtype.is_numeric() and ((column == 0) | (column == 1)).all())):
            wrong = next((v for v in column if v not in (0, 1)), None)
            raise InputError(
                f"With several --target, each is a column of 0 and 1; {column.name!r} holds {wrong!r}. For one column "
                "with the name of the class, pass one --target."
            )
        if column.n_unique() < 2:
            raise InputError(f"The target {column.name!r} is {column[0]} in every row; there is nothing to tell apart.")
    return columns.cast(pl.Boolean).to_numpy(), columns.columns


def votes(columns: pl.DataFrame) -> np.ndarray:
    """Votes or probabilities (N, C), from a column for each class.

    Raises:
        InputError: values are missing, negative, not finite or no numbers, a row has no votes, or a class never wins.
    """
    if columns.width < 2:
        raise InputError(f"Expected --votes to name a column for each class, two at least, but got {columns.columns}.")
    for column in columns:
        if not column.dtype.is_numeric():
            raise InputError(f"Expected the votes {column.name!r} to be numbers, but the column is {column.dtype}.")
        wrong = ~column.cast(pl.Float64).is_finite().fill_null(False) | (column < 0).fill_null(True)
        if wrong.any():
            at = int(wrong.arg_true()[0])
            found = "nothing" if column[at] is None else f"{column[at]:g}"
            raise InputError(
                f"Expected votes or probabilities of at least 0 in the column {column.name!r}, but row {at + 1} of the "
                f"data holds {found} ({wrong.sum()} rows are none)."
            )
    found_votes: np.ndarray = columns.cast(pl.Float64).to_numpy()
    empty = np.flatnonzero(found_votes.sum(1) == 0)
    if len(empty):
        raise InputError(f"No class has a vote in {len(empty)} rows, the first of them row {empty[0] + 1} of the data.")
    return found_votes


def untied(votes: np.ndarray) -> np.ndarray:
    """Whether one class has more votes than every other (N,)."""
    found: np.ndarray = (votes == votes.max(1, keepdims=True)).sum(1) == 1
    return found
