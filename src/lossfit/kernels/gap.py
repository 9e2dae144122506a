"""The gap of a row as Triton kernels: one program walks along one row, block by block.

Offsets are 64 bits wide. A program stores its row's numbers whatever the row holds: no buffer need be cleared before.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lossfit.kernels.maths import FAR, NAN, exp_minus, load_flag, log1p


@triton.jit
def forward(
    scores,  # (R, C), rows `stride` apart
    target,  # (R,) int64
    valid,  # (R,) bool, or None
    here,  # (R,) bool, or None: whether the target is among these columns
    weight,  # (C,), or None
    own_out,  # (R,), as are the next ones
    rivals_out,
    mean_out,  # or None, as are the next ones
    hit_out,
    entropy_out,
    stride,
    classes,
    blocks,
    DTYPE: tl.constexpr,
    LOWEST: tl.constexpr,
    HARD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    counts = load_flag(valid, row)
    local = load_flag(here, row)
    y = tl.load(target + row)
    inside = (y >= 0) & (y < classes)
    base = scores + row * stride
    own = tl.load(base + y, mask=counts & local & inside, other=0.0).to(DTYPE)
    # No row is left with a number that could be taken for right.
    own = tl.where(local & (inside == 0), NAN, own)
    y = tl.where(local, y, -1)

    # Each lane keeps a maximum and sums relative to it; the target never enters them.
    lanes = tl.arange(0, BLOCK)
    top = tl.full([BLOCK], LOWEST, DTYPE)
    total = tl.zeros([BLOCK], DTYPE)
    spread = tl.zeros([BLOCK], DTYPE)
    row_sum = tl.zeros([BLOCK], DTYPE)
    beaten = tl.zeros([BLOCK], tl.int32)
    for i in range(blocks):
        k = tl.cast(i, tl.int64) * BLOCK + lanes
        exists = (k < classes) & counts
        z = tl.load(base + k, mask=exists, other=0.0).to(DTYPE)
        if mean_out is not None:
            if weight is None:
                row_sum += z
            else:
                row_sum += z * tl.load(weight + k, mask=exists, other=0.0).to(DTYPE)
        rival = exists & (k != y)
        z = tl.where(rival & ((z < LOWEST) == 0), z, LOWEST)
        if hit_out is not None:
            ahead = (z > own) | ((z == own) & (k < y)) | (z != z)
            beaten += (rival & ahead).to(tl.int32)
        if HARD:
            total += tl.where(z != z, 1.0, 0.0)
            top = tl.where(z > top, z, top)
        else:
            rises = z > top
            step = tl.abs(z - top)
            w = exp_minus(step)
            step = tl.where(step > FAR, FAR, step)
            if entropy_out is not None:
                spread = tl.where(rises, w * (spread - step * total), spread - w * step)
            total = tl.where(rises, total * w + 1.0, total + tl.where(rival, w, 0.0))
            top = tl.where(rises, z, top)

    best = tl.max(top, 0)
    if HARD:
        rivals = tl.where(tl.sum(total, 0) > 0, NAN, best)
    else:
        behind = tl.where(best - top > FAR, FAR, best - top)
        total = total * exp_minus(behind)
        whole = tl.sum(total, 0)
        whole = tl.where(whole == 0, 1.0, whole)  # no rival
        rivals = best + tl.log(whole)
    tl.store(own_out + row, tl.where(counts, own, 0.0))
    tl.store(rivals_out + row, tl.where(counts, rivals, 0.0))
    if mean_out is not None:
        tl.store(mean_out + row, tl.where(counts, tl.sum(row_sum, 0) / tl.cast(classes, DTYPE), 0.0))
    if hit_out is not None:
        tl.store(hit_out + row, counts & local & (own == own) & (tl.sum(beaten, 0) == 0))
    if entropy_out is not None:
        spread = tl.sum(spread * exp_minus(behind) - total * behind, 0)
        among = tl.log(whole) - spread / whole
        if here is None:
            # H = p (-log p) + (1 - p) (-log(1 - p) + the entropy among the rivals)
            lead = own - rivals
            size = tl.abs(lead)
            e = exp_minus(size)
            size = tl.where(size > FAR, FAR, size)
            near, far = 1.0 / (1.0 + e), e / (1.0 + e)
            surprise_near = log1p(e)
            surprise_far = size + surprise_near
            wins = lead >= 0
            p, q = tl.where(wins, near, far), tl.where(wins, far, near)
            of_p, of_q = (
                tl.where(wins, surprise_near, surprise_far),
                tl.where(wins, surprise_far, surprise_near),
            )
            among = p * of_p + q * (of_q + among)
        tl.store(entropy_out + row, tl.where(counts, among, 0.0))


@triton.jit
def backward(
    scores,  # (R, C), rows `stride` apart; may be the memory of `out`
    out,  # (R, C), rows `out_stride` apart
    target,  # (R,) int64
    valid,  # (R,) bool, or None
    here,  # (R,) bool, or None
    weight,  # (C,), or None
    own,  # (R,), as are the next ones
    rivals,
    entropy,  # or None, as are the next ones
    g_target,
    g_rivals,
    g_mean,
    g_entropy,
    stride,
    out_stride,
    classes,
    blocks,
    DTYPE: tl.constexpr,
    LOWEST: tl.constexpr,
    DEEP: tl.constexpr,
    HARD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    counts = load_flag(valid, row)
    local = load_flag(here, row)
    y = tl.where(local, tl.load(target + row), -1)
    base = scores + row * stride
    r = tl.load(rivals + row).to(DTYPE)
    lanes = tl.arange(0, BLOCK)

    to_own = tl.zeros((), DTYPE)
    if g_target is not None:
        to_own += tl.load(g_target + row).to(DTYPE)
    if g_rivals is not None:
        to_rivals = tl.load(g_rivals + row).to(DTYPE)
        if HARD:
            ties = tl.zeros([BLOCK], tl.int32)
            for i in range(blocks):
                k = tl.cast(i, tl.int64) * BLOCK + lanes
                rival = (k < classes) & counts & (k != y)
                z = tl.load(base + k, mask=rival, other=0.0).to(DTYPE)
                ties += (rival & (z == r)).to(tl.int32)
            to_rivals = to_rivals / tl.cast(tl.maximum(tl.sum(ties, 0), 1), DTYPE)
    if g_mean is not None:
        to_mean = tl.load(g_mean + row).to(DTYPE) / tl.cast(classes, DTYPE)
    if g_entropy is not None:
        to_entropy = tl.load(g_entropy + row).to(DTYPE)
        row_entropy = tl.load(entropy + row).to(DTYPE)
        t = tl.load(own + row).to(DTYPE)
        lse = tl.where(t > r, t, r) + log1p(exp_minus(tl.abs(t - r)))
    deep_r = tl.where(r < DEEP, DEEP, r)

    for i in range(blocks):
        k = tl.cast(i, tl.int64) * BLOCK + lanes
        exists = k < classes
        z = tl.load(base + k, mask=exists & counts, other=0.0).to(DTYPE)
        grad = tl.zeros([BLOCK], DTYPE)
        if g_rivals is not None:
            if HARD:
                grad = tl.where(z == r, to_rivals, 0.0)
            else:
                ahead = z - deep_r
                grad = to_rivals * tl.exp(tl.where(ahead > 0, 0.0, ahead))
        grad = tl.where(k == y, to_own, grad)
        if g_mean is not None:
            if weight is None:
                grad += to_mean
            else:
                grad += to_mean * tl.load(weight + k, mask=exists, other=0.0).to(DTYPE)
        if g_entropy is not None:
            log_p = z - lse
            log_p = tl.where(log_p < LOWEST, LOWEST, log_p)
            grad -= to_entropy * (tl.exp(log_p) * (log_p + row_entropy))
        tl.store(out + row * out_stride + k, tl.where(counts, grad, 0.0).to(out.dtype.element_ty), mask=exists)
