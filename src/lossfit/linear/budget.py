"""How many rows a chunk has: what the memory allows, and products near their peak."""

from __future__ import annotations

from typing import NamedTuple

import torch

# The scores of a chunk on a CPU, in bytes: the products stay near their peak, and memory small (measured). In half
# precision less, since the weight's gradient in float32 is there besides.
CHUNK_BYTES = 64 << 20
HALF_CHUNK_BYTES = 8 << 20
# What a GPU spends unless told otherwise, so that all of it stays below 1 GiB.
CUDA_BYTES = 896 << 20
# Fewer rows than this make products slow, whatever a row takes. A GPU reads the weight once a chunk and multiplies
# about 200 times for each byte it reads.
LEAST_ROWS = 64
LEAST_CUDA_ROWS = 256
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
    least = LEAST_CUDA_ROWS if cuda else LEAST_ROWS
    exact = True
    if memory is None and not cuda:
        room = min(CHUNK_BYTES, HALF_CHUNK_BYTES) if half else CHUNK_BYTES
    else:
        room = CUDA_BYTES if memory is None else memory
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
