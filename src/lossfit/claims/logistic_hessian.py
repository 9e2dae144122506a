"""The curvature of cross-entropy."""

import torch

from lossfit import CrossEntropyLoss
from lossfit.claims import Finding, claim
from lossfit.claims.tools import binary


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
    own = torch.sigmoid(d)
    variance = (own * (1 - own)).item()
    second = torch.autograd.functional.hessian(of_logit, d).item()
    z = torch.tensor([0.7, -0.2, 0.4], dtype=torch.float64)
    full = torch.autograd.functional.hessian(lambda v: loss(v.unsqueeze(0), torch.tensor([0])), z)
    q = z.softmax(0)
    diagonal = (full - torch.diag(q * (1 - q))).abs().max().item()
    exact = (full - (torch.diag(q) - q.outer(q))).abs().max().item()
    at = (0.01, 0.5, 0.99)
    _, sensitivity = binary(CrossEntropyLoss(reduction="none"), at)
    slopes = {p: s * p * (1 - p) for p, s in zip(at, sensitivity, strict=True)}  # in the logit
    right = (
        slopes[0.01] > slopes[0.5] > slopes[0.99]
        and abs(second - variance) < 1e-12
        and exact < 1e-12
        and diagonal > 0.01
    )
    return Finding(
        "holds with a correction" if right else "refuted",
        [
            ("two classes: second derivative in the logit", f"{variance:.6f}", f"{second:.6f}"),
            ("three classes: distance from diag(p (1 - p))", "0", f"{diagonal:.4f}"),
            ("three classes: distance from diag(p) - p p'", "", f"{exact:.1e}"),
            *((f"gradient at p = {p:g}", "largest at 0.5" if p == 0.5 else "", f"{g:.2f}") for p, g in slopes.items()),
        ],
        "It holds for the logit of two classes. For C logits the Hessian is diag(p) - p p', for the parameters of a "
        "linear model X' D X. The curvature is largest at 0.5; the gradient, 1 - p, is largest at p = 0.",
    )
