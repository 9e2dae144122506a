"""The curvature of cross-entropy."""

import torch

from lossfit import CrossEntropyLoss
from lossfit.claims import Finding, claim


@claim(
    "accuracy",
    "Speed of convergence; equation 67",
    "The Hessian of cross-entropy is diag(p (1 - p)), largest at p = 0.5, where the gradient signal is strongest.",
)
def check() -> Finding:
    """Hessians by automatic differentiation: in the logit of two classes, in three logits; and the gradient
    against p.
    """
    loss = CrossEntropyLoss()

    def of_logit(d: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = loss(torch.stack([d, torch.zeros_like(d)]).unsqueeze(0), torch.tensor([0]))
        return value

    d = torch.tensor(0.7, dtype=torch.float64)
    p = torch.sigmoid(d)
    second = torch.autograd.functional.hessian(of_logit, d).item()
    z = torch.tensor([0.7, -0.2, 0.4], dtype=torch.float64)
    full = torch.autograd.functional.hessian(lambda v: loss(v.unsqueeze(0), torch.tensor([0])), z)
    q = z.softmax(0)
    diagonal = (full - torch.diag(q * (1 - q))).abs().max().item()
    exact = (full - (torch.diag(q) - q.outer(q))).abs().max().item()
    slopes = {at: 1 - at for at in (0.01, 0.5, 0.99)}
    right = abs(second - (p * (1 - p)).item()) < 1e-12 and exact < 1e-12 and diagonal > 0.01
    return Finding(
        "holds with a correction" if right else "refuted",
        [
            ("two classes: second derivative in the logit", f"{(p * (1 - p)).item():.6f}", f"{second:.6f}"),
            ("three classes: distance from diag(p (1 - p))", "0", f"{diagonal:.4f}"),
            ("three classes: distance from diag(p) - p p'", "", f"{exact:.1e}"),
            *(
                (f"gradient at p = {at:g}", "largest at 0.5" if at == 0.5 else "", f"{g:.2f}")
                for at, g in slopes.items()
            ),
        ],
        "It holds for the logit of two classes. For C logits the Hessian is diag(p) - p p', for the "
        "parameters of a linear "
        "model X' D X. The curvature is largest at 0.5; the gradient, 1 - p, is largest at p = 0.",
    )
