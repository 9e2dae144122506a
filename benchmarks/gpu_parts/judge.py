"""The targets, each passed, missed or not run, from a file of results alone."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

from gpu_parts.sizes import FULL, SCHEMA

PASS, MISS, NOT_RUN = "pass", "MISS", "not run"
FAULTS = ("wrong", "failed", "crashed", "out of memory")

NO_EVIDENCE = 2
"""The status where there is nothing to judge."""

BANDWIDTH = 0.85
PRODUCTS = 1.15
EXTRA_MIB = 1024.0
LINKS = 1.03
CURVE = 0.01
"""Loss curves may be so far apart, or twice as far as two are that differ by rounding alone."""
STEPS = 200
BYTES = {"bfloat16": 2, "float32": 4}

DENSE_PEERS = ("torch.compile", "liger", "quack")
LINEAR_PEERS = ("liger", "cce", "torch", "torch.compile")


class Verdict(NamedTuple):
    target: str
    result: str
    measured: str


def report(found: dict[str, Any]) -> int:
    """Print the table. The status: 0 if all passed, 1 if one missed, 3 if some were not run, 2 if nothing counts."""
    if found.get("schema") != SCHEMA:
        print(f"Expected results of schema {SCHEMA}, but got {found.get('schema')!r}.")
        return NO_EVIDENCE
    smoke = found["smoke"]
    if not smoke and json.dumps(found["sizes"]) != json.dumps(FULL):
        print("Expected the sizes that the targets name, but this file has others.")
        return NO_EVIDENCE
    verdicts = list(judged(found))
    width = max(len(v.target) for v in verdicts)
    for target, result, measured in verdicts:
        shown = "-" if smoke else result
        print(f"{target:{width}}  {shown:8} {measured}")
    if smoke:
        print("\nSMOKE RUN on a CPU at tiny sizes: these numbers are no evidence, and no target is judged by them.")
        return NO_EVIDENCE
    results = {v.result for v in verdicts}
    return 1 if MISS in results else 3 if NOT_RUN in results else 0


def judged(found: dict[str, Any]) -> Iterator[Verdict]:
    parts, sizes = found["parts"], found["sizes"]
    yield from _dense(parts)
    yield from _linear(parts)
    yield from _links(parts)
    yield from _exact(parts, sizes["exact"])
    for name in ("classes", "rows"):
        yield _sweep(parts, name, sizes[name])
    yield from _language_model(parts)


def _dense(parts: dict[str, Any]) -> Iterator[Verdict]:
    dense, ceilings = parts.get("dense", {}), parts.get("ceilings", {})
    target = f"dense: at least {BANDWIDTH:.0%} of the copy bandwidth"
    ours, copy = _entry(dense, "lossfit"), ceilings.get("copy")
    if not _ok(ours):
        yield _without(target, dense, ours)
    elif copy is None:
        yield _without(target, ceilings, {})
    else:
        rows, classes = dense["shape"]
        rate = 3 * rows * classes * BYTES[dense["dtype"]] / ours["median_ms"] / 1e6
        ceiling = copy["gb_per_s"]["median"]
        measured = f"{rate:.0f} of {ceiling:.0f} GB/s, {rate / ceiling:.1%}"
        yield _verdict(target, rate >= BANDWIDTH * ceiling, measured)
    for name in DENSE_PEERS:
        yield _compared(f"dense: ahead of {name}", dense, [dense], name, 1.0)


def _linear(parts: dict[str, Any]) -> Iterator[Verdict]:
    linear = parts.get("linear", {})
    runs = linear.get("by_spread", [])
    yield _compared(f"linear: within {PRODUCTS} x its three products", linear, runs, "three products", PRODUCTS)
    target = f"linear: under {EXTRA_MIB:.0f} MiB beyond inputs and gradients"
    ours = [_entry(run, "lossfit") for run in runs] or [{}]
    missing = [entry for entry in ours if not _ok(entry) or entry["extra_mib"] is None]
    if missing:
        yield _without(target, linear, missing[0])
    else:
        most = max(entry["extra_mib"] for entry in ours)
        yield _verdict(target, most < EXTRA_MIB, f"{most:.0f} MiB")
    for name in LINEAR_PEERS:
        yield _compared(f"linear: ahead of {name}", linear, runs, name, 1.0)


def _links(parts: dict[str, Any]) -> Iterator[Verdict]:
    links = parts.get("links", {})
    for kind in ("dense", "linear"):
        where, target = links.get(kind, {}), f"links, {kind}: within {LINKS - 1:.0%} of cross-entropy"
        entries = where.get("contenders", {})
        missing = [entry for entry in entries.values() if not _ok(entry)]
        if missing or len(entries) < 2:
            yield _without(target, links, missing[0] if missing else {})
        else:
            ratios = {name: _ratio(entry, entries["cross_entropy"]) for name, entry in entries.items()}
            del ratios["cross_entropy"]
            worst = max(ratios, key=ratios.__getitem__)
            measured = f"{len(ratios)} links, slowest {worst} at {ratios[worst]:.3f}"
            yield _verdict(target, ratios[worst] <= LINKS, measured)


def _exact(parts: dict[str, Any], shapes: list[list[int]]) -> Iterator[Verdict]:
    exact = parts.get("exact", {})
    runs = exact.get("by_shape", [])
    for i, (rows, classes) in enumerate(shapes):
        run = runs[i] if i < len(runs) else {}
        ours, target = _entry(run, "lossfit"), f"EXACT: measured at C = {classes:,}"
        if _ok(ours):
            each = ours["median_ms"] * 1e6 / (rows * classes * run["nodes"])
            measured = f"{ours['median_ms']:.2f} ms, {each:.2g} ns a score and node, {run['nodes']} nodes"
            usual = _entry(run, "32 Gauss-Hermite nodes")
            measured += f", {_ratio(ours, usual):.2f} of the usual rule's time" if _ok(usual) else ""
            yield _verdict(target, True, measured)
        else:
            yield _without(target, exact, ours)


def _sweep(parts: dict[str, Any], name: str, wanted: list[int]) -> Verdict:
    sweep, target = parts.get(name, {}), f"sweep of {name}: {wanted[0]:,} to {wanted[-1]:,}"
    for kind in ("dense", "linear"):
        runs = sweep.get(kind, [])
        for i in range(len(wanted)):
            run = runs[i] if i < len(runs) else {}
            if not _ok(_entry(run, "lossfit")):
                found = _without(target, sweep if "status" not in run else run, _entry(run, "lossfit"))
                return found._replace(measured=f"{kind} at {wanted[i]:,}: {found.measured}")
    return _verdict(target, True, f"{2 * len(wanted)} sizes")


def _language_model(parts: dict[str, Any]) -> Iterator[Verdict]:
    found = parts.get("language_model", {})
    ours, plain = _entry(found, "lossfit"), _entry(found, "plain")
    curve, time, memory = (f"language model: {what}" for what in ("same loss curve", "step time", "peak memory"))
    if not (_ok(ours) and _ok(plain)):
        yield from (_without(t, found, plain if _ok(ours) else ours) for t in (curve, time, memory))
        return
    yield _same_curve(curve, found, ours, plain)
    for target, key, unit in ((time, "median_ms", "ms"), (memory, "peak_mib", "MiB")):
        if ours[key] is None or plain[key] is None:
            yield Verdict(target, NOT_RUN, "the device does not tell")
        else:
            compiled = _entry(found, "torch.compile").get(key)
            beside = "" if compiled is None else f", compiled {compiled:.1f}"
            measured = f"{ours[key]:.1f} {unit}, plain {plain[key]:.1f}{beside}"
            yield _verdict(target, ours[key] < plain[key], measured)


def _same_curve(target: str, found: dict[str, Any], ours: dict[str, Any], plain: dict[str, Any]) -> Verdict:
    mine, theirs = ours["loss"], plain["loss"]
    gap, steps = curve_gap(mine, theirs), min(len(mine), len(theirs))
    control = _entry(found, "plain, jittered")
    allowed = max(CURVE, 2 * curve_gap(control["loss"], theirs)) if _ok(control) else CURVE
    measured = f"{steps} steps, from {theirs[0]:.2f} to {theirs[-1]:.2f}, apart by {gap:.2%} of {allowed:.2%} allowed"
    if steps < STEPS:
        return Verdict(target, NOT_RUN, f"too few steps: {measured}")
    learnt = theirs[-1] < theirs[0] - 1
    return _verdict(target, gap <= allowed and learnt, measured)


def curve_gap(ours: list[float], theirs: list[float], window: int = 10) -> float:
    """The largest relative difference of the curves, each a mean over so many steps."""
    steps = min(len(ours), len(theirs))
    means = [
        [statistics.fmean(curve[i : i + window]) for curve in (ours, theirs)]
        for i in range(0, max(steps - window, 0) + 1, window)
    ]
    return max(abs(a / b - 1) for a, b in means)


def _compared(target: str, part: dict[str, Any], runs: list[dict[str, Any]], name: str, limit: float) -> Verdict:
    """The library's time as a ratio to another's, the median over rounds, in every run at most the limit."""
    pairs = [(_entry(run, "lossfit"), _entry(run, name)) for run in runs] or [({}, {})]
    for pair in pairs:
        for entry in pair:
            if not _ok(entry):
                found = _without(target, part, entry)
                return found if entry is pair[0] else found._replace(result=NOT_RUN)
    ratios = [_ratio(*pair) for pair in pairs]
    spreads = [f" at spread {run['spread']:g}" if "spread" in run else "" for run in runs]
    measured = ", ".join(f"{ratio:.3f}{spread}" for ratio, spread in zip(ratios, spreads, strict=True))
    return _verdict(target, max(ratios) <= limit, f"{measured} of its time")


def _ratio(mine: dict[str, Any], theirs: dict[str, Any]) -> float:
    """The median over rounds of the ratio of times within a round."""
    return statistics.median(a / b for a, b in zip(mine["ms"], theirs["ms"], strict=True))


def _verdict(target: str, holds: bool, measured: str) -> Verdict:
    return Verdict(target, PASS if holds else MISS, measured)


def _without(target: str, part: dict[str, Any], entry: dict[str, Any]) -> Verdict:
    """Without the library's own number: missed where the library is at fault, else not run."""
    result = MISS if entry.get("status") in FAULTS else NOT_RUN
    for of in (entry, part):
        if of.get("status") not in (None, "ok"):
            return Verdict(target, result, f"{of['status']}: {of.get('why', '')}")
    return Verdict(target, result, "not in this file")


def _entry(where: dict[str, Any], name: str) -> dict[str, Any]:
    entry: dict[str, Any] = where.get("contenders", {}).get(name, {})
    return entry


def _ok(entry: dict[str, Any]) -> bool:
    return entry.get("status") == "ok" and bool(entry.get("ms"))
