"""The arithmetic of the gap, on blocks of rows that fit the cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lossfit.core.numerics import DEEP, LOG2_E, LOWEST, accumulation_dtype
from lossfit.gaps.types import GapFields

# Scores worked on at a time, in bytes. Larger blocks leave the cache, smaller ones pay more per call (measured).
_BLOCK_BYTES = 2 << 20


# Beyond this, rounding errors of the multiply-add may overflow, and it is done in two steps.
_FAR = 1e4


def forward_block(
    scores: Tensor,
    target: Tensor,
    valid: Tensor | None,
    weight: Tensor | None,
    hard: bool,
    mean: bool,
    hit: bool,
    entropy: bool,
    here: Tensor | None = None,
    buffer: Tensor | None = None,
) -> GapFields:
    dtype = accumulation_dtype(scores)
    at = target.unsqueeze(1)
    at_own = scores.gather(1, at)
    if at_own.dtype != dtype:
        at_own = at_own.to(dtype)
    own = at_own.squeeze(1)
    if buffer is None:
        work = scores if scores.dtype == dtype else scores.to(dtype)
    else:
        work = buffer[: scores.numel()].view(scores.shape).copy_(scores)
    mean_score = is_hit = row_entropy = None
    if mean:
        mean_score = (work if weight is None else work * per_class(weight, work)).sum(1) / scores.shape[1]
    hidden: Any = LOWEST[dtype]
    if here is not None:  # elsewhere no column is left out
        hidden = at_own.masked_fill(here.unsqueeze(1), hidden)
        own = own.masked_fill(~here, 0.0)
    work = work.scatter(1, at, hidden) if work is scores else work.scatter_(1, at, hidden)
    if hit:
        top, first = work.max(1, keepdim=True)
        is_hit = ((at_own > top) | ((at_own == top) & (at < first))).squeeze(1)
    else:
        top = work.amax(1, keepdim=True)
    if here is not None:  # where all columns of a rank are -inf
        top = finite(top)
    if hard:
        rivals = top.squeeze(1)
    else:
        shift = top * -LOG2_E
        torch.add(shift, work, alpha=LOG2_E, out=work)
        surprise = finite(work.clamp_(max=0)) if entropy else None
        # The top rival's 1 is in it: the bounds are for scores so large that their rounding errors overflow here.
        total = work.exp2_().sum(1, keepdim=True).clamp_(1e-6, 1e30)
        rivals = (total - 1).log1p_().sub_(shift, alpha=1 / LOG2_E).squeeze(1)
        if surprise is not None:
            among = (torch.log1p(total - 1) - surprise.mul_(work).sum(1, keepdim=True) / (LOG2_E * total)).squeeze(1)
            row_entropy = entropy_of_row(own - rivals, among) if here is None else among
    found = (own, rivals, mean_score, is_hit, row_entropy)
    if valid is None:
        return found
    return tuple(None if v is None else v.masked_fill(~valid, 0) for v in found)


def entropy_of_row(lead: Tensor, among: Tensor) -> Tensor:
    """H = p (-log p) + (1 - p) (-log(1 - p) + the entropy among the rivals)."""
    return torch.sigmoid(-lead) * (among - finite(logsigmoid(-lead))) - torch.sigmoid(lead) * finite(logsigmoid(lead))


def backward_block(
    scores: Tensor,
    weight: Tensor | None,
    hard: bool,
    out: Tensor | None,
    target: Tensor,
    valid: Tensor | None,
    own: Tensor,
    rivals: Tensor,
    entropy: Tensor | None,
    g_target: Tensor | None,
    g_rivals: Tensor | None,
    g_mean: Tensor | None,
    g_entropy: Tensor | None,
    here: Tensor | None = None,
) -> Tensor:
    """The gradient of a block: written to ``out``, of the scores' dtype, or returned as a new tensor."""
    dtype = own.dtype
    at = target.unsqueeze(1)
    in_place = out is not None and out.dtype == dtype
    if g_rivals is None:
        grad = torch.zeros_like(scores, dtype=dtype)
    else:
        r = rivals.unsqueeze(1)
        if hard:
            grad = hard_shares(scores.to(dtype), r, at, here)
        else:
            grad = _soft_shares(scores, r.clamp(min=DEEP[dtype]), out if in_place else None)
        grad.mul_(g_rivals.unsqueeze(1))
    to_own: Any = 0.0 if g_target is None else g_target.unsqueeze(1)
    if here is not None:
        to_own = torch.where(here.unsqueeze(1), to_own, grad.gather(1, at))
    grad.scatter_(1, at, to_own)
    if g_mean is not None:
        share = (g_mean / scores.shape[1]).unsqueeze(1)
        grad.add_(share if weight is None else share * per_class(weight, grad))
    if g_entropy is not None and entropy is not None:
        log_p = finite(scores - torch.logaddexp(own, rivals).unsqueeze(1))
        grad.sub_(log_p.exp().mul_(log_p.add_(entropy.unsqueeze(1))).mul_(g_entropy.unsqueeze(1)))
    if valid is not None:
        grad.masked_fill_(~valid.unsqueeze(1), 0.0)
    if out is None:
        return grad if grad.dtype == scores.dtype else grad.to(scores.dtype)
    return out if in_place and grad is out else out.copy_(grad)


def _soft_shares(scores: Tensor, rivals: Tensor, out: Tensor | None) -> Tensor:
    """exp(scores - rivals), for the rivals; the target's place may hold anything."""
    near = rivals.device.type == "cpu" and (not rivals.numel() or rivals.abs().amax().item() < _FAR)
    if near:
        return torch.add(rivals.mul_(-LOG2_E), scores, alpha=LOG2_E, out=out).exp2_()
    return torch.sub(scores, rivals, out=out).clamp_(max=0).mul_(LOG2_E).exp2_()


Cut = tuple[slice, ...]


def row_blocks(scores: Tensor) -> list[tuple[Cut, Cut]] | None:
    """Index pairs (into the scores, into the rows) that cut the work into blocks; None if one block holds it all."""
    size = _BLOCK_BYTES // accumulation_dtype(scores).itemsize
    if scores.numel() <= size:
        return None
    gap_rows, classes, columns = (*scores.shape, 1)[:3]
    width = min(columns, max(1, size // classes))
    height = max(1, size // (classes * width))
    down = [slice(top, top + height) for top in range(0, gap_rows, height)]
    if scores.ndim == 2:
        return [((d,), (d,)) for d in down]
    across = [slice(left, left + width) for left in range(0, columns, width)]
    return [((d, slice(None), a), (d, a)) for d in down for a in across]


def finite(x: Tensor) -> Tensor:
    return x.clamp(min=LOWEST[x.dtype])


def hard_shares(z: Tensor, r: Tensor, at: Tensor, here: Tensor | None = None) -> Tensor:
    """The rivals that reach the maximum share it evenly."""
    tie = (z == r).to(z.dtype)
    tie.scatter_(1, at, 0.0 if here is None else tie.gather(1, at).masked_fill_(here.unsqueeze(1), 0.0))
    return tie / tie.sum(1, keepdim=True).clamp(min=1.0)


def per_class(weight: Tensor, like: Tensor) -> Tensor:
    """Weights (C,) shaped to multiply scores (N, C, ...)."""
    return weight.to(like.dtype).view(1, -1, *(1,) * (like.ndim - 2))
