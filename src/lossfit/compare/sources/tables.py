"""Tables in .csv and .parquet files."""

from __future__ import annotations

import csv
from pathlib import Path

import polars as pl

from lossfit.compare.errors import InputError, first_line, listed
from lossfit.compare.sources.raw import Raw, digest

MISSING = ["NA", "N/A", "n/a", "<NA>", "NaN", "nan", "null", "NULL"]
"""What stands for a missing value in a .csv file, besides nothing."""


def read(path: Path) -> Raw:
    return Raw(read_file(path), digest(path.read_bytes()))


def read_file(path: Path) -> pl.DataFrame:
    """The table in a .csv or .parquet file.

    Raises:
        InputError: it is empty, or not what its name says.
    """
    if path.stat().st_size == 0:
        raise InputError(f"The file {str(path)!r} is empty.")
    try:
        if path.suffix == ".csv":
            _check_header(path)
            frame = pl.read_csv(path, infer_schema_length=None, null_values=MISSING)
        else:
            frame = pl.read_parquet(path)
    except InputError:
        raise
    except (pl.exceptions.PolarsError, csv.Error, OSError, UnicodeDecodeError) as error:
        raise InputError(f"The file {str(path)!r} cannot be read as {path.suffix}: {first_line(error)}") from error
    if frame.is_empty():
        raise InputError(f"The file {str(path)!r} has a header but no rows.")
    return frame


def _check_header(path: Path) -> None:
    with open(path, encoding="utf-8-sig", newline="") as file:
        header = next((row for row in csv.reader(file) if row), [])
    twice = sorted({c for c in header if header.count(c) > 1})
    if twice:
        raise InputError(f"The file {str(path)!r} has several columns of the same name: {listed(twice)}.")
