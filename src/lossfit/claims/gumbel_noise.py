"""Softmax as the winner under Gumbel noise."""

import numpy as np
import torch
from scipy.stats import gumbel_r, norm

from lossfit.claims import Finding, claim

DRAWS = 400_000


@claim(
    "accuracy",
    "Gumbel against Gaussian; equations 32 and 33",
    "Softmax gives the probability that a class has the largest score under Gumbel noise; Gumbel noise is "
    "heavy-tailed, with P(X > x) like exp(-x).",
)
def check() -> Finding:
    """The share of wins in 400,000 draws against softmax, and both tails at x = 3, 6 and 12."""
    z = np.array([1.0, 0.0, -0.5])
    noise = np.random.default_rng(0).gumbel(size=(DRAWS, 3))
    share = np.bincount((z + noise).argmax(1), minlength=3) / DRAWS
    softmax = torch.tensor(z).softmax(0).numpy()
    error = np.sqrt(softmax * (1 - softmax) / DRAWS)
    numbers = [
        (f"share of wins, class {k}", f"{softmax[k]:.4f}", f"{share[k]:.4f} +- {error[k]:.4f}") for k in range(3)
    ]
    ratios = []
    for x in (3.0, 6.0, 12.0):
        ratios.append(float(gumbel_r.sf(x) / np.exp(-x)))
        numbers.append((f"tail at {x:g} over exp(-x); Gaussian tail", "1", f"{ratios[-1]:.4f}; {norm.sf(x):.1e}"))
    right = bool((abs(share - softmax) < 5 * error).all()) and abs(ratios[-1] - 1) < 1e-4
    return Finding(
        "holds with a correction" if right else "refuted",
        numbers,
        "The identity and the exponential tail hold. Heavy-tailed is the wrong word: it is used for tails heavier "
        "than any exponential. The Gumbel tail is exponential, heavier than the Gaussian one.",
    )
