"""Contenders over one problem: each is checked before it is timed, and all are timed in turn."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gpu_parts import problems
from gpu_parts.device import MIB, Device, spread
from gpu_parts.problems import Loss, Problem, Truth

LIMITS = {"loss": 0.02, "gradient": 0.05}
"""Relative errors beyond which a contender is wrong: they tell another function, not another rounding."""

Run = Callable[[Problem], Tensor | None]


class Contender(NamedTuple):
    name: str
    make: Callable[[], Loss]
    """Imports what it needs and returns a loss of scores, or of features and weights, and targets."""
    alone: Run | None = None
    """In place of a loss: work without a result to check."""


class Part:
    """The results of a part, written down whenever there is something new."""

    def __init__(
        self,
        device: Device,
        seconds: float,
        write: Callable[[dict[str, Any]], None],
        without: set[str],
        profile: Path | None = None,
    ) -> None:
        self.device, self.without, self.profile = device, without, profile
        self.begun = time.monotonic()
        self.end = self.begun + seconds
        self.found: dict[str, Any] = {"status": "running"}
        self._write = write

    def left(self) -> float:
        return self.end - time.monotonic()

    def flush(self) -> None:
        self.found["seconds"] = round(time.monotonic() - self.begun, 1)
        self._write(self.found)


def contest(
    part: Part,
    where: dict[str, Any],
    contenders: list[Contender],
    problem: Problem,
    check: Problem,
    truths: Callable[[str, Problem], Truth],
    rounds: tuple[int, int],
    seconds: float,
    whole: Truth | None = None,
) -> None:
    """Check and time contenders; results go to ``where``, which is in ``part.found``.

    Args:
        check: a smaller problem with the same kind of data.
        truths: the right answer to it, for a contender by name.
        rounds: at least and at most.
        seconds: how long to time.
        whole: of the problem itself, the right loss and the norms of its gradients.
    """
    where |= {"shape": problem.shape, "dtype": str(problem.source[0].dtype).removeprefix("torch."), "contenders": {}}
    where["checked_at"] = check.shape
    torch.compiler.reset()  # so that no earlier shape counts towards the limit of compilations
    runs: dict[str, Run] = {}
    for contender in contenders:
        entry: dict[str, Any] = {"status": "running"}
        where["contenders"][contender.name] = entry
        if contender.name in part.without:
            entry |= {"status": "crashed", "why": "the process ended while it ran"}
            continue
        if part.left() < min(seconds, 15):  # what was admitted must still be timed
            entry |= {"status": "skipped", "why": "no time was left"}
            continue
        part.flush()
        run = _admitted(part, entry, contender, problem, check, truths, whole)
        if run is not None:
            runs[contender.name] = run
        if entry["status"] != "ok":
            print(f"    {contender.name:28} {entry['status']}: {entry.get('why', '')}", flush=True)
        part.flush()
    for name, times in _rounds(part, runs, where["contenders"], problem, rounds, seconds).items():
        entry = where["contenders"][name]
        if entry["status"] == "ok":
            entry |= {"ms": [round(t, 4) for t in times], **{f"{k}_ms": v for k, v in spread(times).items()}}
            memory = "" if entry["extra_mib"] is None else f"{entry['extra_mib']:10.0f} MiB"
            print(
                f"    {name:28} {entry['median_ms']:10.3f} ms [{entry['low_ms']:.3f}, {entry['high_ms']:.3f}]{memory}",
                flush=True,
            )
    where["clocks_while_timed"] = part.device.seen()
    for name in [name for name in runs if where["contenders"][name]["status"] == "ok"][:1]:
        _profile(part, f"{name}, {problem.shape}", problem, runs[name])
    for p in (problem, check):
        p.refill()
        p.scratch.clear()
    part.flush()


def _admitted(
    part: Part,
    entry: dict[str, Any],
    contender: Contender,
    problem: Problem,
    check: Problem,
    truths: Callable[[str, Problem], Truth],
    whole: Truth | None,
) -> Run | None:
    """What to time; None where the contender is absent, fails or is wrong, which the entry then says."""
    try:
        if contender.alone is not None:
            run = contender.alone
        else:
            loss = contender.make()

            def run(p: Problem) -> Tensor:
                return p.run(loss)

            check.refill()
            value = run(check)
            entry["errors"] = problems.errors(value, check, truths(contender.name, check))
            if wrong := beyond(entry["errors"]):
                entry |= {"status": "wrong", "why": wrong}
                return None
        begun = time.monotonic()
        problem.refill()
        value = run(problem)
        if value is not None and whole is not None:
            entry["errors_at_full_size"] = problems.errors(value, problem, whole)
            if wrong := beyond(entry["errors_at_full_size"]):
                entry |= {"status": "wrong", "why": f"at full size, {wrong}"}
                return None
        part.device.synchronize()
        entry["first_seconds"] = round(time.monotonic() - begun, 2)
        problem.refill()
        peak = part.device.peak(lambda: run(problem))
        entry["peak_mib"] = None if peak is None else round(peak / MIB, 1)
        entry["extra_mib"] = None if peak is None else round((peak - problem.gradient_bytes()) / MIB, 1)
        entry["status"] = "ok"
        return run
    except Exception as error:
        tell(part, entry, error)
        return None
    finally:
        problem.refill()
        check.refill()


def _rounds(
    part: Part,
    runs: dict[str, Run],
    entries: dict[str, Any],
    problem: Problem,
    rounds: tuple[int, int],
    seconds: float,
) -> dict[str, list[float]]:
    """Milliseconds of every round; in the next one another contender begins."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    least, most = rounds
    end = time.monotonic() + min(seconds, max(part.left(), 0))
    first = 0 if part.device.smoke else -2  # what was freed to measure the peak is allocated again
    for turn in range(first, most):
        # One round is there at least; where contenders are slow, what is there counts more than all rounds.
        if (turn >= least and time.monotonic() > end) or (turn > 0 and part.left() < 3):
            break
        names = [name for name in runs if entries[name]["status"] == "ok"]
        for name in names[turn % len(names) :] + names[: turn % len(names)] if names else []:
            problem.refill()
            try:
                took = part.device.milliseconds(lambda run=runs[name]: run(problem))
                times[name] += [took] if turn >= 0 else []
            except Exception as error:
                tell(part, entries[name], error)
        if turn == least // 2:
            part.device.look()
    problem.refill()
    return times


def _profile(part: Part, title: str, problem: Problem, run: Run) -> None:
    """Append a table of where three runs spend their time, if it was asked for."""
    if part.profile is None:
        return
    try:
        with torch.profiler.profile() as profiler:
            for _ in range(3):
                problem.refill()
                run(problem)
            part.device.synchronize()
    except Exception as error:  # the times are there: they must not be lost
        print(f"    no profile of {title}: {error}")
        return
    key = "self_cpu_time_total" if part.device.smoke else "self_device_time_total"
    with part.profile.open("a", encoding="utf-8") as file:
        file.write(
            f"{title}: three runs and their refills\n{profiler.key_averages().table(sort_by=key, row_limit=25)}\n"
        )


def beyond(errors: dict[str, float]) -> str:
    """The first error that is too large, NaN among them; empty where there is none."""
    for name, error in errors.items():
        limit = LIMITS["loss" if name == "loss" else "gradient"]
        if not error <= limit:
            return f"{name} off by {error:.3g}, more than {limit}"
    return ""


def tell(part: Part, entry: dict[str, Any], error: Exception) -> None:
    """Write down why a contender is not measured, and free what it held."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, torch.OutOfMemoryError) or "out of memory" in text.lower():
        entry["status"] = "out of memory"
    elif isinstance(error, ImportError):
        entry["status"] = "absent"
    else:
        entry["status"] = "failed"
    entry["why"] = f"{type(error).__name__}: {text.splitlines()[0][:300]}"
    if part.device.broken():
        entry["status"] = "running"  # told by the parent, which goes on without it
        part.flush()
        os._exit(1)
    error.__traceback__ = None  # it holds the tensors of its frames
    gc.collect()
    part.device.free()
