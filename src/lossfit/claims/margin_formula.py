"""ArcFace as the notes print it."""

import torch

from lossfit import CrossEntropyLoss
from lossfit.claims import Finding, claim


@claim(
    "softmax",
    "ArcFace (CVPR 2019); the formula L_2",
    "The loss of ArcFace is cross-entropy of |x| cos(theta_y) among |x| cos(theta_j).",
)
def check() -> Finding:
    """The boundary between two classes 60 degrees apart under the printed formula, and under cos(theta_y + m)."""
    between, m, scale = torch.pi / 3, 0.5, 64.0
    theta = torch.linspace(0, float(between), 60_001, dtype=torch.float64)

    def boundary(margin: float) -> float:
        scores = scale * torch.stack([torch.cos(theta + margin), torch.cos(between - theta)], 1)
        rows = CrossEntropyLoss(reduction="none")(scores, torch.zeros(len(theta), dtype=torch.int64))
        return float(theta[(rows < torch.log(torch.tensor(2.0, dtype=torch.float64))).nonzero()[-1]])

    printed, real = boundary(0.0), boundary(m)
    right = abs(printed - float(between) / 2) < 1e-4 and abs(real - (float(between) - m) / 2) < 1e-4
    return Finding(
        "refuted" if right else "holds",
        [
            ("boundary by the printed formula, degrees from the weight", "", f"{printed * 57.29578:.2f}"),
            ("half way between the weights", "", f"{float(between) / 2 * 57.29578:.2f}"),
            ("boundary by s cos(theta + 0.5)", "", f"{real * 57.29578:.2f}"),
        ],
        "The printed formula has no margin: it is softmax on normalised weights. ArcFace has s cos(theta_y + m) for "
        "the target, with one scale s for all features.",
    )
