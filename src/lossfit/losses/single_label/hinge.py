"""Losses of the gap itself: how far the target must lead its rivals."""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor
from torch.nn.functional import relu

from lossfit.core.batch import Targets
from lossfit.core.hyper import Hyper, HyperValue, Number
from lossfit.core.numerics import accumulation_dtype
from lossfit.gaps.types import Kind
from lossfit.losses.single_label.base import Common, SingleLabelLoss
from lossfit.losses.single_label.link import AnalyticLoss, Link, LinkFunction, apply, exp, softplus
from lossfit.losses.single_label.settings import Settings

_MARGIN = Hyper("lead the target must have", search=(0.0, 0.5, 1.0, 2.0, 4.0))


def logistic_margin(d: Tensor, margin: Number) -> Link:
    short = margin - d
    neg_grad = torch.sigmoid(short)
    return Link(softplus(short), neg_grad, (lambda: neg_grad,))


class LogisticMarginLoss(AnalyticLoss):
    r"""Logistic loss of the gap with a margin, :math:`\log(1 + e^{m - d})`.

    On the soft gap and without a margin it is cross-entropy; with one, cross-entropy after m is taken off the target's
    score.

    Args:
        margin: m, the lead at which the loss is log 2.
        gap: "soft" or "hard".
        common: see :class:`SingleLabelLoss`.

    Range: [0, inf).

    Source: Jianlin Su, "Looking Back at Softmax", 2020, section on hinge, maximum and log-sum-exp.

    Example:
        >>> loss = lossfit.LogisticMarginLoss(margin=1.0)
        >>> loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.5514)
    """

    formula = "log(1 + exp(m - d))"
    source = "Jianlin Su, Looking Back at Softmax, 2020"
    hypers = {"margin": _MARGIN}
    link = staticmethod(logistic_margin)

    def __init__(self, margin: HyperValue = 1.0, *, gap: Kind = "soft", **common: Unpack[Common]) -> None:
        super().__init__(hypers={"margin": margin}, gap=gap, **common)


def _finite(neg_grad: Tensor) -> Tensor:
    """An infinite gradient would be no number where the loss weighs nothing, as that of a class without a share."""
    return neg_grad.clamp(max=torch.finfo(neg_grad.dtype).max)


def exponential_margin(d: Tensor, scale: Number) -> Link:
    value = exp(-scale * d)
    return Link(value, _finite(scale * value), (lambda: -d * value,))


class ExponentialMarginLoss(AnalyticLoss):
    r"""Exponential loss of the gap, :math:`e^{-s d}`, the loss of boosting.

    Args:
        scale: s, above 0.
        gap: "soft" (the odds against the target, to the power s) or "hard".
        common: see :class:`SingleLabelLoss`.

    Range: (0, inf); it overflows where -s d exceeds 88 in float32.

    Source: Y. Freund and R. Schapire, "A Decision-Theoretic Generalization of On-Line Learning and an Application to
    Boosting", 1997, section 4.

    Example:
        >>> loss = lossfit.ExponentialMarginLoss(scale=0.5)
        >>> loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.5203)
    """

    formula = "exp(-s d)"
    source = (
        "Y. Freund and R. Schapire, A Decision-Theoretic Generalization of On-Line Learning and an Application to "
        "Boosting, 1997, section 4"
    )
    hypers = {"scale": Hyper("slope of the exponent", 0.0, search=(0.1, 0.25, 0.5, 1.0), open_low=True)}
    link = staticmethod(exponential_margin)

    def __init__(self, scale: HyperValue = 0.5, *, gap: Kind = "soft", **common: Unpack[Common]) -> None:
        super().__init__(hypers={"scale": scale}, gap=gap, **common)


def hinge(d: Tensor, margin: Number) -> Link:
    short = margin - d
    inside = (short > 0).to(d.dtype)
    return Link(relu(short), inside, (lambda: inside,))


def squared_hinge(d: Tensor, margin: Number) -> Link:
    short = relu(margin - d)
    neg_grad = _finite(2 * short)
    return Link(short * short, neg_grad, (lambda: neg_grad,))


class HingeLoss(AnalyticLoss):
    r"""Hinge loss, :math:`\max(0, m - d)`, or its square.

    Args:
        margin: m, the lead at which the loss ends.
        gap: "hard": the lead over the best rival (K. Crammer and Y. Singer, 2001, section 3). "soft": the lead over
            the log-sum-exp of the rivals; with m = 0 the last step from the maximum to softmax. The sum over all rivals
            is :class:`SumHingeLoss`.
        squared: square the loss of a row.
        common: see :class:`SingleLabelLoss`.

    Range: [0, inf).

    Example:
        >>> loss = lossfit.HingeLoss(margin=3.0)
        >>> loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(1.)
    """

    formula = "max(0, m - d)"
    source = (
        "K. Crammer and Y. Singer, On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines, 2001, "
        "section 3"
    )
    hypers = {"margin": replace(_MARGIN, search=(0.5, 1.0, 2.0, 4.0))}

    def __init__(
        self, margin: HyperValue = 1.0, *, gap: Kind = "hard", squared: bool = False, **common: Unpack[Common]
    ) -> None:
        super().__init__(hypers={"margin": margin}, gap=gap, **common)
        self.squared = squared

    def _link(self, own: dict[str, Number]) -> tuple[LinkFunction, tuple[Number, ...]]:
        return squared_hinge if self.squared else hinge, (own["margin"],)


class SumHingeLoss(SingleLabelLoss):
    r"""Hinge loss over all rivals, :math:`\sum_{k \neq y} \max(0, m - z_y + z_k)`, or of squared terms.

    PyTorch's multi-margin loss divides the sum by C.

    Args:
        margin: m, the lead over a rival at which the rival's term ends.
        squared: square each term.
        common: see :class:`SingleLabelLoss`.

    Range: [0, inf).

    Source: J. Weston and C. Watkins, "Multi-class Support Vector Machines", 1998, section 2.

    Example:
        >>> loss = lossfit.SumHingeLoss(margin=3.0)
        >>> loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(2.)
    """

    formula = "sum over the rivals of max(0, m - z_y + z_k)"
    source = "J. Weston and C. Watkins, Multi-class Support Vector Machines, 1998, section 2"
    hypers = {"margin": replace(_MARGIN, search=(0.5, 1.0, 2.0, 4.0))}
    _no_other_grads = True

    def __init__(self, margin: HyperValue = 1.0, *, squared: bool = False, **common: Unpack[Common]) -> None:
        super().__init__(hypers={"margin": margin}, **common)
        self.squared = squared

    def _rows(self, scores: Tensor, targets: Targets, settings: Settings) -> Tensor:
        scores, margin = targets.blank(scores.to(accumulation_dtype(scores))), targets.broadcast(settings.own["margin"])
        if isinstance(margin, Tensor) and margin.ndim:
            margin = margin.unsqueeze(1)
        scores = scores.clamp(min=torch.finfo(scores.dtype).min)  # -inf minus -inf is no number
        lead = targets.broadcast(targets.own(scores)).unsqueeze(1) - scores
        terms = apply(squared_hinge if self.squared else hinge, lead, margin)
        return targets.sum(terms.masked_fill(targets.is_own(scores), 0.0))


def smooth_accuracy(d: Tensor, beta: Number) -> Link:
    steep = beta * d
    miss = torch.sigmoid(-steep)
    change = miss * torch.sigmoid(steep)
    return Link(miss, beta * change, (lambda: -d * change,))


class SmoothAccuracyLoss(AnalyticLoss):
    r"""Smooth error rate, :math:`\mathrm{sigmoid}(-\beta d)`.

    Args:
        beta: the steepness, above 0. On the hard gap the loss tends to the 0-1 loss as beta grows; on the soft gap to
            the stricter 1[p < 1/2]. On the soft gap, beta = 1 is the expected accuracy.
        gap: "hard" or "soft".
        common: see :class:`SingleLabelLoss`.

    Range: [0, 1].

    Source: Jianlin Su, "How to Train Your Accuracy?", 2022, section 1.

    Example:
        >>> loss = lossfit.SmoothAccuracyLoss(beta=2.0)
        >>> loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.0180)
    """

    formula = "sigmoid(-beta d)"
    source = "Jianlin Su, How to Train Your Accuracy?, 2022, section 1"
    hypers = {"beta": Hyper("steepness", 0.0, search=(0.25, 0.5, 1.0, 2.0, 4.0), open_low=True)}
    link = staticmethod(smooth_accuracy)

    def __init__(self, beta: HyperValue = 1.0, *, gap: Kind = "hard", **common: Unpack[Common]) -> None:
        super().__init__(hypers={"beta": beta}, gap=gap, **common)
