"""The article's two attempts at n questions of m answers."""

from functools import partial

import torch

from lossfit import MultiWayLoss
from lossfit.claims import Finding, claim
from lossfit.claims.tools import least


@claim(
    "multiway",
    "By analogy, and backwards from the result; equations 2 and 7",
    "The loss by analogy does well on hard labels and has no simple optimum for soft ones; the centred loss has the "
    "optimum softmax(s) = t, and fails on hard labels, where a wrong answer may come out largest. For m = 2 both are "
    "the multi-label loss.",
)
def check() -> Finding:
    """L-BFGS on four questions of three answers with soft labels; the loss of s = (10, 11, -21) with the first
    answer right.
    """
    generator = torch.Generator().manual_seed(0)
    soft = torch.softmax(torch.randn(1, 4, 3, dtype=torch.float64, generator=generator), 2)
    start = torch.zeros_like(soft)
    scores = {kind: least(partial(MultiWayLoss(kind), target=soft), start) for kind in ("analogy", "centered")}
    analogy = ((2 * scores["analogy"]).softmax(2) - soft).abs().max().item()
    centred = (scores["centered"].softmax(2) - soft).abs().max().item()
    s = torch.tensor([[[10.0, 11.0, -21.0]]], dtype=torch.float64)
    wrong = {kind: MultiWayLoss(kind)(s, torch.tensor([[0]])).item() for kind in ("centered", "analogy")}
    right = analogy > 0.01 and centred < 1e-4 and wrong["centered"] < 1e-3 < 1 < wrong["analogy"]
    return Finding(
        "holds" if right else "refuted",
        [
            ("analogy: distance of softmax(2 s) at the optimum from soft labels", "above 0", f"{analogy:.3f}"),
            ("centred: distance of softmax(s) at the optimum from soft labels", "0", f"{centred:.1e}"),
            ("centred loss where the second answer is largest, the first right", "near 0", f"{wrong['centered']:.1e}"),
            ("loss by analogy there", "large", f"{wrong['analogy']:.2f}"),
        ],
        "Both are here as kind='analogy' and kind='centered'.",
    )
