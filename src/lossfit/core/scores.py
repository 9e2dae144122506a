"""Logits to scores: temperature and logit adjustment."""

from __future__ import annotations

import torch
from torch import Tensor

from lossfit.core.autograd import transformed
from lossfit.core.class_shards import Shard
from lossfit.core.class_weights import log_prior
from lossfit.core.numerics import accumulation_dtype


def adjust(
    logits: Tensor,
    temperature: float | Tensor = 1.0,
    class_prior: Tensor | None = None,
    shard: Shard | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits / temperature + log prior of the classes, less a number of each row, and that number (N, d1, ...).

    The largest logit is taken off each row before it is divided, so that an offset of the logits costs no digits. A
    temperature may be a number or one per row.
    """
    if shard is not None and isinstance(temperature, Tensor):
        temperature = shard.broadcast_with_grad_sum(temperature)
    divisor = temperature.unsqueeze(1) if isinstance(temperature, Tensor) and temperature.ndim else temperature
    scores = logits.to(accumulation_dtype(logits))
    top = _top(scores.detach(), shard)
    scores = scores - top
    if isinstance(divisor, Tensor) and (divisor.requires_grad or transformed()):
        # Masked logits would give the temperature a gradient of 0 times inf.
        masked = scores.isinf()
        scores = torch.where(masked, scores, scores.masked_fill(masked, 0.0) / divisor)
    elif isinstance(divisor, Tensor):
        scores = scores / divisor
    elif divisor != 1:
        scores = scores / divisor if transformed() else scores.div_(divisor)  # a new tensor takes as long as the work
    origin = (top / divisor).squeeze(1)
    if class_prior is None:
        return scores, origin
    prior = log_prior(class_prior).to(scores.dtype)
    if shard is not None:
        prior = shard.local(prior)
    prior = prior.view(1, -1, *(1,) * (scores.ndim - 2))
    return scores + prior if transformed() else scores.add_(prior), origin


def _top(scores: Tensor, shard: Shard | None) -> Tensor:
    """The largest score of each row (N, 1, d1, ...), finite unless it is infinite or not a number."""
    lowest = torch.finfo(scores.dtype).min
    if scores.shape[1]:
        top = scores.amax(1, keepdim=True).clamp(min=lowest)
    else:
        top = scores.new_full((len(scores), 1, *scores.shape[2:]), lowest)
    return top if shard is None else shard.max(top)
