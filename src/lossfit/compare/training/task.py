"""What is trained at once: a loss with its settings, and the rows of one repeat of the folds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lossfit import registry
from lossfit.compare.candidates.candidates import Candidate, Setting
from lossfit.compare.features.make import Matrices
from lossfit.compare.scoring.tasks import MULTI_LABEL, SINGLE_LABEL, Kind
from lossfit.compare.training.models.architecture import Architecture


@dataclass(frozen=True)
class Limits:
    """How long models train, and how many of them at once.

    Attributes:
        batch: rows of a step.
        steps, epochs: a training has so many steps, or passes over its rows, whichever is more.
        checkpoints: how often a model is measured.
        rungs: the checkpoints at which the worse half of the settings is pruned; none for no pruning.
        patience: checkpoints without an improvement after which trainings end; 0 for never.
        scores: as many scores are looked at together, at most.
    """

    batch: int = 128
    steps: int = 400
    epochs: int = 10
    checkpoints: int = 8
    rungs: tuple[int, ...] = (2, 4)
    patience: int = 3
    scores: int = 1 << 26

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
        candidate, settings: a loss and the settings that it is tried with in every training.
        classes: how many there are.
        model: the network.
        metrics: what checkpoints and settings are chosen by, each for itself. With several of them nothing is pruned or
            stopped early: it would suit one of them.
        limits: how long they train.
        device: where they train; what is measured of them is measured on the CPU.
    """

    candidate: Candidate
    settings: list[Setting]
    classes: int
    model: Architecture
    metrics: tuple[str, ...]
    limits: Limits = field(default_factory=Limits)
    device: str = "cpu"

    @property
    def kind(self) -> Kind:
        """Whether one class is right, or any number of them."""
        return MULTI_LABEL if registry.get(self.candidate.loss).family == MULTI_LABEL.family else SINGLE_LABEL


class Piece(NamedTuple):
    """Some rows that a model did not train on.

    Attributes:
        training: the number of the model's training.
        at: where they are among the rows that the training holds out, or among the given rows to test on.
        rows: which rows of the data.
    """

    training: int
    at: slice
    rows: np.ndarray


class Use(NamedTuple):
    """A choice, and what is tested with it: in general, one for each fold.

    Attributes:
        models: the trainings, and in which of the two places each keeps its best checkpoint for this choice.
        validation: what it is made on, model by model.
        test: what it is tested on, by each of the models.
        passes: the pass of each of ``test``.
        places: which of the tested rows they are (n,).
    """

    models: list[tuple[int, int]]
    validation: list[Piece]
    test: list[Piece]
    passes: list[int]
    places: np.ndarray


@dataclass(frozen=True)
class FoldRows:
    """One repeat of the folds: what models are trained, chosen and tested on. All losses have it in common.

    Attributes:
        repeat: its number.
        count: K folds.
        pairs: the folds that each training leaves out.
        train: the rows of each training.
        held_out: for each training, the rows of the first fold that it leaves out, and of the second.
        matrices: their features, and those of given rows to test on.
        seeds: one for each training; with it they fix weights and batches.
        labels: the true class of every row of the data (N,), or which classes are right (N, C).
        trained, chosen: the labels to train and to choose on.
        rows: the rows that are dealt out (n,), ascending.
        test: given rows to test on; empty if every row is tested out of its fold.
        weight: what each row of the data counts (N,), in training and in the metrics.
    """

    repeat: int
    count: int
    pairs: list[tuple[int, int]]
    train: list[np.ndarray]
    held_out: list[tuple[np.ndarray, np.ndarray]]
    matrices: list[Matrices]
    seeds: list[int]
    labels: np.ndarray
    trained: np.ndarray
    chosen: np.ndarray
    rows: np.ndarray
    test: np.ndarray
    weight: np.ndarray | None = None

    @cached_property
    def uses(self) -> list[Use]:
        """The choices: for each fold k by the models that leave it out, on the other fold that each of them leaves out.

        Where the rows to test on are given there is one, on all rows that models leave out, and each model is a pass.
        """
        if len(self.test):
            pieces = [self._piece(m, side) for m in range(len(self.pairs)) for side in range(2)]
            every = slice(0, len(self.test))
            test = [Piece(m, every, self.test) for m in range(len(self.pairs))]
            models = [(m, 0) for m in range(len(self.pairs))]
            return [Use(models, pieces, test, list(range(len(test))), np.arange(len(self.test)))]
        found = []
        for k in range(self.count):
            own = [(m, pair.index(k)) for m, pair in enumerate(self.pairs) if k in pair]
            others = [self.pairs[m][1 - side] for m, side in own]
            validation = [self._piece(m, 1 - side) for m, side in own]
            test = [self._piece(m, side) for m, side in own]
            passes = [(other - k) % self.count - 1 for other in others]
            found.append(Use(own, validation, test, passes, np.searchsorted(self.rows, test[0].rows)))
        return found

    @property
    def passes(self) -> int:
        """How often each tested row is tested."""
        return len(self.pairs) if len(self.test) else self.count - 1

    @property
    def tested(self) -> np.ndarray:
        """The rows that are tested."""
        return self.test if len(self.test) else self.rows

    def _piece(self, training: int, side: int) -> Piece:
        first, second = self.held_out[training]
        at = slice(len(first), len(first) + len(second)) if side else slice(0, len(first))
        return Piece(training, at, second if side else first)


class Task(NamedTuple):
    """A recipe and the rows to apply it to."""

    recipe: Recipe
    rows: FoldRows


class Tensors:
    """Features and labels of the trainings. Rows to train on stay where they are; others are stacked (M, N, D).

    Attributes:
        x, y, weight: features, labels and weights of the rows to train on, training by training.
        held_out, test: features; held-out rows are filled up with rows of zeros.
    """

    def __init__(self, rows: FoldRows, device: str) -> None:
        train, held_out, test = zip(*rows.matrices, strict=True)
        # What another process shares may not be written to, of which torch warns.
        copies = (part if part.flags.writeable else part.copy() for part in train)
        self.x = [torch.from_numpy(part).to(device) for part in copies]
        self.y = [torch.from_numpy(rows.trained[own]).to(device) for own in rows.train]
        self.weight: list[Tensor] | None = None
        if rows.weight is not None:
            self.weight = [torch.from_numpy(rows.weight[own]).float().to(device) for own in rows.train]
        longest = max(len(part) for part in held_out)
        filled = np.zeros((len(held_out), longest, held_out[0].shape[1]), dtype=held_out[0].dtype)
        for own, part in zip(filled, held_out, strict=True):
            own[: len(part)] = part
        self.held_out = torch.from_numpy(filled).to(device)
        self.test = torch.from_numpy(np.stack(test)).to(device)
