"""Rows to a number: the only place that knows sample weights, ignored rows and the kinds of mean."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from lossfit.core import class_shards
from lossfit.core.autograd import readable
from lossfit.core.checks import check_number, check_tensor
from lossfit.core.masks import refuse

Reduction = Literal["none", "mean", "sum"]
REDUCTIONS = ("none", "mean", "sum")


@dataclass(frozen=True)
class Weighing:
    """How the losses of the rows become one number: a factor for each row, then none, a sum, or a sum divided.

    Attributes:
        reduction: "none", "mean" or "sum".
        valid: the rows that count; None for all. The others become 0, whatever they hold. A row of weight 0 is among
            the others, unless its weight gets a gradient.
        factor: what each row is multiplied by; None for 1.
        divisor: what the sum is divided by, for "mean"; None for the number of rows.
    """

    reduction: Reduction
    valid: Tensor | None = None
    factor: Tensor | None = None
    divisor: float | Tensor | None = None

    @property
    def is_trainable(self) -> bool:
        """Whether a gradient goes to what the rows are weighed by."""
        return any(isinstance(w, Tensor) and w.requires_grad for w in (self.factor, self.divisor))

    def reduce(self, rows: Tensor) -> Tensor:
        if self.factor is not None:
            if self.factor.requires_grad:
                rows = rows.masked_fill((self.factor == 0) & ~rows.isfinite(), 0.0)
            rows = rows * self.factor
        if self.valid is not None:
            rows = rows.masked_fill(~self.valid, 0.0)
        if self.reduction == "none":
            return rows
        if self.reduction == "mean" and self.divisor is None and rows.numel():
            return rows.mean()
        total = rows.sum()
        return total if self.divisor is None else total / self.divisor

    def blank(self, value: Tensor) -> Tensor:
        """What a loss is made of, (N, ...) or (N, C, d1, ...), with 0 in the rows that do not count."""
        if self.valid is None:
            return value
        skipped = ~self.valid
        for _ in range(value.ndim - skipped.ndim):
            skipped = skipped.unsqueeze(1)
        return value.masked_fill(skipped, 0.0)

    def flat(self, rows: int, kept: Tensor | None = None) -> Weighing:
        """The same for rows in one dimension, so many in all, or for those of them that are ``kept``, which count."""
        divisor, factor, valid = self.divisor, self.factor, self.valid
        if self.reduction == "mean" and divisor is None:
            divisor = max(rows, 1)
        if factor is not None:
            factor = factor.reshape(-1) if kept is None else factor.reshape(-1)[kept]
        if valid is not None:
            valid = valid.reshape(-1) if kept is None else None
        return replace(self, valid=valid, factor=factor, divisor=divisor)

    def spread(self, grad: Tensor, rows: int) -> Tensor:
        """The gradient of :meth:`reduce` with respect to the rows, 0-dimensional where it is the same for all."""
        if self.reduction == "mean":
            grad = grad / (max(rows, 1) if self.divisor is None else self.divisor)
        if self.factor is not None:
            grad = grad * self.factor
        if self.valid is not None:
            grad = torch.where(self.valid, grad, 0.0)
        return grad


class LogMeanWeighing(Weighing):
    """The rows are -log P, and become -log of the weighted mean of P, in place of the mean of -log P.

    No row has a share of its own: its gradient depends on the other rows.
    """

    @property
    def is_trainable(self) -> bool:
        return True

    def reduce(self, rows: Tensor) -> Tensor:
        if not rows.numel():
            return rows.sum()
        log_p = -rows if self.factor is None else self.factor.log() - rows
        if self.valid is not None:
            log_p = torch.where(self.valid, log_p, -torch.inf)
        divisor = rows.numel() if self.divisor is None else self.divisor
        mass = torch.as_tensor(divisor, dtype=rows.dtype, device=rows.device)
        total = torch.logsumexp(log_p.reshape(-1), 0)
        # An empty mean is 0, as everywhere.
        none = torch.zeros_like(total, dtype=torch.bool) if self.valid is None else ~self.valid.any()
        return torch.where(none, 0.0, mass.log() - total.masked_fill(none, 0.0))


def weigh(
    shape: torch.Size,
    dtype: torch.dtype,
    reduction: Reduction,
    *,
    valid: Tensor | None = None,
    class_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    denominator: float | Tensor | None = None,
    weighted: bool = False,
) -> Weighing:
    """Gather what the rows are weighed by.

    "mean" divides by ``denominator``, by default the sum of ``sample_weight * class_weight`` over the rows that
    count; where that is 0, the mean is 0. So it is where a tensor ``denominator`` is 0.

    Args:
        shape, dtype: of the rows' losses, (N, d1, ...).
        reduction: "none", "mean" or "sum".
        valid: the rows that count; None for all.
        class_weight: the weight of each row's class (N, d1, ...).
        sample_weight: weights of the rows' shape, or (N,) for all positions of a sample.
        denominator: what "mean" divides by instead.
        weighted: the rows already contain the class weights; they only enter the divisor.
    """
    if denominator is not None:
        denominator = _divisor(denominator, reduction)
    if sample_weight is not None:
        sample_weight = _per_row(sample_weight, shape, dtype)
    both = class_weight
    if sample_weight is not None:
        both = sample_weight if class_weight is None else class_weight * sample_weight
    factor = sample_weight if weighted else both
    valid = _counting(factor, valid)
    if reduction != "mean":
        return Weighing(reduction, valid, factor)
    if denominator is not None:
        return Weighing(reduction, valid, factor, denominator)
    if both is None and valid is None:
        return Weighing(reduction, valid, factor)
    mass = _total(both, valid)
    return Weighing(reduction, valid, factor, torch.where(mass == 0, 1, mass))


def as_row(sample_weight: Tensor | None) -> Tensor | None:
    """The weight of a batch of one row that came without its dimension."""
    return (
        sample_weight.reshape(1) if isinstance(sample_weight, Tensor) and sample_weight.numel() == 1 else sample_weight
    )


def _divisor(denominator: float | Tensor, reduction: Reduction) -> float | Tensor:
    if reduction != "mean":
        raise ValueError(f"Expected `denominator` only with reduction='mean', but got reduction={reduction!r}.")
    if not isinstance(denominator, Tensor):
        if not 0 < check_number("denominator", denominator) < math.inf:
            raise ValueError(f"Expected `denominator` to be positive and finite, but got {denominator}.")
        return denominator
    class_shards.refuse(denominator=denominator)
    if denominator.numel() != 1 or denominator.is_complex():
        shown = denominator.dtype if denominator.is_complex() else f"shape {tuple(denominator.shape)}"
        raise ValueError(f"Expected `denominator` to be one number, but got {shown}.")
    denominator = denominator.reshape(())
    refuse(~(denominator >= 0), denominator, "Expected `denominator` of at least 0")
    return torch.where(denominator == 0, math.inf, denominator)  # a mean over nothing is 0


def _counting(factor: Tensor | None, valid: Tensor | None) -> Tensor | None:
    """The rows that count: those that weigh nothing do not, since their loss may be infinite."""
    if factor is None or factor.requires_grad:
        return valid
    weighs = factor != 0
    if readable(weighs) and bool(weighs.all()):
        return valid
    return weighs if valid is None else weighs & valid


def _total(weight: Tensor | None, valid: Tensor | None) -> Tensor:
    if weight is None:
        assert valid is not None
        return valid.sum()
    return (weight if valid is None else weight.masked_fill(~valid, 0.0)).sum()


def _per_row(sample_weight: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    check_tensor("sample_weight", sample_weight)
    if sample_weight.is_complex():
        raise TypeError(f"Expected `sample_weight` to hold real numbers, but got {sample_weight.dtype}.")
    class_shards.refuse(sample_weight=sample_weight)
    if sample_weight.shape == shape:
        return sample_weight.to(dtype)
    if sample_weight.ndim == 1 and sample_weight.shape == shape[:1]:
        return sample_weight.to(dtype).view(-1, *(1,) * (len(shape) - 1)).expand(shape)
    raise ValueError(
        f"Expected `sample_weight` of shape {tuple(shape)}, one weight per row, but got {tuple(sample_weight.shape)}."
    )
