"""A loss and its gradient from one call of the kernels, as one node of the graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from lossfit.core.autograd import call, differentiated_again, transformed
from lossfit.native import library

_ONE_NUMBER = torch.empty((), dtype=torch.float32)


class Job(NamedTuple):
    """A loss as :func:`library.run` takes it.

    Attributes:
        operation: of the library.
        target: of the rows, as far as the scores are read with it.
        settings: all others.
        shape: of the result.
        again: the same loss of scores in plain PyTorch, for second derivatives.
        trainable: the hyper-parameter that gets a gradient, which the kernels have for EXACT alone.
    """

    operation: int
    target: Tensor | None
    settings: library.Settings
    shape: tuple[int, ...]
    again: Callable[[Tensor], Tensor]
    trainable: Tensor | None = None

    def run(self, scores: Tensor, value: Tensor, gradients: Gradients | None, upstream: float | Tensor = 1.0) -> bool:
        """Whether all targets are classes; if so, value and gradients are written."""
        to_scores, to_number = (None, None) if gradients is None else gradients
        status = library.run(self.operation, scores, self.target, value, to_scores, self.settings, to_number, upstream)
        if status == library.OUT_OF_RANGE:
            return False
        library.check(status)
        return True

    def new_value(self) -> Tensor:
        return torch.empty(self.shape, dtype=torch.float32) if self.shape else torch.empty_like(_ONE_NUMBER)

    def new_gradients(self, scores: Tensor) -> Gradients:
        number = None
        if self.trainable is not None:
            number = torch.empty(scores.shape[:1] + scores.shape[2:], dtype=torch.float32)
        if scores.is_contiguous():
            return Gradients(torch.empty_like(scores), number)
        return Gradients(torch.empty_like(scores, memory_format=torch.contiguous_format), number)


class Gradients(NamedTuple):
    """That of the scores, and that of the hyper-parameter that is trainable, for each row."""

    scores: Tensor
    number: Tensor | None

    def scale(self, upstream: float) -> bool:
        """Scale gradients that were made for an upstream gradient of 1; False where that would cost digits."""
        if self.scores.dtype != torch.float32 or not math.isfinite(upstream):
            return False
        for gradient in self:
            if gradient is not None:
                gradient.mul_(upstream)
        return True


def loss(scores: Tensor, job: Job) -> Tensor | None:
    """The loss of scores, or None where a target is out of range or the loss not finite: PyTorch has those cases."""
    value = _loss(scores, job)
    if value is None or (value.isfinite().all() if value.ndim else math.isfinite(value.item())):
        return value
    return None


def _loss(scores: Tensor, job: Job) -> Tensor | None:
    if torch.is_grad_enabled() and (scores.requires_grad or job.trainable is not None):
        try:
            value: Tensor = call(_Fused, scores, job.trainable, job)
        except _OutOfRangeError:
            return None
        return value
    value = job.new_value()
    return value if job.run(scores, value, None) else None


class _OutOfRangeError(Exception):
    """A target is no class; who called finds out which."""


class _Fused(Function):
    """(scores, trainable, job) -> the loss, with its gradient at hand.

    The first backward pass hands the gradient over; a further one makes it again.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, trainable: Tensor | None, job: Job) -> Tensor:
        value = job.new_value()
        # Half of the range of float16 is gone where a scaled loss is scaled back afterwards; and rows are scaled one by
        # one. There the gradient is made when its scale is known.
        at_once = value.ndim == 0 and scores.dtype != torch.float16
        ctx.gradients = job.new_gradients(scores) if at_once else None
        if not job.run(scores, value, ctx.gradients):
            raise _OutOfRangeError
        ctx.job = job
        ctx.save_for_backward(scores, job.target)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        job: Job = ctx.job
        scores, _ = ctx.saved_tensors
        if transformed() and job.trainable is None:
            return torch.func.vjp(job.again, scores)[1](grad)[0], None, None
        if differentiated_again(grad):
            with torch.enable_grad():
                scores = scores.view_as(scores).requires_grad_()
                value = job.again(scores)
            inputs = [scores] if job.trainable is None else [scores, job.trainable]
            again = torch.autograd.grad(value, inputs, grad, create_graph=torch.is_grad_enabled())
            return (*again, *(None,) * (3 - len(again)))
        gradients, ctx.gradients = ctx.gradients, None
        upstream: Any = grad.item() if grad.ndim == 0 else grad.to(torch.float32).contiguous()
        if gradients is not None and job.trainable is None and isinstance(upstream, float) and upstream == 1.0:
            return gradients.scores, None, None
        if gradients is None or not gradients.scale(upstream):
            gradients = gradients or job.new_gradients(scores)
            job.run(scores, job.new_value(), gradients, upstream)
        to_trainable = None
        if job.trainable is not None and gradients.number is not None:
            to_trainable = gradients.number.sum_to_size(job.trainable.shape).to(job.trainable.dtype)
        return gradients.scores, to_trainable, None
