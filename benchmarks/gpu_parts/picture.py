"""Pictures of a file of results, drawn where Altair is installed: no GPU is needed, and none is there where it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt

from lossfit import plot

Row = dict[str, Any]


def draw(found: dict[str, Any], beside: Path) -> list[Path]:
    """The charts that there are results for, as NAME-times.svg, NAME-sweeps.svg and NAME-training.svg."""
    subject = (
        "smoke run on a CPU: no evidence" if found["smoke"] else (found["hardware"] or {}).get("device", "no device")
    )
    charts = {"times": _times(found["parts"]), "sweeps": _sweeps(found["parts"]), "training": _training(found["parts"])}
    written = []
    for name, parts in charts.items():
        if parts:
            path = beside.with_name(f"{beside.stem}-{name}.svg")
            plot.write(alt.concat(*parts, columns=2, title=subject).resolve_scale(color="shared"), path)
            print(f"written to {path}")
            written.append(path)
    return written


def _times(parts: dict[str, Any]) -> list[alt.LayerChart]:
    runs = [("dense", parts.get("dense", {}))]
    runs += [(f"linear, spread {run['spread']:g}", run) for run in parts.get("linear", {}).get("by_spread", [])]
    runs += [("EXACT", run) for run in parts.get("exact", {}).get("by_shape", [])]
    found = []
    for title, run in runs:
        rows = [{"name": name, **_numbers(entry)} for name, entry in _measured(run).items()]
        if rows:
            shape = " x ".join(f"{size:,}" for size in run["shape"])
            base = alt.Chart(alt.Data(values=rows), title=f"{title}: {shape}", width=260).encode(
                alt.Y("name:N", title=None, sort="x")
            )
            bars = base.mark_bar(color="#7fa6c9").encode(alt.X("median:Q", title="ms, forward and backward"))
            found.append(bars + base.mark_rule(strokeWidth=2).encode(alt.X("low:Q"), alt.X2("high:Q")))
    return found


def _sweeps(parts: dict[str, Any]) -> list[alt.Chart]:
    found = []
    for part, place in (("classes", -1), ("rows", 0)):
        for kind in ("dense", "linear"):
            runs = parts.get(part, {}).get(kind, [])
            rows = [
                {"name": name, "size": run["shape"][place], **_numbers(entry)}
                for run in runs
                for name, entry in _measured(run).items()
            ]
            title = f"{kind}, against the number of {part}"
            if rows:
                found.append(_lines(rows, title, f"number of {part}", "median", "ms, forward and backward", "log"))
    return found


def _training(parts: dict[str, Any]) -> list[alt.Chart]:
    runs = _measured(parts.get("language_model", {}))
    rows = [
        {"name": name, "size": step, "loss": loss, "median": ms}
        for name, entry in runs.items()
        for step, (loss, ms) in enumerate(zip(entry["loss"], entry["ms"], strict=False))
    ]
    late = [row for row in rows if row["size"] >= 5]
    if not late:
        return []
    return [
        _lines(rows, "language model", "step", "loss", "loss", "linear"),
        _lines(late, "language model", "step", "median", "ms a step", "linear"),
    ]


def _lines(rows: list[Row], title: str, x: str, field: str, y: str, scale: str) -> alt.Chart:
    kind = alt.Scale(type=scale, zero=False, nice=False)
    return (
        alt.Chart(alt.Data(values=rows), title=title, width=300, height=220)
        .mark_line(point=scale == "log", opacity=0.8)
        .encode(
            alt.X("size:Q", title=x, scale=kind),
            alt.Y(f"{field}:Q", title=y, scale=kind),
            alt.Color("name:N", legend=alt.Legend(**plot.LEGEND)),
        )
    )


def _measured(run: dict[str, Any]) -> dict[str, Any]:
    return {name: e for name, e in run.get("contenders", {}).items() if e["status"] == "ok" and e.get("ms")}


def _numbers(entry: dict[str, Any]) -> Row:
    return {key: entry[f"{key}_ms"] for key in ("low", "median", "high")}
