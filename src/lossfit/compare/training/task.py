"""What is trained at once: a loss with its settings, and the rows that it is trained on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lossfit import registry
from lossfit.compare.candidates.candidates import Candidate, Setting
from lossfit.compare.data.splits import Split
from lossfit.compare.features.make import Matrices
from lossfit.compare.scoring.tasks import MULTI_LABEL, SINGLE_LABEL, Kind
from lossfit.compare.training.models.architecture import Architecture


@dataclass(frozen=True)
class Limits:
    """How long models train.

    Attributes:
        batch: rows of a step.
        steps, epochs: a training has so many steps, or passes over its rows, whichever is more.
        checkpoints: how often a model is measured.
        rungs: the checkpoints at which the worse half of a split's settings is pruned; none for no pruning.
        patience: checkpoints without an improvement of any of its models after which a split ends; 0 for never.
        numbers, splits: as many numbers, in features and scores, and splits are trained side by side at most.
    """

    batch: int = 128
    steps: int = 400
    epochs: int = 10
    checkpoints: int = 8
    rungs: tuple[int, ...] = (2, 4)
    patience: int = 3
    numbers: int = 1 << 27
    splits: int = 10

    def steps_for(self, rows: int) -> int:
        """Steps of a training on so many rows."""
        return max(self.steps, self.epochs * (rows // min(self.batch, rows)))

    @property
    def to_the_end(self) -> Limits:
        """The same without pruning and stopping."""
        return replace(self, rungs=(), patience=0)


@dataclass(frozen=True)
class Recipe:
    """How models are trained; all of it is small.

    Attributes:
        candidate, settings: a loss and the settings that it is tried with in every split.
        classes: how many there are.
        model: the network.
        metric: what the best checkpoint is chosen by, on the validation rows.
        free: what else is measured of the same models, after tuning them on the validation rows.
        limits: how long they train.
        device: where they train; what is measured of them is measured on the CPU.
    """

    candidate: Candidate
    settings: list[Setting]
    classes: int
    model: Architecture
    metric: str
    free: list[Candidate] = field(default_factory=list)
    limits: Limits = Limits()
    device: str = "cpu"

    @property
    def kind(self) -> Kind:
        """Whether one class is right, or any number of them."""
        return MULTI_LABEL if registry.get(self.candidate.loss).family == MULTI_LABEL.family else SINGLE_LABEL

    @property
    def apart(self) -> bool:
        """Whether the settings of a split know nothing of each other."""
        return not (self.limits.rungs or self.limits.patience)


@dataclass(frozen=True)
class SplitRows:
    """What models are trained on; all losses have it in common.

    Attributes:
        splits, matrices: S splits of the rows, and their features.
        seeds: one for each split; with the split they fix weights and batches.
        labels: the true class of every row (N,), or which classes are right (N, C).
        weight: what each row counts (N,), in training and in the metrics.
        fixed_test: whether the test rows are the same in all splits.
    """

    splits: list[Split]
    matrices: list[Matrices]
    seeds: list[int]
    labels: np.ndarray
    weight: np.ndarray | None = None
    fixed_test: bool = False

    def weights(self, part: Literal["train", "validation", "test"]) -> Tensor | None:
        """What the rows of a part count in each split (S, N), if they do not count the same."""
        if self.weight is None:
            return None
        return torch.from_numpy(np.stack([self.weight[getattr(split, part)] for split in self.splits])).float()


class Task(NamedTuple):
    """A recipe and the rows to apply it to."""

    recipe: Recipe
    rows: SplitRows

    def part(self, splits: range, settings: range) -> Task:
        """Some of the splits, with some of the settings."""
        own = slice(splits.start, splits.stop)
        rows = replace(
            self.rows,
            splits=self.rows.splits[own],
            matrices=self.rows.matrices[own],
            seeds=self.rows.seeds[own],
        )
        return Task(replace(self.recipe, settings=self.recipe.settings[settings.start : settings.stop]), rows)


class Tensors:
    """Features and labels of the splits. The training rows stay where they are; other parts are stacked (S, N, D)."""

    def __init__(self, rows: SplitRows, device: str) -> None:
        train, validation, test = zip(*rows.matrices, strict=True)
        # What another process shares may not be written to, of which torch warns.
        copies = (part if part.flags.writeable else part.copy() for part in train)
        self.x = [torch.from_numpy(part).to(device) for part in copies]
        parts = (torch.from_numpy(np.stack(part)) for part in (validation, test))
        self.x_validation, self.x_test = (part.to(device) for part in parts)
        self.y = torch.from_numpy(np.stack([s.seen[s.train] for s in rows.splits])).to(device)
        self.y_validation = torch.from_numpy(np.stack([s.seen[s.validation] for s in rows.splits]))
        self.y_test = torch.from_numpy(np.stack([rows.labels[s.test] for s in rows.splits]))
        weight = rows.weights("train")
        self.weight = None if weight is None else weight.to(device)
