"""The compiled library: whether it is there, and how it is called."""

from __future__ import annotations

import ctypes
import functools
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

PATH = Path(__file__).parent / "kernels.so"
VERSION = 1
NUMBERS = 8  # hyper-parameters of a link at most
LOSS, GAP, GAP_GRADIENT, MATHS = range(4)
DONE, OUT_OF_RANGE, OUT_OF_MEMORY = range(3)
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}

Number = float | Tensor
"""A number, or float32 for each row, or a float32 of no dimension."""

# The fields of `Request` in csrc/request.h: q an integer, Q a pointer, d a number, dQq a number or one for each row.
_PARAMETER = "dQq"
_REQUEST = struct.Struct(f"<6q3Qqq2q{_PARAMETER * NUMBERS}{_PARAMETER * 2}QQQqddQQQ6Q4QQQ")
_NO_NUMBERS = tuple((0.0, 0, 0) * unused for unused in range(NUMBERS + 1))
_NOTHING = (0,) * 10


class Library(NamedTuple):
    run: Callable[[bytes, int], int]
    level: int
    """The widest instruction set that this processor has: 1 is the least that the library needs, 2 is AVX2."""
    parallel_for: int
    """PyTorch's thread pool as a pointer; 0 where this PyTorch has none to give."""


@functools.cache
def load(path: Path = PATH) -> Library | str:
    """The library, or why there is none."""
    if os.environ.get("LOSSFIT_NATIVE") == "0":
        return "LOSSFIT_NATIVE=0 is set"
    if not path.exists():
        return "lossfit was installed without a C++ compiler"
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return f"the library cannot be loaded: {error}"
    if library.lossfit_version() != VERSION:
        return "the library was compiled from other sources; install lossfit again"
    run: Any = library.lossfit_run
    run.argtypes = [ctypes.c_char_p, ctypes.c_int32]
    return Library(run, library.lossfit_levels(), _parallel_for())


def _parallel_for() -> int:
    name = "libtorch_cpu.dylib" if os.uname().sysname == "Darwin" else "libtorch_cpu.so"
    try:
        function = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name)).torch_parallel_for
    except (OSError, AttributeError):
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def run(
    operation: int,
    scores: Tensor,
    target: Tensor,
    out: Tensor | None,
    gradient: Tensor | None = None,
    *,
    valid: Tensor | None = None,
    ignore_index: int = -1 << 63,
    hard: bool = False,
    link: int = 0,
    numbers: Sequence[Number] = (),
    label_smoothing: Number = 0.0,
    temperature: Number = 1.0,
    class_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    log_prior: Tensor | None = None,
    reduction: str = "none",
    divisor: float = 0.0,
    upstream: float | Tensor = 1.0,
    stats: Sequence[Tensor | None] | None = None,
    mean_weight: Tensor | None = None,
    level: int | None = None,
) -> int:
    """One call of the library, with tensors that it can read: see csrc/request.h. Returns its status."""
    library = load()
    assert isinstance(library, Library)
    classes = scores.shape[1]
    rows, inner = len(scores), 1
    if scores.ndim > 2:
        inner = scores.shape[2]
        rows *= inner
    parameters: list[Any] = []
    for number in (*numbers, label_smoothing, temperature):
        if isinstance(number, Tensor):
            parameters += (0.0, number.data_ptr(), int(number.ndim > 0))
        else:
            parameters += (number, 0, 0)
    given = 3 * len(numbers)
    parameters[given:given] = _NO_NUMBERS[NUMBERS - len(numbers)]
    each = isinstance(upstream, Tensor)
    request = _REQUEST.pack(
        operation,
        DTYPES[scores.dtype],
        rows,
        classes,
        inner,
        scores.stride(0),
        scores.data_ptr(),
        target.data_ptr(),
        _pointer(valid),
        ignore_index,
        hard,
        link,
        len(numbers),
        *parameters,
        _pointer(class_weight),
        _pointer(sample_weight),
        _pointer(log_prior),
        REDUCTIONS[reduction],
        divisor,
        1.0 if each else upstream,
        upstream.data_ptr() if isinstance(upstream, Tensor) else 0,
        _pointer(out),
        _pointer(gradient),
        *(_NOTHING if stats is None else map(_pointer, stats)),
        _pointer(mean_weight),
        library.parallel_for,
    )
    return library.run(request, level or library.level)


def _pointer(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
