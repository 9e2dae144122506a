"""Run what a comparison needs, keep what is finished, and go on where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from lossfit.compare import device
from lossfit.compare.candidates import candidates
from lossfit.compare.candidates.candidates import Candidate
from lossfit.compare.data import duplicates
from lossfit.compare.data.dataset import Dataset
from lossfit.compare.data.folds import Folds, draw
from lossfit.compare.errors import InputError, listed
from lossfit.compare.features import make
from lossfit.compare.outcome import Outcome
from lossfit.compare.plan import RACING, Plan
from lossfit.compare.running import cluster, pool, store
from lossfit.compare.running.job import Job, Measured, Part
from lossfit.compare.training import models
from lossfit.compare.training.models.architecture import Architecture
from lossfit.compare.training.task import FoldRows, Limits, Recipe, Task
from lossfit.compare.verdict import evidence
from lossfit.core.checks import check_choice

_NOTED = 5.0
"""Seconds between two notes of how long it took."""
ENGINES = ("local", "ray")
"""Where trainings run: in processes of this machine, or on a Ray cluster."""

Progress = Callable[[str, float, int], None]
"""Called with a loss at work, the share of the work done, and how many trainings there are in all."""


def run(
    plan: Plan,
    out: Path,
    *,
    resume: bool = False,
    workers: int | None = None,
    progress: Progress = lambda *_: None,
    show: Callable[[Dataset], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    engine: str = "local",
    ray_address: str | None = None,
    limits: Limits = Limits(),  # noqa: B008
) -> Outcome:
    """Train everything that ``out`` does not have yet, and gather the results.

    A task is one loss on one repeat of the folds; each finished task is two files in ``out/parts``, written one after
    the other, so that an interruption at any moment leaves only whole ones. Everything that is random depends on the
    seed and the training alone: the results are the same however many workers there are, whether or not they were
    interrupted, and on one machine or many. In the second repeat and after it only losses take part that are the best
    with a probability of at least :data:`RACING` by the repeats before.

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
    if plan.kind.choices()[plan.metric].two_classes and len(data.classes) > 2:
        raise InputError(f"--metric {plan.metric} is for two classes, but there are {len(data.classes)}.")
    folds = draw(data, plan.folds, plan.repeats, plan.seed, plan.label_noise, plan.max_rows or None)
    store.check_folder(out, plan, data.fingerprint, resume)
    read, of_text = make.reader(data, plan.text_features, plan.embedding)
    kind, told = models.resolve(plan.model, data.image, limits.steps_for(len(folds.train(0, folds.pairs[0]))))
    data = replace(data, notes=[*data.notes, *folds.notes, *_notes(data, folds), *(n for n in (of_text, told) if n)])
    show(data)
    run = store.make_folder(out, plan, data.fingerprint)
    start, before = time.perf_counter(), store.read_seconds(out)
    work = _Work(plan, data, folds, out, run, read, kind, limits, device.choose(plan.device))
    if work.aside:
        where_to = out / store.PARTS / store.ASIDE
        say(f"Set aside in {where_to}, since they are damaged or of another comparison: {listed(work.aside)}.")
    noted = start

    def report(done: float, name: str) -> None:
        nonlocal noted
        progress(name, work.share(done), work.trainings)
        if time.perf_counter() > noted + _NOTED:
            noted = time.perf_counter()
            store.write_seconds(out, before + noted - start)

    if engine == "ray":
        cluster.run_jobs(work.jobs(), work.missing, workers, work.keep, report, ray_address)
    else:
        pool.run_jobs(work.jobs(), work.missing, workers or 1, work.keep, report)
    seconds = before + time.perf_counter() - start
    store.write_seconds(out, seconds)
    results, passes = store.gather(out, run, work.parts, [c.name for c in plan.candidates])
    return Outcome(plan, data, folds, results, passes, seconds, work.trainings, work.model(0), work.device, limits)


class _Work:
    """The tasks of a comparison, in the order in which they are done."""

    def __init__(
        self,
        plan: Plan,
        data: Dataset,
        folds: Folds,
        out: Path,
        run: str,
        read: make.Reader,
        kind: str,
        limits: Limits,
        where: str,
    ) -> None:
        self.plan, self.data, self.folds, self.out, self.run, self.read = plan, data, folds, out, run, read
        self.kind, self.limits, self.device = kind, limits, where
        self.each = [plan.trained] * plan.repeats
        self.waiting, self.shown = 0, 0.0
        expected = {store.part(out, p, table): p for p in self.parts for table in store.TABLES}
        there, self.aside = store.set_aside(out, run, expected)
        self.whole = {p for p in self.parts if all(store.part(out, p, table) in there for table in store.TABLES)}
        self.finished, self.missing = len(self.whole), len(self.parts) - len(self.whole)
        self.rows = lru_cache(maxsize=1)(self._rows)

    @property
    def parts(self) -> list[Part]:
        """What there is to do, as far as it is known: who takes part in later repeats depends on the first."""
        return [Part(c.name, repeat) for repeat, those in enumerate(self.each) for c in those]

    @property
    def trainings(self) -> int:
        """Models to be trained in all."""
        return len(self.parts) * len(self.folds.pairs) * self.plan.trials

    def share(self, done: float) -> float:
        """Of the work, after so many jobs of this run; never less than before."""
        self.shown = max(self.shown, (self.finished + done) / len(self.parts))
        return self.shown

    def jobs(self) -> Iterator[Job | None]:
        """What is missing; None as long as what comes next depends on what is under way."""
        for repeat in range(self.plan.repeats):
            if repeat:
                while self.waiting:
                    yield None
                self.each = [*self.each[:repeat], *[self._racing(repeat)] * (self.plan.repeats - repeat)]
            for candidate in self.each[repeat]:
                part = Part(candidate.name, repeat)
                if part not in self.whole:
                    self.waiting += 1
                    yield Job(Task(self._recipe(candidate, repeat), self.rows(repeat)), part)

    def keep(self, job: Job, measured: Measured) -> None:
        """Write what a job came to."""
        store.write_part(self.out, self.run, job.part, measured.records, measured.seconds)
        self.waiting -= 1

    def model(self, repeat: int) -> Architecture:
        """The network for the features of a repeat."""
        width = self.rows(repeat).matrices[0][0].shape[1]
        return models.choose(self.kind, width, len(self.data.classes), self.data.image)

    def _racing(self, repeat: int) -> list[Candidate]:
        """Who takes part in a repeat, after those before."""
        plan = self.plan
        names = [c.name for c in plan.candidates]
        _, passes = store.read_parts(self.out, self.run, [p for p in self.parts if p.repeat < repeat], names)
        chances = evidence.chances(passes, self.folds, self.data, replace(plan, repeats=repeat))
        if chances is None:
            return plan.trained

        def taking_part(candidate: Candidate) -> bool:
            both = (candidate, candidates.tuned(candidate, plan.metric, plan.kind.family))
            return any(chances.get(c.name, 0.0) >= RACING for c in both if c is not None)

        return [c for c in plan.trained if c.name == plan.kind.reference or taking_part(c)]

    def _recipe(self, candidate: Candidate, repeat: int) -> Recipe:
        plan = self.plan
        settings = candidates.settings(candidate, plan.trials, plan.seed)
        classes, model = len(self.data.classes), self.model(repeat)
        return Recipe(candidate, settings, classes, model, (plan.metric,), self.limits, self.device)

    def _rows(self, repeat: int) -> FoldRows:
        found = fold_rows(self.data, self.folds, repeat, self.plan.seed, self.read)
        if repeat == 0:
            features, classes = found.matrices[0][0], len(self.data.classes)
            network = models.choose(self.kind, features.shape[1], classes, self.data.image)
            network.check(torch.from_numpy(features[:4]))
        return found


def fold_rows(data: Dataset, folds: Folds, repeat: int, seed: int, read: make.Reader) -> FoldRows:
    """The rows and features of a repeat, which all losses have in common."""
    own = folds.repeats[repeat]
    train = [folds.train(repeat, pair) for pair in folds.pairs]
    held_out = [folds.held_out(repeat, pair) for pair in folds.pairs]
    parts = [make.Parts(own, np.concatenate(out), folds.test) for own, out in zip(train, held_out, strict=True)]
    first = seed * 1_000_003 + repeat * len(folds.pairs)
    return FoldRows(
        repeat,
        folds.count,
        folds.pairs,
        train,
        held_out,
        make.make(data, parts, read),
        [first + m for m in range(len(folds.pairs))],
        data.labels,
        own.trained,
        own.chosen,
        folds.rows,
        folds.test,
        data.weight,
    )


def _check_engine(engine: str, ray_address: str | None) -> None:
    check_choice("--engine", engine, ENGINES)
    if engine == "ray":
        cluster.check(ray_address)
    elif ray_address is not None:
        raise InputError("--ray-address needs --engine ray.")


def _notes(data: Dataset, folds: Folds) -> list[str]:
    """What should be known of the rows."""
    notes = []
    if data.test is not None:
        given = int(data.test.sum())
        some = f"{len(folds.test):,} of the {given:,}" if len(folds.test) < given else f"the {given:,}"
        notes.append(f"Every model is tested on {some} rows that are given for it; folds are made of the others.")
        there = data.labels[folds.test]
        absent = [
            name for c, name in enumerate(data.classes) if not (there[:, c] if there.ndim == 2 else there == c).any()
        ]
        if absent:
            notes.append(f"No row to test on has the class {listed(absent)}.")
    repeated = duplicates.note(data, folds)
    return [*notes, repeated] if repeated else notes
