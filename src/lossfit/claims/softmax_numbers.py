"""Softmax and log-sum-exp of three vectors."""

import torch

from lossfit.claims import Finding, claim
from lossfit.claims.tools import same

PRINTED = {
    1.0: (("0.0321", "0.0871", "0.2369", "0.6439"), "4.4402"),
    10.0: (("9.36e-14", "2.06e-9", "4.54e-5", "1.00"), "40.00"),
    0.1: (("0.2138", "0.2363", "0.2612", "0.2887"), "1.6425"),
}


@claim(
    "softmax",
    "How smooth softmax is",
    "Softmax and log-sum-exp of (1, 2, 3, 4), of 10 times and of a tenth of it are as printed; at the small scale "
    "log-sum-exp is over 4 times the maximum.",
)
def check() -> Finding:
    """The three vectors in float64, compared to half a unit of the last printed digit."""
    numbers, right = [], True
    for scale, (printed, lse) in PRINTED.items():
        x = scale * torch.arange(1, 5, dtype=torch.float64)
        found = x.softmax(0).tolist()
        total = torch.logsumexp(x, 0).item()
        right &= all(same(f, p) for f, p in zip(found, printed, strict=True)) and same(total, lse)
        numbers.append((f"softmax at scale {scale:g}", ", ".join(printed), ", ".join(f"{f:.3g}" for f in found)))
        numbers.append((f"log-sum-exp at scale {scale:g}", lse, f"{total:.5f}"))
    ratio = torch.logsumexp(0.1 * torch.arange(1, 5, dtype=torch.float64), 0).item() / 0.4
    numbers.append(("log-sum-exp over maximum at scale 0.1", "over 4", f"{ratio:.2f}"))
    return Finding("holds" if right and ratio > 4 else "refuted", numbers, "All printed digits are right.")
