"""Time and memory of every loss on dense scores, as ratios to PyTorch's cross-entropy in the same run.

    python benchmarks/dense.py                  # all parts, some minutes, written to benchmarks/results/
    python benchmarks/dense.py --parts memory   # one part
    python benchmarks/dense.py --rounds 5 --out /tmp/dense.json

Forward and backward, eager, with respect to the scores. One round times the baseline and then every loss; a ratio is
taken within its round, so that a change of the machine's speed touches all alike; the median over rounds is reported
with its quartiles. How far the links are apart is taken from the best round of each, which other processes touch least.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import lossfit

SHAPES = ((128, 10), (65536, 10), (16384, 1000), (4096, 32000), (1024, 128000))
HALF_SHAPES = SHAPES[1:]
EXACT_SHAPES = ((128, 10), (128, 100), (64, 1000))
EXACT_NUMBERS = 320_000  # rows times classes, as the number of classes grows
EXACT_CLASSES = (10, 100, 1000, 10_000, 100_000)
MEMORY_SHAPES = ((16384, 1000), (1024, 128000))
PARTS = ("float32", "bfloat16", "memory", "exact")

Loss = Callable[[Tensor, Tensor], Tensor]


def losses(**common: Any) -> dict[str, Loss]:
    """Every loss of the catalogue, on the soft gap where it has one; EXACT, which is no link, has its own part."""
    settings: dict[str, dict[str, Any]] = {
        "gamma_cross_entropy": {"gamma": 0.1},
        "poly": {"coefficients": [1.0]},
        "sensitivity": {"sensitivity": lambda p: 1 / (0.1 + 0.9 * p)},
        "hinge": {"gap": "soft"},
        "smooth_accuracy": {"gap": "soft"},
    }
    names = [name for name in lossfit.available_losses("single_label") if name != "exact"]
    return {name: lossfit.make(name, **common, **settings.get(name, {})) for name in names}


def step(loss: Loss, scores: Tensor, target: Tensor) -> None:
    scores.grad = None
    loss(scores, target).backward()


def once(loss: Loss, scores: Tensor, target: Tensor, calls: int) -> float:
    """Milliseconds per call."""
    start = time.perf_counter()
    for _ in range(calls):
        step(loss, scores, target)
    return (time.perf_counter() - start) / calls * 1e3


def batch(shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(shape, generator=generator).mul_(3).to(dtype).requires_grad_()
    return scores, torch.randint(shape[1], (shape[0],), generator=generator)


def ratios(
    shape: tuple[int, int], contenders: dict[str, Loss], rounds: int, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    scores, target = batch(shape, dtype)
    for loss in (F.cross_entropy, *contenders.values()):
        step(loss, scores, target)
    calls = max(1, round(30 / once(F.cross_entropy, scores, target, 1)))
    base: list[float] = []
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        base.append(once(F.cross_entropy, scores, target, calls))
        for name, loss in contenders.items():
            found[name].append(once(loss, scores, target, max(1, calls // 2)))
    return {
        "shape": shape,
        "cross_entropy_ms": round(statistics.median(base), 4),
        "ratio": {name: spread([t / b for t, b in zip(times, base, strict=True)]) for name, times in found.items()},
        "best_ms": {name: round(min(times), 4) for name, times in found.items()},
    }


def spread(values: list[float]) -> dict[str, float]:
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    found = {"median": statistics.median(values), "low": low, "high": high}
    return {name: round(value, 3) for name, value in found.items()}


def speed(dtype: torch.dtype, shapes: tuple[tuple[int, int], ...], rounds: int) -> list[dict[str, Any]]:
    rows = []
    for shape in shapes:
        row = ratios(shape, losses(), rounds, dtype)
        bests = row["best_ms"].values()
        row["slowest"] = max(r["median"] for r in row["ratio"].values())
        row["links_apart"] = round(max(bests) / min(bests) - 1, 3)
        print(f"\n{shape}, {row['cross_entropy_ms']:.3g} ms by F.cross_entropy = 1; slowest link {row['slowest']:.2f}")
        print(f"  at best, the slowest takes {row['links_apart']:.0%} more than the fastest")
        for name, r in row["ratio"].items():
            print(f"  {name:26} {r['median']:6.3f}   [{r['low']:.3f}, {r['high']:.3f}]")
        rows.append(row)
    return rows


def exact(rounds: int) -> dict[str, Any]:
    contenders = {"exact": lossfit.ExactLoss(), "exact, log": lossfit.ExactLoss(log=True)}
    rows = []
    for shape in EXACT_SHAPES:
        rows.append(ratios(shape, contenders, rounds))
        print(f"\n{shape}, {rows[-1]['cross_entropy_ms']:.3g} ms by F.cross_entropy = 1")
        for name, r in rows[-1]["ratio"].items():
            print(f"  {name:26} {r['median']:6.1f}   [{r['low']:.1f}, {r['high']:.1f}]")
    growth = []
    print(f"\nEXACT on {EXACT_NUMBERS:,} scores: nanoseconds per score")
    for classes in EXACT_CLASSES:
        scores, target = batch((max(EXACT_NUMBERS // classes, 1), classes))
        step(contenders["exact"], scores, target)
        times = [once(contenders["exact"], scores, target, 1) for _ in range(rounds)]
        per_score = statistics.median(times) * 1e6 / scores.numel()
        growth.append({"shape": tuple(scores.shape), "ns_per_score": round(per_score, 1)})
        print(f"  C = {classes:<8,} {per_score:8.0f}")
    return {"ratios": rows, "growth": growth}


def memory() -> list[dict[str, Any]]:
    """Peak memory beyond the inputs, in units of the scores, each loss in a process of its own."""
    rows = []
    for shape in MEMORY_SHAPES:
        print(f"\n{shape}: peak beyond the inputs, in units of the scores")
        found = {}
        for name in ("F.cross_entropy", *losses()):
            command = [sys.executable, __file__, "--measure", name, *map(str, shape)]
            found[name] = round(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout), 3)
            print(f"  {name:26} {found[name]:6.3f}")
        rows.append({"shape": shape, "peak": found})
    return rows


def measure(name: str, shape: tuple[int, int]) -> float:
    """The peak of this process's memory over one forward and backward pass, as Linux counts it."""
    loss = F.cross_entropy if name == "F.cross_entropy" else losses()[name]
    step(loss, *batch((64, 10)))  # what is loaded on first use
    scores, target = batch(shape)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from what is held now
    before = resident("VmHWM")
    step(loss, scores, target)
    return (resident("VmHWM") - before) / (scores.numel() * scores.element_size())


def resident(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def hardware() -> dict[str, Any]:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0].split(":")[1].strip() if models else platform.processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "lossfit": lossfit.__version__,
        "date": datetime.date.today().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=15, help="rounds per shape (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "dense-cpu.json")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        name, rows, classes = options.measure
        print(measure(name, (int(rows), int(classes))))
        return
    parts: dict[str, Callable[[], Any]] = {
        "float32": lambda: speed(torch.float32, SHAPES, options.rounds),
        "bfloat16": lambda: speed(torch.bfloat16, HALF_SHAPES, options.rounds),
        "memory": memory,
        "exact": lambda: exact(options.rounds),
    }
    result: dict[str, Any] = {"hardware": hardware()}
    print(result["hardware"])
    for part in options.parts:
        print(f"\n== {part}")
        result[part] = parts[part]()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
