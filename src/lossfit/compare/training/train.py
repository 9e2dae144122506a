"""Train all settings of one loss on several splits at once, and measure them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lossfit import gap, registry
from lossfit.compare.candidates.candidates import Candidate, Setting, make_loss
from lossfit.compare.data.splits import Split
from lossfit.compare.features.make import Matrices
from lossfit.compare.scoring import class_counts, fixed_test, metrics, posthoc
from lossfit.compare.scoring.tasks import MULTI_LABEL, SINGLE_LABEL, Kind
from lossfit.compare.training import memory
from lossfit.compare.training.models import Architecture, Models
from lossfit.losses.metric.base import MetricLoss
from lossfit.losses.single_label.base import SingleLabelLoss

BATCH = 128
STEPS = 400
EPOCHS = 10
CHECKPOINTS = 8
RUNGS = (2, 4)
"""The checkpoints at which the worse half of a split's settings is pruned, if any is."""
PATIENCE = 3
"""Checkpoints without an improvement after which a comparison ends a split."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the gap on the validation rows, kept at each checkpoint."""
_LEAST = 1e-12


@dataclass(frozen=True)
class Task:
    """What is trained at once.

    Attributes:
        candidate, settings: a loss and the settings that it is tried with in every split.
        splits, matrices: S splits of the rows, and their features.
        labels: the true class of every row (N,), or which classes are right (N, C).
        classes: how many there are.
        model: the network.
        metric: what the best checkpoint is chosen by, on the validation rows.
        seeds: one for each split; with the split they fix weights and batches.
        weight: what each row counts (N,), in training and in the metrics.
        free: what else is measured of the same models, after tuning them on the validation rows.
        prune: whether, at the checkpoints in :data:`RUNGS`, the worse half of each split's settings is given up.
        patience: a split ends after so many checkpoints at which none of its models improved; 0 for never.
        device: where the models are trained; what is measured of them is measured on the CPU.
        given: whether the test rows are the same in all splits.
    """

    candidate: Candidate
    settings: list[Setting]
    splits: list[Split]
    matrices: list[Matrices]
    labels: np.ndarray
    classes: int
    model: Architecture
    metric: str
    seeds: list[int]
    weight: np.ndarray | None = None
    free: list[Candidate] = field(default_factory=list)
    prune: bool = False
    patience: int = 0
    device: str = "cpu"
    fixed_test: bool = False

    @property
    def kind(self) -> Kind:
        return MULTI_LABEL if self.labels.ndim == 2 else SINGLE_LABEL

    @property
    def apart(self) -> bool:
        """Whether the settings of a split know nothing of each other."""
        return not (self.prune or self.patience)

    def part(self, splits: range, settings: range) -> Task:
        """Some of the splits, with some of the settings."""
        of_splits, of_settings = slice(splits.start, splits.stop), slice(settings.start, settings.stop)
        return replace(
            self,
            settings=self.settings[of_settings],
            splits=self.splits[of_splits],
            matrices=self.matrices[of_splits],
            seeds=self.seeds[of_splits],
        )

    def weights(self, part: Literal["train", "validation", "test"]) -> Tensor | None:
        """What the rows of a part count in each split (S, N), if they do not count the same."""
        if self.weight is None:
            return None
        return torch.from_numpy(np.stack([self.weight[getattr(split, part)] for split in self.splits])).float()


def steps_for(rows: int) -> int:
    """Steps of a training on so many rows."""
    return max(STEPS, EPOCHS * (rows // min(BATCH, rows)))


def train(task: Task, progress: Callable[[float], None] = lambda share: None) -> list[dict[str, Any]]:
    """One record for each training, split by split: validation and test metrics, curves, and the best step.

    AdamW with a linearly falling learning rate, for 400 steps of 128 rows or 10 passes over the data, whichever is
    more. The weights at the best of 8 checkpoints are kept, by the metric on the validation rows. A model whose loss
    stops being finite keeps its last good checkpoint.

    What is pruned or stopped early in a split depends on the validation rows of that split alone: those of
    another one may be test rows here.

    The records of the candidates in ``task.free`` come after those of the loss itself.
    """
    return train_for(task, [task.metric], progress)[task.metric]


def train_for(
    task: Task, wanted: list[str], progress: Callable[[float], None] = lambda share: None
) -> dict[str, list[dict[str, Any]]]:
    """The records of :func:`train` for each of several metrics, from one training: they differ in the checkpoints.

    With several metrics nothing is pruned or stopped early: it would suit one of them.

    Raises:
        InputError: the memory is too small for a single training, or the user's own network raises.
    """
    if len(wanted) > 1:
        task = replace(task, prune=False, patience=0)
    return memory.divided(task, lambda part, share: _together(part, wanted, share), progress)


def _together(task: Task, wanted: list[str], progress: Callable[[float], None]) -> dict[str, list[dict[str, Any]]]:
    """All trainings of a task side by side."""
    data = _Data(task)
    found = _fit(task, data, wanted, progress)
    return {metric: _all_records(best, data) for metric, best in found.items()}


class Trained(NamedTuple):
    """One model at its best checkpoint.

    Attributes:
        state: a state dict of the task's network.
        step: of the checkpoint; 0 if no checkpoint was finite.
        log_p, labels: of the validation rows, (1, N, C) and (1, N): as :func:`log_probabilities` has them.
    """

    state: dict[str, Tensor]
    step: int
    log_p: Tensor
    labels: Tensor


def train_one(task: Task, progress: Callable[[float], None] = lambda share: None) -> Trained:
    """The model of a task of one split and one setting."""
    data = _Data(task)
    best = _fit(task, data, [task.metric], progress)[task.metric]
    with torch.no_grad():
        log_p = log_probabilities(task, best.model(data.x_validation, best.state).cpu())
    state = {name: value.cpu() for name, value in best.model.state_dict(0, 0, best.state).items()}
    return Trained(state, int(best.step), log_p, data.y_validation)


class _Data:
    """Features and labels of the splits. The training rows stay where they are; other parts are stacked (S, N, D)."""

    def __init__(self, task: Task) -> None:
        train, validation, test = zip(*task.matrices, strict=True)
        # What another process shares may not be written to, of which torch warns.
        copies = (part if part.flags.writeable else part.copy() for part in train)
        self.x = [torch.from_numpy(part).to(task.device) for part in copies]
        parts = (torch.from_numpy(np.stack(part)) for part in (validation, test))
        self.x_validation, self.x_test = (part.to(task.device) for part in parts)
        self.y = torch.from_numpy(np.stack([s.seen[s.train] for s in task.splits])).to(task.device)
        self.y_validation = torch.from_numpy(np.stack([s.seen[s.validation] for s in task.splits]))
        self.y_test = torch.from_numpy(np.stack([task.labels[s.test] for s in task.splits]))
        weight = task.weights("train")
        self.weight = None if weight is None else weight.to(task.device)


def _fit(task: Task, data: _Data, wanted: list[str], progress: Callable[[float], None]) -> dict[str, _Best]:
    """Train the settings of each split, and keep the best checkpoints by each of the metrics."""
    settings = [task.settings] * len(task.splits)
    generators = [torch.Generator().manual_seed(seed) for seed in task.seeds]
    rows = len(data.x[0])
    model = task.model.build(len(settings[0]), generators, task.device)
    batch, steps = min(BATCH, rows), steps_for(rows)
    kept = {metric: _Best(model, replace(task, metric=metric), settings, data) for metric in wanted}
    splits, trials = torch.arange(len(settings)), torch.arange(len(settings[0])).expand(len(settings), -1)
    objective = Objective(task, data.y, batch, data.weight, settings)
    optimizer = _AdamW(model, settings, steps)
    order = _batches(generators, rows, batch)
    for step in range(1, steps + 1):
        at = next(order)[splits]
        each = splits.unsqueeze(1), at
        z = model(torch.stack([data.x[s][own] for s, own in zip(splits.tolist(), at, strict=True)]))
        loss = objective(z, data.y[each], None if data.weight is None else data.weight[each])
        optimizer.step(model.gradients(loss))
        checkpoint = step * CHECKPOINTS // steps
        if checkpoint > (step - 1) * CHECKPOINTS // steps:
            _check(model, task, data, kept, step, splits, trials)
            if checkpoint < CHECKPOINTS:
                staying, going = kept[wanted[0]].going_on(checkpoint, splits, trials)
                if not len(staying):
                    break
                if going.shape != trials.shape:
                    model.keep(staying, going)
                    optimizer.keep(staying, going)
                    splits, trials = splits[staying], trials[staying.unsqueeze(1), going]
                    own = [[settings[s][t] for t in of] for s, of in zip(splits.tolist(), trials.tolist(), strict=True)]
                    weight = None if data.weight is None else data.weight[splits]
                    objective = Objective(task, data.y[splits], batch, weight, own)
        progress(step / steps)
    progress(1.0)
    return kept


@torch.no_grad()
def _check(
    model: Models, task: Task, data: _Data, kept: dict[str, _Best], step: int, splits: Tensor, trials: Tensor
) -> None:
    """A checkpoint: every metric's best models are brought up to date."""
    whole = len(splits) == len(data.y)
    z = model(data.x_validation if whole else data.x_validation[splits]).cpu()
    y = data.y_validation[splits].repeat_interleave(z.shape[2], 0)
    gaps = gap_quantiles(_by_model(z), y) if task.kind is SINGLE_LABEL else None
    for best in kept.values():
        best.update(step, z, y, gaps, splits, trials)


def gap_quantiles(z: Tensor, y: Tensor) -> Tensor:
    """Of the log-odds of the target, over the rows of each model: logits (M, N, C) and labels (M, N) to (M, 5).

    Each is the value of a row, the nearest one in rank. NaN where a model's scores are not finite.
    """
    odds = gap(z.flatten(0, 1), y.flatten()).log_odds.view(y.shape).sort(1).values
    ranks = [round(q * (y.shape[1] - 1)) for q in QUANTILES]
    return torch.where(z.isfinite().all(2).all(1, keepdim=True), odds[:, ranks], torch.nan)


class Objective:
    """The sum over all models of the mean of their loss over a batch."""

    def __init__(
        self,
        task: Task,
        y: Tensor,
        batch: int,
        row_weight: Tensor | None = None,
        settings: list[list[Setting]] | None = None,
    ) -> None:
        self.settings = settings or [task.settings] * len(y)
        self.total = batch if row_weight is None else batch * row_weight.mean(1).clamp(min=_LEAST).view(-1, 1, 1)
        self.batch, self.classes, self.kind = batch, task.classes, task.kind
        if registry.get(task.candidate.loss).family == "metric":
            self.loss = make_loss(task.candidate, **_hypers(task.candidate, self.settings)).to(y.device)
        else:
            per_row = _hypers(task.candidate, self.settings, batch)
            self.loss = make_loss(task.candidate, reduction="none", **per_row).to(y.device)
        self.prior = self.weight = None
        if task.kind is MULTI_LABEL:
            return
        each = [None] * len(y) if row_weight is None else row_weight
        counts = torch.stack([torch.bincount(*pair, minlength=task.classes) for pair in zip(y, each, strict=True)])
        counts = counts.float().clamp(min=1 if row_weight is None else _LEAST)
        self.prior = self._table(task, "prior_power", (counts / counts.sum(1, keepdim=True)).log())
        weight = (counts.sum(1, keepdim=True) / (task.classes * counts)).log()
        log_weight = self._table(task, "weight_power", weight)
        self.weight = None if log_weight is None else log_weight.exp()

    def _table(self, task: Task, name: str, logarithm: Tensor) -> Tensor | None:
        """Logarithms (S, C) times each setting's power, (S, T, C)."""
        if name not in task.candidate.search:
            return None
        return _column(self.settings, name).unsqueeze(2).to(logarithm.device) * logarithm.unsqueeze(1)

    def __call__(self, z: Tensor, y: Tensor, row_weight: Tensor | None = None) -> Tensor:
        """Of logits (S, B, T, C), labels (S, B) or (S, B, C), and what the rows count (S, B)."""
        if self.prior is not None:
            z = z + self.prior.unsqueeze(1)
        if isinstance(self.loss, MetricLoss):
            each = None if row_weight is None else row_weight.unsqueeze(1).expand(-1, z.shape[2], -1)
            return self.loss.of_batches(z.transpose(1, 2), y.unsqueeze(1).expand(-1, z.shape[2], -1), each).sum()
        labels = y.unsqueeze(2).expand(z.shape[: y.ndim + 1])
        rows = self.loss(z.reshape(-1, self.classes), labels.flatten(0, 2)).view(z.shape[:3])
        if row_weight is not None:
            rows = rows * row_weight.unsqueeze(2)
        if self.weight is not None:
            weight = self.weight.gather(2, y.unsqueeze(1).expand(-1, z.shape[2], -1)).transpose(1, 2)
            every = weight if row_weight is None else weight * row_weight.unsqueeze(2)
            rows = rows * weight / every.sum(1, keepdim=True).clamp(min=_LEAST)
        else:
            rows = rows / self.total
        total: Tensor = rows.sum()
        return total


def _column(settings: list[list[Setting]], name: str) -> Tensor:
    """A number of each setting, (S, T)."""
    return torch.tensor([[setting[name] for setting in of] for of in settings])


def _hypers(candidate: Candidate, settings: list[list[Setting]], batch: int | None = None) -> dict[str, Tensor]:
    """The hyper-parameters of the loss, (S, T), or of every row (S batch T)."""
    own = {name: _column(settings, name) for name in candidate.search if not name.endswith("_power")}
    if batch is None:
        return own
    return {name: v.unsqueeze(1).expand(-1, batch, -1).reshape(-1) for name, v in own.items()}


class _AdamW:
    """AdamW over the weights of many models, with a learning rate and a weight decay for each setting."""

    def __init__(self, model: Models, settings: list[list[Setting]], steps: int) -> None:
        self.model, self.steps, self.taken = model, steps, 0
        columns = (_column(settings, name) for name in ("learning_rate", "weight_decay"))
        self.rate, self.decay = (column.to(model.parameters[0].device) for column in columns)
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in model.parameters]

    def keep(self, splits: Tensor, trials: Tensor) -> None:
        """Go on with the models that the model's own ``keep`` keeps."""
        each = splits.unsqueeze(1), trials
        self.rate, self.decay = self.rate[each], self.decay[each]
        for i, (first, second) in enumerate(self.moments):
            self.moments[i] = (
                self.model.pick(first, i, splits, trials),
                self.model.pick(second, i, splits, trials),
            )

    @torch.no_grad()
    def step(self, grads: list[Tensor]) -> None:
        rate = self.rate * (1 - self.taken / self.steps)
        self.taken += 1
        # m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps), with the corrections taken out of the passes over all weights.
        correction = math.sqrt(1 - 0.999**self.taken)
        scale = correction / (1 - 0.9**self.taken)
        for i, (parameter, grad) in enumerate(zip(self.model.parameters, grads, strict=True)):
            first, second = self.moments[i]
            first.lerp_(grad, 0.1)
            second.mul_(0.999).addcmul_(grad, grad, value=0.001)
            below = second.sqrt().add_(1e-8 * correction)
            if self.model.decays[i]:
                parameter.mul_(self.model.by_setting(1 - rate * self.decay, i))
            parameter.addcmul_(torch.div(first, below, out=below), self.model.by_setting(rate, i), value=-scale)


class _Best:
    """The weights of each model at its best checkpoint, the earlier one if they tie; and how it came there.

    Attributes:
        value, step: of the best checkpoint (S, T); the value is negated where less is better, -inf if there is none.
        reached: the step of the last checkpoint (S, T).
        pruned, stopped: how the training ended, if before its time (S, T).
        steps: of the checkpoints so far.
        values, gaps: of each checkpoint (S, T, 8), and the gap's quantiles (S, T, 8, 5); NaN where there are none.
        stale: checkpoints since a model of the split improved (S,).
    """

    def __init__(self, model: Models, task: Task, settings: list[list[Setting]], data: _Data) -> None:
        self.model, self.task, self.settings = model, task, settings
        self.metric, self.weight = task.kind.metrics[task.metric], task.weights("validation")
        self.sign = 1 if self.metric.higher else -1
        shape = len(settings), len(settings[0])
        self.value = torch.full(shape, -torch.inf, dtype=torch.float64)
        self.step, self.reached = (torch.zeros(shape, dtype=torch.int64) for _ in range(2))
        self.pruned, self.stopped = (torch.zeros(shape, dtype=torch.bool) for _ in range(2))
        self.steps: list[int] = []
        self.values = torch.full((*shape, CHECKPOINTS), torch.nan, dtype=torch.float64)
        self.gaps = torch.full((*shape, CHECKPOINTS, len(QUANTILES)), torch.nan)
        self.stale = torch.zeros(len(settings), dtype=torch.int64)
        self.state = [value.clone() for value in model.state]

    def update(self, step: int, z: Tensor, y: Tensor, gaps: Tensor | None, splits: Tensor, trials: Tensor) -> None:
        """A checkpoint of the models in training: of the splits (S',) the settings (S', T').

        Args:
            step: of the checkpoint.
            z: logits (S', N, T', C).
            y: labels of the validation rows by model, (S' T', N).
            gaps: (S' T', 5).
            splits, trials: which models they are.
        """
        each = splits.unsqueeze(1), trials
        settings = [[self.settings[s][t] for t in of] for s, of in zip(splits.tolist(), trials.tolist(), strict=True)]
        log_p = log_probabilities(self.task, z, settings) if self.metric.needs_probabilities else _by_model(z)
        metric = self.metric.weighted(None if self.weight is None else self.weight[splits])
        finite = z.isfinite().all(3).all(1)
        value = torch.where(finite, metric.function(log_p, y).view(trials.shape), torch.nan)
        at = len(self.steps)
        self.steps.append(step)
        self.reached[each] = step
        self.values[(*each, at)] = value
        if gaps is not None:
            self.gaps[(*each, at)] = gaps.view(*trials.shape, -1).to(self.gaps)
        better = finite & (self.sign * value > self.value[each])
        self.value[each] = torch.where(better, self.sign * value, self.value[each])
        self.step[each] = torch.where(better, step, self.step[each])
        self.stale[splits] = torch.where(better.any(1), 0, self.stale[splits] + 1)
        row, column = better.nonzero(as_tuple=True)
        per_model = self.model.per_model
        for i, (kept, value) in enumerate(zip(self.state, self.model.state, strict=True)):
            per_model(kept, i)[splits[row], trials[row, column]] = per_model(value, i)[row, column]

    def chosen(self, values: Tensor) -> Tensor:
        """The setting of each split that is best by these values (S, T), the first if they tie; of the pruned ones only
        if all others failed (S,).
        """
        whole = torch.where(self.pruned, -torch.inf, values)
        ranked = torch.where((whole == -torch.inf).all(1, keepdim=True), values, whole)
        return torch.from_numpy(np.argmax(ranked.numpy(), 1))

    def going_on(self, checkpoint: int, splits: Tensor, trials: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the models in training go on: rows (S'',) of ``splits``, and of each columns (S'', T'') of
        ``trials``.
        """
        staying = torch.arange(len(splits))
        if self.task.patience:
            ends = self.stale[splits] >= self.task.patience
            self.stopped[splits[ends].unsqueeze(1), trials[ends]] = True
            staying = staying[~ends]
        count = trials.shape[1]
        if not self.task.prune or checkpoint not in RUNGS or count == 1:
            return staying, torch.arange(count).expand(len(staying), -1)
        each = splits[staying].unsqueeze(1), trials[staying]
        ranked = self.value[each].argsort(stable=True, dim=1, descending=True)
        going = ranked[:, : count // 2].sort(1).values
        self.pruned[each] = True
        self.pruned[each[0], each[1].gather(1, going)] = False
        return staying, going


def log_probabilities(task: Task, z: Tensor, settings: list[list[Setting]] | None = None) -> Tensor:
    """Logits (S, B, T, C) to log-probabilities (S T, B, C), by the rule that belongs to the loss.

    Where any number of classes may be right, the logits themselves.
    """
    if task.kind is MULTI_LABEL:
        return _by_model(z)
    kind = registry.get(task.candidate.loss)
    if not issubclass(kind, SingleLabelLoss) or kind.probabilities is SingleLabelLoss.probabilities:
        return _by_model(z).log_softmax(2)
    loss = make_loss(task.candidate, **_hypers(task.candidate, settings or [task.settings] * len(z), z.shape[1]))
    assert isinstance(loss, SingleLabelLoss)
    p = loss.probabilities(z.flatten(0, 2)).view(z.shape)
    return _by_model(p.clamp(min=torch.finfo(p.dtype).tiny).log())


def _by_model(z: Tensor) -> Tensor:
    return z.transpose(1, 2).flatten(0, 1)


def _all_records(best: _Best, data: _Data) -> list[dict[str, Any]]:
    """Of the loss, and of what is free."""
    task = best.task
    target, seen = (rows.repeat_interleave(best.value.shape[1], 0) for rows in (data.y_test, data.y_validation))
    with torch.no_grad():
        log_p = log_probabilities(task, best.model(data.x_test, best.state).cpu(), best.settings)
        log_p_validation = log_p
        if task.free:
            z = best.model(data.x_validation, best.state).cpu()
            log_p_validation = log_probabilities(task, z, best.settings)
    records = _records(task, best, best.value, log_p, target)
    metric = best.metric.weighted(best.weight)
    for candidate in task.free:
        adjust = posthoc.tune(candidate.tuned, log_p_validation, seen, task.metric, best.weight)
        value = metric.function(adjust(log_p_validation), seen) * best.sign
        value = torch.where(best.value == -torch.inf, best.value, value.view(best.value.shape))
        records += _records(replace(task, candidate=candidate), best, value, adjust(log_p), target)
    return records


def _records(task: Task, best: _Best, values: Tensor, log_p: Tensor, target: Tensor) -> list[dict[str, Any]]:
    """One for each model, split by split.

    ``curve_steps`` are its checkpoints, ``curve_values`` the metric on the validation rows there, and ``curve_gaps``
    the quantiles of the gap (:func:`gap_quantiles`) if one class is right. ``steps`` is how far it came. Of what is
    free, the curves are those of the models before they were tuned. Where the test rows are given, ``left_out_...`` are
    the metrics without a tenth of them at a time, of the model that is chosen in each split.
    """
    weight = task.weights("test")
    found = {n: m.weighted(weight).function(log_p, target).tolist() for n, m in task.kind.metrics.items()}
    each = None if weight is None else metrics.by_model(weight, len(log_p))
    if task.kind is SINGLE_LABEL:
        curves = _curves(log_p, target, each) | class_counts.of_confusions(log_p, target, each)
    else:
        curves = class_counts.of_classes(log_p > 0, target, each)
    records = []
    for m in range(len(log_p)):
        s, t = divmod(m, values.shape[1])
        value, setting, reached = values[s, t].item(), best.settings[s][t], int(best.reached[s, t])
        done = sum(step <= reached for step in best.steps)
        course: dict[str, Any] = {
            "curve_steps": best.steps[:done],
            "curve_values": best.values[s, t, :done].tolist(),
        }
        if task.kind is SINGLE_LABEL:
            course["curve_gaps"] = best.gaps[s, t, :done].tolist()
        records.append(
            {
                "loss": task.candidate.name,
                "split": s,
                "trial": t,
                "params": task.candidate.describe(setting),
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
    if task.fixed_test:
        _leave_out(task, records, best, values, log_p, target)
    return records


def _leave_out(
    task: Task, records: list[dict[str, Any]], best: _Best, values: Tensor, log_p: Tensor, target: Tensor
) -> None:
    trials = values.shape[1]
    models = torch.arange(len(values)) * trials + best.chosen(values)
    weight = task.weights("test")
    tenths = fixed_test.groups(task.labels[task.splits[0].test])
    found = fixed_test.left_out(task.kind.metrics, log_p[models], target[models], weight, tenths)
    for m, record in enumerate(records):
        chosen = m == models[m // trials]
        record |= {f"left_out_{name}": of[m // trials] if chosen else None for name, of in found.items()}


def _curves(log_p: Tensor, target: Tensor, weight: Tensor | None) -> dict[str, list[Any]]:
    """What the reliability and risk-coverage curves are drawn from, by model."""
    bins = dict(
        zip(("bin_rows", "bin_confidence", "bin_hits"), metrics.reliability(log_p, target, weight), strict=True)
    )
    return {name: v.tolist() for name, v in {**bins, "risks": metrics.risk_coverage(log_p, target, weight)}.items()}


def _batches(generators: list[torch.Generator], rows: int, batch: int) -> Any:
    """Row numbers (S, batch), through all rows of each split in an order of its own, again and again."""
    while True:
        order = torch.stack([torch.randperm(rows, generator=g) for g in generators])
        for start in range(0, rows - batch + 1, batch):
            yield order[:, start : start + batch]
