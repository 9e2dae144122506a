"""A single-label loss as a part of another loss."""

from __future__ import annotations

import copy

from lossfit.losses.base import Loss
from lossfit.losses.single_label.base import SingleLabelLoss
from lossfit.losses.single_label.cross_entropy import CrossEntropyLoss


def adopt(loss: SingleLabelLoss | None) -> SingleLabelLoss:
    """A copy without reduction that shares the tensors of ``loss``; cross-entropy for None."""
    if loss is None:
        return CrossEntropyLoss(reduction="none")
    if not isinstance(loss, SingleLabelLoss):
        raise TypeError(f"Expected `loss` to be a SingleLabelLoss, but got {type(loss).__name__}.")
    adopted = copy.copy(loss)
    adopted.reduction = "none"
    return adopted


def adopt_for_rivals(loss: SingleLabelLoss | None) -> SingleLabelLoss:
    """:func:`adopt` where the classes are rows of the batch or samples, so that nothing can be known per class."""
    adopted = adopt(loss)
    for name in ("weight", "class_prior"):
        if getattr(adopted, name) is not None:
            raise ValueError(f"Expected `loss` without `{name}`, since its classes change with the batch.")
    if adopted.ignore_index >= 0:
        raise ValueError(f"Expected `loss` with a negative `ignore_index`, but got {adopted.ignore_index}.")
    return adopted


class OuterLoss(Loss):
    """A loss with a single-label loss inside, whose schedules advance with its own."""

    loss: SingleLabelLoss

    def step(self, to: int | None = None) -> None:
        super().step(to)
        self.loss.step(to)
