"""Many small models as one: the settings of a loss and the splits of the data side by side, as stacked weights.

S splits have their own rows, T settings share the rows of their split. Inputs are (S, B, D), logits (S, B, T, C).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Stacked:
    """S x T linear models, or networks with one hidden layer.

    All settings of a split start from the same weights, drawn by the split's own generator.

    Args:
        features, classes: of the data.
        settings: T.
        hidden: units of the hidden layer; 0 for a linear model.
        generators: one for each split.
        device: where the weights are.

    Attributes:
        parameters: what is learnt.
        decays: for each parameter, whether it is shrunk by the weight decay. Biases are not.
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

    @property
    def state(self) -> list[Tensor]:
        """All that a trained model consists of, the parameters first."""
        return self.parameters

    def __call__(self, x: Tensor, state: list[Tensor] | None = None) -> Tensor:
        """Logits (S, B, T, C) of inputs (S, B, D), by another state if one is given."""
        first, bias, *rest = state or self.parameters
        # All settings see the same rows, so their first layers are one product.
        z: Tensor = torch.bmm(x, first.flatten(2)).unflatten(2, first.shape[2:]) + bias
        if rest:
            z = torch.matmul(z.relu().transpose(1, 2), rest[0]).transpose(1, 2) + rest[1]
        return z

    def by_setting(self, values: Tensor, index: int) -> Tensor:
        """Numbers (T,) or (S, T), shaped to multiply a parameter: settings are dimension 2, in the last weights 1."""
        values = values.expand(self.splits, self.settings)
        return values[:, :, None, None] if index == 2 else values[:, None, :, None]

    def state_dict(self, split: int, setting: int, state: list[Tensor] | None = None) -> dict[str, Tensor]:
        """One of the models, as a state dict of its architecture's module."""
        first, bias, *rest = (tensor.detach() for tensor in state or self.parameters)
        found = {"0.weight": first[split, :, setting].T, "0.bias": bias[split, 0, setting]}
        if rest:
            found |= {"2.weight": rest[0][split, setting].T, "2.bias": rest[1][split, 0, setting]}
        return {name: value.clone(memory_format=torch.contiguous_format) for name, value in found.items()}
