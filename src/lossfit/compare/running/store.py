"""The folder of a comparison: its plan, a file for each finished task, and the results.

A file of numbers is sealed: it names the comparison and itself and has a digest of all its bytes, so that one that is
damaged, or of other data or another plan, is never taken for this comparison's.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import lossfit
from lossfit.compare import files
from lossfit.compare.data.sources import tables
from lossfit.compare.errors import InputError
from lossfit.compare.plan import Plan
from lossfit.compare.running.job import Part
from lossfit.compare.training.records import Records

PARTS = "parts"
ASIDE = "set-aside"
"""Inside of the parts: those that could not be taken."""
RESULTS, PASSES = "results.parquet", "passes.parquet"
LARGEST = 4 << 30
"""Bytes of a file of numbers."""
_UNSEALED = "0" * 64
_SEAL = re.compile(rb"lossfit ([0-9a-f]{64}) ([\w+.-]+) ([0-9a-f]{64})")


def check_folder(out: Path, plan: Plan, fingerprint: str, resume: bool) -> None:
    """Make sure that the folder is free, or holds this very comparison and may be gone on with.

    Raises:
        InputError: it exists and ``resume`` is not asked for, or it holds something else.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"The output {str(out)!r} is a file; name a folder by --out.")
    if not out.exists() or not files.names_in(out):
        return
    path = out / "plan.json"
    if not path.is_file():
        raise InputError(f"The folder {str(out)!r} exists and holds something else; name another by --out.")
    if not resume:
        raise InputError(
            f"The folder {str(out)!r} exists. Pass --resume to go on with it, or name another folder by --out."
        )
    asked = _identity(plan, fingerprint)
    try:
        there = files.read_json(path)
    except InputError as error:
        raise InputError(f"{error} Name another folder by --out.") from error
    different = [k for k in asked if asked[k] != there.get(k)]
    if different == ["data"]:
        raise InputError(
            f"The data has changed since the comparison in {str(out)!r} was begun, so it cannot be gone on with. Name "
            "another folder by --out, or bring the data back."
        )
    files.child(out, PARTS)
    if different:
        listed = ", ".join(f"{k} is {there.get(k)!r}, not {asked[k]!r}" for k in different)
        raise InputError(f"The folder {str(out)!r} holds another comparison: {listed}. Name another by --out.")


def make_folder(out: Path, plan: Plan, fingerprint: str) -> str:
    """Make the folder, or clear it of what a killed process left half written; the comparison's own fingerprint.

    Raises:
        InputError: a folder in it is a link.
    """
    identity = _identity(plan, fingerprint)
    files.make_folder(out)
    files.names_in(out)
    files.write({out / "plan.json": json.dumps(identity, indent=2)})
    parts = files.child(out, PARTS)
    files.make_folder(parts)
    files.names_in(parts)
    return _run(identity)


def _identity(plan: Plan, fingerprint: str) -> dict[str, Any]:
    """What two comparisons must share to be one, as JSON gives it back."""
    found: dict[str, Any] = json.loads(
        json.dumps({**asdict(plan), "data": fingerprint, "lossfit": lossfit.__version__})
    )
    return found


TABLES = ("settings", "passes")


def _run(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def part(out: Path, own: Part, table: str) -> Path:
    """A file of a task."""
    return out / PARTS / f"{own.loss}-{own.repeat}-{table}.parquet"


def write_part(out: Path, run: str, own: Part, records: Records, seconds: float) -> None:
    """The records of a task."""
    settings = [{**r, "params": json.dumps(r["params"]), "seconds": seconds} for r in records.settings]
    # A column may be of nothing but empty lists in the first rows.
    tables = {"settings": pl.DataFrame(settings, infer_schema_length=None)}
    tables["passes"] = pl.DataFrame([_as_series(r) for r in records.passes]) if records.passes else pl.DataFrame()
    paths = {part(out, own, table): tables[table] for table in TABLES}
    files.write({path: sealed(path, run, table) for path, table in paths.items()})


def _as_series(record: dict[str, Any]) -> dict[str, Any]:
    """Arrays as what Polars takes for a list, in their own precision."""
    return {
        name: pl.Series(value.reshape(-1)) if isinstance(value, np.ndarray) else value for name, value in record.items()
    }


def set_aside(out: Path, run: str, expected: Collection[Path]) -> tuple[set[Path], list[str]]:
    """The expected parts that are there, and the names of all others, which are moved out of the way."""
    folder = files.child(out, PARTS)
    whole, strange = set(), []
    for path in sorted(folder.glob("*.parquet")):
        if path in expected and _is_whole(path, run):
            whole.add(path)
            continue
        aside = files.child(folder, ASIDE)
        files.make_folder(aside)
        path.replace(aside / path.name)
        strange.append(path.name)
    return whole, strange


def _is_whole(path: Path, run: str) -> bool:
    try:
        read_sealed(path, run)
    except InputError:
        return False
    return True


def read_parts(out: Path, run: str, parts: list[Part], order: list[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables of settings and of passes, in the order of the losses."""
    ranks = {name: i for i, name in enumerate(order)}
    found = []
    for table, keys in zip(TABLES, (("repeat", "fold", "trial"), ("repeat", "pass")), strict=True):
        each = [read_sealed(part(out, own, table), run) for own in parts]
        joined = pl.concat([one for one in each if one.width] or each[:1], how="diagonal_relaxed")
        found.append(joined.sort(pl.col("loss").replace_strict(ranks), *keys) if joined.width else joined)
    return found[0], found[1]


def gather(out: Path, run: str, parts: list[Part], order: list[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """All parts as two tables; they become results.parquet and passes.parquet."""
    results, passes = read_parts(out, run, parts, order)
    tables = {out / RESULTS: results, out / PASSES: passes}
    files.write({path: sealed(path, run, table) for path, table in tables.items()})
    return results, passes


def sealed(path: Path, run: str, table: pl.DataFrame) -> bytes:
    """A table as the contents of a .parquet file in whose metadata is the digest of all its other bytes."""
    found = io.BytesIO()
    seal = f"lossfit {run} {path.name} "
    table.write_parquet(found, metadata={"seal": seal + _UNSEALED})
    contents = found.getvalue()
    whole = seal + hashlib.sha256(contents).hexdigest()
    return contents.replace((seal + _UNSEALED).encode(), whole.encode())


def read_sealed(path: Path, run: str) -> pl.DataFrame:
    """The table in a file that :func:`sealed` made for this comparison.

    Raises:
        InputError: it is damaged, of another comparison, or of another name.
    """
    contents = files.read(path, LARGEST)
    seal = check_seal(contents, path)
    if seal is None:
        raise InputError(f"The file {str(path)!r} is damaged, or was not written by this version of lossfit.")
    if seal != (run, path.name):
        raise InputError(f"The file {str(path)!r} is of another comparison, or had another name.")
    return tables.parse_parquet(contents, path)


def check_seal(contents: bytes, path: Path) -> tuple[str, str] | None:
    """The comparison that a file is of, and its name, by its seal; None if it has none.

    Raises:
        InputError: its bytes are not those that were sealed.
    """
    seals = _SEAL.findall(contents)
    if len(seals) != 1:
        return None
    run, name, digest = (value.decode() for value in seals[0])
    unsealed = contents.replace(digest.encode(), _UNSEALED.encode())
    if hashlib.sha256(unsealed).hexdigest() != digest:
        raise InputError(f"The file {str(path)!r} is damaged: its bytes are not those that were written.")
    return run, name


def read_seconds(out: Path) -> float:
    """What the comparison took so far, over all its interruptions."""
    try:
        found = float(files.read(out / PARTS / "seconds", 64))
    except ValueError:  # not there yet, or damaged; no result depends on it
        return 0.0
    return found if math.isfinite(found) else 0.0


def write_seconds(out: Path, seconds: float) -> None:
    files.write({out / PARTS / "seconds": repr(seconds)})
