"""Three properties of the gradient, and the binary classifiers in it."""

import torch

from lossfit import CrossEntropyLoss
from lossfit.claims import Finding, claim


@claim(
    "softmax",
    "Two classes and many classes",
    "The gradient in the scores sums to 0; its absolute values sum to twice the target's; the rivals' sum to the "
    "target's; so softmax trains C - 1 binary classifiers, weighted by the rivals' probabilities.",
)
def check() -> Finding:
    """The gradient by automatic differentiation on 500 rows of 12 classes, and the sum of pairs weighted by p."""
    generator = torch.Generator().manual_seed(0)
    z = (2 * torch.randn(500, 12, dtype=torch.float64, generator=generator)).requires_grad_()
    y = torch.randint(12, (500,), generator=generator)
    g = torch.autograd.grad(CrossEntropyLoss(reduction="sum")(z, y), z)[0]
    own = g.gather(1, y[:, None]).squeeze(1)
    rivals = g.scatter(1, y[:, None], 0.0)
    p = z.detach().softmax(1).scatter(1, y[:, None], 0.0)
    # A binary classifier of the target against k pulls +1 at k and -1 at the target.
    pairs = p.clone().scatter(1, y[:, None], -p.sum(1, keepdim=True))
    worst = [
        g.sum(1).abs().max().item(),
        (g.abs().sum(1) - 2 * own.abs()).abs().max().item(),
        (rivals.sum(1) - own.abs()).abs().max().item(),
        (g - pairs).abs().max().item(),
    ]
    names = (
        "sum of the gradient",
        "sum of absolute values minus 2 |target's|",
        "rivals' sum minus |target's|",
        "gradient minus the weighted pairs",
    )
    return Finding(
        "holds" if max(worst) < 1e-14 else "refuted",
        [(f"{name}, largest", "0", f"{value:.1e}") for name, value in zip(names, worst, strict=True)],
        "To rounding.",
    )
