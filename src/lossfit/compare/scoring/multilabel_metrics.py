"""Metrics of any number of right classes, for many models at once: scores (M, N, L) and labels (M, N, L) to (M,).

A class is predicted where its score is above 0. Undefined ratios, 0 of 0, are 0, as in scikit-learn.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lossfit.compare.scoring.metrics import Metric, mean, ratio
from lossfit.compare.scoring.ranking_metrics import precision_area


def subset_accuracy(scores: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """The share of rows with every label right."""
    return mean(((scores > 0) == labels).all(2), weight)


def hamming_loss(scores: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """The share of labels that are wrong."""
    return mean(((scores > 0) != labels).double().mean(2), weight)


def micro_f1(scores: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """F1 of all labels together."""
    return _f1(scores > 0, labels, (1, 2), weight)


def macro_f1(scores: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """The mean over the classes of their F1."""
    return class_f1(scores, labels, weight).mean(1)


def class_f1(scores: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """F1 of each class, (M, L)."""
    return _f1(scores > 0, labels, (1,), weight)


def sample_f1(scores: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """The mean over the rows of their F1."""
    return mean(_f1(scores > 0, labels, (2,)), weight)


def ranking_loss(scores: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """The mean over the rows of the share of pairs, one right and one wrong, in the wrong order or tied."""
    right, wrong = labels.unsqueeze(3), ~labels.unsqueeze(2)
    pairs = (right & wrong).sum((2, 3))
    reversed_pairs = (right & wrong & (scores.unsqueeze(3) <= scores.unsqueeze(2))).sum((2, 3))
    return mean(reversed_pairs.double() / pairs.clamp(min=1), weight)


def ranking_precision(scores: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Label ranking average precision: for each right class, the share of right ones among those that score as high."""
    as_high = scores.unsqueeze(2) >= scores.unsqueeze(3)  # (M, N, L of interest, L)
    precision = (as_high & labels.unsqueeze(2)).sum(3).double() / as_high.sum(3)
    count = labels.sum(2)
    of_row = (precision * labels).sum(2) / count.clamp(min=1)
    return mean(torch.where((count == 0) | (count == labels.shape[2]), 1.0, of_row), weight)


def mean_average_precision(scores: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """The mean of the average precision of the classes that occur."""
    positive = labels.mT.contiguous()
    each = torch.ones_like(labels[..., 0], dtype=torch.float64) if weight is None else weight.double()
    each = each.unsqueeze(1).expand(positive.shape)
    there = ((each * positive).sum(2) > 0).double()
    return ratio((there * precision_area(scores.mT.contiguous(), positive, each)).sum(1), there.sum(1))


def coverage_error(scores: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """How many classes one must take, from the highest score down, to have all right ones; the mean over rows."""
    lowest = torch.where(labels, scores, torch.inf).amin(2, keepdim=True)
    return mean((scores >= lowest).sum(2), weight)


def _f1(predicted: Tensor, labels: Tensor, over: tuple[int, ...], weight: Tensor | None = None) -> Tensor:
    each = 1.0 if weight is None else weight.double().unsqueeze(2)
    hits = ((predicted & labels).double() * each).sum(over)
    found = (predicted.double() * each).sum(over) + (labels.double() * each).sum(over)
    return torch.where(found > 0, 2 * hits / torch.where(found > 0, found, 1.0), 0.0)


METRICS = {
    "micro_f1": Metric(micro_f1, True, "Micro F1", True, False),
    "macro_f1": Metric(macro_f1, True, "Macro F1", True, False),
    "sample_f1": Metric(sample_f1, True, "Sample F1", True, False),
    "subset_accuracy": Metric(subset_accuracy, True, "Subset accuracy", True, False),
    "hamming_loss": Metric(hamming_loss, False, "Hamming loss", True, False),
    "ranking_loss": Metric(ranking_loss, False, "Ranking loss", True, False),
    "ranking_precision": Metric(ranking_precision, True, "Label ranking precision", True, False),
}
ON_REQUEST = {
    "mean_average_precision": Metric(mean_average_precision, True, "Mean average precision", False, False),
    "coverage_error": Metric(coverage_error, False, "Coverage error", False, False),
}
"""Measured if it is asked for."""
