"""The gap's kernels as operators that a compiler can place, and functions with the contract of ``lossfit.gaps``."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from lossfit import kernels
from lossfit.core.limits import limits
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.row_stats import RowInputs, RowStats, Upstream, Wanted, join
from lossfit.kernels import gap

Six = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]

# Programs for each multiprocessor of the GPU: where there are fewer rows, a row is worked on in parts.
_PROGRAMS = 2


class Scoring(NamedTuple):
    """How scores are made of logits: ``cap`` tanh(z / ``cap``) / ``divisor`` (N,) + ``shift`` (C,).

    Attributes:
        own_shift: the shifts of the targets (N,), where ``rows.own`` are their logits.
    """

    cap: float = 0.0
    divisor: Tensor | None = None
    shift: Tensor | None = None
    own_shift: Tensor | None = None


PLAIN = Scoring()


def forward(scores: Tensor, rows: RowInputs, wanted: Wanted, scoring: Scoring = PLAIN) -> RowStats:
    """The statistics of rows of logits (N, C) or (N, C, S); ``own`` and ``top`` are capped logits.

    Rows that ``rows.here`` marks as False have their target in other columns than these: no column of theirs is left
    out, and ``own`` is 0.
    """
    wanted = wanted._replace(entropy=wanted.entropy and not wanted.hard)
    shape = rows.target.shape
    stats = RowStats(*_forward(_as_rows(scores), *_flat(rows), *wanted, *scoring))
    there = (True, True, True, *wanted[1:])
    return RowStats(*(v.view(shape) if want else None for v, want in zip(stats, there, strict=True)))  # type: ignore


def backward(
    scores: Tensor,
    rows: RowInputs,
    stats: RowStats,
    upstream: Upstream,
    hard: bool,
    out: Tensor | None = None,
    scoring: Scoring = PLAIN,
) -> Tensor:
    """The gradient of the logits, in ``out`` where that is given: of their shape and type, or they themselves."""
    per_row = stats.top, stats.log_sum, stats.among, *upstream
    flat = [None if v is None else v.reshape(-1) for v in per_row]
    given = *_flat(rows), *flat, hard, *scoring[:3]
    if out is not None and out.ndim == 2 and _in_order(out):
        _backward_into(out, None if out is scores else _as_rows(scores), *given)
        return out
    grad: Tensor = _backward(_as_rows(scores), *given)
    if scores.ndim > 2:
        grad = grad.view(scores.shape[0], *scores.shape[2:], scores.shape[1]).movedim(-1, 1)
    return grad if out is None else out.copy_(grad)


def _flat(rows: RowInputs) -> RowInputs:
    return rows.each(lambda v: v.reshape(-1))


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
    own: Tensor | None,
    weight: Tensor | None,
    hard: bool,
    mean: bool,
    hit: bool,
    entropy: bool,
    cap: float = 0.0,
    divisor: Tensor | None = None,
    shift: Tensor | None = None,
    own_shift: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Statistics that are not wanted come back empty."""
    kernels.require(scores)
    rows = scores.shape[0]
    (classes, blocks), options = plan(scores, entropy=entropy, heavy=cap > 0)
    parts, blocks = _parts(scores, blocks)
    out = _stats_like(scores, mean, hit, entropy, parts)
    if rows:
        wanted = True, True, True, mean, hit, entropy
        stats = (v if want else None for v, want in zip(out, wanted, strict=True))
        inputs = target, valid, here, own, weight, divisor, shift, own_shift
        given = (None if v is None else v.contiguous() for v in inputs)
        options |= {"CAP": cap, "HARD": hard, "TINY": torch.finfo(out[0].dtype).tiny}
        with torch.cuda.device_of(scores):
            gap.forward[(rows, parts)](scores, *given, *stats, scores.stride(0), classes, blocks, **options)
        if parts > 1:
            return _whole(out, parts, hard, divisor, valid)
    return out


def _whole(out: Six, parts: int, hard: bool, divisor: Tensor | None, valid: Tensor | None) -> Six:
    """The statistics of rows, from those of their parts."""
    own, top, log_sum, *optional = (v.view(-1, parts).t() for v in out)
    mean, hit, among = (v if v.numel() else None for v in optional)
    whole = join(RowStats(own, top, log_sum, mean, hit, among), hard, divisor)
    whole = whole._replace(own=own[0].clone()).masked(valid)  # each part has read the target's score
    first, second, third, fourth, fifth, sixth = (
        o[:0].clone() if v is None else v for o, v in zip(out, whole, strict=True)
    )
    return first, second, third, fourth, fifth, sixth


def _parts(scores: Tensor, blocks: int) -> tuple[int, int]:
    """In how many parts a row is worked on, so that few rows keep a GPU busy, and how many blocks each has."""
    parts = min(blocks, max(1, _programs(scores.device) // max(1, scores.shape[0])))
    each = triton.cdiv(blocks, parts)
    return triton.cdiv(blocks, each), each


def _programs(device: torch.device) -> int:
    """How many programs keep it busy."""
    if device.type != "cuda":
        return 1
    return _PROGRAMS * int(torch.cuda.get_device_properties(device).multi_processor_count)


@_forward.register_fake
def _(scores: Tensor, *given: Any, **_: Any) -> Six:
    mean, hit, entropy = given[6:9]
    return _stats_like(scores, mean, hit, entropy)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Six) -> None:
    scores, *rows, ctx.hard, ctx.mean, _, ctx.entropy, ctx.cap, divisor, shift, _ = inputs
    _, top, log_sum, _, _, among = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(scores, *rows, top, log_sum, among if ctx.entropy else None, divisor, shift)


def _differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    *given, divisor, shift = ctx.saved_tensors
    own, _, log_sum, mean, _, among = grads
    upstream = own, log_sum, mean if ctx.mean else None, among if ctx.entropy else None
    grad = _backward(*given, *upstream, ctx.hard, ctx.cap, divisor, shift)
    return (grad, *(None,) * 13)


# For compilers. In eager mode ``gaps.Forward`` is around the operator, and differentiates twice and under torch.func.
_forward.register_autograd(_differentiate, setup_context=_keep)


def _stats_like(scores: Tensor, mean: bool, hit: bool, entropy: bool, parts: int = 1) -> Six:
    rows, dtype = scores.shape[0] * parts, accumulation_dtype(scores)
    return (
        scores.new_empty(rows, dtype=dtype),
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
    own: Tensor | None,
    weight: Tensor | None,
    top: Tensor,
    log_sum: Tensor,
    among: Tensor | None,
    g_own: Tensor | None,
    g_log_sum: Tensor | None,
    g_mean: Tensor | None,
    g_among: Tensor | None,
    hard: bool,
    cap: float = 0.0,
    divisor: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    out = scores.new_empty(scores.shape)
    stats = top, log_sum, among, g_own, g_log_sum, g_mean, g_among
    _launch_backward(scores, out, (target, valid, here, weight, divisor, shift, *stats), hard, cap)
    return out


@_backward.register_fake
def _(scores: Tensor, *_: Any, **__: Any) -> Tensor:
    return scores.new_empty(scores.shape)


@torch.library.custom_op("lossfit::gap_backward_into", mutates_args=("out",))
def _backward_into(
    out: Tensor,
    scores: Tensor | None,
    target: Tensor,
    valid: Tensor | None,
    here: Tensor | None,
    own: Tensor | None,
    weight: Tensor | None,
    top: Tensor,
    log_sum: Tensor,
    among: Tensor | None,
    g_own: Tensor | None,
    g_log_sum: Tensor | None,
    g_mean: Tensor | None,
    g_among: Tensor | None,
    hard: bool,
    cap: float,
    divisor: Tensor | None,
    shift: Tensor | None,
) -> None:
    """Without scores, ``out`` holds them."""
    stats = top, log_sum, among, g_own, g_log_sum, g_mean, g_among
    vectors = target, valid, here, weight, divisor, shift, *stats
    _launch_backward(out if scores is None else scores, out, vectors, hard, cap)


def _launch_backward(scores: Tensor, out: Tensor, vectors: tuple[Tensor | None, ...], hard: bool, cap: float) -> None:
    kernels.require(scores)
    rows = scores.shape[0]
    if not rows:
        return
    vectors = tuple(None if v is None else v.contiguous() for v in vectors)
    (classes, blocks), options = plan(scores)
    parts, blocks = (1, blocks) if hard else _parts(scores, blocks)
    options |= {"CAP": cap, "HARD": hard}
    strides = scores.stride(0), out.stride(0)
    with torch.cuda.device_of(scores):
        gap.backward[(rows, parts)](scores, out, *vectors, *strides, classes, blocks, **options)


def plan(scores: Tensor, *, entropy: bool = False, heavy: bool = False) -> tuple[tuple[int, int], dict[str, Any]]:
    """The numbers of classes and of blocks; and what the kernels are compiled for."""
    classes, dtype = scores.shape[1], accumulation_dtype(scores)
    kept = (4 if entropy or heavy else 2 if dtype == torch.float64 else 1) * (2 if entropy and heavy else 1)
    widest = limits().kernel_block // kept
    block = min(widest, max(16, triton.next_power_of_2(classes)))
    return (classes, triton.cdiv(classes, block)), {
        "DTYPE": tl.float64 if dtype == torch.float64 else tl.float32,
        "LOWEST": torch.finfo(dtype).min,
        "BLOCK": block,
        # With 2 warps for 512 scores of bfloat16 that are capped, the compiler spills registers where all is wanted.
        "num_warps": min(8, max(1, block // (128 if entropy and heavy else 256))),
    }
