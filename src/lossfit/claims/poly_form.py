"""Poly loss as the article has it, and as the paper has it."""

import torch

from lossfit import CrossEntropyLoss, PolyLoss
from lossfit.claims import Finding, claim
from lossfit.claims.tools import binary

COEFFICIENTS = [1.0, 0.5]


@claim(
    "accuracy",
    "Poly loss; equation 59",
    "Poly loss is sum_j eps_j (1 - p)^j + (1 + sum_j eps_j) (-log p); with all eps_j = 0 it is cross-entropy.",
)
def check() -> Finding:
    """The paper's form and the article's at p = 0.2 with eps = (1, 0.5), and their slopes at p = 1."""
    p = [0.2, 1 - 1e-9]
    paper, slope = binary(PolyLoss(COEFFICIENTS, reduction="none"), p)
    article, scaled = binary(PolyLoss(COEFFICIENTS, form="scaled", reduction="none"), p)
    plain, _ = binary(CrossEntropyLoss(reduction="none"), p)
    zero, _ = binary(PolyLoss([0.0], reduction="none"), p)
    q = 0.8
    by_hand = sum(e * q**j for j, e in enumerate(COEFFICIENTS, 1))
    right = (
        abs(article[0] - (by_hand + (1 + sum(COEFFICIENTS)) * plain[0])) < 1e-12
        and abs(paper[0] - (by_hand + plain[0])) < 1e-12
        and torch.allclose(torch.tensor(zero), torch.tensor(plain))
    )
    return Finding(
        "holds with a correction" if right else "refuted",
        [
            ("at p = 0.2, the article's form", "", f"{article[0]:.4f}"),
            ("at p = 0.2, the paper's form", "", f"{paper[0]:.4f}"),
            ("sensitivity at p = 1, the article's form", "", f"{scaled[1]:.3f}"),
            ("sensitivity at p = 1, the paper's form", "1 + eps_1", f"{slope[1]:.3f}"),
        ],
        "The paper adds the polynomial to -log p and does not scale it: Z. Leng et al. change the first coefficients "
        "of the expansion of -log p in powers of 1 - p. Both are here, as form='paper' and form='scaled'.",
    )
