"""Label smoothing as two divergences."""

import torch
from torch.nn.functional import kl_div

from lossfit import CrossEntropyLoss
from lossfit.claims import Finding, claim

C, EPSILON = 5, 0.2


@claim(
    "accuracy",
    "Label smoothing; equations 56 to 58",
    "Label smoothing, with eps / (C - 1) on each wrong class, is (1 - eps) KL(data || p) + eps KL(uniform || p).",
)
def check() -> Finding:
    """Both sides on one row of five classes, with eps = 0.2."""
    z = torch.tensor([1.0, -0.5, 0.3, 0.0, 2.0], dtype=torch.float64)
    log_p = z.log_softmax(0)
    q = torch.full((C,), EPSILON / (C - 1), dtype=torch.float64)
    q[0] = 1 - EPSILON
    loss = -(q * log_p).sum().item()
    data = -log_p[0].item()
    uniform = kl_div(log_p, torch.full((C,), 1 / C, dtype=torch.float64), reduction="sum").item()
    printed = (1 - EPSILON) * data + EPSILON * uniform
    share = EPSILON * C / (C - 1)
    corrected = (1 - share) * data + share * (uniform + torch.tensor(float(C)).log().item())
    own = CrossEntropyLoss(label_smoothing=share)(z.unsqueeze(0), torch.tensor([0])).item()
    right = abs(loss - corrected) < 1e-6 and abs(own - loss) < 1e-12 and abs(loss - printed) > 0.01
    return Finding(
        "holds with a correction" if right else "refuted",
        [
            ("label smoothing", "", f"{loss:.4f}"),
            ("the two divergences as printed", f"{loss:.4f}", f"{printed:.4f}"),
            ("with eps' = eps C / (C - 1), and eps' log C", "", f"{corrected:.4f}"),
            ("CrossEntropyLoss(label_smoothing=eps')", "", f"{own:.4f}"),
        ],
        "The weights are 1 - eps' and eps' with eps' = eps C / (C - 1), and the entropy of the uniform, log C, is "
        "missing: a constant, without effect on training.",
    )
