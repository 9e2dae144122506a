"""What training asks of models, whatever they are."""

from __future__ import annotations

import torch
from torch import Tensor


class Models:
    """S x T models, for S splits and T settings, that are trained side by side.

    Their inputs are (S, B, D) and their logits (S, B, T, C). What they consist of is in tensors that each hold one
    tensor of all models; :meth:`per_model` is their common view.

    Attributes:
        splits, settings: S and T.
        parameters: what is learnt.
        decays: for each parameter, whether it is shrunk by the weight decay.
    """

    splits: int
    settings: int
    parameters: list[Tensor]
    decays: list[bool]

    @property
    def state(self) -> list[Tensor]:
        """All that trained models consist of, without gradients: the parameters, and what else training changes."""
        return [parameter.detach() for parameter in self.parameters]

    def __call__(self, x: Tensor, state: list[Tensor] | None = None) -> Tensor:
        """Logits (S, B, T, C) of inputs (S, B, D), by another state of any T if one is given."""
        raise NotImplementedError

    def gradients(self, loss: Tensor) -> list[Tensor]:
        """Of each of the parameters."""
        return list(torch.autograd.grad(loss, self.parameters))

    def per_model(self, tensor: Tensor, index: int) -> Tensor:
        """A tensor of the state by split and setting, (S, T, ...); applied to that, the tensor again."""
        return tensor

    def by_setting(self, values: Tensor, index: int) -> Tensor:
        """Numbers (S, T), shaped to multiply a parameter."""
        values = values.expand(self.splits, self.settings)
        each = values.view(*values.shape, *[1] * (self.parameters[index].ndim - 2))
        return self.per_model(each, index)

    def pick(self, tensor: Tensor, index: int, splits: Tensor, trials: Tensor) -> Tensor:
        """Of the splits (S',) the settings (S', T') in a tensor of the state."""
        found = self.per_model(tensor, index)[splits.unsqueeze(1), trials]
        return self.per_model(found, index).contiguous()

    def keep(self, splits: Tensor, trials: Tensor) -> None:
        """Go on with some models only: of the splits (S',) the settings (S', T')."""
        raise NotImplementedError

    def state_dict(self, split: int, setting: int, state: list[Tensor] | None = None) -> dict[str, Tensor]:
        """One of the models, as a state dict of its architecture's module."""
        raise NotImplementedError
