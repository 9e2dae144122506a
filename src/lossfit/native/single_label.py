"""Whole single-label losses by the kernels: scores to loss in one call, and the gradient with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossfit.native import fused, library
from lossfit.native.library import Number

LINKS = (
    "cross_entropy",
    "expected_accuracy",
    "gamma_cross_entropy",
    "floored_gamma_cross_entropy",
    "focal",
    "poly",
    "generalized_cross_entropy",
    "symmetric_cross_entropy",
    "squared",
    "exponential",
    "logistic_margin",
    "exponential_margin",
    "hinge",
    "squared_hinge",
    "smooth_accuracy",
    "exact",
    "exact_log",
)
"""In the order of csrc/links.h."""


class Term(NamedTuple):
    """What the loss of a row is: a link by its name, with its hyper-parameters, on a soft or hard gap."""

    link: str
    numbers: Sequence[Number] = ()
    hard: bool = False


class Weights(NamedTuple):
    """What a loss is weighed by, as the modules take them."""

    ignore_index: int
    reduction: str
    label_smoothing: Number = 0.0
    temperature: Number = 1.0
    class_weight: Tensor | None = None
    class_prior: Tensor | None = None
    sample_weight: Tensor | None = None
    denominator: float | Tensor | None = None


class Packed(NamedTuple):
    """A loss with all that is the same for batches of one kind, as :func:`loss` takes it.

    Attributes:
        settings: as the kernels read them.
        hypers: the hyper-parameters that they were packed from.
        trainable: the hyper-parameter that gets a gradient.
        is_shared: whether they hold for any batch without weights of its own.
        is_finite: whether the kernels take finite scores alone.
        session: of the library. A module may be unpickled in another one.
    """

    settings: library.Settings
    hypers: dict[str, Number]
    trainable: Tensor | None
    is_shared: bool
    is_finite: bool
    session: object = library.SESSION

    @property
    def is_current(self) -> bool:
        return self.session is library.SESSION


def loss(
    scores: Tensor,
    target: Tensor,
    shape: torch.Size,
    packed: Packed,
    reduction: str,
    again: Callable[[Tensor], Tensor],
) -> Tensor | None:
    """The loss of a batch, or None where the kernels cannot make it or a target is out of range.

    Args:
        scores: (N, C) or (N, C, d1, ...), of those that :func:`lossfit.native.serves`.
        target: class indices (N,) or (N, d1, ...).
        shape: of the rows.
        packed: the loss.
        reduction: "none", "mean" or "sum".
        again: the same loss of scores in plain PyTorch, for second derivatives.
    """
    if type(target) is not Tensor or target.dtype is not torch.int64 or target.shape != shape:
        return None
    if not target.is_contiguous():
        return None
    if packed.is_finite and not scores.isfinite().all():
        return None
    flat = scores if scores.ndim <= 3 else scores.flatten(2)
    result = shape if reduction == "none" else ()
    return fused.loss(flat, fused.Job(library.LOSS, target, packed.settings, result, again, packed.trainable))


def pack(shape: torch.Size, classes: int, hypers: dict[str, Number], term: Term, weights: Weights) -> Packed | None:
    """What the kernels are told of a loss; None where something gets a gradient or is not as expected."""
    smoothing, trainable = weights.label_smoothing, _trainable(term)
    smooth = isinstance(smoothing, Tensor) or smoothing != 0.0
    if (smooth and term.link != "cross_entropy") or len(term.numbers) > library.NUMBERS or not classes:
        return None
    numbers: list[Number] = []
    for number in (*term.numbers, smoothing, weights.temperature):
        if isinstance(number, Tensor):
            if not number.is_cpu or (number.requires_grad and number is not trainable):
                return None
            number = number.detach()
            number = _per_row(number, shape) if number.ndim else number.item()
        numbers.append(number)
    arguments: dict[str, Any] = {}
    if weights.class_weight is not None:
        arguments["class_weight"] = _per_class(weights.class_weight, classes)
    if weights.class_prior is not None:
        prior = weights.class_prior.double()
        arguments["log_prior"] = _per_class((prior / prior.sum()).log(), classes)
    if weights.sample_weight is not None:
        arguments["sample_weight"] = _weights_of_rows(weights.sample_weight, shape)
    if weights.denominator is not None:
        arguments["divisor"] = _divisor(weights)
    if any(value is None for value in arguments.values()):
        return None
    settings = library.settings(
        ignore_index=weights.ignore_index,
        hard=term.hard,
        link=LINKS.index(term.link),
        numbers=numbers[:-2],
        label_smoothing=numbers[-2],
        temperature=numbers[-1],
        reduction=weights.reduction,
        **arguments,
    )
    is_shared = not arguments and not any(isinstance(value, Tensor) for value in hypers.values())
    return Packed(settings, hypers, trainable, is_shared, term.link in ("exact", "exact_log"))


def _trainable(term: Term) -> Tensor | None:
    """The hyper-parameter that gets a gradient, which the kernels have for EXACT alone."""
    sigma = term.numbers[0] if term.link in ("exact", "exact_log") else None
    return sigma if isinstance(sigma, Tensor) and sigma.requires_grad else None


def _per_class(value: Tensor, classes: int) -> Tensor | None:
    fits = value.shape == (classes,) and value.is_cpu and not value.requires_grad
    return value.to(torch.float32).contiguous() if fits else None


def _per_row(value: Tensor, shape: torch.Size) -> Tensor:
    return value.to(torch.float32).expand(shape).contiguous()


def _weights_of_rows(value: Tensor, shape: torch.Size) -> Tensor | None:
    if not isinstance(value, Tensor) or value.requires_grad or not value.is_cpu or value.is_complex():
        return None
    if value.shape == shape:
        return _per_row(value, shape)
    if value.ndim == 1 and value.shape == shape[:1]:
        return _per_row(value.view(-1, *(1,) * (len(shape) - 1)), shape)
    return None


def _divisor(weights: Weights) -> float | None:
    divisor = weights.denominator
    if weights.reduction != "mean":
        return None
    if isinstance(divisor, Tensor):
        if divisor.requires_grad or not divisor.is_cpu or divisor.numel() != 1 or divisor.is_complex():
            return None
        divisor = float(divisor.item()) or math.inf  # a mean over nothing is 0
    return (
        float(divisor) if isinstance(divisor, float | int) and not isinstance(divisor, bool) and divisor > 0 else None
    )
