"""The page that sets two finished comparisons side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from lossfit import page
from lossfit.compare.errors import InputError
from lossfit.compare.report import charts, wording
from lossfit.compare.running import finished
from lossfit.compare.scoring.metrics import Metric
from lossfit.compare.scoring.tasks import CARDS, KINDS
from lossfit.compare.verdict import claims, stats
from lossfit.compare.verdict.summary import verdict

FILES = ("plan.json", "summary.json", "passes.parquet")
_SAME_ROWS = (
    *("data", "lossfit", "seed", "target", "votes", "group", "weight", "test", "test_column", "max_rows"),
    *("impute", "folds"),
)
"""What decides which rows are tested out of which folds."""
LEVEL = 0.05
"""Of the verdicts on all losses together."""


@dataclass(frozen=True)
class Run:
    """A finished comparison.

    Attributes:
        name: what to call it.
        plan, summary: the contents of its files.
        passes: over the tested rows.
    """

    name: str
    plan: dict[str, Any]
    summary: dict[str, Any]
    passes: pl.DataFrame

    def of(self, loss: str) -> pl.DataFrame:
        """The passes of a loss, in their order."""
        return self.passes.filter(pl.col("loss") == loss).sort("repeat", "pass")

    def entry(self, loss: str) -> dict[str, Any]:
        """What the summary says of a loss."""
        found: dict[str, Any] = next(e for e in self.summary["losses"] if e["loss"] == loss)
        return found


def read_run(folder: Path, name: str | None = None) -> Run:
    """The comparison in a folder.

    Raises:
        InputError: there is none, it is not finished, of an earlier version, or its files cannot be read.
    """
    missing = [file for file in FILES if not (folder / file).is_file()]
    if missing:
        raise InputError(f"Expected {str(folder)!r} to hold a finished comparison, but there is no {missing[0]}.")
    _, plan = finished.read_plan(folder)
    summary = finished.read_summary(folder)
    return Run(name or str(folder), plan, summary, finished.read_passes(folder, summary))


def paired(first: Run, second: Run) -> str:
    """What keeps two runs from testing the same rows out of the same folds, or nothing."""
    different = [key for key in _SAME_ROWS if first.plan.get(key) != second.plan.get(key)]
    return ", ".join(key.replace("_", " ") for key in different)


class Change(NamedTuple):
    """Second minus first: the mean, its standard error, its 95% interval and the p-value."""

    mean: float
    low: float
    high: float
    p_value: float


def change(first: Run, second: Run, loss: str, metric: str, *, same_rows: bool) -> Change | None:
    """The difference of a metric between two runs, None if a loss failed in one.

    On the same rows and folds by the difference of what each row does to the metric, and by the spread of the passes
    that both have; else by the intervals of the two.
    """
    if same_rows:
        own = [
            run.of(loss).select("repeat", "pass", f"test_{metric}", f"influence_{metric}") for run in (first, second)
        ]
        both = own[0].join(own[1], on=["repeat", "pass"], suffix="_second")
        if not both.height:
            return None
        each = (both[f"test_{metric}_second"] - both[f"test_{metric}"]).to_numpy()
        rows = np.array(both[f"influence_{metric}_second"].to_list()) - np.array(both[f"influence_{metric}"].to_list())
        rows, n = rows.mean(0), rows.shape[1]
        # Two passes share a training.
        trainings = 2 * each.var(ddof=1) / len(each) if len(each) > 1 else 0.0
        mean, error = float(each.mean()), math.sqrt((rows**2).sum() / (n * (n - 1)) + trainings)
    else:
        a, b = (run.entry(loss)["test"][metric] for run in (first, second))
        if a["mean"] is None or b["mean"] is None:
            return None
        per_error = float(claims.reach(np.array(1.0)))
        errors = [(of["ci95"][1] - of["ci95"][0]) / 2 / per_error for of in (a, b)]
        mean, error = b["mean"] - a["mean"], math.hypot(*errors)
    reach, p = stats.t_test(mean, error, claims.DEGREES)
    return Change(mean, mean - float(reach), mean + float(reach), float(p))


def render(first: Run, second: Run) -> str:
    """The page."""
    same_kind = first.summary["labels"] == second.summary["labels"]
    obstacle = paired(first, second)
    losses = _common(first, second) if same_kind else []
    records = _records(first, second, losses, same_rows=not obstacle)
    metric = first.summary["metric"]
    metrics = _measured(first, second)
    return page.render(
        "diff.html.j2",
        {"changes": _chart(records)} if records else {},
        losses=[wording.title(name) for name in losses],
        suggested=[wording.title(name) for name in losses],
        options={"metric": _options(metrics)},
        first=first,
        second=second,
        answers=[wording.answer(run.summary)[0] for run in (first, second)],
        obstacle=obstacle,
        facts=facts(first, second),
        verdicts=_verdicts(first, second) if same_kind else [],
        sure=[r for r in records if r["metric"] == metric and r["verdict"] != "undecided"],
        rows=[_row(name, first, second, records, metric) for name in losses],
        metric=CARDS[metric],
        metric_choices=[(name, card.title) for name, card in metrics.items()],
        chosen_metric=metric,
        words=wording,
    )


def _options(metrics: dict[str, Metric]) -> dict[str, dict[str, Any]]:
    return {
        name: about
        | {"change": [about["change"][0], f"second minus first, 95% interval; {about['change'][1].split('; ')[1]}"]}
        for name, about in charts.options(metrics).items()
    }


def _measured(first: Run, second: Run) -> dict[str, Metric]:
    """The metrics that both have."""
    kind = KINDS[first.summary["labels"]]
    asked = {run.summary["metric"] for run in (first, second)}
    return kind.measured(*asked) if len(asked) == 1 else kind.metrics


def _common(first: Run, second: Run) -> list[str]:
    there = {e["loss"] for e in first.summary["losses"]}
    return [e["loss"] for e in second.summary["losses"] if e["loss"] in there]


def _records(first: Run, second: Run, losses: list[str], *, same_rows: bool) -> list[dict[str, Any]]:
    records = []
    for metric in _measured(first, second) if losses else ():
        found = [(name, change(first, second, name, metric, same_rows=same_rows)) for name in losses]
        tested = [(name, c) for name, c in found if c is not None]
        factor = CARDS[metric].factor
        for (name, c), p in zip(tested, stats.holm([c.p_value for _, c in tested]), strict=True):
            records.append(
                {
                    "loss": wording.title(name),
                    "metric": metric,
                    "difference": factor * c.mean,
                    "low": factor * c.low,
                    "high": factor * c.high,
                    "verdict": _side(c.mean, p, higher=CARDS[metric].higher),
                }
            )
    return records


def _side(mean: float, p_value: float, *, higher: bool) -> str:
    """Whether a difference is "better", "worse" or "undecided", at :data:`LEVEL`."""
    if p_value > LEVEL or mean == 0:
        return "undecided"
    return "better" if (mean > 0) == higher else "worse"


def _chart(records: list[dict[str, Any]]) -> Any:
    return page.finished(
        charts.interval_plot(records, "@metric.change"),
        "For each loss, a dot for the mean of the second run minus that of the first and a line for its 95% interval.",
        {
            "loss": "Loss",
            "difference": "Second minus first",
            "low": "95% from",
            "high": "to",
            "verdict": "Second is",
        },
        filters={"loss": "picked", "metric": "metric"},
        rows="loss",
    )


def facts(first: Run, second: Run) -> list[tuple[str, str, str]]:
    """What differs in what was asked for, in the data and in the versions: name, first, second."""
    pairs = [(key.replace("_", " "), run_a, run_b) for key, run_a, run_b in _both(first.plan, second.plan)]
    for key in ("rows", "classes", "notes"):
        a, b = (run.summary["data"].get(key) for run in (first, second))
        pairs += [(f"{key} of the data", a, b)] if a != b else []
    versions = (run.summary.get("versions", {}) for run in (first, second))
    pairs += [(f"version of {key}", a, b) for key, a, b in _both(*versions) if key != "lossfit"]
    for key in ("model", "trainings", "failed_trainings", "seconds"):
        a, b = (run.summary.get(key) for run in (first, second))
        pairs += [(key.replace("_", " "), a, b)] if a != b else []
    known: dict[str, tuple[str, str, str]] = {}
    for name, a, b in pairs:
        known.setdefault(name, (name, _told(a), _told(b)))
    return list(known.values())


def _both(first: dict[str, Any], second: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    keys = list(dict.fromkeys([*first, *second]))
    return [(key, first.get(key), second.get(key)) for key in keys if first.get(key) != second.get(key)]


def _told(value: Any) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{k} ({v:,})" if isinstance(v, int) else f"{k}: {v}" for k, v in value.items())
    if isinstance(value, list):
        return " ".join(str(v) for v in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _verdicts(first: Run, second: Run) -> list[tuple[str, str, str]]:
    """The losses that the two runs judge differently against their reference, each by the metric it was asked for."""
    sides = [{e["loss"]: verdict(e["vs_cross_entropy"]) for e in run.summary["losses"]} for run in (first, second)]
    names = [name for name in sides[1] if name in sides[0] and sides[0][name] != sides[1][name]]
    return [(wording.title(name), sides[0][name], sides[1][name]) for name in names]


def _row(
    name: str, first: Run, second: Run, records: list[dict[str, Any]], metric: str
) -> tuple[str, str, str, str, str, str]:
    """Name, first mean, second mean, change, interval and verdict."""
    means = []
    for run in (first, second):
        entry = next(e for e in run.summary["losses"] if e["loss"] == name)
        means.append(wording.number(entry["test"][metric]["mean"], metric))
    own = [r for r in records if r["metric"] == metric and r["loss"] == wording.title(name)]
    if not own:
        return wording.title(name), means[0], means[1], "", "", "undecided"
    factor = CARDS[metric].factor
    numbers = [wording.change(own[0][key] / factor, metric) for key in ("difference", "low", "high")]
    return wording.title(name), means[0], means[1], numbers[0], f"{numbers[1]} to {numbers[2]}", own[0]["verdict"]
