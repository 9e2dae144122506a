"""The report's views of the trainings: the metric and the gap over the steps, of the chosen settings."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import polars as pl

from lossfit import page
from lossfit.compare.report import charts, wording
from lossfit.compare.scoring.tasks import CARDS

BANDS = ("q5", "q25", "q50", "q75", "q95")
"""The quantiles of the gap that a training keeps."""


def build(best: pl.DataFrame, summary: dict[str, Any]) -> dict[str, alt.TopLevelMixin]:
    """The charts by name, of the chosen settings."""
    found = {"learning": _learning(best, summary)}
    if "curve_gaps" in best.columns:
        found["gaps"] = _gaps(best, summary)
    return found


def course(best: pl.DataFrame, loss: str, column: str) -> dict[int, np.ndarray]:
    """By step, the mean over the choices of a column beside ``curve_steps``.

    A choice that was stopped early counts with its last value, so that the mean is over the same choices all the time;
    steps that fewer than half of them reach are left out.
    """
    rows = best.filter((pl.col("loss") == loss) & pl.col(column).is_not_null()).select("curve_steps", column)
    found = [
        {s: np.array(v, dtype=float) for s, v in zip(*row, strict=True) if np.isfinite(np.array(v, dtype=float)).all()}
        for row in rows.iter_rows()
    ]
    found = [values for values in found if values]
    steps = sorted({step for values in found for step in values})
    reached = [step for step in steps if 2 * sum(max(values) >= step for values in found) >= len(found)]
    out = {}
    for step in reached:
        past = [[s for s in values if s <= step] for values in found]
        out[step] = np.mean([v[max(p)] for v, p in zip(found, past, strict=True) if p], 0)
    return out


def _learning(best: pl.DataFrame, summary: dict[str, Any]) -> Any:
    card = CARDS[summary["metric"]]
    records = [
        {"loss": wording.title(e["loss"]), "step": step, "value": card.factor * float(value)}
        for e in summary["losses"]
        if not e["tuned"]
        for step, value in course(best, e["loss"], "curve_values").items()
    ]
    title = f"{card.title} on the validation rows{', %' if card.percent else ''}"
    chart = (
        alt.Chart(page.data(records), width="container", height=320)
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=30))
        .encode(
            x=alt.X("step:Q", title="Steps", scale=alt.Scale(zero=True)),
            y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=False)),
            color=charts.colours(summary),
            tooltip=["loss:N", "step:Q", alt.Tooltip("value:Q", format=".4g")],
        )
    )
    return page.finished(
        chart,
        f"For each loss, a line of its {wording.phrase(summary['metric'])} on the validation rows over the steps.",
        {"loss": "Loss", "step": "Step", "value": title},
        filters={"loss": "picked"},
        colours=True,
    )


def _gaps(best: pl.DataFrame, summary: dict[str, Any]) -> Any:
    records = [
        {"loss": wording.title(e["loss"]), "step": step, **dict(zip(BANDS, values.tolist(), strict=True))}
        for e in summary["losses"]
        if not e["tuned"]
        for step, values in course(best, e["loss"], "curve_gaps").items()
    ]
    base = alt.Chart(page.data(records)).encode(
        x=alt.X("step:Q", title="Steps", scale=alt.Scale(zero=True)),
        tooltip=["step:Q", *(alt.Tooltip(f"{q}:Q", format=".3g", title=_told(q)) for q in BANDS)],
    )
    teal = charts.VERDICTS["better"]
    layers = [
        base.mark_area(opacity=opacity, color=teal).encode(
            y=alt.Y(f"{low}:Q", title="Gap of the validation rows"), y2=f"{high}:Q"
        )
        for low, high, opacity in (("q5", "q95", 0.18), ("q25", "q75", 0.3))
    ]
    median = base.mark_line(strokeWidth=2, color=teal, point=alt.OverlayMarkDef(size=40, color=teal)).encode(y="q50:Q")
    zero = alt.Chart(page.data([{}])).mark_rule(color=charts.INK, strokeDash=[3, 3]).encode(y=alt.datum(0))
    return page.finished(
        alt.layer(*layers, zero, median).properties(width="container", height=320),
        "For the chosen loss, the gap of the validation rows over the steps: a line for the median, a dark band for "
        "the middle half and a light one for the middle 90% of the rows.",
        {"step": "Step", **{q: _told(q) for q in BANDS}},
        filters={"loss": "gap_of"},
    )


def _told(quantile: str) -> str:
    return "median" if quantile == "q50" else f"{quantile[1:]}%"
