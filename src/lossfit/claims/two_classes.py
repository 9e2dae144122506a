"""Softmax over two classes, and the parametrisation with one class fewer."""

import torch

from lossfit import CrossEntropyLoss
from lossfit.claims import Finding, claim


@claim(
    "softmax",
    "Softmax and the sigmoid; softmax and logistic regression",
    "For two classes softmax is the sigmoid of the difference; for K classes subtracting the last weight vector "
    "leaves the probabilities as they are.",
)
def check() -> Finding:
    """Both identities on random weights and rows, and cross-entropy under both."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 4, dtype=torch.float64, generator=generator)
    weight = torch.randn(6, 4, dtype=torch.float64, generator=generator)
    pair = x @ weight[:2].T
    one = (pair.softmax(1)[:, 0] - torch.sigmoid(pair[:, 0] - pair[:, 1])).abs().max().item()
    all_of = (x @ weight.T).softmax(1)
    fewer = (x @ (weight - weight[-1]).T).softmax(1)
    two = (all_of - fewer).abs().max().item()
    y = torch.randint(6, (50,), generator=generator)
    loss = CrossEntropyLoss()
    three = abs(loss(x @ weight.T, y) - loss(x @ (weight - weight[-1]).T, y)).item()
    return Finding(
        "holds" if max(one, two, three) < 1e-13 else "refuted",
        [
            ("softmax of two minus sigmoid of the difference, largest", "0", f"{one:.1e}"),
            ("probabilities of K and of K - 1 weight vectors, largest difference", "0", f"{two:.1e}"),
            ("cross-entropy under both, difference", "0", f"{three:.1e}"),
        ],
        "To rounding. The K - 1 form is the one without a direction in which the loss is flat.",
    )
