"""Scores that are too small, and too large."""

import math

import torch

from lossfit import CrossEntropyLoss
from lossfit.claims import Finding, claim

C = 1000


@claim(
    "softmax",
    "How smooth softmax is; normalised features and weights",
    "Scores of a small scale leave a large loss even where the target is the largest; scores of a large scale take "
    "the margin between the classes to 0.",
)
def check() -> Finding:
    """Cosines with the target at 1 and 999 rivals at their best place, and a lead of 0.3 in the cosine, at
    three scales.
    """
    loss, numbers, floor, left = CrossEntropyLoss(), [], {}, {}
    for scale in (1.0, 10.0, 64.0):
        best = torch.full((1, C), -1 / (C - 1), dtype=torch.float64)
        best[0, 0] = 1.0
        floor[scale] = loss(scale * best, torch.tensor([0])).item()
        lead = torch.zeros(1, 2, dtype=torch.float64)
        lead[0, 0] = 0.3
        left[scale] = -math.expm1(-loss(scale * lead, torch.tensor([0])).item())
        numbers.append((f"scale {scale:g}: least loss with 1,000 classes", "", f"{floor[scale]:.3g}"))
        numbers.append((f"scale {scale:g}: 1 - p of two classes with a lead of 0.3", "", f"{left[scale]:.2g}"))
    right = floor[1.0] > 5 and floor[64.0] < 1e-20 and left[64.0] < 1e-7 and left[1.0] > 0.4
    return Finding(
        "holds" if right else "refuted",
        numbers,
        "At scale 1 no weights get below 5.9; at scale 64 a lead of 0.3 is as good as won, and nothing widens it. "
        "NormFace's bound gives the scale for a wanted p: scale='auto' in CosineHead.",
    )
