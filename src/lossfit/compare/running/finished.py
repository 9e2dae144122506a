"""The files of a finished comparison, which may be anyone's: read, and checked as what comes from outside."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any

import polars as pl

import lossfit
from lossfit.compare import files
from lossfit.compare.data.sources import tables
from lossfit.compare.errors import InputError, NoFileError
from lossfit.compare.plan import Plan
from lossfit.compare.running import schema, store
from lossfit.compare.scoring.tasks import KINDS

PLAN, SUMMARY = "plan.json", "summary.json"
LARGEST_SUMMARY = 16 * files.MIB


def read_plan(folder: Path) -> tuple[Plan, dict[str, Any]]:
    """The plan of a comparison, and what its file holds, with the fingerprint of the data as "data".

    Raises:
        InputError: there is none, or it is of another version.
    """
    try:
        found = files.read_json(folder / PLAN, files.MIB)
    except NoFileError as error:
        raise InputError(f"The folder {str(folder)!r} holds no comparison; `lossfit compare` writes one.") from error
    hints = typing.get_type_hints(Plan)
    unknown = [name for name in found if name not in hints and name not in ("data", "lossfit")]
    if unknown or not {"source", "data"} <= found.keys():
        raise InputError(
            f"The comparison in {str(folder)!r} was written by lossfit {found.get('lossfit')}, whose plan this lossfit "
            f"{lossfit.__version__} does not know."
        )
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}
    for name, hint in {**hints, "data": str, "lossfit": str}.items():
        if name in values and not _conforms(values[name], hint):
            raise InputError(f"The file {str(folder / PLAN)!r} cannot be read: {name} is {found[name]!r}.")
    fields = {field.name for field in dataclasses.fields(Plan)}
    return Plan(**{name: value for name, value in values.items() if name in fields}), found


def _conforms(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of the type of a field of the plan."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_conforms(value, each) for each in typing.get_args(hint))
    if origin is tuple:
        return isinstance(value, tuple) and all(isinstance(each, str) for each in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e308
    return type(value) is hint if hint is not type(None) else value is None


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a comparison, as ``summary.schema.json`` describes it.

    Raises:
        InputError: there is none, or it is of another version, edited or damaged.
    """
    path = folder / SUMMARY
    try:
        found = files.read_json(path, LARGEST_SUMMARY)
    except NoFileError as error:
        raise InputError(f"The comparison in {str(folder)!r} is not finished; --resume goes on with it.") from error
    wrong = schema.fault(found)
    if wrong:
        raise InputError(f"The file {str(path)!r} is no summary of this lossfit {lossfit.__version__}: {wrong}.")
    return found


def read_passes(folder: Path, summary: dict[str, Any]) -> pl.DataFrame:
    """The passes of a comparison over its tested rows, a row for each candidate and pass; empty if all failed.

    Raises:
        InputError: there are none, they are damaged, or of another summary.
    """
    path = folder / store.PASSES
    try:
        contents = files.read(path, store.LARGEST)
    except NoFileError as error:
        raise InputError(f"The folder {str(folder)!r} holds no {store.PASSES}.") from error
    if store.check_seal(contents, path) is None:
        raise InputError(f"The file {str(path)!r} was not written by this version of lossfit.")
    passes = tables.parse_parquet(contents, path)
    metrics = KINDS[summary["labels"]].measured(summary["metric"])
    kinds: dict[str, Any] = {"loss": pl.String, "repeat": pl.Int64, "pass": pl.Int64}
    kinds |= {f"test_{metric}": pl.Float64 for metric in metrics}
    kinds |= {f"influence_{metric}": pl.List(pl.Float32) for metric in metrics}
    if not passes.width:
        return pl.DataFrame(schema=kinds)
    for name, kind in kinds.items():
        column = passes.get_column(name, default=None)
        if column is None or column.dtype != kind or column.has_nulls():
            raise InputError(f"The file {str(path)!r} holds no passes: its column {name!r} is missing or is no {kind}.")
        if kind == pl.List(pl.Float32) and (column.list.len() != summary["tested"]).any():
            raise InputError(f"The file {str(path)!r} has other rows than the {summary['tested']} of {SUMMARY}.")
    return passes
