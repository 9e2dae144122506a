"""What a margin that multiplies the angle does."""

import numpy as np
from scipy.optimize import brentq

from lossfit.claims import Finding, claim
from lossfit.claims.tools import lines

M = 4


def psi(theta: float, m: float = M) -> float:
    """The continuation of cos(m theta) that falls all the way to pi."""
    k = np.floor(m * theta / np.pi)
    return float((-1) ** k * np.cos(m * theta) - 2 * k)


@claim(
    "softmax",
    "What a multiplicative margin does",
    "cos(m theta) falls only on [0, pi / m]; and the margin between two classes, (m - 1) / (m + 1) theta_12, is "
    "small where their weights are close.",
)
def check() -> Finding:
    """Where cos(4 theta) and its continuation fall, and the boundaries for weights 10 to 90 degrees apart."""
    theta = np.linspace(0, np.pi, 20_001)
    falls = np.diff(np.cos(M * theta)) < 0
    end = theta[int(np.argmin(falls))]
    continued = bool((np.diff([psi(t) for t in theta]) < 1e-15).all())
    numbers = [
        ("cos(4 theta) falls up to, degrees", "45", f"{np.degrees(end):.1f}"),
        ("psi falls on all of [0, 180]", "", "yes" if continued else "no"),
    ]
    right = True
    for degrees in (10, 30, 60, 90):
        between = np.radians(degrees)
        # A region ends where psi(theta) = cos(between - theta); the margin lies between both regions.
        at = brentq(lambda t, b=between: psi(t) - np.cos(b - t), 0, between)
        margin, claimed = between - 2 * at, (M - 1) / (M + 1) * between
        right &= abs(margin - claimed) < 1e-9
        numbers.append(
            (
                f"margin for weights {degrees} degrees apart, degrees",
                f"{np.degrees(claimed):.2f}",
                f"{np.degrees(margin):.2f}",
            )
        )
    return Finding(
        "holds with a correction" if right and continued and abs(end - np.pi / M) < 1e-3 else "refuted",
        numbers,
        "Both hold for cos(m theta). SphereFace trains with psi, which falls on all of [0, pi], so the first problem "
        "is mended there; the second remains. An added angle has the same margin m for all pairs further apart than "
        "m.",
        lines(
            {
                "cos(theta)": (np.degrees(theta[::100]), np.cos(theta[::100])),
                "cos(4 theta)": (np.degrees(theta[::100]), np.cos(M * theta[::100])),
                "its continuation psi": (np.degrees(theta[::100]), [psi(t) for t in theta[::100]]),
                "cos(theta + 0.5)": (np.degrees(theta[::100]), [psi(t + 0.5, 1) for t in theta[::100]]),
            },
            "angle to the weight, degrees",
            "target score",
        ),
    )
