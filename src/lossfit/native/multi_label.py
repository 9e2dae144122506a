"""Whole multi-label losses by the kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossfit.core.reduce import Weighing
from lossfit.native import fused, library
from lossfit.native.library import Number

LOSSES = ("zlpr", "bce", "focal_bce", "asymmetric")
"""In the order of csrc/multi_label.h."""


class Term(NamedTuple):
    """The loss of a label, and what it is multiplied by.

    Attributes:
        loss: one of :data:`LOSSES`.
        gamma_pos, gamma_neg, clip: exponents for labels of 1 and of 0, and the shift of the latter.
        positive, negative: the weights of labels of 1 and of 0.
        weight, pos_weight: those of the classes (C,), and of their labels of 1.
    """

    loss: str
    gamma_pos: Number = 0.0
    gamma_neg: Number = 0.0
    clip: float = 0.0
    positive: Number = 1.0
    negative: Number = 1.0
    weight: Tensor | None = None
    pos_weight: Tensor | None = None


class Packed(NamedTuple):
    """A loss with all that is the same for batches of one kind: see :class:`lossfit.native.single_label.Packed`."""

    settings: library.Settings
    hypers: dict[str, Number]
    is_shared: bool
    session: object = library.SESSION

    @property
    def is_current(self) -> bool:
        return self.session is library.SESSION


def reads(labels: Tensor) -> bool:
    """Whether these are labels of which the kernels may look what they hold."""
    return type(labels) is Tensor and labels.is_floating_point() and labels.is_cpu and not labels.requires_grad


def loss(
    scores: Tensor, labels: Tensor, packed: Packed, reduction: str, again: Callable[[Tensor], Tensor]
) -> Tensor | None:
    """The loss of a batch (N, C), or None where a label that counts is not in [0, 1].

    Args:
        scores: of those that :func:`lossfit.native.serves`.
        labels: 0, 1 or between, of the shape of the scores; any others where they are not known.
        packed: the loss.
        reduction: "none", "mean" or "sum".
        again: the same loss of scores in plain PyTorch, for second derivatives.
    """
    if labels.dtype != torch.float32:
        labels = labels.to(torch.float32)
    if not labels.is_contiguous():
        labels = labels.contiguous()
    result = scores.shape[:1] if reduction == "none" else ()
    return fused.loss(scores, fused.Job(library.MULTI_LABEL_LOSS, labels, packed.settings, result, again))


def pack(
    shape: torch.Size, hypers: dict[str, Number], term: Term, weighing: Weighing, known: Tensor | None = None
) -> Packed | None:
    """What the kernels are told of a loss; None where something gets a gradient or is not as expected.

    Args:
        shape: of the scores.
        hypers: the hyper-parameters.
        term: the loss of a label.
        weighing: from rows to the result.
        known: which labels count; None for all.
    """
    if weighing.is_trainable:
        return None
    rows, classes = shape
    numbers: list[Number] = []
    for number in (term.gamma_pos, term.gamma_neg, term.clip, term.positive, term.negative):
        if isinstance(number, Tensor):
            if number.requires_grad or not number.is_cpu:
                return None
            number = number.item() if number.ndim == 0 else number.to(torch.float32).expand(rows).contiguous()
        numbers.append(number)
    arguments: dict[str, Any] = {}
    if known is not None:
        arguments["known"] = known.contiguous()
    for name, value in (("class_weight", term.weight), ("positive_weight", term.pos_weight)):
        if value is not None:
            value = value.expand(classes) if value.shape == (1,) else value
            if not value.is_cpu or value.requires_grad or value.shape != (classes,):
                return None
            arguments[name] = value.to(torch.float32).contiguous()
    if weighing.valid is not None:
        arguments["valid"] = weighing.valid.contiguous()
    if weighing.factor is not None:
        arguments["sample_weight"] = weighing.factor.to(torch.float32).contiguous()
    if weighing.divisor is not None:
        arguments["divisor"] = float(weighing.divisor)
    settings = library.settings(
        link=LOSSES.index(term.loss), numbers=numbers, reduction=weighing.reduction, **arguments
    )
    is_shared = not arguments and not any(isinstance(number, Tensor) for number in hypers.values())
    return Packed(settings, hypers, is_shared)
