"""A loss with both properties that the article looks for."""

from functools import partial

import torch

from lossfit import MultiWayLoss
from lossfit.claims import Finding, claim
from lossfit.claims.tools import least, row
from lossfit.losses.multi_way import Kind


@claim(
    "multiway",
    "Thoughts; the open problem",
    "It is not known whether a loss exists that balances the classes by a log and has a closed-form optimum for soft "
    "labels.",
)
def check() -> Finding:
    """The pairwise loss: its gradient at s = log(t) / 2, L-BFGS from 0, and hard labels drawn from (.7, .2, .1)."""
    generator = torch.Generator().manual_seed(0)
    soft = torch.softmax(2 * torch.randn(1, 6, 4, dtype=torch.float64, generator=generator), 2)
    s = (soft.log() / 2).requires_grad_()
    gradient = torch.autograd.grad(MultiWayLoss("pairwise")(s, soft), s)[0].abs().max().item()
    best = least(partial(MultiWayLoss("pairwise"), target=soft), torch.zeros_like(soft))
    reached = ((2 * best).softmax(2) - soft).abs().max().item()
    counts = (70, 20, 10)
    hard = torch.nn.functional.one_hot(torch.arange(3).repeat_interleave(torch.tensor(counts)), 3).double().unsqueeze(0)
    shared = {}
    for kind in ("pairwise", "balanced"):
        shared[kind] = _shared(kind, hard)
    close = (shared["pairwise"] - torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)).abs().max().item()
    return Finding(
        "holds with a correction" if gradient < 1e-12 and reached < 1e-4 and close < 1e-3 else "refuted",
        [
            ("gradient at s = log(t) / 2, largest", "0", f"{gradient:.1e}"),
            ("distance of softmax(2 s) from t after L-BFGS", "0", f"{reached:.1e}"),
            (
                "softmax(2 s) for 100 questions drawn from (.7, .2, .1), pairwise",
                "(.7, .2, .1)",
                row(shared["pairwise"], 3),
            ),
            ("the same, balanced (one log per class)", "", row(shared["balanced"], 3)),
        ],
        "One exists: sum over j != k of log(1 + sum_i t_ij exp(s_ik - s_ij)), the default of MultiWayLoss. Where "
        "many questions of a sample share their scores, it also gives back the frequencies that hard labels were "
        "drawn with, which no loss with one log per class does.",
    )


def _shared(kind: Kind, labels: torch.Tensor) -> torch.Tensor:
    """softmax(2 s) at the least loss where all questions have the same scores."""
    loss = MultiWayLoss(kind)
    start = torch.zeros(labels.shape[2], dtype=torch.float64)
    return (2 * least(lambda s: loss(s.expand(labels.shape), labels), start)).softmax(0)
