"""The folder of a comparison: its plan, a file for each finished task, and the results."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

import lossfit
from lossfit.compare.errors import InputError

if TYPE_CHECKING:
    from lossfit.compare.engine import Plan


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
    asked, there = _identity(plan, fingerprint), json.loads(path.read_text(encoding="utf-8"))
    different = [k for k in asked if asked[k] != there.get(k)]
    if different:
        listed = ", ".join(f"{k} is {there.get(k)!r}, not {asked[k]!r}" for k in different)
        raise InputError(f"The folder {str(out)!r} holds another comparison: {listed}. Name another by --out.")


def make_folder(out: Path, plan: Plan, fingerprint: str) -> None:
    (out / "parts").mkdir(parents=True, exist_ok=True)
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
    replace(path, pl.DataFrame(rows, infer_schema_length=None).write_parquet)


def gather(out: Path, order: list[str]) -> pl.DataFrame:
    """All parts as one table, in the order of the losses; it becomes results.parquet."""
    results = pl.concat(pl.read_parquet(path) for path in sorted((out / "parts").glob("*.parquet")))
    ranks = {name: i for i, name in enumerate(order)}
    results = results.sort(pl.col("loss").replace_strict(ranks), "split", "trial")
    replace(out / "results.parquet", results.write_parquet)
    return results


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under another name and then rename it, so that no half of it is ever seen."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    write(partial)
    partial.replace(path)
