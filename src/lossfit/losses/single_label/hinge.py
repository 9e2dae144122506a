"""Losses of the gap itself: how far the target must lead its rivals."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Unpack

import torch
from torch import Tensor
from torch.nn.functional import relu

from lossfit.core.batch import Batch
from lossfit.core.checks import check_choice
from lossfit.core.hyper import Hyper, HyperValue
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.reduce import Weighing
from lossfit.gaps.types import KINDS, Fields, Kind
from lossfit.losses.single_label.base import Common, Settings, SingleLabelLoss
from lossfit.losses.single_label.link import AnalyticLoss, Body, Linked, Number, exp, softplus

_MARGIN = Hyper("lead the target must have", search=(0.0, 0.5, 1.0, 2.0, 4.0))


def logistic_margin(d: Tensor, margin: Number) -> Linked:
    short = margin - d
    pull = torch.sigmoid(short)
    return Linked(softplus(short), pull, (lambda: pull,))


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
    body = staticmethod(logistic_margin)

    def __init__(self, margin: HyperValue = 1.0, *, gap: Kind = "soft", **common: Unpack[Common]) -> None:
        super().__init__(hypers={"margin": margin}, gap=gap, **common)


def _finite(pull: Tensor) -> Tensor:
    """An infinite pull would be no number where the loss weighs nothing, as that of a class without a share."""
    return pull.clamp(max=torch.finfo(pull.dtype).max)


def exponential_margin(d: Tensor, scale: Number) -> Linked:
    value = exp(-scale * d)
    return Linked(value, _finite(scale * value), (lambda: -d * value,))


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
    body = staticmethod(exponential_margin)

    def __init__(self, scale: HyperValue = 0.5, *, gap: Kind = "soft", **common: Unpack[Common]) -> None:
        super().__init__(hypers={"scale": scale}, gap=gap, **common)


def hinge(d: Tensor, margin: Number) -> Linked:
    short = margin - d
    inside = (short > 0).to(d.dtype)
    return Linked(relu(short), inside, (lambda: inside,))


def squared_hinge(d: Tensor, margin: Number) -> Linked:
    short = relu(margin - d)
    pull = _finite(2 * short)
    return Linked(short * short, pull, (lambda: pull,))


class HingeLoss(AnalyticLoss):
    r"""Hinge loss, :math:`\max(0, m - d)`, or its square.

    Args:
        margin: m, the lead at which the loss ends.
        gap: "hard": the lead over the best rival (K. Crammer and Y. Singer, 2001, section 3). "soft": the lead over
            the log-sum-exp of the rivals; with m = 0 the last step from the maximum to softmax. "sum":
            :math:`\sum_{k \neq y} \max(0, m - z_y + z_k)` over all rivals (J. Weston and C. Watkins, 1998, section 2).
            PyTorch's multi-margin loss divides that sum by C.
        squared: square each term, before any sum.
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
        self,
        margin: HyperValue = 1.0,
        *,
        gap: Literal["hard", "soft", "sum"] = "hard",
        squared: bool = False,
        **common: Unpack[Common],
    ) -> None:
        check_choice("gap", gap, (*KINDS, "sum"))
        super().__init__(hypers={"margin": margin}, gap="hard" if gap == "sum" else gap, **common)
        self.over_all_rivals = gap == "sum"
        self.squared = squared

    def _shown_settings(self) -> list[str]:
        return (["gap='sum'"] if self.over_all_rivals else []) + super()._shown_settings()

    def terms(self, settings: dict[str, Number]) -> tuple[Body, tuple[Number, ...]]:
        return squared_hinge if self.squared else hinge, (settings["margin"],)

    def reduced(self, batch: Batch, settings: Settings, weighing: Weighing) -> Tensor:
        if self.over_all_rivals:
            return SingleLabelLoss.reduced(self, batch, settings, weighing)
        return super().reduced(batch, settings, weighing)

    def fields(self, batch: Batch, settings: Settings) -> Fields | None:
        return None if self.over_all_rivals else super().fields(batch, settings)

    def rows(self, batch: Batch, settings: Settings) -> Tensor:
        if not self.over_all_rivals:
            return super().rows(batch, settings)
        scores, margin = batch.input.to(accumulation_dtype(batch.input)), batch.shared(settings["margin"])
        if batch.valid is not None:
            scores = scores.masked_fill(~batch.valid.unsqueeze(1), 0.0)
        if isinstance(margin, Tensor) and margin.ndim:
            margin = margin.unsqueeze(1)
        scores = scores.clamp(min=torch.finfo(scores.dtype).min)  # -inf minus -inf is no number
        terms = self.link(batch.shared(batch.own(scores)).unsqueeze(1) - scores, margin=margin)
        return batch.sum(terms.masked_fill(batch.is_own(), 0.0))

    def all_rows(self, batch: Batch, settings: Settings) -> Tensor:
        if self.over_all_rivals:
            return SingleLabelLoss.all_rows(self, batch, settings)
        return super().all_rows(batch, settings)


def smooth_accuracy(d: Tensor, beta: Number) -> Linked:
    steep = beta * d
    miss = torch.sigmoid(-steep)
    change = miss * torch.sigmoid(steep)
    return Linked(miss, beta * change, (lambda: -d * change,))


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
    body = staticmethod(smooth_accuracy)

    def __init__(self, beta: HyperValue = 1.0, *, gap: Kind = "hard", **common: Unpack[Common]) -> None:
        super().__init__(hypers={"beta": beta}, gap=gap, **common)
