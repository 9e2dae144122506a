"""The normal distribution in the kernels: no special function is shared by the compiler and the interpreter.

Mills' ratio R(a) = Phi(-a) / phi(a) is nearly 1 / (a + sqrt(2 / pi)) for every a >= 0. What is left is a polynomial in
(a - k) / (a + k), which maps [0, inf) to [-1, 1): Chebyshev interpolation of that many digits, in powers. Its error is
3e-8 in float32 and 5e-16 in float64.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lossfit.kernels.maths import LOG2_E

_SHIFT = tl.constexpr(0.79788456080286535588)  # sqrt(2 / pi)
_LOG_SQRT_2PI = tl.constexpr(0.91893853320467274178)
_SQRT_2PI_INVERSE = tl.constexpr(0.39894228040143267794)
# log 2 in two parts, the first of so few digits that small multiples of it are exact.
_LN2_HIGH = tl.constexpr(0.693359375)
_LN2_LOW = tl.constexpr(-2.1219444005469058277e-4)
_UNDERFLOW = tl.constexpr(40.0)


@triton.jit
def mills(a, DTYPE: tl.constexpr):
    """Phi(-a) / phi(a) for a of at least 0."""
    if DTYPE == tl.float64:
        t = (a - 4.0) / (a + 4.0)
        p = -3.9553283439450202e-9 * t + 4.42690857435829808e-9
        p = p * t + 4.45321937556823815e-8
        p = p * t - 2.51037866787795319e-8
        p = p * t - 2.82969680759282845e-7
        p = p * t - 1.33559727321161018e-8
        p = p * t + 1.43073033103827223e-6
        p = p * t + 9.48381120355862784e-7
        p = p * t - 6.88399504676183365e-6
        p = p * t - 8.20548167250490312e-6
        p = p * t + 3.63374032198481147e-5
        p = p * t + 5.09279887026549198e-5
        p = p * t - 2.34729216150336377e-4
        p = p * t - 2.13624213400921262e-4
        p = p * t + 1.8366815538276962e-3
        p = p * t - 1.03959178503092135e-3
        p = p * t - 1.27962489134077042e-2
        p = p * t + 4.92614647356737119e-2
        p = p * t - 9.63449921304699596e-2
        p = p * t + 0.108019481260129803
        p = p * t - 2.7922167297669131e-2
        p = p * t - 0.156071366852670972
        p = p * t + 1.13543081425818056
    else:
        t = (a - 3.0) / (a + 3.0)
        p = 1.632181221e-4 * t + 7.079804784e-5
        p = p * t - 1.272468074e-3
        p = p * t - 7.554109942e-4
        p = p * t + 8.004247267e-3
        p = p * t + 1.451970127e-3
        p = p * t - 6.007479429e-2
        p = p * t + 0.1366198322
        p = p * t - 0.1036189682
        p = p * t - 0.1373871922
        p = p * t + 1.156798793
    return p / (a + _SHIFT)


@triton.jit
def density(a):
    """phi(a) for a of at least 0, to the digits of the type: neither the square nor the exponential loses any."""
    a = tl.where(a > _UNDERFLOW, _UNDERFLOW, a)
    near = tl.floor(a * 16.0 + 0.5) * 0.0625  # its square is exact
    power = near * near * -0.5
    n = tl.floor(power * LOG2_E + 0.5)
    rest = (power - n * _LN2_HIGH) - n * _LN2_LOW - 0.5 * (a - near) * (a + near)
    return _SQRT_2PI_INVERSE * (tl.exp2(rest * LOG2_E) * tl.exp2(n))


@triton.jit
def hazard(u, DTYPE: tl.constexpr):
    """phi(u) / Phi(u)."""
    a = tl.abs(u)
    ratio = mills(a, DTYPE)
    phi = density(a)
    return tl.where(u < 0, 1.0, phi) / tl.where(u < 0, ratio, 1.0 - ratio * phi)


@triton.jit
def above(u, h, DTYPE: tl.constexpr):
    """The hazard h at u, plus u; far below 0, where they cancel, by the asymptotic series of 1 - a R(a)."""
    if DTYPE == tl.float64:
        far = u < -25.0
    else:
        far = u < -10.0
    a = tl.where(far, -u, 1.0)
    v = 1.0 / (a * a)
    short = v * (1.0 - v * (3.0 - v * (15.0 - v * (105.0 - v * 945.0))))
    return tl.where(far, a * short / (1.0 - short), u + h)


@triton.jit
def log_cdf_and_hazard(u, DTYPE: tl.constexpr):
    """The logarithm of Phi(u), relatively precise also where Phi is near 1, and phi(u) / Phi(u)."""
    a = tl.abs(u)
    ratio = mills(a, DTYPE)
    phi = density(a)
    tail = ratio * phi
    whole = tl.where(u < 0, ratio, 1.0 - tail)
    log = tl.log(whole)
    # log1p(-tail): the rounding error of 1 - tail divides out.
    lost = tl.where(whole == 1.0, 1.0, 1.0 - whole)
    near_1 = tl.where(whole == 1.0, -tail, log * (tail / lost))
    log = tl.where(u < 0, log - 0.5 * a * a - _LOG_SQRT_2PI, near_1)
    return log, tl.where(u < 0, 1.0, phi) / whole
