"""How hard each loss pulls at a row that is wrong."""

from lossfit import CrossEntropyLoss, ExpectedAccuracyLoss, ExponentialLoss, SquaredLoss
from lossfit.claims import Finding, claim
from lossfit.claims.tools import binary, same

LOSSES = {
    "expected accuracy": (ExpectedAccuracyLoss, "1"),
    "cross-entropy": (CrossEntropyLoss, "100"),
    "squared": (SquaredLoss, "1.98"),
    "exponential": (ExponentialLoss, "0.990"),
}


@claim(
    "accuracy",
    "Why expected accuracy trains badly, reason 2, and the table of sensitivities; equation 49",
    "At p = 0.01 the sensitivities -dl/dp are 1, 100, 1.98 and about 1; the ratio of cross-entropy to expected "
    "accuracy at p = 0.9, 0.5, 0.1 and 0.01 is 1.05, 1.39, 2.56 and 4.65.",
)
def check() -> Finding:
    """The losses and their derivatives in float64, by automatic differentiation through the logits."""
    numbers, right = [], True
    for name, (cls, claimed) in LOSSES.items():
        _, slope = binary(cls(reduction="none"), [0.01])
        numbers.append((f"sensitivity at 0.01, {name}", claimed, f"{slope[0]:.4g}"))
        right &= same(slope[0], claimed)
    p = [0.9, 0.5, 0.1, 0.01]
    entropy, _ = binary(CrossEntropyLoss(reduction="none"), p)
    accuracy, _ = binary(ExpectedAccuracyLoss(reduction="none"), p)
    for at, ratio, claimed in zip(p, entropy / accuracy, ("1.05", "1.39", "2.56", "4.65"), strict=True):
        numbers.append((f"ratio at p = {at:g}", claimed, f"{ratio:.3f}"))
        right &= same(ratio, claimed)
    return Finding(
        "holds" if right else "refuted",
        numbers,
        "Of the losses in the table only cross-entropy has an unbounded sensitivity.",
    )
