"""Tables in .csv, .tsv and .parquet files."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection
from pathlib import Path

import polars as pl

from lossfit.compare.data.sources.raw_table import Raw, digest
from lossfit.compare.errors import InputError, first_line, listed

MISSING = ["NA", "N/A", "n/a", "<NA>", "NaN", "nan", "null", "NULL"]
"""What stands for a missing value in a .csv file, besides nothing."""

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
    try:
        if path.suffix.lower() != ".parquet":
            separator = _separator(path)
            # Polars leaves quotes in the names of columns as they are in the file, doubled.
            names = {name.replace('"', '""'): name for name in _header(path, separator)}
            types = {there: pl.String for there, name in names.items() if name in strings}
            frame = pl.read_csv(
                path, separator=separator, infer_schema_length=None, null_values=MISSING, schema_overrides=types
            ).rename(names, strict=False)
            frame = _with_points(frame, strings) if separator == ";" else frame
        else:
            frame = pl.read_parquet(path)
    except InputError:
        raise
    except (pl.exceptions.PolarsError, csv.Error, OSError, UnicodeDecodeError) as error:
        raise InputError(f"The file {str(path)!r} cannot be read as {path.suffix}: {first_line(error)}") from error
    if frame.is_empty():
        raise InputError(f"The file {str(path)!r} has a header but no rows.")
    return frame


def _separator(path: Path) -> str:
    """A comma; or what the first line has in its place, a semicolon or a tab."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        line = next((line for line in file if line.strip()), "")
    bare = re.sub('"[^"]*"', "", line)
    return next((mark for mark in ",;\t" if mark in bare), ",")


def _with_points(frame: pl.DataFrame, strings: Collection[str]) -> pl.DataFrame:
    """Numbers with a decimal comma, as spreadsheets write them between semicolons."""
    text = [column for column in frame if column.dtype == pl.String and column.name not in strings]
    wanted = [column for column in text if column.str.contains(_DECIMAL_COMMA).all() and column.count()]
    return frame.with_columns(column.str.replace(",", ".", literal=True).cast(pl.Float64) for column in wanted)


def _header(path: Path, separator: str) -> list[str]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        header = next((row for row in csv.reader(file, delimiter=separator) if row), [])
    twice = sorted({c for c in header if header.count(c) > 1})
    if twice:
        raise InputError(f"The file {str(path)!r} has several columns of the same name: {listed(twice)}.")
    return header
