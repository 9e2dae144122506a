"""The gap of a row as Triton kernels: one program walks along one row, block by block, or along a part of it.

The kernels read logits, and make scores of them on the way: a logit divided by the row's divisor, plus the class's
shift. Differences of logits are taken first, so that an offset of a row costs no digits. Positions in memory are 64
bits wide. A program stores its row's numbers whatever the row holds: no buffer need be cleared before.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lossfit.kernels.maths import FAR, exp_minus, load_flag, sech2, tanh


@triton.jit
def capped(z, CAP: tl.constexpr):
    """Logits cap tanh(z / cap)."""
    if CAP > 0:
        z = CAP * tanh(z / CAP)
    return z


@triton.jit
def lead(z, a, than_z, than_a, divisor, by, shift):
    """The difference of two scores, from their logits z and shifts a."""
    ahead = z - than_z
    if divisor is not None:
        ahead = ahead / by
    if shift is not None:
        ahead += a - than_a
    return ahead


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
    given,  # (R,), or None: the targets' logits, where the mean needs those of other columns
    weight,  # (C,), or None
    divisor,  # (R,), or None
    shift,  # (C,), or None
    given_shift,  # (R,), or None: the targets' shifts
    own_out,  # (R, parts), as are the next ones
    top_out,
    log_sum_out,
    mean_out,  # or None, as are the next ones
    hit_out,
    among_out,
    stride,
    classes,
    blocks,
    DTYPE: tl.constexpr,
    LOWEST: tl.constexpr,
    TINY: tl.constexpr,
    CAP: tl.constexpr,
    HARD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The statistics of each part of a row, ``blocks`` blocks wide. ``own`` and ``top`` are logits.

    For the hard gap ``log_sum`` is the shift of the top rival.
    """
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1).to(tl.int64)
    at = row * tl.num_programs(1) + part
    counts = load_flag(valid, row)
    local = load_flag(here, row)
    y = tl.load(target + row)
    inside = (y >= 0) & (y < classes)
    base = scores + row * stride
    seen = counts & local & inside
    by = 1.0
    if divisor is not None:
        by = tl.load(divisor + row).to(DTYPE)
    own = tl.load(base + y, mask=seen, other=0.0).to(DTYPE)
    own = tl.where(seen, capped(own, CAP), 0.0)
    # No row is left with a number that could be taken for right.
    own = tl.where(local & (inside == 0), float("nan"), own)
    level = own
    level_a = tl.zeros((), DTYPE)
    if shift is not None:
        level_a = tl.load(shift + y, mask=seen, other=0.0).to(DTYPE)
    if given is not None:
        level = tl.load(given + row).to(DTYPE)
        if given_shift is not None:
            level_a = tl.load(given_shift + row).to(DTYPE)
    level = tl.where(level < LOWEST, LOWEST, level)
    y = tl.where(local, y, -1)

    # Each lane keeps a maximum and sums relative to it; the target never enters them.
    lanes = tl.arange(0, BLOCK)
    top = tl.full([BLOCK], LOWEST, DTYPE)
    top_a = tl.zeros([BLOCK], DTYPE)
    total = tl.zeros([BLOCK], DTYPE)
    spread = tl.zeros([BLOCK], DTYPE)
    row_sum = tl.zeros([BLOCK], DTYPE)
    beaten = tl.zeros([BLOCK], tl.int32)
    for i in range(blocks):
        # Places within a block are of 32 bits: instructions for each score are what bounds the speed.
        first = (part * blocks + i) * BLOCK
        left, own_lane = within(first, classes, y, BLOCK)
        rival = (lanes < left) & (lanes != own_lane) & counts
        z = capped(tl.load(base + first + lanes, mask=rival, other=0.0).to(DTYPE), CAP)
        a = top_a
        if shift is not None:
            a = tl.load(shift + first + lanes, mask=rival, other=0.0).to(DTYPE)
        if mean_out is not None:
            counted = lead(z, a, level, level_a, divisor, by, shift) / tl.cast(classes, DTYPE)
            if weight is not None:
                counted *= tl.load(weight + first + lanes, mask=rival, other=0.0).to(DTYPE)
            row_sum += tl.where(rival, counted, 0.0)
        z = tl.where(rival, z, float("-inf"))
        if hit_out is not None:
            most = lead(tl.where(z < LOWEST, LOWEST, z), a, level, level_a, divisor, by, shift)
            ahead = (most > 0) | ((most == 0) & (lanes < own_lane)) | (z != z)
            beaten += (rival & ahead).to(tl.int32)
        step = lead(z, a, top, top_a, divisor, by, shift)
        rises = step > 0
        if HARD:
            total += tl.where(z != z, 1.0, 0.0)
        else:
            # -inf is infinitely far below any maximum: what is no rival adds 0.
            step = tl.abs(step)
            w = exp_minus(step)
            if among_out is not None:
                step = tl.where(step > FAR, FAR, step)
                spread = tl.where(rises, w * (spread - step * total), spread - w * step)
            total = tl.where(rises, total * w + 1.0, total + w)
        top = tl.where(rises, z, top)
        if shift is not None:
            top_a = tl.where(rises, a, top_a)

    best = tl.max(top, 0)
    best_a = tl.zeros((), DTYPE)
    if shift is not None:
        # The lane with the largest score: as well as rounding tells them apart, then relative to that one.
        score = top / by + top_a
        for _ in tl.static_range(2):
            lane = tl.argmax(score, 0)
            best = tl.sum(tl.where(lanes == lane, top, 0.0), 0)
            best_a = tl.sum(tl.where(lanes == lane, top_a, 0.0), 0)
            score = lead(top, top_a, best, best_a, divisor, by, shift)
    among = tl.zeros((), DTYPE)
    if HARD:
        best = tl.where(tl.sum(total, 0) > 0, float("nan"), best)
        log_sum = best_a
    else:
        behind = lead(best, best_a, top, top_a, divisor, by, shift)
        behind = tl.where(behind > FAR, FAR, behind)
        total = total * exp_minus(behind)
        whole = tl.sum(total, 0)
        whole = tl.where(whole < TINY, TINY, whole)  # no rival
        log_sum = best_a + tl.log(whole)
        among = tl.log(whole) - tl.sum(spread * exp_minus(behind) - total * behind, 0) / whole
    tl.store(own_out + at, tl.where(counts, own, 0.0))
    tl.store(top_out + at, tl.where(counts, best, 0.0))
    tl.store(log_sum_out + at, tl.where(counts, log_sum, 0.0))
    if mean_out is not None:
        tl.store(mean_out + at, tl.where(counts, tl.sum(row_sum, 0), 0.0))
    if hit_out is not None:
        tl.store(hit_out + at, counts & local & (own >= LOWEST) & (tl.sum(beaten, 0) == 0))
    if among_out is not None:
        tl.store(among_out + at, tl.where(counts, among, 0.0))


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
    top,  # (R,), as are the next ones
    log_sum,
    among,  # or None, as are the next ones
    g_own,
    g_log_sum,
    g_mean,
    g_among,
    stride,
    out_stride,
    classes,
    blocks,
    DTYPE: tl.constexpr,
    LOWEST: tl.constexpr,
    CAP: tl.constexpr,
    HARD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Of each part of a row, ``blocks`` blocks wide; the whole row where the hard gap wants one.

    ``g_own`` is the gradient of a capped logit, the others are those of numbers in units of the scores.
    """
    row = tl.program_id(0).to(tl.int64)
    counts = load_flag(valid, row)
    local = load_flag(here, row)
    y = tl.where(local, tl.load(target + row), -1)
    base = scores + row * stride
    level = tl.load(top + row).to(DTYPE)
    level_a = tl.load(log_sum + row).to(DTYPE)
    lanes = tl.arange(0, BLOCK)
    by = 1.0
    if divisor is not None:
        by = tl.load(divisor + row).to(DTYPE)

    to_own = tl.zeros((), DTYPE)
    if g_own is not None:
        to_own += tl.load(g_own + row).to(DTYPE)
    to_sum = tl.zeros((), DTYPE)
    if g_log_sum is not None:
        to_sum += tl.load(g_log_sum + row).to(DTYPE)
        if HARD:
            ties = tl.zeros([BLOCK], tl.int32)
            for i in range(blocks):
                k = tl.cast(i, tl.int64) * BLOCK + lanes
                rival = (k < classes) & counts & (k != y)
                z = capped(tl.load(base + k, mask=rival, other=0.0).to(DTYPE), CAP)
                a = tl.zeros([BLOCK], DTYPE)
                if shift is not None:
                    a = tl.load(shift + k, mask=rival, other=0.0).to(DTYPE)
                ties += (rival & (lead(z, a, level, level_a, divisor, by, shift) == 0)).to(tl.int32)
            to_sum = to_sum / tl.cast(tl.maximum(tl.sum(ties, 0), 1), DTYPE)
    if g_mean is not None:
        to_mean = tl.load(g_mean + row).to(DTYPE) / tl.cast(classes, DTYPE)
    if g_among is not None:
        to_among = tl.load(g_among + row).to(DTYPE)
        row_among = tl.load(among + row).to(DTYPE)

    for i in range(blocks):
        block = tl.program_id(1).to(tl.int64) * blocks + i
        first = block * BLOCK
        left, own_lane = within(first, classes, y, BLOCK)
        exists = lanes < left
        logit = tl.load(base + first + lanes, mask=exists & counts, other=0.0).to(DTYPE)
        a = tl.zeros([BLOCK], DTYPE)
        if shift is not None:
            a = tl.load(shift + first + lanes, mask=exists, other=0.0).to(DTYPE)
        x = lead(capped(logit, CAP), a, level, level_a, divisor, by, shift)
        if shift is None:
            x -= level_a
        if HARD:
            grad = tl.where(x == 0, to_sum, 0.0)
        else:
            x = tl.where(x > 0, 0.0, tl.where(x < LOWEST, LOWEST, x))
            share = exp_minus(-x)
            grad = to_sum * share
            if g_among is not None:
                grad -= to_among * (share * (x + row_among))
        if g_mean is not None:
            if weight is None:
                grad += to_mean
            else:
                grad += to_mean * tl.load(weight + first + lanes, mask=exists, other=0.0).to(DTYPE)
        if divisor is not None:
            grad = grad / by
        grad = tl.where(lanes == own_lane, to_own, grad)
        if CAP > 0:
            grad *= sech2(logit / CAP)
        grad = tl.where(counts, grad, 0.0)
        tl.store(out + row * out_stride + first + lanes, grad.to(out.dtype.element_ty), mask=exists)
