"""Multi-label losses that treat every label as a question of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor

from lossfit.core.autograd import readable
from lossfit.core.checks import check_number, check_per_class
from lossfit.core.hyper import Hyper, HyperValue, Number
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.reduce import Reduction
from lossfit.losses.multi_label.value_and_grad import Body, Fast, Sloped
from lossfit.losses.multi_label.zlpr import MultiLabelLoss, are_hard
from lossfit.losses.single_label.link import _LOG2_E, exp, softplus
from lossfit.native import multi_label as native

_LARGEST = 1e30  # infinite scores count as this, so that no infinity meets a factor of 0


class Common(TypedDict, total=False):
    """The keywords that every binary loss takes; :class:`BinaryLoss` explains them."""

    weight: Tensor | None
    ignore_index: int
    reduction: Reduction


class Side(NamedTuple):
    """The losses of labels of one kind, and a function that gives their derivatives by z.

    z is the score as far as it speaks against the label: s for a label of 0, -s for a label of 1.
    """

    value: Tensor
    slope: Callable[[], Tensor]


class Sides(NamedTuple):
    """How labels of 1 and of 0 are treated, and what their losses are multiplied by."""

    positive: Callable[[Tensor], Side]
    negative: Callable[[Tensor], Side]
    positive_weight: Number = 1.0
    negative_weight: Number = 1.0


class BinaryLoss(MultiLabelLoss):
    r"""A multi-label loss that is the mean over the labels of a row, each a question of its own.

    For a probability t as label it is t times the loss of a label of 1 plus 1 - t times that of a label of 0. A label
    is more likely right than wrong where its score is above 0. Infinite scores count as 1e30.

    Args:
        weight: a weight for each class (C,). The weighted losses are divided by the number of known labels in the row,
            not by the sum of weights, as in PyTorch. A buffer.
        ignore_index: see :class:`MultiLabelLoss`.
        reduction: see :class:`MultiLabelLoss`.
    """

    weight: Tensor | None

    def __init__(
        self,
        hypers: dict[str, HyperValue] | None = None,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(hypers, ignore_index=ignore_index, reduction=reduction)
        self._keep_per_class("weight", weight)

    def _keep_per_class(self, name: str, value: Tensor | None) -> None:
        super()._keep_per_class(name, value)
        if value is not None and readable(value) and not (value >= 0).all():
            raise ValueError(f"Expected `{name}` to hold no negative number, but got {value.tolist()}.")

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            input: scores (N, C) or (N, C, d1, ...), or (N,) for a single question.
            target: labels of the shape of ``input``, or a list of classes (N, K) or (N, K, d1, ...), K not C.
            sample_weight: a weight for each row, or for each sample (N,).
            denominator: what reduction="mean" divides the sum by, in place of the sum of weights.
        """
        if isinstance(input, Tensor) and isinstance(target, Tensor) and input.ndim == 1 and target.shape == input.shape:
            input, target = input.unsqueeze(1), target.unsqueeze(1)
        return super().forward(input, target, sample_weight=sample_weight, denominator=denominator)

    def _per_class(self, name: str, input: Tensor) -> Tensor | None:
        value: Tensor | None = getattr(self, name)
        if value is None:
            return None
        if name != "pos_weight" or len(value) != 1:
            check_per_class(name, value, input.shape[1])
        return value.to(accumulation_dtype(input)).view(1, -1, *(1,) * (input.ndim - 2))

    def _sides(self, input: Tensor, settings: dict[str, Number]) -> Sides:
        """How the labels are treated, with hyper-parameters that broadcast to the scores."""
        raise NotImplementedError

    def _body(self, input: Tensor, settings: dict[str, Number]) -> Body:
        per_row = {k: v.unsqueeze(1) if isinstance(v, Tensor) and v.ndim else v for k, v in settings.items()}
        sides = self._sides(input, per_row)
        weight = self._per_class("weight", input)
        if weight is not None:
            both = (sides.positive_weight * weight, sides.negative_weight * weight)
            sides = Sides(sides.positive, sides.negative, *both)
        tensors = [n for n in (*sides[2:], *per_row.values()) if isinstance(n, Tensor)]
        blocks = not any(n.requires_grad or (n.ndim and len(n) > 1) for n in tensors)
        classes = input.shape[1]
        plain = sides[:2] == (_logistic, _logistic) and not tensors
        absent = None if weight is None else weight == 0
        if absent is not None and readable(absent) and not absent.any():
            absent = None
        return Body(partial(_binary, sides, absent), blocks, Fast(_cross_entropy, 4, 1 / classes) if plain else None)


def _binary(sides: Sides, absent: Tensor | None, scores: Tensor, target: Tensor, known: Tensor | None) -> Sloped:
    if absent is not None:  # classes that weigh nothing may hold anything
        scores = scores.masked_fill(absent, 0.0)
    s = scores.clamp(-_LARGEST, _LARGEST)
    at_one, at_zero = sides.positive_weight, sides.negative_weight
    count = s.shape[1] if known is None else known.sum(1, keepdim=True).clamp(min=1)
    if sides.positive is sides.negative and are_hard(target):
        sign = torch.add(1.0, target, alpha=-2)
        side = sides.positive(s * sign)
        weight = None
        if isinstance(at_one, Tensor) or isinstance(at_zero, Tensor) or not at_one == at_zero == 1:
            weight = at_zero + (at_one - at_zero) * target
        losses = side.value if weight is None else side.value * weight

        def slopes() -> Tensor:
            derivative = side.slope().mul_(sign)
            return derivative if weight is None else derivative.mul_(weight)

    else:
        one, zero = target * at_one, (1 - target) * at_zero
        right, wrong = sides.positive(-s), sides.negative(s)
        losses = torch.addcmul(one * right.value, zero, wrong.value)

        def slopes() -> Tensor:
            return (zero * wrong.slope()).addcmul_(one, right.slope(), value=-1)

    if known is None:
        return Sloped(losses.mean(1), lambda: slopes().div_(count))
    unknown = ~known
    value = (losses.masked_fill(unknown, 0.0).sum(1, keepdim=True) / count).squeeze(1)
    return Sloped(value, lambda: slopes().masked_fill_(unknown, 0.0).div_(count))


def _logistic(z: Tensor) -> Side:
    return Side(softplus(z), lambda: torch.sigmoid(z))


def _cross_entropy(scores: Tensor, target: Tensor, slope: Tensor, work: Tensor) -> Tensor:
    """The sum over labels of log(1 + e) + c s, with e = exp(-|s|), and c = 1 - t for s > 0, else -t.

    All terms are positive, and exact for labels of 0 and 1. The slope is c - sign(s) e / (1 + e).
    """
    s, e, sign, product = (part[: scores.numel()].view(scores.shape) for part in work)
    torch.clamp(scores, -_LARGEST, _LARGEST, out=s)
    torch.abs(s, out=e).mul_(-_LOG2_E).exp2_()
    torch.sign(s, out=sign)
    c = torch.add(0.5, sign, alpha=0.5, out=slope).sub_(target)
    value: Tensor = s.mul_(c).sum(1)
    onward = torch.add(e, 1, out=s)
    # Log1p takes most of the time, so factors are multiplied first: (1 + a)(1 + b) - 1 = a + b (1 + a), which keeps
    # the digits of small terms.
    half = e.shape[1] // 2
    if half:
        pairs = torch.addcmul(e[:, :half], e[:, half : 2 * half], onward[:, :half], out=product[:, :half])
        value += pairs.log1p_().sum(1)
    if e.shape[1] % 2:
        value += torch.log1p(e[:, -1])
    c.addcmul_(sign, e.div_(onward), value=-1)
    return value


class BCELoss(BinaryLoss):
    r"""Binary cross-entropy of every label, on scores.

    .. math:: -\frac1C \sum_c w_c \big(v_c t_c \log p_c + (1 - t_c) \log(1 - p_c)\big),
        \qquad p_c = \mathrm{sigmoid}(s_c)

    It takes scores, as ``torch.nn.BCEWithLogitsLoss`` does, not the probabilities that ``torch.nn.BCELoss`` takes. With
    ``reduction="mean"`` it is the number of the former for the same ``pos_weight`` and weights of classes. PyTorch's
    "none" has one loss per label, and its "sum" is larger by the number of classes.

    Args:
        pos_weight: :math:`v`, a weight for labels of 1: a number, or one for each class (C,). A buffer.
        common: see :class:`BinaryLoss`.

    Range: [0, inf).

    Source: D. R. Cox, "The Regression Analysis of Binary Sequences", 1958.

    Example:
        >>> loss = lossfit.BCELoss()
        >>> loss(torch.tensor([[3.0, -2.0, 1.0, -4.0]]), torch.tensor([[1.0, 0.0, 1.0, 0.0]]))
        tensor(0.1267)
    """

    formula = "-mean_c w (v t log p + (1 - t) log(1 - p))"
    source = "D. R. Cox, The Regression Analysis of Binary Sequences, 1958"

    pos_weight: Tensor | None

    def __init__(self, *, pos_weight: float | Tensor | None = None, **common: Unpack[Common]) -> None:
        super().__init__(**common)
        if pos_weight is not None and not isinstance(pos_weight, Tensor):
            pos_weight = torch.tensor(check_number("pos_weight", pos_weight))
        if pos_weight is not None and not pos_weight.ndim:
            pos_weight = pos_weight.reshape(1)
        self._keep_per_class("pos_weight", pos_weight)

    def _sides(self, input: Tensor, settings: dict[str, Number]) -> Sides:
        pos_weight = self._per_class("pos_weight", input)
        return Sides(_logistic, _logistic, 1.0 if pos_weight is None else pos_weight)

    def _native_term(self, own: dict[str, Number]) -> native.Term | None:
        return native.Term("bce", weight=self.weight, pos_weight=self.pos_weight)


def _focal(z: Tensor, gamma: Number) -> Side:
    loss = softplus(z)
    weight = exp(gamma * (z - loss))

    def slope() -> Tensor:
        return weight * torch.addcmul(torch.sigmoid(z), gamma * torch.sigmoid(-z), loss)

    return Side(weight * loss, slope)


class FocalBCELoss(BinaryLoss):
    r"""Focal loss of every label: labels that are already right count less.

    .. math:: -\frac1C \sum_c \big(\alpha\, t_c (1 - p_c)^\gamma \log p_c
        + (1 - \alpha) (1 - t_c)\, p_c^\gamma \log(1 - p_c)\big), \qquad p_c = \mathrm{sigmoid}(s_c)

    Finite gradients for every gamma >= 0 and every score.

    Args:
        gamma: at least 0; 0 is weighted binary cross-entropy.
        alpha: the weight of labels of 1, in [0, 1]; labels of 0 get 1 - alpha, as in the paper. None weighs both by 1.
        common: see :class:`BinaryLoss`.

    Range: [0, inf).

    Source: T.-Y. Lin et al., "Focal Loss for Dense Object Detection", 2017, section 3.

    Example:
        >>> loss = lossfit.FocalBCELoss(gamma=2.0, alpha=0.25)
        >>> loss(torch.tensor([[3.0, -2.0, 1.0, -4.0]]), torch.tensor([[1.0, 0.0, 1.0, 0.0]]))
        tensor(0.0018)
    """

    formula = "-mean_c (alpha t (1 - p)^gamma log p + (1 - alpha) (1 - t) p^gamma log(1 - p))"
    source = "T.-Y. Lin et al., Focal Loss for Dense Object Detection, 2017, section 3"
    hypers = {
        "gamma": Hyper("how much labels that are right are played down", 0.0, search=(0.5, 1.0, 2.0, 3.0)),
        "alpha": Hyper("weight of labels of 1; labels of 0 get the rest", 0.0, 1.0, search=(0.25, 0.5, 0.75)),
    }

    def __init__(self, gamma: HyperValue = 2.0, alpha: HyperValue | None = 0.25, **common: Unpack[Common]) -> None:
        given = {"gamma": gamma} if alpha is None else {"gamma": gamma, "alpha": alpha}
        super().__init__(given, **common)
        if alpha is None:
            self.alpha = None

    def _sides(self, input: Tensor, settings: dict[str, Number]) -> Sides:
        side = partial(_focal, gamma=settings["gamma"])
        if "alpha" not in settings:
            return Sides(side, side)
        return Sides(side, side, settings["alpha"], 1 - settings["alpha"])

    def _native_term(self, own: dict[str, Number]) -> native.Term | None:
        gamma, alpha = own["gamma"], own.get("alpha")
        weights = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
        return native.Term("focal_bce", gamma, gamma, 0.0, *weights, weight=self.weight)


def _shifted(z: Tensor, gamma: Number, clip: float) -> Side:
    p, q = torch.sigmoid(z), torch.sigmoid(-z)
    rest = q + clip
    inside = p > clip
    shifted = torch.where(inside, p - clip, 0.5)  # harmless where it is not used
    # Each form where it keeps its digits.
    surprise = -torch.where(shifted < 0.5, torch.log1p(-shifted.clamp(max=0.5)), torch.log(rest))
    weight = torch.where(inside, shifted**gamma, 0.0)

    def slope() -> Tensor:
        return weight * p * q * (gamma * surprise / shifted + 1 / rest)

    return Side(weight * surprise, slope)


class AsymmetricLoss(BinaryLoss):
    r"""Asymmetric loss ("ASL"): labels of 0 are played down more than labels of 1, and easy ones are dropped.

    .. math:: -\frac1C \sum_c \big(t_c (1 - p_c)^{\gamma_+} \log p_c
        + (1 - t_c)\, m_c^{\gamma_-} \log(1 - m_c)\big), \qquad m_c = \max(p_c - \mathrm{clip}, 0)

    with p = sigmoid(s). Labels of 0 with p up to ``clip`` have no loss; far on the wrong side their loss is at most
    -log(clip), so that labels that are probably wrong lose their pull. Finite gradients for all exponents >= 0 and all
    scores. The gradient is that of the formula; the authors' code holds the powers constant unless told otherwise, and
    sums over labels where this is the mean.

    Args:
        gamma_pos: at least 0, for labels of 1.
        gamma_neg: at least 0, for labels of 0.
        clip: how far probabilities of labels of 0 are shifted, in [0, 1]; a number or a function of the step.
        common: see :class:`BinaryLoss`.

    Range: [0, inf).

    Source: T. Ridnik et al., "Asymmetric Loss For Multi-Label Classification", 2021, section 2.

    Example:
        >>> loss = lossfit.AsymmetricLoss(gamma_neg=4.0)
        >>> loss(torch.tensor([[3.0, -2.0, 1.0, -4.0]]), torch.tensor([[1.0, 0.0, 1.0, 0.0]]))
        tensor(0.0905)
    """

    formula = "-mean_c (t (1 - p)^gamma_pos log p + (1 - t) m^gamma_neg log(1 - m)), m = max(p - clip, 0)"
    source = "T. Ridnik et al., Asymmetric Loss For Multi-Label Classification, 2021, section 2"
    hypers = {
        "gamma_pos": Hyper("how much labels of 1 that are right are played down", 0.0, search=(0.0, 1.0)),
        "gamma_neg": Hyper("how much labels of 0 that are right are played down", 0.0, search=(1.0, 2.0, 4.0)),
        "clip": Hyper("shift of the probabilities of labels of 0", 0.0, 1.0),
    }

    clip: float

    def __init__(
        self,
        gamma_pos: HyperValue = 0.0,
        gamma_neg: HyperValue = 4.0,
        clip: HyperValue = 0.05,
        **common: Unpack[Common],
    ) -> None:
        if isinstance(clip, Tensor):
            raise TypeError("Expected `clip` to be a number or a function of the step, but got a torch.Tensor.")
        super().__init__({"gamma_pos": gamma_pos, "gamma_neg": gamma_neg, "clip": clip}, **common)

    def _sides(self, input: Tensor, settings: dict[str, Number]) -> Sides:
        positive = partial(_focal, gamma=settings["gamma_pos"])
        if self.clip == 0:
            return Sides(positive, partial(_focal, gamma=settings["gamma_neg"]))
        return Sides(positive, partial(_shifted, gamma=settings["gamma_neg"], clip=self.clip))

    def _native_term(self, own: dict[str, Number]) -> native.Term | None:
        return native.Term("asymmetric", own["gamma_pos"], own["gamma_neg"], self.clip, weight=self.weight)
