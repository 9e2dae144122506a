"""What a log around the sum over questions does to the classes."""

import torch

from lossfit.claims import Finding, claim

COUNTS = (800, 150, 50)


@claim(
    "multiway",
    "Thoughts; on the imbalance of classes",
    "With the sum inside the log each class takes part by the log of its number of rows, so that the imbalance is "
    "reduced.",
)
def check() -> Finding:
    """The share of the gradient of each class, 800, 150 and 50 rows, in sum_j log(1 + n_j a), early (a = 1)
    and late (a = 0.001).
    """
    n = torch.tensor(COUNTS, dtype=torch.float64)
    numbers, spread = [], {}
    for a in (1.0, 0.1, 0.001):
        weight = torch.full((3,), a, dtype=torch.float64, requires_grad=True)
        gradient = torch.autograd.grad(torch.log1p(n * weight).sum(), weight)[0]
        share = (gradient / gradient.sum()).tolist()
        spread[a] = share[0] / share[2]
        claimed = "even" if a == 1.0 else ""
        numbers.append((f"shares of the gradient, a = {a:g}", claimed, ", ".join(f"{s:.3f}" for s in share)))
    numbers.append(("shares of the rows", "", ", ".join(f"{c / sum(COUNTS):.3f}" for c in COUNTS)))
    return Finding(
        "holds with a correction" if spread[1.0] < 1.05 and spread[0.001] > 5 else "refuted",
        numbers,
        "Early in training, while n_j a is large, the classes pull alike. Late, when the loss of every row is small, "
        "the log is linear and the balance is gone.",
    )
