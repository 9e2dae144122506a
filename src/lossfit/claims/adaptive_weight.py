"""Cross-entropy as a weighted loss."""

import torch

from lossfit import CrossEntropyLoss, ExpectedAccuracyLoss
from lossfit.claims import Finding, claim
from lossfit.claims.tools import binary


@claim(
    "accuracy",
    "The adaptive weight of cross-entropy; equation 50",
    "Cross-entropy gives each row the weight 1 / p: it equals E[(1 / p) p (-log p)], which is hard-example mining.",
)
def check() -> Finding:
    """The ratio of the gradients of cross-entropy and of expected accuracy in the logits, at p = 0.01, 0.5 and 0.99."""
    p = [0.01, 0.5, 0.99]
    _, entropy = binary(CrossEntropyLoss(reduction="none"), p)
    _, accuracy = binary(ExpectedAccuracyLoss(reduction="none"), p)
    ratio = entropy / accuracy
    right = torch.allclose(torch.tensor(ratio), 1 / torch.tensor(p, dtype=torch.float64), rtol=1e-12)
    return Finding(
        "holds with a correction" if right else "refuted",
        [
            (f"ratio of the gradients at p = {at:g}", f"{1 / at:.4g}", f"{r:.4g}")
            for at, r in zip(p, ratio, strict=True)
        ],
        "Equation 50 multiplies by 1 / p and by p, and says nothing. What holds: the gradient of cross-entropy is "
        "that of expected accuracy times 1 / p.",
    )
