"""Time, memory and precision of losses from features and weights, as ratios to PyTorch's in the same run.

    python benchmarks/linear.py                  # all parts, about 15 minutes, written to benchmarks/results/
    python benchmarks/linear.py --parts memory   # one part
    python benchmarks/linear.py --rounds 3 --out /tmp/linear.json

Forward and backward, eager, with respect to features and weights. The baseline is ``F.cross_entropy(x @ W.T, y)``; the
others are the three matrix products alone, PyTorch's ``F.linear_cross_entropy`` with its chunked options where this
version has it, and losses of lossfit. One round times each of them once; a ratio is taken within its round, and the
median over rounds is reported with its quartiles. Memory is that of a process of its own, beyond its inputs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from dense import hardware, resident, spread
from torch import Tensor

import lossfit

SHAPE = (2048, 512, 32000)
GROWTH_CLASSES = (1000, 10_000, 100_000, 1_000_000)
GROWTH_ROWS = (256, 1024, 4096, 16384)
PARTS = ("float32", "bfloat16", "memory", "precision", "classes", "rows")

Run = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain(x: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(x @ weight.T, target)


def products(x: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """The product forward and the two backward, of a gradient that is there for nothing."""
    return (x @ weight.T).sum()


def contenders() -> dict[str, Run]:
    found: dict[str, Run] = {"plain": plain, "three products": products}
    if hasattr(F, "linear_cross_entropy"):
        options = torch.nn.LinearCrossEntropyOptions()
        found["torch chunked"] = lambda x, w, y: F.linear_cross_entropy(x, w, y, options=options)
    ours = {
        "cross_entropy": lossfit.CrossEntropyLoss(),
        "gamma_cross_entropy": lossfit.GammaCrossEntropyLoss(0.1),
        "focal": lossfit.FocalLoss(),
        "cross_entropy, smoothed": lossfit.CrossEntropyLoss(label_smoothing=0.1),
    }
    for name, loss in ours.items():
        found[name] = lambda x, w, y, loss=loss: loss.linear(x, w, y, backend="chunked")
    none = lossfit.CrossEntropyLoss(reduction="none")
    found["cross_entropy, none"] = lambda x, w, y: none.linear(x, w, y, backend="chunked").mean()
    return found


def batch(shape: tuple[int, int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    rows, features, classes = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, features, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(classes, features, generator=generator).mul_(2 * features**-0.5).to(dtype).requires_grad_()
    return x, weight, torch.randint(classes, (rows,), generator=generator)


def once(run: Run, x: Tensor, weight: Tensor, target: Tensor) -> float:
    """Seconds."""
    x.grad = weight.grad = None
    start = time.perf_counter()
    run(x, weight, target).backward()
    return time.perf_counter() - start


def speed(dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    arguments, runs = batch(SHAPE, dtype), contenders()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):  # the first is to warm up
        for name, run in runs.items():
            slow = name == "torch chunked" and dtype != torch.float32
            if slow and turn > min(rounds, 3):
                continue
            seconds = once(run, *arguments)
            if turn:
                times[name].append(seconds)
    base = times["plain"]
    ratios = {name: spread([t / b for t, b in zip(found, base, strict=False)]) for name, found in times.items()}
    print(f"\n{SHAPE}, {dtype}: plain {statistics.median(base):.3f} s = 1")
    for name, r in ratios.items():
        print(f"  {name:26} {r['median']:6.3f}   [{r['low']:.3f}, {r['high']:.3f}]")
    best = {name: round(min(found), 4) for name, found in times.items()}
    return {"shape": SHAPE, "plain_s": round(statistics.median(base), 4), "ratio": ratios, "best_s": best}


def memory() -> dict[str, Any]:
    """Peak beyond the inputs, in MiB, each in a process of its own."""
    found = {}
    for dtype in ("float32", "bfloat16"):
        for name in contenders():
            found[f"{name}, {dtype}"] = peak(name, SHAPE, dtype)
            print(f"  {name + ', ' + dtype:36} {found[f'{name}, {dtype}']:8.0f} MiB")
    return {"shape": SHAPE, "peak_mib": found}


def peak(name: str, shape: tuple[int, int, int], dtype: str) -> float:
    command = [sys.executable, __file__, "--measure", name, *map(str, shape), dtype]
    return round(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]), 1)


def measure(name: str, shape: tuple[int, int, int], dtype: torch.dtype) -> tuple[float, float]:
    """The peak of this process's memory over one forward and backward pass, in MiB, and its seconds."""
    run = contenders()[name]
    once(run, *batch((64, shape[1], 10), dtype))  # what is loaded on first use
    arguments = batch(shape, dtype)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from what is held now
    before = resident("VmHWM")
    seconds = once(run, *arguments)
    return (resident("VmHWM") - before) / 2**20, seconds


def precision() -> dict[str, float]:
    """Errors in bfloat16 against the same numbers in float64: of the loss, and of gradients as norms."""
    x, weight, target = batch((1024, 256, 8000), torch.bfloat16)
    truth = [t.detach().double().requires_grad_() for t in (x, weight)]
    exact = plain(*truth, target)
    exact.backward()
    found = {}
    for name in ("plain", "cross_entropy"):
        once(contenders()[name], x, weight, target)
        value = contenders()[name](x, weight, target)
        found[f"{name}: loss"] = abs(value.item() / exact.item() - 1)
        for part, tensor, true in (("x", x, truth[0]), ("weight", weight, truth[1])):
            found[f"{name}: gradient of {part}"] = ((tensor.grad.double() - true.grad).norm() / true.grad.norm()).item()
    for name, value in found.items():
        print(f"  {name:36} {value:.2e}")
    return found


def growth(shapes: list[tuple[int, int, int]]) -> list[dict[str, Any]]:
    """Seconds and MiB of one step, each in a process of its own; the plain form where its scores fit 2 GiB."""
    rows = []
    for shape in shapes:
        row: dict[str, Any] = {"shape": shape}
        for name in ("plain", "cross_entropy"):
            if name == "plain" and shape[0] * shape[2] * 4 > 2 << 30:
                continue
            command = [sys.executable, __file__, "--measure", name, *map(str, shape), "float32"]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            row[name] = {"peak_mib": round(float(out[0]), 1), "seconds": round(float(out[1]), 3)}
        print(f"  {shape}: " + ", ".join(f"{n} {row[n]}" for n in row if n != "shape"))
        rows.append(row)
    return rows


def plot(result: dict[str, Any], path: Path) -> None:
    """Memory and time as classes and rows grow."""
    import altair as alt

    points = [
        {"of": part, "size": row["shape"][2 if part == "classes" else 0], "form": name, **row[name]}
        for part in ("classes", "rows")
        for row in result.get(part, [])
        for name in row
        if name != "shape"
    ]
    charts = [
        alt.Chart(
            alt.Data(values=[p for p in points if p["of"] == part]), title=f"{label} against the number of {part}"
        )
        .mark_line(point=True)
        .encode(
            alt.X("size:Q", scale=alt.Scale(type="log"), title=f"number of {part}"),
            alt.Y(f"{field}:Q", scale=alt.Scale(type="log"), title=label),
            alt.Color("form:N", title=None),
        )
        .properties(width=300, height=220)
        for part in ("classes", "rows")
        for field, label in (("peak_mib", "peak memory (MiB)"), ("seconds", "seconds a step"))
    ]
    alt.concat(*charts, columns=2).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "linear-cpu.json")
    parser.add_argument("--measure", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        name, *shape, dtype = options.measure
        print(*measure(name, tuple(map(int, shape)), getattr(torch, dtype)))
        return
    parts: dict[str, Callable[[], Any]] = {
        "float32": lambda: speed(torch.float32, options.rounds),
        "bfloat16": lambda: speed(torch.bfloat16, options.rounds),
        "memory": memory,
        "precision": precision,
        "classes": lambda: growth([(512, 128, classes) for classes in GROWTH_CLASSES]),
        "rows": lambda: growth([(rows, 128, 32000) for rows in GROWTH_ROWS]),
    }
    result: dict[str, Any] = {"hardware": hardware()}
    print(result["hardware"])
    for part in options.parts:
        print(f"\n== {part}")
        result[part] = parts[part]()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten to {options.out}")
    if {"classes", "rows"} <= set(options.parts):
        plot(result, options.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
