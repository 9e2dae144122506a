"""Losses that bound what one mislabelled row can do."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from lossfit.core.hyper import Hyper, HyperValue, Number
from lossfit.losses.single_label.base import Common
from lossfit.losses.single_label.link import NEGLIGIBLE, AnalyticLoss, Link, exp, softplus, weigh_link


def generalized_cross_entropy(d: Tensor, q: Number) -> Link:
    # (1 - p^q) / q is ce phi(x) with x = q ce and phi(x) = -expm1(-x) / x, which goes on to phi(0) = 1.
    against = -d
    ce = softplus(against).clamp(max=torch.finfo(d.dtype).max)  # at d = -inf the loss is 1 / q
    x = q * ce
    minus = -x.clamp(min=NEGLIGIBLE)
    value = ce * (torch.expm1(minus) / minus)

    def by_q() -> Tensor:
        low, high = x.clamp(max=1.0), x.clamp(min=1.0)
        series, term = torch.zeros_like(x), torch.full_like(x, -0.5)
        for j in range(20):
            series = series + term * (j + 1)
            term = -term * low / (j + 3)
        closed = ((1 + high) * torch.exp(-high) - 1) / (high * high)
        return ce * ce * torch.where(x < 1, series, closed)

    return Link(value, exp(-x) * torch.sigmoid(against), (by_q,))


class GeneralizedCrossEntropyLoss(AnalyticLoss):
    r"""Generalised cross-entropy, :math:`(1 - p_y^q) / q`.

    From cross-entropy (q = 0) to :math:`1 - p_y` (q = 1), which is half of the mean absolute error.

    Args:
        q: in [0, 1]; the authors use 0.7.
        common: see :class:`SingleLabelLoss`.

    Range: [0, 1 / q]. Sensitivity: :math:`p^{q - 1}`.

    Source: Z. Zhang and M. Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy
    Labels", 2018, section 3.

    Example:
        >>> loss = lossfit.GeneralizedCrossEntropyLoss(q=0.7)
        >>> loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.2205)
    """

    formula = "(1 - p^q) / q"
    sensitivity = "p^(q - 1)"
    source = (
        "Z. Zhang and M. Sabuncu, Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels, "
        "2018, section 3"
    )
    hypers = {"q": Hyper("0: cross-entropy, 1: expected accuracy", 0.0, 1.0, (0.1, 0.2, 0.3, 0.5, 0.7, 0.9))}
    link = staticmethod(generalized_cross_entropy)

    def __init__(self, q: HyperValue = 0.7, **common: Unpack[Common]) -> None:
        super().__init__(hypers={"q": q}, **common)


def symmetric_cross_entropy(d: Tensor, alpha: Number, beta: Number, log_zero: Number) -> Link:
    ce, miss = softplus(-d), torch.sigmoid(-d)
    value = weigh_link(alpha, ce) - beta * log_zero * miss
    neg_grad = miss * (alpha - beta * log_zero * torch.sigmoid(d))
    return Link(value, neg_grad, (lambda: ce, lambda: -log_zero * miss, lambda: -beta * miss))


class SymmetricCrossEntropyLoss(AnalyticLoss):
    r"""Symmetric cross-entropy, :math:`\alpha (-\log p_y) - \beta A (1 - p_y)`.

    Cross-entropy plus its reverse, in which the logarithm of the zeros of the label is set to A.

    Args:
        alpha: weight of cross-entropy, at least 0.
        beta: weight of the reverse, at least 0.
        log_zero: A, at most 0.
        common: see :class:`SingleLabelLoss`.

    Range: [0, inf). Sensitivity: :math:`\alpha / p - \beta A`.

    Source: Y. Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels", 2019, section 3.

    Example:
        >>> loss = lossfit.SymmetricCrossEntropyLoss(alpha=0.1, beta=1.0)
        >>> loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.8760)
    """

    formula = "alpha (-log p) - beta A (1 - p)"
    sensitivity = "alpha / p - beta A"
    source = "Y. Wang et al., Symmetric Cross Entropy for Robust Learning with Noisy Labels, 2019, section 3"
    hypers = {
        "alpha": Hyper("weight of cross-entropy", 0.0, search=(0.01, 0.1, 0.5, 1.0)),
        "beta": Hyper("weight of its reverse", 0.0),
        "log_zero": Hyper("A, the logarithm of zero", high=0.0),
    }
    link = staticmethod(symmetric_cross_entropy)

    def __init__(
        self,
        alpha: HyperValue = 0.1,
        beta: HyperValue = 1.0,
        log_zero: HyperValue = -4.0,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(hypers={"alpha": alpha, "beta": beta, "log_zero": log_zero}, **common)


def squared(d: Tensor) -> Link:
    miss = torch.sigmoid(-d)
    value = miss * miss
    return Link(value, 2 * value * torch.sigmoid(d))


class SquaredLoss(AnalyticLoss):
    r"""Squared loss of the target's probability, :math:`(1 - p_y)^2`.

    Args:
        common: see :class:`SingleLabelLoss`.

    Range: [0, 1]. Sensitivity: 2 (1 - p).

    Source: Jianlin Su, "How to Train Your Accuracy?", 2022, section 5.

    Example:
        >>> loss = lossfit.SquaredLoss()
        >>> loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.0454)
    """

    formula = "(1 - p)^2"
    sensitivity = "2 (1 - p)"
    source = "Jianlin Su, How to Train Your Accuracy?, 2022, section 5"
    link = staticmethod(squared)

    def __init__(self, **common: Unpack[Common]) -> None:
        super().__init__(**common)


def exponential(d: Tensor) -> Link:
    p = torch.sigmoid(d)
    value = exp(-p)
    return Link(value, value * p * torch.sigmoid(-d))


class ExponentialLoss(AnalyticLoss):
    r"""Exponential loss of the target's probability, :math:`e^{-p_y}`.

    Args:
        common: see :class:`SingleLabelLoss`.

    Range: [1 / e, 1]. Sensitivity: :math:`e^{-p}`.

    Source: Jianlin Su, "How to Train Your Accuracy?", 2022, section 5.

    Example:
        >>> loss = lossfit.ExponentialLoss()
        >>> loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.4552)
    """

    formula = "exp(-p)"
    sensitivity = "exp(-p)"
    source = "Jianlin Su, How to Train Your Accuracy?, 2022, section 5"
    link = staticmethod(exponential)

    def __init__(self, **common: Unpack[Common]) -> None:
        super().__init__(**common)
