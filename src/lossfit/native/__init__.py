"""The gap with its links, EXACT and the multi-label losses in C++, for CPUs.

One call makes the loss of a batch and its gradient, in float32, with the scores read once from memory. Where these
kernels cannot serve, plain PyTorch does: for float64, inside of transformations, and where tensors are special.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

from lossfit.core.autograd import transformed
from lossfit.native.library import DTYPES, LEVELS, Library, load

_PLAIN = (Tensor, Parameter)


def serves(scores: Tensor) -> bool:
    """Whether the kernels can work on these scores (N, C) or (N, C, d1, ...), here and now."""
    return (
        not _is_watched()
        and type(scores) in _PLAIN
        and scores.dtype in DTYPES
        and scores.is_cpu
        and scores.layout is torch.strided
        and (scores.is_contiguous() or (scores.ndim == 2 and scores.stride(1) == 1))
        and not scores.is_neg()
        and isinstance(load(), Library)
        and scores.numel() > 0
    )


def obstacle(scores: Tensor) -> Exception | None:
    """What keeps the kernels from working on these scores; None where they can."""
    if serves(scores):
        return None
    if _is_watched():
        return ValueError('Expected plain calls for backend="native", but got a transformation, a trace or a mode.')
    library = load()
    if not isinstance(library, Library):
        return ImportError(f'backend="native" needs the compiled kernels, but {library}.')
    if scores.dtype not in DTYPES:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        return TypeError(f'Expected scores of type {known} for backend="native", but got {scores.dtype}.')
    if scores.device.type != "cpu":
        return ValueError(f'Expected CPU tensors for backend="native", but got one on {scores.device}.')
    return ValueError(
        'Expected `input` to be a plain tensor whose classes lie side by side for backend="native", but got '
        f"{type(scores).__name__} of strides {scores.stride() if scores.layout is torch.strided else scores.layout}."
    )


def describe() -> str:
    """Which kernels there are, or why there are none."""
    library = load()
    if not isinstance(library, Library):
        return f"none: {library}"
    threads = "on PyTorch's threads" if library.is_threaded else "on one thread: this PyTorch does not share its own"
    return f"{LEVELS[library.level]}, {threads}"


def _is_watched() -> bool:
    """Whether anything but eager mode looks on: it would not see what the kernels do."""
    return (
        torch.compiler.is_compiling()
        or transformed()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or torch._C._get_tracing_state() is not None
    )
