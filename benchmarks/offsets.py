"""What a common offset of the scores costs every loss on the soft gap, in float32, beside PyTorch's cross-entropy.

    python benchmarks/offsets.py                  # written to benchmarks/results/
    python benchmarks/offsets.py --rows 300 --out /tmp/offsets.json

Softmax does not know where zero is: scores z and z + v give the same probabilities. Random rows of scores are shifted
by v and rounded to float32; the loss of each row and its gradient in float32 are then compared with those in float64 of
the very same rounded scores, from which v has been taken off again. The error of a value is relative to that value, the
error of a gradient is the largest one of its entries, relative to the largest entry of the row. The worst row counts.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import dense
import torch
import torch.nn.functional as F
from torch import Tensor

import lossfit

ROWS, CLASSES, STD = 3000, 1000, 3.0
OFFSETS = (0.0, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7)
MOST = 5e-6

Loss = Callable[[Tensor, Tensor], Tensor]


def losses() -> dict[str, Loss]:
    """PyTorch's cross-entropy, and every loss of the catalogue on the soft gap."""
    found: dict[str, Loss] = {"F.cross_entropy": partial(F.cross_entropy, reduction="none")}
    found |= dense.links(reduction="none")
    found["cross_entropy, smoothed"] = lossfit.CrossEntropyLoss(label_smoothing=0.1, reduction="none")
    found["cross_entropy, temperature 3"] = lossfit.CrossEntropyLoss(temperature=3.0, reduction="none")
    prior = torch.arange(1.0, CLASSES + 1)
    found["cross_entropy, class_prior"] = lossfit.CrossEntropyLoss(class_prior=prior, reduction="none")
    return found


def value_and_grad(loss: Loss, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    scores = scores.clone().requires_grad_()
    value = loss(scores, target)
    (grad,) = torch.autograd.grad(value.sum(), scores)
    return value.detach().double(), grad.double()


def errors(loss: Loss, scores: Tensor, exact: Tensor, target: Tensor) -> dict[str, float]:
    value, grad = value_and_grad(loss, scores, target)
    true, true_grad = value_and_grad(loss, exact, target)
    by_value = (value - true).abs() / true.abs().clamp(min=torch.finfo(torch.float32).tiny)
    by_grad = (grad - true_grad).abs().amax(1) / true_grad.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny)
    by_value[value == true] = 0.0
    return {"value": by_value.max().item(), "gradient": by_grad.max().item()}


def measure(rows: int) -> dict[str, dict[str, dict[str, float]]]:
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(rows, CLASSES, generator=generator, dtype=torch.float64) * STD
    target = torch.randint(CLASSES, (rows,), generator=generator)
    every = losses()
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in every}
    for offset in OFFSETS:
        scores = (plain + offset).float()
        exact = scores.double() - offset
        for name, loss in every.items():
            found[name][f"{offset:g}"] = errors(loss, scores, exact, target)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "offsets-cpu.json")
    arguments = parser.parse_args()
    found = measure(arguments.rows)
    worst = {
        name: {kind: max(errors[kind] for errors in by_offset.values()) for kind in ("value", "gradient")}
        for name, by_offset in found.items()
    }
    for name, error in worst.items():
        print(f"{name:32} value {error['value']:.1e}  gradient {error['gradient']:.1e}")
    result = {
        "command": "python benchmarks/offsets.py",
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, torch {torch.__version__}, lossfit {lossfit.__version__}",
        "rows": arguments.rows,
        "classes": CLASSES,
        "std": STD,
        "most": MOST,
        "worst": worst,
        "errors": found,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    missed = [name for name, error in worst.items() if name != "F.cross_entropy" and max(error.values()) > MOST]
    print(f"{'all' if not missed else 'not all'} at most {MOST:g}" + (f": {', '.join(missed)}" if missed else ""))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
