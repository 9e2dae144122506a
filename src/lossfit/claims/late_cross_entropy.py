"""Whether cross-entropy is expected accuracy late in training."""

import math

import numpy as np
import torch

from lossfit import CrossEntropyLoss
from lossfit.claims import Finding, claim
from lossfit.claims.tools import lines
from lossfit.compare.data import dataset

STEPS = (10, 100, 1000, 2000, 5000)


def probabilities() -> dict[int, np.ndarray]:
    """The targets' probabilities on the training rows as a network learns the majority labels of the tweets."""
    found = {}
    source = dataset.load("tweets")
    x = torch.from_numpy(source.numeric.to_numpy().astype(np.float32))
    y = torch.from_numpy(source.labels)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(x.shape[1], 64), torch.nn.ReLU(), torch.nn.Linear(64, 3))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    loss = CrossEntropyLoss()
    for step in range(1, STEPS[-1] + 1):
        rows = torch.randint(len(y), (128,))
        optimizer.zero_grad()
        loss(model(x[rows]), y[rows]).backward()
        optimizer.step()
        if step in STEPS:
            with torch.no_grad():
                found[step] = model(x).double().softmax(1).gather(1, y[:, None]).squeeze(1).numpy()
    return found


@claim(
    "accuracy",
    "A new view; equations 41 to 48",
    "Late in training most p are near 1, and cross-entropy is nearly the mean of 1 - p; the error of log x = x - 1 "
    "on [0.9, 1] is at most 0.005, and half of E[(1 - p)^2] is what is missing.",
)
def check() -> Finding:
    """The error at 0.9, and both sides on the training rows of a network that learns the tweets by cross-entropy."""
    worst = abs(math.log(0.9) + 0.1)
    numbers = [("error at x = 0.9", "at most 0.005", f"{worst:.5f}")]
    bound = 0.1**2 / (2 * 0.9)
    numbers.append(("the bound (1 - x)^2 / (2 x) there", "", f"{bound:.5f}"))
    gaps, rows = [], []
    for step, p in probabilities().items():
        entropy, first = float(-np.log(p).mean()), float((1 - p).mean())
        second = first + float(((1 - p) ** 2).mean()) / 2
        gaps.append(entropy / first - 1)
        rows.append((entropy, first, second))
        numbers.append(
            (
                f"step {step}: cross-entropy, E[1 - p], with the second term",
                "",
                f"{entropy:.4f}, {first:.4f}, {second:.4f}",
            )
        )
    steps = list(STEPS)
    near = gaps[-1] < 0.1 < gaps[0]
    return Finding(
        "holds with a correction" if near and 0.005 < worst <= bound else "refuted",
        numbers,
        f"On the training rows cross-entropy exceeds E[1 - p] by {gaps[0]:.0%} at step {STEPS[0]} and by "
        f"{gaps[-1]:.0%} at "
        f"step {STEPS[-1]}. The bound of equation 45 is too small: the remainder is (1 - x)^2 / (2 x), not (1 "
        "- x)^2 / 2.",
        lines(
            {
                "cross-entropy": (steps, [e for e, _, _ in rows]),
                "E[1 - p]": (steps, [f for _, f, _ in rows]),
                "with the second term": (steps, [s for _, _, s in rows]),
            },
            "step",
            "mean over the training rows",
        ),
    )
