"""The form with a detached weight."""

import torch

from lossfit import GammaCrossEntropyLoss
from lossfit.claims import Finding, claim


@claim(
    "gamma",
    "Some more words; the last two equations",
    "The paper's loss, -max(b, p / (gamma + (1 - gamma) p)) log p with the weight detached, is equivalent to gamma "
    "cross-entropy for b = 0.",
)
def check() -> Finding:
    """Values and gradients of both on 64 rows of 7 classes, gamma = 0.2; and with b = 0.3."""
    generator = torch.Generator().manual_seed(0)
    z = (3 * torch.randn(64, 7, dtype=torch.float64, generator=generator)).requires_grad_()
    y = torch.randint(7, (64,), generator=generator)

    def run(loss: torch.nn.Module) -> tuple[float, torch.Tensor]:
        value = loss(z, y)
        return value.item(), torch.autograd.grad(value, z)[0]

    closed, gradient = run(GammaCrossEntropyLoss(0.2))
    detached, same = run(GammaCrossEntropyLoss(0.2, floor=1e-300))
    floored, other = run(GammaCrossEntropyLoss(0.2, floor=0.3))
    apart = (gradient - same).abs().max().item()
    return Finding(
        "holds with a correction" if apart < 1e-15 and abs(closed - detached) > 0.01 else "refuted",
        [
            ("largest difference of the gradients, b = 0", "0", f"{apart:.1e}"),
            ("values: closed form, detached form", "", f"{closed:.4f}, {detached:.4f}"),
            (
                "with b = 0.3: value, difference of the gradients",
                "",
                f"{floored:.4f}, {(gradient - other).abs().max().item():.3f}",
            ),
        ],
        "The gradients agree, the values do not: curves of the two losses cannot be compared. At gamma = 1 the "
        "detached form is the loss called DFT in fine-tuning, p times cross-entropy.",
    )
