"""The charts of the report, as Vega-Lite specifications that fit the width of the page.

A string such as ``@metric.title`` stands for what the page's control says (see ``page.js``).
"""

from __future__ import annotations

from typing import Any, Literal

import altair as alt
import polars as pl

from lossfit import page, plot, registry
from lossfit.compare.candidates import candidates
from lossfit.compare.report import wording
from lossfit.compare.scoring import metrics
from lossfit.compare.scoring.metrics import Metric
from lossfit.compare.scoring.tasks import CARDS, KINDS
from lossfit.compare.verdict.summary import verdict
from lossfit.losses.single_label.base import SingleLabelLoss

VERDICTS = {"better": "#0b7a75", "undecided": "#8a8f98", "worse": "#b5432c"}
INK = "#16191d"
# Titles that are wider than a narrow chart grow to the left, where the names of the losses are.
AT_END = alt.Axis(titleAnchor="end")
MOST_COLOURED = len(page.LINES)


def build(passes: pl.DataFrame, summary: dict[str, Any]) -> dict[str, alt.TopLevelMixin]:
    """The charts by name, from the passes over the tested rows."""
    found = {
        "differences": all_differences(summary),
        "passes": by_pass(passes, summary),
        "trade_off": trade_off(summary),
        "cost": cost(summary),
    }
    if summary["labels"] == "single_label":
        found |= {
            "reliability": reliability(passes, summary),
            "risk_coverage": risk_coverage(passes, summary),
            **curves(summary),
        }
    return found


def options(metrics: dict[str, Metric]) -> dict[str, dict[str, Any]]:
    """What the charts say of each metric."""
    found = {}
    for name, card in metrics.items():
        unit, better = ", %" if card.percent else "", "right" if card.higher else "left"
        points = ", percentage points" if card.percent else ""
        found[name] = {
            "title": f"{card.title}{unit}",
            "test": f"{card.title} out of the folds{unit}",
            "phrase": wording.phrase(name),
            "change": [f"Difference in {wording.phrase(name)}{points}", f"95% interval; better is {better}"],
            "short": f"Difference in {wording.phrase(name)}{points}",
        }
    return found


def suggested(summary: dict[str, Any]) -> list[str]:
    """The losses that line charts colour: the reference, the five best and the worst two."""
    ranked = [e["loss"] for e in summary["losses"] if e["vs_cross_entropy"] is not None]
    others = [name for name in ranked if name != summary["reference"]]
    picked = others if len(others) < MOST_COLOURED else others[:5] + others[-2:]
    return [summary["reference"], *picked]


def differences(summary: dict[str, Any], *, width: int | str = "container", legend: bool = False) -> Any:
    """Mean difference in the asked metric with its 95% interval, coloured by the verdict."""
    metric = summary["metric"]
    title = options({metric: CARDS[metric]})[metric]["change"]
    records = _differences(summary, metric)
    found: alt.TopLevelMixin = interval_plot(records, title, width=width, legend=legend).properties(
        height=max(120, 24 * len(records))
    )
    return found


def all_differences(summary: dict[str, Any]) -> Any:
    """The same in the metric that is picked."""
    records = [
        r for metric in KINDS[summary["labels"]].measured(summary["metric"]) for r in _differences(summary, metric)
    ]
    return page.finished(
        interval_plot(records, "@metric.change"),
        f"For each loss, a dot for the measured difference to {wording.inline(summary['reference'])} and a line for "
        "its 95% interval, coloured by whether it is measurably better, worse or undecided.",
        {
            "loss": "Loss",
            "difference": "Difference",
            "low": "95% from",
            "high": "to",
            "verdict": "Measurably",
        },
        filters={"loss": "picked", "metric": "metric"},
        rows="loss",
    )


def _differences(summary: dict[str, Any], metric: str) -> list[dict[str, Any]]:
    factor = CARDS[metric].factor
    return [
        {
            "loss": wording.title(e["loss"]),
            "metric": metric,
            "difference": factor * e["differences"][metric]["difference"],
            "low": factor * e["differences"][metric]["ci95"][0],
            "high": factor * e["differences"][metric]["ci95"][1],
            "verdict": verdict(e["differences"][metric]),
        }
        for e in summary["losses"]
        if metric in e["differences"] and e["loss"] != summary["reference"]
    ]


def interval_plot(
    records: list[dict[str, Any]],
    title: str | list[str],
    *,
    of: str = "loss",
    width: int | str = "container",
    legend: bool = False,
) -> Any:
    """Dots with intervals, one row for each ``of``, in the order of the records."""
    tips = [alt.Tooltip(f"{name}:Q", format="+.3g") for name in ("difference", "low", "high")]
    base = alt.Chart(page.data(records)).encode(
        y=rows(of),
        color=alt.Color(
            "verdict:N",
            scale=alt.Scale(domain=list(VERDICTS), range=list(VERDICTS.values())),
            legend=alt.Legend(title=None, orient="top", direction="horizontal") if legend else None,
        ),
        tooltip=[f"{of}:N", *tips, "verdict:N"],
    )
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title, axis=AT_END), x2="high:Q")
    dots = base.mark_circle(size=80, opacity=1).encode(x="difference:Q")
    zero = alt.Chart(page.data([{}])).mark_rule(color=INK, strokeDash=[3, 3]).encode(x=alt.datum(0))
    found: Any = alt.layer(zero, bars, dots).properties(width=width)
    return found


def by_pass(passes: pl.DataFrame, summary: dict[str, Any]) -> Any:
    """The metric of every pass over the tested rows, and the mean."""
    metrics = KINDS[summary["labels"]].measured(summary["metric"])
    order = {e["loss"]: i for i, e in enumerate(summary["losses"])}
    each = passes.select("loss", "repeat", "pass", *(f"test_{name}" for name in metrics)).iter_rows(named=True)
    records = [
        {"loss": wording.title(row["loss"]), "repeat": row["repeat"] + 1, "pass": row["pass"] + 1}
        | {name: card.factor * row[f"test_{name}"] for name, card in metrics.items()}
        for row in sorted(each, key=lambda row: order[row["loss"]])
    ]
    base = alt.Chart(page.data(records)).encode(y=rows("loss"))
    axis = alt.X("@metric:Q", title="@metric.test", axis=AT_END)
    dots = base.mark_circle(size=34, opacity=0.4, color="#5f6b7a").encode(
        x=axis.scale(zero=False), tooltip=["loss:N", "repeat:Q", "pass:Q", alt.Tooltip("@metric:Q", format=".4g")]
    )
    means = base.mark_tick(thickness=3, size=16, color=INK).encode(x=alt.X("@metric:Q", aggregate="mean"))
    return page.finished(
        alt.layer(dots, means).properties(width="container"),
        "For each loss, a dot for the metric over all rows in each pass, and a bar for their mean.",
        {"loss": "Loss", "repeat": "Repeat", "pass": "Pass", "@metric": "Value"},
        filters={"loss": "picked"},
        rows="loss",
    )


def trade_off(summary: dict[str, Any]) -> Any:
    """One metric against another."""
    return _dots(
        summary,
        alt.X("@metric:Q", title="@metric.title", axis=alt.Axis(tickCount=6), scale=alt.Scale(zero=False, padding=24)),
        alt.Y("@against:Q", title="@against.title", scale=alt.Scale(zero=False, padding=20)),
        "A dot for each loss, one metric to the right and another upwards.",
        {"loss": "Loss", "@metric": "To the right", "@against": "Upwards"},
    )


def cost(summary: dict[str, Any]) -> Any:
    """What a training takes, against the metric; steps after training take nothing and are left out."""
    return _dots(
        summary,
        alt.X(
            "seconds:Q",
            title="Seconds of a training",
            axis=alt.Axis(tickCount=6),
            scale=alt.Scale(padding=24, domainMin=0),
        ),
        alt.Y("@metric:Q", title="@metric.title", scale=alt.Scale(zero=False, padding=20)),
        "A dot for each loss, the seconds that one training takes to the right and the metric upwards.",
        {"loss": "Loss", "seconds": "Seconds", "@metric": "Metric"},
        tuned=False,
    )


def _dots(
    summary: dict[str, Any], x: alt.X, y: alt.Y, description: str, columns: dict[str, str], *, tuned: bool = True
) -> Any:
    metrics = KINDS[summary["labels"]].measured(summary["metric"])
    records = [
        {
            "loss": wording.title(e["loss"]),
            "seconds": e["seconds_per_training"],
            **{name: card.factor * e["test"][name]["mean"] for name, card in metrics.items()},
        }
        for e in summary["losses"]
        if e["test"][summary["metric"]]["mean"] is not None and (tuned or not e["tuned"])
    ]
    tips = [alt.Tooltip(f"{field}:Q", format=".4g") for field in columns if field != "loss"]
    chart = (
        alt.Chart(page.data(records), width="container", height=320)
        .mark_circle(size=110, opacity=0.9)
        .encode(x=x, y=y, color=colours(summary), tooltip=["loss:N", *tips])
    )
    return page.finished(chart, description, columns, filters={"loss": "picked"}, colours=True)


def reliability(passes: pl.DataFrame, summary: dict[str, Any]) -> Any:
    """Accuracy against confidence, the tested rows of all passes pooled in 15 bins."""
    records = []
    for name in _whole(passes, summary):
        found = passes.filter(pl.col("loss") == name)
        count, confidence, hits = (
            found.select(pl.col(c).list.to_array(metrics.BINS)).to_series().to_numpy().sum(0)
            for c in ("bin_rows", "bin_confidence", "bin_hits")
        )
        records += [
            {"loss": wording.title(name), "confidence": float(c / n), "accuracy": float(h / n), "rows": int(n)}
            for n, c, h in zip(count, confidence, hits, strict=True)
            if n >= 5 * found.height  # a bin of a few rows says nothing
        ]
    share = alt.Axis(format="%")
    lines = (
        alt.Chart(page.data(records))
        .mark_line(point=alt.OverlayMarkDef(size=40), strokeWidth=2)
        .encode(
            x=alt.X("confidence:Q", title="Confidence", axis=share, scale=alt.Scale(domain=[0, 1])),
            y=alt.Y("accuracy:Q", title="Accuracy", axis=share, scale=alt.Scale(domain=[0, 1])),
            color=colours(summary),
            tooltip=[
                "loss:N",
                alt.Tooltip("confidence:Q", format=".1%"),
                alt.Tooltip("accuracy:Q", format=".1%"),
                "rows:Q",
            ],
        )
    )
    diagonal = (
        alt.Chart(page.data([{"x": 0, "y": 0}, {"x": 1, "y": 1}]))
        .mark_line(color="#9aa0a6", strokeDash=[4, 4])
        .encode(x="x:Q", y="y:Q")
    )
    return page.finished(
        alt.layer(diagonal, lines).properties(width="container", height=320),
        "For each loss, a line of the accuracy over the confidence; a dashed line where they are equal.",
        {"loss": "Loss", "confidence": "Confidence", "accuracy": "Accuracy", "rows": "Test rows"},
        filters={"loss": "picked"},
        colours=True,
    )


def risk_coverage(passes: pl.DataFrame, summary: dict[str, Any]) -> Any:
    """The error rate among the most confident rows, mean over passes."""
    records = []
    for name in _whole(passes, summary):
        risks = passes.filter(pl.col("loss") == name)["risks"].list.to_array(len(metrics.COVERAGES)).to_numpy().mean(0)
        records += [
            {"loss": wording.title(name), "coverage": c, "risk": r}
            for c, r in zip(metrics.COVERAGES, risks.tolist(), strict=True)
        ]
    chart = (
        alt.Chart(page.data(records), width="container", height=320)
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("coverage:Q", title="Share of rows answered, most confident first", axis=alt.Axis(format="%")),
            y=alt.Y("risk:Q", title="Error rate among them", axis=alt.Axis(format="%")),
            color=colours(summary),
            tooltip=["loss:N", alt.Tooltip("coverage:Q", format=".0%"), alt.Tooltip("risk:Q", format=".1%")],
        )
    )
    return page.finished(
        chart,
        "For each loss, a line of the error rate among the most confident test rows, over their share.",
        {"loss": "Loss", "coverage": "Share answered", "risk": "Error rate"},
        filters={"loss": "picked"},
        colours=True,
    )


def curves(summary: dict[str, Any]) -> dict[str, alt.TopLevelMixin]:
    """Value and sensitivity of the losses with the settings that did best."""
    drawn = {wording.title(e["loss"]): _make(e) for e in summary["losses"] if _has_curve(e["loss"])}
    found = {}
    shows: dict[str, Literal["loss", "sensitivity"]] = {"loss_curves": "loss", "sensitivities": "sensitivity"}
    for name, show in shows.items():
        lines = plot.chart(drawn, show, colors=[INK] * len(drawn), width="container", height=300)
        lines.data = page.data(lines.data["values"])
        found[name] = page.finished(
            lines,
            f"For each loss that is a function of one row, a line of its {show} over the probability of the target.",
            {"loss": "Loss", "x": "Probability of the target", "y": show.capitalize()},
            filters={"loss": "picked"},
            colours=True,
        )
    return found


def _whole(passes: pl.DataFrame, summary: dict[str, Any]) -> list[str]:
    """The losses that have a model in some split."""
    there = set(passes["loss"].unique())
    return [e["loss"] for e in summary["losses"] if e["loss"] in there]


def _has_curve(name: str) -> bool:
    """Whether a candidate has a loss of one row, which is not cross-entropy but for a weight or offset of its class."""
    candidate = candidates.candidate(name)
    weighted = candidate.tuned or any(h.endswith("_power") for h in candidate.search)
    return issubclass(registry.get(candidate.loss), SingleLabelLoss) and not weighted


def _make(entry: dict[str, Any]) -> SingleLabelLoss:
    loss = candidates.make_loss(candidates.candidate(entry["loss"]), **entry["params"])
    assert isinstance(loss, SingleLabelLoss)
    return loss


def rows(field: str) -> alt.Y:
    """A row for each value, in the order of the data."""
    axis = alt.Axis(ticks=False, domain=False, labelPadding=6, labelLimit=210, grid=True)
    return alt.Y(f"{field}:N", sort=None, title=None, axis=axis)


def colours(summary: dict[str, Any]) -> alt.Color:
    """The losses by colour; which ones have which, the page settles."""
    names = [wording.title(e["loss"]) for e in summary["losses"]]
    return alt.Color(
        "loss:N", sort=names, scale=alt.Scale(domain=names, range=[INK] * len(names)), legend=alt.Legend(**plot.LEGEND)
    )
