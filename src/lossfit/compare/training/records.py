"""What trained models come to, out of their folds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lossfit.compare.candidates import candidates
from lossfit.compare.candidates.candidates import Candidate
from lossfit.compare.scoring import metrics, posthoc
from lossfit.compare.scoring.influence import influences
from lossfit.compare.scoring.posthoc import Step
from lossfit.compare.scoring.tasks import SINGLE_LABEL
from lossfit.compare.training.block import Block
from lossfit.compare.training.checkpoints import BestCheckpoints
from lossfit.compare.training.objective import log_probabilities
from lossfit.compare.training.task import Task, Tensors


class Records(NamedTuple):
    """Rows of two tables.

    Attributes:
        settings: one for each candidate, choice and setting: what the choice knows of it.
        passes: one for each candidate and pass: metrics over all tested rows, and what each row does to them.
    """

    settings: list[dict[str, Any]]
    passes: list[dict[str, Any]]


class _Choice(NamedTuple):
    """What a choice comes to: the setting, None if all failed; the step after training; and values by setting."""

    setting: int | None
    step: Step | None
    steps: dict[int, Step]
    values: Tensor


def records(task: Task, data: Tensors, blocks: list[Block], best: BestCheckpoints) -> Records:
    """Of the loss as it is, and after the step that helps the metric, if there is one."""
    plain = task.recipe.candidate
    tuned = candidates.tuned(plain, best.name, task.recipe.kind.family)
    settings, passes = [], []
    for candidate in (plain, tuned) if tuned is not None else (plain,):
        with torch.no_grad():
            choices = [_choice(task, data, blocks, best, u, candidate) for u in range(len(task.rows.uses))]
        settings += _settings(task, best, candidate, choices)
        passes += _passes(task, data, blocks, best, candidate, choices)
    return Records(settings, passes)


def _choice(
    task: Task, data: Tensors, blocks: list[Block], best: BestCheckpoints, u: int, candidate: Candidate
) -> _Choice:
    if not candidate.tuned:
        return _Choice(best.chosen(u, best.value[u]), None, {}, best.value[u])
    use, values, steps = task.rows.uses[u], best.value[u].clone(), {}
    labels, weight = best.labels(use).unsqueeze(0), best.weights(use)
    metric = best.metric.weighted(weight)
    ended = best.pruned[u] & ~best.pruned[u].all()
    for t in ((best.value[u] > -torch.inf) & ~ended).nonzero()[:, 0].tolist():
        log_p = torch.cat(
            [
                _log_p(task, data.held_out, blocks, best.name, piece.training, dict(use.models)[piece.training], t)[
                    :, piece.at
                ]
                for piece in use.validation
            ],
            1,
        )
        steps[t] = posthoc.fit(candidate.tuned, log_p, labels, best.name, weight)
        values[t] = best.sign * metric.function(steps[t](log_p), labels).item()
    setting = best.chosen(u, values)
    return _Choice(setting, None if setting is None else steps.get(setting), steps, values)


def _log_p(
    task: Task, rows: Tensor, blocks: list[Block], metric: str, training: int, place: int, setting: int
) -> Tensor:
    """Of all rows that a training holds out, or of those to test on, (1, N, C)."""
    block = next(b for b in blocks if training in b.own and setting in b.columns)
    z = block.at_best(metric, training, place, setting, rows[training])
    return log_probabilities(task.recipe, z[None, :, None], [[task.recipe.settings[setting]]])


def _settings(task: Task, best: BestCheckpoints, candidate: Candidate, choices: list[_Choice]) -> list[dict[str, Any]]:
    """``curve_steps`` are the checkpoints, ``curve_values`` the metric on the validation rows there, and ``curve_gaps``
    the quantiles of the gap (:func:`~lossfit.compare.training.checkpoints.gap_quantiles`) if one class is right.
    ``steps`` is how far the models came. After a step the curves are those of the models before it. ``step`` are its
    numbers.
    """
    found = []
    for u, choice in enumerate(choices):
        for t, setting in enumerate(task.recipe.settings):
            value, reached = choice.values[t].item(), int(best.reached[u, t])
            done = sum(step <= reached for step in best.steps)
            own: dict[str, Any] = {
                "loss": candidate.name,
                "repeat": task.rows.repeat,
                "fold": u,
                "trial": t,
                "params": candidate.describe(setting),
                "learning_rate": setting["learning_rate"],
                "weight_decay": setting["weight_decay"],
                "chosen": t == choice.setting,
                "failed": value == -torch.inf,
                "pruned": bool(best.pruned[u, t]),
                "stopped": bool(best.stopped[u] and not best.pruned[u, t]),
                "best_step": int(best.step[u, t]),
                "steps": reached,
                "validation": best.sign * value,
                "step": choice.steps[t].numbers if t in choice.steps else [],
                "curve_steps": best.steps[:done],
                "curve_values": best.values[u, t, :done].tolist(),
            }
            if task.recipe.kind is SINGLE_LABEL:
                own["curve_gaps"] = best.gaps[u, t, :done].tolist()
            found.append(own)
    return found


def _passes(
    task: Task, data: Tensors, blocks: list[Block], best: BestCheckpoints, candidate: Candidate, choices: list[_Choice]
) -> list[dict[str, Any]]:
    """None if every setting of a choice failed."""
    if any(choice.setting is None for choice in choices):
        return []
    rows, kind = task.rows, task.recipe.kind
    target = torch.from_numpy(rows.labels[rows.tested])
    scores: Tensor | None = None
    for use, choice in zip(rows.uses, choices, strict=True):
        assert choice.setting is not None
        for (training, place), piece, number in zip(use.models, use.test, use.passes, strict=True):
            features = data.test if len(rows.test) else data.held_out
            with torch.no_grad():
                z = _log_p(task, features, blocks, best.name, training, place, choice.setting)[:, piece.at]
                z = z if choice.step is None else choice.step(z)
            if scores is None:
                scores = z.new_empty(rows.passes, len(target), z.shape[2])
            scores[number, use.places] = z[0]
    assert scores is not None
    weight = None if rows.weight is None else torch.from_numpy(rows.weight[rows.tested]).float()
    validation = float(np.mean([best.sign * c.values[c.setting].item() for c in choices]))
    found: list[dict[str, Any]] = [
        {"loss": candidate.name, "repeat": rows.repeat, "pass": j, "validation": validation} for j in range(rows.passes)
    ]
    for name, metric in kind.measured(best.name).items():
        values, each = influences(metric, scores, target, weight)
        for own, value, row in zip(found, values, each, strict=True):
            own |= {f"test_{name}": float(value), f"influence_{name}": row}
    for own, some in zip(found, scores, strict=True):
        own |= _curves(some, target, weight) if kind is SINGLE_LABEL else {"predicted": (some > 0).to(torch.uint8)}
    return [{k: v.numpy() if isinstance(v, Tensor) else v for k, v in own.items()} for own in found]


def _curves(log_p: Tensor, target: Tensor, weight: Tensor | None) -> dict[str, Any]:
    """What the views of the report are drawn from: predictions, and the reliability and risk-coverage curves."""
    one, own, each = log_p.unsqueeze(0), target.unsqueeze(0), None if weight is None else weight.unsqueeze(0)
    bins = zip(("bin_rows", "bin_confidence", "bin_hits"), metrics.reliability(one, own, each), strict=True)
    return {
        "predicted": log_p.argmax(1).to(torch.int32),
        **{name: value[0].tolist() for name, value in bins},
        "risks": metrics.risk_coverage(one, own, each)[0].tolist(),
    }
