"""Likelihood and cross-entropy."""

import math

import torch

from lossfit import CrossEntropyLoss
from lossfit.claims import Finding, claim


@claim(
    "softmax",
    "Cross-entropy and maximum likelihood once more",
    "With p = (rain .14, snow .37, sleet .03, hail .46) the likelihood of snow is .37; minimising cross-entropy is "
    "maximising the likelihood.",
)
def check() -> Finding:
    """The likelihood of the example, and of 20 random rows against the exponential of the summed cross-entropy."""
    p = torch.tensor([0.14, 0.37, 0.03, 0.46], dtype=torch.float64)
    snow = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    likelihood = (p**snow).prod().item()
    loss = CrossEntropyLoss(reduction="sum")
    by_loss = math.exp(-loss(p.log().unsqueeze(0), torch.tensor([1])).item())
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(20, 4, dtype=torch.float64, generator=generator)
    y = torch.randint(4, (20,), generator=generator)
    product = z.softmax(1).gather(1, y[:, None]).prod().item()
    other = math.exp(-loss(z, y).item())
    right = abs(likelihood - 0.37) < 1e-12 and abs(by_loss - 0.37) < 1e-12 and abs(product / other - 1) < 1e-12
    return Finding(
        "holds" if right else "refuted",
        [
            ("likelihood of snow", ".37", f"{likelihood:.2f}"),
            ("exp(-cross-entropy) of snow", ".37", f"{by_loss:.2f}"),
            ("likelihood of 20 rows over exp(-sum of cross-entropies)", "1", f"{product / other:.15f}"),
        ],
        "An identity.",
    )
