"""From the passes over the tested rows to what is judged."""

from __future__ import annotations

import numpy as np
import polars as pl

from lossfit.compare.data.dataset import Dataset
from lossfit.compare.data.folds import Folds
from lossfit.compare.plan import Plan
from lossfit.compare.scoring.tasks import CARDS
from lossfit.compare.verdict import prior
from lossfit.compare.verdict.judge import Verdict, judge
from lossfit.compare.verdict.prior import Prior
from lossfit.compare.verdict.variance import Layout, Passes


def layout(folds: Folds, data: Dataset, repeats: int) -> Layout:
    """Which rows were tested together."""
    groups = None if data.groups is None else data.groups[folds.tested]
    models = repeats * len(folds.pairs)
    if len(folds.test):
        return Layout(np.zeros((1, len(folds.test)), dtype=np.int64), models, groups)
    return Layout(np.stack([repeat.fold for repeat in folds.repeats[:repeats]]), models, groups)


def passes(table: pl.DataFrame, names: list[str], metric: str, folds: Folds, repeats: int) -> Passes:
    """What was measured, by candidate, repeat and pass; NaN where a candidate did not take part or failed.

    Where the rows to test on are given, the passes of all repeats are those of one.
    """
    fixed = len(folds.test) > 0
    each = len(folds.pairs) if fixed else folds.count - 1
    values = np.full((len(names), repeats, each), np.nan)
    validation = np.full((len(names), repeats), np.nan)
    influence = np.zeros((len(names), repeats, each, len(folds.tested)), dtype=np.float32)
    number = {name: i for i, name in enumerate(names)}
    columns = ("loss", "repeat", "pass", "validation", f"test_{metric}", f"influence_{metric}")
    for loss, repeat, at, chosen_by, value, rows in table.select(columns).iter_rows() if table.width else ():
        if loss in number and repeat < repeats:
            c = number[loss]
            values[c, repeat, at], validation[c, repeat] = value, chosen_by
            influence[c, repeat, at] = rows
    if fixed:
        values, influence = values.reshape(len(names), 1, -1), influence.reshape(len(names), 1, repeats * each, -1)
        validation = validation.mean(1, keepdims=True)
    return Passes(names, values, validation, influence)


def verdict(
    table: pl.DataFrame,
    folds: Folds,
    data: Dataset,
    plan: Plan,
    metric: str | None = None,
    known: Prior | None = None,
) -> Verdict | None:
    """What is said of the candidates by a metric, the one asked for if not given; None if the reference failed."""
    metric = metric or plan.metric
    names = [candidate.name for candidate in plan.candidates]
    found = passes(table, names, metric, folds, plan.repeats)
    reference = plan.kind.reference
    if not found.repeats()[names.index(reference)]:
        return None
    return judge(
        found,
        layout(folds, data, plan.repeats),
        metric,
        prior.load() if known is None else known,
        reference=reference,
        free=None if plan.free is None else plan.free.name,
        higher=CARDS[metric].higher,
        seed=plan.seed,
    )


def chances(table: pl.DataFrame, folds: Folds, data: Dataset, plan: Plan) -> dict[str, float] | None:
    """Of each candidate, how likely it is the best; None if nothing can be said."""
    if len(folds.test):
        return None
    found = verdict(table, folds, data, plan)
    return None if found is None else {judged.name: judged.probability_best for judged in found.candidates}
