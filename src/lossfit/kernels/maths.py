"""Functions for the kernels, from the operations that the compiler and the interpreter share: no libdevice.

Named functions of a single number; each takes and returns numbers of the accumulation type.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634074)
# Beyond this exp(-x) is 0 in every type; differences are cut there, so that none is infinite and 0 * it is 0.
FAR = tl.constexpr(1e4)


@triton.jit
def exp_minus(x):
    """exp(-x) for x of at least 0, infinity too; NaN stays.

    By way of exp2: the compiler's exp takes three instructions more, for results too small to count.
    """
    return tl.exp2(x * -LOG2_E)


@triton.jit
def log1p(x):
    """log(1 + x) for x > -1: the rounding error of 1 + x divides out."""
    u = 1.0 + x
    safe = tl.where(u == 1.0, 2.0, u)
    return tl.where(u == 1.0, x, tl.log(safe) * (x / (safe - 1.0)))


@triton.jit
def tanh(x):
    """Relatively precise, also near 0: by exp(-2 |x|) - 1, whose rounding error divides out."""
    a = tl.abs(x)
    a = tl.where(a > 20.0, 20.0, a)
    e = tl.exp(-2.0 * a)
    lost = tl.where(e == 1.0, 0.5, e)
    less = tl.where(e == 1.0, 2.0 * a, (1.0 - lost) * (-2.0 * a / tl.log(lost)))
    return tl.where(x < 0, -1.0, 1.0) * (less / (1.0 + e))


@triton.jit
def sech2(x):
    """The derivative of tanh."""
    e = exp_minus(2.0 * tl.abs(x))
    return 4.0 * e / ((1.0 + e) * (1.0 + e))


@triton.jit
def load_flag(pointer, row):
    """The row's flag; without a pointer it is set."""
    if pointer is None:
        return row >= 0
    else:
        return tl.load(pointer + row) != 0
