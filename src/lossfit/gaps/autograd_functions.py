"""The statistics of rows and their gradient as autograd Functions."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from lossfit import kernels
from lossfit.core.autograd import batched, call, fold, transformed
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.row_stats import RowInputs, RowStats, Upstream, Wanted, finite
from lossfit.gaps.blocks import backward_block, forward_block, hard_shares, per_class, row_blocks
from lossfit.native import gaps as native

WEIGHT = 1 + RowInputs._fields.index("weight")


def row_stats(scores: Tensor, rows: RowInputs, wanted: Wanted) -> RowStats:
    """The statistics of rows of scores (N, C) or (N, C, S)."""
    if kernels.chosen(scores):
        from lossfit.kernels import launch

        return launch.forward(scores, rows, wanted)
    if _is_native(scores, rows):
        return native.row_stats(scores, rows, wanted)
    blocks = row_blocks(scores)
    if blocks is None:
        return forward_block(scores, rows, wanted)
    dtype = accumulation_dtype(scores)
    mean, hit, among = wanted.mean, wanted.hit, wanted.entropy
    kinds = (dtype, dtype, dtype, dtype if mean else None, torch.bool if hit else None, dtype if among else None)
    out = [None if kind is None else scores.new_empty(rows.target.shape, dtype=kind) for kind in kinds]
    buffer = scores.new_empty(scores[blocks[0][0]].numel(), dtype=dtype)  # the first block is the largest
    for at_scores, at_rows in blocks:
        stats = forward_block(scores[at_scores], rows.cut(at_rows), wanted, buffer)
        for whole, piece in zip(out, stats, strict=True):
            if whole is not None and piece is not None:
                whole[at_rows] = piece
    return RowStats(*out)  # type: ignore[arg-type]


def scores_grad(scores: Tensor, rows: RowInputs, stats: RowStats, upstream: Upstream, hard: bool) -> Tensor:
    """The gradient with respect to the scores.

    With q the rivals' shares (exp(z - top - log_sum), or 1 / #ties for the hard gap):
    dz_y = g_own, dz_k = g_log_sum q_k + g_mean w_k / C - g_among q_k (log q_k + among).
    """
    if kernels.chosen(scores):
        from lossfit.kernels import launch

        return launch.backward(scores, rows, stats, upstream, hard)
    if _is_native(scores, rows):
        return native.scores_grad(scores, rows, upstream, hard)
    blocks = row_blocks(scores)
    if blocks is None:
        return backward_block(scores, rows, stats, upstream, hard)
    out = torch.empty_like(scores)
    for at_scores, at in blocks:
        backward_block(scores[at_scores], rows.cut(at), stats.cut(at), upstream.cut(at), hard, out[at_scores])
    return out


def _is_native(scores: Tensor, rows: RowInputs) -> bool:
    """Whether the native kernels are to work on rows, of which they need all columns."""
    return rows.here is None and rows.own is None and kernels.is_native(scores)


class Forward(Function):
    """(scores, *:class:`RowInputs`, *:class:`Wanted`) -> :class:`RowStats`; ``top`` and ``hit`` get no gradient."""

    @staticmethod
    def forward(scores: Tensor, *arguments: Any) -> tuple[Tensor | None, ...]:
        return tuple(row_stats(scores, RowInputs(*arguments[:5]), Wanted(*arguments[5:])))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.wanted, ctx.backend = Wanted(*inputs[6:]), kernels.current()
        stats = RowStats(*output)
        ctx.mark_non_differentiable(*(v for v in (stats.top, stats.hit) if v is not None))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:6], *stats._replace(mean=None, hit=None))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        own, _, log_sum, mean, _, among = grads
        upstream = Upstream(own, log_sum, mean, among)
        back: Any = partial(call, Backward) if torch.is_grad_enabled() or transformed() else Backward.forward
        back = kernels.with_backend(ctx.backend, back)
        grad: Any
        if batched(*upstream):  # it is linear in each of them
            one = torch.ones_like(ctx.saved_tensors[6])
            each = [(g, [one if u is g else None for u in upstream]) for g in upstream if g is not None]
            grad = sum(g.unsqueeze(1) * back(*ctx.saved_tensors, *ones, ctx.wanted.hard) for g, ones in each)
        else:
            grad = back(*ctx.saved_tensors, *upstream, ctx.wanted.hard)
        return (grad, *(None,) * 9)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, tuple[int | None, ...]]:
        if in_dims[WEIGHT] is not None:
            raise NotImplementedError("Expected `mean_weight` to be the same for all samples under vmap.")
        stats = Forward.apply(*fold(info.batch_size, in_dims, arguments, per_class=(WEIGHT,)))
        out = tuple(None if v is None else v.unflatten(0, (info.batch_size, -1)) for v in stats)
        return out, tuple(None if v is None else 0 for v in out)


class Backward(Function):
    """(scores, *:class:`RowInputs`, *:class:`RowStats`, *:class:`Upstream`, hard) -> the gradient of the scores.

    It is differentiable in scores and upstream, with the statistics taken as functions of the scores.
    """

    @staticmethod
    def forward(scores: Tensor, *arguments: Any) -> Tensor:
        rows, stats, upstream = RowInputs(*arguments[:5]), RowStats(*arguments[5:11]), Upstream(*arguments[11:15])
        return scores_grad(scores, rows, stats, upstream, arguments[15])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.hard = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[Tensor | None, ...]:
        if v is None:
            return (None,) * 17
        scores, *tensors = ctx.saved_tensors
        rows, stats, upstream = RowInputs(*tensors[:5]), RowStats(*tensors[5:11]), Upstream(*tensors[11:])
        along = _Along(scores, rows, stats.top, v, ctx.hard)
        to_upstream = (None if g is None else slope() for g, slope in zip(upstream, along.slopes, strict=True))
        return (along.bend(upstream), *(None,) * 11, *to_upstream, None)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Tensor, int]:
        out = Backward.apply(*fold(info.batch_size, in_dims, arguments, per_class=(WEIGHT,)))
        return out.unflatten(0, (info.batch_size, -1)), 0


class _Along:
    """The derivatives of the statistics along a direction v (N, C, ...) of the scores.

    All by plain torch operations on the scores, so that autograd goes on from here.
    """

    def __init__(self, scores: Tensor, rows: RowInputs, top: Tensor, v: Tensor, hard: bool) -> None:
        self.rows, self.hard, self.classes, self.dtype = rows, hard, scores.shape[1], scores.dtype
        self.at = rows.target.unsqueeze(1)
        z, self.v = scores.to(top.dtype), v.to(top.dtype)
        if rows.valid is not None:
            z, self.v = (x.masked_fill(~rows.valid.unsqueeze(1), 0.0) for x in (z, self.v))
        behind = (z - top.unsqueeze(1)).scatter(1, self.at, -torch.inf)
        if hard:
            self.share = hard_shares(z, top.unsqueeze(1), self.at)
        else:
            total = behind.exp().sum(1, keepdim=True).clamp(min=torch.finfo(z.dtype).tiny)
            self.log_share = finite(behind - total.log())
            self.share = behind.exp() / total
        self.slopes = (self.own, self.log_sum, self.mean, self.among)

    def own(self) -> Tensor:
        return self.v.gather(1, self.at).squeeze(1)

    def log_sum(self) -> Tensor:
        return (self.share * self.v).sum(1)

    def mean(self) -> Tensor:
        v = self.v.scatter(1, self.at, 0.0)
        return (v if self.rows.weight is None else v * per_class(self.rows.weight, v)).sum(1) / self.classes

    def among(self) -> Tensor:
        return -(self.share * self._level() * self.v).sum(1)

    def _level(self) -> Tensor:
        """Log q_k plus the entropy among the rivals."""
        return self.log_share - (self.share * self.log_share).sum(1, keepdim=True)

    def bend(self, upstream: Upstream) -> Tensor | None:
        """The derivative of the gradient of the scores along v, with upstream gradients held constant."""
        if self.hard or (upstream.log_sum is None and upstream.among is None):
            return None
        apart = self.share * (self.v - self.log_sum().unsqueeze(1))
        grad: Any = 0.0
        if upstream.log_sum is not None:
            grad = upstream.log_sum.unsqueeze(1) * apart
        if upstream.among is not None:
            slope = apart * (self._level() + 1) + self.share * self.among().unsqueeze(1)
            grad = grad - upstream.among.unsqueeze(1) * slope
        return grad.to(self.dtype)  # type: ignore[no-any-return]
