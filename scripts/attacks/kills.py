"""Commands that are killed, at random moments and between any two steps of writing, and run again."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from attacks import folders
from attacks.tally import Tally

_STEPS = ("open", "fsync", "replace", "mkdir")
"""What writing consists of; a process is killed before one of these calls."""
_SECONDS = 300
_TIMES = re.compile(r'"(seconds|seconds_per_training)": [\d.e+-]+')


class Command(NamedTuple):
    """A command, what it writes, what it is run again with, and its share of the kills."""

    name: str
    words: tuple[str, ...]
    written: tuple[str, ...]
    share: float
    again: tuple[str, ...] = ()


COMPARE = ("compare", "t.csv", "--target", "grade", "--drop", "note", *folders.QUICK, "--out", "o")
COMMANDS = (
    Command("compare", COMPARE, ("o/results.parquet", "o/summary.json", "o/report.html"), 0.5, ("--resume",)),
    Command("export", ("export", "out", "--out", "m"), ("m/model.json", "m/model.safetensors"), 0.15),
    Command("predict", ("predict", "out", "t.csv", "--out", "scored.csv"), ("scored.csv",), 0.1),
    Command(
        "calibrate",
        ("calibrate", "p.csv", "--target", "y", "--resamples", "100", "--picture", "svg", "--out", "c"),
        ("c/calibration.json", "c/calibrated.csv", "c/reliability.svg"),
        0.15,
    ),
    Command("diff", ("diff", "out", "other", "--out", "d.html"), ("d.html",), 0.1),
)


def run(count: int, seed: int) -> Tally:
    tally = Tally()
    rng = random.Random(seed)
    # Each victim is forked from a process that has imported all, and begins at once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["attacks.preloaded"])
    with tempfile.TemporaryDirectory() as name:
        original, here = Path(name) / "original", Path(name) / "here"
        original.mkdir()
        folders.everything(original)
        for folder in ("out", "other"):  # their data is below the current folder
            path = original / folder / "plan.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "source": "t.csv"}))
        for command in COMMANDS:
            shutil.copytree(original, here)
            start = time.perf_counter()
            code = _victim(context, here, command.words)
            seconds = time.perf_counter() - start
            assert code == 0, f"{command.name} ended with {code}"
            expected, steps = _contents(here, command), int((here / "steps").read_text())
            shutil.rmtree(here)
            for i in range(max(1, round(count * command.share))):
                shutil.copytree(original, here)
                if i % 2 == 0:
                    kind, moment = "between two steps", float(rng.randrange(steps))
                    ended = _victim(context, here, command.words, step=int(moment))
                else:
                    kind, moment = "at a random moment", rng.uniform(0, seconds)
                    ended = _victim(context, here, command.words, after=moment)
                begun = (here / "o" / "plan.json").exists()
                code = _victim(context, here, (*command.words, *(command.again if begun else ())))
                wrong = f"run again it ended with {code}" if code else _differences(here, command, expected)
                told = f"killed at {moment:g} of {steps} steps or {seconds:.1f} s ({ended}), seed {seed}: {wrong}"
                tally.add(f"{command.name}, {kind}", told if wrong else "")
                shutil.rmtree(here)
    return tally


def _victim(
    context: Any, here: Path, words: tuple[str, ...], *, step: int | None = None, after: float = _SECONDS
) -> int:
    """Run a command in a process, which may be killed before a step or after some seconds; its exit code."""
    process = context.Process(target=_go, args=(str(here), words, step))
    process.start()
    process.join(after)
    process.kill()
    process.join()
    return int(process.exitcode or 0)


def _go(here: str, words: tuple[str, ...], kill_before: int | None) -> None:
    os.chdir(here)
    count = 0

    def counted(real: Any) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal count
            if count == kill_before:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return real(*arguments, **more)

        return call

    real = {name: getattr(os, name) for name in _STEPS}
    for name, function in real.items():
        setattr(os, name, counted(function))
    found = folders.run(*words)
    for name, function in real.items():
        setattr(os, name, function)
    Path("steps").write_text(str(count))
    os._exit(found.exit_code)


def _contents(here: Path, command: Command) -> dict[str, Any]:
    """What was written, but for times."""
    found: dict[str, Any] = {}
    for name in command.written:
        path = here / name
        if path.suffix == ".parquet":
            found[name] = pl.read_parquet(path).drop("seconds").to_dicts()
        elif path.suffix in (".html", ".svg"):
            found[name] = path.stat().st_size > 1000
        elif path.suffix == ".json":
            found[name] = _TIMES.sub("", path.read_text())
        else:
            found[name] = path.read_bytes()
    return found


def _differences(here: Path, command: Command, expected: dict[str, Any]) -> str:
    try:
        found = _contents(here, command)
    except (OSError, pl.exceptions.PolarsError) as error:
        return repr(error)
    other = [name for name in expected if found[name] != expected[name]]
    left = [str(path.relative_to(here)) for path in here.rglob(".*.partial")]
    return f"other contents in {other}" if other else f"left over: {left}" if left else ""
