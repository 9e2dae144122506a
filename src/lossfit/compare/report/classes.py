"""The report's views of the classes: which ones a loss wins and loses, and which are taken for which."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import altair as alt
import numpy as np
import polars as pl

from lossfit import page
from lossfit.compare.report import charts, wording
from lossfit.compare.scoring.class_counts import MOST_CLASSES
from lossfit.compare.verdict import rule, stats

MEASURES = {
    name: {"change": [f"Difference in {phrase} of the class, percentage points", "95% interval; better is right"]}
    for name, phrase in (("f1", "F1"), ("recall", "recall"), ("precision", "precision"))
}
MOST_ROWS = 40
"""Up to as many classes, the chart has all; above, those with the largest differences to either side."""
_EACH_SIDE = 15
_LISTED = 15
_LABELLED = 12
_NAMED = 5


class Side(NamedTuple):
    """What a loss wins or loses: the first few classes with their change, and how many more there are."""

    named: list[tuple[str, str]]
    more: int


@dataclass(frozen=True)
class View:
    """What the template shows.

    Attributes:
        charts: of the differences, and of the confusions where there are few classes.
        losses: names of those with differences.
        first: the one to begin with.
        wins: of each loss, the classes it wins and loses in F1 by the rule's test.
        cut: whether the chart leaves classes out.
        confused: of each loss the most frequent confusions, as actual, predicted, rows and share of the actual class.
        cells: classes of the matrix of confusions, 0 without one.
    """

    charts: dict[str, alt.TopLevelMixin] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)
    first: str = ""
    wins: list[tuple[str, Side, Side]] = field(default_factory=list)
    cut: bool = False
    confused: dict[str, list[tuple[str, str, str, str]]] = field(default_factory=dict)
    cells: int = 0


def view(best: pl.DataFrame, summary: dict[str, Any]) -> View:
    """From the chosen trainings; empty for results of a version that did not count by class."""
    if "class_hits" not in best.columns:
        return View()
    reference, names = summary["reference"], list(summary["data"]["classes"])
    found = {e["loss"]: measures(best, e["loss"], summary) for e in summary["losses"]}
    if reference not in found or not np.isfinite(found[reference]["recall"]).any():
        return View()
    compared = [e["loss"] for e in summary["losses"] if e["loss"] != reference]
    records, wins, cut = [], [], len(names) > MOST_ROWS
    for loss in compared:
        for measure in MEASURES:
            rows = list(_differences(loss, measure, found, reference, summary["data"]["classes"]))
            if measure == "f1":
                wins.append((wording.title(loss), _side(rows, "better"), _side(rows, "worse")))
            if cut:
                rows.sort(key=lambda r: -r["difference"])
                rows = rows if len(rows) <= 2 * _EACH_SIDE else rows[:_EACH_SIDE] + rows[-_EACH_SIDE:]
            records += rows
    recommended = summary["recommended"]["loss"]
    first = wording.title(recommended if recommended != reference else next(iter(compared), reference))
    confusions = _confusions(best, summary) if "confused_rows" in best.columns else {}
    return View(
        ({"by_class": _chart(records, reference)} if records else {})
        | ({"confusion": _matrix(confusions, names)} if confusions and len(names) <= MOST_CLASSES else {}),
        [wording.title(loss) for loss in compared],
        first,
        wins,
        cut,
        {loss: _listed(pairs) for loss, pairs in confusions.items()},
        len(names) if confusions and len(names) <= MOST_CLASSES else 0,
    )


def measures(best: pl.DataFrame, loss: str, summary: dict[str, Any]) -> dict[str, np.ndarray]:
    """Recall, precision and F1 of each class in each split, (J, C); NaN where the split has no such row.

    A class that is never predicted has precision 0.
    """
    shape = summary["splits"], len(summary["data"]["classes"])
    hits, predicted, actual = (np.full(shape, np.nan) for _ in range(3))
    for row in best.filter((pl.col("loss") == loss) & pl.col("class_hits").is_not_null()).iter_rows(named=True):
        for table, column in ((hits, "class_hits"), (predicted, "class_predicted"), (actual, "class_rows")):
            table[row["split"]] = row[column]
    there = actual > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, f1 = hits / actual, 2 * hits / (predicted + actual)
        precision = np.where(predicted > 0, hits / predicted, 0.0)
    return {name: np.where(there, v, np.nan) for name, v in (("f1", f1), ("recall", recall), ("precision", precision))}


class Differences(NamedTuple):
    """By column: the mean, its 95% interval, and the p-value by the rule's test, adjusted over the columns."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_value: np.ndarray


def differences(values: np.ndarray) -> Differences:
    """The corrected resampled t-test of each column of (J, C), over the splits in which it is not NaN.

    All are NaN where there are fewer than 2. p-values are adjusted by Holm's method over the columns.
    """
    count = np.isfinite(values).sum(0)
    enough = count > 1
    total = np.maximum(count, 2)
    mean = np.nansum(values, 0) / total
    variance = np.nansum((values - mean) ** 2, 0) / (total - 1)
    mean, variance = (np.where(enough, v, np.nan) for v in (mean, variance))
    reach, _ = stats.t_test(mean, np.sqrt((1 / total + rule.TEST_TO_TRAIN) * variance), total - 1)
    _, p = stats.t_test(mean, np.sqrt((1 / total + rule.SHARED) * variance), total - 1)
    adjusted = np.full(len(p), np.nan)
    adjusted[enough] = stats.holm(p[enough].tolist())
    return Differences(mean, mean - reach, mean + reach, adjusted)


def _differences(
    loss: str, measure: str, found: dict[str, dict[str, np.ndarray]], reference: str, classes: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """A record for each class, the largest class first."""
    own, base = found[loss][measure], found[reference][measure]
    names, counts = list(classes), list(classes.values())
    both = np.isfinite(own) & np.isfinite(base)
    tested = differences(100 * (own - base))
    for c in sorted(range(len(names)), key=lambda c: -counts[c]):
        if not np.isfinite(tested.mean[c]):
            continue
        yield {
            "loss": wording.title(loss),
            "measure": measure,
            "class": names[c],
            "difference": float(tested.mean[c]),
            "low": float(tested.low[c]),
            "high": float(tested.high[c]),
            "verdict": rule.verdict(tested.mean[c], tested.p_value[c]),
            "value": float(100 * own[both[:, c], c].mean()),
            "reference": float(100 * base[both[:, c], c].mean()),
        }


def _side(rows: list[dict[str, Any]], verdict: str) -> Side:
    found = sorted((r for r in rows if r["verdict"] == verdict), key=lambda r: -abs(r["difference"]))
    named = [(r["class"], f"{r['difference']:+.1f}".replace("-", "\N{MINUS SIGN}")) for r in found[:_NAMED]]
    return Side(named, len(found) - len(named))


def _chart(records: list[dict[str, Any]], reference: str) -> Any:
    return page.finished(
        charts.interval_plot(records, "@measure.change", of="class"),
        f"For each class, a dot for the mean difference of the chosen loss to {wording.inline(reference)} and a line "
        "for its 95% interval, coloured by whether it is measurably better, worse or undecided.",
        {
            "class": "Class",
            "value": "Loss, %",
            "reference": f"{wording.title(reference)}, %",
            "difference": "Difference",
            "low": "95% from",
            "high": "to",
            "verdict": "By the rule's test",
        },
        filters={"loss": "loss", "measure": "measure"},
        rows="class",
    )


class Pair(NamedTuple):
    """Rows of one class that were predicted as another or the same, over all splits, and their share of the class."""

    actual: str
    predicted: str
    rows: float
    share: float


def _confusions(best: pl.DataFrame, summary: dict[str, Any]) -> dict[str, list[Pair]]:
    """Of each loss, the pairs that occur, right ones included."""
    names = list(summary["data"]["classes"])
    found = {}
    for entry in summary["losses"]:
        counts: dict[tuple[int, int], float] = {}
        actual = np.zeros(len(names))
        chosen = best.filter((pl.col("loss") == entry["loss"]) & pl.col("class_hits").is_not_null())
        for row in chosen.iter_rows(named=True):
            actual += np.array(row["class_rows"])
            pairs = [(c, c, n) for c, n in enumerate(row["class_hits"]) if n]
            columns = (row["confused_actual"], row["confused_predicted"], row["confused_rows"])
            for a, p, n in pairs + list(zip(*columns, strict=True)):
                counts[a, p] = counts.get((a, p), 0) + n
        if counts:
            found[wording.title(entry["loss"])] = [
                Pair(names[a], names[p], n, float(n / actual[a])) for (a, p), n in sorted(counts.items())
            ]
    return found


def _matrix(confusions: dict[str, list[Pair]], names: list[str]) -> Any:
    """Rows are the actual classes, normalised; both axes in the order of the classes."""
    # Which classes there are, and in which order, is in the data: names are not for the specification.
    order = {name: i for i, name in enumerate(names)}
    records = []
    for loss, pairs in confusions.items():
        right = {pair.actual for pair in pairs if pair.actual == pair.predicted}
        every = [*pairs, *(Pair(name, name, 0.0, 0.0) for name in names if name not in right)]
        for pair in sorted(every, key=lambda pair: (order[pair.actual], order[pair.predicted])):
            places = {"at": order[pair.actual], "told": order[pair.predicted]}
            records.append({"loss": loss, **pair._asdict(), "right": pair.actual == pair.predicted, **places})
    step = 26 if len(names) > _LABELLED else 34
    labels = alt.Axis(labelAngle=-45 if len(names) > 4 else 0, labelLimit=110, ticks=False, domain=False)
    base = alt.Chart(page.data(records)).encode(
        x=alt.X("predicted:N", sort=alt.EncodingSortField("told", op="min"), title="Predicted", axis=labels),
        y=alt.Y(
            "actual:N",
            sort=alt.EncodingSortField("at", op="min"),
            title="Actual",
            axis=alt.Axis(ticks=False, domain=False, labelLimit=110),
        ),
        tooltip=[
            "actual:N",
            "predicted:N",
            alt.Tooltip("share:Q", format=".1%"),
            alt.Tooltip("rows:Q", format=",.4~g"),
        ],
    )
    cells = base.mark_rect().encode(
        color=alt.Color(
            "right:N",
            scale=alt.Scale(domain=[True, False], range=[charts.VERDICTS["better"], charts.VERDICTS["worse"]]),
        ).legend(None),
        opacity=alt.Opacity("share:Q", scale=alt.Scale(type="sqrt", domain=[0, 1], range=[0, 0.5]), legend=None),
    )
    parts = [cells]
    if len(names) <= _LABELLED:
        parts.append(base.mark_text(fontSize=11, color=charts.INK).encode(text=alt.Text("share:Q", format=".0%")))
    return page.finished(
        alt.layer(*parts).properties(width="container"),
        "A table of the actual classes, as rows, and the predicted ones, as columns: the share of the row's class.",
        {"actual": "Actual", "predicted": "Predicted", "rows": "Rows", "share": "Share of the actual class"},
        filters={"loss": "confused"},
        rows="actual",
        step=step,
    )


def _listed(pairs: list[Pair]) -> list[tuple[str, str, str, str]]:
    """The most frequent confusions."""
    wrong = sorted((pair for pair in pairs if pair.actual != pair.predicted), key=lambda pair: -pair.rows)[:_LISTED]
    return [(pair.actual, pair.predicted, f"{pair.rows:,.4g}", f"{100 * pair.share:.1f}") for pair in wrong]
