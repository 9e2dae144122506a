"""Run what a comparison needs, keep what is finished, and go on where it stopped."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

import lossfit
from lossfit.compare import data as sources
from lossfit.compare import features, metrics, search, splits
from lossfit.compare.errors import InputError
from lossfit.compare.models import HIDDEN
from lossfit.compare.train import Task, train

# Numbers of features that the splits of one task may hold together.
_TASK_FEATURES = 1 << 27
_TASK_SPLITS = 10

Progress = Callable[[str, float, int], None]
"""Called with the loss at work, the trainings done so far (fractions count), and how many there are in all."""


@dataclass(frozen=True)
class Plan:
    """A comparison, as the user asks for it. What it leaves open has the command's defaults."""

    source: str
    target: str | None = None
    text: str | None = None
    drop: tuple[str, ...] = ()
    impute: bool = False
    embedding: str | None = None
    metric: str = "accuracy"
    losses: str = "all"
    splits: int = 20
    trials: int = 8
    label_noise: float = 0.0
    model: str = "auto"
    seed: int = 0

    def check(self) -> None:
        """Raise InputError on what cannot be run."""
        lossfit.inputs.check_choice("metric", self.metric, metrics.METRICS)
        lossfit.inputs.check_choice("model", self.model, ("auto", "linear", "mlp"))
        search.choose(self.losses)
        for name, low in (("splits", 2), ("trials", 1)):
            if getattr(self, name) < low:
                raise InputError(f"Expected --{name} of at least {low}, but got {getattr(self, name)}.")
        if not 0 <= self.label_noise < 1:
            raise InputError(f"Expected --label-noise in [0, 1), but got {self.label_noise}.")


@dataclass(frozen=True)
class Outcome:
    """What a finished comparison consists of."""

    plan: Plan
    data: sources.Dataset
    results: pl.DataFrame
    seconds: float
    hidden: int


def run(plan: Plan, out: Path, *, resume: bool = False, progress: Progress = lambda *_: None) -> Outcome:
    """Train everything that ``out`` does not have yet, and gather the results.

    A task is one loss on up to 10 splits; each finished task is a file in ``out/parts``, written in one go, so that
    an interruption at any moment leaves only whole ones. Everything that is random depends on the seed and the split
    alone: the results are the same whether or not they were interrupted.

    Raises:
        InputError: the plan or the data is wrong, ``out`` exists and ``resume`` is not asked for, or ``out`` holds
            another comparison.
    """
    plan.check()
    data = sources.load(plan.source, plan.target, text=plan.text, drop=plan.drop, impute=plan.impute)
    drawn = splits.draw(data, plan.splits, plan.seed, plan.label_noise)
    _open(out, plan, data, resume)
    start, before = time.perf_counter(), _seconds(out)
    make = features.maker(data, plan.embedding)
    matrices = [make(split) for split in drawn]
    hidden = 0 if plan.model == "linear" else HIDDEN
    todo = list(_tasks(plan, data, matrices[0][0].size))
    total = sum(len(chunk) for _, chunk in todo) * plan.trials
    done = 0
    for candidate, chunk in todo:
        part = out / "parts" / f"{candidate.name}-{chunk.start:04d}.parquet"
        size = len(chunk) * plan.trials
        if not part.exists():
            task = Task(
                candidate,
                search.settings(candidate, plan.trials, plan.seed),
                [drawn[s] for s in chunk],
                [matrices[s] for s in chunk],
                data.labels,
                len(data.classes),
                hidden,
                plan.metric,
                [plan.seed * 1_000_003 + s for s in chunk],
            )
            task_start = time.perf_counter()
            records = train(task, _within(progress, candidate.name, done, size, total))
            each = (time.perf_counter() - task_start) / len(records)
            _write(part, [_finish(record, chunk.start, each) for record in records])
        done += size
        progress(candidate.name, done, total)
        _note_seconds(out, before + time.perf_counter() - start)
    results = pl.concat(pl.read_parquet(part) for part in sorted((out / "parts").glob("*.parquet")))
    order = {candidate.name: i for i, candidate in enumerate(search.choose(plan.losses))}
    results = results.sort(pl.col("loss").replace_strict(order), "split", "trial")
    _replace(out / "results.parquet", results.write_parquet)
    return Outcome(plan, data, results, _seconds(out), hidden)


def _tasks(plan: Plan, data: sources.Dataset, features: int) -> Iterator[tuple[search.Candidate, range]]:
    """Each loss on chunks of splits; the chunks depend on the data alone, so that they are the same on resuming."""
    size = max(1, min(_TASK_SPLITS, _TASK_FEATURES // max(features, 1)))
    for candidate in search.choose(plan.losses):
        for first in range(0, plan.splits, size):
            yield candidate, range(first, min(first + size, plan.splits))


def _within(progress: Progress, name: str, done: int, size: int, total: int) -> Callable[[float], None]:
    return lambda share: progress(name, done + share * size, total)


def _finish(record: dict[str, Any], first_split: int, seconds: float) -> dict[str, Any]:
    params = json.dumps(record["params"])
    return {**record, "split": first_split + record["split"], "params": params, "seconds": seconds}


def _open(out: Path, plan: Plan, data: sources.Dataset, resume: bool) -> None:
    asked = json.loads(json.dumps({**asdict(plan), "data": data.fingerprint, "lossfit": lossfit.__version__}))
    path = out / "plan.json"
    if out.exists() and not out.is_dir():
        raise InputError(f"The output {str(out)!r} is a file; name a folder by --out.")
    if out.exists() and any(out.iterdir()):
        if not path.is_file():
            raise InputError(f"The folder {str(out)!r} exists and holds something else; name another by --out.")
        if not resume:
            raise InputError(
                f"The folder {str(out)!r} exists. Pass --resume to go on with it, or name another folder by --out."
            )
        there = json.loads(path.read_text(encoding="utf-8"))
        different = [k for k in asked if asked[k] != there.get(k)]
        if different:
            listed = ", ".join(f"{k} is {there.get(k)!r}, not {asked[k]!r}" for k in different)
            raise InputError(f"The folder {str(out)!r} holds another comparison: {listed}. Name another by --out.")
    (out / "parts").mkdir(parents=True, exist_ok=True)
    _replace(path, lambda p: p.write_text(json.dumps(asked, indent=2), encoding="utf-8"))


def _write(part: Path, records: list[dict[str, Any]]) -> None:
    _replace(part, pl.DataFrame(records).write_parquet)


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file so that it is there as a whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    write(partial)
    partial.replace(path)


def _seconds(out: Path) -> float:
    path = out / "parts" / "seconds"
    return float(path.read_text()) if path.is_file() else 0.0


def _note_seconds(out: Path, seconds: float) -> None:
    _replace(out / "parts" / "seconds", lambda p: p.write_text(f"{seconds:.1f}"))


def versions() -> dict[str, str]:
    """What the results may depend on."""
    return {
        "lossfit": lossfit.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "polars": pl.__version__,
        "platform": platform.platform(terse=True),
        "threads": str(torch.get_num_threads()),
    }
