"""Products with a gradient of which only some tiles are stored: a block of which no row has its tile is skipped.

Which ones are stored is known to the device alone, so the host need not wait.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lossfit import kernels
from lossfit.kernels.gap import TILE

# The tile of the result that a program makes, and the rows that are skipped together.
_ROWS, _FEATURES = 64, 64


@triton.jit
def times_weight(
    grad,  # (R, C), rows `grad_stride` apart
    kept,  # (R, tiles) bool
    weight,  # (C, D)
    out,  # (R, D)
    grad_stride,
    rows,
    classes,
    features,
    tiles,
    WIDEN: tl.constexpr,
    ROWS: tl.constexpr,
    FEATURES: tl.constexpr,
):
    r = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    d = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    total = tl.zeros([ROWS, FEATURES], tl.float32)
    for i in range(tiles):
        live = tl.load(kept + r * tiles + i, mask=r < rows, other=0) != 0
        if tl.max(live.to(tl.int32), 0) > 0:
            k = tl.cast(i, tl.int64) * TILE + tl.arange(0, TILE)
            there = k < classes
            g = tl.load(grad + r[:, None] * grad_stride + k[None, :], mask=live[:, None] & there[None, :], other=0.0)
            inside = there[:, None] & (d < features)[None, :]
            w = tl.load(weight + k[:, None] * features + d[None, :], mask=inside, other=0.0)
            if WIDEN:
                g, w = g.to(tl.float32), w.to(tl.float32)
            total = tl.dot(g, w, total, input_precision="ieee")
    inside = (r < rows)[:, None] & (d < features)[None, :]
    tl.store(out + r[:, None] * features + d[None, :], total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def times_features(
    grad,  # (R, C), rows `grad_stride` apart
    kept,  # (R, tiles) bool
    x,  # (R, D)
    out,  # (C, D), added to
    grad_stride,
    rows,
    classes,
    features,
    tiles,
    blocks,
    WIDEN: tl.constexpr,
    ROWS: tl.constexpr,
    FEATURES: tl.constexpr,
):
    tile = tl.program_id(0).to(tl.int64)
    k = tile * TILE + tl.arange(0, TILE)
    there = k < classes
    d = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    total = tl.zeros([TILE, FEATURES], tl.float32)
    added = 0
    for i in range(blocks):
        r = tl.cast(i, tl.int64) * ROWS + tl.arange(0, ROWS)
        live = tl.load(kept + r * tiles + tile, mask=r < rows, other=0) != 0
        if tl.max(live.to(tl.int32), 0) > 0:
            added = 1
            g = tl.load(grad + r[None, :] * grad_stride + k[:, None], mask=live[None, :] & there[:, None], other=0.0)
            inside = (r < rows)[:, None] & (d < features)[None, :]
            f = tl.load(x + r[:, None] * features + d[None, :], mask=inside, other=0.0)
            if WIDEN:
                g, f = g.to(tl.float32), f.to(tl.float32)
            total = tl.dot(g, f, total, input_precision="ieee")
    if added > 0:
        inside = there[:, None] & (d < features)[None, :]
        place = out + k[:, None] * features + d[None, :]
        total += tl.load(place, mask=inside, other=0.0).to(tl.float32)
        tl.store(place, total.to(out.dtype.element_ty), mask=inside)


class Sparse:
    """The products of a gradient (R, C) whose tiles are stored where ``kept`` (R, tiles) says so."""

    def __init__(self, kept: Tensor) -> None:
        self.kept = kept

    def to_x(self, grad: Tensor, weight: Tensor, out: Tensor) -> None:
        """``grad @ weight`` into ``out`` (R, D)."""
        rows, features = out.shape
        if out.numel():
            grid = triton.cdiv(rows, _ROWS), triton.cdiv(features, _FEATURES)
            sizes = grad.stride(0), rows, grad.shape[1], features, self.kept.shape[1]
            with torch.cuda.device_of(grad):
                times_weight[grid](grad, self.kept, weight.contiguous(), out, *sizes, **_options(grad))

    def to_weight(self, grad: Tensor, x: Tensor, out: Tensor) -> None:
        """``grad.t() @ x`` added to ``out`` (C, D)."""
        (rows, features), classes = x.shape, grad.shape[1]
        if x.numel() and classes:
            grid = triton.cdiv(classes, TILE.value), triton.cdiv(features, _FEATURES)
            sizes = grad.stride(0), rows, classes, features, self.kept.shape[1], triton.cdiv(rows, _ROWS)
            with torch.cuda.device_of(grad):
                times_features[grid](grad, self.kept, x.contiguous(), out, *sizes, **_options(grad))

    def sum(self, grad: Tensor, dtype: torch.dtype) -> Tensor:
        """``grad.sum(0)``."""
        stored = self.kept.repeat_interleave(TILE.value, 1)[:, : grad.shape[1]]
        return torch.where(stored, grad, 0.0).sum(0, dtype=dtype)


def _options(grad: Tensor) -> dict[str, Any]:
    # In the interpreter the product of bfloat16 is wrong, unless it is one of float32.
    widen = not grad.is_cuda and kernels._interpreted()
    return {"WIDEN": widen, "ROWS": _ROWS, "FEATURES": _FEATURES, "num_warps": warps(grad.dtype), "num_stages": 2}


def warps(dtype: torch.dtype) -> int:
    """How many of them keep a tile in their registers."""
    return 8 if dtype == torch.float32 else 4
