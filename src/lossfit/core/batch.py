"""Scores and their targets, checked once before any work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossfit.core import class_shards
from lossfit.core.autograd import readable, transformed
from lossfit.core.checks import check_tensor
from lossfit.core.class_shards import Shard, TargetColumn
from lossfit.core.roll_call import RollCall


class Targets(NamedTuple):
    """Checked targets of a batch.

    ``target`` is (N, d1, ...) class indices, 0 where a row is ignored, or (N, C, d1, ...) probabilities. ``valid``
    marks the rows that count; None means all of them. Where the ``classes`` are spread over ranks, ``shard`` says which
    of them the columns of scores and of probabilities are.
    """

    target: Tensor
    classes: int
    valid: Tensor | None = None
    probabilities: bool = False
    shard: Shard | None = None

    @property
    def rows(self) -> torch.Size:
        """The shape of the rows (N, d1, ...)."""
        return self.target.shape[:1] + self.target.shape[2:] if self.probabilities else self.target.shape

    def cut(self, at: slice) -> Targets:
        """The targets of some rows."""
        return self._replace(target=self.target[at], valid=None if self.valid is None else self.valid[at])

    def counting(self, scores: Tensor, valid: Tensor | None) -> tuple[Tensor, Targets]:
        """With other rows that count. With probabilities there is no place for the mark, and the scores become 0."""
        if valid is self.valid:
            return scores, self
        other = self._replace(valid=valid)
        return (other.blank(scores), self) if self.probabilities else (scores, other)

    def blank(self, columns: Tensor) -> Tensor:
        """Columns (N, C, d1, ...) with 0 in the rows that do not count."""
        return columns if self.valid is None else columns.masked_fill(~self.valid.unsqueeze(1), 0.0)

    def column(self) -> TargetColumn:
        """Where the targets are among the columns."""
        if self.shard is None:
            return TargetColumn(self.target.unsqueeze(1))
        at, here = self.shard.locate(self.target)
        return TargetColumn(at.unsqueeze(1), here.unsqueeze(1))

    def own(self, columns: Tensor) -> Tensor:
        """The target's entry (N, d1, ...) of columns (N, C, d1, ...)."""
        own = self.column().take(columns).squeeze(1)
        return own if self.shard is None else self.shard.all_reduce_sum(own)

    def is_own(self, columns: Tensor) -> Tensor:
        """Which of the columns (N, C, d1, ...) are the target's."""
        nowhere = torch.zeros_like(columns, dtype=torch.bool)
        if not columns.shape[1]:
            return nowhere
        at, here = self.column()
        return nowhere.scatter(1, at, True if here is None else here)

    def sum(self, columns: Tensor) -> Tensor:
        """The sum over all classes (N, d1, ...) of columns (N, C, d1, ...)."""
        return columns.sum(1) if self.shard is None else self.shard.all_reduce_sum(columns.sum(1))

    def broadcast(self, value: Any) -> Any:
        """A number or a tensor that is the same on every rank, where columns meet it."""
        if self.shard is None or not isinstance(value, Tensor):
            return value
        return self.shard.broadcast_with_grad_sum(value)

    def local(self, per_class: Tensor) -> Tensor:
        """The entries of the columns, of numbers per class (C,)."""
        return per_class if self.shard is None else self.shard.local(per_class)


class Batch(NamedTuple):
    """A checked batch: scores (N, C, d1, ...), their targets, and whether the caller left out the dimension N."""

    scores: Tensor
    targets: Targets
    unbatched: bool = False


def top_class(scores: Tensor, shard: Shard | None) -> Tensor:
    """The class with the largest score (N, d1, ...), the first one if scores tie."""
    if shard is None:
        return scores.argmax(1)
    if scores.shape[1]:
        best, at = scores.detach().max(1)
        classes = shard.classes(at)
    else:
        rows = scores.shape[:1] + scores.shape[2:]
        best = scores.new_full(rows, torch.finfo(scores.dtype).min)
        classes = torch.full(rows, shard.total, device=best.device)
    first = torch.where(best == shard.max(best), classes, shard.total - 1)
    return -shard.max(-first)


def read_batch(
    input: Tensor,
    target: Tensor,
    ignore_index: int,
    *,
    probabilities: bool = True,
    agreed: Callable[[], dict[str, Any]] = dict,
) -> Batch:
    """Check scores and targets against each other, and find the ignored rows.

    The range of the targets is checked at once on a CPU. On other devices, and under ``torch.compile``, an
    asynchronous assertion does it, so that the host need not wait.

    Where classes are spread over ranks, these must have the same targets, and the same of what ``agreed`` names.
    """
    if class_shards.is_sharded(input):
        return _read_sharded(input, target, ignore_index, agreed, probabilities=probabilities)
    soft, unbatched = _check_shapes(input, target, probabilities)
    if unbatched:
        input, target = input.unsqueeze(0), target.unsqueeze(0)
    if soft:
        return Batch(input, Targets(target, input.shape[1], probabilities=True), unbatched)
    safe, valid = _check_range(target, input.shape[1], ignore_index)
    return Batch(input, Targets(safe, input.shape[1], valid), unbatched)


def _read_sharded(
    input: Tensor, target: Tensor, ignore_index: int, agreed: Callable[[], dict[str, Any]], *, probabilities: bool
) -> Batch:
    """Scores (N, C, ...) whose classes are spread over the ranks. Targets are the same on all of them."""
    group = class_shards.group_of(input)
    with RollCall(group, input.device, "the classes") as call:
        if input.ndim < 2:
            raise ValueError(
                f"Expected a sharded `input` of shape (N, C) or (N, C, d1, ...), but got {tuple(input.shape)}."
            )
        soft, _ = _check_shapes(input, target, probabilities)
        here = class_shards.local("input", input, 1)
        spread = class_shards.is_sharded(target)
        own = class_shards.local("target", target, 1) if spread else target
        call.same(target=f"a DTensor of {target.dtype}" if spread else target)
        call.same(input=f"{input.dtype} {tuple(input.shape)}")
        call.same(**agreed())
        call.note(here.shape[1], input.shape[1])
    shard = class_shards.from_counts("input", group, call.noted)
    if soft:
        return Batch(here, Targets(_columns(own, shard), shard.total, probabilities=True, shard=shard))
    safe, valid = _check_range(target, input.shape[1], ignore_index)
    return Batch(here, Targets(safe, shard.total, valid, shard=shard))


def _columns(target: Tensor, shard: Shard) -> Tensor:
    """The part of probabilities that is here, unless it is all that was passed."""
    return target if target.shape[1] == shard.count else target.narrow(1, shard.start, shard.count)


def _check_shapes(input: Tensor, target: Tensor, probabilities: bool) -> tuple[bool, bool]:
    """Whether the targets are probabilities, and whether the batch dimension is missing."""
    for name, value in (("input", input), ("target", target)):
        check_tensor(name, value)
    if not input.is_floating_point():
        raise TypeError(
            f"Expected `input` to hold floating-point scores, but got {input.dtype}. Convert it with input.float()."
        )
    if target.device != input.device:
        raise ValueError(f"Expected `target` on the device of `input`, {input.device}, but got {target.device}.")
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
