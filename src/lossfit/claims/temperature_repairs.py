"""The same three points with a slope."""

import numpy as np

from lossfit import CrossEntropyLoss, HingeLoss
from lossfit.claims import Finding, claim
from lossfit.claims.tools import lines
from lossfit.claims.toy_example import right, total

SLOPES = (1.0, 2.0, 4.0, 8.0, 16.0, 64.0)


@claim(
    "accuracy",
    "The misleading example; equations 14 to 16",
    "With a slope k, as every network has one, the model k (x - b) trained by cross-entropy or the hinge loss comes "
    "to the b that classifies all three points, at high temperature.",
)
def check() -> Finding:
    """The least loss on a grid of b for slopes from 1 to 64, and the smallest slope from which it is right."""
    b = np.round(np.arange(-0.5, 1.5, 5e-4), 4)
    entropy, hinge = CrossEntropyLoss(reduction="none"), HingeLoss(margin=1.0, reduction="none")
    best = {k: b[total(entropy, b, k).argmin()] for k in SLOPES}
    fine = np.arange(2.5, 4.0, 0.01)
    enough = next(k for k in fine if b[total(entropy, b, k).argmin()] < 0.25)
    zero = next(k for k in np.arange(4.0, 10.0, 0.05) if total(hinge, b, k).min() < 1e-9)
    holds = all(right(np.array([best[k]]))[0] for k in (4.0, 8.0, 16.0, 64.0)) and not right(np.array([best[1.0]]))[0]
    return Finding(
        "holds with a correction" if holds else "refuted",
        [
            *((f"b where cross-entropy is least, k = {k:g}", "", f"{at:.4f}") for k, at in best.items()),
            ("slope from which cross-entropy is right", "some k", f"{enough:.2f}"),
            ("slope from which the hinge loss is 0", "", f"{zero:.2f}"),
        ],
        "A slope above 3 is enough. A large slope is a low temperature; the commentary says a high one.",
        lines(
            {f"k = {k:g}": (b[::20], total(entropy, b, k)[::20] / k) for k in (1.0, 4.0, 16.0)},
            "b",
            "cross-entropy / k",
            domainMax=2.5,
        ),
    )
