"""AdamW for many models at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lossfit.compare.candidates.candidates import Setting
from lossfit.compare.training.models.base import Models
from lossfit.compare.training.objective import column


class AdamW:
    """AdamW over the weights of many models, with a learning rate and a weight decay for each setting."""

    def __init__(self, model: Models, settings: list[list[Setting]], steps: int) -> None:
        self.model, self.steps, self.taken = model, steps, 0
        columns = (column(settings, name) for name in ("learning_rate", "weight_decay"))
        self.rate, self.decay = (column.to(model.parameters[0].device) for column in columns)
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in model.parameters]

    def keep(self, splits: Tensor, trials: Tensor) -> None:
        """Go on with the models that the model's own ``keep`` keeps."""
        each = splits.unsqueeze(1), trials
        self.rate, self.decay = self.rate[each], self.decay[each]
        for i, (first, second) in enumerate(self.moments):
            self.moments[i] = (
                self.model.pick(first, i, splits, trials),
                self.model.pick(second, i, splits, trials),
            )

    @torch.no_grad()
    def step(self, grads: list[Tensor]) -> None:
        rate = self.rate * (1 - self.taken / self.steps)
        self.taken += 1
        # m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps), with the corrections taken out of the passes over all weights.
        correction = math.sqrt(1 - 0.999**self.taken)
        scale = correction / (1 - 0.9**self.taken)
        for i, (parameter, grad) in enumerate(zip(self.model.parameters, grads, strict=True)):
            first, second = self.moments[i]
            first.lerp_(grad, 0.1)
            second.mul_(0.999).addcmul_(grad, grad, value=0.001)
            below = second.sqrt().add_(1e-8 * correction)
            if self.model.decays[i]:
                parameter.mul_(self.model.by_setting(1 - rate * self.decay, i))
            parameter.addcmul_(torch.div(first, below, out=below), self.model.by_setting(rate, i), value=-scale)
