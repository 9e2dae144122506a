"""Triton kernels for what touches every class, and the choice between them, those for CPUs, and plain PyTorch.

A GPU runs Triton's; so does a CPU, slowly, where TRITON_INTERPRET=1 is set before Triton is imported.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from lossfit import native
from lossfit.native.library import load

T = TypeVar("T")
Backend = Literal["auto", "torch", "triton", "native"]
BACKENDS = ("auto", "torch", "triton", "native")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

# Each thread and each task has its own. The backward pass may run in another thread: :func:`with_backend`.
_backend: ContextVar[Backend] = ContextVar("backend", default="auto")
# What :func:`using` has set inside of a function that is traced. A trace follows no context variable, but it guards
# what it reads of a module: `seen_by_trace` is there, looked up at every call of the compiled code.
_in_trace: Backend | None = None


def __getattr__(name: str) -> Any:
    if name == "seen_by_trace":
        return _backend.get()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def current() -> Backend:
    """The backend that :func:`using` has set."""
    if torch.compiler.is_compiling():
        from lossfit import kernels

        backend: Backend = _in_trace or kernels.seen_by_trace
        return backend
    return _backend.get()


@contextmanager
def using(backend: Backend) -> Iterator[None]:
    """Choose what computes the gap and EXACT inside of this block, forward and backward, in this thread or task.

    Args:
        backend: "triton" takes Triton's kernels and "native" those in C++, or they raise; "torch" takes plain PyTorch.
            "auto", the default, takes Triton's for CUDA tensors where Triton is installed,
            and the native ones for CPU tensors of float32, bfloat16 and float16 where lossfit was installed with a C++
            compiler; plain PyTorch inside of ``torch.compile``, which fuses it, and of transformations.

    Raises:
        ValueError: ``backend`` is unknown. What :func:`require` raises comes with the first tensor.

    Example:
        >>> loss = lossfit.CrossEntropyLoss()
        >>> with lossfit.kernels.using("torch"):
        ...     loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.2395)
    """
    from lossfit.core.checks import check_choice

    global _in_trace
    check_choice("backend", backend, BACKENDS)
    if torch.compiler.is_compiling():
        before, _in_trace = _in_trace, backend
        try:
            yield
        finally:
            _in_trace = before
        return
    token = _backend.set(backend)
    try:
        yield
    finally:
        _backend.reset(token)


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
    backend = current()
    if backend == "triton":
        if not torch.compiler.is_compiling():  # then the operators themselves tell
            require(tensor)
        return True
    return backend == "auto" and auto(tensor)


def auto(tensor: Tensor) -> bool:
    """Whether "auto" takes the kernels for this tensor: on a GPU, outside of a compiler."""
    return tensor.is_cuda and not torch.compiler.is_compiling() and available(tensor)


def is_native(scores: Tensor) -> bool:
    """Whether the native kernels are to work on these scores; raises where they were asked for and cannot."""
    backend = current()
    if backend == "auto":
        return native.serves(scores)
    if backend != "native" or not scores.numel():
        return False
    obstacle = native.obstacle(scores)
    if obstacle is not None:
        raise obstacle
    return True


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


def show_config() -> None:
    """Print which kernels this installation has, and which of them tensors get.

    Example:
        >>> lossfit.show_config()
        torch: ...
        native kernels: ...
        Triton kernels: ...
        CPU tensors: ...
    """
    print(f"torch: {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"native kernels: {native.describe()}")
    print(f"Triton kernels: {_triton()}")
    for device in ("CPU", *(("CUDA",) if torch.cuda.is_available() else ())):
        print(f"{device} tensors: {backend_for(device.lower(), torch.float32)}")


def backend_for(device: str, dtype: torch.dtype) -> str:
    """The backend that scores get, and why."""
    backend = current()
    if backend != "auto":
        return f"{backend}, as lossfit.kernels.using says"
    scores = torch.empty((1, 2), dtype=dtype, device=device)
    if chosen(scores):
        return "triton"
    obstacle = native.obstacle(scores)
    return "native" if obstacle is None else "torch: " + _why(obstacle, dtype)


def _why(obstacle: Exception, dtype: torch.dtype) -> str:
    if isinstance(obstacle, ImportError):
        return f"there are no native kernels ({load()})"
    return f"no kernels for {str(dtype).removeprefix('torch.')} scores on this device"


def _triton() -> str:
    if importlib.util.find_spec("triton") is None:
        return "none: Triton is not installed"
    return f"Triton {importlib.metadata.version('triton')}, for CUDA tensors"
