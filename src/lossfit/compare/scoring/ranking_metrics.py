"""Metrics of the order of scores, for many models at once, differentiable in the rows' weights.

Where classes are ranked one against the rest, a class's score is its log-probability; of two classes, the second one's
log-odds.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from lossfit.compare.scoring.metrics import Metric, mean, ratio


def area_under_curve(scores: Tensor, positive: Tensor, weight: Tensor) -> Tensor:
    """The chance that a positive row scores above a negative one, ties counted half, (..., N) to (...).

    1/2 where there are no positive or no negative rows.

    Source: J. Hanley and B. McNeil, "The Meaning and Use of the Area under a Receiver Operating Characteristic (ROC)
    Curve", 1982, section on the Wilcoxon statistic.
    """
    ordered, order = scores.sort(dim=-1)
    each, above = weight.gather(-1, order), positive.gather(-1, order)
    first, last = _ties(ordered)
    cumulated = pad((each * ~above).cumsum(-1), (1, 0))
    below = (cumulated.gather(-1, first) + cumulated.gather(-1, last)) / 2
    pairs = (each * above).sum(-1) * (each * ~above).sum(-1)
    return torch.where(pairs > 0, (each * above * below).sum(-1) / torch.where(pairs > 0, pairs, 1.0), 0.5)


def precision_area(scores: Tensor, positive: Tensor, weight: Tensor) -> Tensor:
    """Average precision: the mean over positive rows of the precision among the rows that score as high, (..., N).

    0 without positive rows.

    Source: E. Voorhees and D. Harman, "TREC: Experiment and Evaluation in Information Retrieval", 2005, section 3.
    """
    ordered, order = (-scores).sort(dim=-1)
    each, above = weight.gather(-1, order), positive.gather(-1, order)
    last = _ties(ordered)[1] - 1
    hits, rows = (each * above).cumsum(-1).gather(-1, last), each.cumsum(-1).gather(-1, last)
    return ratio((each * above * ratio(hits, rows)).sum(-1), (each * above).sum(-1))


def _ties(ordered: Tensor) -> tuple[Tensor, Tensor]:
    """Of each of the ordered scores the place of the first that is equal, and the place after the last."""
    ordered = ordered.contiguous()
    return torch.searchsorted(ordered, ordered), torch.searchsorted(ordered, ordered, right=True)


def auc(log_p: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Area under the ROC curve of the second class of two; of more, the mean over the classes that occur."""
    return _over_classes(area_under_curve, log_p, target, weight)


def weighted_auc(log_p: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """The same, each class counted by its rows."""
    return _over_classes(area_under_curve, log_p, target, weight, by_rows=True)


def average_precision(log_p: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Average precision of the second class of two; of more, the mean over the classes that occur."""
    return _over_classes(precision_area, log_p, target, weight)


def _over_classes(
    function: Callable[[Tensor, Tensor, Tensor], Tensor],
    log_p: Tensor,
    target: Tensor,
    weight: Tensor | None,
    by_rows: bool = False,
) -> Tensor:
    each = torch.ones_like(target, dtype=torch.float64) if weight is None else weight.double()
    if log_p.shape[2] == 2:
        return function(log_p[..., 1] - log_p[..., 0], target == 1, each)
    positive = one_hot(target, log_p.shape[2]).bool().mT  # (M, C, N)
    each = each.unsqueeze(1).expand(positive.shape)
    rows = (each * positive).sum(2)
    share = rows if by_rows else (rows > 0).double()
    return ratio((share * function(log_p.mT.contiguous(), positive, each)).sum(1), share.sum(1))


def top_k_accuracy(k: int) -> Callable[..., Tensor]:
    """Whether the right class is among the k with the highest scores; of equal scores the first class is higher."""

    def function(scores: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        own = scores.gather(2, target.unsqueeze(2))
        earlier = torch.arange(scores.shape[2]) < target.unsqueeze(2)
        rank = ((scores > own) | ((scores == own) & earlier)).sum(2)
        return mean(rank < k, weight)

    return function


METRICS = {
    "auc": Metric(auc, True, "Area under the ROC curve", False, True),
    "weighted_auc": Metric(weighted_auc, True, "Weighted area under the ROC curve", False, True),
    "average_precision": Metric(average_precision, True, "Average precision", False, True),
    "top_3_accuracy": Metric(top_k_accuracy(3), True, "Top-3 accuracy", True, False),
    "top_5_accuracy": Metric(top_k_accuracy(5), True, "Top-5 accuracy", True, False),
}
