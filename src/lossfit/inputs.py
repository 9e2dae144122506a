"""The boundary: what users pass in is checked here once, before any work."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossfit.autograd import readable, transformed


class Batch(NamedTuple):
    """A checked batch.

    ``input`` is (N, C, d1, ...). ``target`` is (N, d1, ...) class indices, 0 where a row is ignored, or
    (N, C, d1, ...) probabilities. ``valid`` marks the rows that count; None means all of them.
    """

    input: Tensor
    target: Tensor
    valid: Tensor | None = None
    probabilities: bool = False
    unbatched: bool = False


def read(input: Tensor, target: Tensor, ignore_index: int, *, probabilities: bool = True) -> Batch:
    """Check scores and targets against each other, and find the ignored rows.

    The range of the targets is checked at once on a CPU. On other devices, and under ``torch.compile``, an
    asynchronous assertion does it, so that the host need not wait.
    """
    soft, unbatched = _check_shapes(input, target, probabilities)
    if unbatched:
        input, target = input.unsqueeze(0), target.unsqueeze(0)
    if soft:
        return Batch(input, target, None, True, unbatched)
    safe, valid = _check_range(target, input.shape[1], ignore_index)
    return Batch(input, safe, valid, False, unbatched)


def _check_shapes(input: Tensor, target: Tensor, probabilities: bool) -> tuple[bool, bool]:
    """Whether the targets are probabilities, and whether the batch dimension is missing."""
    for name, value in (("input", input), ("target", target)):
        if not isinstance(value, Tensor):
            raise TypeError(f"Expected `{name}` to be a torch.Tensor, but got {type(value).__name__}.")
    if not input.is_floating_point():
        raise TypeError(
            f"Expected `input` to hold floating-point scores, but got {input.dtype}. Convert it with input.float()."
        )
    shape, given = tuple(input.shape), tuple(target.shape)
    if not shape:
        raise ValueError("Expected `input` of shape (N, C), (N, C, d1, ...) or (C,), but got a single number.")
    unbatched = len(shape) == 1
    if shape[0 if unbatched else 1] == 0:
        raise ValueError(f"Expected `input` to have at least one class, but got shape {shape}.")
    expected = () if unbatched else (shape[0], *shape[2:])
    if target.is_floating_point():
        if probabilities and given == shape:
            return True, unbatched
        kinds, shapes = "integer class indices", f"{expected}"
        if probabilities:
            kinds, shapes = kinds + " or probabilities", f"{shapes} or {shape}"
        raise TypeError(
            f"Expected `target` to hold {kinds} of shape {shapes} for `input` of shape {shape}, "
            f"but got {target.dtype} of shape {given}."
        )
    if target.dtype == torch.bool or target.is_complex():
        raise TypeError(f"Expected `target` to hold integer class indices, but got {target.dtype}.")
    if given != expected:
        hint = " A one-hot target must be floating point." if given == shape else ""
        raise ValueError(f"Expected `target` of shape {expected} for `input` of shape {shape}, but got {given}.{hint}")
    return False, unbatched


def _check_range(target: Tensor, classes: int, ignore_index: int) -> tuple[Tensor, Tensor | None]:
    target = target.long() if target.dtype != torch.int64 else target
    if target.numel() == 0:
        return target, None
    ignores_a_class = 0 <= ignore_index < classes
    seen = readable(target)
    if seen and not ignores_a_class:
        low, high = torch.aminmax(target)
        if low.item() >= 0 and high.item() < classes:
            return target, None
    valid = target != ignore_index
    safe = target.masked_fill(~valid, 0)
    if seen:
        _raise_out_of_range(target, valid & ((target < 0) | (target >= classes)), classes, ignore_index)
    elif target.device.type != "meta" and not transformed():
        in_range = ((safe >= 0) & (safe < classes)).all()
        torch._assert_async(in_range, f"Expected `target` to hold class indices in [0, {classes}) or {ignore_index}.")
    return safe, valid


def _raise_out_of_range(target: Tensor, wrong: Tensor, classes: int, ignore_index: int) -> None:
    if not wrong.any():
        return
    position = tuple(wrong.nonzero()[0].tolist())
    raise IndexError(
        f"Expected `target` to hold class indices in [0, {classes}) or ignore_index={ignore_index}, "
        f"but got {target[position].item()} at position {position} "
        f"({int(wrong.sum())} of {target.numel()} targets are out of range)."
    )


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise unless ``value`` is one of ``choices``, with the nearest one suggested."""
    choices = tuple(choices)
    if value in choices:
        return
    near = max(choices, key=lambda choice: _likeness(str(value), choice), default=None)
    hint = f" Did you mean {near!r}?" if near is not None and _likeness(str(value), near) >= 0.6 else ""
    raise ValueError(f"Expected `{name}` to be one of {', '.join(map(repr, choices))}, but got {value!r}.{hint}")


def _likeness(value: str, choice: str) -> float:
    """How much alike two names are, or the name and a word of the other, in [0, 1]."""
    words = (choice, *choice.split("_"))
    return max(difflib.SequenceMatcher(None, value.lower(), word).ratio() for word in words)


def check_per_class(name: str, value: Tensor | None, classes: int) -> None:
    if value is not None and value.shape != (classes,):
        raise ValueError(f"Expected `{name}` to have one entry per class, ({classes},), but got {tuple(value.shape)}.")
