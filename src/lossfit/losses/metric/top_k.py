"""Metrics of who leads: the target among the first k classes, a class's rows before the rows that spoil precision."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from lossfit.core.batch import Targets
from lossfit.core.checks import check_constant
from lossfit.core.hyper import Hyper, HyperValue
from lossfit.gaps import gap
from lossfit.losses.metric.base import Common, MetricLoss
from lossfit.losses.single_label.link import softplus

_RECIPE = "Jianlin Su, How to Train Your Accuracy?, 2022, section A new perspective"


class TopKAccuracyLoss(MetricLoss):
    r"""Loss of the top-k accuracy, the share of rows whose target is among the k classes with the highest scores.

    Smooth, a row counts by the softmax probability of its target after the k - 1 best rivals are left out,

    .. math:: p = \mathrm{sigmoid}\Big(z_y - \log\sum_{j \text{ beyond the } k - 1 \text{ best rivals}} e^{z_j}\Big).

    Steepened, the loss is the mean of :math:`-\log p`; with k = 1 it is cross-entropy. The best rivals get no
    gradient: they may stand before the target.

    Args:
        k: how many classes may be named, at least 1 and fewer than there are.
        common: see :class:`MetricLoss`.

    Range: [0, inf), with ``steep=False`` [0, 1].

    Example:
        >>> loss = lossfit.TopKAccuracyLoss(k=2)
        >>> loss(torch.tensor([[2.0, 3.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.2395)
    """

    formula = "-log p, with p the target's probability without the k - 1 best rivals"
    source = (
        "M. Lapin, M. Hein and B. Schiele, Loss Functions for Top-k Error: Analysis and Insights, 2016, "
        "truncated top-k entropy"
    )
    hypers = {"k": Hyper("how many classes may be named", 1)}

    k: int

    def __init__(self, k: int = 5, **common: Unpack[Common]) -> None:
        if not isinstance(k, int) or isinstance(k, bool):
            raise TypeError(f"Expected `k` to be an integer, but got {k!r}.")
        super().__init__({"k": k}, **common)

    def _terms(self, scores: Tensor, target: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        classes = scores.shape[-1]
        if self.k >= classes:
            raise ValueError(
                f"Expected `k` below the number of classes, since every row is right otherwise, but got {self.k} for "
                f"{classes} classes."
            )
        rivals = scores.detach().scatter(-1, target.unsqueeze(-1), -torch.inf)
        best = rivals.topk(self.k - 1, dim=-1).indices
        rest = scores.scatter(-1, best, -torch.inf).reshape(-1, classes)
        d = gap.gap_rows(rest, Targets(target.reshape(-1), classes), "soft").log_odds.view(target.shape)
        d = d.masked_fill(scores.isnan().any(-1), torch.nan)  # else it would be left out as a best rival
        miss, excess = _missed(-d)
        return (share * miss).sum(-1), (share * excess).sum(-1)


class RecallAtPrecisionLoss(MetricLoss):
    r"""Loss of the recall at a precision: the largest recall of a class at which its precision is at least as asked.

    Rows are ranked by the log-odds :math:`d` of the class. Going down the ranking, one row of another class is the
    first that must stay out, lest the precision fall below the one asked for; the recall is the share of the class's
    rows before it. Smooth, with :math:`t` the log-odds of that row, it is the mean of
    :math:`\mathrm{sigmoid}(d_i - t)` over the class's rows; steepened, the loss is the mean of
    :math:`\log(1 + e^{t - d_i})`.

    With two classes the recall is that of class 1. With more it is each class's against the rest, and the mean over
    the classes that occur in the batch.

    Args:
        precision: the least precision, in (0, 1].
        common: see :class:`MetricLoss`.

    The loss jumps where a row that comes forward lets another one in. The only rows of other classes with a gradient
    are the blocking ones.

    Range: [0, inf), with ``steep=False`` [0, 1].

    Example:
        >>> loss = lossfit.RecallAtPrecisionLoss(precision=0.8)
        >>> logits = torch.tensor([[0.0, 3.0], [0.0, 1.0], [0.0, -1.0], [0.0, -2.0]])
        >>> labels = torch.tensor([1, 0, 1, 0])
        >>> loss(logits, labels), loss.smooth(logits, labels)
        (tensor(1.1269), tensor(0.5000))
    """

    formula = "mean over a class's rows of log(1 + exp(t - d)), t the log-odds of the row that spoils the precision"
    source = f"{_RECIPE}; E. Eban et al., Scalable Learning of Non-Decomposable Objectives, 2017, section 3"
    hypers = {"precision": Hyper("least precision", 0.0, 1.0, open_low=True)}

    def __init__(self, precision: HyperValue = 0.9, **common: Unpack[Common]) -> None:
        check_constant(precision=precision if isinstance(precision, Tensor) else None)
        super().__init__({"precision": precision}, **common)

    def _terms(self, scores: Tensor, target: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        classes, precision = scores.shape[-1], self._hyper("precision", torch.Size())
        flat = scores.reshape(-1, classes)
        d = gap.all_log_odds(flat, "soft").view(scores.shape)
        own = target.unsqueeze(-1) == torch.arange(classes, device=target.device)
        if classes == 2:
            d, own = d[..., 1:], own[..., 1:]
        weight = share.unsqueeze(-1).expand(own.shape)
        at, blocked = _blocking(d.detach(), own, weight.double(), precision)
        short = torch.where(own & blocked, d.gather(-2, at) - d, 0.0)
        rows = torch.where(own, weight, 0.0)
        of_class = rows.sum(-2)
        there = of_class > 0
        price = torch.where(blocked, rows, 0.0) / torch.where(there, of_class, 1.0).unsqueeze(-2)
        count = there.sum(-1).clamp(min=1)
        miss, excess = ((price * term).sum((-2, -1)) / count for term in _missed(short))
        return miss, excess


def _blocking(d: Tensor, own: Tensor, weight: Tensor, precision: float | Tensor) -> tuple[Tensor, Tensor]:
    """The row (..., 1, C) that must stay out lest the precision fall, and whether there is one."""
    order = d.argsort(dim=-2, descending=True)
    d, own, weight = (v.gather(-2, order) for v in (d, own, weight))
    hits, count = (weight * own).cumsum(-2), weight.cumsum(-2)
    # Rows of equal scores come in together or not at all.
    ends = torch.cat([d[..., 1:, :] < d[..., :-1, :], torch.ones_like(own[..., :1, :])], -2)
    place = torch.arange(1, d.shape[-2] + 1, device=d.device).unsqueeze(-1)
    enough = ends & (hits >= precision * count * (1 - 1e-9))
    let_in = (enough * place).amax(-2, keepdim=True)
    blocking = ~own & (weight > 0) & (place > let_in)
    return order.gather(-2, blocking.int().argmax(-2, keepdim=True)), blocking.any(-2, keepdim=True)


def _missed(x: Tensor) -> tuple[Tensor, Tensor]:
    """The chance to miss at log-odds x, and by how much more minus the logarithm of the chance not to is."""
    miss = torch.sigmoid(x)
    return miss, softplus(x) - miss
