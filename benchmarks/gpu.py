"""The library on one GPU against its ceilings and its peers, in one run of under ten minutes.

    python benchmarks/gpu.py --out results/gpu.json --peers wheels/   # measure, then judge
    python benchmarks/gpu.py --parts linear --profile linear.txt      # also where the library's time goes
    python benchmarks/gpu.py --judge results/gpu.json                 # the targets: pass, miss or not run
    python benchmarks/gpu.py --plot results/gpu.json                  # pictures beside it, where Altair is installed
    python benchmarks/gpu.py --smoke --out /tmp/smoke.json            # everything, tiny, on a CPU: no evidence

Every part runs in a process of its own, in the order of importance, and is written down as it goes. Before a contender
is timed, its loss and gradients are compared with the truth; a wrong one is reported and not timed. All contenders of a
part are timed in turn, by the device's clock, with cold caches. docs/kernels_benchmark.md has more.

It ends with status 0 if every target is met, 1 if one is missed, 3 if none is missed but some were not run, and 2 if
there is nothing to judge: no GPU, or a smoke run.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from gpu_parts import child, judge
from gpu_parts.sizes import FULL, PARTS, SCHEMA, SECONDS, SMOKE


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the parts and gather what they found, also from those that crash or take too long."""
    began = time.monotonic()
    found: dict[str, Any] = {"schema": SCHEMA, "smoke": options.smoke, "complete": False, "budget_s": options.budget}
    found |= {"sizes": SMOKE if options.smoke else FULL, "hardware": None, "parts": {}}
    peers = None if options.peers is None else unpacked(options.peers, folder / "peers")
    groups = [options.parts] if options.smoke else [[name] for name in options.parts]
    for group in groups:
        left = options.budget - (time.monotonic() - began)
        seconds = min(left, sum(SECONDS[name] for name in group))
        if left < min(20.0, options.budget / 4):
            found["parts"] |= {name: {"status": "skipped", "why": "no time was left"} for name in group}
            continue
        without: list[str] = []
        for _ in range(3):
            status = run(options, group, seconds, without, peers, folder / "part.json")
            if status == child.NO_DEVICE:
                print("This benchmark needs a CUDA device. (To see that it runs at all: --smoke.)", file=sys.stderr)
                sys.exit(judge.NO_EVIDENCE)
            took = json.loads((folder / "part.json").read_text()) if (folder / "part.json").exists() else {"parts": {}}
            guilty = running(took["parts"])
            seconds = min(options.budget - (time.monotonic() - began), SECONDS[group[0]])
            if not status or not guilty or status == "too slow" or seconds < 30:
                break
            without += guilty
        for name in group:
            part = took["parts"].get(name, {})
            if status and part.get("status", "running") == "running":
                part |= {"status": "stopped", "why": f"the process ended early: {status}"}
            found["parts"][name] = part
        found["hardware"] = found["hardware"] or took.get("hardware")
        found["seconds"] = round(time.monotonic() - began, 1)
        child.save(found, options.out)
    found["complete"] = True
    child.save(found, options.out)
    return found


def run(
    options: argparse.Namespace, parts: list[str], seconds: float, without: list[str], peers: Path | None, out: Path
) -> str | int:
    """The status of a process that measures these parts: 0, NO_DEVICE, or why it ended."""
    out.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--child", "--out", out, "--parts", *parts, "--seconds", seconds - 5]
    command += ["--smoke"] if options.smoke else []
    command += ["--peers", peers] if peers is not None else []
    command += ["--without", *without] if without else []
    command += ["--profile", options.profile] if options.profile is not None else []
    # What is measured is what lies beside this script.
    source, given = Path(__file__).resolve().parents[1] / "src", os.environ.get("PYTHONPATH")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(source), *([given] if given else [])])}
    if options.smoke:
        environment |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(list(map(str, command)), env=environment, start_new_session=True)
    try:
        status = process.wait(timeout=seconds + 5)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)  # with the compiler's workers
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return "too slow"
        raise
    return status if status in (0, child.NO_DEVICE) else f"status {status}"


def running(found: Any) -> list[str]:
    """The contenders that were at work when the process ended."""
    if isinstance(found, list):
        return [name for item in found for name in running(item)]
    if not isinstance(found, dict):
        return []
    own = [name for name, e in found.get("contenders", {}).items() if e.get("status") == "running"]
    return own + [name for key, value in found.items() if key != "contenders" for name in running(value)]


def unpacked(folder: Path, to: Path) -> Path:
    """A folder to import from: the one that was given, or one with its wheels unpacked."""
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        return folder
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(to)
    return to


def read(parser: argparse.ArgumentParser, path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        parser.error(f"Expected a file of results, but {path} is none: {error}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpu.json")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--budget", type=float, default=540.0, help="seconds for all of it (default: %(default)s)")
    parser.add_argument("--peers", type=Path, help="a folder of wheels, or of installed packages, to measure against")
    parser.add_argument("--judge", type=Path, metavar="JSON", help="judge a file that is there, and measure nothing")
    parser.add_argument("--plot", type=Path, metavar="JSON", help="draw a file that is there, and measure nothing")
    parser.add_argument("--profile", type=Path, metavar="TXT", help="also profile the library, and append tables here")
    parser.add_argument("--smoke", action="store_true", help="tiny, on a CPU, in Triton's interpreter: no evidence")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--without", nargs="*", default=[], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child.main(options)
    if options.plot is not None:
        from gpu_parts import picture

        picture.draw(read(parser, options.plot), options.plot)
        return 0
    if options.judge is not None:
        found = read(parser, options.judge)
    else:
        if options.peers is not None and not options.peers.is_dir():
            parser.error(f"Expected `--peers` to be a folder, but got {options.peers}.")
        options.out.parent.mkdir(parents=True, exist_ok=True)
        if options.profile is not None:
            options.profile.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            found = measure(options, Path(folder))
        print(f"\nwritten to {options.out}\n")
    return judge.report(found)


if __name__ == "__main__":
    sys.exit(main())
