"""What a training minimises: a loss with its hyper-parameters, priors and weights, for many models at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lossfit import registry
from lossfit.compare.candidates.candidates import Candidate, Setting, make_loss
from lossfit.compare.scoring.tasks import MULTI_LABEL
from lossfit.compare.training.task import Recipe
from lossfit.losses.metric.base import MetricLoss
from lossfit.losses.single_label.base import SingleLabelLoss

_LEAST = 1e-12


class Objective:
    """The sum over all models of the mean of their loss over a batch.

    Args:
        recipe: the loss and its settings.
        y: the labels of all rows of each training.
        batch: rows of a step.
        row_weight: what these rows count.
        settings: of each training, if not those of the recipe.
    """

    def __init__(
        self,
        recipe: Recipe,
        y: Sequence[Tensor] | Tensor,
        batch: int,
        row_weight: Sequence[Tensor] | Tensor | None = None,
        settings: list[list[Setting]] | None = None,
    ) -> None:
        self.settings = settings or [recipe.settings] * len(y)
        device = y[0].device
        self.total: int | Tensor = batch
        if row_weight is not None:
            self.total = batch * torch.stack([own.mean() for own in row_weight]).clamp(min=_LEAST).view(-1, 1, 1)
        self.batch, self.classes, self.kind = batch, recipe.classes, recipe.kind
        if registry.get(recipe.candidate.loss).family == "metric":
            self.loss = make_loss(recipe.candidate, **hypers(recipe.candidate, self.settings)).to(device)
        else:
            per_row = hypers(recipe.candidate, self.settings, batch)
            self.loss = make_loss(recipe.candidate, reduction="none", **per_row).to(device)
        self.prior = self.weight = None
        if recipe.kind is MULTI_LABEL:
            return
        each = row_weight if row_weight is not None else [None] * len(y)
        counts = torch.stack([torch.bincount(*pair, minlength=recipe.classes) for pair in zip(y, each, strict=True)])
        counts = counts.float().clamp(min=1 if row_weight is None else _LEAST)
        self.prior = self._table(recipe, "prior_power", (counts / counts.sum(1, keepdim=True)).log())
        weight = (counts.sum(1, keepdim=True) / (recipe.classes * counts)).log()
        log_weight = self._table(recipe, "weight_power", weight)
        self.weight = None if log_weight is None else log_weight.exp()

    def _table(self, recipe: Recipe, name: str, logarithm: Tensor) -> Tensor | None:
        """Logarithms (S, C) times each setting's power, (S, T, C)."""
        if name not in recipe.candidate.search:
            return None
        return column(self.settings, name).unsqueeze(2).to(logarithm.device) * logarithm.unsqueeze(1)

    def __call__(self, z: Tensor, y: Tensor, row_weight: Tensor | None = None) -> Tensor:
        """Of logits (S, B, T, C), labels (S, B) or (S, B, C), and what the rows count (S, B)."""
        if self.prior is not None:
            z = z + self.prior.unsqueeze(1)
        if isinstance(self.loss, MetricLoss):
            each = None if row_weight is None else row_weight.unsqueeze(1).expand(-1, z.shape[2], -1)
            return self.loss._of_batches(z.transpose(1, 2), y.unsqueeze(1).expand(-1, z.shape[2], -1), each).sum()
        labels = y.unsqueeze(2).expand(z.shape[: y.ndim + 1])
        rows = self.loss(z.reshape(-1, self.classes), labels.flatten(0, 2)).view(z.shape[:3])
        if row_weight is not None:
            rows = rows * row_weight.unsqueeze(2)
        if self.weight is not None:
            weight = self.weight.gather(2, y.unsqueeze(1).expand(-1, z.shape[2], -1)).transpose(1, 2)
            every = weight if row_weight is None else weight * row_weight.unsqueeze(2)
            rows = rows * weight / every.sum(1, keepdim=True).clamp(min=_LEAST)
        else:
            rows = rows / self.total
        total: Tensor = rows.sum()
        return total


def column(settings: list[list[Setting]], name: str) -> Tensor:
    """A number of each setting, (S, T)."""
    return torch.tensor([[setting[name] for setting in of] for of in settings])


def hypers(candidate: Candidate, settings: list[list[Setting]], batch: int | None = None) -> dict[str, Tensor]:
    """The hyper-parameters of the loss, (S, T), or of every row (S batch T)."""
    own = {name: column(settings, name) for name in candidate.search if not name.endswith("_power")}
    if batch is None:
        return own
    return {name: v.unsqueeze(1).expand(-1, batch, -1).reshape(-1) for name, v in own.items()}


def log_probabilities(recipe: Recipe, z: Tensor, settings: list[list[Setting]] | None = None) -> Tensor:
    """Logits (S, B, T, C) to log-probabilities (S T, B, C), by the rule that belongs to the loss.

    Where any number of classes may be right, the logits themselves.
    """
    if recipe.kind is MULTI_LABEL:
        return by_model(z)
    kind = registry.get(recipe.candidate.loss)
    if not issubclass(kind, SingleLabelLoss) or kind.probabilities is SingleLabelLoss.probabilities:
        return by_model(z).log_softmax(2)
    loss = make_loss(recipe.candidate, **hypers(recipe.candidate, settings or [recipe.settings] * len(z), z.shape[1]))
    assert isinstance(loss, SingleLabelLoss)
    p = loss.probabilities(z.flatten(0, 2)).view(z.shape)
    return by_model(p.clamp(min=torch.finfo(p.dtype).tiny).log())


def by_model(z: Tensor) -> Tensor:
    """Of (S, B, T, ...) those of each model, (S T, B, ...)."""
    return z.transpose(1, 2).flatten(0, 1)
