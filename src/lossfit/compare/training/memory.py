"""When memory is short: a task is trained in parts, and what is too large by itself is told."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from lossfit.compare.errors import InputError, first_line, is_exhausted
from lossfit.compare.training.task import Task

Records = dict[str, list[dict[str, Any]]]
"""Of each metric that checkpoints are chosen by."""
Together = Callable[[Task, Callable[[float], None]], Records]


def divided(task: Task, together: Together, progress: Callable[[float], None]) -> Records:
    """The records of a task, trained in as many parts as memory needs.

    A part that does not fit is halved: its splits, and when one is left its settings, if they know nothing of each
    other. So the records are the same. Models that are not stacked begin as small as can be.

    Args:
        task: what to train.
        together: trains a task at once.
        progress: called with the share that is done.

    Raises:
        InputError: the smallest part does not fit.
    """
    splits, settings = range(len(task.rows.splits)), range(len(task.recipe.settings))
    waiting = [(splits, settings)]
    if not task.recipe.model.stacked:
        apart = [settings[t : t + 1] for t in settings] if task.recipe.apart else [settings]
        waiting = [(splits[s : s + 1], of) for s in splits for of in apart]
    total = len(splits) * len(settings)
    done, shown = 0, 0.0
    found: list[Records] = []
    while waiting:
        rows, columns = waiting.pop(0)
        size = len(rows) * len(columns)

        def share(part: float, done: int = done, size: int = size) -> None:
            nonlocal shown
            shown = max(shown, (done + part * size) / total)
            progress(shown)

        records, told = None, ""
        try:
            records = together(task.part(rows, columns), share)
        except Exception as error:
            if not is_exhausted(error):
                raise
            told = first_line(error)
        if records is None:  # what the error held is free only here
            gc.collect()
            halves = _halves(task, rows, columns)
            if not halves:
                raise InputError(_too_large(task, rows[0], told)) from None
            waiting[:0] = halves
            continue
        done += size
        for of_metric in records.values():
            for record in of_metric:
                record["split"] += rows[0]
                record["trial"] += columns[0]
        found.append(records)
    return {metric: _in_order([r for records in found for r in records[metric]]) for metric in found[0]}


def _halves(task: Task, splits: range, settings: range) -> list[tuple[range, range]]:
    if len(splits) > 1:
        middle = (len(splits) + 1) // 2
        return [(splits[:middle], settings), (splits[middle:], settings)]
    if len(settings) > 1 and task.recipe.apart:
        middle = (len(settings) + 1) // 2
        return [(splits, settings[:middle]), (splits, settings[middle:])]
    return []


def _in_order(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Loss by loss, as they come from a single part."""
    losses = list(dict.fromkeys(record["loss"] for record in records))
    return sorted(records, key=lambda r: (losses.index(r["loss"]), r["split"], r["trial"]))


def _too_large(task: Task, split: int, told: str) -> str:
    rows = sum(len(part) for part in task.rows.matrices[split])
    classes = task.recipe.classes
    width, trials = task.rows.matrices[split][0].shape[1], len(task.recipe.settings)
    what = "a single training" if trials == 1 or task.recipe.apart else f"the {trials} trainings of one split"
    fewer = "" if trials == 1 or task.recipe.apart else "--trials, "
    return (
        f"There is not enough memory for {what}, on {rows:,} rows of {width:,} features with {classes:,} classes. "
        f"Let there be less by {fewer}--max-rows, --workers 1 or a smaller --model. ({told})"
    )
