"""The page of a comparison at several levels of label noise."""

from __future__ import annotations

import math
from typing import Any

import altair as alt

from lossfit import page
from lossfit.compare.report import charts, wording
from lossfit.compare.scoring.tasks import CARDS, KINDS
from lossfit.compare.verdict.summary import verdict

_APART = 0.03


def render(summaries: list[dict[str, Any]], folders: list[str]) -> str:
    """From the summaries of the levels, in ascending order, and where their reports are, as relative addresses."""
    first = summaries[0]
    family, metric = first["labels"], first["metric"]
    metrics = KINDS[family].measured(metric)
    about = charts.options(metrics)
    ranked = by_mean(summaries, metric)
    return page.render(
        "noise.html.j2",
        {"means": _means(summaries, ranked), "changes": _changes(summaries, ranked)},
        losses=[wording.title(name) for name in ranked],
        suggested=[wording.title(name) for name in _suggested(ranked, first["reference"])],
        options={"metric": about},
        summaries=summaries,
        folders=folders,
        first=first,
        metrics=metrics,
        metric_choices=[(name, card.title) for name, card in metrics.items()],
        cells=[_cells(summary, ranked, metric) for summary in summaries],
        ranked=ranked,
        answers=[wording.answer(summary) for summary in summaries],
        words=wording,
    )


def interval(entry: dict[str, Any], metric: str) -> tuple[float, float, float] | None:
    """The estimate with its 95% interval; None if the loss failed."""
    mean, ends = entry["test"][metric]["mean"], entry["test"][metric]["ci95"]
    return None if mean is None else (mean, ends[0], ends[1])


def by_mean(summaries: list[dict[str, Any]], metric: str) -> list[str]:
    """The losses, the best on average over the levels first; those that failed at a level last."""
    sign = -1 if CARDS[metric].higher else 1
    values: dict[str, list[float]] = {}
    for summary in summaries:
        for entry in summary["losses"]:
            mean = entry["test"][metric]["mean"]
            values.setdefault(entry["loss"], []).append(math.inf if mean is None else sign * mean)
    return sorted(values, key=lambda name: sum(values[name]) / len(values[name]))


def _suggested(ranked: list[str], reference: str) -> list[str]:
    others = [name for name in ranked if name != reference]
    return [reference, *(others if len(others) < charts.MOST_COLOURED else others[:5] + others[-2:])]


def _means(summaries: list[dict[str, Any]], ranked: list[str]) -> Any:
    records = []
    for summary, name, entry in _entries(summaries, ranked):
        for metric, card in KINDS[summary["labels"]].measured(summary["metric"]).items():
            found = interval(entry, metric)
            if found is not None:
                mean, low, high = (card.factor * v for v in found)
                records.append(_record(name, summary, metric) | {"mean": mean, "low": low, "high": high})
    return _lines(
        records,
        "mean",
        "@metric.test",
        ranked,
        "For each loss, a line of its mean metric over the share of wrong training labels, with 95% intervals.",
        {"loss": "Loss", "noise": "Label noise", "mean": "Mean", "low": "95% from", "high": "to"},
    )


def _changes(summaries: list[dict[str, Any]], ranked: list[str]) -> Any:
    records = []
    for summary, name, entry in _entries(summaries, ranked):
        for metric, difference in entry["differences"].items():
            factor = CARDS[metric].factor
            numbers = {"difference": difference["difference"], "low": difference["ci95"][0]}
            numbers |= {"high": difference["ci95"][1]}
            told = {k: factor * v for k, v in numbers.items()} | {"verdict": verdict(difference)}
            records.append(_record(name, summary, metric) | told)
    return _lines(
        records,
        "difference",
        "@metric.short",
        ranked,
        "For each loss, a line of its mean difference to the reference over the share of wrong training labels, with "
        "95% intervals.",
        {
            "loss": "Loss",
            "noise": "Label noise",
            "difference": "Difference",
            "low": "95% from",
            "high": "to",
            "verdict": "Measurably",
        },
    )


def _entries(summaries: list[dict[str, Any]], ranked: list[str]) -> list[tuple[dict[str, Any], str, dict[str, Any]]]:
    found = []
    for summary in summaries:
        by_name = {e["loss"]: e for e in summary["losses"]}
        found += [(summary, name, by_name[name]) for name in ranked if name in by_name]
    return found


def _record(name: str, summary: dict[str, Any], metric: str) -> dict[str, Any]:
    return {"loss": wording.title(name), "noise": summary["label_noise"], "metric": metric}


def _lines(
    records: list[dict[str, Any]], y: str, title: str, ranked: list[str], description: str, columns: dict[str, str]
) -> Any:
    tips = [alt.Tooltip(f"{name}:Q", format=".4g") for name in (y, "low", "high")]
    names = [wording.title(name) for name in ranked]
    levels = sorted({r["noise"] for r in records})
    # Side by side, so that intervals do not cover each other.
    reach = _APART * (levels[-1] - levels[0])
    for record in records:
        record["at"] = record["noise"] + reach * (names.index(record["loss"]) / max(len(names) - 1, 1) - 0.5)
    base = alt.Chart(page.data(records)).encode(
        x=alt.X(
            "at:Q",
            title="Share of training labels that are wrong",
            axis=alt.Axis(format=".3~%", values=levels),
            scale=alt.Scale(nice=False, zero=False, padding=16),
        ),
        color=alt.Color(
            "loss:N",
            sort=names,
            scale=alt.Scale(domain=names, range=[charts.INK] * len(names)),
            legend=alt.Legend(title=None, orient="bottom", columns=4, labelLimit=220, symbolOpacity=1),
        ),
        tooltip=["loss:N", alt.Tooltip("noise:Q", format=".3~%"), *tips],
    )
    bars = base.mark_rule(opacity=0.5).encode(y=alt.Y("low:Q", title=title, scale=alt.Scale(zero=False)), y2="high:Q")
    lines = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=50)).encode(y=f"{y}:Q")
    filters = {"loss": "picked", "metric": "metric"}
    layers = alt.layer(bars, lines).properties(width="container", height=380)
    return page.finished(layers, description, columns, filters=filters, colours=True)


def _cells(summary: dict[str, Any], ranked: list[str], metric: str) -> dict[str, tuple[str, str, str]]:
    """By loss: the mean, the difference to the reference, and its verdict."""
    found = {}
    for name, entry in ((e["loss"], e) for e in summary["losses"]):
        versus = entry["vs_cross_entropy"]
        change = "" if versus is None or name == summary["reference"] else wording.change(versus["difference"], metric)
        found[name] = wording.number(entry["test"][metric]["mean"], metric), change, verdict(versus)
    return found
