"""Kill a comparison at random moments, and see that nothing finished is lost and that going on ends the same.

    python scripts/kill_test.py
    python scripts/kill_test.py --moments 5 --workers 2

The comparison runs undisturbed, and then once for each moment: it is killed (SIGKILL) after a random share of the time
from the making of its folder to its end, and gone on with. Each part that was there when it was killed must be whole
and stay as it is, and the summary must be that of the undisturbed run, its times aside. Ends with 1 if one is not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl

from lossfit.compare.plan import Plan
from lossfit.compare.running import engine
from lossfit.compare.verdict.summary import summarise

PLAN = Plan("yeast", losses="focal,poly,squared,hinge", folds=4, trials=2)
_TIMES = ("seconds", "seconds_per_training")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", default="local")
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    how = {"workers": asked.workers, "engine": asked.engine}
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "whole"
        running = _begin(out, how)
        start = time.perf_counter()
        running.join()
        seconds = time.perf_counter() - start
        expected = _finish(out, how)
        print(f"Undisturbed: {seconds:.1f} s, {expected['trainings']} trainings", flush=True)
        wrong = 0
        for moment in range(asked.moments):
            told, right = _killed(Path(folder) / str(moment), how, rng.uniform(0, seconds), expected)
            wrong += not right
            print(f"{moment + 1:2}. {told}", flush=True)
    print(f"{asked.moments - wrong} of {asked.moments} ended as the undisturbed run, with every finished part kept.")
    sys.exit(wrong > 0)


def _begin(out: Path, how: dict[str, Any]) -> multiprocessing.process.BaseProcess:
    """Run the comparison until its folder is there."""
    context = multiprocessing.get_context("forkserver")  # its children need not import PyTorch again
    context.set_forkserver_preload(["lossfit.compare.running.engine"])
    running = context.Process(target=engine.run, args=(PLAN, out), kwargs=how)
    running.start()
    while not (out / "plan.json").exists() and running.is_alive():
        time.sleep(0.01)
    return running


def _killed(out: Path, how: dict[str, Any], after: float, expected: dict[str, Any]) -> tuple[str, bool]:
    """Kill the comparison, go on with it, and say what came of it."""
    running = _begin(out, how)
    running.join(after)
    running.kill()
    running.join()
    kept = {path: path.stat().st_mtime_ns for path in sorted((out / "parts").glob("*.parquet"))}
    rows = sum(pl.read_parquet(path).height for path in kept)  # raises if one is not whole
    found = _finish(out, how)
    touched = sum(path.stat().st_mtime_ns != written for path, written in kept.items())
    same = found == expected
    ended = "" if running.exitcode == -signal.SIGKILL else " (it had ended)"
    told = f"killed after {after:5.1f} s{ended}: {len(kept)} parts with {rows} trainings, {touched} parts written again"
    return f"{told}, summary {'the same' if same else 'DIFFERENT'}", same and not touched


def _finish(out: Path, how: dict[str, Any]) -> dict[str, Any]:
    """Go on to the end; the summary."""
    found: dict[str, Any] = _without_times(summarise(engine.run(PLAN, out, resume=True, **how)))
    return found


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in _TIMES}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
