"""The gap's kernels as operators that a compiler can place, and wrappers with the contract of ``lossfit.gaps``."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lossfit import gaps, kernels
from lossfit.kernels import gap

Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]

# Columns worked on at a time; half as many where more is kept for each, so that the registers hold it.
_BLOCK = 4096


def forward(
    scores: Tensor,
    target: Tensor,
    valid: Tensor | None,
    weight: Tensor | None,
    hard: bool,
    mean: bool,
    hit: bool,
    entropy: bool,
    here: Tensor | None = None,
) -> gaps.Rows:
    """What ``gaps.Forward.forward`` returns, for scores (N, C) or (N, C, S).

    Rows that ``here`` (N) or (N, S) marks as False have their target in other columns than these: none is left out,
    ``own`` is 0. With ``here`` the entropy is that among the rivals in these columns.
    """
    entropy = entropy and not hard
    shape = target.shape
    rows = [None if v is None else v.reshape(-1) for v in (target, valid, here)]
    found = _forward(_as_rows(scores), *rows, weight, hard, mean, hit, entropy)
    wanted = (True, True, mean, hit, entropy)
    return tuple(v.view(shape) if want else None for v, want in zip(found, wanted, strict=True))


def backward(
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
    here: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """What ``gaps.Backward.forward`` returns, in ``out`` where that is given.

    ``out`` has the shape and type of the scores, and may be the scores themselves.
    """
    per_row = (target, valid, here, own, rivals, entropy, g_target, g_rivals, g_mean, g_entropy)
    rows = [None if v is None else v.reshape(-1) for v in per_row]
    if out is not None and out.ndim == 2 and _in_order(out):
        _backward_into(out, None if out is scores else _as_rows(scores), *rows, weight, hard)
        return out
    grad: Tensor = _backward(_as_rows(scores), *rows, weight, hard)
    if scores.ndim > 2:
        grad = grad.view(scores.shape[0], *scores.shape[2:], scores.shape[1]).movedim(-1, 1)
    return grad if out is None else out.copy_(grad)


def _as_rows(scores: Tensor) -> Tensor:
    """Scores (N, C, ...) as (rows, C), the classes of a row next to each other."""
    if scores.ndim > 2:
        scores = scores.movedim(1, -1).reshape(-1, scores.shape[1])
    return scores if _in_order(scores) else scores.contiguous()


def _in_order(scores: Tensor) -> bool:
    return scores.stride(1) == 1 or scores.shape[1] == 1


@torch.library.custom_op("lossfit::gap_forward", mutates_args=())
def _forward(
    scores: Tensor,
    target: Tensor,
    valid: Tensor | None,
    here: Tensor | None,
    weight: Tensor | None,
    hard: bool,
    mean: bool,
    hit: bool,
    entropy: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Fields that are not wanted come back empty."""
    kernels.require(scores)
    out = _rows_like(scores, mean, hit, entropy)
    rows = scores.shape[0]
    if rows:
        fields = (v if want else None for v, want in zip(out, (True, True, mean, hit, entropy), strict=True))
        per_row = (None if v is None else v.contiguous() for v in (target, valid, here, weight))
        sizes, options = plan(scores, entropy=entropy)
        gap.forward[(rows,)](scores, *per_row, *fields, scores.stride(0), *sizes, HARD=hard, **options)
    return out


@_forward.register_fake
def _(
    scores: Tensor,
    target: Tensor,
    valid: Tensor | None,
    here: Tensor | None,
    weight: Tensor | None,
    hard: bool,
    mean: bool,
    hit: bool,
    entropy: bool,
) -> Five:
    return _rows_like(scores, mean, hit, entropy)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Five) -> None:
    scores, target, valid, here, weight, ctx.hard, ctx.mean, _, ctx.entropy = inputs
    own, rivals, _, _, entropy = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(scores, target, valid, here, weight, own, rivals, entropy if ctx.entropy else None)


def _differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    scores, target, valid, here, weight, own, rivals, entropy = ctx.saved_tensors
    g_target, g_rivals, g_mean, _, g_entropy = grads
    upstream = g_target, g_rivals, g_mean if ctx.mean else None, g_entropy if ctx.entropy else None
    grad = _backward(scores, target, valid, here, own, rivals, entropy, *upstream, weight, ctx.hard)
    return (grad, *(None,) * 8)


# For compilers. In eager mode ``gaps.Forward`` is around the operator, and differentiates twice and under torch.func.
_forward.register_autograd(_differentiate, setup_context=_keep)


def _rows_like(scores: Tensor, mean: bool, hit: bool, entropy: bool) -> Five:
    rows, dtype = scores.shape[0], gaps.accumulation_dtype(scores)
    return (
        scores.new_empty(rows, dtype=dtype),
        scores.new_empty(rows, dtype=dtype),
        scores.new_empty(rows if mean else 0, dtype=dtype),
        scores.new_empty(rows if hit else 0, dtype=torch.bool),
        scores.new_empty(rows if entropy else 0, dtype=dtype),
    )


@torch.library.custom_op("lossfit::gap_backward", mutates_args=())
def _backward(
    scores: Tensor,
    target: Tensor,
    valid: Tensor | None,
    here: Tensor | None,
    own: Tensor,
    rivals: Tensor,
    entropy: Tensor | None,
    g_target: Tensor | None,
    g_rivals: Tensor | None,
    g_mean: Tensor | None,
    g_entropy: Tensor | None,
    weight: Tensor | None,
    hard: bool,
) -> Tensor:
    out = scores.new_empty(scores.shape)
    per_row = (target, valid, here, weight, own, rivals, entropy, g_target, g_rivals, g_mean, g_entropy)
    _launch_backward(scores, out, per_row, hard)
    return out


@_backward.register_fake
def _(
    scores: Tensor,
    target: Tensor,
    valid: Tensor | None,
    here: Tensor | None,
    own: Tensor,
    rivals: Tensor,
    entropy: Tensor | None,
    g_target: Tensor | None,
    g_rivals: Tensor | None,
    g_mean: Tensor | None,
    g_entropy: Tensor | None,
    weight: Tensor | None,
    hard: bool,
) -> Tensor:
    return scores.new_empty(scores.shape)


@torch.library.custom_op("lossfit::gap_backward_into", mutates_args=("out",))
def _backward_into(
    out: Tensor,
    scores: Tensor | None,
    target: Tensor,
    valid: Tensor | None,
    here: Tensor | None,
    own: Tensor,
    rivals: Tensor,
    entropy: Tensor | None,
    g_target: Tensor | None,
    g_rivals: Tensor | None,
    g_mean: Tensor | None,
    g_entropy: Tensor | None,
    weight: Tensor | None,
    hard: bool,
) -> None:
    """Without scores, ``out`` holds them."""
    per_row = (target, valid, here, weight, own, rivals, entropy, g_target, g_rivals, g_mean, g_entropy)
    _launch_backward(out if scores is None else scores, out, per_row, hard)


def _launch_backward(scores: Tensor, out: Tensor, vectors: tuple[Tensor | None, ...], hard: bool) -> None:
    kernels.require(scores)
    rows = scores.shape[0]
    if rows:
        vectors = tuple(None if v is None else v.contiguous() for v in vectors)
        deep = gaps._DEEP[gaps.accumulation_dtype(scores)]
        sizes, options = plan(scores)
        strides = scores.stride(0), out.stride(0)
        gap.backward[(rows,)](scores, out, *vectors, *strides, *sizes, DEEP=deep, HARD=hard, **options)


def plan(scores: Tensor, *, entropy: bool = False) -> tuple[tuple[int, int], dict[str, Any]]:
    """The numbers of classes and of blocks; and what the kernels are compiled for."""
    classes, dtype = scores.shape[1], gaps.accumulation_dtype(scores)
    widest = _BLOCK // 2 if entropy or dtype == torch.float64 else _BLOCK
    block = min(widest, max(16, triton.next_power_of_2(classes)))
    return (classes, triton.cdiv(classes, block)), {
        "DTYPE": tl.float64 if dtype == torch.float64 else tl.float32,
        "LOWEST": gaps._LOWEST[dtype],
        "BLOCK": block,
        "num_warps": min(8, max(1, block // 256)),
    }
