"""Calling autograd Functions at the cost that small batches can afford."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import Function, forward_ad


def transformed() -> bool:
    """Whether a ``torch.func`` transformation or forward-mode differentiation is at work."""
    return torch._C._are_functorch_transforms_active() or forward_mode()


def forward_mode() -> bool:
    """Whether derivatives go forward with the values, as in ``torch.func.jvp`` and ``jacfwd``."""
    return forward_ad._current_level >= 0


def is_abstract(value: Tensor) -> bool:
    """Whether there is only a shape: on the meta device, or in a FakeTensor."""
    return value.device.type == "meta" or isinstance(value, FakeTensor)


def without_autocast(value: Tensor) -> AbstractContextManager[Any]:
    """Autocast off on the tensor's device, where there is such a thing."""
    kind = value.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def has_numbers(value: Tensor) -> bool:
    """Whether there are numbers to look at: not on the meta device, in a FakeTensor, or inside a transformation."""
    if torch.compiler.is_compiling() or transformed():
        return False
    return not is_abstract(value)


def readable(value: Tensor) -> bool:
    """Whether the host may look at the numbers without waiting for a GPU."""
    return value.device.type == "cpu" and has_numbers(value)


def differentiated_again(*grads: Tensor | None) -> bool:
    """Whether a backward pass must be differentiable itself, or take many gradients at a time."""
    return torch.is_grad_enabled() or transformed() or batched(*grads)


def batched(*grads: Tensor | None) -> bool:
    """Whether gradients hold many at a time (``is_grads_batched=True``): then no operation on them may be in place."""
    if torch.compiler.is_compiling():
        return False
    return any(g is not None and torch._C._functorch.is_legacy_batchedtensor(g) for g in grads)


def call(function: type[Function], *arguments: Any) -> Any:
    """``function.apply(*arguments)``, all arguments given.

    ``apply`` binds its arguments to the signature of ``forward`` at every call, which takes longer than the work on a
    small batch. Outside of transformations and tracing that is skipped. In forward mode a function that
    says ``has_plain_forward``, of operations that PyTorch can differentiate, runs as these operations.
    """
    if forward_mode() and getattr(function, "has_plain_forward", False):
        return function.forward(*arguments)
    if torch.compiler.is_compiling() or transformed():
        return function.apply(*arguments)
    return super(Function, function).apply(*arguments)  # type: ignore[misc]


def fold(
    size: int, in_dims: tuple[int | None, ...], arguments: tuple[Any, ...], per_class: tuple[int, ...] = ()
) -> Iterator[Any]:
    """Fold a vmapped dimension into the rows of every tensor but those ``per_class``."""
    for i, (dim, value) in enumerate(zip(in_dims, arguments, strict=True)):
        if not isinstance(value, Tensor) or i in per_class:
            yield value
        elif dim is None:
            yield value.expand(size, *value.shape).flatten(0, 1)
        else:
            yield value.movedim(dim, 0).flatten(0, 1)
