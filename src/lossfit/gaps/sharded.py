"""The gap where the classes are spread over ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from lossfit import kernels
from lossfit.core import class_shards
from lossfit.core.class_shards import Shard
from lossfit.core.numerics import LOWEST, accumulation_dtype
from lossfit.gaps.autograd_functions import Backward, Forward
from lossfit.gaps.blocks import entropy_of_row
from lossfit.gaps.types import GapFields


class Sharded(Function):
    """:class:`Forward` where the classes are spread over ranks: (shard, and its arguments) -> the fields of Gap.

    Forward there are two collectives of numbers per row, three with ``hit``. Backward there is none, since what
    comes after is the same on all ranks; for the hard gap one, which counts ties.
    """

    @staticmethod
    def forward(
        ctx: Any,
        shard: Shard,
        scores: Tensor,
        target: Tensor,
        valid: Tensor | None,
        weight: Tensor | None,
        hard: bool,
        mean: bool,
        hit: bool,
        entropy: bool,
    ) -> GapFields:
        dtype = accumulation_dtype(scores)
        at, here = shard.locate(target)
        if scores.shape[1]:
            found = Forward.forward(scores, at, valid, weight, hard, mean, False, entropy, here)
            own, rivals, mean_score, _, among = found
            mean_score = None if mean_score is None else mean_score * (scores.shape[1] / shard.total)
        else:
            own = mean_score = among = scores.new_zeros(target.shape, dtype=dtype)
            rivals = torch.full_like(own, LOWEST[dtype])
        assert own is not None
        assert rivals is not None
        top = shard.max(rivals)
        behind = rivals - top
        parts = [own, rivals * 0 if hard else behind.exp()]  # so that what is no number stays none
        parts += [mean_score] if mean and mean_score is not None else []
        parts += [behind.exp() * (among - behind)] if entropy and among is not None else []
        total = class_shards.reduce_(torch.stack(parts), shard.group)
        own, rivals = total[0], top + (total[1] if hard else total[1].log())
        mean_score, row_entropy = (total[2] if mean else None), None
        if entropy:
            row_entropy = entropy_of_row(own - rivals, total[-1] / total[1] + total[1].log())
        is_hit = _beats_all(scores, shard, target, own) if hit else None
        if valid is not None:
            masked = (own, rivals, mean_score, is_hit, row_entropy)
            own, rivals, mean_score, is_hit, row_entropy = (
                None if v is None else v.masked_fill(~valid, 0) for v in masked
            )
        if is_hit is not None:
            ctx.mark_non_differentiable(is_hit)
        ctx.set_materialize_grads(False)
        ctx.shard, ctx.hard, ctx.backend = shard, hard, kernels.current()
        ctx.save_for_backward(scores, at, here, valid, weight, own, rivals, row_entropy)
        return own, rivals, mean_score, is_hit, row_entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise NotImplementedError("There is no second derivative where classes are spread over ranks.")
        scores, at, here, valid, weight, own, rivals, entropy = ctx.saved_tensors
        shard: Shard = ctx.shard
        g_target, g_rivals, g_mean, g_entropy = (*grads[:3], grads[4])
        none = (None,) * 7
        if ctx.hard and g_rivals is not None:
            ties = _ties(scores, rivals, at, here)
            g_rivals = g_rivals * (ties / class_shards.reduce_(ties.clone(), shard.group).clamp(min=1))
        if not scores.shape[1]:
            return None, torch.zeros_like(scores), *none
        if g_mean is not None:
            g_mean = g_mean * (scores.shape[1] / shard.total)
        upstream = g_target, g_rivals, g_mean, g_entropy
        back = kernels.keeping(ctx.backend, Backward.forward)
        grad = back(scores, at, valid, weight, own, rivals, entropy, *upstream, ctx.hard, here)
        return None, grad, *none


def _beats_all(scores: Tensor, shard: Shard, target: Tensor, own: Tensor) -> Tensor:
    """Whether no class of any rank has a larger score than the target, or the same and stands before it."""
    beaten = torch.zeros_like(own)
    if scores.shape[1]:
        best, first = scores.max(1)  # the target itself does no harm
        best = best.to(own.dtype)
        beaten = ((best > own) | ((best == own) & (shard.classes(first) < target))).to(own.dtype)
    return shard.max(beaten) == 0


def _ties(scores: Tensor, rivals: Tensor, at: Tensor, here: Tensor) -> Tensor:
    """How many rivals among these columns reach the maximum."""
    if not scores.shape[1]:
        return torch.zeros_like(rivals)
    tie = (scores.to(rivals.dtype) == rivals.unsqueeze(1)).to(rivals.dtype)
    own = tie.gather(1, at.unsqueeze(1)).squeeze(1)
    return tie.sum(1) - own.masked_fill(~here, 0.0)
