"""From the summed hinge loss to softmax cross-entropy in two steps of smoothing."""

import math

import torch

from lossfit import CrossEntropyLoss, HingeLoss, SumHingeLoss
from lossfit.claims import Finding, claim

ROWS, C = 2000, 10


@claim(
    "softmax",
    "Softmax from the view of optimisation",
    "Replacing the sum of hinges by the hinge of the largest rival, the maximum by log-sum-exp and the hinge by "
    "softplus gives softmax cross-entropy.",
)
def check() -> Finding:
    """The four rungs on 2,000 random rows of 10 classes: their order, and the distance of the last from
    cross-entropy.
    """
    generator = torch.Generator().manual_seed(0)
    z = 3 * torch.randn(ROWS, C, dtype=torch.float64, generator=generator)
    y = torch.randint(C, (ROWS,), generator=generator)
    rungs = {
        "sum of hinges": SumHingeLoss(margin=0.0, reduction="none")(z, y),
        "hinge of the largest rival": HingeLoss(margin=0.0, gap="hard", reduction="none")(z, y),
        "hinge of log-sum-exp": HingeLoss(margin=0.0, gap="soft", reduction="none")(z, y),
        "softplus of log-sum-exp": torch.nn.functional.softplus(_behind(z, y)),
    }
    entropy = CrossEntropyLoss(reduction="none")(z, y)
    sums, hard, soft, last = rungs.values()
    apart = (last - entropy).abs().max().item()
    ordered = bool((hard <= sums + 1e-12).all() and (hard <= soft + 1e-12).all() and (soft <= entropy).all())
    slack = (_behind(z, y) - _behind(z, y, hard=True)).max().item()
    return Finding(
        "holds" if apart < 1e-8 and ordered and slack <= math.log(C - 1) else "refuted",
        [
            *((name, "", f"mean {rows.mean().item():.4f}") for name, rows in rungs.items()),
            ("softmax cross-entropy", "the last", f"mean {entropy.mean().item():.4f}; apart by {apart:.1e}"),
            ("log-sum-exp minus maximum, largest", f"at most log 9 = {math.log(9):.3f}", f"{slack:.3f}"),
        ],
        "Each smoothing step raises the loss of a row, by at most log(C - 1) and log 2: that is the margin it brings.",
    )


def _behind(z: torch.Tensor, y: torch.Tensor, hard: bool = False) -> torch.Tensor:
    """How far the target is behind its rivals."""
    others = z.scatter(1, y[:, None], -torch.inf)
    rivals = others.amax(1) if hard else others.logsumexp(1)
    return rivals - z.gather(1, y[:, None]).squeeze(1)
