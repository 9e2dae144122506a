"""Cross-entropy with a weight that depends on the target's probability."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, Unpack

import torch
from torch import Tensor

from lossfit.core.checks import check_choice
from lossfit.core.hyper import Hyper, HyperValue, Number
from lossfit.losses.single_label.base import Common
from lossfit.losses.single_label.link import AnalyticLoss, Link, LinkFunction, exp, softplus, weigh_link


def focal(d: Tensor, gamma: Number) -> Link:
    log_miss, ce = -softplus(d), softplus(-d)
    weight = exp(gamma * log_miss)
    bounded = ce.clamp(max=torch.finfo(ce.dtype).max)  # so that its product with a p of 0 is 0
    neg_grad = weight * (torch.sigmoid(-d) + gamma * (bounded * torch.sigmoid(d)))
    return Link(weight * ce, neg_grad, (lambda: log_miss * weight * bounded,))


class FocalLoss(AnalyticLoss):
    r"""Focal loss, :math:`(1 - p_y)^\gamma (-\log p_y)`.

    Rows that are already right count less. Finite gradients for every gamma >= 0, also below 1 where p is 1.

    Args:
        gamma: at least 0; 0 is cross-entropy. The paper's alpha is the class ``weight``.
        common: see :class:`SingleLabelLoss`.

    Range: [0, inf).

    Source: T.-Y. Lin et al., "Focal Loss for Dense Object Detection", 2017, section 3.

    Example:
        >>> loss = lossfit.FocalLoss(gamma=2.0)
        >>> loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.0109)
    """

    formula = "(1 - p)^gamma (-log p)"
    sensitivity = "(1 - p)^(gamma - 1) ((1 - p) / p + gamma (-log p))"
    source = "T.-Y. Lin et al., Focal Loss for Dense Object Detection, 2017, section 3"
    hypers = {
        "gamma": Hyper("how much rows that are right are played down", 0.0, search=(0.25, 0.5, 1.0, 2.0, 3.0, 5.0))
    }
    link = staticmethod(focal)

    def __init__(self, gamma: HyperValue = 2.0, **common: Unpack[Common]) -> None:
        super().__init__(hypers={"gamma": gamma}, **common)


def poly(d: Tensor, scale: Number, *coefficients: Number) -> Link:
    ce, miss, p = softplus(-d), torch.sigmoid(-d), torch.sigmoid(d)
    value, neg_grad = scale * ce, scale * miss
    power, powers = miss, []
    for j, coefficient in enumerate(coefficients, 1):
        term = coefficient * power
        value, neg_grad = value + term, neg_grad + j * term * p
        powers.append(power)
        power = power * miss
    return Link(value, neg_grad, (lambda: ce, *(partial(_same, power) for power in powers)))


def _same(x: Tensor) -> Tensor:
    return x


class PolyLoss(AnalyticLoss):
    r"""Cross-entropy plus a polynomial, :math:`-\log p_y + \sum_j \epsilon_j (1 - p_y)^j`.

    Args:
        coefficients: :math:`\epsilon_1, \epsilon_2, \ldots` (numbers, schedules or tensors). Poly-1 has one. None at
            all gives cross-entropy.
        form: "paper" as above; "scaled" multiplies the logarithm by :math:`1 + \sum_j \epsilon_j`, the form in which
            all terms are a share of the whole.
        common: see :class:`SingleLabelLoss`.

    Range: [0, inf) for non-negative coefficients.

    Source: Z. Leng et al., "PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions", 2022,
    section 3.

    Example:
        >>> loss = lossfit.PolyLoss([1.0])
        >>> loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.4526)
    """

    formula = "-log p + sum_j eps_j (1 - p)^j"
    sensitivity = "1 / p + sum_j j eps_j (1 - p)^(j - 1)"
    source = (
        "Z. Leng et al., PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions, 2022, section 3"
    )
    hypers = {"coefficients": Hyper("weights of (1 - p), (1 - p)^2, ...", search=(-0.5, 0.5, 1.0, 2.0, 4.0, 8.0))}

    def __init__(
        self,
        coefficients: HyperValue | Sequence[HyperValue] = (),
        *,
        form: Literal["paper", "scaled"] = "paper",
        **common: Unpack[Common],
    ) -> None:
        check_choice("form", form, ("paper", "scaled"))
        each = coefficients if isinstance(coefficients, Sequence) else (coefficients,)
        super().__init__(hypers={f"coefficient_{j}": c for j, c in enumerate(each, 1)}, **common)
        self.form = form

    def _card(self, name: str) -> Hyper:
        return self.hypers["coefficients"] if name.startswith("coefficient_") else super()._card(name)

    def _link(self, own: dict[str, Number]) -> tuple[LinkFunction, tuple[Number, ...]]:
        scale: Number = 1.0
        if self.form == "scaled":
            scale = sum(own.values(), scale)
        return poly, (scale, *own.values())


def sensitivity_weighted(d: Tensor, weight: Callable[[Tensor], Tensor]) -> Link:
    factor = weight(torch.sigmoid(d)).detach()
    return Link(weigh_link(factor, softplus(-d)), factor * torch.sigmoid(-d))


class SensitivityLoss(AnalyticLoss):
    r"""A loss designed from its gradient: cross-entropy times a detached weight, :math:`(S(p) p)_{sg} (-\log p)`.

    Its gradient is that of the loss whose sensitivity :math:`-dl/dp` is S, whether or not S has a simple integral. Its
    value is only the weighted cross-entropy.

    Args:
        sensitivity: a function of the target's probability p (N, d1, ...), in plain PyTorch, that returns S(p).
        of: "sensitivity", or "weight" if the function returns :math:`S(p) p`, the weight of cross-entropy, itself.
            With "sensitivity", p is kept above the smallest normal number, so that S(p) = 1 / p is cross-entropy.
        common: see :class:`SingleLabelLoss`.

    Source: Jianlin Su, "A Simple Remedy for the Over-Confidence of Cross-Entropy", 2023, section 3.

    Example:
        >>> loss = lossfit.SensitivityLoss(lambda p: 1 / (0.1 + 0.9 * p))
        >>> z = torch.tensor([[2.0, 0.0, 0.0]], requires_grad=True)
        >>> loss(z, torch.tensor([0])).backward()
        >>> z.grad
        tensor([[-0.2074,  0.1037,  0.1037]])
    """

    formula = "(S(p) p, detached) (-log p)"
    sensitivity = "S(p)"
    source = "Jianlin Su, A Simple Remedy for the Over-Confidence of Cross-Entropy, 2023, section 3"
    designed_gradient = True

    def __init__(
        self,
        sensitivity: Callable[[Tensor], Tensor],
        *,
        of: Literal["sensitivity", "weight"] = "sensitivity",
        **common: Unpack[Common],
    ) -> None:
        if not callable(sensitivity):
            raise TypeError(f"Expected `sensitivity` to be a function of p, but got {type(sensitivity).__name__}.")
        check_choice("of", of, ("sensitivity", "weight"))
        super().__init__(**common)
        self.function = sensitivity
        self.of = of

    def _weight(self, p: Tensor) -> Tensor:
        if self.of == "weight":
            return self.function(p)
        p = p.clamp(min=torch.finfo(p.dtype).tiny)
        return self.function(p) * p

    def _link(self, own: dict[str, Number]) -> tuple[LinkFunction, tuple[Number, ...]]:
        return partial(sensitivity_weighted, weight=self._weight), ()
