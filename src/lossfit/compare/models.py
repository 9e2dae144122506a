"""Many small models as one: the settings of a loss and the splits of the data side by side, as stacked weights.

S splits have their own rows, T settings share the rows of their split. Inputs are (S, B, D), logits (S, B, T, C).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

HIDDEN = 32


class Stacked:
    """S x T linear models, or networks with one hidden layer.

    All settings of a split start from the same weights, drawn by the split's own generator.

    Args:
        features, classes: of the data.
        settings: T.
        hidden: units of the hidden layer; 0 for a linear model.
        generators: one for each split.
    """

    def __init__(
        self, features: int, classes: int, settings: int, hidden: int, generators: list[torch.Generator]
    ) -> None:
        self.splits, self.settings, self.hidden = len(generators), settings, hidden
        width = hidden or classes
        first = torch.zeros(self.splits, features, 1, width)
        if hidden:
            bound = math.sqrt(6 / features)
            first = torch.stack([(2 * torch.rand(features, 1, hidden, generator=g) - 1) * bound for g in generators])
        self.parameters = [first.expand(-1, -1, settings, -1).clone(), torch.zeros(self.splits, 1, settings, width)]
        if hidden:
            bound = 1 / math.sqrt(hidden)
            last = torch.stack([(2 * torch.rand(1, hidden, classes, generator=g) - 1) * bound for g in generators])
            self.parameters += [
                last.expand(-1, settings, -1, -1).clone(),
                torch.zeros(self.splits, 1, settings, classes),
            ]
        for parameter in self.parameters:
            parameter.requires_grad_()

    def __call__(self, x: Tensor, parameters: list[Tensor] | None = None) -> Tensor:
        """Logits (S, B, T, C) of inputs (S, B, D)."""
        first, bias, *rest = parameters or self.parameters
        # All settings see the same rows, so their first layers are one product.
        z: Tensor = torch.bmm(x, first.flatten(2)).unflatten(2, first.shape[2:]) + bias
        if rest:
            z = torch.matmul(z.relu().transpose(1, 2), rest[0]).transpose(1, 2) + rest[1]
        return z

    def keep(self, splits: Tensor, trials: Tensor) -> None:
        """Go on with some models only: of the splits (S',) the settings (S', T')."""
        self.splits, self.settings = trials.shape
        self.parameters = [pick(p.detach(), i, splits, trials).requires_grad_() for i, p in enumerate(self.parameters)]

    def by_setting(self, values: Tensor, index: int) -> Tensor:
        """Numbers (T,) or (S, T), shaped to multiply a parameter: settings are dimension 2, in the last weights 1."""
        values = values.expand(self.splits, self.settings)
        return values[:, :, None, None] if index == 2 else values[:, None, :, None]


def per_model(parameter: Tensor, index: int) -> Tensor:
    """The same numbers by split and setting, (S, T, ...)."""
    return parameter if index == 2 else parameter.transpose(1, 2)


def pick(parameter: Tensor, index: int, splits: Tensor, trials: Tensor) -> Tensor:
    """Of the splits (S',) the settings (S', T'), as a parameter of the same order."""
    found = per_model(parameter, index)[splits.unsqueeze(1), trials]
    return per_model(found, index).contiguous()
