"""The best checkpoint of each setting by each choice, and which models train on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lossfit import gap
from lossfit.compare.scoring.tasks import SINGLE_LABEL
from lossfit.compare.training.objective import by_model, log_probabilities
from lossfit.compare.training.task import Piece, Task, Use

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the gap on the validation rows, kept at each checkpoint."""

Scores = Mapping[tuple[int, int], Tensor]
"""Logits (N, C) by training and setting."""


class BestCheckpoints:
    """What each choice knows of each setting, by one metric. A choice is a use of the folds (U of them).

    Attributes:
        value, step: of the best checkpoint (U, T), the earlier one if they tie; the value is negated where less is
            better, -inf if there is none.
        reached: the step of the last checkpoint (U, T).
        pruned: which settings were given up for better ones (U, T).
        stopped: which choices ended because nothing improved (U,).
        steps: of the checkpoints so far.
        values, gaps: of each checkpoint (U, T, 8), and the gap's quantiles (U, T, 8, 5); NaN where there are none.
        stale: checkpoints since a setting improved (U,).
    """

    def __init__(self, task: Task, metric: str) -> None:
        self.recipe, self.rows = task
        self.name, self.metric = metric, self.recipe.kind.choices()[metric]
        self.sign = 1 if self.metric.higher else -1
        shape = len(self.rows.uses), len(self.recipe.settings)
        self.value = torch.full(shape, -torch.inf, dtype=torch.float64)
        self.step, self.reached = (torch.zeros(shape, dtype=torch.int64) for _ in range(2))
        self.pruned = torch.zeros(shape, dtype=torch.bool)
        self.stopped = torch.zeros(shape[0], dtype=torch.bool)
        self.steps: list[int] = []
        self.values = torch.full((*shape, self.recipe.limits.checkpoints), torch.nan, dtype=torch.float64)
        self.gaps = torch.full((*self.values.shape, len(QUANTILES)), torch.nan)
        self.stale = torch.zeros(shape[0], dtype=torch.int64)
        self.improved = torch.zeros(shape, dtype=torch.bool)

    @property
    def alive(self) -> Tensor:
        """The settings that each choice still trains (U, T)."""
        return ~self.pruned & ~self.stopped.unsqueeze(1)

    def update(self, settings: list[int], scores: Scores) -> None:
        """Measure some settings at the checkpoint that was begun last."""
        at = len(self.steps) - 1
        for u, use in enumerate(self.rows.uses):
            own = [t for t in settings if self.alive[u, t]]
            if not own:
                continue
            z = torch.stack([pooled(use.validation, scores, t) for t in own], 1).unsqueeze(0)  # (1, N, T', C)
            y, weight = self.labels(use), self.weights(use)
            y = y.expand(len(own), *y.shape)
            if self.metric.needs_probabilities:
                log_p = log_probabilities(self.recipe, z, [[self.recipe.settings[t] for t in own]])
            else:
                log_p = by_model(z)
            finite = z.isfinite().all(3).all(1)[0]
            value = torch.where(finite, self.metric.weighted(weight).function(log_p, y), torch.nan)
            self.values[u, own, at] = value
            self.reached[u, own] = self.steps[-1]
            if self.recipe.kind is SINGLE_LABEL:
                self.gaps[u, own, at] = gap_quantiles(by_model(z), y).to(self.gaps)
            better = finite & (self.sign * value > self.value[u, own])
            self.value[u, own] = torch.where(better, self.sign * value, self.value[u, own])
            self.step[u, own] = torch.where(better, self.steps[-1], self.step[u, own])
            self.improved[u, own] = better

    def begin(self, step: int) -> None:
        """A checkpoint."""
        self.steps.append(step)
        self.improved.zero_()

    def improved_models(self) -> list[tuple[int, int, int]]:
        """The models that are at their best now: as :class:`Use` has it, and the setting."""
        found = []
        for u, t in self.improved.nonzero().tolist():
            found += [(training, place, t) for training, place in self.rows.uses[u].models]
        return found

    def survivors(self, checkpoint: int) -> Tensor:
        """Which models go on after a checkpoint (M, T), of the trainings of the repeat.

        The worse half of the settings of a choice is pruned, by what it knows alone. A training goes on with what
        either of its choices wants.
        """
        limits = self.recipe.limits
        self.stale = torch.where(self.improved.any(1), 0, self.stale + 1)
        if limits.patience:
            self.stopped |= self.stale >= limits.patience
        if checkpoint in limits.rungs:
            for u in (~self.stopped).nonzero()[:, 0].tolist():
                own = (~self.pruned[u]).nonzero()[:, 0]
                if len(own) > 1:
                    ranked = own[self.value[u, own].argsort(stable=True, descending=True)]
                    self.pruned[u, ranked[len(own) // 2 :]] = True
        wanted = torch.zeros(len(self.rows.pairs), self.pruned.shape[1], dtype=torch.bool)
        for u, use in enumerate(self.rows.uses):
            for piece in use.validation:
                wanted[piece.training] |= self.alive[u]
        return wanted

    def chosen(self, u: int, values: Tensor) -> int | None:
        """The setting of a choice that is best by these values (T,), the first if they tie; of the pruned ones only if
        all others failed. None if all failed.
        """
        whole = torch.where(self.pruned[u], -torch.inf, values)
        ranked = whole if whole.max() > -torch.inf else values
        return int(np.argmax(ranked.numpy())) if ranked.max() > -torch.inf else None

    def labels(self, use: Use) -> Tensor:
        """Those that a choice is made by (N,) or (N, C)."""
        return torch.from_numpy(np.concatenate([self.rows.chosen[piece.rows] for piece in use.validation]))

    def weights(self, use: Use) -> Tensor | None:
        """What these rows count (1, N), if they do not count the same."""
        if self.rows.weight is None:
            return None
        found = np.concatenate([self.rows.weight[piece.rows] for piece in use.validation])
        return torch.from_numpy(found).float().unsqueeze(0)


def pooled(pieces: list[Piece], scores: Scores, setting: int) -> Tensor:
    """The logits of rows that several models score (N, C)."""
    return torch.cat([scores[piece.training, setting][piece.at] for piece in pieces])


def gap_quantiles(z: Tensor, y: Tensor) -> Tensor:
    """Of the log-odds of the target, over the rows of each model: logits (M, N, C) and labels (M, N) to (M, 5).

    Each is the value of a row, the nearest one in rank. NaN where a model's scores are not finite.
    """
    odds = gap(z.flatten(0, 1), y.flatten()).log_odds.view(y.shape).sort(1).values
    ranks = [round(q * (y.shape[1] - 1)) for q in QUANTILES]
    return torch.where(z.isfinite().all(2).all(1, keepdim=True), odds[:, ranks], torch.nan)
