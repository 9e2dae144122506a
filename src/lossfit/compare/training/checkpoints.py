"""The best checkpoint of each model, and which models train on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lossfit import gap
from lossfit.compare.training.models.base import Models
from lossfit.compare.training.objective import by_model, log_probabilities
from lossfit.compare.training.task import Task

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the gap on the validation rows, kept at each checkpoint."""


class BestCheckpoints:
    """The weights of each model at its best checkpoint, the earlier one if they tie; and how it came there.

    Attributes:
        value, step: of the best checkpoint (S, T); the value is negated where less is better, -inf if there is none.
        reached: the step of the last checkpoint (S, T).
        pruned, stopped: how the training ended, if before its time (S, T).
        steps: of the checkpoints so far.
        values, gaps: of each checkpoint (S, T, 8), and the gap's quantiles (S, T, 8, 5); NaN where there are none.
        stale: checkpoints since a model of the split improved (S,).
    """

    def __init__(self, model: Models, task: Task, metric: str) -> None:
        recipe, rows = task
        self.model, self.recipe = model, recipe
        self.metric, self.weight = recipe.kind.metrics[metric], rows.weights("validation")
        self.sign = 1 if self.metric.higher else -1
        shape = len(rows.splits), len(recipe.settings)
        self.value = torch.full(shape, -torch.inf, dtype=torch.float64)
        self.step, self.reached = (torch.zeros(shape, dtype=torch.int64) for _ in range(2))
        self.pruned, self.stopped = (torch.zeros(shape, dtype=torch.bool) for _ in range(2))
        self.steps: list[int] = []
        self.values = torch.full((*shape, recipe.limits.checkpoints), torch.nan, dtype=torch.float64)
        self.gaps = torch.full((*shape, recipe.limits.checkpoints, len(QUANTILES)), torch.nan)
        self.stale = torch.zeros(shape[0], dtype=torch.int64)
        self.state = [value.clone() for value in model.state]

    def update(self, step: int, z: Tensor, y: Tensor, gaps: Tensor | None, splits: Tensor, trials: Tensor) -> None:
        """A checkpoint of the models in training: of the splits (S',) the settings (S', T').

        Args:
            step: of the checkpoint.
            z: logits (S', N, T', C).
            y: labels of the validation rows by model, (S' T', N).
            gaps: (S' T', 5).
            splits, trials: which models they are.
        """
        each = splits.unsqueeze(1), trials
        settings = [[self.recipe.settings[t] for t in of] for of in trials.tolist()]
        log_p = log_probabilities(self.recipe, z, settings) if self.metric.needs_probabilities else by_model(z)
        metric = self.metric.weighted(None if self.weight is None else self.weight[splits])
        finite = z.isfinite().all(3).all(1)
        value = torch.where(finite, metric.function(log_p, y).view(trials.shape), torch.nan)
        at = len(self.steps)
        self.steps.append(step)
        self.reached[each] = step
        self.values[(*each, at)] = value
        if gaps is not None:
            self.gaps[(*each, at)] = gaps.view(*trials.shape, -1).to(self.gaps)
        better = finite & (self.sign * value > self.value[each])
        self.value[each] = torch.where(better, self.sign * value, self.value[each])
        self.step[each] = torch.where(better, step, self.step[each])
        self.stale[splits] = torch.where(better.any(1), 0, self.stale[splits] + 1)
        row, column = better.nonzero(as_tuple=True)
        per_model = self.model.per_model
        for i, (kept, value) in enumerate(zip(self.state, self.model.state, strict=True)):
            per_model(kept, i)[splits[row], trials[row, column]] = per_model(value, i)[row, column]

    def chosen(self, values: Tensor) -> Tensor:
        """The setting of each split that is best by these values (S, T), the first if they tie; of the pruned ones only
        if all others failed (S,).
        """
        whole = torch.where(self.pruned, -torch.inf, values)
        ranked = torch.where((whole == -torch.inf).all(1, keepdim=True), values, whole)
        return torch.from_numpy(np.argmax(ranked.numpy(), 1))

    def survivors(self, checkpoint: int, splits: Tensor, trials: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the models in training go on: rows (S'',) of ``splits``, and of each columns (S'', T'') of
        ``trials``.
        """
        staying = torch.arange(len(splits))
        if self.recipe.limits.patience:
            ends = self.stale[splits] >= self.recipe.limits.patience
            self.stopped[splits[ends].unsqueeze(1), trials[ends]] = True
            staying = staying[~ends]
        count = trials.shape[1]
        if checkpoint not in self.recipe.limits.rungs or count == 1:
            return staying, torch.arange(count).expand(len(staying), -1)
        each = splits[staying].unsqueeze(1), trials[staying]
        ranked = self.value[each].argsort(stable=True, dim=1, descending=True)
        going = ranked[:, : count // 2].sort(1).values
        self.pruned[each] = True
        self.pruned[each[0], each[1].gather(1, going)] = False
        return staying, going


def gap_quantiles(z: Tensor, y: Tensor) -> Tensor:
    """Of the log-odds of the target, over the rows of each model: logits (M, N, C) and labels (M, N) to (M, 5).

    Each is the value of a row, the nearest one in rank. NaN where a model's scores are not finite.
    """
    odds = gap(z.flatten(0, 1), y.flatten()).log_odds.view(y.shape).sort(1).values
    ranks = [round(q * (y.shape[1] - 1)) for q in QUANTILES]
    return torch.where(z.isfinite().all(2).all(1, keepdim=True), odds[:, ranks], torch.nan)
