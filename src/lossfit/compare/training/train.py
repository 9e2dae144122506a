"""Train all settings of one loss on a repeat of the folds, and measure them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from lossfit.compare.errors import InputError, first_line, is_exhausted
from lossfit.compare.training.block import Block
from lossfit.compare.training.checkpoints import BestCheckpoints
from lossfit.compare.training.records import Records, records
from lossfit.compare.training.task import FoldRows, Recipe, Task, Tensors

Progress = Callable[[float], None]


def train(task: Task, progress: Progress = lambda share: None) -> dict[str, Records]:
    """What the trainings of a repeat come to, by the metrics of the recipe.

    AdamW with a linearly falling learning rate, for 400 steps of 128 rows or 10 passes over the rows, whichever is
    more. Start weights and batches depend on the training alone, not on the loss or the setting. At 8 checkpoints each
    choice measures its settings on the pooled rows of its models; the weights at the best one are kept. A model whose
    loss stops being finite keeps its last good checkpoint.

    What is pruned or stopped early for a fold depends on rows outside of that fold alone.

    Args:
        task: what to train, and on which rows.
        progress: called with the share that is done.

    Raises:
        InputError: the memory is too small for a single training, or the user's own network raises.
    """
    if len(task.recipe.metrics) > 1:
        task = task._replace(recipe=replace(task.recipe, limits=task.recipe.limits.to_the_end))
    trainings, settings = len(task.rows.pairs), len(task.recipe.settings)
    sizes = [(-(-trainings // parts), settings) for parts in (1, 2, 4, trainings)] + [(1, 1)]
    shown = 0.0

    def never_less(share: float) -> None:
        nonlocal shown
        shown = max(shown, share)
        progress(shown)

    told = ""
    for size in dict.fromkeys(sizes):
        try:
            return _together(task, size, never_less)
        except Exception as error:
            if not is_exhausted(error):
                raise
            told = first_line(error)
        gc.collect()  # what the error held is free only here
    raise InputError(_too_large(task, told)) from None


def train_whole(
    recipe: Recipe,
    features: np.ndarray,
    labels: np.ndarray,
    weight: np.ndarray | None,
    seed: int,
    steps: tuple[int, int],
    progress: Progress = lambda share: None,
) -> dict[str, torch.Tensor]:
    """A state dict of the recipe's network, trained on all rows with its only setting.

    Args:
        recipe: the loss, the setting and the network.
        features, labels, weight: of the rows.
        seed: of start weights and batches.
        steps: after how many steps of how many to end.
        progress: called with the share that is done.
    """
    none = np.array([], dtype=np.int64)
    every, matrices = np.arange(len(labels)), [(features, features[:0], features[:0])]
    rows = FoldRows(
        0, 0, [(0, 1)], [every], [(none, none)], matrices, [seed], labels, labels, labels, every, none, weight
    )
    block = Block(Task(recipe, rows), Tensors(rows, recipe.device), steps[1], range(1), range(1))
    block.advance(steps[0], lambda: progress(block.step / steps[0]))
    return {name: value.cpu() for name, value in block.model.state_dict(0, 0).items()}


def _together(task: Task, size: tuple[int, int], progress: Progress) -> dict[str, Records]:
    """All trainings in lockstep, in blocks of so many trainings and settings."""
    recipe, rows = task
    data = Tensors(rows, recipe.device)
    steps = recipe.limits.steps_for(min(map(len, data.x)))
    blocks = [
        Block(task, data, steps, trainings, settings)
        for trainings in _parts(len(rows.pairs), size[0])
        for settings in _parts(len(recipe.settings), size[1])
    ]
    best = {metric: BestCheckpoints(task, metric) for metric in recipe.metrics}
    done, total, working = 0, steps * len(blocks), blocks

    def advanced() -> None:
        nonlocal done
        done += 1
        progress(done / total)

    count = recipe.limits.checkpoints
    for checkpoint, step in enumerate((steps * c // count for c in range(1, count + 1)), 1):
        for block in working:
            block.advance(step, advanced)
        _check(step, recipe, data, working, best)
        if checkpoint < count:
            wanted = best[recipe.metrics[0]].survivors(checkpoint)
            working = [block for block in working if block.keep(wanted)]
            if not working:
                break
    progress(1.0)
    return {metric: records(task, data, blocks, best[metric]) for metric in recipe.metrics}


@torch.no_grad()
def _check(step: int, recipe: Recipe, data: Tensors, working: list[Block], best: dict[str, BestCheckpoints]) -> None:
    """A checkpoint: every choice measures what it still trains."""
    for one in best.values():
        one.begin(step)
    every = list(range(len(recipe.settings)))
    held_out, scores_each = data.held_out, data.held_out[..., 0].numel() * recipe.classes
    together = max(1, recipe.limits.scores // scores_each)
    for start in range(0, len(every), together):
        some = every[start : start + together]
        scores = {}
        for block in working:
            own = torch.tensor([t - block.columns.start for t in some if t in block.columns], dtype=torch.int64)
            z, trainings, trials = block.scores(held_out, own)
            for row, m in enumerate(trainings.tolist()):
                for column, t in enumerate(trials[row].tolist()):
                    scores[block.own[m], block.columns[t]] = z[row, :, column]
        for one in best.values():
            one.update(some, scores)
    for metric, one in best.items():
        improved = one.improved_models()
        for block in working:
            own_models = [(m, p, t) for m, p, t in improved if m in block.own and t in block.columns]
            block.keep_state(metric, own_models)


def _parts(count: int, size: int) -> list[range]:
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _too_large(task: Task, told: str) -> str:
    matrices, classes = task.rows.matrices[0], task.recipe.classes
    rows, width = sum(map(len, matrices)), matrices[0].shape[1]
    return (
        f"There is not enough memory for a repeat's trainings, on {rows:,} rows of {width:,} features with {classes:,} "
        f"classes. Let there be less by --trials, --max-rows, --workers 1 or a smaller --model. ({told})"
    )
