"""From cross-entropy to expected accuracy."""

from __future__ import annotations

import math
from functools import partial
from typing import Unpack

import torch
from torch import Tensor

from lossfit.core.batch import Targets, top_class
from lossfit.core.hyper import Hyper, HyperValue, Number
from lossfit.core.numerics import accumulation_dtype
from lossfit.gaps.blocks import per_class
from lossfit.gaps.gap import gap_rows
from lossfit.gaps.types import Fields, Gap
from lossfit.losses.single_label.base import Common, expectation
from lossfit.losses.single_label.link import (
    NEGLIGIBLE,
    AnalyticLoss,
    Link,
    LinkFunction,
    exp,
    softplus,
    weigh_link,
)
from lossfit.losses.single_label.settings import Settings

# Below, gamma times the largest odds of float32 is no longer large.
_TINY_GAMMA = 1e-30


def cross_entropy(d: Tensor) -> Link:
    against = -d
    return Link(softplus(against), torch.sigmoid(against))


class CrossEntropyLoss(AnalyticLoss):
    r"""Cross-entropy, :math:`-\log p_y = \mathrm{softplus}(-d)`.

    The numbers and gradients of ``nn.CrossEntropyLoss`` for every argument and shape, with two differences: a mean
    over no rows is 0 with zero gradient instead of NaN, and a target far ahead keeps its loss (8.5e-18 at a gap of 40,
    where log-softmax gives 0). Half-precision input gives a float32 loss.

    Args:
        weight, ignore_index, reduction, label_smoothing, temperature, class_prior: see :class:`SingleLabelLoss`.

    Range: [0, inf). Sensitivity: 1 / p.

    Example:
        >>> loss = lossfit.CrossEntropyLoss(label_smoothing=0.1)
        >>> loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.3729)
    """

    formula = "-log p"
    sensitivity = "1 / p"
    source = "I. J. Good, Rational Decisions, 1952, section 8"
    link = staticmethod(cross_entropy)

    def __init__(self, weight: Tensor | None = None, **common: Unpack[Common]) -> None:  # type: ignore[misc]
        super().__init__(weight=weight, **common)

    def _fields(self, targets: Targets, settings: Settings) -> Fields | None:
        """Smoothed labels need the row's mean score beside its gap, unless a gradient goes to the weights in it."""
        if targets.probabilities or not settings.is_smooth:
            return super()._fields(targets, settings)
        trainable = self.weight is not None and self.weight.requires_grad
        return None if trainable else Fields("soft", True, self.weight)

    def _of_gap(self, gap: Gap, targets: Targets, settings: Settings) -> Tensor:
        loss, smoothing = super()._of_gap(gap, targets, settings), settings.label_smoothing
        if gap.over_mean is None:
            return loss
        # Where the target is excluded the loss is infinite, whatever the mean of all classes is.
        over_mean = gap.over_mean.masked_fill(gap.log_odds == -torch.inf, 0.0)
        class_weight = self._class_weight(targets, loss.dtype)
        if class_weight is None or self.weight is None:
            return loss + smoothing * over_mean
        spread = self.weight.to(loss.dtype).mean() * loss + over_mean
        return (1 - smoothing) * class_weight * loss + smoothing * spread

    def _soft_rows(self, scores: Tensor, targets: Targets, settings: Settings) -> Tensor:
        """Every other class is as likely as the top class m times exp(z_c - z_m): no difference of large numbers."""
        scores = scores.to(accumulation_dtype(scores))  # its gradients add up here
        top = Targets(top_class(scores, targets.shard), targets.classes, shard=targets.shard)
        gap = gap_rows(scores, top, "soft")
        share = targets.target.to(scores.dtype)
        if self.weight is not None:
            share = share * per_class(targets.local(self.weight), share)
        behind = targets.broadcast(gap.target).unsqueeze(1) - scores
        losses = self._losses(gap.log_odds, settings.own)
        return targets.sum(share) * losses + expectation(targets, share, behind)


def expected_accuracy(d: Tensor) -> Link:
    miss = torch.sigmoid(-d)
    return Link(miss, miss * torch.sigmoid(d))


class ExpectedAccuracyLoss(AnalyticLoss):
    r"""One minus the expected accuracy, :math:`1 - p_y`: the smooth approximation of the error rate.

    Its gradient is p times that of cross-entropy: rows that the model holds to be wrong pull little, so it resists
    label noise and starts slowly from scratch (a pull of 1 / C).

    Args:
        common: see :class:`SingleLabelLoss`.

    Range: [0, 1]. Sensitivity: 1.

    Example:
        >>> loss = lossfit.ExpectedAccuracyLoss()
        >>> loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.2130)
    """

    formula = "1 - p"
    sensitivity = "1"
    source = "Jianlin Su, On Smoothing Functions: Differentiable Approximations of Non-Differentiable Ones, 2019"
    link = staticmethod(expected_accuracy)

    def __init__(self, **common: Unpack[Common]) -> None:
        super().__init__(**common)


def gamma_cross_entropy(d: Tensor, gamma: Number) -> Link:
    # With the odds against the target o = exp(-d) and y = o / (1 + gamma o), the loss is log1p((1 - gamma) y) /
    # (1 - gamma): no difference of close numbers at any gamma, and at gamma = 1 it goes on to y = 1 - p.
    rest = 1 - gamma
    odds = _odds_against(d)
    damped = 1 / (1 + gamma * odds)
    y = odds * damped
    x = (rest * y).clamp(min=NEGLIGIBLE)
    value = y * (torch.log1p(x) / x)
    if isinstance(gamma, Tensor):
        value = torch.where(gamma == 0, softplus(-d), value)  # the odds end where the type does

    def by_gamma() -> Tensor:
        low, high = x.clamp(max=0.1), x.clamp(min=0.1)
        series = y * y * sum((-1) ** k / (k + 2) * low**k for k in range(16))
        closed = (y / high) ** 2 * (high - torch.log1p(high))  # y * y may overflow where this does not
        return -torch.where(x < 0.1, series, closed)

    return Link(value, torch.sigmoid(-d) * damped, (by_gamma,))


def tiny_gamma_cross_entropy(d: Tensor, gamma: float) -> Link:
    """Where gamma times the largest odds of the type says nothing: logarithms of both."""
    level = math.log(gamma)
    bounded = softplus(d) - softplus(d - level) - level
    return Link(torch.where(d < -60, bounded, softplus(-d)), torch.sigmoid(-d) * torch.sigmoid(d - level))


def floored_gamma_cross_entropy(d: Tensor, gamma: Number, floor: Number) -> Link:
    weight = (1 / (1 + gamma * _odds_against(d))).clamp(min=floor).detach()
    return Link(weigh_link(weight, softplus(-d)), weight * torch.sigmoid(-d))


def _odds_against(d: Tensor) -> Tensor:
    return exp(-d).clamp(max=torch.finfo(d.dtype).max)


class GammaCrossEntropyLoss(AnalyticLoss):
    r"""Gamma cross-entropy (TaiLr), :math:`-\log(\gamma + (1 - \gamma) p_y) / (1 - \gamma)`.

    It goes from cross-entropy (gamma = 0) to the expected accuracy :math:`1 - p_y` (gamma = 1, the limit), and bounds
    the pull of rows that look wrong at :math:`1 / \gamma`. Authors used 1e-7 for language models, 0.1 for translation
    and 0.8 for summaries. gamma = 1 has the gradient of the "p times cross-entropy" loss known as DFT.

    Args:
        gamma: in [0, 1].
        floor: a smallest weight b in [0, 1]. Above 0 the loss takes the original form
            :math:`\max(b, p / (\gamma + (1 - \gamma) p)) (-\log p)` with the weight detached: at b -> 0 its gradient is
            that of the closed form, its value is not. Then neither number may require a gradient.
        common: see :class:`SingleLabelLoss`.

    Range: [0, -log(gamma) / (1 - gamma)]. Sensitivity: :math:`1 / (\gamma + (1 - \gamma) p)`.

    Raises:
        ValueError: gamma or floor requires a gradient, and floor is above 0.

    Source: H. Ji et al., "Tailoring Language Generation Models under Total Variation Distance", 2023, section 3.

    Example:
        >>> loss = lossfit.GammaCrossEntropyLoss(gamma=0.1)
        >>> loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.2365)
    """

    formula = "-log(gamma + (1 - gamma) p) / (1 - gamma)"
    sensitivity = "1 / (gamma + (1 - gamma) p)"
    source = "H. Ji et al., Tailoring Language Generation Models under Total Variation Distance, 2023, section 3"
    hypers = {
        "gamma": Hyper("0: cross-entropy, 1: expected accuracy", 0.0, 1.0, (1e-3, 1e-2, 0.05, 0.1, 0.3, 0.5, 0.8, 1.0)),
        "floor": Hyper("smallest weight of a row; above 0 the weight is detached", 0.0, 1.0),
    }

    def __init__(self, gamma: HyperValue = 0.1, floor: HyperValue = 0.0, **common: Unpack[Common]) -> None:
        super().__init__(hypers={"gamma": gamma, "floor": floor}, **common)

    def _link(self, own: dict[str, Number]) -> tuple[LinkFunction, tuple[Number, ...]]:
        gamma, floor = own["gamma"], own["floor"]
        if not isinstance(floor, Tensor) and floor == 0:
            if not isinstance(gamma, Tensor) and gamma == 0:
                return cross_entropy, ()
            if not isinstance(gamma, Tensor) and gamma < _TINY_GAMMA:
                return partial(tiny_gamma_cross_entropy, gamma=gamma), ()
            return gamma_cross_entropy, (gamma,)
        for name, number in own.items():
            if isinstance(number, Tensor) and number.requires_grad:
                raise ValueError(
                    f"Expected `{name}` without a gradient where `floor` is above 0: the weight is detached."
                )
        return floored_gamma_cross_entropy, (gamma, floor)
