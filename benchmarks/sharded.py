"""Classes spread over 1, 2 and 4 processes: what they send, the memory of each, and the time of a step.

    python benchmarks/sharded.py                # some minutes; benchmarks/results/sharded-cpu.json and .svg
    python benchmarks/sharded.py --rounds 5 --classes 50000 --out /tmp/sharded.json

A step is the loss of 256 rows in all, its gradients by features and weight, and an SGD step of the weight, in float32,
with ``CosineHead(mesh=..., gather=True)``: every rank has its share of the rows and of the classes. Ranks are processes
of this machine with one thread each, which talk by gloo. "plain" is one process that makes the matrix of scores by
PyTorch's own functions.

Sent bytes are counted from the shapes that go into torch.distributed.all_reduce and all_gather, as a ring sends them:
of w ranks, each sends 2 (w - 1) / w of what is reduced, and w - 1 times what it has itself of what is gathered. Memory
is the peak beyond what the process held before it made the weight, as Linux counts it, of the rank with the most. The
time of a step is that of the slowest rank; median and quartiles over rounds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from dense import hardware, resident, spread
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh

import lossfit

ROWS, FEATURES, SCALE = 256, 128, 32.0
WORLDS = (1, 2, 4)
RATES = (1.0, 0.1)
MIB = 2**20


class Sent:
    """Counts collectives, the bytes that go in, and the bytes that a ring sends, while it is entered."""

    def __init__(self, world: int) -> None:
        self.calls, self.given, self.sent = Counter[str](), Counter[str](), Counter[str]()
        self.shares = {"all_reduce": 2 * (world - 1) / world, "all_gather": world - 1.0}

    def __enter__(self) -> Sent:
        self.kept = {name: getattr(distributed, name) for name in self.shares}
        for name, function in self.kept.items():
            setattr(distributed, name, self._counting(name, function))
        return self

    def __exit__(self, *_: object) -> None:
        for name, function in self.kept.items():
            setattr(distributed, name, function)

    def _counting(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            own: Tensor = arguments[1] if name == "all_gather" else arguments[0]
            size = own.numel() * own.element_size()
            self.calls[name] += 1
            self.given[name] += size
            self.sent[name] += round(size * self.shares[name])
            return function(*arguments, **named)

        return counted


def plain_step(classes: int) -> Callable[[Tensor, Tensor], Tensor]:
    weight = torch.randn(classes, FEATURES).requires_grad_()
    optimizer = torch.optim.SGD([weight], 0.1)

    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(SCALE * F.normalize(x) @ F.normalize(weight).T, y)
        value.backward()
        optimizer.step()
        return value

    return step


def sharded_step(classes: int, world: int, rate: float) -> Callable[[Tensor, Tensor], Tensor]:
    mesh = init_device_mesh("cpu", (world,))
    head = lossfit.CosineHead(FEATURES, classes, SCALE, mesh=mesh, gather=True, sample_rate=rate)
    optimizer = torch.optim.SGD(head.parameters(), 0.1)

    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        value = head.loss(x, y)
        value.backward()
        optimizer.step()
        return value

    return step


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One rank."""
    torch.set_num_threads(1)
    rank, world = options.rank, options.world
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{options.folder}/store",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(minutes=2),
    )

    def make(classes: int) -> Callable[[Tensor, Tensor], Tensor]:
        return plain_step(classes) if options.plain else sharded_step(classes, world, options.sample_rate)

    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(ROWS // world, FEATURES, generator=generator).requires_grad_()
    y = torch.randint(options.classes, (ROWS // world,), generator=generator)
    make(1000)(x, y % 1000)  # what is loaded on first use
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from what is held now
    before = resident("VmHWM")
    step = make(options.classes)
    step(x, y)
    with Sent(world) as counted:
        step(x, y)
    times = []
    for _ in range(options.rounds):
        distributed.barrier()
        start = time.perf_counter()
        step(x, y)
        times.append(time.perf_counter() - start)
    found = {"peak": resident("VmHWM") - before, "seconds": times, "calls": counted.calls}
    return found | {"given": counted.given, "sent": counted.sent}


def run(options: argparse.Namespace, world: int, rate: float, plain: bool = False) -> dict[str, Any]:
    """All ranks."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--folder", folder, "--world", str(world), "--sample-rate", str(rate)]
        command += ["--classes", str(options.classes), "--rounds", str(options.rounds)] + ["--plain"] * plain
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        ranks = [subprocess.Popen([*command, "--rank", str(rank)], env=environment) for rank in range(world)]
        try:
            codes = [process.wait(timeout=600) for process in ranks]
        finally:
            for process in ranks:
                process.kill()
        if any(codes):
            raise SystemExit("A rank failed: see above.")
        found = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(world)]
    seconds = [max(of_round) for of_round in zip(*(f["seconds"] for f in found), strict=True)]
    row: dict[str, Any] = {
        "ranks": world,
        "sample_rate": rate,
        "seconds": spread(seconds),
        "peak_mib": round(max(f["peak"] for f in found) / MIB, 1),
        "weight_mib": round(options.classes * FEATURES * 4 / world / MIB, 1),
        "collectives": found[0]["calls"],
        "given_bytes": found[0]["given"],
        "sent_bytes": max(sum(f["sent"].values()) for f in found),
    }
    return row


def chart(result: dict[str, Any], path: Path) -> None:
    import altair as alt

    from lossfit import plot

    names = {1.0: "all classes", 0.1: "a tenth of them, sampled"}
    rows = [
        {
            "ranks": run["ranks"],
            "rivals": names[run["sample_rate"]],
            "sent": run["sent_bytes"] / 2**10,
            "peak": run["peak_mib"],
            "seconds": run["seconds"]["median"],
        }
        for run in result["sharded"]
    ]
    plain = {"peak": result["plain"]["peak_mib"], "seconds": result["plain"]["seconds"]["median"]}
    titles = {"sent": "sent by a rank, KiB a step", "peak": "peak memory of a rank, MiB", "seconds": "seconds a step"}
    parts = []
    for field, title in titles.items():
        lines = (
            alt.Chart(alt.Data(values=rows))
            .mark_line(point=True)
            .encode(
                alt.X("ranks:O", title="ranks", axis=alt.Axis(labelAngle=0)),
                alt.Y(f"{field}:Q", title=title, scale=alt.Scale(zero=True)),
                alt.Color("rivals:N", legend=alt.Legend(**plot.LEGEND, symbolDash=[1, 0])),
                # Both send the same: dashes show the line behind.
                alt.StrokeDash("rivals:N", scale=alt.Scale(range=[[5, 4], [1, 0]]), legend=None),
            )
        )
        if field in plain:
            level = alt.Chart(alt.Data(values=[{"level": plain[field], "name": "plain, one process"}]))
            rule = level.mark_rule(strokeDash=[4, 4], color="#7a828c").encode(alt.Y("level:Q"))
            words = level.mark_text(align="left", dy=-6, color="#4a5058").encode(
                alt.Y("level:Q"), alt.Text("name:N"), x=alt.value(4)
            )
            lines = alt.layer(lines, rule, words)
        parts.append(lines.properties(width=200, height=200))
    plot.write(alt.hconcat(*parts), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each setting (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "sharded-cpu.json")
    for name, kind in (("--rank", int), ("--world", int), ("--sample-rate", float), ("--folder", Path)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is not None:
        found = measure(options)
        (options.folder / f"{options.rank}.json").write_text(json.dumps(found))
        distributed.destroy_process_group()
        return
    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    sizes = {"rows": ROWS, "features": FEATURES, "classes": options.classes, "rounds": options.rounds}
    plain = run(options, 1, 1.0, plain=True)
    base = plain["seconds"]["median"]
    plain = {name: plain[name] for name in ("seconds", "peak_mib")}
    scores = round(ROWS * options.classes * 4 / MIB, 1)
    result: dict[str, Any] = {"hardware": hardware() | {"cores": cores}, **sizes, "scores_mib": scores, "plain": plain}
    result["sharded"] = []
    print(result["hardware"])
    print(
        f"{ROWS} x {FEATURES} features, {options.classes:,} classes; plain: {base:.2f} s, {plain['peak_mib']:.0f} MiB\n"
    )
    for rate in RATES:
        for world in WORLDS:
            found = run(options, world, rate)
            found["time_to_plain"] = round(found["seconds"]["median"] / base, 3)
            result["sharded"].append(found)
            seconds = found["seconds"]
            print(
                f"sample_rate {rate:<4} {world} ranks: {seconds['median']:.3f} s [{seconds['low']:.3f}, "
                f"{seconds['high']:.3f}], peak {found['peak_mib']:.0f} MiB, sent {found['sent_bytes'] / 2**10:.0f} KiB"
            )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    chart(result, options.out.with_suffix(".svg"))
    print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
