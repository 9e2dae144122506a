"""Where EXACT's gradient can come from."""

import torch

from lossfit import ExactLoss
from lossfit.claims import Finding, claim
from lossfit.claims.tools import row

DRAWS = 200_000


@claim(
    "accuracy",
    "The mathematics of EXACT; equations 29 to 31",
    "EXACT estimates P by the share of draws in which the target wins, and differentiates along the draws (pathwise).",
)
def check() -> Finding:
    """The pathwise gradient of the share of wins, the score-function gradient of it, and the gradient of the
    integral.
    """
    z = torch.tensor([1.0, 0.5, 0.0, -1.0], dtype=torch.float64, requires_grad=True)
    exact = -torch.autograd.grad(ExactLoss()(z.unsqueeze(0), torch.tensor([0])), z)[0]
    noise = torch.randn(DRAWS, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wins = ((z + noise).argmax(1) == 0).double()
    pathwise = torch.zeros(4) if not wins.requires_grad else torch.autograd.grad(wins.mean(), z)[0]
    score = (wins.unsqueeze(1) * noise).mean(0)  # the score of N(z, I) at z + noise is the noise
    spread = (wins.unsqueeze(1) * noise).std(0) / DRAWS**0.5
    agrees = bool(((score - exact).abs() < 5 * spread).all())
    return Finding(
        "refuted" if agrees and not pathwise.any() and exact.abs().min() > 1e-3 else "holds",
        [
            ("gradient of P, by the integral", "", row(exact, 4)),
            ("pathwise, of the share of wins", "the same", row(pathwise, 4)),
            (f"score function, {DRAWS:,} draws", "", row(score, 4)),
        ],
        "A share of wins is piecewise constant, so its pathwise gradient is 0. The authors' code integrates an "
        "orthant probability; here P is one integral over the target's own noise, with its gradient.",
    )
