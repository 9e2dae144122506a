"""From the trainings to an answer: what to use, how sure that is, and what each candidate does."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl

from lossfit.compare.candidates import sampling
from lossfit.compare.candidates.candidates import Candidate, Setting
from lossfit.compare.outcome import Outcome, versions
from lossfit.compare.plan import RACING
from lossfit.compare.scoring.tasks import CARDS
from lossfit.compare.verdict import evidence, prior
from lossfit.compare.verdict.judge import Gain, Verdict, claim
from lossfit.compare.verdict.prior import Prior

VERSION = 2
"""Of ``summary.schema.json``, which describes what :func:`summarise` returns."""
ALTERNATIVES = 2


def summarise(outcome: Outcome, known: Prior | None = None) -> dict[str, Any]:
    """The contents of summary.json, as ``summary.schema.json`` and docs/summary.md describe them.

    Candidates are ordered by the gain over what is free that is expected of them, failed ones last. The advised one is
    the first; whether its gain is a claim is another question; :func:`lossfit.compare.verdict.judge.judge` answers
    both.
    The reference is cross-entropy, or where any number of classes may be right its binary form.

    Args:
        outcome: of a finished comparison.
        known: what other data sets said, the shipped prior if None.
    """
    plan, results = outcome.plan, outcome.results
    known = prior.load() if known is None else known
    verdicts = {
        metric: evidence.verdict(outcome.passes, outcome.folds, outcome.data, plan, metric, known)
        for metric in plan.kind.measured(plan.metric)
    }
    own = verdicts[plan.metric]
    entries = [_entry(candidate, i, outcome, verdicts) for i, candidate in enumerate(plan.candidates)]
    order = {judged.name: -judged.expected for judged in own.candidates} if own is not None else {}
    entries.sort(key=lambda e: order[e["loss"]] if np.isfinite(order.get(e["loss"], np.inf)) else np.inf)
    advised = _advised(entries, own, plan.kind.reference)
    trained = results.filter(pl.col("loss").is_in([c.name for c in plan.trained]))
    return {
        "version": VERSION,
        "source": plan.source if isinstance(plan.source, str) else " ".join(plan.source),
        "labels": plan.kind.family,
        "metric": plan.metric,
        "higher_is_better": CARDS[plan.metric].higher,
        "advised": advised,
        "recommended": {
            "loss": advised["loss"],
            "params": advised["params"],
            "better_than_cross_entropy": advised["claim"] != "none",
            "better_than_free": advised["claim"] == "better_than_free",
            "code": advised["code"],
        },
        "alternatives": [e["loss"] for e in entries if e["loss"] != advised["loss"] and _has_value(e)][:ALTERNATIVES],
        "reference": plan.kind.reference,
        "free": own.free if own is not None else plan.kind.reference,
        "losses": entries,
        "critical_values": {
            "over_reference": None if own is None else own.critical_reference,
            "over_free": None if own is None else own.critical_free,
        },
        "prior": {
            "data_sets": len(known.data_sets),
            "date": known.date,
            "note": known.note,
            "borrowed": {j.name: j.known.borrowed for j in own.candidates if j.known.borrowed} if own else {},
        },
        "trainings": outcome.trainings,
        "failed_settings": int(trained["failed"].sum()),
        "search": {
            "checkpoints": outcome.limits.checkpoints,
            "patience": outcome.limits.patience,
            "pruned": int(trained["pruned"].sum()),
            "stopped": int(trained["stopped"].sum()),
            "settings": trained.height,
            "racing": RACING,
        },
        "seconds": round(outcome.seconds, 1),
        "data": {
            "rows": outcome.data.rows,
            "classes": dict(zip(outcome.data.classes, outcome.data.counts.tolist(), strict=True)),
            "notes": outcome.data.notes,
        },
        "tested": len(outcome.folds.tested),
        "folds": outcome.folds.count,
        "repeats": plan.repeats,
        "trials": plan.trials,
        "seed": plan.seed,
        "label_noise": plan.label_noise,
        "model": outcome.model.sentence,
        "architecture": outcome.model.to_json(),
        "device": outcome.device,
        "versions": versions(),
    }


def _has_value(entry: dict[str, Any]) -> bool:
    return entry["vs_cross_entropy"] is not None


def _advised(entries: list[dict[str, Any]], own: Verdict | None, reference: str) -> dict[str, Any]:
    by_name = {entry["loss"]: entry for entry in entries}
    entry = by_name[reference if own is None else own.advised.name]
    judged = None if own is None else own.advised
    over = None if judged is None else judged.over_reference
    return {
        "loss": entry["loss"],
        "params": entry["params"],
        "tuned": entry["tuned"],
        "gain_over_reference": {
            "mean": None if over is None else over.mean,
            "ci95": [None, None] if over is None else [over.low, over.high],
        },
        "gain_over_free": {
            "mean": None if judged is None else judged.over_free.mean,
            "expected": None if judged is None else judged.expected,
        },
        "probability_best": entry["probability_best"],
        "claim": "none" if judged is None else claim(judged),
        "code": entry["code"],
    }


def _entry(candidate: Candidate, number: int, outcome: Outcome, verdicts: dict[str, Verdict | None]) -> dict[str, Any]:
    plan = outcome.plan
    rows = outcome.results.filter(pl.col("loss") == candidate.name)
    setting, trial = _setting(rows, plan.metric)
    judged = {m: None if v is None else v.candidates[number] for m, v in verdicts.items()}
    there = {m: j for m, j in judged.items() if j is not None and np.isfinite(j.estimate.mean)}
    differences = {m: _difference(j.over_reference, m) for m, j in there.items() if np.isfinite(j.over_reference.mean)}
    own, ran = judged[plan.metric], plan.metric in there
    return {
        "loss": candidate.name,
        "params": candidate.describe(setting),
        "tuned": candidate.tuned,
        "training": {k: setting[k] for k in sampling.RANGES} | _steps(rows, trial, outcome),
        "step": _step(rows, trial),
        "code": candidate.code(setting, plan.metric),
        "test": {
            m: {"mean": there[m].estimate.mean, "ci95": [there[m].estimate.low, there[m].estimate.high]}
            if m in there
            else {"mean": None, "ci95": [None, None]}
            for m in verdicts
        },
        "differences": differences,
        "vs_cross_entropy": differences.get(plan.metric),
        "vs_free": _difference(own.over_free, plan.metric) if own is not None and ran else None,
        "expected": own.expected if own is not None and ran else None,
        "probability_best": own.probability_best if own is not None else None,
        "repeats": outcome.passes.filter(pl.col("loss") == candidate.name)["repeat"].n_unique()
        if outcome.passes.width
        else 0,
        "seconds_per_training": float(rows["seconds"].mean() or 0.0),  # type: ignore[arg-type]
        "failed_settings": int(rows["failed"].sum()),
        "pruned_settings": int(rows["pruned"].sum()),
    }


def _difference(gain: Gain, metric: str) -> dict[str, Any]:
    """In the direction of the metric."""
    card = CARDS[metric]
    sign = 1 if card.higher else -1
    found: dict[str, Any] = {
        "difference": sign * gain.mean,
        "ci95": sorted((sign * gain.low, sign * gain.high)),
        "verdict": gain.side,
    }
    return found | ({"points": 100 * sign * gain.mean} if card.percent else {})


def _setting(rows: pl.DataFrame, metric: str) -> tuple[Setting, int]:
    """The setting to train with, and its number: the best mean over all choices, on their validation rows.

    Where a choice pruned it, what it had reached counts.
    """
    ranked = (
        rows.group_by("trial")
        .agg(pl.col("validation").mean(), pl.col("params", "learning_rate", "weight_decay").first())
        .sort("validation", "trial", descending=[CARDS[metric].higher, False])
    )
    row = ranked.row(0, named=True)
    return {**{k: row[k] for k in sampling.RANGES}, **json.loads(row["params"])}, row["trial"]


def _steps(rows: pl.DataFrame, trial: int, outcome: Outcome) -> dict[str, int]:
    """After how many steps of how many a training on all rows ends, and the rows of a step.

    It is the median share of the steps that the choices took their weights at, where they trained the setting on.
    """
    folds, limits = outcome.folds, outcome.limits
    own = rows.filter((pl.col("trial") == trial) & ~pl.col("failed"))
    whole = own.filter(~pl.col("pruned"))
    at = (whole if whole.height else own)["best_step"].to_numpy()
    total = limits.steps_for(min(len(folds.train(0, pair)) for pair in folds.pairs))
    planned = limits.steps_for(len(folds.rows))
    share = float(np.median(at)) / total if len(at) else 1.0
    return {"steps": max(1, round(share * planned)), "of": planned, "batch": min(limits.batch, len(folds.rows))}


def _step(rows: pl.DataFrame, trial: int) -> list[float]:
    """The numbers of the step after training, on average over the choices that fitted it to the setting."""
    fitted = rows.filter((pl.col("step").list.len() > 0) & ~pl.col("failed"))
    own = fitted.filter(pl.col("trial") == trial)
    if not fitted.height:
        return []
    found: list[float] = np.array((own if own.height else fitted)["step"].to_list()).mean(0).tolist()
    return found


def verdict(difference: dict[str, Any] | None) -> str:
    """Whether a candidate is measurably "better" or "worse" than the reference, or "undecided"."""
    return "undecided" if difference is None else str(difference["verdict"])
