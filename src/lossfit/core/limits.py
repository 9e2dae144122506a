"""How much is worked on at a time. Results do not depend on these numbers, but for rounding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Limits:
    """Sizes of blocks and chunks.

    Attributes:
        chunk_bytes: the scores of a chunk on a CPU: the products stay near their peak, and memory small (measured).
        half_chunk_bytes: the same in half precision, where the weight's gradient in float32 is there besides.
        cuda_bytes: all that a GPU spends unless ``memory`` says another number, so that it stays below 1 GiB.
        least_rows: the rows of a chunk on a CPU, whatever a row takes, since products of fewer are slow.
        least_cuda_rows: the same on a GPU, which reads the weight once a chunk and multiplies about 200 times for
            each byte that it reads.
        label_bytes: the scores of a block of multi-label losses on a CPU, which stays in the cache with its
            temporaries (measured).
        kernel_block: the scores that a program of the kernels holds at a time; half or a quarter as many where more is
            kept for each, so that the registers hold them.
        few_pairs: up to so many pairs in float32 are looked at one by one, which is faster there (measured).
        few_double_pairs: the same in float64.
    """

    chunk_bytes: int = 64 << 20
    half_chunk_bytes: int = 8 << 20
    cuda_bytes: int = 896 << 20
    least_rows: int = 64
    least_cuda_rows: int = 256
    label_bytes: int = 1 << 20
    kernel_block: int = 4096
    few_pairs: int = 200_000
    few_double_pairs: int = 100_000


_USUAL = Limits()
_CURRENT: ContextVar[Limits] = ContextVar("limits", default=_USUAL)


def limits() -> Limits:
    """The limits of this thread or task; a compiler sees the usual ones."""
    return _USUAL if torch.compiler.is_compiling() else _CURRENT.get()


@contextmanager
def limited(**changes: int) -> Iterator[None]:
    """Work with other limits within a block of code."""
    token = _CURRENT.set(replace(limits(), **changes))
    try:
        yield
    finally:
        _CURRENT.reset(token)
