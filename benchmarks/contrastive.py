"""Time of the contrastive losses as ratios to pytorch-metric-learning's in the same run.

    python -m pip install pytorch-metric-learning==2.9.0
    python benchmarks/contrastive.py            # written to benchmarks/results/contrastive-cpu.json
    python benchmarks/contrastive.py --rounds 5 --out /tmp/contrastive.json

Forward and backward, eager, with respect to the features: N rows of 128 numbers in float32. For NT-Xent they are N / 2
pairs, for SupCon they have N / 8 labels. One round times both losses; a ratio is taken within its round, and the median
over rounds is reported with its quartiles. NT-Xent of pytorch-metric-learning holds a matrix of pairs by negatives, N
times N (N - 2) numbers, several times over: where that is more than this machine is to give, it is left out and the
size of one such matrix is reported.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from dense import hardware, spread
from torch import Tensor

import lossfit

try:
    from pytorch_metric_learning import losses as peer
except ImportError:
    raise SystemExit("This benchmark compares with pytorch-metric-learning: pip install it first.") from None

SIZES = (256, 1024)
FEATURES = 128
TEMPERATURE = 0.1
LARGEST_MATRIX = 1 << 30  # bytes

Run = Callable[[Tensor], Tensor]


def contenders(loss: str, rows: int) -> tuple[Run, Run]:
    """Ours and theirs, as functions of the features."""
    half = rows // 2
    if loss == "nt_xent":
        ours, theirs = lossfit.NTXentLoss(TEMPERATURE), peer.NTXentLoss(TEMPERATURE)
        labels = torch.arange(half).repeat(2)
        return lambda x: ours(x[:half], x[half:]), lambda x: theirs(x, labels)
    ours, theirs = lossfit.SupConLoss(TEMPERATURE), peer.SupConLoss(TEMPERATURE)
    labels = torch.arange(rows) % (rows // 8)
    return lambda x: ours(x, labels), lambda x: theirs(x, labels)


def once(run: Run, features: Tensor, calls: int) -> float:
    """Milliseconds per call."""
    start = time.perf_counter()
    for _ in range(calls):
        features.grad = None
        run(features).backward()
    return (time.perf_counter() - start) / calls * 1e3


def compare(loss: str, rows: int, rounds: int) -> dict[str, Any]:
    features = torch.randn(rows, FEATURES, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ours, theirs = contenders(loss, rows)
    matrix = rows * rows * (rows - 2) * 4 if loss == "nt_xent" else rows * rows * 4
    fits = matrix <= LARGEST_MATRIX
    once(ours, features, 2)
    calls = max(1, round(50 / once(ours, features, 1)))
    found: dict[str, Any] = {"loss": loss, "rows": rows, "peer_matrix_bytes": matrix}
    if not fits:
        found["ours_ms"] = round(statistics.median(once(ours, features, calls) for _ in range(rounds)), 3)
        return found
    assert torch.allclose(ours(features), theirs(features), rtol=1e-4)
    their_calls = max(1, round(50 / once(theirs, features, 1)))
    times = [(once(ours, features, calls), once(theirs, features, their_calls)) for _ in range(rounds)]
    found["ours_ms"] = round(statistics.median(a for a, _ in times), 3)
    found["peer_ms"] = round(statistics.median(b for _, b in times), 3)
    found["ratio"] = spread([a / b for a, b in times])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="rounds per size (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "contrastive-cpu.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    versions = {**hardware(), "pytorch_metric_learning": importlib.metadata.version("pytorch-metric-learning")}
    result: dict[str, Any] = {"hardware": versions, "features": FEATURES, "ratios": []}
    print(result["hardware"])
    for loss in ("nt_xent", "sup_con"):
        for rows in SIZES:
            found = compare(loss, rows, options.rounds)
            result["ratios"].append(found)
            print(f"\n{loss}, N = {rows}: {found['ours_ms']:.3g} ms")
            if "ratio" in found:
                r = found["ratio"]
                print(f"  of pytorch-metric-learning's {found['peer_ms']:.3g} ms", end="")
                print(f"  {r['median']:.4f}   [{r['low']:.4f}, {r['high']:.4f}]")
            else:
                print(f"  pytorch-metric-learning left out: {found['peer_matrix_bytes'] / 2**30:.1f} GiB per matrix")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
