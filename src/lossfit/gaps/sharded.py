"""The statistics of rows where the classes are spread over ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from lossfit import kernels
from lossfit.core import class_shards
from lossfit.core.class_shards import Shard
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.row_stats import RowInputs, RowStats, Upstream, Wanted, finite
from lossfit.gaps.autograd_functions import row_stats, scores_grad


class Sharded(Function):
    """(shard, scores, target, valid, weight, *:class:`Wanted`) -> :class:`RowStats` over all classes.

    Forward there are two collectives of numbers per row, one more each with ``mean`` and ``hit``. Backward there is
    none, since what comes after is the same on all ranks; for the hard gap one, which counts ties.
    """

    @staticmethod
    def forward(
        ctx: Any,
        shard: Shard,
        scores: Tensor,
        target: Tensor,
        valid: Tensor | None,
        weight: Tensor | None,
        *options: bool,
    ) -> tuple[Tensor | None, ...]:
        wanted = Wanted(*options)
        rows, stats = local_stats(scores, target, valid, weight, shard, wanted)
        own, top, log_sum, mean, _, among = stats
        whole = shard.max(top)
        behind = finite(top - whole) + log_sum
        parts = [own, top * 0 if wanted.hard else behind.exp()]  # so that what is no number stays none
        parts += [] if mean is None else [mean]
        parts += [] if among is None else [behind.exp() * (among - behind)]
        total = class_shards.reduce_(torch.stack(parts), shard.group)
        own, log_sum = total[0], total[1] if wanted.hard else total[1].log()
        hit = _beats_all(scores, shard, target, own) if wanted.hit else None
        mean = total[2] if mean is not None else None
        among = None if among is None else total[-1] / total[1] + log_sum
        stats = RowStats(own, whole, log_sum, mean, hit, among).masked(valid)
        ctx.mark_non_differentiable(*(v for v in (stats.top, stats.hit) if v is not None))
        ctx.set_materialize_grads(False)
        ctx.shard, ctx.hard, ctx.backend = shard, wanted.hard, kernels.current()
        ctx.save_for_backward(scores, *rows, *stats)
        return tuple(stats)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise NotImplementedError("There is no second derivative where classes are spread over ranks.")
        scores, *tensors = ctx.saved_tensors
        rows, stats = RowInputs(*tensors[:5]), RowStats(*tensors[5:])
        own, _, log_sum, mean, _, among = grads
        shard: Shard = ctx.shard
        none = (None,) * 7
        if ctx.hard and log_sum is not None:
            ties = _ties(scores, stats.top, rows)
            log_sum = log_sum * (ties / class_shards.reduce_(ties.clone(), shard.group).clamp(min=1))
        if not scores.shape[1]:
            return None, torch.zeros_like(scores), *none
        if mean is not None:
            mean = mean * (scores.shape[1] / shard.total)
        back = kernels.with_backend(ctx.backend, scores_grad)
        return None, back(scores, rows, stats, Upstream(own, log_sum, mean, among), ctx.hard), *none


def local_stats(
    scores: Tensor,
    target: Tensor,
    valid: Tensor | None,
    weight: Tensor | None,
    shard: Shard,
    wanted: Wanted,
) -> tuple[RowInputs, RowStats]:
    """Those of the columns of this rank; the mean is their part of that of all classes."""
    dtype = accumulation_dtype(scores)
    at, here = shard.locate(target)
    weight = None if weight is None else shard.local(weight)
    rows = RowInputs(at, valid, here, None, weight)
    if wanted.mean:
        own = scores.new_zeros(target.shape, dtype=dtype)
        if scores.shape[1]:
            own = scores.gather(1, at.unsqueeze(1)).squeeze(1).to(dtype).masked_fill(~here, 0.0)
        rows = rows._replace(own=class_shards.reduce_(own, shard.group))
    if not scores.shape[1]:
        return rows, of_no_columns(scores, rows, wanted)
    stats = row_stats(scores, rows, wanted._replace(hit=False))
    mean = stats.mean
    if mean is not None:
        mean = mean * (scores.shape[1] / shard.total)
    # Each rank adds its own.
    return rows, stats._replace(own=stats.own.masked_fill(~here, 0.0), mean=mean)


def of_no_columns(scores: Tensor, rows: RowInputs, wanted: Wanted) -> RowStats:
    """Those of rows of a rank that has no column."""
    none = scores.new_zeros(rows.target.shape, dtype=accumulation_dtype(scores))
    info = torch.finfo(none.dtype)
    log_sum = none if wanted.hard else torch.full_like(none, info.tiny).log()
    optional = (none if wanted.mean else None, None, none if wanted.entropy else None)
    return RowStats(none, torch.full_like(none, info.min), log_sum, *optional)


def _beats_all(scores: Tensor, shard: Shard, target: Tensor, own: Tensor) -> Tensor:
    """Whether no class of any rank has a larger score than the target, or the same and stands before it."""
    beaten = torch.zeros_like(own)
    if scores.shape[1]:
        best, first = scores.max(1)  # the target itself does no harm
        best = best.to(own.dtype)
        beaten = ((best > own) | ((best == own) & (shard.classes(first) < target))).to(own.dtype)
    return shard.max(beaten) == 0


def _ties(scores: Tensor, top: Tensor, rows: RowInputs) -> Tensor:
    """How many rivals among these columns reach the maximum."""
    if not scores.shape[1]:
        return torch.zeros_like(top)
    tie = (scores.to(top.dtype) == top.unsqueeze(1)).to(top.dtype)
    own = tie.gather(1, rows.target.unsqueeze(1)).squeeze(1)
    return tie.sum(1) - (own if rows.here is None else own.masked_fill(~rows.here, 0.0))
