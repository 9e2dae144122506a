"""From the trainings to an answer: the setting chosen on validation, its test metrics, and what to recommend."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl

from lossfit.compare.candidates import candidates, sampling
from lossfit.compare.plan import Plan
from lossfit.compare.running import engine
from lossfit.compare.scoring.tasks import CARDS
from lossfit.compare.verdict import rule, stats

VERSION = 1
"""Of ``summary.schema.json``, which describes what :func:`summarise` returns."""


def chosen(results: pl.DataFrame, metric: str) -> pl.DataFrame:
    """For each loss and split the training that is best on validation, the first if they tie.

    A pruned one is taken only where all others failed.
    """
    return (
        results.filter(~pl.col("failed"))
        .sort("pruned", "validation", descending=[False, CARDS[metric].higher], maintain_order=True)
        .group_by("loss", "split", maintain_order=True)
        .first()
        .sort("loss", "split")
    )


def summarise(outcome: engine.Outcome) -> dict[str, Any]:
    """The contents of summary.json, as ``summary.schema.json`` and docs/summary.md describe them.

    Losses are ordered by the mean of the asked metric over the test rows of all splits.
    :func:`lossfit.compare.verdict.rule.advise` says which loss to use. The reference is cross-entropy,
    or where any number of classes may be right its binary form.
    """
    plan, results = outcome.plan, outcome.results
    metric = CARDS[plan.metric]
    best = chosen(results, plan.metric)
    there = set(results["loss"].unique())
    names = [c.name for c in plan.candidates if c.name in there]
    values = {name: _by_split(best, name, plan) for name in names}
    whole = [name for name in names if np.isfinite(values[name][plan.metric]).all()]
    entries = [_entry(name, results, best, values, plan, name in whole) for name in names]
    left_out = _left_out(best, whole, plan) if outcome.data.test is not None else None
    _compare(entries, {name: values[name] for name in whole}, left_out, plan)
    reference = plan.kind.reference
    for entry in entries:
        entry["vs_cross_entropy"] = entry["differences"].get(plan.metric)
    sign = 1 if metric.higher else -1
    entries.sort(key=lambda e: -sign * e["test"][plan.metric]["mean"] if e["loss"] in whole else np.inf)
    own = None if left_out is None else left_out[plan.metric]
    advice = _advise(entries, {name: values[name][plan.metric] for name in whole}, own, plan)
    recommended = next(e for e in entries if e["loss"] == advice["recommended"])
    trained = results.filter(~pl.col("loss").is_in([c.name for c in plan.candidates if c.tuned]))
    return {
        "version": VERSION,
        "source": plan.source,
        "labels": plan.kind.family,
        "metric": plan.metric,
        "higher_is_better": metric.higher,
        "recommended": {
            "loss": recommended["loss"],
            "params": recommended["params"],
            "better_than_cross_entropy": advice["better"],
            "better_than_free": advice["beaten"],
            "code": recommended["code"],
        },
        "distinguishable": any(verdict(e["vs_cross_entropy"], plan.metric) != "undecided" for e in entries),
        "best_guess": advice["best_guess"],
        "held_back": advice["held_back"],
        "reference": reference,
        "losses": entries,
        "trainings": trained.height,
        "failed_trainings": int(trained["failed"].sum()),
        "search": {
            "checkpoints": outcome.limits.checkpoints,
            "patience": outcome.limits.patience,
            "pruned": int(trained["pruned"].sum()),
            "stopped": int(trained["stopped"].sum()),
        },
        "seconds": round(outcome.seconds, 1),
        "data": {
            "rows": outcome.data.rows,
            "classes": dict(zip(outcome.data.classes, outcome.data.counts.tolist(), strict=True)),
            "notes": outcome.data.notes,
        },
        "splits": plan.splits,
        "trials": plan.trials,
        "seed": plan.seed,
        "label_noise": plan.label_noise,
        "model": outcome.model.sentence,
        "architecture": outcome.model.to_json(),
        "device": outcome.device,
        "versions": engine.versions(),
    }


def _by_split(best: pl.DataFrame, name: str, plan: Plan) -> dict[str, np.ndarray]:
    """Test metrics of the chosen trainings, NaN where every training of a split failed."""
    rows = best.filter(pl.col("loss") == name)
    out = {}
    for metric in plan.kind.metrics:
        out[metric] = np.full(plan.splits, np.nan)
        out[metric][rows["split"].to_numpy()] = rows[f"test_{metric}"].to_numpy()
    return out


def _left_out(best: pl.DataFrame, names: list[str], plan: Plan) -> dict[str, dict[str, np.ndarray]]:
    """By metric and loss, the mean over splits without a tenth of the given test rows at a time."""
    of = {name: best.filter(pl.col("loss") == name) for name in names}
    return {
        metric: {name: np.stack(rows[f"left_out_{metric}"].to_list()).mean(0) for name, rows in of.items()}
        for metric in plan.kind.metrics
    }


def _entry(
    name: str,
    results: pl.DataFrame,
    best: pl.DataFrame,
    values: dict[str, dict[str, np.ndarray]],
    plan: Plan,
    whole: bool,
) -> dict[str, Any]:
    candidate = candidates.candidate(name)
    own, trainings = values[name], results.filter(pl.col("loss") == name)
    setting = _typical_setting(trainings, plan.metric)
    entry: dict[str, Any] = {
        "loss": name,
        "params": candidate.describe(setting),
        "training": {k: setting[k] for k in ("learning_rate", "weight_decay")},
        "code": candidate.code(setting, plan.metric),
        "free": bool(candidate.tuned),
        "test": {m: {"mean": float(np.nanmean(v)), "std": float(np.nanstd(v, ddof=1))} for m, v in own.items()}
        if np.isfinite(own[plan.metric]).sum() > 1
        else {m: {"mean": None, "std": None} for m in own},
        "differences": {},
        "seconds_per_training": float(trainings["seconds"].mean() or 0.0),  # type: ignore[arg-type]
        "failed_trainings": int(trainings["failed"].sum()),
        "pruned_trainings": int(trainings["pruned"].sum()),
    }
    return entry


def _compare(
    entries: list[dict[str, Any]],
    values: dict[str, dict[str, np.ndarray]],
    left_out: dict[str, dict[str, np.ndarray]] | None,
    plan: Plan,
) -> None:
    """Differences to the reference in every metric, with Holm's adjustment over the losses for each."""
    reference = plan.kind.reference
    if reference not in values:
        return
    compared = [e for e in entries if e["loss"] in values]
    for metric in plan.kind.metrics:
        apart = None if left_out is None else left_out[metric]
        found = [
            stats.paired_difference(
                values[e["loss"]][metric] - values[reference][metric],
                rule.usual_ratio(apart),
                rule.between(apart, e["loss"], reference),
            )
            for e in compared
        ]
        others = [i for i, e in enumerate(compared) if e["loss"] != reference]
        strict = rule.p_values({n: v[metric] for n, v in values.items()}, reference, free(plan), apart)
        adjusted = dict(zip(others, stats.holm([found[i].p_value for i in others]), strict=True))
        for i, (entry, difference) in enumerate(zip(compared, found, strict=True)):
            entry["differences"][metric] = {
                "difference": difference.mean,
                "ci95": [difference.low, difference.high],
                "p_value": difference.p_value,
                "p_holm": adjusted.get(i, 1.0),
                "p_rule": strict.get(entry["loss"], 1.0),
            }
            if CARDS[metric].percent:
                entry["differences"][metric]["points"] = 100 * difference.mean


def verdict(difference: dict[str, Any] | None, metric: str) -> str:
    """Whether a difference to the reference is "better", "worse" or "undecided", at the level of the rule."""
    if difference is None:
        return "undecided"
    return rule.verdict(difference["difference"], difference["p_rule"], higher=CARDS[metric].higher)


def free(plan: Plan) -> list[str]:
    """What takes part without trainings of its own."""
    return [candidate.name for candidate in plan.candidates if candidate.tuned]


def _advise(
    entries: list[dict[str, Any]],
    values: dict[str, np.ndarray],
    left_out: dict[str, np.ndarray] | None,
    plan: Plan,
) -> dict[str, Any]:
    """What the rule says, in words of the summary; the entries learn how likely they are best, and what would tell."""
    reference, higher = plan.kind.reference, CARDS[plan.metric].higher
    for entry in entries:
        entry |= {"probability_best": None, "needed": None, "vs_free": []}
    if reference not in values:
        return {"recommended": reference, "better": False, "beaten": [], "best_guess": None, "held_back": []}
    advice = rule.advise(values, reference, free(plan), left_out, higher=higher)
    apart = None if left_out is None else np.stack([left_out[name] for name in values])
    chances = stats.probability_best(np.stack(list(values.values())), rule.SHARED, apart, higher=higher, seed=plan.seed)
    by_name = {entry["loss"]: entry for entry in entries}
    others = [name for name in values if name != reference]
    for name, chance in zip(values, chances.tolist(), strict=True):
        by_name[name]["probability_best"] = chance
        by_name[name]["vs_free"] = [
            {"loss": f, **rule.difference(values[name], values[f], rule.between(left_out, name, f))}
            for f in free(plan)
            if f in values and f != name
        ]
    for name in others:
        if verdict(by_name[name]["vs_cross_entropy"], plan.metric) == "undecided":
            level = rule.level(name, others, free(plan))
            d = values[name] - values[reference]
            deviation = float(d.std(ddof=1))
            # More splits do not change what given test rows do; more rows do.
            given = stats.jackknife(rule.between(left_out, name, reference)) / deviation**2 if deviation else 0.0
            found = stats.needed(float(d.mean()), deviation, plan.splits, rule.SHARED + given, level)
            by_name[name]["needed"] = found._asdict()
    guess = by_name[rule.best_guess(values, reference, free(plan), left_out, higher=higher)]
    return {
        "recommended": advice.recommended,
        "better": advice.better,
        "beaten": [v for v in by_name[advice.recommended]["vs_free"] if advice.better and v["p_value"] <= rule.LEVEL],
        "best_guess": {k: guess[k] for k in ("loss", "params", "probability_best", "code")},
        "held_back": advice.held_back,
    }


def _typical_setting(trainings: pl.DataFrame, metric: str) -> candidates.Setting:
    """The setting to begin with in one's own training.

    It is the one with the best mean over splits on validation; where one was pruned in a split, by what it had reached.
    """
    ranked = (
        trainings.group_by("trial")
        .agg(pl.col("validation").mean(), pl.col("params", "learning_rate", "weight_decay").first())
        .sort("validation", "trial", descending=[CARDS[metric].higher, False])
    )
    row = ranked.row(0, named=True)
    return {**{k: row[k] for k in sampling.RANGES}, **json.loads(row["params"])}
