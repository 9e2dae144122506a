"""The contrastive loss that the article calls NCE."""

import torch

from lossfit import CrossEntropyLoss
from lossfit.claims import Finding, claim


@claim(
    "accuracy",
    "Contrastive learning; equation 74",
    "The noise-contrastive loss is -log of the positive's share among itself and K negatives: cross-entropy in "
    "another place.",
)
def check() -> Finding:
    """The formula on 6 rows with 9 negatives against cross-entropy over 10 classes; and noise-contrastive
    estimation.
    """
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(6, 10, dtype=torch.float64, generator=generator) / 0.1
    printed = -(scores[:, 0].exp() / scores.exp().sum(1)).log().mean().item()
    found = CrossEntropyLoss()(scores, torch.zeros(6, dtype=torch.int64)).item()
    # Gutmann and Hyvarinen: tell the positive from each of K draws of noise of known probability, here even.
    odds = scores - torch.log(torch.tensor(9.0))
    binary = torch.nn.functional.softplus(-odds[:, 0]) + torch.nn.functional.softplus(odds[:, 1:]).sum(1)
    return Finding(
        "holds with a correction" if abs(printed - found) < 1e-9 else "refuted",
        [
            ("the formula of equation 74", "", f"{printed:.6f}"),
            ("cross-entropy over 10 classes", "the same", f"{found:.6f}"),
            ("noise-contrastive estimation on the same scores", "", f"{binary.mean().item():.6f}"),
        ],
        "It is cross-entropy over K + 1 classes, but its name is InfoNCE (A. van den Oord et al., 2018). "
        "Noise-contrastive estimation is a sum of K + 1 binary losses.",
    )
