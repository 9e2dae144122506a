"""Margin softmax against pytorch-metric-learning: time of forward and backward of the same loss on the same numbers.

    python -m pip install pytorch-metric-learning==2.9.0
    python benchmarks/margins.py                  # written to benchmarks/results/margins-cpu.json

Both are differentiated by features and weights. One round times the peer and then the head; a ratio is taken within
its round, and the median over rounds is reported with its quartiles. Values and gradients are compared first.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from dense import hardware, spread
from torch import Tensor

import lossfit

try:
    import pytorch_metric_learning
    from pytorch_metric_learning import losses as peers
except ImportError as error:
    raise SystemExit("benchmarks/margins.py compares with pytorch-metric-learning: install version 2.9.0.") from error

ROWS, FEATURES = 128, 512
CLASSES = (1000, 10_000)

Pair = tuple[lossfit.CosineHead, torch.nn.Module]


def pairs(classes: int) -> dict[str, Pair]:
    """The head and the peer for the same loss, with the same weights."""
    found: dict[str, Pair] = {
        "ArcFace": (
            lossfit.CosineHead(FEATURES, classes, 64.0, lossfit.ArcMargin(math.radians(28.6), "pml")),
            peers.ArcFaceLoss(classes, FEATURES, margin=28.6, scale=64),
        ),
        "CosFace": (
            lossfit.CosineHead(FEATURES, classes, 64.0, lossfit.AdditiveMargin(0.35)),
            peers.CosFaceLoss(classes, FEATURES, margin=0.35, scale=64),
        ),
        "SphereFace": (
            lossfit.CosineHead(FEATURES, classes, "norm", lossfit.AngularMargin(4)),
            peers.SphereFaceLoss(classes, FEATURES, margin=4, scale=1),
        ),
    }
    for head, peer in found.values():
        with torch.no_grad():
            peer.W.copy_(head.weight.T)
    return found


def step(call: Callable[[Tensor, Tensor], Tensor], weight: Tensor, x: Tensor, y: Tensor) -> Tensor:
    x.grad = weight.grad = None
    value = call(x, y)
    value.backward()
    return value.detach()


def differences(head: lossfit.CosineHead, peer: torch.nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Relative differences between head and peer, in value and in both gradients."""
    ours, to_x = step(head.loss, head.weight, x, y), x.grad
    theirs = step(peer, peer.W, x, y)
    assert to_x is not None
    assert x.grad is not None
    found = {
        "value": abs(ours - theirs) / theirs,
        "to_features": (to_x - x.grad).norm() / x.grad.norm(),
        "to_weights": (head.weight.grad - peer.W.grad.T).norm() / peer.W.grad.norm(),
    }
    return {name: float(f"{value.item():.2g}") for name, value in found.items()}


def once(call: Callable[[Tensor, Tensor], Tensor], weight: Tensor, x: Tensor, y: Tensor, calls: int) -> float:
    """Milliseconds per call."""
    start = time.perf_counter()
    for _ in range(calls):
        step(call, weight, x, y)
    return (time.perf_counter() - start) / calls * 1e3


def compare(classes: int, rounds: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, FEATURES, generator=generator).requires_grad_()
    y = torch.randint(classes, (ROWS,), generator=generator)
    row: dict[str, Any] = {"rows": ROWS, "features": FEATURES, "classes": classes, "losses": {}}
    for name, (head, peer) in pairs(classes).items():
        found: dict[str, Any] = {"difference": differences(head, peer, x, y)}
        calls = max(1, round(30 / once(peer, peer.W, x, y, 1)))
        theirs, ours = [], []
        for _ in range(rounds):
            theirs.append(once(peer, peer.W, x, y, calls))
            ours.append(once(head.loss, head.weight, x, y, calls))
        found["peer_ms"] = round(sorted(theirs)[rounds // 2], 3)
        found["ratio"] = spread([a / b for a, b in zip(ours, theirs, strict=True)])
        row["losses"][name] = found
        r = found["ratio"]
        print(f"  {name:12} {r['median']:.3f} [{r['low']:.3f}, {r['high']:.3f}] of {found['peer_ms']:.1f} ms")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="rounds per loss (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "margins-cpu.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {"hardware": hardware() | {"peer": pytorch_metric_learning.__version__}, "shapes": []}
    for classes in CLASSES:
        print(f"({ROWS}, {FEATURES}) features, {classes:,} classes")
        result["shapes"].append(compare(classes, options.rounds))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
