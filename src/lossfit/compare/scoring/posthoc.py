"""What can be done to a trained model for nothing: a temperature, or a threshold, from validation rows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lossfit.compare.scoring import multilabel_metrics
from lossfit.compare.scoring.metrics import by_model, mean
from lossfit.compare.scoring.tasks import MULTI_LABEL, SINGLE_LABEL
from lossfit.core.checks import check_choice

POWERS = tuple(sorted((i / 8 for i in range(-4, 17)), key=abs))
"""Of the class frequencies, for three classes and more."""
THRESHOLDS = tuple(sorted((i / 4 for i in range(-20, 21)), key=abs))
"""In log-odds, for two classes."""
_TOGETHER = 1 << 20
"""Scores that are looked at together: few calls, and all in the cache."""


class PriorTuning(nn.Module):
    r"""Scores moved by class before the largest is taken, as far as suits a metric on validation rows.

    Of three classes and more the scores become :math:`z_c - t \log \pi_c`, with the class frequencies :math:`\pi` of
    the validation rows and t in [-0.5, 2]; t = 1 undoes the prior. Of two classes t is added to the scores of the
    second, in [-5, 5]: any threshold. The t nearest to 0 is taken among those that are best.

    Args:
        metric: a metric of `lossfit compare` with one right class per row.

    Raises:
        ValueError: there is no such metric.

    Source: G. Collell et al., "A simple plug-in bagging ensemble based on threshold-moving", 2018, section 3, for two
    classes; A. Menon et al., "Long-tail learning via logit adjustment", 2021, section 4.1, for the power.

    Example:
        >>> from lossfit.compare.scoring.posthoc import PriorTuning
        >>> logits = torch.tensor([[2.1, 0.0], [1.6, 0.0], [0.9, 0.0], [0.4, 0.0]])
        >>> tuned = PriorTuning("balanced_accuracy").fit(logits, torch.tensor([0, 0, 1, 1]))
        >>> tuned(logits).argmax(1)
        tensor([0, 0, 1, 1])
    """

    offset: Tensor

    def __init__(self, metric: str) -> None:
        super().__init__()
        check_choice("metric", metric, SINGLE_LABEL.choices())
        self.metric = metric
        self.register_buffer("offset", torch.zeros(()))

    def fit(self, logits: Tensor, labels: Tensor) -> PriorTuning:
        """Find t on logits (N, C) and class indices (N,)."""
        self.offset = prior_offsets(logits.detach().log_softmax(1).unsqueeze(0), labels.unsqueeze(0), self.metric)[0]
        return self

    def forward(self, logits: Tensor) -> Tensor:
        """Logits (..., C), moved."""
        return logits + self.offset.to(logits.dtype)


def prior_offsets(log_p: Tensor, labels: Tensor, metric: str, weight: Tensor | None = None) -> Tensor:
    """What to add to the scores of each class (M, C), from log-probabilities (M, N, C) and labels (M, N)."""
    card = SINGLE_LABEL.choices()[metric].weighted(weight)
    classes = log_p.shape[2]
    if classes == 2:
        direction, steps = log_p.new_tensor([0.0, 1.0]).expand(len(log_p), 2), THRESHOLDS
    else:
        each = torch.ones_like(labels, dtype=log_p.dtype)
        if weight is not None:  # as so many rows
            each = by_model(weight / weight.mean(1, keepdim=True), len(log_p)).to(log_p)
        counts = log_p.new_zeros(len(log_p), classes).scatter_add(1, labels, each)
        direction, steps = -(counts.clamp(min=1) / labels.shape[1]).log(), POWERS
    best = torch.full((len(log_p),), -torch.inf, dtype=torch.float64)
    chosen = log_p.new_zeros(len(log_p))
    for step in steps:
        moved = log_p + step * direction.unsqueeze(1)
        if card.needs_probabilities:
            moved = moved.log_softmax(2)
        value = card.function(moved, labels) * (1 if card.higher else -1)
        better = value > best
        best = torch.where(better, value, best)
        chosen = torch.where(better, step, chosen)
    return chosen.unsqueeze(1) * direction


class TemperatureTuning(nn.Module):
    r"""Scores divided by the temperature of the lowest log loss on validation rows, in [0.1, 10].

    Few validation rows may all be right, and then the lowest log loss is at temperature 0. So the labels are smoothed
    as Platt smooths his: by :math:`1 / (N + 2)`, spread over all classes. `lossfit.calibration.TemperatureScaling` is
    the unsmoothed one, for rows in plenty.

    Source: C. Guo et al., "On Calibration of Modern Neural Networks", 2017, section 4.2; J. Platt, "Probabilistic
    Outputs for Support Vector Machines", 1999, section 2.2, for the smoothing.

    Example:
        >>> from lossfit.compare.scoring.posthoc import TemperatureTuning
        >>> logits = torch.tensor([[9.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 0.0]])
        >>> tuned = TemperatureTuning().fit(logits, torch.tensor([0, 0, 1, 1]))
        >>> tuned.temperature  # three of four are right
        tensor(10.)
    """

    temperature: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.ones(()))

    def fit(self, logits: Tensor, labels: Tensor) -> TemperatureTuning:
        """Find the temperature on logits (N, C) and class indices (N,)."""
        self.temperature = temperatures(logits.detach().log_softmax(1).unsqueeze(0), labels.unsqueeze(0))[0]
        return self

    def forward(self, logits: Tensor) -> Tensor:
        """Logits (..., C), divided."""
        return logits / self.temperature.to(logits.dtype)


def temperatures(log_p: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """The best of 81 temperatures for each model (M,), from log-probabilities (M, N, C) and labels (M, N)."""
    smooth = 1 / (labels.shape[1] + 2)
    grid = torch.logspace(-1, 1, 81).to(log_p)
    each = None if weight is None else by_model(weight, len(log_p))
    found = []
    for some in grid.split(max(1, _TOGETHER // log_p.numel())):
        scaled = (log_p / some.view(-1, 1, 1, 1)).log_softmax(3)
        hit = scaled.gather(3, labels.expand(len(some), -1, -1).unsqueeze(3)).squeeze(3)
        told = (1 - smooth) * hit + smooth * scaled.mean(3)
        found += [-mean(of_one, each) for of_one in told]
    return grid[torch.stack(found).argmin(0)]


class ThresholdTuning(nn.Module):
    r"""Thresholds other than 0 for the scores of classes of which any number may be right, from validation rows.

    For macro F1 each class has its own, the one of the best F1 of the class: macro F1 is their mean. For other metrics
    all classes have the same. They are in [-5, 5], in log-odds; the one nearest to 0 is taken among the best.

    Args:
        metric: a metric of `lossfit compare` with any number of right classes per row.

    Raises:
        ValueError: there is no such metric.

    Source: Z. Lipton, C. Elkan and B. Naryanaswamy, "Optimal Thresholding of Classifiers to Maximize F1 Measure",
    2014.

    Example:
        >>> from lossfit.compare.scoring.posthoc import ThresholdTuning
        >>> logits = torch.tensor([[-1.1, 3.0], [-1.2, -3.0], [-2.1, 3.0], [-2.2, -3.0]])
        >>> tuned = ThresholdTuning("macro_f1").fit(logits, torch.tensor([[1, 1], [1, 0], [0, 1], [0, 0]]))
        >>> (tuned(logits) > 0).int()
        tensor([[1, 1],
                [1, 0],
                [0, 1],
                [0, 0]], dtype=torch.int32)
    """

    offset: Tensor

    def __init__(self, metric: str) -> None:
        super().__init__()
        check_choice("metric", metric, MULTI_LABEL.choices())
        self.metric = metric
        self.register_buffer("offset", torch.zeros(()))

    def fit(self, logits: Tensor, labels: Tensor) -> ThresholdTuning:
        """Find the thresholds on logits (N, C) and labels (N, C), each 0 or 1."""
        self.offset = threshold_offsets(logits.detach().unsqueeze(0), labels.bool().unsqueeze(0), self.metric)[0]
        return self

    def forward(self, logits: Tensor) -> Tensor:
        """Logits (..., C), moved so that the threshold is 0."""
        return logits + self.offset.to(logits.dtype)


def threshold_offsets(scores: Tensor, labels: Tensor, metric: str, weight: Tensor | None = None) -> Tensor:
    """What to add to the scores of each class (M, C), from scores and labels (M, N, C)."""
    models, _, classes = scores.shape
    each = None if weight is None else by_model(weight, models)
    best = torch.full((models, classes), -torch.inf, dtype=torch.float64)
    offset = scores.new_zeros(models, classes)
    for step in THRESHOLDS:
        if metric == "macro_f1":
            value = multilabel_metrics.class_f1(scores + step, labels, each)
        else:
            card = MULTI_LABEL.choices()[metric]
            value = (card.function(scores + step, labels, each) * (1 if card.higher else -1)).unsqueeze(1)
        better = value > best
        best = torch.where(better, value, best)
        offset = torch.where(better, step, offset)
    return offset


class Step(NamedTuple):
    """What is done to scores after training, for M models.

    Attributes:
        kind: "prior", "temperature" or "thresholds".
        values: what is added to the scores of each class (M, C); or the temperatures (M, 1).
    """

    kind: str
    values: Tensor

    def __call__(self, scores: Tensor) -> Tensor:
        """Log-probabilities (M, N, C), or scores where any number of classes may be right, changed."""
        values = self.values.unsqueeze(1).to(scores)
        if self.kind == "thresholds":
            return scores + values
        return (scores + values if self.kind == "prior" else scores / values).log_softmax(2)

    @property
    def numbers(self) -> list[float]:
        """Of the first model."""
        found: list[float] = self.values[0].tolist()
        return found


def fit(kind: str, scores: Tensor, labels: Tensor, metric: str, weight: Tensor | None = None) -> Step:
    """The step that suits validation rows best.

    Args:
        kind: "prior", "temperature" or "thresholds"; the temperature is the one of the lowest log loss, whatever the
            metric.
        scores, labels: log-probabilities (M, N, C) and labels (M, N); for thresholds scores and labels (M, N, C).
        metric: what the prior or the thresholds are tuned for.
        weight: what the rows count (S, N), if they do not count the same.
    """
    if kind == "prior":
        return Step(kind, prior_offsets(scores, labels, metric, weight))
    if kind == "thresholds":
        return Step(kind, threshold_offsets(scores, labels, metric, weight))
    return Step(kind, temperatures(scores, labels, weight).unsqueeze(1))
