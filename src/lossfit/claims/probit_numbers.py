"""The probability of the larger of two scores, one apart, under each noise."""

import math

import torch
from scipy.stats import norm

from lossfit import CrossEntropyLoss, ExactLoss
from lossfit.claims import Finding, claim


@claim(
    "accuracy",
    "Gumbel against Gaussian, numerical comparison; equations 28 and 34",
    "With scores one apart, softmax gives 0.731, the probit model Phi(1) = 0.841, and EXACT Phi(1 / sigma).",
)
def check() -> Finding:
    """The two losses on the logits (1, 0), and their probabilities."""
    z, y = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([0])
    softmax = math.exp(-CrossEntropyLoss()(z, y).item())
    exact = {sigma: 1 - ExactLoss(sigma=sigma)(z, y).item() for sigma in (0.5, 1.0, 2.0)}
    numbers = [("softmax", "0.731", f"{softmax:.4f}"), ("probit, Phi(1)", "0.841", f"{norm.cdf(1):.4f}")]
    numbers += [(f"EXACT, sigma = {s:g}", f"{norm.cdf(1 / s):.4f}", f"{p:.4f}") for s, p in exact.items()]
    right = abs(softmax - 0.7311) < 1e-4 and abs(norm.cdf(1) - 0.8413) < 1e-4
    differences = all(abs(p - norm.cdf(1 / (s * math.sqrt(2)))) < 1e-9 for s, p in exact.items())
    return Finding(
        "holds with a correction" if right and differences else "refuted",
        numbers,
        "EXACT adds noise to both scores, and the difference of two has variance 2: it is Phi(1 / (sigma sqrt 2)), "
        "as the article's own equation 28 says.",
    )
