"""The gap and its gradient as autograd Functions."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from lossfit import kernels
from lossfit.core.autograd import batched, call, fold, transformed
from lossfit.core.numerics import accumulation_dtype
from lossfit.gaps.blocks import backward_block, finite, forward_block, hard_shares, per_class, row_blocks
from lossfit.gaps.types import GapFields


class Forward(Function):
    """(scores, target, valid, weight, hard, mean?, hit?, entropy?, here) -> the fields of Gap.

    ``here`` marks the rows whose target is among these columns, where that is not all of them: see :class:`Sharded`.
    """

    @staticmethod
    def forward(
        scores: Tensor,
        target: Tensor,
        valid: Tensor | None,
        weight: Tensor | None,
        hard: bool,
        mean: bool,
        hit: bool,
        entropy: bool,
        here: Tensor | None,
    ) -> GapFields:
        if kernels.chosen(scores):
            from lossfit.kernels import launch

            return launch.forward(scores, target, valid, weight, hard, mean, hit, entropy, here)
        blocks = row_blocks(scores)
        if blocks is None:
            return forward_block(scores, target, valid, weight, hard, mean, hit, entropy, here)
        dtype = accumulation_dtype(scores)
        wanted = (dtype, dtype, dtype if mean else None, torch.bool if hit else None, dtype if entropy else None)
        out = tuple(None if kind is None else scores.new_empty(target.shape, dtype=kind) for kind in wanted)
        buffer = scores.new_empty(scores[blocks[0][0]].numel(), dtype=dtype)  # the first block is the largest
        for at_scores, at_rows in blocks:
            some, there = (None if v is None else v[at_rows] for v in (valid, here))
            part, own = scores[at_scores], target[at_rows]
            found = forward_block(part, own, some, weight, hard, mean, hit, entropy, there, buffer)
            for whole, piece in zip(out, found, strict=True):
                if whole is not None and piece is not None:
                    whole[at_rows] = piece
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: GapFields) -> None:
        scores, target, valid, weight, ctx.hard, *_ = inputs
        ctx.backend = kernels.current()
        own, rivals, _, hit, entropy = output
        if hit is not None:
            ctx.mark_non_differentiable(hit)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(scores, target, valid, weight, own, rivals, entropy)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> GapFields:
        upstream = (*grads[:3], grads[4])
        again = torch.is_grad_enabled() or transformed()
        back: Any = partial(call, Backward) if again else Backward.forward
        back = kernels.keeping(ctx.backend, back)
        grad: Any
        if batched(*upstream):  # it is linear in each of them
            one = torch.ones_like(ctx.saved_tensors[4])
            each = [(g, [one if u is g else None for u in upstream]) for g in upstream if g is not None]
            grad = sum(g.unsqueeze(1) * back(*ctx.saved_tensors, *ones, ctx.hard, None) for g, ones in each)
        else:
            grad = back(*ctx.saved_tensors, *upstream, ctx.hard, None)
        return (grad, *(None,) * 8)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[GapFields, tuple[int | None, ...]]:
        if in_dims[3] is not None:
            raise NotImplementedError("Expected `mean_weight` to be the same for all samples under vmap.")
        found = Forward.apply(*fold(info.batch_size, in_dims, arguments, per_class=(3,)))
        out = tuple(None if v is None else v.unflatten(0, (info.batch_size, -1)) for v in found)
        return out, tuple(None if v is None else 0 for v in out)


class Backward(Function):
    """The gradient with respect to the scores, itself differentiable.

    With q the rivals' shares (exp(z - r), or 1 / #ties for the hard gap), p = softmax(z) and l = log p:
    dz_k = g_target [k = y] + g_rivals q_k [k != y] + g_mean w_k / C - g_entropy p_k (l_k + H).
    """

    @staticmethod
    def forward(
        scores: Tensor,
        target: Tensor,
        valid: Tensor | None,
        weight: Tensor | None,
        own: Tensor,
        rivals: Tensor,
        entropy: Tensor | None,
        g_target: Tensor | None,
        g_rivals: Tensor | None,
        g_mean: Tensor | None,
        g_entropy: Tensor | None,
        hard: bool,
        here: Tensor | None,
    ) -> Tensor:
        per_row = (target, valid, own, rivals, entropy, g_target, g_rivals, g_mean, g_entropy, here)
        if kernels.chosen(scores):
            from lossfit.kernels import launch

            return launch.backward(scores, target, valid, weight, *per_row[2:-1], hard, here)
        blocks = row_blocks(scores)
        if blocks is None:
            return backward_block(scores, weight, hard, None, *per_row)
        out = torch.empty_like(scores)
        for at_scores, at_rows in blocks:
            part: Any = (None if v is None else v[at_rows] for v in per_row)
            backward_block(scores[at_scores], weight, hard, out[at_scores], *part)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.hard, _ = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> GapFields:
        """Plain torch operations, so that autograd goes on from here. ``v`` is (N, C, ...)."""
        if v is None:
            return (None,) * 13
        scores, target, valid, weight, own, rivals, entropy, *upstream = ctx.saved_tensors
        g_target, g_rivals, g_mean, g_entropy = upstream
        at = target.unsqueeze(1)
        z, v = scores.to(own.dtype), v.to(own.dtype)
        if valid is not None:
            z, v = z.masked_fill(~valid.unsqueeze(1), 0.0), v.masked_fill(~valid.unsqueeze(1), 0.0)
        r = rivals.unsqueeze(1)
        to_scores, to_own, to_rivals, to_entropy = [], None, [], None
        to_upstream: list[Tensor | None] = [None] * 4
        if g_target is not None:
            to_upstream[0] = v.gather(1, at).squeeze(1)
        if g_rivals is not None:
            share = hard_shares(z, r, at) if ctx.hard else (z - r).scatter(1, at, -torch.inf).exp()
            to_upstream[1] = (share * v).sum(1)
            if not ctx.hard:
                to_scores.append(g_rivals.unsqueeze(1) * share * v)
                to_rivals.append(-g_rivals * to_upstream[1])
        if g_mean is not None:
            to_upstream[2] = (v if weight is None else v * per_class(weight, v)).sum(1) / scores.shape[1]
        if g_entropy is not None:
            log_p = finite(z - torch.logaddexp(own, rivals).unsqueeze(1))
            pv = log_p.exp() * v
            slope = pv * (log_p + entropy.unsqueeze(1))
            to_upstream[3] = -slope.sum(1)
            to_entropy = -g_entropy * pv.sum(1)
            direct = -g_entropy.unsqueeze(1) * (slope + pv)
            to_scores.append(direct)
            to_lse = -direct.sum(1)
            to_own = to_lse * torch.sigmoid(own - rivals)
            to_rivals.append(to_lse * torch.sigmoid(rivals - own))
        grad_scores = sum(to_scores[1:], to_scores[0]).to(scores.dtype) if to_scores else None
        grad_rivals = sum(to_rivals[1:], to_rivals[0]) if to_rivals else None
        return (grad_scores, None, None, None, to_own, grad_rivals, to_entropy, *to_upstream, None, None)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Tensor, int]:
        out = Backward.apply(*fold(info.batch_size, in_dims, arguments, per_class=(3,)))
        return out.unflatten(0, (info.batch_size, -1)), 0
