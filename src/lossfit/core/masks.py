"""Which positions of a batch of sequences count: a mask, or the lengths."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lossfit.core.autograd import readable
from lossfit.core.checks import check_tensor


def positions(mask: Tensor | None, batch: int, length: int) -> Tensor | None:
    """A boolean mask (B, T) from a mask of booleans or of 0 and 1, from lengths (B,), or None for all positions.

    Raises:
        TypeError: neither boolean nor of an integer type.
        ValueError: the shape does not fit, a mask holds another number, or a length lies outside of [0, T].
    """
    if mask is None:
        return None
    check_tensor("mask", mask)
    if mask.ndim == 1 and mask.dtype != torch.bool:
        return _from_lengths(mask, batch, length)
    if mask.is_floating_point() or mask.is_complex():
        raise TypeError(
            f"Expected `mask` to be boolean, of integers 0 and 1, or lengths of shape ({batch},), but got {mask.dtype}."
        )
    if mask.shape != (batch, length):
        raise ValueError(f"Expected `mask` of shape {(batch, length)}, but got {tuple(mask.shape)}.")
    if mask.dtype == torch.bool:
        return mask
    refuse((mask != 0) & (mask != 1), mask, "Expected `mask` to hold 0 and 1")
    return mask == 1


def _from_lengths(lengths: Tensor, batch: int, length: int) -> Tensor:
    if lengths.is_floating_point() or lengths.is_complex():
        raise TypeError(f"Expected `mask` to be boolean or to hold integer lengths, but got {lengths.dtype}.")
    if lengths.shape != (batch,):
        raise ValueError(f"Expected `mask` to hold lengths of shape ({batch},), but got {tuple(lengths.shape)}.")
    wrong = (lengths < 0) | (lengths > length)
    refuse(wrong, lengths, f"Expected `mask` to hold lengths in [0, {length}]")
    return torch.arange(length, device=lengths.device) < lengths.unsqueeze(1)


def refuse(wrong: Tensor, values: Tensor, expected: str) -> None:
    """Raise a ValueError with the first wrong value and its position.

    Where the host may not look, an asynchronous assertion does it; inside a transformation nothing does.
    """
    if readable(values):
        if wrong.any():
            at = tuple(wrong.nonzero()[0].tolist())
            value: Any = values[at].item()
            raise ValueError(f"{expected}, but got {value}{f' at position {at}' if at else ''}.")
    elif values.device.type == "cuda":
        torch._assert_async(~wrong.any(), f"{expected}.")
