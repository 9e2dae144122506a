"""The report's views of the classes: which ones a loss wins and loses, and which are taken for which."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import altair as alt
import numpy as np

from lossfit import page
from lossfit.compare.outcome import Outcome
from lossfit.compare.report import charts, wording
from lossfit.compare.scoring import class_counts
from lossfit.compare.scoring.class_counts import Counted
from lossfit.compare.verdict import stats
from lossfit.compare.verdict.claims import DEGREES

MEASURES = {
    name: {"change": [f"Difference in {phrase} of the class, percentage points", "95% interval; better is right"]}
    for name, phrase in (("f1", "F1"), ("recall", "recall"), ("precision", "precision"))
}
LEVEL = 0.05
"""Of the verdicts on the classes of one loss together."""
MOST_CLASSES = 30
"""Up to as many classes, all confusions are shown as a table."""
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
        wins: of each loss, the classes it wins and loses in F1, measurably.
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


def view(outcome: Outcome, summary: dict[str, Any]) -> View:
    """From the predictions out of the folds; empty if the reference failed."""
    reference, names = summary["reference"], list(summary["data"]["classes"])
    counted = _Counts(outcome)
    if not counted.passes(reference):
        return View()
    losses = [e["loss"] for e in summary["losses"] if counted.passes(e["loss"])]
    compared = [loss for loss in losses if loss != reference]
    records, wins, cut = [], [], len(names) > MOST_ROWS
    for loss in compared:
        for measure in MEASURES:
            rows = list(_differences(loss, measure, counted, reference, summary["data"]["classes"]))
            if measure == "f1":
                wins.append((wording.title(loss), _side(rows, "better"), _side(rows, "worse")))
            if cut:
                rows.sort(key=lambda r: -r["difference"])
                rows = rows if len(rows) <= 2 * _EACH_SIDE else rows[:_EACH_SIDE] + rows[-_EACH_SIDE:]
            records += rows
    advised = summary["advised"]["loss"]
    first = wording.title(advised if advised != reference else next(iter(compared), reference))
    confusions = _confusions(counted, losses, names) if summary["labels"] == "single_label" else {}
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


class _Counts:
    """What was counted of each loss, once."""

    def __init__(self, outcome: Outcome) -> None:
        data, rows = outcome.data, outcome.folds.tested
        self.classes = len(data.classes)
        self.labels = data.labels[rows]
        self.actual = class_counts.one_hot(self.labels, self.classes)
        self.weight = None if data.weight is None else data.weight[rows]
        self.groups = None if data.groups is None else data.groups[rows]
        self.predicted: dict[str, list[np.ndarray]] = {}
        if outcome.passes.width:
            for loss, each in outcome.passes.select("loss", "predicted").iter_rows():
                self.predicted.setdefault(loss, []).append(np.array(each))
        self.known: dict[tuple[str, int], Counted] = {}

    def passes(self, loss: str) -> int:
        return len(self.predicted.get(loss, ()))

    def of(self, loss: str, passes: int) -> Counted:
        """In the first passes."""
        if (loss, passes) not in self.known:
            each = (p.reshape(self.labels.shape) for p in self.predicted[loss][:passes])
            told = [class_counts.one_hot(p, self.classes) for p in each]
            self.known[loss, passes] = class_counts.count(self.actual, told, self.weight)
        return self.known[loss, passes]


def _differences(
    loss: str, measure: str, counted: _Counts, reference: str, classes: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """A record for each class that is tested, the largest class first."""
    shared = min(counted.passes(loss), counted.passes(reference))
    own, base = counted.of(loss, shared), counted.of(reference, shared)
    found = class_counts.difference(own, base, measure, counted.groups)
    reach, p = stats.t_test(found.mean, found.error, DEGREES)
    there = np.isfinite(found.mean)
    adjusted = np.ones(len(p))
    adjusted[there] = stats.holm(p[there].tolist())
    names, counts = list(classes), list(classes.values())
    for c in sorted(np.flatnonzero(there).tolist(), key=lambda c: -counts[c]):
        mean, ends = 100 * float(found.mean[c]), 100 * float(reach[c])
        sure = adjusted[c] <= LEVEL and mean != 0
        yield {
            "loss": wording.title(loss),
            "measure": measure,
            "class": names[c],
            "difference": mean,
            "low": mean - ends,
            "high": mean + ends,
            "verdict": ("better" if mean > 0 else "worse") if sure else "undecided",
            "value": float(100 * own.values[measure][:, c].mean()),
            "reference": float(100 * base.values[measure][:, c].mean()),
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
            "verdict": "Measurably",
        },
        filters={"loss": "loss", "measure": "measure"},
        rows="class",
    )


class Pair(NamedTuple):
    """Rows of one class that were predicted as another or the same, in a pass on average, and their share of the
    class.
    """

    actual: str
    predicted: str
    rows: float
    share: float


def _confusions(counted: _Counts, losses: list[str], names: list[str]) -> dict[str, list[Pair]]:
    """Of each loss, the pairs that occur over all passes, right ones included."""
    found = {}
    for loss in losses:
        passes = counted.predicted[loss]
        pairs = np.concatenate([counted.labels * counted.classes + p for p in passes])
        weight = None if counted.weight is None else np.tile(counted.weight, len(passes))
        rows = np.bincount(pairs, weight, counted.classes**2).reshape(counted.classes, -1) / len(passes)
        actual = rows.sum(1)
        found[wording.title(loss)] = [
            Pair(names[a], names[p], float(rows[a, p]), float(rows[a, p] / actual[a])) for a, p in np.argwhere(rows > 0)
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
