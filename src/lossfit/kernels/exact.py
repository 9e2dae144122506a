"""EXACT's sums over the classes as kernels: what ``lossfit.gaps.gaussian`` needs at given places.

The leads are (rows, classes) with the target out of sight, of float32 or float64. Nothing of rows x places x classes is
kept.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lossfit import kernels
from lossfit.kernels.normal import above, hazard, log_cdf_and_hazard

# Places worked on at a time by a program, and classes.
_PLACES, _CLASSES = 8, 128
_WIDE = 512


@triton.jit
def at_places(
    lead,  # (R, C)
    x,  # (R, places), as are the next ones
    a_out,
    s_out,
    places,
    classes,
    blocks,
    DTYPE: tl.constexpr,
    PLACES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) * PLACES + tl.arange(0, PLACES)
    at = tl.load(x + row * places + j, mask=j < places, other=0.0)
    lanes = tl.arange(0, BLOCK)
    a = tl.zeros([PLACES, BLOCK], DTYPE)
    s = tl.zeros([PLACES, BLOCK], DTYPE)
    for i in range(blocks):
        k = tl.cast(i, tl.int64) * BLOCK + lanes
        exists = k < classes
        # A class that does not exist is so far behind that it adds nothing.
        delta = tl.load(lead + row * classes + k, mask=exists, other=1e4)
        log_cdf, h = log_cdf_and_hazard(at[:, None] + delta[None, :], DTYPE)
        a += log_cdf
        s += h
    tl.store(a_out + row * places + j, tl.sum(a, 1), mask=j < places)
    tl.store(s_out + row * places + j, tl.sum(s, 1), mask=j < places)


@triton.jit
def sums(
    lead,  # (R, C)
    x,  # (R,), as are the next ones
    s_out,
    ds_out,
    dds_out,
    classes,
    blocks,
    DTYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.load(x + row)
    lanes = tl.arange(0, BLOCK)
    s = tl.zeros([BLOCK], DTYPE)
    ds = tl.zeros([BLOCK], DTYPE)
    dds = tl.zeros([BLOCK], DTYPE)
    for i in range(blocks):
        k = tl.cast(i, tl.int64) * BLOCK + lanes
        u = at + tl.load(lead + row * classes + k, mask=k < classes, other=1e4)
        h = hazard(u, DTYPE)
        uh = above(u, h, DTYPE)
        s += h
        ds -= h * uh
        dds += h * (uh * (uh + h) - 1.0)
    tl.store(s_out + row, tl.sum(s, 0))
    tl.store(ds_out + row, tl.sum(ds, 0))
    tl.store(dds_out + row, tl.sum(dds, 0))


@triton.jit
def push_kernel(
    lead,  # (R, C)
    place,  # (R, places)
    weight,  # (R, places)
    out,  # (R, C)
    places,
    classes,
    blocks,
    DTYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    row = program // blocks
    k = program % blocks * BLOCK + tl.arange(0, BLOCK)
    delta = tl.load(lead + row * classes + k, mask=k < classes, other=1e4)
    total = tl.zeros([BLOCK], DTYPE)
    for j in range(places):
        n = row * places + j
        total += tl.load(weight + n) * hazard(tl.load(place + n) + delta, DTYPE)
    tl.store(out + row * classes + k, total, mask=k < classes)


def sums_at(lead: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """A and S at x (rows, places)."""
    kernels.require(lead)
    lead, (rows, classes) = lead.contiguous(), lead.shape
    x = x.contiguous()
    a, s = torch.zeros_like(x), torch.zeros_like(x)
    if lead.numel():
        places = x.shape[1]
        block = min(_CLASSES, triton.next_power_of_2(classes))
        sizes = places, classes, triton.cdiv(classes, block)
        grid = rows, triton.cdiv(places, _PLACES)
        with torch.cuda.device_of(lead):
            at_places[grid](lead, x, a, s, *sizes, _dtype(lead), _PLACES, block, num_warps=4)
    return a, s


def hazard_sums(lead: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """S, S' and S'' at x (rows,)."""
    kernels.require(lead)
    lead, (rows, classes) = lead.contiguous(), lead.shape
    x = x.contiguous()
    s, ds, dds = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x)
    if lead.numel():
        block = min(_WIDE, triton.next_power_of_2(classes))
        sizes = classes, triton.cdiv(classes, block)
        with torch.cuda.device_of(lead):
            sums[(rows,)](lead, x, s, ds, dds, *sizes, _dtype(lead), block, num_warps=4)
    return s, ds, dds


def push(lead: Tensor, place: Tensor, weight: Tensor) -> Tensor:
    """sum_n c_n h(x_n + lead_k), (rows, classes), for places x and weights c (rows, places)."""
    kernels.require(lead)
    lead, (rows, classes) = lead.contiguous(), lead.shape
    out = torch.empty_like(lead)
    if lead.numel():
        block = min(_WIDE, triton.next_power_of_2(classes))
        blocks = triton.cdiv(classes, block)
        sizes = place.shape[1], classes, blocks
        given = lead, place.contiguous(), weight.contiguous(), out
        with torch.cuda.device_of(lead):
            push_kernel[(rows * blocks,)](*given, *sizes, _dtype(lead), block, num_warps=4)
    return out


def _dtype(lead: Tensor) -> tl.dtype:
    return tl.float64 if lead.dtype == torch.float64 else tl.float32
