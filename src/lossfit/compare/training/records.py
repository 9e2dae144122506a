"""What is measured of trained models."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lossfit.compare.candidates.candidates import Candidate
from lossfit.compare.scoring import class_counts, fixed_test, metrics, posthoc
from lossfit.compare.scoring.tasks import SINGLE_LABEL
from lossfit.compare.training.checkpoints import BestCheckpoints
from lossfit.compare.training.objective import log_probabilities
from lossfit.compare.training.task import SplitRows, Tensors


def all_records(best: BestCheckpoints, rows: SplitRows, data: Tensors) -> list[dict[str, Any]]:
    """Of the loss, and of what is free."""
    recipe = best.recipe
    target, seen = (y.repeat_interleave(best.value.shape[1], 0) for y in (data.y_test, data.y_validation))
    with torch.no_grad():
        log_p = log_probabilities(recipe, best.model(data.x_test, best.state).cpu())
        log_p_validation = log_p
        if recipe.free:
            z = best.model(data.x_validation, best.state).cpu()
            log_p_validation = log_probabilities(recipe, z)
    records = _records(recipe.candidate, rows, best, best.value, log_p, target)
    metric = best.metric.weighted(best.weight)
    for candidate in recipe.free:
        adjust = posthoc.tune(candidate.tuned, log_p_validation, seen, recipe.metric, best.weight)
        value = metric.function(adjust(log_p_validation), seen) * best.sign
        value = torch.where(best.value == -torch.inf, best.value, value.view(best.value.shape))
        records += _records(candidate, rows, best, value, adjust(log_p), target)
    return records


def _records(
    candidate: Candidate, rows: SplitRows, best: BestCheckpoints, values: Tensor, log_p: Tensor, target: Tensor
) -> list[dict[str, Any]]:
    """One for each model, split by split.

    ``curve_steps`` are its checkpoints, ``curve_values`` the metric on the validation rows there, and ``curve_gaps``
    the quantiles of the gap (:func:`gap_quantiles`) if one class is right. ``steps`` is how far it came. Of what is
    free, the curves are those of the models before they were tuned. Where the test rows are given, ``left_out_...`` are
    the metrics without a tenth of them at a time, of the model that is chosen in each split.
    """
    weight = rows.weights("test")
    found = {n: m.weighted(weight).function(log_p, target).tolist() for n, m in best.recipe.kind.metrics.items()}
    each = None if weight is None else metrics.by_model(weight, len(log_p))
    if best.recipe.kind is SINGLE_LABEL:
        curves = _curves(log_p, target, each) | class_counts.of_confusions(log_p, target, each)
    else:
        curves = class_counts.of_classes(log_p > 0, target, each)
    records = []
    for m in range(len(log_p)):
        s, t = divmod(m, values.shape[1])
        value, setting, reached = values[s, t].item(), best.recipe.settings[t], int(best.reached[s, t])
        done = sum(step <= reached for step in best.steps)
        course: dict[str, Any] = {
            "curve_steps": best.steps[:done],
            "curve_values": best.values[s, t, :done].tolist(),
        }
        if best.recipe.kind is SINGLE_LABEL:
            course["curve_gaps"] = best.gaps[s, t, :done].tolist()
        records.append(
            {
                "loss": candidate.name,
                "split": s,
                "trial": t,
                "params": candidate.describe(setting),
                "learning_rate": setting["learning_rate"],
                "weight_decay": setting["weight_decay"],
                "failed": value == -torch.inf,
                "best_step": int(best.step[s, t]),
                "steps": reached,
                "pruned": bool(best.pruned[s, t]),
                "stopped": bool(best.stopped[s, t]),
                "validation": best.sign * value,
                **{f"test_{name}": values[m] for name, values in found.items()},
                **{name: values[m] for name, values in curves.items()},
                **course,
            }
        )
    if rows.fixed_test:
        _leave_out(rows, records, best, values, log_p, target)
    return records


def _leave_out(
    rows: SplitRows, records: list[dict[str, Any]], best: BestCheckpoints, values: Tensor, log_p: Tensor, target: Tensor
) -> None:
    trials = values.shape[1]
    models = torch.arange(len(values)) * trials + best.chosen(values)
    weight = rows.weights("test")
    tenths = fixed_test.groups(rows.labels[rows.splits[0].test])
    found = fixed_test.left_out(best.recipe.kind.metrics, log_p[models], target[models], weight, tenths)
    for m, record in enumerate(records):
        chosen = m == models[m // trials]
        record |= {f"left_out_{name}": of[m // trials] if chosen else None for name, of in found.items()}


def _curves(log_p: Tensor, target: Tensor, weight: Tensor | None) -> dict[str, list[Any]]:
    """What the reliability and risk-coverage curves are drawn from, by model."""
    bins = dict(
        zip(("bin_rows", "bin_confidence", "bin_hits"), metrics.reliability(log_p, target, weight), strict=True)
    )
    return {name: v.tolist() for name, v in {**bins, "risks": metrics.risk_coverage(log_p, target, weight)}.items()}
