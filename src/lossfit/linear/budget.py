"""How many rows a chunk has: what the memory allows, and products near their peak."""

from __future__ import annotations

from typing import NamedTuple

import torch

from lossfit.core.limits import limits

# The rows that a program of a matrix product works on: chunks of several have a multiple of them.
_TILE = 128


class Budget(NamedTuple):
    """How the memory is spent.

    Attributes:
        height: rows of a chunk.
        exact: whether the weight's gradient is summed up in float32 or better.
    """

    height: int
    exact: bool


def allot(
    rows: int,
    columns: int,
    features: int,
    dtype: torch.dtype,
    device: torch.device,
    memory: int | None = None,
    *,
    buffers: int = 1,
) -> Budget:
    """The chunks for scores (rows, columns) of a type, so many of which are there at a time.

    ``memory`` bytes hold the scores and, in half precision, the float32 sum of the weight's gradient. Where that sum
    takes more than half of them, bfloat16 does without: chunks are as large as the memory, and the gradient is rounded
    once for each. float16 has too small a range for that.
    """
    cuda, half = device.type == "cuda", dtype.itemsize <= 2
    limit = limits()
    least = limit.least_cuda_rows if cuda else limit.least_rows
    exact = True
    if memory is None and not cuda:
        room = min(limit.chunk_bytes, limit.half_chunk_bytes) if half else limit.chunk_bytes
    else:
        room = limit.cuda_bytes if memory is None else memory
        if half:
            summed = 4 * columns * features
            exact = dtype != torch.bfloat16 or 2 * summed <= room
            room -= summed if exact else 0
    most = max(least, room // (max(columns, 1) * dtype.itemsize * buffers))
    height = max(1, -(-rows // max(1, -(-rows // most))))  # chunks of the same size
    tiled = -(-height // _TILE) * _TILE
    return Budget(tiled if tiled <= most and height < rows else height, exact)


def fits_one_chunk(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether there is nothing to cut."""
    return allot(rows, columns, 0, dtype, device).height >= rows
