"""The coefficients in src/lossfit/native/csrc/maths.h: minimax polynomials, by relative error.

python scripts/fit_native_polynomials.py
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.polynomial import chebyshev
from scipy.special import erfcx

Function = Callable[[np.ndarray], np.ndarray]


def fit(function: Function, low: float, high: float, degree: int) -> tuple[np.ndarray, float]:
    """Coefficients from the constant on, and the largest relative error, by Lawson's reweighting."""
    nodes = np.cos(np.pi * (np.arange(2000) + 0.5) / 2000)
    x = (high + low) / 2 + (high - low) / 2 * nodes
    y = function(x)
    weight = np.ones_like(x)
    best, least = np.zeros(degree + 1), math.inf
    for _ in range(400):
        c = chebyshev.chebfit(nodes, y, degree, w=np.sqrt(weight) / np.abs(y))
        error = np.abs(chebyshev.chebval(nodes, c) / y - 1)
        if error.max() < least:
            best, least = c, float(error.max())
        weight *= error + 1e-30
        weight /= weight.mean()
    scaled = np.polynomial.Polynomial(chebyshev.cheb2poly(best), domain=[low, high])
    return scaled.convert(domain=[-1, 1]).coef, least


def exp_rest(r: np.ndarray) -> np.ndarray:
    """(exp(r) - 1 - r) / r^2."""
    terms = [r**k / math.factorial(k + 2) for k in range(18)]
    return np.sum(terms, axis=0)


def log1p_rest(f: np.ndarray) -> np.ndarray:
    """(log(1 + f) - f + f^2 / 2) / f^3."""
    small = np.sum([(-1) ** k * f**k / (k + 3) for k in range(60)], axis=0)
    safe = np.where(np.abs(f) < 0.2, 1.0, f)
    return np.where(np.abs(f) < 0.2, small, (np.log1p(safe) - safe + safe**2 / 2) / safe**3)


def mills(t: np.ndarray) -> np.ndarray:
    """(y + 4) (1 - Phi(y)) / phi(y) with y = 4 (1 + t) / (1 - t); 1 at t = 1."""
    y = 4 * (1 + t) / (1 - t)
    return (y + 4) * math.sqrt(math.pi / 2) * erfcx(y / math.sqrt(2))


HALF_LN2 = math.log(2) / 2
FITS: dict[str, tuple[Function, float, float, int]] = {
    "exp": (exp_rest, -HALF_LN2 * 1.01, HALF_LN2 * 1.01, 4),
    "expm1": (exp_rest, -0.5, 0.5, 5),
    "log1p": (log1p_rest, math.sqrt(0.5) - 1, math.sqrt(2) - 1, 7),
    "mills": (mills, -1.0, 1.0, 9),
}

if __name__ == "__main__":
    for name, (function, low, high, degree) in FITS.items():
        coefficients, error = fit(function, low, high, degree)
        print(f"{name}, relative error {error:.1e}:")
        print("  " + ", ".join(f"{c:.9g}f" for c in coefficients))
