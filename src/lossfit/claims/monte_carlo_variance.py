"""The variance of counting wins."""

import torch

from lossfit import ExactLoss
from lossfit.claims import Finding, claim

SAMPLES, REPEATS = 10, 40_000


@claim(
    "accuracy",
    "Why the experiments are hard to reproduce; equations 39 and 40",
    "The estimate of P by the share of M draws in which the target wins has variance p (1 - p) / M.",
)
def check() -> Finding:
    """M = 10 draws of Gaussian noise on four scores, 40,000 times over, against P by the integral."""
    z, y = torch.tensor([[1.0, 0.5, 0.0, -1.0]], dtype=torch.float64), torch.tensor([0])
    p = 1 - ExactLoss()(z, y).item()
    noise = torch.randn(REPEATS, SAMPLES, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    share = ((z[0] + noise).argmax(2) == 0).double().mean(1)
    claimed, found, mean = p * (1 - p) / SAMPLES, share.var().item(), share.mean().item()
    error = found * (2 / REPEATS) ** 0.5  # of a variance of nearly normal numbers
    return Finding(
        "holds" if abs(found - claimed) < 5 * error and abs(mean - p) < 5 * (found / REPEATS) ** 0.5 else "refuted",
        [
            ("variance", f"{claimed:.6f}", f"{found:.6f}"),
            ("mean", f"P = {p:.5f}", f"{mean:.5f}"),
            ("standard deviation relative to P", "", f"{found**0.5 / p:.0%}"),
        ],
        "The integral of this library has no variance at all, and takes the time of 24 draws.",
    )
