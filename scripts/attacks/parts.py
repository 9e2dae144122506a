"""Damaged parts of a comparison: each must be set aside and trained again, none taken with other numbers."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import polars as pl

from attacks import folders, mutations
from attacks.tally import Tally
from lossfit.compare.running import engine, store
from lossfit.compare.running.finished import read_plan

_RESUMED = 6
"""How many of them are gone on with to the end."""


class Parts(NamedTuple):
    """The parts of a comparison with their bytes, and those of another one by name."""

    own: dict[Path, bytes]
    foreign: dict[str, bytes]


def run(count: int, seed: int) -> Tally:
    tally = Tally()
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        out = root / "out"
        frame = folders.table()
        frame.write_csv(root / "t.csv")
        (root / "elsewhere").mkdir()
        frame.with_columns(pl.col("age") + 1).write_csv(root / "elsewhere" / "t.csv")
        for data, folder in ((root / "t.csv", out), (root / "elsewhere" / "t.csv", root / "foreign")):
            folders.sound("compare", data, "--target", "grade", "--drop", "note", *folders.QUICK, "--out", folder)
        plan, found = read_plan(out)
        comparison = store.make_folder(out, plan, found["data"])
        parts = Parts(_read(out), {path.name: contents for path, contents in _read(root / "foreign").items()})
        for i in range(count):
            path = rng.choice(list(parts.own))
            kind, changed = _damaged(path, parts, rng)
            path.write_bytes(changed)
            whole, aside = store.set_aside(out, comparison, parts.own)
            right = path in whole and not aside if kind == "unchanged" else aside == [path.name]
            tally.add(kind, "" if right and whole | {path} == {*parts.own} else f"part {i} of seed {seed}")
            path.write_bytes(parts.own[path])
        shutil.rmtree(out / store.PARTS / store.ASIDE, ignore_errors=True)
        for i in range(min(_RESUMED, count)):
            _go_on(plan, out, parts, rng, tally, f"the one gone on with number {i} of seed {seed}")
    return tally


def _read(out: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted((out / store.PARTS).glob("*.parquet"))}


def _damaged(path: Path, parts: Parts, rng: random.Random) -> tuple[str, bytes]:
    """What is done to a part, and its bytes then."""
    whole, way = parts.own[path], rng.random()
    if way < 0.8:
        changed = _flipped(whole, rng) if way < 0.4 else mutations.bytes_of(whole, rng)
        return ("unchanged" if changed == whole else "a bit" if way < 0.4 else "bytes"), changed
    if way < 0.9:
        return "of other data", parts.foreign[path.name]
    return "of another loss", parts.own[rng.choice([other for other in parts.own if other != path])]


def _flipped(contents: bytes, rng: random.Random) -> bytes:
    data, bit = bytearray(contents), rng.randrange(8 * len(contents))
    data[bit // 8] ^= 1 << bit % 8
    return bytes(data)


def _go_on(plan: engine.Plan, out: Path, parts: Parts, rng: random.Random, tally: Tally, name: str) -> None:
    """The results are those of an undisturbed run, and what was damaged is said."""
    before = pl.read_parquet(out / store.RESULTS).drop("seconds")
    path = rng.choice(list(parts.own))
    kind, changed = _damaged(path, parts, rng)
    path.write_bytes(changed)
    said: list[str] = []
    engine.run(plan, out, resume=True, say=said.append)
    same = pl.read_parquet(out / store.RESULTS).drop("seconds").equals(before)
    told = any(path.name in line for line in said) != (kind == "unchanged")
    tally.add("gone on with", "" if same and told else name)
    parts.own.update(_read(out))
