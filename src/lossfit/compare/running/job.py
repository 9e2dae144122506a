"""A piece of the work: a task, and what it comes to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lossfit.compare.scoring import class_counts
from lossfit.compare.training.task import Task
from lossfit.compare.training.train import train


class Measured(NamedTuple):
    """The records of a task, and the seconds that each training took."""

    records: list[dict[str, Any]]
    seconds: float

    @classmethod
    def of(cls, task: Task, progress: Callable[[float], None]) -> Measured:
        start = time.perf_counter()
        recipe, rows = task
        records = class_counts.thin(train(task, progress), higher=recipe.kind.metrics[recipe.metric].higher)
        return cls(records, (time.perf_counter() - start) / (len(rows.splits) * len(recipe.settings)))


@dataclass(frozen=True)
class Job:
    """A task, and the file that its records go to."""

    task: Task
    part: Path
    first_split: int

    @property
    def name(self) -> str:
        """Of the loss."""
        return self.task.recipe.candidate.name
