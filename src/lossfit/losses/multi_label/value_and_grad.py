"""Losses that are found together with their slope, block by block, in one pass over the scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from lossfit.core.autograd import call, differentiated_again, transformed
from lossfit.core.limits import limits
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.reduce import Weighing

# Below this, calls take longer than their work, and fewer of them are better (measured).
_FEW = 1 << 14


class Sloped(NamedTuple):
    """The losses of the rows (N, ...), and a function that gives their derivatives by the scores (N, C, ...)."""

    value: Tensor
    slope: Callable[[], Tensor]


class Fast(NamedTuple):
    """The same where nothing is allocated: (scores, labels, slope to be written, work) -> the losses.

    ``work`` has ``buffers`` rows, each with room for the scores. Losses and slope are to be multiplied by ``scale``.
    """

    function: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    buffers: int
    scale: float


class Body(NamedTuple):
    """A function of scores, labels and the known ones among them (None for all), and whether it may see blocks.

    The value must be differentiable twice by autograd, which is used under transformations, under ``torch.compile``
    and for second derivatives. ``blocks`` is False where what else the function uses has a gradient or a row per
    sample. ``fast`` is for eager mode and labels that are all known; autograd never sees it.
    """

    function: Callable[[Tensor, Tensor, Tensor | None], Sloped]
    blocks: bool = True
    fast: Fast | None = None


def reduced(body: Body, weighing: Weighing, scores: Tensor, labels: Tensor, known: Tensor | None) -> Tensor:
    """The loss of a batch (N, C, ...). Labels and scores that are not known may hold anything."""
    if weighing.is_trainable or not body.blocks or torch.compiler.is_compiling() or transformed():
        return _plain(body, weighing, scores, labels, known)
    if torch.is_grad_enabled() and scores.requires_grad:
        value: Tensor = call(_Sloped, body, weighing, labels, known, scores)
        return value
    return weighing.reduce(_in_blocks(body, scores, labels, known, False)[0])


def _plain(body: Body, weighing: Weighing, scores: Tensor, labels: Tensor, known: Tensor | None) -> Tensor:
    return weighing.reduce(body.function(*_prepared(scores, labels, known), known).value)


def _prepared(scores: Tensor, labels: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor]:
    dtype = accumulation_dtype(scores)
    scores = scores if scores.dtype == dtype else scores.to(dtype)
    labels = labels if labels.dtype == dtype else labels.to(dtype)
    if known is not None:
        scores, labels = scores.masked_fill(~known, 0.0), labels.masked_fill(~known, 0.0)
    return scores, labels


def _in_blocks(
    body: Body, scores: Tensor, labels: Tensor, known: Tensor | None, sloped: bool
) -> tuple[Tensor, Tensor | None, float]:
    """The losses, their slope, and what the slope is to be multiplied by."""
    rows = len(scores)
    size = scores.numel() // max(1, rows) * accumulation_dtype(scores).itemsize
    height = max(1, limits().label_bytes // max(1, size)) if scores.device.type == "cpu" else rows
    fast = body.fast if known is None and scores.numel() >= _FEW else None
    if rows <= height and fast is None:
        part = body.function(*_prepared(scores, labels, known), known)
        return part.value, part.slope() if sloped else None, 1.0
    value = scores.new_empty(scores.shape[:1] + scores.shape[2:], dtype=accumulation_dtype(scores))
    slope = torch.empty_like(scores, dtype=value.dtype) if sloped else None
    if fast is not None:
        work = value.new_empty(fast.buffers + 1, scores[:height].numel())
    for top in range(0, rows, height):
        at = slice(top, top + height)
        some, their, marked = scores[at], labels[at], None if known is None else known[at]
        if fast is not None:
            out = work[-1][: some.numel()].view(some.shape) if slope is None else slope[at]
            value[at] = fast.function(*_prepared(some, their, None), out, work[:-1])
            continue
        part = body.function(*_prepared(some, their, marked), marked)
        value[at] = part.value
        if slope is not None:
            slope[at] = part.slope()
    return (value, slope, 1.0) if fast is None else (value.mul_(fast.scale), slope, fast.scale)


class _Sloped(Function):
    """(body, weighing, labels, known, scores) -> the loss, with its slope at hand.

    The first backward pass turns the slope into the gradient in place; a further one finds it again.
    """

    @staticmethod
    def forward(
        ctx: Any, body: Body, weighing: Weighing, labels: Tensor, known: Tensor | None, scores: Tensor
    ) -> Tensor:
        value, ctx.slope, ctx.scale = _in_blocks(body, scores, labels, known, True)
        ctx.body, ctx.weighing, ctx.rows = body, weighing, value.shape
        ctx.save_for_backward(labels, known, scores)
        return weighing.reduce(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None, None, Tensor]:
        labels, known, scores = ctx.saved_tensors
        if differentiated_again(grad):
            with torch.enable_grad():
                scores = scores.view_as(scores)
                value = _plain(ctx.body, ctx.weighing, scores, labels, known)
            (to_scores,) = torch.autograd.grad(value, scores, grad, create_graph=torch.is_grad_enabled())
            return None, None, None, None, to_scores
        slope, ctx.slope = ctx.slope, None
        if slope is None:
            slope = _in_blocks(ctx.body, scores, labels, known, True)[1]
        upstream = ctx.weighing.spread(grad, ctx.rows.numel())
        if ctx.scale != 1:
            upstream = upstream * ctx.scale
        slope.mul_(upstream.unsqueeze(1) if upstream.ndim else upstream)
        return None, None, None, None, slope if slope.dtype == scores.dtype else slope.to(scores.dtype)
