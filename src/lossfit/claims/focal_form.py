"""Focal loss at both ends."""

from lossfit import CrossEntropyLoss, FocalLoss
from lossfit.claims import Finding, claim
from lossfit.claims.tools import binary

P = [1e-6, 0.5, 1 - 1e-6]


@claim(
    "accuracy",
    "Focal loss; equation 55",
    "Focal loss tends to 0 as p tends to 1, faster than cross-entropy, and to cross-entropy as p tends to 0.",
)
def check() -> Finding:
    """The ratio of focal loss (gamma = 2) to cross-entropy at p = 1e-6, 0.5 and 1 - 1e-6."""
    focal, _ = binary(FocalLoss(2.0, reduction="none"), P)
    entropy, _ = binary(CrossEntropyLoss(reduction="none"), P)
    ratio = focal / entropy
    right = abs(ratio[0] - 1) < 3e-6 and abs(ratio[1] - 0.25) < 1e-12 and abs(ratio[2] - 1e-12) < 1e-16
    return Finding(
        "holds" if right else "refuted",
        [(f"ratio at p = {p:.7g}", f"{(1 - p) ** 2:.4g}", f"{r:.4g}") for p, r in zip(P, ratio, strict=True)],
        "It is cross-entropy times (1 - p)^gamma, to the last digit.",
    )
