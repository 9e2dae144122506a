"""Triton kernels for what touches every class, and the choice between them and plain PyTorch.

A GPU runs them; so does a CPU, slowly, where TRITON_INTERPRET=1 is set before Triton is imported.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
Backend = Literal["auto", "torch", "triton"]
BACKENDS = ("auto", "torch", "triton")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

# Of the process, not of the thread: the backward pass may run in another one.
_backend: Backend = "auto"


def current() -> Backend:
    """The backend that :func:`using` has set."""
    return _backend


@contextmanager
def using(backend: Backend) -> Iterator[None]:
    """Choose what computes the gap and EXACT inside of this block, forward and backward, in the whole process.

    Args:
        backend: "triton" takes the kernels or raises; "torch" takes plain PyTorch; "auto", the default, takes the
            kernels for CUDA tensors where Triton is installed, outside of ``torch.compile``, which fuses plain PyTorch.

    Raises:
        ValueError: ``backend`` is unknown. What :func:`require` raises comes with the first tensor.

    Example:
        >>> loss = lossfit.CrossEntropyLoss()
        >>> with lossfit.kernels.using("torch"):
        ...     loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.2395)
    """
    from lossfit.core.checks import check_choice

    global _backend
    check_choice("backend", backend, BACKENDS)
    before, _backend = _backend, backend
    try:
        yield
    finally:
        _backend = before


def with_backend(backend: Backend, function: Callable[..., T]) -> Callable[..., T]:
    """A function that runs with the backend of an earlier time: the one of the forward pass, in the backward pass."""

    def run(*arguments: Any) -> T:
        with using(backend):
            return function(*arguments)

    return run


def available(tensor: Tensor) -> bool:
    """Whether the kernels can work on this tensor."""
    return _obstacle(tensor) is None


def require(tensor: Tensor) -> None:
    """Raise unless the kernels can work on this tensor.

    Raises:
        ImportError: Triton is not installed.
        TypeError: the tensor is of a type that the kernels do not read.
        ValueError: it is on a device where they do not run.
    """
    obstacle = _obstacle(tensor)
    if obstacle is not None:
        raise obstacle


def chosen(tensor: Tensor) -> bool:
    """Whether the kernels are to work on this tensor; raises where they were asked for and cannot."""
    if _backend == "triton":
        if not torch.compiler.is_compiling():  # then the operators themselves tell
            require(tensor)
        return True
    return _backend == "auto" and tensor.is_cuda and not torch.compiler.is_compiling() and available(tensor)


def _obstacle(tensor: Tensor) -> Exception | None:
    if importlib.util.find_spec("triton") is None:
        return ImportError('backend="triton" needs Triton. Install it with: pip install "lossfit[triton]".')
    if tensor.dtype not in DTYPES:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        return TypeError(f'Expected scores of type {known} for backend="triton", but got {tensor.dtype}.')
    if not tensor.is_cuda and not (tensor.device.type == "cpu" and _interpreted()):
        return ValueError(
            f'Expected CUDA tensors for backend="triton", but got one on {tensor.device}. '
            "(For tests on a CPU, set TRITON_INTERPRET=1 before Triton is imported.)"
        )
    return None


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")
