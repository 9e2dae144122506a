"""A piece of the work: a task, and what it comes to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from lossfit.compare.training.records import Records
from lossfit.compare.training.task import Task
from lossfit.compare.training.train import train


class Measured(NamedTuple):
    """The records of a task, and the seconds that each training took."""

    records: Records
    seconds: float

    @classmethod
    def of(cls, task: Task, progress: Callable[[float], None]) -> Measured:
        start = time.perf_counter()
        (metric,) = task.recipe.metrics
        records = train(task, progress)[metric]
        trainings = len(task.rows.pairs) * len(task.recipe.settings)
        return cls(records, (time.perf_counter() - start) / trainings)


class Part(NamedTuple):
    """What a task is of, by which its results are found again."""

    loss: str
    repeat: int


class Job(NamedTuple):
    """A task, and the part of the results that it gives."""

    task: Task
    part: Part


def numbered(jobs: Iterable[Job | None]) -> Iterator[tuple[int, Job] | None]:
    """The jobs with their numbers from 0; None stays None."""
    number = 0
    for job in jobs:
        yield None if job is None else (number, job)
        number += job is not None
