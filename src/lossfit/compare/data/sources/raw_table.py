"""What a source holds, before its columns have roles."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from lossfit.compare.errors import InputError, listed

VALIDATION = "The validation rows join the rows to train on: each split divides them anew."


@dataclass(frozen=True)
class Raw:
    """Rows as they were read.

    Attributes:
        frame: the columns, one at least; the target is among them.
        fingerprint: of what was read.
        images: (N, height, width, channels), of uint8 or float32.
        target: the column of the classes, where the source says so itself.
        test: which rows are to test on (N,), where the source says so itself.
        arrays: whether the columns came as one array, so that their names mean nothing.
        notes: what should be known of the reading.
        written: whether the columns are strings as they stand in a file, whose types are not known yet.
        quoted: columns in which quotes say that what stands for a missing value elsewhere is a value.
        decimal_comma: whether 1,234 is rather 1.234, as in files with semicolons.
    """

    frame: pl.DataFrame
    fingerprint: str
    images: np.ndarray | None = None
    target: str | None = None
    test: np.ndarray | None = None
    arrays: bool = False
    notes: list[str] = field(default_factory=list)
    written: bool = False
    quoted: frozenset[str] = frozenset()
    decimal_comma: bool = False

    def as_written(self) -> Raw:
        """With the cells of typed columns as strings."""
        if self.written:
            return self
        single = [c.name for c in self.frame if not c.dtype.is_nested()]
        return replace(self, frame=self.frame.with_columns(pl.col(single).cast(pl.String).fill_null("")), written=True)


def together(parts: list[tuple[str, Raw]]) -> Raw:
    """Several tables as one.

    Args:
        parts: what each is called, and what was read.

    Raises:
        InputError: they have different columns, or other types in them.
    """
    raws = _alike([raw for _, raw in parts])
    first, names = raws[0], parts[0][0]
    for raw, (name, _) in zip(raws[1:], parts[1:], strict=True):
        lacking = [c for c in first.frame.columns if c not in raw.frame.columns]
        more = [c for c in raw.frame.columns if c not in first.frame.columns]
        if lacking or more:
            told = [f"lacks {listed(lacking)}"] * bool(lacking) + [f"has {listed(more)} besides"] * bool(more)
            raise InputError(f"Expected the columns of {names!r} in {name!r}, which {' and '.join(told)}.")
        for column in first.frame.columns:
            _check_type(first.frame[column], raw.frame[column], (names, name))
    frame = pl.concat([raw.frame.select(first.frame.columns) for raw in raws], how="vertical_relaxed")
    notes = list(dict.fromkeys(note for raw in raws for note in raw.notes))
    return replace(
        first,
        frame=frame,
        fingerprint=digest(*(raw.fingerprint.encode() for raw in raws)),
        notes=[*notes, f"Read: {len(raws)} files of {frame.height:,} rows together."],
        quoted=frozenset.intersection(*(raw.quoted for raw in raws)),
        decimal_comma=any(raw.decimal_comma for raw in raws),
    )


def _alike(raws: list[Raw]) -> list[Raw]:
    """All with their cells as strings, if some are."""
    return [raw.as_written() for raw in raws] if any(raw.written for raw in raws) else raws


def with_test(rows: Raw, test: Raw, names: tuple[str, str], unused: tuple[str, ...] = ()) -> Raw:
    """Rows to train on and rows to test on as one.

    Args:
        rows, test: what was read.
        names: what to call the two in errors.
        unused: columns that need not be in the test rows, and are missing there then.

    Raises:
        InputError: the rows to test on lack columns, or hold other types in them or images of other channels.
    """
    for raw, name in zip((rows, test), names, strict=True):
        if raw.test is not None:
            raise InputError(f"{name!r} has test rows of its own, which --test would come on top of.")
    rows, test = _alike([rows, test])
    lacking = [c for c in rows.frame.columns if c not in test.frame.columns and c not in unused]
    if lacking:
        raise InputError(
            f"The test rows in {names[1]!r} lack the columns {listed(lacking)} of {names[0]!r}. "
            f"The columns there are: {', '.join(test.frame.columns)}."
        )
    more = [c for c in test.frame.columns if c not in rows.frame.columns]
    for column in rows.frame.columns:
        if column in test.frame.columns:
            _check_type(rows.frame[column], test.frame[column], names)
    if (rows.images is None) != (test.images is None):
        raise InputError(f"Expected images in both or neither of {names[0]!r} and {names[1]!r}.")
    images = None
    if rows.images is not None and test.images is not None:
        if rows.images.shape[1:] != test.images.shape[1:]:
            shapes = rows.images.shape[1:], test.images.shape[1:]
            raise InputError(
                f"The images in {names[1]!r} have height, width and channels {shapes[1]}, those in {names[0]!r} "
                f"{shapes[0]}."
            )
        images = np.concatenate([rows.images, test.images])
    frame = pl.concat([rows.frame, test.frame.drop(more)], how="diagonal_relaxed")
    notes = [*rows.notes, *(note for note in test.notes if note not in rows.notes)]
    if more:
        notes.append(f"Left out: {listed(more)}, which only the test rows have.")
    return replace(
        rows,
        frame=frame,
        fingerprint=digest(rows.fingerprint.encode(), test.fingerprint.encode()),
        images=images,
        test=np.repeat([False, True], [rows.frame.height, test.frame.height]),
        notes=notes,
        quoted=rows.quoted & test.quoted,
        decimal_comma=rows.decimal_comma or test.decimal_comma,
    )


def _check_type(column: pl.Series, test: pl.Series, names: tuple[str, str]) -> None:
    kinds = [_kind(c) for c in (column, test)]
    if kinds[0] != kinds[1] and pl.Null not in (column.dtype, test.dtype):
        raise InputError(
            f"The column {column.name!r} holds {column.dtype} in {names[0]!r} and {test.dtype} in {names[1]!r}, "
            f"there first {test.drop_nulls()[0]!r}."
        )


def _kind(column: pl.Series) -> str:
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        return "number"
    if column.dtype in (pl.String, pl.Categorical, pl.Enum):
        return "string"
    return str(column.dtype)


def digest(*parts: bytes) -> str:
    """A short hash of what was read."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()[:16]
