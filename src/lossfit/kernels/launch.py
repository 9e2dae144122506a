"""The gap's kernels as operators that a compiler can place, and wrappers with the contract of ``lossfit.gaps.gap``."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from lossfit import kernels
from lossfit.core.numerics import DEEP, LOWEST, accumulation_dtype
from lossfit.gaps.blocks import entropy_of_row
from lossfit.gaps.types import GapFields
from lossfit.kernels import gap

Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]

# Columns worked on at a time; half or a quarter as many where more is kept for each, so that the registers hold it.
_BLOCK = 4096
# Programs for each multiprocessor of the GPU: where there are fewer rows, a row is worked on in parts.
_PROGRAMS = 2


class Scoring(NamedTuple):
    """How scores are made of logits: ``cap`` tanh(z / ``cap``) / ``divisor`` (N,) + ``shift`` (C,)."""

    cap: float = 0.0
    divisor: Tensor | None = None
    shift: Tensor | None = None


PLAIN = Scoring()


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
    scoring: Scoring = PLAIN,
) -> GapFields:
    """What ``gaps.Forward.forward`` returns, for scores (N, C) or (N, C, S), or logits that become them.

    Rows that ``here`` (N) or (N, S) marks as False have their target in other columns than these: none is left out,
    ``own`` is 0. With ``here`` the entropy is that among the rivals in these columns.
    """
    entropy = entropy and not hard
    shape = target.shape
    rows = [None if v is None else v.reshape(-1) for v in (target, valid, here)]
    found = _forward(_as_rows(scores), *rows, weight, hard, mean, hit, entropy, *scoring)
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
    scoring: Scoring = PLAIN,
    kept: Tensor | None = None,
) -> Tensor:
    """What ``gaps.Backward.forward`` returns, in ``out`` where that is given.

    ``out`` has the shape and type of the scores, and may be the scores themselves. ``kept`` is filled: see
    :func:`tiles`.
    """
    per_row = (target, valid, here, own, rivals, entropy, g_target, g_rivals, g_mean, g_entropy)
    rows = [None if v is None else v.reshape(-1) for v in per_row]
    if out is not None and out.ndim == 2 and _in_order(out):
        _backward_into(out, None if out is scores else _as_rows(scores), *rows, weight, hard, *scoring, kept)
        return out
    grad: Tensor = _backward(_as_rows(scores), *rows, weight, hard, *scoring)
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
    cap: float = 0.0,
    divisor: Tensor | None = None,
    shift: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Fields that are not wanted come back empty."""
    kernels.require(scores)
    rows = scores.shape[0]
    (classes, blocks), options = plan(scores, entropy=entropy, heavy=hard and cap > 0)
    parts, blocks = _parts(scores, blocks)
    out = _rows_like(scores, mean, hit, entropy, parts)
    if rows:
        wanted = True, True, mean, hit, entropy
        fields = (v if want else None for v, want in zip(out, wanted, strict=True))
        given = (None if v is None else v.contiguous() for v in (target, valid, here, weight, divisor, shift))
        options |= {"CAP": cap, "HARD": hard, "WHOLE": here is None and parts == 1}
        with torch.cuda.device_of(scores):
            gap.forward[(rows, parts)](scores, *given, *fields, scores.stride(0), classes, blocks, **options)
        if parts > 1:
            return _whole(out, parts, hard, valid, here is None)
    return out


class Joined(NamedTuple):
    """The rivals of whole rows, and the entropy among them."""

    rivals: Tensor
    among: Tensor | None

    def of_row(self, own: Tensor) -> Tensor | None:
        """The entropy of the row, with the target."""
        return None if self.among is None else entropy_of_row(own - self.rivals, self.among)


def join(rivals: Tensor, among: Tensor | None) -> Joined:
    """Soft rivals of parts of the rows (parts, N), and the entropy among those of each part, to those of the rows."""
    joined, top = rivals.logsumexp(0), rivals.amax(0)
    if among is not None:
        behind = rivals - top
        share = behind.exp()
        among = (share * (among - behind)).sum(0) / share.sum(0) + (joined - top)
    return Joined(joined, among)


def _whole(found: Five, parts: int, hard: bool, valid: Tensor | None, alone: bool) -> Five:
    """The fields of rows, from those of their parts; the entropy is the row's where the columns are ``alone``."""
    own, rivals, mean, hit, entropy = (v.view(-1, parts).t() for v in found)
    joined = Joined(rivals.amax(0), None) if hard else join(rivals, entropy if entropy.numel() else None)
    row_entropy = joined.of_row(own[0]) if alone else joined.among
    fields = own[0], joined.rivals, mean.sum(0), hit.all(0), entropy.sum(0) if row_entropy is None else row_entropy
    masked = (v.masked_fill(~valid, 0) if valid is not None and v.numel() else v.clone() for v in fields)
    first, second, third, fourth, fifth = masked
    return first, second, third, fourth, fifth


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
    cap: float = 0.0,
    divisor: Tensor | None = None,
    shift: Tensor | None = None,
) -> Five:
    return _rows_like(scores, mean, hit, entropy)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Five) -> None:
    scores, target, valid, here, weight, ctx.hard, ctx.mean, _, ctx.entropy, ctx.cap, divisor, shift = inputs
    own, rivals, _, _, entropy = output
    ctx.set_materialize_grads(False)
    needed = entropy if ctx.entropy else None
    ctx.save_for_backward(scores, target, valid, here, weight, own, rivals, needed, divisor, shift)


def _differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    scores, target, valid, here, weight, own, rivals, entropy, divisor, shift = ctx.saved_tensors
    g_target, g_rivals, g_mean, _, g_entropy = grads
    upstream = g_target, g_rivals, g_mean if ctx.mean else None, g_entropy if ctx.entropy else None
    per_row = target, valid, here, own, rivals, entropy, *upstream
    grad = _backward(scores, *per_row, weight, ctx.hard, ctx.cap, divisor, shift)
    return (grad, *(None,) * 11)


# For compilers. In eager mode ``gaps.Forward`` is around the operator, and differentiates twice and under torch.func.
_forward.register_autograd(_differentiate, setup_context=_keep)


def _rows_like(scores: Tensor, mean: bool, hit: bool, entropy: bool, parts: int = 1) -> Five:
    rows, dtype = scores.shape[0] * parts, accumulation_dtype(scores)
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
    cap: float = 0.0,
    divisor: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    out = scores.new_empty(scores.shape)
    fields = own, rivals, entropy, g_target, g_rivals, g_mean, g_entropy
    _launch_backward(scores, out, (target, valid, here, weight, divisor, shift, *fields), hard, cap, None)
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
    cap: float = 0.0,
    divisor: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    return scores.new_empty(scores.shape)


@torch.library.custom_op("lossfit::gap_backward_into", mutates_args=("out", "kept"))
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
    cap: float,
    divisor: Tensor | None,
    shift: Tensor | None,
    kept: Tensor | None,
) -> None:
    """Without scores, ``out`` holds them.

    ``kept`` has no default: PyTorch 2.11 cannot leave out what is written to.
    """
    fields = own, rivals, entropy, g_target, g_rivals, g_mean, g_entropy
    vectors = target, valid, here, weight, divisor, shift, *fields
    _launch_backward(out if scores is None else scores, out, vectors, hard, cap, kept)


def _launch_backward(
    scores: Tensor, out: Tensor, vectors: tuple[Tensor | None, ...], hard: bool, cap: float, kept: Tensor | None
) -> None:
    kernels.require(scores)
    rows = scores.shape[0]
    if not rows:
        return
    vectors = tuple(None if v is None else v.contiguous() for v in vectors)
    (classes, blocks), options = plan(scores, tiled=kept is not None)
    parts, blocks = (1, blocks) if hard or kept is not None else _parts(scores, blocks)
    options |= {
        "DEEP": DEEP[accumulation_dtype(scores)],
        "CAP": cap,
        "HARD": hard,
        "NEGLIGIBLE": torch.finfo(out.dtype).eps / 2,
    }
    strides = scores.stride(0), out.stride(0)
    with torch.cuda.device_of(scores):
        gap.backward[(rows, parts)](scores, out, *vectors, kept, *strides, classes, blocks, **options)


def tiles(scores: Tensor) -> Tensor:
    """Room for which tiles (N, tiles) of a gradient are not negligible; the others are not stored."""
    (_, blocks), options = plan(scores, tiled=True)
    return scores.new_empty((scores.shape[0], blocks * options["BLOCK"] // gap.TILE.value), dtype=torch.bool)


def plan(
    scores: Tensor, *, entropy: bool = False, heavy: bool = False, tiled: bool = False
) -> tuple[tuple[int, int], dict[str, Any]]:
    """The numbers of classes and of blocks; and what the kernels are compiled for."""
    classes, dtype = scores.shape[1], accumulation_dtype(scores)
    widest = _BLOCK // 4 if entropy else _BLOCK // 2 if heavy or dtype == torch.float64 else _BLOCK
    block = min(widest, max(gap.TILE.value if tiled else 16, triton.next_power_of_2(classes)))
    return (classes, triton.cdiv(classes, block)), {
        "DTYPE": tl.float64 if dtype == torch.float64 else tl.float32,
        "LOWEST": LOWEST[dtype],
        "BLOCK": block,
        "num_warps": min(8, max(1, block // 256)),
    }
