"""Run what a comparison needs, keep what is finished, and go on where it stopped."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl
import torch

import lossfit
from lossfit.compare import device
from lossfit.compare.candidates import candidates
from lossfit.compare.data import dataset as sources
from lossfit.compare.data import duplicates, splits
from lossfit.compare.errors import InputError, listed
from lossfit.compare.features import make
from lossfit.compare.plan import Plan
from lossfit.compare.running import cluster, pool, store
from lossfit.compare.running.job import Job, Measured
from lossfit.compare.training import models
from lossfit.compare.training.task import Limits, Recipe, SplitRows, Task
from lossfit.core.checks import check_choice

_NOTED = 5.0
"""Seconds between two notes of how long it took."""
ENGINES = ("local", "ray")
"""Where trainings run: in processes of this machine, or on a Ray cluster."""

Progress = Callable[[str, float, int], None]
"""Called with a loss at work, the share of the work done, and how many trainings there are in all."""


@dataclass(frozen=True)
class Outcome:
    """What a finished comparison consists of."""

    plan: Plan
    data: sources.Dataset
    results: pl.DataFrame
    seconds: float
    model: models.Architecture
    device: str
    limits: Limits = field(default_factory=Limits)


def run(
    plan: Plan,
    out: Path,
    *,
    resume: bool = False,
    workers: int | None = None,
    progress: Progress = lambda *_: None,
    show: Callable[[sources.Dataset], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    engine: str = "local",
    ray_address: str | None = None,
    limits: Limits = Limits(),  # noqa: B008
) -> Outcome:
    """Train everything that ``out`` does not have yet, and gather the results.

    A task is one loss on up to 10 splits; each finished task is a file in ``out/parts``, written in one go, so that
    an interruption at any moment leaves only whole ones. Everything that is random depends on the seed and the split
    alone: the results are the same however many workers there are, whether or not they were interrupted, and on one
    machine or many.

    Args:
        plan: what to compare.
        out: the folder for the results.
        resume: go on with what ``out`` holds.
        workers: processes to train in, 1 if None; with Ray how many tasks run at once, as many as there are cores if
            None. More than one without Ray needs the calling script to be guarded by ``if __name__ == "__main__":``, as
            always with Python's processes.
        progress: called now and then.
        show: called with the data before anything is trained.
        say: called with what should be known of the folder.
        engine: one of :data:`ENGINES`.
        ray_address: HOST:PORT of a Ray cluster, or "auto" for the one that this machine is part of. If None, the one
            that this process is connected to, or else one is started here for the time of the run.
        limits: of a training.

    Raises:
        InputError: the plan or the data is wrong, ``out`` exists and ``resume`` is not asked for, or ``out`` holds
            another comparison; or the Ray cluster cannot be reached or loses a training again and again.
    """
    plan.check()
    _check_engine(engine, ray_address)
    data = plan.load()
    drawn = splits.draw(data, plan.splits, plan.seed, plan.label_noise, plan.max_rows or None)
    if data.groups is not None:
        drawn = splits.equalised(data, drawn, plan.seed)
    store.check_folder(out, plan, data.fingerprint, resume)
    read, of_text = make.reader(data, plan.text_features, plan.embedding)
    kind, told = models.resolve(plan.model, data.image, limits.steps_for(len(drawn[0].train)))
    data = replace(data, notes=[*data.notes, *_notes(data, drawn, plan), *(note for note in (of_text, told) if note)])
    show(data)
    run = store.make_folder(out, plan, data.fingerprint)
    start, before = time.perf_counter(), store.read_seconds(out)
    matrices = make.make(data, drawn, read)
    model, where = _model(kind, data, matrices), device.choose(plan.device)
    alike = len({tuple(len(part) for part in parts) for parts in matrices}) == 1
    tasks = list(_tasks(plan, limits, _task_numbers(plan, data, matrices) if alike else limits.numbers))
    parts = {store.part(out, c.name, chunk.start): (c, chunk) for c, chunk in tasks}
    whole, aside = store.set_aside(out, run, parts)
    todo = [task for path, task in parts.items() if path not in whole]
    if aside:
        where_to = out / store.PARTS / store.ASIDE
        say(f"Set aside in {where_to}, since they are damaged or of another comparison: {listed(aside)}.")
    total = len(tasks)

    def job(candidate: candidates.Candidate, chunk: range) -> Job:
        recipe = Recipe(
            candidate,
            candidates.settings(candidate, plan.trials, plan.seed),
            len(data.classes),
            model,
            plan.metric,
            free=[c for c in plan.candidates if c.tuned] if candidate.name == plan.kind.reference else [],
            limits=limits,
            device=where,
        )
        rows = SplitRows(
            [drawn[s] for s in chunk],
            [matrices[s] for s in chunk],
            [plan.seed * 1_000_003 + s for s in chunk],
            data.labels,
            data.weight,
            fixed_test=data.test is not None,
        )
        return Job(Task(recipe, rows), store.part(out, candidate.name, chunk.start), chunk.start)

    def keep(job: Job, measured: Measured) -> None:
        store.write_part(job.part, run, measured.records, job.first_split, measured.seconds)

    noted = start

    def report(done: float, name: str) -> None:
        nonlocal noted
        share = (total - len(todo) + done) / total
        progress(name, share, len(plan.trained) * plan.splits * plan.trials)
        if time.perf_counter() > noted + _NOTED:
            noted = time.perf_counter()
            store.write_seconds(out, before + noted - start)

    jobs = (job(*t) for t in todo)
    if engine == "ray":
        cluster.run_jobs(jobs, len(todo), workers, keep, report, ray_address)
    else:
        pool.run_jobs(jobs, len(todo), workers or 1, keep, report)
    seconds = before + time.perf_counter() - start
    store.write_seconds(out, seconds)
    results = store.gather(out, run, parts, [c.name for c in plan.candidates])
    return Outcome(plan, data, results, seconds, model, where, limits)


def _check_engine(engine: str, ray_address: str | None) -> None:
    check_choice("--engine", engine, ENGINES)
    if engine == "ray":
        cluster.check(ray_address)
    elif ray_address is not None:
        raise InputError("--ray-address needs --engine ray.")


def _model(kind: str, data: sources.Dataset, matrices: list[make.Matrices]) -> models.Architecture:
    """The network, tried on a few rows."""
    rows, width = matrices[0][0].shape
    found = models.choose(kind, width, len(data.classes), data.image)
    found.check(torch.from_numpy(matrices[0][0][: min(rows, 4)]))
    return found


def _notes(data: sources.Dataset, drawn: list[splits.Split], plan: Plan) -> list[str]:
    """How the rows were split."""
    notes = []
    free = data.rows if data.test is None else int((~data.test).sum())
    if plan.max_rows and free > plan.max_rows:
        used = sum(len(rows) for rows in (drawn[0].train, drawn[0].validation))
        used += len(drawn[0].test) if data.test is None else 0
        notes.append(
            f"Each split draws {used:,} of {free:,} rows, {len(drawn[0].train):,} of them to train on, and each split "
            "draws others (--max-rows)."
        )
    if data.test is not None:
        given = int(data.test.sum())
        some = f"{len(drawn[0].test):,} of the {given:,}" if len(drawn[0].test) < given else f"the {given:,}"
        notes.append(
            f"Every split tests on {some} rows that are given for it. The splits differ in the rows to train and to "
            "choose on and in their seeds; what other test rows would change is estimated by leaving out a tenth of "
            "these at a time, and is in the intervals."
        )
        there = data.labels[drawn[0].test]
        absent = [
            name for c, name in enumerate(data.classes) if not (there[:, c] if there.ndim == 2 else there == c).any()
        ]
        if absent:
            notes.append(f"No row to test on has the class {listed(absent)}.")
    repeated = duplicates.note(data, drawn)
    return [*notes, repeated] if repeated else notes


def _task_numbers(plan: Plan, data: sources.Dataset, matrices: list[make.Matrices]) -> int:
    """Numbers that a split needs at once: its features, or the scores of held-out rows and what is made of them."""
    held_out = max(len(part) for part in matrices[0][1:])
    return max(sum(m.size for m in matrices[0]), 4 * held_out * plan.trials * len(data.classes))


def _tasks(plan: Plan, limits: Limits, size: int) -> Iterator[tuple[candidates.Candidate, range]]:
    """Each loss on chunks of splits; the chunks depend on the data and the network alone, so that they are the same on
    resuming. What is not trained side by side is one split at a time, and is kept when that ends.
    """
    length = max(1, min(limits.splits, limits.numbers // max(size, 1)))
    for candidate in plan.trained:
        for first in range(0, plan.splits, length):
            yield candidate, range(first, min(first + length, plan.splits))


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
