"""What the solvers share: the objective, what they return, and the watch over held-out rows."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lossfit.integrations.sklearn import losses
from lossfit.integrations.sklearn.losses import Rows
from lossfit.integrations.sklearn.network import Network
from lossfit.losses.base import Loss

LEAST = 1e-4  # by how much a held-out loss must fall to be better


@dataclass(frozen=True)
class Objective:
    """The weighted mean of the loss plus alpha / 2 times the sum of squared weights. The features are standardised."""

    loss: Loss
    logits: Callable[[Tensor], Tensor]
    alpha: float

    def __call__(self, network: Network, rows: Rows, divisor: float | None = None) -> Tensor:
        return self.mean(network, rows, divisor) + network.penalty(self.alpha)

    def mean(self, network: Network, rows: Rows, divisor: float | None = None) -> Tensor:
        return losses.value(self.loss, self.logits(network.scores(rows.x)), rows, divisor)


@dataclass
class Course:
    """How the training went: values of the objective, and of the loss on held-out rows, after each iteration."""

    curve: list[float] = field(default_factory=list)
    validation_curve: list[float] = field(default_factory=list)
    trouble: str = ""


@dataclass
class Watch:
    """Looks at the loss on held-out rows, and keeps the best weights.

    Args:
        rows: held out.
        patience: how many iterations it may go on without getting better by more than 1e-4.
    """

    objective: Objective
    network: Network
    rows: Rows
    patience: int
    curve: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.best = self.mark = math.inf
        self.since = 0
        self.kept = copy.deepcopy(self.network.state_dict())

    @torch.no_grad()
    def is_over(self) -> bool:
        """Whether to stop; called after each iteration."""
        value = self.objective.mean(self.network, self.rows).item()
        self.curve.append(value)
        if value < self.best:
            self.best, self.kept = value, copy.deepcopy(self.network.state_dict())
        self.since = 0 if value < self.mark - LEAST else self.since + 1
        self.mark = min(self.mark, value) if self.since == 0 else self.mark
        return self.since >= self.patience

    def restore(self) -> None:
        self.network.load_state_dict(self.kept)
