"""Train all settings of one loss on several splits at once, and measure them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lossfit import registry
from lossfit.compare import detail, metrics, posthoc
from lossfit.compare.features import Matrices
from lossfit.compare.kinds import MULTI_LABEL, SINGLE_LABEL, Kind
from lossfit.compare.models import Stacked
from lossfit.compare.search import Candidate, Setting, make_loss
from lossfit.compare.splits import Split
from lossfit.losses.metric import MetricLoss
from lossfit.losses.single import SingleLabelLoss

BATCH = 128
STEPS = 400
EPOCHS = 10
CHECKPOINTS = 4
_LEAST = 1e-12


@dataclass(frozen=True)
class Task:
    """What is trained at once.

    Attributes:
        candidate, settings: a loss and its T settings.
        splits, matrices: S splits of the rows, and their features.
        labels: the true class of every row (N,), or which classes are right (N, C).
        classes: how many there are.
        hidden: units of the hidden layer, 0 for a linear model.
        metric: what the best checkpoint is chosen by, on the validation rows.
        seeds: one for each split; with the split they fix weights and batches.
        weight: what each row counts (N,), in training and in the metrics.
        free: what else is measured of the same models, after tuning them on the validation rows.
    """

    candidate: Candidate
    settings: list[Setting]
    splits: list[Split]
    matrices: list[Matrices]
    labels: np.ndarray
    classes: int
    hidden: int
    metric: str
    seeds: list[int]
    weight: np.ndarray | None = None
    free: list[Candidate] = field(default_factory=list)

    @property
    def kind(self) -> Kind:
        return MULTI_LABEL if self.labels.ndim == 2 else SINGLE_LABEL

    def weights(self, part: Literal["train", "validation", "test"]) -> Tensor | None:
        """What the rows of a part count in each split (S, N), if they do not count the same."""
        if self.weight is None:
            return None
        return torch.from_numpy(np.stack([self.weight[getattr(split, part)] for split in self.splits])).float()


def train(task: Task, progress: Callable[[float], None] = lambda share: None) -> list[dict[str, Any]]:
    """One record for each training, split by split: validation and test metrics, curves, and the best step.

    AdamW with a linearly falling learning rate, for 400 steps of 128 rows or 10 passes over the data, whichever is
    more. The weights at the best of 4 checkpoints are kept, by the metric on the validation rows. A model whose loss
    stops being finite keeps its last good checkpoint.

    The records of the candidates in ``task.free`` come after those of the loss itself.
    """
    return train_for(task, [task.metric], progress)[task.metric]


def train_for(
    task: Task, wanted: list[str], progress: Callable[[float], None] = lambda share: None
) -> dict[str, list[dict[str, Any]]]:
    """The records of :func:`train` for each of several metrics, from one training: they differ in the checkpoints."""
    generators = [torch.Generator().manual_seed(seed) for seed in task.seeds]
    x, x_validation, x_test = (torch.from_numpy(np.stack(m)) for m in zip(*task.matrices, strict=True))
    y = torch.from_numpy(np.stack([s.seen[s.train] for s in task.splits]))
    y_validation = torch.from_numpy(np.stack([s.seen[s.validation] for s in task.splits]))
    y_test = torch.from_numpy(np.stack([task.labels[s.test] for s in task.splits]))
    trials = len(task.settings)
    model = Stacked(x.shape[2], task.classes, trials, task.hidden, generators)
    batch = min(BATCH, x.shape[1])
    steps = max(STEPS, EPOCHS * (x.shape[1] // batch))
    weight = task.weights("train")
    objective = Objective(task, y, batch, weight)
    optimizer = _AdamW(model, task.settings, steps)
    kept = {metric: _Best(model, replace(task, metric=metric), x_validation, y_validation) for metric in wanted}
    rows = _batches(generators, x.shape[1], batch)
    for step in range(1, steps + 1):
        at = next(rows)
        z = model(x.gather(1, at.unsqueeze(2).expand(-1, -1, x.shape[2])))
        loss = objective(z, y[torch.arange(len(at)).unsqueeze(1), at], None if weight is None else weight.gather(1, at))
        optimizer.step(torch.autograd.grad(loss, model.parameters))
        if step * CHECKPOINTS // steps > (step - 1) * CHECKPOINTS // steps:
            for best in kept.values():
                best.update(step)
        progress(step / steps)
    return {metric: _all_records(best, x_test, y_test) for metric, best in kept.items()}


class Objective:
    """The sum over all models of the mean of their loss over a batch."""

    def __init__(self, task: Task, y: Tensor, batch: int, row_weight: Tensor | None = None) -> None:
        self.total = batch if row_weight is None else batch * row_weight.mean(1).clamp(min=_LEAST).view(-1, 1, 1)
        self.batch, self.classes, self.kind = batch, task.classes, task.kind
        settings = {
            name: torch.tensor([s[name] for s in task.settings])
            for name in task.candidate.search
            if not name.endswith("_power")
        }
        if registry.get(task.candidate.loss).family == "metric":
            self.loss = make_loss(task.candidate, **settings)
        else:
            shape = (len(task.splits), batch, len(task.settings))
            per_row = {name: values.expand(shape).reshape(-1) for name, values in settings.items()}
            self.loss = make_loss(task.candidate, reduction="none", **per_row)
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

    @staticmethod
    def _table(task: Task, name: str, logarithm: Tensor) -> Tensor | None:
        """Logarithms (S, C) times each setting's power, (S, T, C)."""
        if name not in task.candidate.search:
            return None
        return torch.tensor([s[name] for s in task.settings]).view(1, -1, 1) * logarithm.unsqueeze(1)

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


class _AdamW:
    """AdamW over stacked weights, with a learning rate and a weight decay for each setting."""

    def __init__(self, model: Stacked, settings: list[Setting], steps: int) -> None:
        self.model, self.steps, self.taken = model, steps, 0
        self.rate = torch.tensor([s["learning_rate"] for s in settings])
        self.decay = torch.tensor([s["weight_decay"] for s in settings])
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in model.parameters]

    @torch.no_grad()
    def step(self, grads: tuple[Tensor, ...]) -> None:
        rate = self.rate * (1 - self.taken / self.steps)
        self.taken += 1
        for i, (parameter, grad) in enumerate(zip(self.model.parameters, grads, strict=True)):
            first, second = self.moments[i]
            first.lerp_(grad, 0.1)
            second.lerp_(grad.square(), 0.001)
            update = (first / (1 - 0.9**self.taken)).div_(second.div(1 - 0.999**self.taken).sqrt_().add_(1e-8))
            if i % 2 == 0:  # biases, the odd ones, do not decay
                parameter.mul_(self.model.by_setting(1 - rate * self.decay, i))
            parameter.sub_(update.mul_(self.model.by_setting(rate, i)))


class _Best:
    """The weights of each model at its best checkpoint; the earlier one if they tie."""

    def __init__(self, model: Stacked, task: Task, x: Tensor, y: Tensor) -> None:
        self.model, self.task, self.x, self.y = model, task, x, y
        self.metric = task.kind.metrics[task.metric].weighted(task.weights("validation"))
        shape = len(task.splits), len(task.settings)
        self.value = torch.full(shape, -torch.inf, dtype=torch.float64)
        self.step = torch.zeros(shape, dtype=torch.int64)
        self.parameters = [p.detach().clone() for p in model.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        z = self.model(self.x)
        log_p = log_probabilities(self.task, z) if self.metric.needs_probabilities else _by_model(z)
        target = self.y.repeat_interleave(z.shape[2], 0)
        value = self.metric.function(log_p, target).view(self.value.shape) * (1 if self.metric.higher else -1)
        finite = z.isfinite().all(3).all(1)
        better = finite & (value > self.value)
        self.value = torch.where(better, value, self.value)
        self.step = torch.where(better, step, self.step)
        for i, (kept, parameter) in enumerate(zip(self.parameters, self.model.parameters, strict=True)):
            kept.copy_(torch.where(self.model.by_setting(better, i), parameter, kept))


def log_probabilities(task: Task, z: Tensor) -> Tensor:
    """Logits (S, B, T, C) to log-probabilities (S T, B, C), by the rule that belongs to the loss.

    Where any number of classes may be right, the logits themselves.
    """
    if task.kind is MULTI_LABEL:
        return _by_model(z)
    kind = registry.get(task.candidate.loss)
    if not issubclass(kind, SingleLabelLoss) or kind.probabilities is SingleLabelLoss.probabilities:
        return _by_model(z).log_softmax(2)
    out = []
    for t, setting in enumerate(task.settings):
        loss = make_loss(task.candidate, **task.candidate.describe(setting))
        assert isinstance(loss, SingleLabelLoss)
        p = loss.probabilities(z[:, :, t].flatten(0, 1)).view(z.shape[0], z.shape[1], -1)
        out.append(p.clamp(min=torch.finfo(p.dtype).tiny).log())
    return torch.stack(out, 1).flatten(0, 1)


def _by_model(z: Tensor) -> Tensor:
    return z.transpose(1, 2).flatten(0, 1)


def _all_records(best: _Best, x: Tensor, y: Tensor) -> list[dict[str, Any]]:
    """Of the loss, and of what is free."""
    task = best.task
    target, seen = (rows.repeat_interleave(len(task.settings), 0) for rows in (y, best.y))
    with torch.no_grad():
        log_p = log_probabilities(task, best.model(x, best.parameters))
        log_p_validation = log_probabilities(task, best.model(best.x, best.parameters)) if task.free else log_p
    records = _records(task, best.value, best.step, log_p, target)
    weight = task.weights("validation")
    for candidate in task.free:
        adjust = posthoc.tune(candidate.tuned, log_p_validation, seen, task.metric, weight)
        value = best.metric.function(adjust(log_p_validation), seen) * (1 if best.metric.higher else -1)
        value = torch.where(best.value == -torch.inf, best.value, value.view(best.value.shape))
        records += _records(replace(task, candidate=candidate), value, best.step, adjust(log_p), target)
    return records


def _records(task: Task, values: Tensor, steps: Tensor, log_p: Tensor, target: Tensor) -> list[dict[str, Any]]:
    weight = task.weights("test")
    found = {n: m.weighted(weight).function(log_p, target).tolist() for n, m in task.kind.metrics.items()}
    each = None if weight is None else metrics.by_model(weight, len(log_p))
    if task.kind is SINGLE_LABEL:
        curves = _curves(log_p, target, each) | detail.of_confusions(log_p, target, each, detail.chosen(values))
    else:
        curves = detail.of_classes(log_p > 0, target, each, detail.chosen(values))
    sign = 1 if task.kind.metrics[task.metric].higher else -1
    records = []
    for m in range(len(log_p)):
        s, t = divmod(m, len(task.settings))
        value = values[s, t].item()
        records.append(
            {
                "loss": task.candidate.name,
                "split": s,
                "trial": t,
                "params": task.candidate.describe(task.settings[t]),
                "learning_rate": task.settings[t]["learning_rate"],
                "weight_decay": task.settings[t]["weight_decay"],
                "failed": value == -torch.inf,
                "best_step": int(steps[s, t]),
                "validation": sign * value,
                **{f"test_{name}": values[m] for name, values in found.items()},
                **{name: values[m] for name, values in curves.items()},
            }
        )
    return records


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
