"""What columns say of the rows: which belong together, what they count, and which are to test on."""

from __future__ import annotations

import numpy as np
import polars as pl

from lossfit.compare.errors import InputError

_TRUE, _FALSE = {"test", "1", "true", "yes"}, {"train", "0", "false", "no", "validation", "val", "valid"}


def groups(column: pl.Series) -> np.ndarray:
    """Numbers from 0 in place of values; missing ones are a group each."""
    if column.dtype.is_nested():
        raise InputError(f"Expected the group {column.name!r} to hold single values, but it is {column.dtype}.")
    found = column.rank("dense").cast(pl.Int64).to_numpy().copy() if not column.null_count() else None
    if found is None:
        missing = column.is_null().to_numpy()
        found = column.rank("dense").fill_null(0).cast(pl.Int64).to_numpy().copy()
        found[missing] = found.max() + 1 + np.arange(missing.sum())
    numbers: np.ndarray = np.unique(found, return_inverse=True)[1]
    return numbers


def weights(column: pl.Series) -> np.ndarray:
    """Weights with a mean of 1."""
    if not column.dtype.is_numeric():
        raise InputError(f"Expected the weight {column.name!r} to hold numbers, but it is {column.dtype}.")
    numbers = column.cast(pl.Float64)
    wrong = ~numbers.is_finite().fill_null(False) | (numbers < 0).fill_null(True)
    if wrong.any():
        at = int(wrong.arg_true()[0])
        raise InputError(
            f"Expected weights of at least 0 in the column {column.name!r}, but row {at + 1} of the data holds "
            f"{column[at]} ({wrong.sum()} rows are none)."
        )
    found = numbers.to_numpy()
    if not found.any():
        raise InputError(f"The weight {column.name!r} is 0 in every row.")
    return np.asarray(found / found.mean())


def to_test_on(column: pl.Series) -> np.ndarray:
    """Which rows are to test on, from true and false, 1 and 0, or "test" and "train"."""
    words = column.cast(pl.String, strict=False).str.strip_chars().str.to_lowercase()
    strange = words.filter(~words.is_in([*_TRUE, *_FALSE]).fill_null(False))
    if len(strange) or column.dtype.is_nested():
        found = repr(strange[0]) if len(strange) else str(column.dtype)
        raise InputError(
            f"Expected the column {column.name!r} to tell the rows to test on by true and false, 1 and 0, or test and "
            f"train, but it holds {found}."
        )
    found_rows: np.ndarray = words.is_in(_TRUE).to_numpy()
    if found_rows.all() or not found_rows.any():
        raise InputError(
            f"The column {column.name!r} says that {'all' if found_rows.all() else 'no'} rows are to test on."
        )
    return found_rows
