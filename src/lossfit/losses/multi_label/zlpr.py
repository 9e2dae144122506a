"""Losses for any number of right classes among C: what they share, and ZLPR."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor

from lossfit import kernels
from lossfit.core import class_shards
from lossfit.core.autograd import readable, transformed
from lossfit.core.batch import Targets
from lossfit.core.checks import check_constant, check_index, check_tensor
from lossfit.core.hyper import HyperValue, Number, per_row
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.reduce import Reduction, Weighing, weigh
from lossfit.linear import chunked, features
from lossfit.linear.features import Backend
from lossfit.linear.job import Job
from lossfit.losses.base import Loss
from lossfit.losses.multi_label.value_and_grad import Body, Sloped, reduced
from lossfit.losses.single_label.link import exp
from lossfit.native import multi_label as native


class Common(TypedDict, total=False):
    """The keywords that every multi-label loss takes; :class:`MultiLabelLoss` explains them."""

    ignore_index: int
    reduction: Reduction


class Labels(NamedTuple):
    """Checked labels.

    ``target`` is (N, C, ...), ones and zeros or probabilities. ``known`` marks the labels that count, ``valid`` the
    rows (N, ...) with such a label; None means all.
    """

    target: Tensor
    known: Tensor | None = None
    valid: Tensor | None = None


class MultiLabelLoss(Loss):
    r"""A loss for any number of right classes among C.

    ``loss(input, target)`` takes scores (logits, never probabilities) of shape (N, C) or (N, C, d1, ...). The shape of
    the target says how it is read:

    - of the shape of the input and of any type: one label for each score, 0 or 1 or a probability. A label equal to
      ``ignore_index`` is unknown and left out. A row of which no label is known counts as ignored.
    - integers of another shape: a list of the right classes, (N, K) or (N, K, d1, ...), in any order, no class twice,
      filled up with ``ignore_index``. K may be 0. A row without a class has no right one; it counts like any other row.
      A list with K = C looks like labels: fill it up to K = C + 1 with ``ignore_index``.

    There is one loss per row: shape (N,) or (N, d1, ...) for ``reduction="none"``. Labels are constants: those
    that require a gradient are refused.

    Args:
        ignore_index: the label that means unknown, and what lists of classes are filled up with.
        reduction: "mean" over the rows that count, "sum" or "none". An empty mean is 0.

    Works under ``torch.compile``, ``torch.func`` and with second derivatives. Half-precision input is computed in
    float32, and so is the result.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what was expected and what came. On a GPU and under
            transformations, ranges are asserted where the device allows it, and classes listed twice count once.
    """

    family = "multi_label"

    def __init__(
        self,
        hypers: dict[str, HyperValue] | None = None,
        *,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(hypers, reduction=reduction)
        self.ignore_index = check_index("ignore_index", ignore_index)

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
            input: scores (N, C) or (N, C, d1, ...).
            target: labels of the shape of ``input``, or a list of classes (N, K) or (N, K, d1, ...), K not C.
            sample_weight: a weight for each row, or for each sample (N,).
            denominator: what reduction="mean" divides the sum by, in place of the sum of weights.
        """
        value = self._native(input, target) if sample_weight is None and denominator is None else None
        return self._composed(input, target, sample_weight, denominator) if value is None else value

    def _native(self, input: Tensor, target: Tensor) -> Tensor | None:
        """The loss in one call of the native kernels, where they have it and every label is known."""
        if not isinstance(input, Tensor) or input.ndim != 2 or not kernels.is_native(input):
            return None
        if not native.reads(target) or target.shape != input.shape:
            return None
        packed: native.Packed | None = self.__dict__.get("_packed")
        if packed is None or not packed.is_current:
            hypers = self._numbers(input.shape[:1], accumulation_dtype(input))
            term = self._native_term(hypers)
            packed = None if term is None else native.pack(input.shape, hypers, term, Weighing(self.reduction))
            if packed is None:
                return None
            if packed.is_shared:
                self.__dict__["_packed"] = packed
        numbers = packed.hypers

        def again(scores: Tensor) -> Tensor:
            return self._composed(scores, target, None, None, numbers)

        return native.loss(input, target, packed, self.reduction, again)

    def _native_term(self, own: dict[str, Number]) -> native.Term | None:
        """What the native kernels know the loss as; None where they do not."""
        return None

    def _composed(
        self,
        input: Tensor,
        target: Tensor,
        sample_weight: Tensor | None,
        denominator: float | Tensor | None,
        numbers: dict[str, Number] | None = None,
    ) -> Tensor:
        """The loss step by step."""
        labels = read(input, target, self.ignore_index)
        shape = input.shape[:1] + input.shape[2:]
        weighing = weigh(
            shape,
            accumulation_dtype(input),
            self.reduction,
            valid=labels.valid,
            sample_weight=sample_weight,
            denominator=denominator,
        )
        known = labels.known
        if weighing.valid is not labels.valid and weighing.valid is not None:  # rows that weigh nothing
            counting = weighing.valid.unsqueeze(1).expand(input.shape)
            known = counting if known is None else known & counting
        hypers = self._numbers(shape, accumulation_dtype(input)) if numbers is None else numbers

        def composed(scores: Tensor) -> Tensor:
            return reduced(self._body(scores, hypers), weighing, scores, labels.target, known)

        term = self._native_term(hypers) if numbers is None and input.ndim == 2 and kernels.is_native(input) else None
        packed = None if term is None else native.pack(input.shape, hypers, term, weighing, labels.known)
        value = None if packed is None else native.loss(input, labels.target, packed, self.reduction, composed)
        return composed(input) if value is None else value

    def linear(
        self,
        x: Tensor,
        weight: Tensor,
        target: Tensor,
        bias: Tensor | None = None,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
        backend: Backend = "auto",
    ) -> Tensor:
        r"""The loss of the scores :math:`x W^\top + b`, which are never there as a whole.

        With lists of right classes neither are the labels, so there may be millions of classes. See
        :meth:`SingleLabelLoss.linear` for what is computed when.

        Args:
            x: features (..., D), with at least one dimension of rows.
            weight: of the classes (C, D).
            target: labels (..., C), or lists of right classes (..., K) with K not C.
            bias: of the classes (C,).
            sample_weight: a weight for each row, or for each sample (N,).
            denominator: what reduction="mean" divides the sum by, in place of the sum of weights.
            backend: "chunked", "dense" (the scores are made), or "auto" (dense where they fit one chunk).
        """
        layer, shape = features.read_features(x, weight, target, bias)
        flat = target.reshape(shape.numel(), target.shape[-1])
        labelled = target.is_floating_point() or target.shape[-1] == len(weight)
        valid = (target != self.ignore_index).any(-1) if labelled else None
        weighing = weigh(
            shape,
            accumulation_dtype(x),
            self.reduction,
            valid=valid,
            sample_weight=sample_weight,
            denominator=denominator,
        ).flat(shape.numel())
        if weighing.valid is not None:  # what they hold would meet a gradient of 0 in the weight's
            layer = layer._replace(x=layer.x.masked_fill(~weighing.valid.unsqueeze(1), 0.0))
        numbers = per_row(self._numbers(shape, accumulation_dtype(x)), lambda value: value.reshape(-1))

        def rows(z: Tensor, at: slice, numbers: dict[str, float | Tensor]) -> tuple[Tensor, ...]:
            labels = read(z, flat[at], self.ignore_index)
            return (reduced(self._body(z, numbers), Weighing("none"), z, labels.target, labels.known),)

        none = self.reduction == "none"
        plan = features.plan(layer, backend)
        job = Job(rows, Targets(flat, len(layer.weight)), numbers, weighing=None if none else weighing, plan=plan)
        (value,) = chunked.run(job, layer)
        return weighing.reduce(value).view(shape) if none else value

    def _body(self, input: Tensor, settings: dict[str, float | Tensor]) -> Body:
        """What finds the losses of rows."""
        raise NotImplementedError


class ZLPRLoss(MultiLabelLoss):
    r"""Cross-entropy for any number of right classes: zero-bounded log-sum-exp and pairwise rank.

    .. math:: \log\Big(1 + \sum_{c\,\mathrm{wrong}} e^{s_c}\Big) + \log\Big(1 + \sum_{c\,\mathrm{right}} e^{-s_c}\Big)

    It pushes every right class above 0 and above every wrong one, so 0 is the threshold: predict the classes with a
    positive score. A row whose classes are nearly all wrong needs no weights, since the logarithms are around the sums.
    With probabilities t as labels it is :math:`\log(1 + \sum_c (1 - t_c) e^{s_c}) + \log(1 + \sum_c t_c e^{-s_c})`,
    least where sigmoid(2 s) = t.

    Each sum leaves out what does not belong to it before its maximum is taken, so the loss and the gradient keep their
    digits at any score. Scores beyond 1e29 in absolute value, infinite ones too, count as 1e29.

    Args:
        common: see :class:`MultiLabelLoss`.

    Range: (0, inf). A row without a right class, or without a wrong one, has one of the two terms, and 0 for the other.

    Source: J. Su et al., "ZLPR: A Novel Loss for Multi-label Classification", 2022.

    Example:
        >>> loss = lossfit.ZLPRLoss()
        >>> scores = torch.tensor([[3.0, -2.0, 1.0, -4.0]])
        >>> loss(scores, torch.tensor([[1.0, 0.0, 1.0, 0.0]]))
        tensor(0.4919)
        >>> loss(scores, torch.tensor([[0, 2, -100]]))
        tensor(0.4919)
    """

    formula = "log(1 + sum_wrong exp(s)) + log(1 + sum_right exp(-s))"
    source = "J. Su et al., ZLPR: A Novel Loss for Multi-label Classification, 2022"

    def __init__(self, **common: Unpack[Common]) -> None:
        super().__init__(**common)

    def _body(self, input: Tensor, settings: dict[str, float | Tensor]) -> Body:
        return Body(_zlpr)

    def _native_term(self, own: dict[str, Number]) -> native.Term | None:
        return native.Term("zlpr")


# Beyond every score, yet far from overflow: what is left out of a sum is pushed down by this much. Arithmetic with it
# takes a fifth of the time of a mask on a CPU (measured).
_FAR = 1e30


def _zlpr(scores: Tensor, target: Tensor, known: Tensor | None) -> Sloped:
    s = scores.clamp(-_FAR / 10, _FAR / 10)
    if are_hard(target):
        wrong = torch.add(s, target, alpha=-_FAR)
        right = -torch.add(s, 1 - target, alpha=_FAR)
    else:
        wrong, right = s + torch.log1p(-target), target.log() - s
    if known is not None:
        wrong, right = wrong.masked_fill(~known, -torch.inf), right.masked_fill(~known, -torch.inf)
    (low, wrong_shares), (high, right_shares) = _above_zero(wrong), _above_zero(right)
    return Sloped(low + high, lambda: wrong_shares().sub_(right_shares()))


def _above_zero(terms: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    """log(1 + sum_c exp(terms)), to full relative precision, and what gives its derivatives."""
    top = terms.detach().amax(1, keepdim=True).clamp(min=0)
    powers = exp(terms - top)
    total = torch.log1p(powers.sum(1, keepdim=True) + torch.expm1(-top))
    return (top + total).squeeze(1), lambda: powers * torch.exp(-total)


def are_hard(target: Tensor) -> bool:
    """Whether labels in [0, 1] are seen to be all 0 or 1. A look at them must be cheap: it is not, on a GPU."""
    return (
        readable(target) and target.numel() > 0 and torch.addcmul(target, target, target, value=-1).amax().item() == 0
    )


def read(input: Tensor, target: Tensor, ignore_index: int) -> Labels:
    """Check scores and labels against each other, and find the labels that count."""
    class_shards.refuse(input=input, target=target)
    for name, value in (("input", input), ("target", target)):
        check_tensor(name, value)
    if not input.is_floating_point():
        raise TypeError(
            f"Expected `input` to hold floating-point scores, but got {input.dtype}. Convert it with input.float()."
        )
    shape, given = tuple(input.shape), tuple(target.shape)
    if len(shape) < 2 or shape[1] == 0:
        raise ValueError(f"Expected `input` of shape (N, C) or (N, C, d1, ...) with C of at least 1, but got {shape}.")
    if target.is_complex():
        raise TypeError(f"Expected `target` to hold labels or class indices, but got {target.dtype}.")
    if given == shape or target.is_floating_point() or target.dtype == torch.bool:
        if given != shape:
            raise ValueError(
                f"Expected `target` of {target.dtype} to have the shape of `input`, {shape}, but got {given}. "
                f"A list of right classes must be of an integer type."
            )
        check_constant(target=target)
        if target.dtype == torch.bool:
            return Labels(target)
        return _dense(target.detach() if target.is_floating_point() else target.to(input.dtype), ignore_index)
    if len(given) != len(shape) or given[0] != shape[0] or given[2:] != shape[2:]:
        expected = ", ".join(map(str, (shape[0], "K", *shape[2:])))
        raise ValueError(
            f"Expected `target` of {target.dtype} to list right classes, shape ({expected}), for `input` of shape "
            f"{shape}, but got {given}."
        )
    return Labels(_listed(target.long(), shape, accumulation_dtype(input), ignore_index))


def _dense(target: Tensor, ignore_index: int) -> Labels:
    seen = readable(target)
    if target.numel() == 0:
        return Labels(target)
    if seen:
        low, high = torch.aminmax(target)
        if low.item() >= 0 and high.item() <= 1:
            return Labels(target)
    known = target != ignore_index
    fits = ~known | ((target >= 0) & (target <= 1))
    if seen and not fits.all():
        position = tuple((~fits).nonzero()[0].tolist())
        raise ValueError(
            f"Expected `target` to hold 0, 1 or probabilities in [0, 1], or ignore_index={ignore_index} where a label "
            f"is unknown, but got {target[position].item():g} at position {position} "
            f"({int((~fits).sum())} of {target.numel()} labels are wrong)."
        )
    if not seen and target.device.type != "meta" and not transformed():
        torch._assert_async(fits.all(), f"Expected `target` to hold labels in [0, 1] or {ignore_index}.")
    return Labels(target, known, known.any(1))


def _listed(target: Tensor, shape: tuple[int, ...], dtype: torch.dtype, ignore_index: int) -> Tensor:
    """The labels of which the right ones are listed."""
    listed = target != ignore_index
    fits = ~listed | ((target >= 0) & (target < shape[1]))
    if readable(target):
        if not fits.all():
            position = tuple((~fits).nonzero()[0].tolist())
            raise IndexError(
                f"Expected `target` to list class indices in [0, {shape[1]}) or ignore_index={ignore_index}, "
                f"but got {target[position].item()} at position {position}."
            )
    elif target.device.type != "meta" and not transformed():
        torch._assert_async(fits.all(), f"Expected `target` to hold class indices in [0, {shape[1]}).")
    count = torch.zeros(shape, dtype=dtype, device=target.device)
    # Not in place: under vmap only the target has the dimension that is mapped over.
    count = count.scatter_add(1, target.masked_fill(~listed, 0), listed.to(dtype))
    if readable(target) and count.numel() and count.amax().item() > 1:
        position = tuple((count > 1).nonzero()[0].tolist())
        raise ValueError(
            f"Expected `target` of an integer type to list each right class once, but class {position[1]} is listed "
            f"{int(count[position])} times in row {(position[0], *position[2:])}."
        )
    return count.clamp(max=1)
