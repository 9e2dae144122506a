"""Three points, and what each loss makes of them."""

import numpy as np
import torch
from scipy.optimize import brentq

from lossfit import CrossEntropyLoss, HingeLoss
from lossfit.claims import Finding, claim
from lossfit.claims.tools import lines

POINTS = ((-0.25, -1), (0.0, -1), (0.25, 1))


def total(loss: torch.nn.Module, b: np.ndarray, slope: float = 1.0) -> np.ndarray:
    """The sum of a two-class loss over the points, where the model is slope * (x - b)."""
    score = torch.stack([torch.tensor(slope * (x - b)) for x, _ in POINTS], 1).flatten()
    label = torch.tensor([int(y > 0) for _, y in POINTS]).repeat(len(b))
    rows: torch.Tensor = loss(torch.stack([torch.zeros_like(score), score], 1), label)
    return rows.view(len(b), 3).sum(1).numpy()


def right(b: np.ndarray) -> np.ndarray:
    """Whether all points are on their side."""
    found: np.ndarray = np.all([y * (x - b) > 0 for x, y in POINTS], axis=0)
    return found


def _wrong(b: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.sum([y * (x - b) <= 0 for x, y in POINTS], axis=0)
    return found


@claim(
    "accuracy",
    "The misleading example; equations 7 to 13",
    "On the points (-0.25, -), (0, -), (0.25, +), with the model x - b, cross-entropy is least at b = 0.7 and the "
    "hinge loss on [0.75, 1], while all points are right only for b in (0, 0.25).",
)
def check() -> Finding:
    """Both losses on a grid of b with steps of 0.0001, and the root of the slope of cross-entropy."""
    b = np.round(np.arange(-1, 2, 1e-4), 4)
    hinge = total(HingeLoss(margin=1.0, reduction="none"), b)
    least = b[hinge <= hinge.min() + 1e-9]
    good = b[right(b)]

    def slope(at: float) -> float:
        return float(sum(y / (1 + np.exp(y * (x - at))) for x, y in POINTS))

    root = brentq(slope, 0, 2)
    entropy = total(CrossEntropyLoss(reduction="none"), b)
    holds = (
        abs(root - 0.7) < 1e-3
        and abs(b[entropy.argmin()] - root) < 1e-4
        and np.allclose((least[0], least[-1]), (0.75, 1.0), atol=2e-4)
        and 0 < good[0] < 2e-4
        and 0.2498 < good[-1] < 0.25
    )
    return Finding(
        "holds" if holds else "refuted",
        [
            ("b where cross-entropy is least", "0.7", f"{root:.6f}"),
            ("b where the hinge loss is least", "[0.75, 1]", f"[{least[0]:.4f}, {least[-1]:.4f}]"),
            ("b with all points right", "(0, 0.25)", f"({good[0]:.4f}, {good[-1]:.4f}) on the grid"),
        ],
        "Neither loss picks a b that classifies all three points. The next claim says why that is unfair.",
        lines(
            {
                "cross-entropy": (b[::50], entropy[::50]),
                "hinge loss": (b[::50], hinge[::50]),
                "points on the wrong side": (b[::50], _wrong(b[::50])),
            },
            "b",
            "sum over the three points",
        ),
    )
