"""Trainings side by side, between two checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from lossfit.compare.training.models.base import Models
from lossfit.compare.training.objective import Objective
from lossfit.compare.training.optimizer import AdamW
from lossfit.compare.training.task import Task, Tensors

SIDES = 2
"""Each training leaves out two folds, and may be chosen by either."""
_NUMBERS = 1 << 21


class Block:
    """Some trainings of a repeat with some settings.

    Attributes:
        start, own: the numbers of its trainings, and of its settings, as ranges.
        trainings, trials: the places in the block of the trainings that go on (M',), and of the settings of each
            (M', T').
    """

    def __init__(self, task: Task, data: Tensors, steps: int, trainings: range, settings: range) -> None:
        recipe, rows = task
        self.recipe, self.data, self.steps = recipe, data, steps
        self.own, self.columns = trainings, settings
        self.settings = recipe.settings[settings.start : settings.stop]
        generators = [torch.Generator().manual_seed(rows.seeds[m]) for m in trainings]
        self.model: Models = recipe.model.build(len(settings), generators, recipe.device)
        self.batch = min(recipe.limits.batch, *(len(own) for own in data.x))
        self.order = [_batches(g, len(data.x[m]), self.batch) for m, g in zip(trainings, generators, strict=True)]
        self.trainings = torch.arange(len(trainings))
        self.trials = torch.arange(len(settings)).expand(len(trainings), -1)
        self.optimizer = AdamW(self.model, self._of_trials(), steps)
        self.objective = self._objective()
        self.step = 0
        # By metric, each model at the best checkpoint of either side: (M, 2, T, ...), in the view by model.
        self.kept: dict[str, list[Tensor]] = {}
        for metric in recipe.metrics:
            views = (self.model.per_model(value, i) for i, value in enumerate(self.model.state))
            self.kept[metric] = [view.unsqueeze(1).repeat(1, SIDES, *[1] * (view.ndim - 1)) for view in views]

    def advance(self, step: int, progress: Callable[[], None]) -> None:
        """Train up to a step."""
        data = self.data
        while self.step < step:
            at = [next(self.order[m]) for m in self.trainings.tolist()]
            each = [(self.own[m], rows) for m, rows in zip(self.trainings.tolist(), at, strict=True)]
            z = self.model(torch.stack([data.x[m][rows] for m, rows in each]))
            y = torch.stack([data.y[m][rows] for m, rows in each])
            weight = None if data.weight is None else torch.stack([data.weight[m][rows] for m, rows in each])
            self.optimizer.step(self.model.gradients(self.objective(z, y, weight)))
            self.step += 1
            progress()

    def scores(self, held_out: Tensor, trials: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the models in training, (M'', N, T'', C), with their trainings (M'',) and settings (M'', T'').

        Args:
            held_out: features of all trainings of the repeat (M, N, D).
            trials: only these settings, by their places in the block.
        """
        state, trainings, settings = None, self.trainings, self.trials
        if trials is not None and len(trials) < self.trials.shape[1]:
            there = torch.isin(self.trials, trials)
            full = there.sum(1) == len(trials)
            columns = there[full].nonzero()[:, 1].view(-1, len(trials))
            which = full.nonzero()[:, 0]
            state = [self.model.pick(v, i, which, columns) for i, v in enumerate(self.model.state)]
            trainings, settings = self.trainings[full], self.trials[full].gather(1, columns)
        if not len(trainings):
            return held_out.new_zeros(0, held_out.shape[1], 0, self.recipe.classes), trainings, settings
        rows = held_out[trainings + self.own.start]
        return self._evaluated(rows, state, settings.shape[1]), trainings, settings

    def keep_state(self, metric: str, which: Sequence[tuple[int, int, int]]) -> None:
        """Keep models as they are now: those of a training (by its place in the repeat), side and setting."""
        found = [(m - self.own.start, side, t - self.columns.start) for m, side, t in which]
        if not found:
            return
        m, side, t = (torch.tensor(part) for part in zip(*found, strict=True))
        row = torch.searchsorted(self.trainings, m)
        column = (self.trials[row] == t.unsqueeze(1)).int().argmax(1)
        for i, (kept, value) in enumerate(zip(self.kept[metric], self.model.state, strict=True)):
            kept[m, side, t] = self.model.per_model(value, i)[row, column]

    @torch.no_grad()
    def at_best(self, metric: str, training: int, side: int, setting: int, rows: Tensor) -> Tensor:
        """Logits (N, C) of one model at its best checkpoint, of features (N, D)."""
        m, t = training - self.own.start, setting - self.columns.start
        state = self.kept_state(metric, m, side, t)
        found: Tensor = self._evaluated(rows.unsqueeze(0), state, 1)[0, :, 0]
        return found

    def kept_state(self, metric: str, m: int, side: int, t: int) -> list[Tensor]:
        """The state of one model, by its places in the block."""
        each = enumerate(self.kept[metric])
        return [self.model.per_model(kept[m : m + 1, side, t : t + 1], i).contiguous() for i, kept in each]

    def keep(self, wanted: Tensor) -> bool:
        """Go on with the wanted models (M, T) of the repeat; whether any is left.

        Trainings stay of one size: where one has fewer wanted settings than another, some that are not wanted stay.
        """
        mine = wanted[self.own.start : self.own.stop, self.columns.start : self.columns.stop]
        own = mine[self.trainings].gather(1, self.trials)
        staying = own.any(1).nonzero()[:, 0]
        if not len(staying):
            return False
        own = own[staying]
        count = int(own.sum(1).max())
        if len(staying) == len(self.trainings) and count == self.trials.shape[1]:
            return True
        going = own.int().argsort(stable=True, dim=1, descending=True)[:, :count].sort(1).values
        self.model.keep(staying, going)
        self.optimizer.keep(staying, going)
        self.trainings, self.trials = self.trainings[staying], self.trials[staying].gather(1, going)
        self.objective = self._objective()
        return True

    def _evaluated(self, rows: Tensor, state: list[Tensor] | None, settings: int) -> Tensor:
        """Logits (M, N, T, C) on the CPU, of so many rows at a time as caches and memory suit."""
        width = max(self.recipe.model.hidden, self.recipe.classes)
        size = max(64, _NUMBERS // (len(rows) * settings * width))
        return torch.cat([self.model(part, state).cpu() for part in rows.split(size, 1)], 1)

    def _of_trials(self) -> list[list[dict[str, float]]]:
        return [[self.settings[t] for t in of] for of in self.trials.tolist()]

    def _objective(self) -> Objective:
        own = [self.own[m] for m in self.trainings.tolist()]
        weight = None if self.data.weight is None else [self.data.weight[m] for m in own]
        return Objective(self.recipe, [self.data.y[m] for m in own], self.batch, weight, self._of_trials())


def _batches(generator: torch.Generator, rows: int, batch: int) -> Iterator[Tensor]:
    """Row numbers (batch,), through all rows in an order that is new for each pass."""
    while True:
        order = torch.randperm(rows, generator=generator)
        for start in range(0, rows - batch + 1, batch):
            yield order[start : start + batch]
