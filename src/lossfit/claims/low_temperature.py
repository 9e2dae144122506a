"""Whether a low temperature turns cross-entropy into accuracy."""

import numpy as np
import torch

from lossfit import CrossEntropyLoss, ExpectedAccuracyLoss
from lossfit.claims import Finding, claim

X = np.array([-1.0, -0.5, 0.5, 1.0, -10.0])
Y = np.array([-1, -1, 1, 1, 1])  # the last point is far on the wrong side


def least(loss: torch.nn.Module, temperature: float, b: np.ndarray) -> float:
    """Where the loss of x - b over the points is least."""
    score = torch.tensor((X[None] - b[:, None]).ravel() / temperature)
    label = torch.tensor((Y > 0).astype(int)).repeat(len(b))
    rows: torch.Tensor = loss(torch.stack([torch.zeros_like(score), score], 1), label)
    return float(b[rows.view(len(b), -1).sum(1).argmin()])


def accuracy(b: float) -> float:
    return float(np.mean(Y * (X - b) > 0))


@claim(
    "accuracy",
    "On the temperature; equations 20 and 21",
    "As the temperature goes to 0, minimising cross-entropy becomes maximising accuracy.",
)
def check() -> Finding:
    """Five points, one of them far on the wrong side; the model x - b; the least loss on a grid of b."""
    b = np.round(np.arange(-12, 3, 1e-3) + 5e-4, 4)
    entropy, expected = CrossEntropyLoss(reduction="none"), ExpectedAccuracyLoss(reduction="none")
    best = max(accuracy(at) for at in b)
    numbers = [("best accuracy of any b", "", f"{best:.1f}")]
    reached = {}
    for name, loss, temperature in (
        ("cross-entropy", entropy, 1.0),
        ("cross-entropy", entropy, 0.1),
        ("cross-entropy", entropy, 0.01),
        ("expected accuracy", expected, 0.05),
    ):
        at = least(loss, temperature, b)
        reached[name, temperature] = accuracy(at)
        claimed = f"{best:.1f}" if temperature == 0.01 else ""
        numbers.append(
            (f"accuracy at the least {name}, T = {temperature:g}", claimed, f"{accuracy(at):.1f} (b {at:.2f})")
        )
    refuted = reached["cross-entropy", 0.01] < best == reached["expected accuracy", 0.05]
    return Finding(
        "refuted" if refuted else "holds",
        numbers,
        "T times cross-entropy tends to the hinge loss max(0, -y f), which pays for how far a point is wrong, not "
        "for whether. Expected accuracy at a low temperature is the one that finds the best b.",
    )
