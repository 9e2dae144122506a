"""Train all settings of one loss on several splits at once, and measure them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossfit.compare.training import memory
from lossfit.compare.training.checkpoints import BestCheckpoints, gap_quantiles
from lossfit.compare.training.models.base import Models
from lossfit.compare.training.objective import Objective, by_model, log_probabilities
from lossfit.compare.training.optimizer import AdamW
from lossfit.compare.training.records import all_records
from lossfit.compare.training.task import Task, Tensors

Progress = Callable[[float], None]


def train(task: Task, progress: Progress = lambda share: None) -> list[dict[str, Any]]:
    """One record for each training, split by split: validation and test metrics, curves, and the best step.

    AdamW with a linearly falling learning rate, for 400 steps of 128 rows or 10 passes over the data, whichever is
    more. The weights at the best of 8 checkpoints are kept, by the metric on the validation rows. A model whose loss
    stops being finite keeps its last good checkpoint.

    What is pruned or stopped early in a split depends on the validation rows of that split alone: those of another one
    may be test rows here.

    The records of the candidates in ``recipe.free`` come after those of the loss itself.
    """
    metric = task.recipe.metric
    return train_for(task, [metric], progress)[metric]


def train_for(
    task: Task, wanted: list[str], progress: Progress = lambda share: None
) -> dict[str, list[dict[str, Any]]]:
    """The records of :func:`train` for each of several metrics, from one training: they differ in the checkpoints.

    With several metrics nothing is pruned or stopped early: it would suit one of them.

    Raises:
        InputError: the memory is too small for a single training, or the user's own network raises.
    """
    if len(wanted) > 1:
        task = task._replace(recipe=replace(task.recipe, limits=task.recipe.limits.to_the_end))
    return memory.divided(task, lambda part, share: together(part, wanted, share), progress)


def together(task: Task, wanted: list[str], progress: Progress) -> dict[str, list[dict[str, Any]]]:
    """All trainings of a task side by side."""
    data = Tensors(task.rows, task.recipe.device)
    best = _fit(task, data, wanted, progress)
    return {metric: all_records(best[metric], task.rows, data) for metric in wanted}


class Trained(NamedTuple):
    """One model at its best checkpoint.

    Attributes:
        state: a state dict of the task's network.
        step: of the checkpoint; 0 if no checkpoint was finite.
        log_p, labels: of the validation rows, (1, N, C) and (1, N): as :func:`log_probabilities` has them.
    """

    state: dict[str, Tensor]
    step: int
    log_p: Tensor
    labels: Tensor


def train_one(task: Task, progress: Progress = lambda share: None) -> Trained:
    """The model of a task of one split and one setting."""
    recipe, rows = task
    data = Tensors(rows, recipe.device)
    best = _fit(task, data, [recipe.metric], progress)[recipe.metric]
    with torch.no_grad():
        log_p = log_probabilities(recipe, best.model(data.x_validation, best.state).cpu())
    state = {name: value.cpu() for name, value in best.model.state_dict(0, 0, best.state).items()}
    return Trained(state, int(best.step), log_p, data.y_validation)


def _fit(task: Task, data: Tensors, wanted: list[str], progress: Progress) -> dict[str, BestCheckpoints]:
    """Train the settings of each split, and keep the best checkpoints by each of the metrics."""
    recipe, limits = task.recipe, task.recipe.limits
    settings = [recipe.settings] * len(data.x)
    generators = [torch.Generator().manual_seed(seed) for seed in task.rows.seeds]
    rows = len(data.x[0])
    model = recipe.model.build(len(recipe.settings), generators, recipe.device)
    batch, steps = min(limits.batch, rows), limits.steps_for(rows)
    kept = {metric: BestCheckpoints(model, task, metric) for metric in wanted}
    splits, trials = torch.arange(len(settings)), torch.arange(len(recipe.settings)).expand(len(settings), -1)
    objective = Objective(recipe, data.y, batch, data.weight, settings)
    optimizer = AdamW(model, settings, steps)
    order = _batches(generators, rows, batch)
    for step in range(1, steps + 1):
        at = next(order)[splits]
        each = splits.unsqueeze(1), at
        z = model(torch.stack([data.x[s][own] for s, own in zip(splits.tolist(), at, strict=True)]))
        loss = objective(z, data.y[each], None if data.weight is None else data.weight[each])
        optimizer.step(model.gradients(loss))
        checkpoint = step * limits.checkpoints // steps
        if checkpoint > (step - 1) * limits.checkpoints // steps:
            _check(model, data, kept, step, splits, trials)
            if checkpoint < limits.checkpoints:
                staying, going = kept[wanted[0]].survivors(checkpoint, splits, trials)
                if not len(staying):
                    break
                if going.shape != trials.shape:
                    model.keep(staying, going)
                    optimizer.keep(staying, going)
                    splits, trials = splits[staying], trials[staying.unsqueeze(1), going]
                    own = [[recipe.settings[t] for t in of] for of in trials.tolist()]
                    weight = None if data.weight is None else data.weight[splits]
                    objective = Objective(recipe, data.y[splits], batch, weight, own)
        progress(step / steps)
    progress(1.0)
    return kept


@torch.no_grad()
def _check(
    model: Models, data: Tensors, kept: dict[str, BestCheckpoints], step: int, splits: Tensor, trials: Tensor
) -> None:
    """A checkpoint: every metric's best models are brought up to date."""
    whole = len(splits) == len(data.y)
    z = model(data.x_validation if whole else data.x_validation[splits]).cpu()
    y = data.y_validation[splits].repeat_interleave(z.shape[2], 0)
    gaps = gap_quantiles(by_model(z), y) if data.y.ndim == 2 else None
    for best in kept.values():
        best.update(step, z, y, gaps, splits, trials)


def _batches(generators: list[torch.Generator], rows: int, batch: int) -> Iterator[Tensor]:
    """Row numbers (S, batch), through all rows of each split in an order of its own, again and again."""
    while True:
        order = torch.stack([torch.randperm(rows, generator=g) for g in generators])
        for start in range(0, rows - batch + 1, batch):
            yield order[:, start : start + batch]
