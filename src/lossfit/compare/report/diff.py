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
from lossfit.compare.scoring.tasks import CARDS, KINDS
from lossfit.compare.verdict import finished, rule, stats
from lossfit.compare.verdict.summary import chosen, verdict

FILES = ("plan.json", "summary.json", "results.parquet")
_SAME_SPLITS = (
    *("data", "lossfit", "seed", "target", "votes", "group", "weight", "test", "test_column", "max_rows"),
    "impute",
)
"""What splits are drawn from. With groups also how many there are, as they are cut to one size."""


@dataclass(frozen=True)
class Run:
    """A finished comparison.

    Attributes:
        name: what to call it.
        plan, summary: the contents of its files.
        best: the chosen trainings.
    """

    name: str
    plan: dict[str, Any]
    summary: dict[str, Any]
    best: pl.DataFrame

    def values(self, loss: str, metric: str) -> np.ndarray:
        """On the test rows of each split, NaN where the loss failed or is not there."""
        found = np.full(self.summary["splits"], np.nan)
        rows = self.best.filter(pl.col("loss") == loss)
        found[rows["split"].to_numpy()] = rows[f"test_{metric}"].to_numpy()
        return found


def read(folder: Path, name: str | None = None) -> Run:
    """The comparison in a folder.

    Raises:
        InputError: there is none, it is not finished, or its files cannot be read.
    """
    missing = [file for file in FILES if not (folder / file).is_file()]
    if missing:
        raise InputError(f"Expected {str(folder)!r} to hold a finished comparison, but there is no {missing[0]}.")
    _, plan = finished.read_plan(folder)
    summary = finished.read_summary(folder)
    results = finished.read_results(folder, summary)
    return Run(name or str(folder), plan, summary, chosen(results, summary["metric"]))


def paired(first: Run, second: Run) -> str:
    """What keeps two runs from having the same splits, or nothing."""
    keys = [*_SAME_SPLITS, *(["splits"] if first.plan.get("group") else [])]
    different = [key for key in keys if first.plan.get(key) != second.plan.get(key)]
    return ", ".join(key.replace("_", " ") for key in different)


class Change(NamedTuple):
    """Second minus first: the mean with its 95% interval, and the p-value by the rule's ratio."""

    mean: float
    low: float
    high: float
    p_value: float


def change(first: np.ndarray, second: np.ndarray, *, same_splits: bool) -> Change | None:
    """The difference of a metric between two runs, None if a loss has fewer than 2 splits.

    On the same splits by the corrected resampled t-test of the differences within them, over the splits that both
    have. Else by Welch's t-test, with the same correction of each variance.
    """
    if same_splits:
        count = min(len(first), len(second))
        d = second[:count] - first[:count]
        d = d[np.isfinite(d)]
        if len(d) < 2:
            return None
        found = stats.paired_difference(d, rule.TEST_TO_TRAIN)
        return Change(found.mean, found.low, found.high, stats.paired_difference(d, rule.SHARED).p_value)
    a, b = first[np.isfinite(first)], second[np.isfinite(second)]
    if min(len(a), len(b)) < 2:
        return None
    mean = float(b.mean() - a.mean())
    low, high, _ = _welch(mean, a, b, rule.TEST_TO_TRAIN)
    return Change(mean, low, high, _welch(mean, a, b, rule.SHARED)[2])


def _welch(mean: float, a: np.ndarray, b: np.ndarray, ratio: float) -> tuple[float, float, float]:
    parts = [(1 / len(v) + ratio) * float(v.var(ddof=1)) for v in (a, b)]
    error = math.sqrt(sum(parts))
    spread = sum(part**2 / (len(v) - 1) for part, v in zip(parts, (a, b), strict=True))
    reach, p = stats.t_test(mean, error, sum(parts) ** 2 / spread if spread else 1)
    return mean - float(reach), mean + float(reach), float(p)


def render(first: Run, second: Run) -> str:
    """The page."""
    same_kind = first.summary["labels"] == second.summary["labels"]
    obstacle = paired(first, second)
    losses = _common(first, second) if same_kind else []
    records = _records(first, second, losses, same_splits=not obstacle)
    family, metric = first.summary["labels"], first.summary["metric"]
    metrics = KINDS[family].metrics
    return page.render(
        "diff.html.j2",
        {"changes": _chart(records)} if records else {},
        losses=[wording.title(name) for name in losses],
        suggested=[wording.title(name) for name in losses],
        options={"metric": _options(family)},
        first=first,
        second=second,
        answers=[wording.answer(run.summary)[0] for run in (first, second)],
        obstacle=obstacle,
        facts=facts(first, second),
        verdicts=_verdicts(first, second) if same_kind else [],
        sure=[r for r in records if r["metric"] == metric and r["verdict"] != "undecided"],
        rows=[_row(name, first, second, records, metric) for name in losses],
        metric=metrics[metric],
        metric_choices=[(name, card.title) for name, card in metrics.items()],
        chosen_metric=metric,
        words=wording,
    )


def _options(family: str) -> dict[str, dict[str, Any]]:
    return {
        name: about
        | {"change": [about["change"][0], f"second minus first, 95% interval; {about['change'][1].split('; ')[1]}"]}
        for name, about in charts.options(family).items()
    }


def _common(first: Run, second: Run) -> list[str]:
    there = {e["loss"] for e in first.summary["losses"]}
    return [e["loss"] for e in second.summary["losses"] if e["loss"] in there]


def _records(first: Run, second: Run, losses: list[str], *, same_splits: bool) -> list[dict[str, Any]]:
    records = []
    for metric in KINDS[first.summary["labels"]].metrics if losses else ():
        found = [
            (name, change(first.values(name, metric), second.values(name, metric), same_splits=same_splits))
            for name in losses
        ]
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
                    "p": wording.p_value(p),
                    "verdict": rule.verdict(c.mean, p, higher=CARDS[metric].higher),
                }
            )
    return records


def _chart(records: list[dict[str, Any]]) -> Any:
    return page.finished(
        charts.interval_plot(records, "@metric.change"),
        "For each loss, a dot for the mean of the second run minus that of the first and a line for its 95% interval.",
        {
            "loss": "Loss",
            "difference": "Second minus first",
            "low": "95% from",
            "high": "to",
            "p": "p, adjusted",
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
    sides = [
        {e["loss"]: verdict(e["vs_cross_entropy"], run.summary["metric"]) for e in run.summary["losses"]}
        for run in (first, second)
    ]
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
