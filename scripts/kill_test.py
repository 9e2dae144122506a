"""Kill `lossfit compare` at random moments, and see that nothing finished is lost and that --resume ends the same.

    python scripts/kill_test.py
    python scripts/kill_test.py --moments 5 --engine ray

The command runs undisturbed, and then once for each moment: it is killed (SIGKILL) after a random share of the time
from the making of its folder to its end, and resumed. Each part that was there when it was killed must be whole and stay
as it is, and the summary must be that of the undisturbed run, its times aside. Ends with 1 if one is not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl

_TIMES = ("seconds", "seconds_per_training")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", default="local")
    parser.add_argument("--workers", default="2")
    asked = parser.parse_args()
    command = [sys.executable, "-m", "lossfit", "compare", "yeast", "--losses", "focal,poly,squared,hinge"]
    command += ["--splits", "12", "--trials", "2", "--engine", asked.engine, "--workers", asked.workers]
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "whole"
        running = _begin(command, out)
        start = time.perf_counter()
        running.wait()
        seconds = time.perf_counter() - start
        expected = _finish(command, out)
        print(f"Undisturbed: {seconds:.1f} s, {expected['trainings']} trainings", flush=True)
        wrong = 0
        for moment in range(asked.moments):
            told, right = _killed(command, Path(folder) / str(moment), rng.uniform(0, seconds), expected)
            wrong += not right
            print(f"{moment + 1:2}. {told}", flush=True)
    print(f"{asked.moments - wrong} of {asked.moments} ended as the undisturbed run, with every finished part kept.")
    sys.exit(wrong > 0)


def _begin(command: list[str], out: Path) -> subprocess.Popen[bytes]:
    """Run the command until its folder is there."""
    running = subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (out / "plan.json").exists() and running.poll() is None:
        time.sleep(0.05)
    return running


def _killed(command: list[str], out: Path, after: float, expected: dict[str, Any]) -> tuple[str, bool]:
    """Kill the command, go on with it, and say what came of it."""
    running = _begin(command, out)
    try:
        running.wait(after)
    except subprocess.TimeoutExpired:
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    kept = {path: path.stat().st_mtime_ns for path in sorted((out / "parts").glob("*.parquet"))}
    rows = sum(pl.read_parquet(path).height for path in kept)  # raises if one is not whole
    found = _finish(command, out)
    touched = sum(path.stat().st_mtime_ns != written for path, written in kept.items())
    same = found == expected
    ended = "" if running.returncode == -signal.SIGKILL else " (it had ended)"
    told = (
        f"killed after {after:5.1f} s{ended}: {len(kept)} parts, {rows} trainings kept, {touched} of them trained again"
    )
    return f"{told}, summary {'the same' if same else 'DIFFERENT'}", same and not touched


def _finish(command: list[str], out: Path) -> dict[str, Any]:
    """Run the command to its end; its summary."""
    subprocess.run([*command, "--out", str(out), "--resume"], check=True, capture_output=True)
    found: dict[str, Any] = _without_times(json.loads((out / "summary.json").read_text(encoding="utf-8")))
    return found


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in _TIMES}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
