"""Gradient descent by cross-entropy on rows that a line separates."""

import numpy as np
import torch

from lossfit import CrossEntropyLoss
from lossfit.claims import Finding, claim
from lossfit.claims.tools import lines

STEPS = (10, 100, 1_000, 10_000)
RATE = 0.2


@claim(
    "accuracy",
    "Convergence, reason 3, and equation 66",
    "On separable rows gradient descent by cross-entropy converges to the maximum-margin solution, as O(1 / t).",
)
def check() -> Finding:
    """10,000 steps of gradient descent on ten points in the plane: length and direction of the weights, and
    the loss.
    """
    x = torch.tensor([[0.5, 2.0], [2.0, 0.7], [4.0, 1.2], [5.0, 1.0], [6.0, 2.0]], dtype=torch.float64)
    rows = torch.cat([x, -x])
    y = torch.tensor([1] * 5 + [0] * 5)
    best = _widest(x.numpy())
    weight = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    loss, numbers, lengths, angles = CrossEntropyLoss(), [], [], []
    for step in range(1, STEPS[-1] + 1):
        score = rows @ weight
        value = loss(torch.stack([torch.zeros_like(score), score], 1), y)
        (grad,) = torch.autograd.grad(value, weight)
        with torch.no_grad():
            weight -= RATE * grad
        if step in STEPS:
            direction = weight.detach().numpy()
            length = float(np.linalg.norm(direction))
            angle = float(np.arccos(np.clip(direction @ best / length, -1, 1)))
            lengths.append(length)
            angles.append(angle)
            numbers.append(
                (
                    f"step {step:,}: |w|, angle to the widest margin, t x loss",
                    "",
                    f"{length:.2f}, {angle:.4f}, {step * value.item():.2f}",
                )
            )
    grows = lengths == sorted(lengths) and lengths[-1] > 1.5 * lengths[0]
    turns = angles == sorted(angles, reverse=True)
    return Finding(
        "holds with a correction" if grows and turns else "refuted",
        numbers,
        "The direction tends to the widest margin, slowly. There is no minimiser to converge to: the weights grow "
        "like log t without end. What falls like 1 / t is the loss.",
        lines({"angle to the widest margin": (np.log10(STEPS), angles)}, "log10 of the step", "radians"),
    )


def _widest(x: np.ndarray) -> np.ndarray:
    """The direction with the widest margin, through the origin, on a fine grid of angles."""
    angle = np.linspace(0, np.pi / 2, 200_001)
    directions = np.stack([np.cos(angle), np.sin(angle)])
    found: np.ndarray = directions[:, (x @ directions).min(0).argmax()]
    return found
