"""Data sets that Hugging Face's `datasets` saved to disk, read by pyarrow alone."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from lossfit.compare import files
from lossfit.compare.data.sources import images
from lossfit.compare.data.sources.raw_table import VALIDATION, Raw, digest
from lossfit.compare.data.sources.tables import arrow_batches, library_errors
from lossfit.compare.errors import InputError, NoFileError, first_line, listed

LARGEST = 1 << 40
"""Bytes of a data file."""
STATE, INFO, PARTS = "state.json", "dataset_info.json", "dataset_dict.json"
_SPLITS = ("train", "validation", "test")


def is_saved(path: Path) -> bool:
    """Whether the folder is what `save_to_disk` writes."""
    return (path / PARTS).is_file() or (path / STATE).is_file()


def read(path: Path, size: tuple[int, int] | None = None) -> Raw:
    """One data set, or several splits of one: "test" is tested on, "train" and "validation" are the rows to train on.

    Columns of the feature ClassLabel hold the names of the classes; if there is one such column, it is the target.

    Raises:
        InputError: files are missing or cannot be read, or splits have other names or features.
    """
    if not (path / PARTS).is_file():
        return _raw(path, [_read_one(path)], None, size)
    names = files.read_json(path / PARTS).get("splits")
    given = names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []
    given = list(dict.fromkeys(given))
    # Splits without labels have names of their own.
    others = {name: _read_one(files.child(path, name)) for name in given if name not in _SPLITS and _is_one(path, name)}
    unlabelled = [name for name, part in others.items() if _lacks_labels(part)]
    names = [name for name in given if name not in unlabelled]
    if "train" not in names or not all(name in _SPLITS for name in names):
        raise InputError(
            f"Expected {str(path)!r} to hold the splits train, and validation and test if there are any, but got "
            f"{given!r}. Name the folder of one of them."
        )
    there = {name: _read_one(files.child(path, name)) for name in names}
    rest = {name: part for name, part in there.items() if name != "train"}
    unlabelled += [name for name, part in rest.items() if _lacks_labels(part) or _is_hidden(part, there["train"])]
    names = [name for name in names if name not in unlabelled]
    parts = [there[name] for name in names]
    if any(part.rows.schema != parts[0].rows.schema or part.features != parts[0].features for part in parts):
        raise InputError(f"The splits in {str(path)!r} have different features.")
    test = np.concatenate([np.full(len(part.rows), name == "test") for name, part in zip(names, parts, strict=True)])
    found = _raw(path, parts, test if test.any() else None, size)
    notes = [*found.notes, *([VALIDATION] if "validation" in names else [])]
    notes += [f"Left out: the split {name!r}, which has no labels." for name in unlabelled]
    return replace(found, notes=notes)


def _is_one(path: Path, name: str) -> bool:
    """Whether a folder inside of it holds a data set."""
    return Path(name).name == name and (path / name / STATE).is_file()


def _lacks_labels(part: _Part) -> bool:
    """Whether all rows of the column of classes are missing, where there is one such column."""
    names = [name for name, f in part.features.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"]
    names = [name for name in names if name in part.rows.column_names]
    if len(names) != 1 or not len(part.rows):
        return False
    labels = pl.Series(part.rows[names[0]])
    return bool((labels.is_null() | (labels == -1)).all()) if labels.dtype.is_integer() else False


def _is_hidden(part: _Part, train: _Part) -> bool:
    """Whether a column of numbers that is -1 in all rows is so in none of the rows to train on: labels kept secret."""
    for name in part.rows.column_names:
        if name in train.rows.column_names and pa.types.is_integer(part.rows[name].type) and len(part.rows):
            here, there = pl.Series(part.rows[name]), pl.Series(train.rows[name])
            if (here == -1).all() and not (there == -1).any():
                return True
    return False


class _Part(NamedTuple):
    """The rows in a folder, what its columns are, and a hash of it."""

    rows: Any
    features: dict[str, Any]
    digest: str


def _read_one(path: Path) -> _Part:
    state, info = files.read_json(path / STATE), files.read_json(path / INFO)
    if state.get("_indices_data_files"):
        raise InputError(f"The dataset in {str(path)!r} is a selection of rows; save it after flatten_indices().")
    entries = state.get("_data_files")
    names = [str(e.get("filename")) for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
    if not names or any(Path(name).name != name for name in names):
        raise InputError(f"The file {str(path / STATE)!r} names no data files.")
    tables, digests = [], []
    for name in names:
        try:
            contents = files.read(path / name, LARGEST)
        except NoFileError as error:
            raise InputError(f"There is no file {str(path / name)!r}, which {STATE} names.") from error
        tables.append(_table(contents, path / name))
        digests.append(digest(contents))
    if any(table.schema != tables[0].schema for table in tables):
        raise InputError(f"The data files in {str(path)!r} have different columns.")
    features = info.get("features")
    fingerprint = digest(*(d.encode() for d in digests), json.dumps(features).encode())
    return _Part(pa.concat_tables(tables), features if isinstance(features, dict) else {}, fingerprint)


def _table(contents: bytes, path: Path) -> Any:
    """The rows in Arrow's stream."""
    try:
        return arrow_batches(f"The file {str(path)!r}", contents)
    except (OSError, pa.ArrowException, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"The file {str(path)!r} cannot be read as Arrow's stream: {first_line(error)}") from error


def _raw(path: Path, parts: list[_Part], test: np.ndarray | None, size: tuple[int, int] | None) -> Raw:
    table, features = pa.concat_tables([part.rows for part in parts]), parts[0].features
    if len(table) == 0:
        raise InputError(f"The dataset in {str(path)!r} has no rows.")
    kinds = {name: f.get("_type") for name, f in features.items() if isinstance(f, dict) and name in table.column_names}
    pictures = [name for name, kind in kinds.items() if kind == "Image"]
    if len(pictures) > 1:
        raise InputError(f"The dataset in {str(path)!r} has several columns of images, {listed(pictures)}.")
    classes = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    pixels, notes = None, list[str]()
    if pictures:
        pixels, notes = _images(table[pictures[0]], pictures[0], size)
    frame = _frame(table.drop_columns(pictures), path)
    frame = frame.with_columns(_named(frame[name], features[name].get("names")) for name in classes)
    several = {name: inner for name, f in features.items() if (inner := _inner(f)) and name in frame.columns}
    frame = frame.with_columns(_named_lists(frame[name], inner) for name, inner in several.items())
    fingerprint = digest(*(part.digest.encode() for part in parts))
    return Raw(frame, fingerprint, pixels, classes[0] if len(classes) == 1 else None, test, notes=notes)


def _frame(table: Any, path: Path) -> pl.DataFrame:
    with library_errors(f"The dataset in {str(path)!r} cannot be read"):
        found = pl.from_arrow(table)
    assert isinstance(found, pl.DataFrame)
    return found


def _named(column: pl.Series, names: Any) -> pl.Series:
    """Class numbers to names; -1 is missing."""
    if not isinstance(names, list) or not column.dtype.is_integer():
        raise InputError(f"The column {column.name!r} is a ClassLabel without names, or without integers.")
    known = {i: str(name) for i, name in enumerate(names)}
    if len(set(known.values())) < len(known):
        raise InputError(f"The column {column.name!r} is a ClassLabel with a name that stands for several classes.")
    strange = column.filter(column.is_not_null() & ~column.is_between(-1, len(names) - 1))
    if len(strange):
        raise InputError(f"The column {column.name!r} holds {strange[0]}, but there are {len(names)} classes.")
    return column.replace_strict(known, default=None, return_dtype=pl.Enum(list(known.values())))


def _inner(feature: Any) -> list[str] | None:
    """The names of classes of which each row has any number."""
    if not isinstance(feature, dict) or feature.get("_type") not in ("Sequence", "List", "LargeList"):
        return None
    inner = feature.get("feature")
    names = inner.get("names") if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" else None
    return [str(name) for name in names] if isinstance(names, list) else None


def _named_lists(column: pl.Series, names: list[str]) -> pl.Series:
    known = dict(enumerate(names))
    strange = column.explode().drop_nulls()
    strange = strange.filter(~strange.is_in(list(known)))
    if len(strange):
        raise InputError(f"The column {column.name!r} holds {strange[0]}, but there are {len(names)} classes.")
    return column.list.eval(pl.element().replace_strict(known, return_dtype=pl.String))


def _images(column: Any, name: str, size: tuple[int, int] | None) -> tuple[np.ndarray, list[str]]:
    values = column.to_pylist()
    for i, value in enumerate(values):
        if not isinstance(value, dict) or not isinstance(value.get("bytes"), bytes):
            raise InputError(f"The image in row {i + 1} of the column {name!r} is not in the dataset itself.")
    told = [f"{name}, row {i + 1}" for i in range(len(values))]
    read = images.read(told, lambda i: io.BytesIO(values[i]["bytes"]), size)
    return read.pixels, read.notes
