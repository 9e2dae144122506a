"""Columns to labels: classes, several of them, or votes."""

from __future__ import annotations

import json

import numpy as np
import polars as pl

from lossfit.compare.data.cells import Missing, spelt
from lossfit.compare.data.formats import STRINGS, BooleanFormat
from lossfit.compare.errors import InputError, listed

_MANY = 20
_ROWS_OF_A_CLASS = 3
MARKS = ("|", ";", ",")
"""What may stand between the classes of a row, in this order."""


def classes(column: pl.Series, missing: Missing = Missing()) -> tuple[np.ndarray, list[str], list[str]]:  # noqa: B008
    """Class indices (N,), the names of the classes in the order of their values, and notes.

    Strings are classes as they are written. Numbers that look like measurements are noted.

    Raises:
        InputError: values are missing, or are no classes, or there is one class only.
    """
    if column.dtype.is_nested():
        raise InputError(
            f"Expected the target {column.name!r} to hold classes, but it is {column.dtype}. If a row may have any "
            "number of classes, pass --multi-label."
        )
    values = missing.values(column) if column.dtype == pl.String else _whole(column, missing)
    _check_known(column, values, missing)
    distinct = values.unique().sort()
    numbers = distinct.cast(pl.Float64, strict=False) if _may_be_numbers(values, missing) else None
    if numbers is not None and not numbers.null_count() and numbers.is_finite().all():
        distinct, numbers = distinct.gather(numbers.arg_sort()), numbers.sort()
        if (numbers != numbers.round()).any() and not _are_few(values):
            raise _fractions(column, len(numbers))
    else:
        numbers = None
    names = [str(value) for value in distinct]
    if len(names) < 2:
        raise InputError(
            f"The target {column.name!r} has one class only, {names[0]!r}; there is nothing to tell apart."
        )
    notes = _spelt_twice(column.name, names) if values.dtype == pl.String else []
    if numbers is not None and (told := _looks_measured(column.name, numbers, len(values))):
        notes.append(told)
    labels = values.replace_strict(distinct, pl.Series(range(len(names))), return_dtype=pl.Int64)
    return labels.to_numpy(), names, notes


def _may_be_numbers(values: pl.Series, missing: Missing) -> bool:
    return values.dtype.is_integer() or (values.dtype == pl.String and missing.written)


def _are_few(values: pl.Series) -> bool:
    """Whether fractions are few enough, and come often enough, to be classes, such as half stars."""
    counts = values.value_counts()["count"]
    return len(counts) <= _MANY and int(counts.min()) >= _ROWS_OF_A_CLASS  # type: ignore[arg-type]


def _check_known(column: pl.Series, values: pl.Series, missing: Missing) -> None:
    absent = values.is_null() | values.is_nan() if values.dtype.is_float() else values.is_null()
    if not absent.any():
        return
    at = absent.arg_true().to_list()
    told = missing.told(column, values)
    words = f" Taken as missing: {told}; if that is a class, pass --keep-na." if told else ""
    raise InputError(
        f"The target {column.name!r} is missing in {len(at)} rows, the first of them row {at[0] + 1} of the "
        f"data.{words}"
    )


def _whole(column: pl.Series, missing: Missing) -> pl.Series:
    """A typed column with whole numbers as integers."""
    if column.dtype in STRINGS:
        return column
    column = column.cast(pl.Float64) if column.dtype.is_decimal() else missing.numbers(column)
    if column.is_null().any() or (column.dtype.is_float() and column.is_nan().any()):
        return column
    if column.dtype.is_float() and (column != column.round()).any():
        raise _fractions(column, column.n_unique())
    if column.dtype.is_float():
        whole = column.cast(pl.Int64, strict=False)
        if whole.has_nulls():
            strange = column.filter(whole.is_null())[0]
            raise InputError(f"The target {column.name!r} holds {strange:g}, which is no class.")
        column = whole
    return column


def _fractions(column: pl.Series, distinct: int) -> InputError:
    return InputError(
        f"The target {column.name!r} holds fractions ({distinct} distinct values): lossfit compares "
        "classifiers, and needs classes."
    )


def _spelt_twice(name: str, names: list[str]) -> list[str]:
    """A note on classes that differ in their spelling alone."""
    alike: dict[str, list[str]] = {}
    for found in names:
        alike.setdefault(spelt(found).casefold(), []).append(found)
    twice = [found for found in alike.values() if len(found) > 1]
    if not twice:
        return []
    told = "; ".join(listed(found) for found in twice[:3])
    return [f"Classes of {name!r} that differ in their spelling alone are classes of their own: {told}."]


def _looks_measured(name: str, numbers: pl.Series, rows: int) -> str:
    """A sentence on a target of whole numbers that are rather measured than classes; nothing for others."""
    count = len(numbers)
    steps = numbers.diff().drop_nulls()
    numbered = numbers[0] in (0, 1) and bool((steps == 1).all())
    if count < _MANY or numbered or rows >= 50 * count:
        return ""
    return (
        f"The target {name!r} looks like a number to predict: {count} numbers from {numbers[0]:g} to "
        f"{numbers[-1]:g} in {rows:,} rows. lossfit compares classifiers, to which each number is a class of its own."
    )


def right(columns: pl.DataFrame, missing: Missing = Missing()) -> tuple[np.ndarray, list[str]]:  # noqa: B008
    """Which classes are right (N, C), from columns of 0 and 1, of false and true, or of no and yes.

    Raises:
        InputError: values are missing or others, or the same in every row.
    """
    found = []
    for column in columns:
        cells = missing.numbers(column) if missing.written else column
        if cells.null_count():
            at = cells.is_null().arg_true()[0] + 1
            raise InputError(f"The target {column.name!r} is missing in {cells.null_count()} rows, first in row {at}.")
        values = BooleanFormat().read(cells).to_series() if not cells.dtype.is_nested() else None
        if values is None or values.null_count():
            wrong = None if values is None else cells.filter(values.is_null())[0]
            raise InputError(
                f"With several --target, each is a column of 0 and 1; {column.name!r} holds {wrong!r}. For one column "
                "with the name of the class, pass one --target."
            )
        if values.n_unique() < 2:
            raise InputError(f"The target {column.name!r} is {cells[0]} in every row; there is nothing to tell apart.")
        found.append(values.cast(pl.Boolean))
    return pl.DataFrame(found).to_numpy(), columns.columns


def tags(
    column: pl.Series, missing: Missing, classes: list[str] | None = None, mark: str | None = None
) -> tuple[np.ndarray, list[str], str]:
    """Which classes are right (N, C), their names, and what stands between them, from a column of all of a row.

    Args:
        column: of lists, or of strings such as "a|b", "a; b" or '["a", "b"]'; nothing is no class.
        missing: which cells are missing.
        classes: the classes, if they are known; others are left out.
        mark: what stands between them, if that is known.

    Raises:
        InputError: the column holds other things, or fewer than two classes.
    """
    if isinstance(column.dtype, pl.List | pl.Array):
        lists = [[str(value) for value in row if value is not None] if row is not None else [] for row in column]
    elif column.dtype in STRINGS:
        cells = missing.values(column).fill_null("").to_list()
        if mark is None:
            written = all(not cell or (cell[0] == "[" and cell[-1] == "]") for cell in cells)
            mark = "[]" if written else next((m for m in MARKS if any(m in cell for cell in cells)), MARKS[0])
        lists = [_parts(cell, mark) for cell in cells]
    else:
        raise InputError(
            f"With --multi-label, the target {column.name!r} holds the classes of a row, such as 'a|b' or a list, but "
            f"it is {column.dtype}."
        )
    names = classes if classes is not None else sorted({name for row in lists for name in row})
    if len(names) < 2:
        raise InputError(f"The target {column.name!r} holds {len(names)} classes; there is nothing to tell apart.")
    index = {name: c for c, name in enumerate(names)}
    found = np.zeros((len(lists), len(names)), dtype=bool)
    for i, row in enumerate(lists):
        found[i, [index[name] for name in row if name in index]] = True
    return found, names, mark or "[]"


def _parts(cell: str, mark: str) -> list[str]:
    if mark == "[]":
        try:
            found = json.loads(cell.replace("'", '"')) if cell else []
        except ValueError:
            found = cell.strip("[]").split(",")
        return [str(part).strip().strip("'\"") for part in found if str(part).strip()]
    return [part.strip() for part in cell.split(mark) if part.strip()]


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
