"""The charts of the report, as Vega-Lite specifications that fit the width of the page."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, Literal

import altair as alt
import polars as pl

from lossfit import plot, registry
from lossfit.compare import metrics, search
from lossfit.compare.engine import Outcome
from lossfit.compare.kinds import CARDS
from lossfit.compare.report import words
from lossfit.compare.summary import chosen, verdict
from lossfit.losses.single import SingleLabelLoss

VERDICTS = {"better": "#0b7a75", "undecided": "#8a8f98", "worse": "#c8553d"}
# Titles that are wider than a narrow chart grow to the left, where the names of the losses are.
_AT_END = alt.Axis(titleAnchor="end")
# Cross-entropy is black; the others are told apart by people who see few colours (P. Green-Armytage's set, thinned).
_INK = "#16191d"
_COLORS = ("#0b7a75", "#e07b00", "#5b5bd6", "#c2185b", "#7a9a01", "#0288d1", "#8d6e63")


def build(outcome: Outcome, summary: dict[str, Any]) -> dict[str, alt.TopLevelMixin]:
    """The charts by name."""
    best = chosen(outcome.results, outcome.plan.metric)
    shown = featured(summary)
    found = {"differences": differences(summary), "splits": by_split(best, summary)}
    if summary["labels"] == "single_label":
        found |= {
            "trade_off": trade_off(summary),
            "reliability": reliability(best, shown),
            "risk_coverage": risk_coverage(best, shown),
            **curves(summary),
        }
    return {name: chart.configure(**plot.STYLE) for name, chart in found.items()}


def featured(summary: dict[str, Any]) -> list[str]:
    """The losses that the line charts show: the reference, the five best and the worst two."""
    ranked = [e["loss"] for e in summary["losses"] if e["vs_cross_entropy"] is not None]
    others = [name for name in ranked if name != summary["reference"]]
    picked = others if len(others) <= len(_COLORS) else others[:5] + others[-2:]
    return [summary["reference"], *picked]


def differences(summary: dict[str, Any], *, width: int | str = "container", legend: bool = False) -> alt.TopLevelMixin:
    """Mean difference to the reference with its 95% interval, coloured by the verdict of the rule."""
    metric = summary["metric"]
    factor = 100 if CARDS[metric].percent else 1
    records = [
        {
            "loss": words.title(e["loss"]),
            "difference": factor * e["vs_cross_entropy"]["difference"],
            "low": factor * e["vs_cross_entropy"]["ci95"][0],
            "high": factor * e["vs_cross_entropy"]["ci95"][1],
            "p": words.p_value(e["vs_cross_entropy"]["p_rule"]),
            "verdict": verdict(e["vs_cross_entropy"], metric),
        }
        for e in summary["losses"]
        if e["vs_cross_entropy"] is not None and e["loss"] != summary["reference"]
    ]
    base = alt.Chart(_data(records)).encode(
        y=_losses([r["loss"] for r in records]),
        color=alt.Color(
            "verdict:N",
            scale=alt.Scale(domain=list(VERDICTS), range=list(VERDICTS.values())),
            legend=alt.Legend(title=None, orient="top", direction="horizontal") if legend else None,
        ),
        tooltip=[
            alt.Tooltip("loss:N"),
            alt.Tooltip("difference:Q", format="+.2f"),
            alt.Tooltip("low:Q", format="+.2f"),
            alt.Tooltip("high:Q", format="+.2f"),
            alt.Tooltip("p:N", title="p by the rule"),
        ],
    )
    name = words.phrase(metric)
    points = ", percentage points" if factor == 100 else ""
    better = "right" if CARDS[metric].higher else "left"
    bars = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title=[f"Difference in {name}{points}", f"95% interval; better is {better}"], axis=_AT_END),
        x2="high:Q",
    )
    dots = base.mark_circle(size=80, opacity=1).encode(x="difference:Q")
    zero = alt.Chart(_data([{}])).mark_rule(color=_INK, strokeDash=[3, 3]).encode(x=alt.datum(0))
    return alt.layer(zero, bars, dots).properties(width=width, height=_height(len(records)))


def by_split(best: pl.DataFrame, summary: dict[str, Any]) -> alt.TopLevelMixin:
    """The test metric of every split, and the mean."""
    metric = summary["metric"]
    factor = 100 if CARDS[metric].percent else 1
    order = [words.title(e["loss"]) for e in summary["losses"]]
    records = [
        {"loss": words.title(row["loss"]), "split": row["split"] + 1, "value": factor * row[f"test_{metric}"]}
        for row in best.iter_rows(named=True)
    ]
    base = alt.Chart(_data(records)).encode(y=_losses(order))
    unit = ", %" if factor == 100 else ""
    title = f"{CARDS[metric].title} on the test rows{unit}"
    axis = alt.X("value:Q", title=title, axis=_AT_END)
    dots = base.mark_circle(size=34, opacity=0.4, color="#5f6b7a").encode(
        x=axis.scale(zero=False),
        tooltip=["loss:N", "split:Q", alt.Tooltip("value:Q", format=".2f")],
    )
    means = base.mark_tick(thickness=3, size=16, color=_INK).encode(x="mean(value):Q")
    return alt.layer(dots, means).properties(width="container", height=_height(len(order)))


def trade_off(summary: dict[str, Any]) -> alt.TopLevelMixin:
    """Accuracy against calibration error."""
    records = [
        {
            "loss": words.title(e["loss"]),
            "accuracy": 100 * e["test"]["accuracy"]["mean"],
            "calibration": 100 * e["test"]["calibration_error"]["mean"],
            "reference": e["loss"] == summary["reference"],
        }
        for e in summary["losses"]
        if e["test"]["accuracy"]["mean"] is not None
    ]
    named = _readable(records)
    for record in records:
        record["label"] = record["loss"] if record["loss"] in named else ""
    middle = sum(r["accuracy"] for r in records) / max(len(records), 1)
    base = alt.Chart(_data(records)).encode(
        x=alt.X("accuracy:Q", title="Accuracy, %", axis=alt.Axis(tickCount=6), scale=alt.Scale(zero=False, padding=24)),
        y=alt.Y("calibration:Q", title="Calibration error, %", scale=alt.Scale(zero=False, padding=20)),
        tooltip=["loss:N", alt.Tooltip("accuracy:Q", format=".1f"), alt.Tooltip("calibration:Q", format=".1f")],
    )
    color = alt.condition("datum.reference", alt.value(_INK), alt.value(_COLORS[0]))
    dots = base.mark_circle(size=90, opacity=0.85).encode(color=color)
    right = base.transform_filter(f"datum.accuracy <= {middle}").mark_text(align="left", dx=8, dy=-6, fontSize=12)
    left = base.transform_filter(f"datum.accuracy > {middle}").mark_text(align="right", dx=-8, dy=-6, fontSize=12)
    return alt.layer(dots, right.encode(text="label:N"), left.encode(text="label:N")).properties(
        width="container", height=320
    )


def _readable(records: list[dict[str, Any]]) -> set[str]:
    """Whose names have room: the reference, then those at the edges of the cloud, if no other is at their height."""
    by_accuracy = sorted(records, key=itemgetter("accuracy"))
    by_calibration = sorted(records, key=itemgetter("calibration"))
    edges = [*by_accuracy[:1], *by_accuracy[-1:], *by_calibration[:1], *by_calibration[-1:]]
    room = 0.08 * (by_calibration[-1]["calibration"] - by_calibration[0]["calibration"]) if records else 0.0
    named: list[dict[str, Any]] = []
    for record in [r for r in records if r["reference"]] + edges:
        if all(abs(record["calibration"] - r["calibration"]) > room for r in named):
            named.append(record)
    return {r["loss"] for r in named}


def reliability(best: pl.DataFrame, shown: list[str]) -> alt.TopLevelMixin:
    """Accuracy against confidence, the test rows of all splits pooled in 15 bins."""
    pick = alt.selection_point(fields=["loss"], bind="legend")
    records = []
    for name in shown:
        rows = best.filter(pl.col("loss") == name)
        count, confidence, hits = (
            rows.select(pl.col(c).list.to_array(metrics.BINS)).to_series().to_numpy().sum(0)
            for c in ("bin_rows", "bin_confidence", "bin_hits")
        )
        records += [
            {"loss": words.title(name), "confidence": c / n, "accuracy": h / n, "rows": int(n)}
            for n, c, h in zip(count, confidence, hits, strict=True)
            if n >= 5 * rows.height  # a bin of a few rows says nothing
        ]
    lines = (
        alt.Chart(_data(records))
        .mark_line(point=alt.OverlayMarkDef(size=40), strokeWidth=2)
        .encode(
            x=alt.X("confidence:Q", title="Confidence", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1])),
            y=alt.Y("accuracy:Q", title="Accuracy", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1])),
            color=_colors(shown),
            opacity=alt.condition(pick, alt.value(1), alt.value(0.12)),
            tooltip=[
                "loss:N",
                alt.Tooltip("confidence:Q", format=".1%"),
                alt.Tooltip("accuracy:Q", format=".1%"),
                "rows:Q",
            ],
        )
        .add_params(pick)
    )
    diagonal = (
        alt.Chart(_data([{"x": 0, "y": 0}, {"x": 1, "y": 1}]))
        .mark_line(color="#9aa0a6", strokeDash=[4, 4])
        .encode(x="x:Q", y="y:Q")
    )
    return alt.layer(diagonal, lines).properties(width="container", height=320)


def risk_coverage(best: pl.DataFrame, shown: list[str]) -> alt.TopLevelMixin:
    """The error rate among the most confident rows, mean over splits."""
    pick = alt.selection_point(fields=["loss"], bind="legend")
    records = []
    for name in shown:
        risks = best.filter(pl.col("loss") == name)["risks"].list.to_array(len(metrics.COVERAGES)).to_numpy().mean(0)
        records += [
            {"loss": words.title(name), "coverage": c, "risk": r}
            for c, r in zip(metrics.COVERAGES, risks.tolist(), strict=True)
        ]
    chart: alt.Chart = (
        alt.Chart(_data(records))
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("coverage:Q", title="Share of rows answered, most confident first", axis=alt.Axis(format="%")),
            y=alt.Y("risk:Q", title="Error rate among them", axis=alt.Axis(format="%")),
            color=_colors(shown),
            opacity=alt.condition(pick, alt.value(1), alt.value(0.12)),
            tooltip=["loss:N", alt.Tooltip("coverage:Q", format=".0%"), alt.Tooltip("risk:Q", format=".1%")],
        )
        .add_params(pick)
        .properties(width="container", height=320)
    )
    return chart


def curves(summary: dict[str, Any]) -> dict[str, alt.TopLevelMixin]:
    """Value and sensitivity of the losses with the settings that did best; those not shown elsewhere in grey."""
    shown = featured(summary)
    color = dict(zip(shown, (_INK, *_COLORS), strict=False))
    drawn = [e["loss"] for e in summary["losses"] if _has_curve(e["loss"])]
    front = {words.title(n): _make(n, summary) for n in shown if n in drawn}
    back = {words.title(n): _make(n, summary) for n in drawn if n not in shown}
    colors = [color[n] for n in shown if n in drawn]
    found: dict[str, alt.TopLevelMixin] = {}
    shows: dict[str, Literal["loss", "sensitivity"]] = {"loss_curves": "loss", "sensitivities": "sensitivity"}
    for name, show in shows.items():
        lines = plot.chart(front, show, colors=colors, width="container", height=300)
        grey = plot.chart(back, show, width="container", height=300).encode(color=alt.value("#c3c8ce"), detail="loss:N")
        found[name] = alt.layer(grey, lines) if back else alt.layer(lines)
    return found


def _has_curve(name: str) -> bool:
    """Whether a candidate has a loss of one row, which is not cross-entropy but for a weight or offset of its class."""
    candidate = search.candidate(name)
    weighted = candidate.tuned or any(h.endswith("_power") for h in candidate.search)
    return issubclass(registry.get(candidate.loss), SingleLabelLoss) and not weighted


def _make(name: str, summary: dict[str, Any]) -> SingleLabelLoss:
    entry = next(e for e in summary["losses"] if e["loss"] == name)
    loss = search.make_loss(search.candidate(name), **entry["params"])
    assert isinstance(loss, SingleLabelLoss)
    return loss


def _data(records: list[dict[str, Any]]) -> Any:
    return alt.Data(values=records)


def _height(count: int) -> int:
    return max(120, 24 * count)


def _losses(order: list[str]) -> alt.Y:
    return alt.Y("loss:N", sort=order, title=None, axis=alt.Axis(ticks=False, domain=False, labelPadding=6, grid=True))


def _colors(shown: list[str]) -> alt.Color:
    names = [words.title(name) for name in shown]
    return alt.Color(
        "loss:N",
        sort=names,
        scale=alt.Scale(domain=names, range=[_INK, *_COLORS][: len(names)]),
        legend=alt.Legend(**plot.LEGEND),
    )
