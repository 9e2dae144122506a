"""Ranking losses against the matrix of all pairs, against LibAUC, and on a million scores.

    python benchmarks/ranking.py                  # written to benchmarks/results/ranking-cpu.json
    python benchmarks/ranking.py --rounds 5 --out /tmp/ranking.json

Forward and backward, eager, float32, a third of the rows positive. One round times the matrix of pairs, differentiated
by autograd, and then every contender; a ratio is taken within its round; the median over rounds is reported with its
quartiles. LibAUC takes part if it is installed (pip install --no-deps libauc): its pairwise loss is a matrix too, its
AUC margin loss is linear in the rows. On a million scores the best of several rounds is reported, which other
processes touch least, and the peak memory beyond the inputs, each loss in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from dense import Loss, hardware, once, resident, spread, step
from torch import Tensor

import lossfit

try:
    from libauc.losses import AUCMLoss, PairwiseAUCLoss
except ImportError:
    AUCMLoss = None
    print("LibAUC takes no part: it is not installed (pip install --no-deps libauc).")

SIZES = (64, 256, 1000, 2000, 5000)
MILLION = 1_000_000
SCALES = (1.0, 30.0, 1e4, 1e6)

SURROGATES: dict[str, Callable[[Tensor], Tensor]] = {
    "logistic": F.softplus,
    "squared_hinge": lambda v: F.relu(v).square(),
    "square": torch.square,
    "hinge": F.relu,
    "sigmoid": torch.sigmoid,
}


def matrix(surrogate: str) -> Loss:
    """The mean over the matrix of pairs."""
    formula, margin = SURROGATES[surrogate], lossfit.AUCLoss(surrogate).margin

    def loss(scores: Tensor, target: Tensor) -> Tensor:
        up = target == 1
        return formula(margin - scores[up].unsqueeze(1) + scores[~up]).mean()

    return loss


def precision_matrix(scores: Tensor, target: Tensor) -> Tensor:
    """Smooth average precision by the matrix of positives and rows."""
    up = target == 1
    above = torch.sigmoid(scores - scores[up].unsqueeze(1))
    return 1 - ((above[:, up].sum(1) + 0.5) / (above.sum(1) + 0.5)).mean()


def rivals() -> dict[str, tuple[Loss, dict[str, Loss]]]:
    """What is measured against what."""
    found: dict[str, tuple[Loss, dict[str, Loss]]] = {
        name: (matrix(name), {"lossfit": lossfit.AUCLoss(name)}) for name in SURROGATES
    }
    found["average_precision"] = (precision_matrix, {"lossfit": lossfit.AveragePrecisionLoss()})
    if AUCMLoss is not None:
        found["logistic"][1]["LibAUC pairwise"] = PairwiseAUCLoss("logistic")
        found["square"][1]["LibAUC AUCM"] = AUCMLoss()
    return found


def batch(rows: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(rows, generator=generator).mul_(scale).requires_grad_()
    return scores, (torch.rand(rows, generator=generator) < 1 / 3).long()


def ratios(rows: int, rounds: int) -> dict[str, Any]:
    scores, target = batch(rows)
    print(f"\n{rows:,} rows; the matrix of pairs = 1")
    found: dict[str, Any] = {"rows": rows}
    for name, (base, contenders) in rivals().items():
        for loss in (base, *contenders.values()):
            step(loss, scores, target)
        calls = max(1, round(10 / once(base, scores, target, 1)))
        times: dict[str, list[float]] = {who: [] for who in ("matrix", *contenders)}
        for _ in range(rounds):
            for who, loss in (("matrix", base), *contenders.items()):
                times[who].append(once(loss, scores, target, calls))
        found[name] = {"best_ms": {who: round(min(t), 3) for who, t in times.items()}}
        for who in contenders:
            ratio = spread([t / b for t, b in zip(times[who], times["matrix"], strict=True)])
            found[name][who] = ratio
            print(f"  {name:18} {who:16} {ratio['median']:8.3f}   [{ratio['low']:.3f}, {ratio['high']:.3f}]", end="")
            print(f"   at best {min(times[who]):.2f} ms, the matrix {min(times['matrix']):.2f} ms")
    return found


def million(rounds: int) -> list[dict[str, Any]]:
    """Seconds and bytes on a million scores, each loss and scale in a process of its own."""
    print(f"\n{MILLION:,} rows: best seconds of {rounds} rounds, CPU seconds, MiB beyond the inputs")
    rows = []
    for name in (*SURROGATES, "average_precision"):
        for scale in SCALES:
            command = [sys.executable, __file__, "--measure", name, str(scale), "--rounds", str(rounds)]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rows.append(row)
            print(f"  {name:18} scale {scale:<9g} {row['best_s']:7.3f} {row['cpu_s']:7.3f} {row['peak_mib']:7.0f}")
    return rows


def measure(name: str, scale: float, rounds: int) -> dict[str, Any]:
    loss = lossfit.AveragePrecisionLoss() if name == "average_precision" else lossfit.AUCLoss(name)
    step(loss, *batch(5000, scale))  # what is loaded on first use
    scores, target = batch(MILLION, scale)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from what is held now
    before = resident("VmHWM")
    wall, cpu = [], []
    for _ in range(rounds):
        start, used = time.perf_counter(), time.process_time()
        step(loss, scores, target)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    peak = (resident("VmHWM") - before) / 2**20
    return {
        "loss": name,
        "scale": scale,
        "best_s": round(min(wall), 3),
        "cpu_s": round(min(cpu), 3),
        "peak_mib": round(peak, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds per size (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ranking-cpu.json")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        name, scale = options.measure
        print(json.dumps(measure(name, float(scale), options.rounds)))
        return
    result: dict[str, Any] = {"hardware": hardware()}
    print(result["hardware"])
    result["ratios"] = [ratios(rows, options.rounds) for rows in SIZES]
    result["million"] = million(min(options.rounds, 3))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
