"""Time and memory of losses on dense scores on a CPU, as ratios to PyTorch's own loss in the same run.

    python benchmarks/dense.py                          # all parts, at most 8 minutes, written to benchmarks/results/
    python benchmarks/dense.py --parts small step       # some parts
    python benchmarks/dense.py --processes 2 --seconds 2 --out /tmp/dense.json

Forward and backward, as the modules are called. Each case (a shape, a type, a number of threads) runs in fresh
processes, since what an allocator has kept from earlier work changes the page faults of later work. Within a process
the contenders take turns, round by round, and a contender's time is the median of its rounds; a ratio is taken within
a process. The file has the median over processes with the least and the greatest, and for each contender wall, user
and system seconds and page faults of a step beside it. The load of the machine is noted before and after.

"clone" makes a copy of the scores in fresh memory, "copy" one in memory that is there: no gradient comes at less.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lossfit
from lossfit import kernels

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SMALL = ((128, 10), (512, 100))
LARGE = ((65536, 10), (4096, 1000), (4096, 32000))
EXACT = ((128, 10), (128, 100), (64, 1000), (8, 100_000))
LABELS = ((128, 10), (512, 1000))
MEMORY = ((16384, 1000), (1024, 128000))
COMPILED = ((4096, 1000),)
PARTS = ("small", "large", "exact", "labels", "step", "compile", "memory")

Loss = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[], Any]


def links(**common: Any) -> dict[str, nn.Module]:
    """Every loss of the catalogue that is a function of the soft gap."""
    settings: dict[str, dict[str, Any]] = {
        "gamma_cross_entropy": {"gamma": 0.1},
        "poly": {"coefficients": [1.0]},
        "sensitivity": {"sensitivity": lambda p: 1 / (0.1 + 0.9 * p)},
        "hinge": {"gap": "soft"},
        "smooth_accuracy": {"gap": "soft"},
    }
    names = [name for name in lossfit.available_losses("single_label") if name != "exact"]
    made = {name: lossfit.make(name, **common, **settings.get(name, {})) for name in names}
    return {**made, "own link": lossfit.LinkLoss(lambda d: F.softplus(1 - d), **common)}


def some_links() -> dict[str, nn.Module]:
    return {name: link for name, link in links().items() if name in ("cross_entropy", "gamma_cross_entropy", "focal")}


def batch(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    scores = torch.randn(shape).mul_(3).to(dtype).requires_grad_()
    return scores, torch.randint(shape[1], shape[:1])


def gradient(loss: Callable[..., Tensor], scores: Tensor, *rest: Tensor) -> Step:
    def step() -> None:
        scores.grad = None
        loss(scores, *rest).backward()

    return step


def in_plain_pytorch(step: Step) -> Step:
    def run() -> None:
        with kernels.using("torch"):
            step()

    return run


# ---- The cases. Each returns its contenders by name, the first being 1.


def dense(shape: tuple[int, ...], dtype: torch.dtype, losses: dict[str, nn.Module]) -> dict[str, Step]:
    scores, target = batch(shape, dtype)
    there = torch.empty_like(scores)
    steps: dict[str, Step] = {"F.cross_entropy": gradient(F.cross_entropy, scores, target)}
    steps |= {name: gradient(loss, scores, target) for name, loss in losses.items()}
    plain = gradient(lossfit.CrossEntropyLoss(), scores, target)
    steps["cross_entropy in plain PyTorch"] = in_plain_pytorch(plain)
    steps["clone"] = scores.detach().clone
    steps["copy"] = lambda: there.copy_(scores.detach())
    return steps


def exact(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Step]:
    scores, target = batch(shape, dtype)
    contenders = {"exact": lossfit.ExactLoss(), "exact, log": lossfit.ExactLoss(log=True)}
    steps = {name: gradient(loss, scores, target) for name, loss in contenders.items()}
    return {"F.cross_entropy": gradient(F.cross_entropy, scores, target), **steps}


def labels(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Step]:
    scores, _ = batch(shape, dtype)
    target = (torch.rand(shape) < 0.05).to(dtype)
    losses = {name: lossfit.make(name) for name in lossfit.available_losses("multi_label")}
    steps = {name: gradient(loss, scores, target) for name, loss in losses.items()}
    return {"F.binary_cross_entropy_with_logits": gradient(F.binary_cross_entropy_with_logits, scores, target), **steps}


def training_step(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Step]:
    """A step of an MLP 20-32-10 with fused AdamW."""
    x, target = torch.randn(shape[0], 20, dtype=dtype), torch.randint(10, shape[:1])

    def train(loss: Callable[..., Tensor]) -> Step:
        model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 10)).to(dtype)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)

        def step() -> None:
            optimizer.zero_grad()
            loss(model(x), target).backward()
            optimizer.step()

        return step

    contenders: dict[str, nn.Module] = {**links(), "exact": lossfit.ExactLoss()}
    return {"nn.CrossEntropyLoss": train(nn.CrossEntropyLoss()), **{n: train(loss) for n, loss in contenders.items()}}


def compiled(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Step]:
    scores, target = batch(shape, dtype)
    loss = lossfit.GammaCrossEntropyLoss()
    return {
        "F.cross_entropy": gradient(F.cross_entropy, scores, target),
        "F.cross_entropy, compiled": gradient(torch.compile(F.cross_entropy), scores, target),
        "gamma_cross_entropy": gradient(loss, scores, target),
        "gamma_cross_entropy, compiled": gradient(torch.compile(loss), scores, target),
    }


CASES: dict[str, Callable[[tuple[int, ...], torch.dtype], dict[str, Step]]] = {
    "small": lambda shape, dtype: dense(shape, dtype, links()),
    "large": lambda shape, dtype: dense(shape, dtype, some_links()),
    "exact": exact,
    "labels": labels,
    "step": training_step,
    "compile": compiled,
}
SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "small": SMALL,
    "large": LARGE,
    "exact": EXACT,
    "labels": LABELS,
    "step": ((128, 10),),
    "compile": COMPILED,
}


# ---- In a process of its own; other benchmarks take these too.


def step(loss: Loss, scores: Tensor, target: Tensor) -> None:
    scores.grad = None
    loss(scores, target).backward()


def once(loss: Loss, scores: Tensor, target: Tensor, calls: int) -> float:
    """Milliseconds per call."""
    start = time.perf_counter()
    for _ in range(calls):
        step(loss, scores, target)
    return (time.perf_counter() - start) / calls * 1e3


def cost(step: Step, calls: int) -> dict[str, float]:
    """Of one call."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for _ in range(calls):
        step()
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    numbers = {
        "ms": wall * 1e3,
        "user_ms": (after.ru_utime - before.ru_utime) * 1e3,
        "system_ms": (after.ru_stime - before.ru_stime) * 1e3,
        "page_faults": float(after.ru_minflt - before.ru_minflt),
    }
    return {name: number / calls for name, number in numbers.items()}


def take_turns(steps: dict[str, Step], seconds: float) -> dict[str, dict[str, float]]:
    """The median cost of each over as many rounds as there is time for, at least three."""
    once = {}
    for name, step in steps.items():
        step()
        once[name] = cost(step, 1)["ms"]
    calls = {name: max(1, round(3 / ms)) for name, ms in once.items()}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in steps}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, rounds.values())) < 3:
        for name, step in steps.items():
            rounds[name].append(cost(step, calls[name]))
    return {
        name: {key: statistics.median(one[key] for one in each) for key in each[0]} for name, each in rounds.items()
    }


def peak(name: str, shape: tuple[int, ...]) -> float:
    """The peak of this process's memory over one step beyond the inputs, in units of the scores, as Linux counts it."""
    loss: Any = F.cross_entropy if name == "F.cross_entropy" else links()[name]
    gradient(loss, *batch((64, 10), torch.float32))()  # what is loaded on first use
    scores, target = batch(shape, torch.float32)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from what is held now
    before = resident("VmHWM")
    gradient(loss, scores, target)()
    return (resident("VmHWM") - before) / (scores.numel() * scores.element_size())


def resident(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def child(job: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    torch.set_num_threads(job["threads"])
    shape = tuple(job["shape"])
    if job["part"] == "memory":
        return peak(job["loss"], shape)
    return take_turns(CASES[job["part"]](shape, DTYPES[job["dtype"]]), job["seconds"])


# ---- What starts them, and gathers.


def run(job: dict[str, Any]) -> Any:
    command = [sys.executable, __file__, "--child", json.dumps(job)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(job["threads"])}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def spread(values: list[float]) -> dict[str, float]:
    numbers = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: round(value, 3) for name, value in numbers.items()}


def gather(runs: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """From the costs in each process to ratios to the first contender."""
    first, *_ = runs[0]
    ratio = {name: spread([one[name]["ms"] / one[first]["ms"] for one in runs]) for name in runs[0]}
    costs = {
        name: {key: round(statistics.median(one[name][key] for one in runs), 4) for key in runs[0][name]}
        for name in runs[0]
    }
    return {"ratio": ratio, "costs": costs}


def measure(part: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    dtypes = DTYPES if part in ("small", "large", "labels") else ("float32",)
    for shape in SHAPES[part]:
        for dtype in dtypes:
            for threads in options.threads:
                case = {"part": part, "shape": shape, "dtype": dtype, "threads": threads, "seconds": options.seconds}
                row = {"shape": shape, "dtype": dtype, "threads": threads}
                rows.append({**row, **gather([run(case) for _ in range(options.processes)])})
                show(rows[-1])
    return rows


def show(row: dict[str, Any]) -> None:
    first, *names = row["ratio"]
    base = row["costs"][first]["ms"]
    print(f"\n{row['shape']}, {row['dtype']}, {row['threads']} threads: {first}, {base:.3g} ms, is 1")
    numbers = row["shape"][0] * row["shape"][1]
    for name in names:
        r, one = row["ratio"][name], row["costs"][name]
        print(
            f"  {name:34} {r['median']:7.3f}   [{r['low']:.3f}, {r['high']:.3f}]  user {one['user_ms']:.3g} ms, system "
            f"{one['system_ms']:.3g} ms, {one['page_faults']:,.0f} faults, {one['ms'] * 1e6 / numbers:.2f} ns a score"
        )


def memory() -> list[dict[str, Any]]:
    rows = []
    for shape in MEMORY:
        print(f"\n{shape}: peak beyond the inputs, in units of the scores")
        peaks = {}
        for name in ("F.cross_entropy", *some_links()):
            peaks[name] = round(run({"part": "memory", "shape": shape, "loss": name, "threads": 2}), 3)
            print(f"  {name:34} {peaks[name]:7.3f}")
        rows.append({"shape": shape, "peak": peaks})
    return rows


def hardware() -> dict[str, Any]:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0].split(":")[1].strip() if models else platform.processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "lossfit": lossfit.__version__,
        "native": kernels.native.describe(),
        "date": datetime.date.today().isoformat(),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--processes", type=int, default=3, help="fresh processes per case (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.5, help="of rounds in each process (default: %(default)s)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of PyTorch (default: 1 2)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "dense-cpu.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(json.loads(options.child))))
        return
    machine = {**hardware(), "processes": options.processes, "command": shlex.join(sys.argv)}
    result: dict[str, Any] = {"hardware": machine}
    print(result["hardware"])
    start = time.perf_counter()
    for part in options.parts:
        print(f"\n== {part}", flush=True)
        result[part] = memory() if part == "memory" else measure(part, options)
    result["hardware"]["load_after"] = os.getloadavg()[0]
    result["hardware"]["seconds"] = round(time.perf_counter() - start)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
