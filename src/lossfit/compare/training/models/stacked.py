"""Many small models as one: the settings of a loss and the splits of the data side by side, as stacked weights.

S splits have their own rows, T settings share the rows of their split.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lossfit.compare.training.models.base import Models


class Stacked(Models):
    """S x T linear models, or networks with one hidden layer.

    All settings of a split start from the same weights, drawn by the split's own generator. Biases do not decay.

    Args:
        features, classes: of the data.
        settings: T.
        hidden: units of the hidden layer; 0 for a linear model.
        generators: one for each split.
        device: where the weights are.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        settings: int,
        hidden: int,
        generators: list[torch.Generator],
        device: str = "cpu",
    ) -> None:
        self.splits, self.settings, self.hidden = len(generators), settings, hidden
        width = hidden or classes
        first = torch.zeros(self.splits, features, 1, width)
        if hidden:
            bound = math.sqrt(6 / features)
            first = torch.stack([(2 * torch.rand(features, 1, hidden, generator=g) - 1) * bound for g in generators])
        weights = [first.expand(-1, -1, settings, -1).clone(), torch.zeros(self.splits, 1, settings, width)]
        if hidden:
            bound = 1 / math.sqrt(hidden)
            last = torch.stack([(2 * torch.rand(1, hidden, classes, generator=g) - 1) * bound for g in generators])
            weights += [
                last.expand(-1, settings, -1, -1).clone(),
                torch.zeros(self.splits, 1, settings, classes),
            ]
        self.parameters = [weight.to(device).requires_grad_() for weight in weights]
        self.decays = [True, False] * (len(weights) // 2)

    def __call__(self, x: Tensor, state: list[Tensor] | None = None) -> Tensor:
        """Logits (S, B, T, C) of inputs (S, B, D), by another state of any T if one is given."""
        first, bias, *rest = state or self.parameters
        # All settings see the same rows, so their first layers are one product.
        z: Tensor = torch.bmm(x, first.flatten(2)).unflatten(2, first.shape[2:]) + bias
        if rest:
            z = torch.matmul(z.relu().transpose(1, 2), rest[0]).transpose(1, 2) + rest[1]
        return z

    def per_model(self, tensor: Tensor, index: int) -> Tensor:
        """Settings are dimension 2, but in the last weights 1."""
        return tensor if index == 2 else tensor.transpose(1, 2)

    def keep(self, splits: Tensor, trials: Tensor) -> None:
        """Go on with some models only: of the splits (S',) the settings (S', T')."""
        self.splits, self.settings = trials.shape
        picked = [self.pick(value, i, splits, trials) for i, value in enumerate(self.state)]
        self.parameters = [value.requires_grad_() for value in picked]

    def state_dict(self, split: int, setting: int, state: list[Tensor] | None = None) -> dict[str, Tensor]:
        """One of the models, as a state dict of its architecture's module."""
        own = [self.per_model(value, i)[split, setting] for i, value in enumerate(state or self.state)]
        names = ("0.weight", "0.bias", "2.weight", "2.bias")
        shaped = [value.T if i % 2 == 0 else value[0] for i, value in enumerate(own)]
        return {name: value.contiguous().clone() for name, value in zip(names, shaped, strict=False)}
