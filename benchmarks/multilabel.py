"""Time of the multi-label losses, as ratios to what they are usually written as, in the same run.

    python benchmarks/multilabel.py                  # some minutes, written to benchmarks/results/
    python benchmarks/multilabel.py --rounds 5 --out /tmp/multilabel.json

Forward and backward, eager, with respect to the scores, float32. A round times the usual form and then the loss of the
library, and a ratio is taken within its round; the median over rounds is reported with its quartiles. The usual forms
are ``torch.nn.functional.binary_cross_entropy_with_logits``, and for the other losses plain PyTorch differentiated by
autograd. ``zlpr_to_bce`` compares ZLPR with PyTorch's binary cross-entropy. The sparse case lists right classes; its
usual form scatters them into labels of 0 and 1 first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from dense import hardware, once, spread
from torch import Tensor

import lossfit

SHAPES = ((128, 10), (512, 1024), (4096, 1000), (256, 30000))
RIGHT = 8  # classes of a row that are right

Loss = Callable[[Tensor, Tensor], Tensor]


def zlpr(scores: Tensor, target: Tensor) -> Tensor:
    signed = (1 - 2 * target) * scores
    zero = torch.zeros_like(scores[:, :1])
    wrong = torch.cat([signed - 1e12 * target, zero], 1)
    right = torch.cat([signed - 1e12 * (1 - target), zero], 1)
    return (wrong.logsumexp(1) + right.logsumexp(1)).mean()


def soft_zlpr(scores: Tensor, target: Tensor) -> Tensor:
    zero = torch.zeros_like(scores[:, :1])
    wrong = torch.cat([scores + torch.log1p(-target), zero], 1)
    right = torch.cat([target.log() - scores, zero], 1)
    return (wrong.logsumexp(1) + right.logsumexp(1)).mean()


def sparse_zlpr(scores: Tensor, target: Tensor) -> Tensor:
    return zlpr(scores, torch.zeros_like(scores).scatter_(1, target, 1.0))


def focal(scores: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    p = torch.sigmoid(scores)
    loss = F.binary_cross_entropy_with_logits(scores, target, reduction="none")
    right = p * target + (1 - p) * (1 - target)
    return ((alpha * target + (1 - alpha) * (1 - target)) * loss * (1 - right) ** gamma).mean()


def asymmetric(scores: Tensor, target: Tensor, positive: float = 0.0, negative: float = 4.0) -> Tensor:
    p = torch.sigmoid(scores)
    q = (1 - p + 0.05).clamp(max=1)
    loss = target * p.clamp(min=1e-8).log() + (1 - target) * q.clamp(min=1e-8).log()
    right = p * target + q * (1 - target)
    return -(loss * (1 - right) ** (positive * target + negative * (1 - target))).mean()


def cases() -> dict[str, tuple[Loss, Loss, str]]:
    """By name: the loss, its usual form, and the kind of labels."""
    bce = F.binary_cross_entropy_with_logits
    return {
        "bce": (lossfit.BCELoss(), bce, "hard"),
        "bce, soft": (lossfit.BCELoss(), bce, "soft"),
        "zlpr": (lossfit.ZLPRLoss(), zlpr, "hard"),
        "zlpr, soft": (lossfit.ZLPRLoss(), soft_zlpr, "soft"),
        "zlpr, sparse": (lossfit.ZLPRLoss(), sparse_zlpr, "sparse"),
        "focal_bce": (lossfit.FocalBCELoss(), focal, "hard"),
        "asymmetric": (lossfit.AsymmetricLoss(), asymmetric, "hard"),
        "zlpr_to_bce": (lossfit.ZLPRLoss(), bce, "hard"),
    }


def batch(shape: tuple[int, int]) -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(shape, generator=generator).mul_(3).requires_grad_()
    listed = torch.rand(shape, generator=generator).topk(min(RIGHT, shape[1] // 2)).indices
    hard = torch.zeros(shape).scatter_(1, listed, 1.0)
    soft = torch.rand(shape, generator=generator).clamp_(1e-6, 1 - 1e-6)
    return scores, {"hard": hard, "soft": soft, "sparse": listed}


def ratios(shape: tuple[int, int], rounds: int) -> dict[str, Any]:
    scores, labels = batch(shape)
    found: dict[str, Any] = {}
    for name, (loss, usual, kind) in cases().items():
        target = labels[kind]
        once(loss, scores, target, 2)
        calls = max(1, round(20 / once(usual, scores, target, 2)))
        times = [[once(f, scores, target, calls) for f in (usual, loss)] for _ in range(rounds)]
        found[name] = {
            "usual_ms": round(sorted(base for base, _ in times)[rounds // 2], 4),
            "ratio": spread([own / base for base, own in times]),
        }
    return {"shape": shape, "losses": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="rounds per shape (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "multilabel-cpu.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {"hardware": hardware(), "rows": []}
    print(result["hardware"])
    for shape in SHAPES:
        row = ratios(shape, options.rounds)
        print(f"\n{shape}")
        for name, case in row["losses"].items():
            r = case["ratio"]
            print(f"  {name:14} {r['median']:6.3f}   [{r['low']:.3f}, {r['high']:.3f}]   of {case['usual_ms']:.3g} ms")
        result["rows"].append(row)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
