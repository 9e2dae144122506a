"""The gap of a row as Triton kernels: one program walks along one row, block by block, or along a part of it.

What is read are logits, of which the scores are made on the way. Offsets are 64 bits wide. A program stores its row's
numbers whatever the row holds: no buffer need be cleared before.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lossfit.kernels.maths import FAR, exp_minus, load_flag, log1p, sech2, tanh

# Classes whose gradients are left out together where they are negligible.
TILE = tl.constexpr(128)


@triton.jit
def scored(z, row, k, exists, divisor, shift, CAP: tl.constexpr, DTYPE: tl.constexpr):
    """The scores of logits: cap tanh(z / cap), divided by the row's divisor, plus the class's shift."""
    if CAP > 0:
        z = CAP * tanh(z / CAP)
    if divisor is not None:
        z = z / tl.load(divisor + row).to(DTYPE)
    if shift is not None:
        z += tl.load(shift + k, mask=exists, other=0.0).to(DTYPE)
    return z


@triton.jit
def slope(z, row, divisor, CAP: tl.constexpr, DTYPE: tl.constexpr):
    """The derivative of the scores by their logits."""
    by = tl.full(z.shape, 1.0, DTYPE)
    if CAP > 0:
        by = sech2(z / CAP)
    if divisor is not None:
        by = by / tl.load(divisor + row).to(DTYPE)
    return by


@triton.jit
def within(first, classes, y, BLOCK: tl.constexpr):
    """How many classes a block has, and the place of class y in it: -1 if that is before it, BLOCK if behind."""
    left = tl.minimum(classes - first, BLOCK)
    place = tl.minimum(tl.maximum(y - first, -1), BLOCK)
    return left.to(tl.int32), place.to(tl.int32)


@triton.jit
def forward(
    scores,  # (R, C), rows `stride` apart
    target,  # (R,) int64
    valid,  # (R,) bool, or None
    here,  # (R,) bool, or None: whether the target is among these columns
    weight,  # (C,), or None
    divisor,  # (R,), or None
    shift,  # (C,), or None
    own_out,  # (R, parts), as are the next ones
    rivals_out,
    mean_out,  # or None, as are the next ones
    hit_out,
    entropy_out,
    stride,
    classes,
    blocks,
    DTYPE: tl.constexpr,
    LOWEST: tl.constexpr,
    CAP: tl.constexpr,
    HARD: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Of each part of a row, ``blocks`` blocks wide; without WHOLE the entropy is that among the part's rivals."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1).to(tl.int64)
    at = row * tl.num_programs(1) + part
    counts = load_flag(valid, row)
    local = load_flag(here, row)
    y = tl.load(target + row)
    inside = (y >= 0) & (y < classes)
    base = scores + row * stride
    seen = counts & local & inside
    own = tl.load(base + y, mask=seen, other=0.0).to(DTYPE)
    own = tl.where(seen, scored(own, row, y, seen, divisor, shift, CAP, DTYPE), 0.0)
    # No row is left with a number that could be taken for right.
    own = tl.where(local & (inside == 0), float("nan"), own)
    y = tl.where(local, y, -1)

    # Each lane keeps a maximum and sums relative to it; the target never enters them.
    lanes = tl.arange(0, BLOCK)
    top = tl.full([BLOCK], LOWEST, DTYPE)
    total = tl.zeros([BLOCK], DTYPE)
    spread = tl.zeros([BLOCK], DTYPE)
    row_sum = tl.zeros([BLOCK], DTYPE)
    beaten = tl.zeros([BLOCK], tl.int32)
    for i in range(blocks):
        # Places within a block are of 32 bits: instructions for each score are what bounds the speed.
        first = (part * blocks + i) * BLOCK
        left, own_lane = within(first, classes, y, BLOCK)
        exists = (lanes < left) & counts
        z = tl.load(base + first + lanes, mask=exists, other=0.0).to(DTYPE)
        z = scored(z, row, first + lanes, exists, divisor, shift, CAP, DTYPE)
        if mean_out is not None:
            counted = tl.where(exists, z, 0.0)
            if weight is not None:
                counted *= tl.load(weight + first + lanes, mask=exists, other=0.0).to(DTYPE)
            row_sum += counted
        rival = exists & (lanes != own_lane)
        z = tl.where(rival, z, float("-inf"))
        if hit_out is not None:
            most = tl.where(z < LOWEST, LOWEST, z)
            ahead = (most > own) | ((most == own) & (lanes < own_lane)) | (z != z)
            beaten += (rival & ahead).to(tl.int32)
        if HARD:
            total += tl.where(z != z, 1.0, 0.0)
            top = tl.where(z > top, z, top)
        else:
            # -inf is infinitely far below any maximum: what is no rival adds 0.
            rises = z > top
            step = tl.abs(z - top)
            w = exp_minus(step)
            if entropy_out is not None:
                step = tl.where(step > FAR, FAR, step)
                spread = tl.where(rises, w * (spread - step * total), spread - w * step)
            total = tl.where(rises, total * w + 1.0, total + w)
            top = tl.where(rises, z, top)

    best = tl.max(top, 0)
    if HARD:
        rivals = tl.where(tl.sum(total, 0) > 0, float("nan"), best)
    else:
        behind = tl.where(best - top > FAR, FAR, best - top)
        total = total * exp_minus(behind)
        whole = tl.sum(total, 0)
        whole = tl.where(whole == 0, 1.0, whole)  # no rival
        rivals = best + tl.log(whole)
    tl.store(own_out + at, tl.where(counts, own, 0.0))
    tl.store(rivals_out + at, tl.where(counts, rivals, 0.0))
    if mean_out is not None:
        tl.store(mean_out + at, tl.where(counts, tl.sum(row_sum, 0) / tl.cast(classes, DTYPE), 0.0))
    if hit_out is not None:
        tl.store(hit_out + at, counts & local & (own == own) & (tl.sum(beaten, 0) == 0))
    if entropy_out is not None:
        spread = tl.sum(spread * exp_minus(behind) - total * behind, 0)
        among = tl.log(whole) - spread / whole
        if WHOLE:
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
        tl.store(entropy_out + at, tl.where(counts, among, 0.0))


@triton.jit
def backward(
    scores,  # (R, C), rows `stride` apart; may be the memory of `out`
    out,  # (R, C), rows `out_stride` apart
    target,  # (R,) int64
    valid,  # (R,) bool, or None
    here,  # (R,) bool, or None
    weight,  # (C,), or None
    divisor,  # (R,), or None
    shift,  # (C,), or None
    own,  # (R,), as are the next ones
    rivals,
    entropy,  # or None, as are the next ones
    g_target,
    g_rivals,
    g_mean,
    g_entropy,
    kept_out,  # (R, blocks of TILE classes) bool, or None: which tiles are stored
    stride,
    out_stride,
    classes,
    blocks,
    DTYPE: tl.constexpr,
    LOWEST: tl.constexpr,
    DEEP: tl.constexpr,
    CAP: tl.constexpr,
    HARD: tl.constexpr,
    NEGLIGIBLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Of each part of a row, ``blocks`` blocks wide; the whole row where the hard gap wants one.

    With ``kept_out`` a tile is not stored where no entry is above the type's rounding, divided by the number of
    classes, of the largest upstream gradient: all that is left out of a row adds up to no more than that rounding.
    """
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
                z = scored(z, row, k, rival, divisor, shift, CAP, DTYPE)
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
    if kept_out is not None:
        least = tl.abs(to_own)
        if g_rivals is not None:
            least = tl.maximum(least, tl.abs(to_rivals))
        least = least * NEGLIGIBLE / tl.cast(classes, DTYPE)
        tiles = tl.num_programs(1) * blocks * (BLOCK // TILE)

    for i in range(blocks):
        block = tl.program_id(1).to(tl.int64) * blocks + i
        first = block * BLOCK
        left, own_lane = within(first, classes, y, BLOCK)
        exists = lanes < left
        logit = tl.load(base + first + lanes, mask=exists & counts, other=0.0).to(DTYPE)
        z = scored(logit, row, first + lanes, exists, divisor, shift, CAP, DTYPE)
        grad = tl.zeros([BLOCK], DTYPE)
        if g_rivals is not None:
            if HARD:
                grad = tl.where(z == r, to_rivals, 0.0)
            else:
                behind = deep_r - z
                grad = to_rivals * exp_minus(tl.where(behind < 0, 0.0, behind))
        grad = tl.where(lanes == own_lane, to_own, grad)
        if g_mean is not None:
            if weight is None:
                grad += to_mean
            else:
                grad += to_mean * tl.load(weight + first + lanes, mask=exists, other=0.0).to(DTYPE)
        if g_entropy is not None:
            log_p = z - lse
            log_p = tl.where(log_p < LOWEST, LOWEST, log_p)
            grad -= to_entropy * (tl.exp(log_p) * (log_p + row_entropy))
        grad = tl.where(counts, grad * slope(logit, row, divisor, CAP, DTYPE), 0.0)
        if kept_out is None:
            tl.store(out + row * out_stride + first + lanes, grad.to(out.dtype.element_ty), mask=exists)
        else:
            largest = tl.max(tl.reshape(tl.where(exists, tl.abs(grad), 0.0), [BLOCK // TILE, TILE]), 1)
            # What is no number is kept.
            kept = (largest <= least) == 0
            tl.store(kept_out + row * tiles + block * (BLOCK // TILE) + tl.arange(0, BLOCK // TILE), kept)
            each = tl.reshape(tl.broadcast_to(kept[:, None], [BLOCK // TILE, TILE]), [BLOCK])
            tl.store(out + row * out_stride + first + lanes, grad.to(out.dtype.element_ty), mask=exists & each)
