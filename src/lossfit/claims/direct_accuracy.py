"""Training by expected accuracy from scratch."""

import torch

from lossfit import CrossEntropyLoss, ExpectedAccuracyLoss
from lossfit.claims import Finding, claim
from lossfit.claims.tools import compare, points


@claim(
    "accuracy",
    "New bottle, old wine; equations 35 to 38",
    "Optimising expected accuracy E[p] directly trains worse than optimising cross-entropy.",
)
def check() -> Finding:
    """Both losses on yeast, 10 trainings on three of five folds, 8 settings each; and the size of their gradients where
    all classes are even.
    """
    found = compare("yeast", "expected_accuracy", metric="accuracy", repeats=1, trials=8)
    balanced = found["expected_accuracy"]["differences"]["balanced_accuracy"]
    versus = found["expected_accuracy"]["vs_cross_entropy"]
    sizes = []
    for loss in (CrossEntropyLoss(), ExpectedAccuracyLoss()):
        z = torch.zeros(1, 10, dtype=torch.float64, requires_grad=True)
        sizes.append(float(torch.autograd.grad(loss(z, torch.tensor([0])), z)[0].abs().sum()))
    worse = versus["ci95"][1] < 0
    collapses = balanced["ci95"][1] < 0
    return Finding(
        "holds" if worse and collapses else "holds with a correction" if collapses else "refuted",
        [
            ("accuracy of cross-entropy", "", f"{100 * found['cross_entropy']['test']['accuracy']['mean']:.1f}%"),
            ("accuracy, difference", "below 0", points(versus)),
            ("balanced accuracy, difference", "below 0", points(balanced)),
            (
                "gradient at even probabilities, 10 classes: ratio to cross-entropy's",
                "1/C",
                f"{sizes[1] / sizes[0]:.3f}",
            ),
        ],
        "Rows of the rare classes start with a small p, and a pull of p times cross-entropy's: they are given up. "
        "With wrong labels that is a virtue (see the claim on dirty labels).",
    )
