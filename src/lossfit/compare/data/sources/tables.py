"""Tables in .csv, .tsv and .parquet files."""

from __future__ import annotations

import csv
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from lossfit.compare import memory_limits
from lossfit.compare.data.sources.raw_table import Raw, digest
from lossfit.compare.errors import InputError, first_line, listed

MISSING = ["NA", "N/A", "n/a", "<NA>", "NaN", "nan", "null", "NULL"]
"""What stands for a missing value in a .csv file, besides nothing."""

LONGEST_HEADER = 16 << 20
"""Characters of the first line of a .csv file."""
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"x\x01", b"x\x9c", b"x\xda")
_DECIMAL_COMMA = r"^[+-]?\d+(,\d+)?([eE][+-]?\d+)?$"


def read(path: Path) -> Raw:
    return Raw(read_file(path), digest(path.read_bytes()))


def read_file(path: Path, strings: Collection[str] = ()) -> pl.DataFrame:
    """The table in a .csv, .tsv or .parquet file.

    Args:
        path: the file.
        strings: columns of a .csv file to read as strings, whatever they look like.

    Raises:
        InputError: it is empty, or not what its name says.
    """
    if path.stat().st_size == 0:
        raise InputError(f"The file {str(path)!r} is empty.")
    frame = parse_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path, strings)
    if frame.is_empty():
        raise InputError(f"The file {str(path)!r} has a header but no rows.")
    return frame


def parse_parquet(source: Path | bytes, path: Path | None = None) -> pl.DataFrame:
    """The table in a .parquet file, or in its bytes, of which ``path`` is the name.

    Raises:
        InputError: it is none, or its rows do not fit the memory.
    """
    name = f"The file {str(path or source)!r}"
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    with library_errors(f"{name} cannot be read as .parquet"):
        rows = pl.scan_parquet(opened, glob=False)
        columns = len(rows.collect_schema())
        count = int(rows.select(pl.len()).collect().item())
    memory_limits.check_fits(name, 8 * columns * count)
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    with library_errors(f"{name} cannot be read as .parquet"):
        return pl.read_parquet(opened, glob=False)


@contextmanager
def library_errors(sentence: str) -> Iterator[None]:
    """Errors of the table library as an InputError; what a panic of its Rust code prints is not shown."""
    try:
        with _silent():
            yield
    except InputError:
        raise
    except pl.exceptions.PanicException as error:
        raise InputError(f"{sentence}: it is damaged ({first_line(error)}).") from error
    except Exception as error:
        raise InputError(f"{sentence}: {first_line(error)}") from error


@contextmanager
def _silent() -> Iterator[None]:
    try:
        shown = os.dup(2)
    except OSError:  # there is none
        yield
        return
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(shown, 2)
        os.close(shown)


def _read_csv(path: Path, strings: Collection[str]) -> pl.DataFrame:
    with open(path, "rb") as file:
        if file.read(4).startswith(_COMPRESSED):
            raise InputError(f"The file {str(path)!r} is compressed; unpack it first.")
    with library_errors(f"The file {str(path)!r} cannot be read as {path.suffix}"):
        separator = _separator(path)
        # Polars leaves quotes in the names of columns as they are in the file, doubled.
        names = {name.replace('"', '""'): name for name in _header(path, separator)}
        types = {there: pl.String for there, name in names.items() if name in strings}
        frame = pl.read_csv(
            path,
            separator=separator,
            infer_schema_length=None,
            null_values=MISSING,
            schema_overrides=types,
            glob=False,
        ).rename(names, strict=False)
        return _with_points(frame, strings) if separator == ";" else frame


def _separator(path: Path) -> str:
    """A comma; or what the first line has in its place, a semicolon or a tab."""
    line = next((line for line in _lines(path) if line.strip()), "")
    bare = re.sub('"[^"]*"', "", line)
    return next((mark for mark in ",;\t" if mark in bare), ",")


def _lines(path: Path) -> Iterator[str]:
    """The lines, as far as the header may go."""
    left = LONGEST_HEADER
    with open(path, encoding="utf-8-sig", newline="") as file:
        while line := file.readline(left):
            left -= len(line)
            if left <= 0:
                raise InputError(
                    f"The first line of the file {str(path)!r} does not end within {LONGEST_HEADER >> 20} MiB."
                )
            yield line


def _with_points(frame: pl.DataFrame, strings: Collection[str]) -> pl.DataFrame:
    """Numbers with a decimal comma, as spreadsheets write them between semicolons."""
    text = [column for column in frame if column.dtype == pl.String and column.name not in strings]
    wanted = [column for column in text if column.str.contains(_DECIMAL_COMMA).all() and column.count()]
    return frame.with_columns(column.str.replace(",", ".", literal=True).cast(pl.Float64) for column in wanted)


def _header(path: Path, separator: str) -> list[str]:
    header = next((row for row in csv.reader(_lines(path), delimiter=separator) if row), [])
    twice = sorted(name for name, count in Counter(header).items() if count > 1)
    if twice:
        raise InputError(f"The file {str(path)!r} has several columns of the same name: {listed(twice)}.")
    return header
