"""The arithmetic of the gap, on blocks of rows that fit the cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lossfit.core.autograd import readable
from lossfit.core.numerics import LOG2_E, accumulation_dtype
from lossfit.core.row_stats import RowInputs, RowStats, Upstream, Wanted, finite
from lossfit.gaps.fields import mean_share

# Scores worked on at a time, in bytes. Larger blocks leave the cache, smaller ones pay more per call (measured).
BLOCK_BYTES = 2 << 20
# Up to this size of all top scores a multiply-add makes an error of a few roundings. From so many scores on, to look
# whether the top ones are that small takes less time than to work through all scores once more.
_NEAR, _MANY = 16.0, 1 << 14


def forward_block(scores: Tensor, rows: RowInputs, wanted: Wanted, buffer: Tensor | None = None) -> RowStats:
    """The statistics of a block of rows, worked out in ``buffer`` if there is one."""
    dtype, classes = accumulation_dtype(scores), scores.shape[1]
    at, here = rows.target.unsqueeze(1), rows.here
    at_own = scores.gather(1, at)
    if at_own.dtype != dtype:
        at_own = at_own.to(dtype)
    if buffer is None:
        work = scores if scores.dtype == dtype else scores.to(dtype)
    else:
        work = buffer[: scores.numel()].view(scores.shape).copy_(scores)
    hidden: Any = -torch.inf
    if here is not None:  # elsewhere no column is left out
        hidden = at_own.masked_fill(here.unsqueeze(1), hidden)
    work = work.scatter(1, at, hidden) if work is scores else work.scatter_(1, at, hidden)
    is_hit = None
    if wanted.hit:
        top, first = work.max(1, keepdim=True)
        is_hit = ((at_own > top) | ((at_own == top) & (at < first))).squeeze(1)
    else:
        top = work.amax(1, keepdim=True)
    top = finite(top)
    own = at_own.squeeze(1)
    if rows.own is not None:
        own = rows.own
    elif here is not None:
        own = own.masked_fill(~here, 0.0)
    mean = among = None
    if wanted.hard and not wanted.mean:
        log_sum = torch.zeros_like(own)
    else:
        _exponents(work, top, work)
        if wanted.mean:
            mean = _mean_of_rivals(work, rows, at) - mean_share(rows, classes, dtype) * finite(own - top.squeeze(1))
        surprise = finite(work) if wanted.entropy else None
        # The top rival's 1 is in it, if there is one.
        total = work.exp2_().sum(1).clamp_(min=torch.finfo(dtype).tiny)
        log_sum = torch.zeros_like(own) if wanted.hard else total.log()
        if surprise is not None:
            among = log_sum - surprise.mul_(work).sum(1) / (LOG2_E * total)
    return RowStats(own, top.squeeze(1), log_sum, mean, is_hit, among).masked(rows.valid)


def _mean_of_rivals(exponents: Tensor, rows: RowInputs, at: Tensor) -> Tensor:
    """The mean of the rivals' scores relative to the top one."""
    own = exponents.gather(1, at)
    rivals = 0.0 if rows.here is None else own.masked_fill(rows.here.unsqueeze(1), 0.0)
    exponents.scatter_(1, at, rivals)  # for now: a copy would take longer than the sum
    counted = exponents if rows.weight is None else exponents * per_class(rows.weight, exponents)
    total = counted.sum(1)
    exponents.scatter_(1, at, own)
    return total.div_(exponents.shape[1] * LOG2_E)


def backward_block(
    scores: Tensor,
    rows: RowInputs,
    stats: RowStats,
    upstream: Upstream,
    hard: bool,
    out: Tensor | None = None,
) -> Tensor:
    """The gradient of a block: written to ``out``, of the scores' dtype, or returned as a new tensor."""
    dtype = stats.own.dtype
    at = rows.target.unsqueeze(1)
    in_place = out is not None and out.dtype == dtype
    if upstream.log_sum is None and upstream.among is None:
        grad = torch.zeros_like(scores, dtype=dtype)
    elif hard:
        grad = hard_shares(scores.to(dtype), stats.top.unsqueeze(1), at, rows.here)
        grad.mul_(_column(upstream.log_sum))
    else:
        grad = _exponents(scores, stats.top.unsqueeze(1), out if in_place else None, stats.log_sum.unsqueeze(1))
        surprise = None if stats.among is None or upstream.among is None else finite(grad)
        grad.exp2_()
        if surprise is not None:
            surprise.div_(LOG2_E).add_(_column(stats.among)).mul_(grad).mul_(_column(upstream.among))
        grad.mul_(0.0 if upstream.log_sum is None else _column(upstream.log_sum))
        if surprise is not None:
            grad.sub_(surprise)
    if upstream.mean is not None:
        share = _column(upstream.mean) / scores.shape[1]
        grad.add_(share if rows.weight is None else share * per_class(rows.weight, grad))
    to_own: Any = 0.0 if upstream.own is None else _column(upstream.own)
    if rows.here is not None:
        to_own = torch.where(rows.here.unsqueeze(1), to_own, grad.gather(1, at))
    grad.scatter_(1, at, to_own)
    if rows.valid is not None:
        grad.masked_fill_(~rows.valid.unsqueeze(1), 0.0)
    if out is None:
        return grad if grad.dtype == scores.dtype else grad.to(scores.dtype)
    return out if in_place and grad is out else out.copy_(grad)


def _column(per_row: Tensor | None) -> Tensor:
    assert per_row is not None
    return per_row.unsqueeze(1)


def _exponents(scores: Tensor, top: Tensor, out: Tensor | None, log_sum: Tensor | None = None) -> Tensor:
    """(scores - top - log_sum) / log 2, where exp2 gives exp of the difference; the target's place may hold anything.

    The difference comes first, so that an offset of the scores costs no digits.
    """
    if scores.numel() > _MANY and readable(top) and top.abs().amax().item() < _NEAR:
        level = top if log_sum is None else top + log_sum
        return torch.add(level.mul(-LOG2_E), scores, alpha=LOG2_E, out=out)
    behind = torch.sub(scores, top, out=out)
    if log_sum is None:
        return behind.mul_(LOG2_E)
    return torch.add(log_sum.mul(-LOG2_E), behind, alpha=LOG2_E, out=behind)


Cut = tuple[slice, ...]


def row_blocks(scores: Tensor, block_bytes: int = BLOCK_BYTES) -> list[tuple[Cut, Cut]] | None:
    """Index pairs (into the scores, into the rows) that cut the work into blocks; None if one block holds it all."""
    size = block_bytes // accumulation_dtype(scores).itemsize
    if scores.numel() <= size:
        return None
    rows, classes, columns = (*scores.shape, 1)[:3]
    width = min(columns, max(1, size // classes))
    height = max(1, size // (classes * width))
    down = [slice(top, top + height) for top in range(0, rows, height)]
    if scores.ndim == 2:
        return [((d,), (d,)) for d in down]
    across = [slice(left, left + width) for left in range(0, columns, width)]
    return [((d, slice(None), a), (d, a)) for d in down for a in across]


def hard_shares(z: Tensor, top: Tensor, at: Tensor, here: Tensor | None = None) -> Tensor:
    """The rivals that reach the maximum share it evenly."""
    tie = (z == top).to(z.dtype)
    tie.scatter_(1, at, 0.0 if here is None else tie.gather(1, at).masked_fill_(here.unsqueeze(1), 0.0))
    return tie / tie.sum(1, keepdim=True).clamp(min=1.0)


def per_class(weight: Tensor, like: Tensor) -> Tensor:
    """Weights (C,) shaped to multiply scores (N, C, ...)."""
    return weight.to(like.dtype).view(1, -1, *(1,) * (like.ndim - 2))
