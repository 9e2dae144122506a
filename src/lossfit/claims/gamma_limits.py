"""Gamma cross-entropy at both ends."""

import numpy as np

from lossfit import CrossEntropyLoss, GammaCrossEntropyLoss
from lossfit.claims import Finding, claim
from lossfit.claims.tools import binary

P = np.array([0.01, 0.3, 0.9])


@claim(
    "gamma",
    "Result in brief; equation 2",
    "Gamma cross-entropy is cross-entropy at gamma = 0 and tends to -p as gamma tends to 1.",
)
def check() -> Finding:
    """The loss and its sensitivity at p = 0.01, 0.3 and 0.9, for gamma = 0, 1 - 1e-9 and 1."""
    entropy, _ = binary(CrossEntropyLoss(reduction="none"), P)
    zero, _ = binary(GammaCrossEntropyLoss(0.0, reduction="none"), P)
    near, _ = binary(GammaCrossEntropyLoss(1 - 1e-9, reduction="none"), P)
    one, slope = binary(GammaCrossEntropyLoss(1.0, reduction="none"), P)
    right = (
        np.allclose(zero, entropy, rtol=1e-14)
        and np.allclose(one, 1 - P, rtol=1e-13)
        and np.allclose(near, one, rtol=1e-8)
        and np.allclose(slope, 1, rtol=1e-12)
    )
    numbers = [
        (f"p = {p:g}: gamma = 0, 1 - 1e-9, 1", f"{e:.6f}, {-p:.6f}", f"{z:.6f}, {n:.6f}, {o:.6f}")
        for p, e, z, n, o in zip(P, entropy, zero, near, one, strict=True)
    ]
    return Finding(
        "holds with a correction" if right else "refuted",
        numbers,
        "The limit is 1 - p: -p plus the constant 1, with the same gradient.",
    )
