"""The folder of a comparison: its plan, a file for each finished task, and the results."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

import lossfit
from lossfit.compare.errors import InputError, NotWrittenError, first_line
from lossfit.compare.plan import Plan


def check_folder(out: Path, plan: Plan, fingerprint: str, resume: bool) -> None:
    """Make sure that the folder is free, or holds this very comparison and may be gone on with.

    Raises:
        InputError: it exists and ``resume`` is not asked for, or it holds something else.
    """
    path = out / "plan.json"
    if out.exists() and not out.is_dir():
        raise InputError(f"The output {str(out)!r} is a file; name a folder by --out.")
    if not out.exists() or not any(out.iterdir()):
        return
    if not path.is_file():
        raise InputError(f"The folder {str(out)!r} exists and holds something else; name another by --out.")
    if not resume:
        raise InputError(
            f"The folder {str(out)!r} exists. Pass --resume to go on with it, or name another folder by --out."
        )
    asked, there = _identity(plan, fingerprint), _plan(path)
    different = [k for k in asked if asked[k] != there.get(k)]
    if different == ["data"]:
        raise InputError(
            f"The data has changed since the comparison in {str(out)!r} was begun, so it cannot be gone on with. Name "
            "another folder by --out, or bring the data back."
        )
    if different:
        listed = ", ".join(f"{k} is {there.get(k)!r}, not {asked[k]!r}" for k in different)
        raise InputError(f"The folder {str(out)!r} holds another comparison: {listed}. Name another by --out.")


def _plan(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"The file {str(path)!r} cannot be read as JSON: {first_line(error)}. Name another folder by --out."
        ) from error
    return found if isinstance(found, dict) else {}


def make_folder(out: Path, plan: Plan, fingerprint: str) -> None:
    (out / "parts").mkdir(parents=True, exist_ok=True)
    for partial in (out / "parts").glob(".*"):  # of a process that was killed while it wrote
        partial.unlink(missing_ok=True)
    identity = json.dumps(_identity(plan, fingerprint), indent=2)
    replace(out / "plan.json", lambda path: path.write_text(identity, encoding="utf-8"))


def _identity(plan: Plan, fingerprint: str) -> dict[str, Any]:
    """What two comparisons must share to be one, as JSON gives it back."""
    found: dict[str, Any] = json.loads(
        json.dumps({**asdict(plan), "data": fingerprint, "lossfit": lossfit.__version__})
    )
    return found


def part(out: Path, loss: str, first_split: int) -> Path:
    """The file of a task."""
    return out / "parts" / f"{loss}-{first_split:04d}.parquet"


def write_part(path: Path, records: list[dict[str, Any]], first_split: int, seconds: float) -> None:
    """The records of a task, as a file that is there as a whole or not at all."""
    rows = [
        {**r, "split": first_split + r["split"], "params": json.dumps(r["params"]), "seconds": seconds} for r in records
    ]
    # What only some records have, such as the counts by class, must not be missed.
    write_table(path, pl.DataFrame(rows, infer_schema_length=None))


def parts(out: Path) -> set[str]:
    """The files of finished tasks."""
    return {path.name for path in (out / "parts").glob("*.parquet")}


def is_whole(path: Path, loss: str, splits: range) -> bool:
    """Whether a task's file is there and can be read; one that cannot is removed, so that it is made again."""
    if not path.is_file():
        return False
    try:
        found = pl.read_parquet(path)
        whole = loss in found["loss"] and set(found["split"]) == set(splits)
    except (pl.exceptions.PolarsError, OSError):
        whole = False
    if not whole:
        path.unlink()
    return whole


def gather(out: Path, order: list[str]) -> pl.DataFrame:
    """All parts as one table, in the order of the losses; it becomes results.parquet."""
    results = pl.concat(
        (pl.read_parquet(path) for path in sorted((out / "parts").glob("*.parquet"))), how="diagonal_relaxed"
    )
    ranks = {name: i for i, name in enumerate(order)}
    results = results.sort(pl.col("loss").replace_strict(ranks), "split", "trial")
    write_table(out / "results.parquet", results)
    return results


def write_table(path: Path, table: pl.DataFrame) -> None:
    """As .parquet, or as .csv if the name says so."""
    # By way of memory, since what Polars says of a full disk may be anything.
    found = io.BytesIO()
    table.write_csv(found) if path.suffix.lower() == ".csv" else table.write_parquet(found)
    replace(path, lambda partial: partial.write_bytes(found.getvalue()))


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under another name and then rename it, so that no half of it is ever seen."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(partial)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise NotWrittenError(f"The file {str(path)!r} cannot be written: {error.strerror or error}.") from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
