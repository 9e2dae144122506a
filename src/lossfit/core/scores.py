"""Logits to scores: temperature and logit adjustment."""

from __future__ import annotations

import torch
from torch import Tensor

from lossfit.core.class_shards import Shard
from lossfit.core.class_weights import log_prior
from lossfit.core.numerics import accumulation_dtype


def adjust(
    logits: Tensor,
    temperature: float | Tensor = 1.0,
    class_prior: Tensor | None = None,
    shard: Shard | None = None,
) -> Tensor:
    """Logits / temperature + log prior of the classes; a temperature may be a number or one per row."""
    if shard is not None and isinstance(temperature, Tensor):
        temperature = shard.shared(temperature)
    divisor = temperature.unsqueeze(1) if isinstance(temperature, Tensor) and temperature.ndim else temperature
    scores = logits.to(accumulation_dtype(logits))
    if isinstance(divisor, Tensor) and divisor.requires_grad:  # masked logits would give it a gradient of 0 times inf
        masked = scores.isinf()
        scores = torch.where(masked, scores, scores.masked_fill(masked, 0.0) / divisor)
    else:
        scores = scores / divisor
    if class_prior is None:
        return scores
    prior = log_prior(class_prior).to(scores.dtype)
    if shard is not None:
        prior = shard.local(prior)
    return scores + prior.view(1, -1, *(1,) * (scores.ndim - 2))
