"""The compiled library: whether it is there, and how it is called."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

PATH = Path(__file__).parent / "kernels.so"
VERSION = 4
NUMBERS = 8  # hyper-parameters of a link at most
LOSS, GAP, GAP_GRADIENT, MULTI_LABEL_LOSS, MATHS = range(5)
DONE, OUT_OF_RANGE, OUT_OF_MEMORY = range(3)
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
LEVELS = {1: "the least instruction set", 2: "AVX2"}
REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}

Number = float | Tensor
"""A number, or float32 for each row, or a float32 of no dimension."""

# The fields of `Request` in csrc/request.h: q an integer, Q a pointer, d a number, dQq a number or one for each row.
# The first part is packed for every call; the second, which takes longer, may be kept.
_PARAMETER = "dQq"
_HEAD = struct.Struct("<6q5QdQ")
_TAIL = struct.Struct(f"<Q4q{_PARAMETER * NUMBERS}{_PARAMETER * 2}3Qqd6Q4QQ2Q")
_NO_NUMBERS = tuple((0.0, 0, 0) * unused for unused in range(NUMBERS + 1))
_NOTHING = (0,) * 10


class Library(NamedTuple):
    run: Callable[[bytes, int], int]
    level: int
    """The widest instruction set that this processor has: 1 is the least that the library needs, 2 is AVX2."""
    is_threaded: bool
    """Whether this PyTorch shares its thread pool."""


@functools.cache
def load(path: Path = PATH) -> Library | str:
    """The library, or why there is none.

    LOSSFIT_NATIVE=0 in the environment leaves it alone; the path of another library, ending in .so, takes that one.
    """
    wish = os.environ.get("LOSSFIT_NATIVE", "")
    if wish == "0":
        return "LOSSFIT_NATIVE=0 is set"
    path = Path(wish) if wish.endswith(".so") else path
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
    threads = _parallel_for()
    library.lossfit_use_threads(threads)
    return Library(run, library.lossfit_levels(), threads is not None)


def _parallel_for() -> ctypes.c_void_p | None:
    """PyTorch's thread pool."""
    name = "libtorch_cpu.dylib" if platform.system() == "Darwin" else "libtorch_cpu.so"
    try:
        function = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name)).torch_parallel_for
    except (OSError, AttributeError):
        return None
    return ctypes.cast(function, ctypes.c_void_p)


SESSION = object()
"""Settings are packed for the library that a process has loaded."""


class Settings(NamedTuple):
    """What many calls may share, packed, and the tensors that it points to."""

    packed: bytes
    held: tuple[Any, ...] = ()


def settings(
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
    stats: Sequence[Tensor | None] | None = None,
    mean_weight: Tensor | None = None,
    known: Tensor | None = None,
    positive_weight: Tensor | None = None,
) -> Settings:
    """Pack settings. All tensors are contiguous, and those of numbers in float32: see csrc/request.h."""
    parameters: list[Any] = []
    for number in (*numbers, label_smoothing, temperature):
        if isinstance(number, Tensor):
            parameters += (0.0, number.data_ptr(), int(number.ndim > 0))
        else:
            parameters += (number, 0, 0)
    given = 3 * len(numbers)
    parameters[given:given] = _NO_NUMBERS[NUMBERS - len(numbers)]
    packed = _TAIL.pack(
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
        *(_NOTHING if stats is None else map(_pointer, stats)),
        _pointer(mean_weight),
        _pointer(known),
        _pointer(positive_weight),
    )
    weights = class_weight, sample_weight, log_prior, mean_weight, positive_weight
    return Settings(packed, (valid, numbers, label_smoothing, temperature, *weights, stats, known))


def run(
    operation: int,
    scores: Tensor,
    target: Tensor | None,
    out: Tensor | None,
    gradient: Tensor | None,
    settings: Settings,
    to_number: Tensor | None = None,
    upstream: float | Tensor = 1.0,
    level: int | None = None,
) -> int:
    """One call of the library, with tensors that it can read. Returns its status."""
    library = load()
    shape = scores.shape
    rows, inner = shape[0], 1
    if len(shape) > 2:
        inner = shape[2]
        rows *= inner
    number, each = (1.0, upstream.data_ptr()) if isinstance(upstream, Tensor) else (upstream, 0)
    head = _HEAD.pack(
        operation,
        DTYPES[scores.dtype],
        rows,
        shape[1],
        inner,
        scores.stride(0),
        scores.data_ptr(),
        0 if target is None else target.data_ptr(),
        0 if out is None else out.data_ptr(),
        0 if gradient is None else gradient.data_ptr(),
        0 if to_number is None else to_number.data_ptr(),
        number,
        each,
    )
    return library.run(head + settings.packed, level or library.level)  # type: ignore[union-attr]


def check(status: int) -> None:
    """Raise unless a call of :func:`run` has done its work."""
    if status == OUT_OF_MEMORY:
        raise MemoryError("The native kernels found no memory for a buffer of their own.")
    if status != DONE:
        raise RuntimeError(f"The native kernels refused a request with status {status}.")


def _pointer(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
