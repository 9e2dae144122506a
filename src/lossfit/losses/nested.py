"""A single-label loss as a part of another loss."""

from __future__ import annotations

import copy

from lossfit.losses.base import Loss
from lossfit.losses.single_label.base import SingleLabelLoss
from lossfit.losses.single_label.cross_entropy import CrossEntropyLoss


def without_reduction(loss: SingleLabelLoss | None) -> SingleLabelLoss:
    """A copy without reduction that shares the tensors of ``loss``; cross-entropy for None."""
    if loss is None:
        return CrossEntropyLoss(reduction="none")
    if not isinstance(loss, SingleLabelLoss):
        raise TypeError(f"Expected `loss` to be a SingleLabelLoss, but got {type(loss).__name__}.")
    inner = copy.copy(loss)
    inner.reduction = "none"
    return inner


def without_classes(loss: SingleLabelLoss | None) -> SingleLabelLoss:
    """:func:`without_reduction` for classes that are rows of the batch, or samples: nothing is known per class."""
    inner = without_reduction(loss)
    for name in ("weight", "class_prior"):
        if getattr(inner, name) is not None:
            raise ValueError(f"Expected `loss` without `{name}`, since its classes change with the batch.")
    if inner.ignore_index >= 0:
        raise ValueError(f"Expected `loss` with a negative `ignore_index`, but got {inner.ignore_index}.")
    return inner


class OuterLoss(Loss):
    """A loss with a single-label loss inside, whose schedules advance with its own."""

    loss: SingleLabelLoss

    def step(self, to: int | None = None) -> None:
        super().step(to)
        self.loss.step(to)
