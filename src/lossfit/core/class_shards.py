"""Classes that are spread over the ranks of a process group: which of them are here, and what is true of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, distributed
from torch.autograd import Function

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh


class TargetColumn(NamedTuple):
    """The column of each row's target (N, 1, ...), and whether it is here (N, 1, ...); None if all of them are."""

    column: Tensor
    here: Tensor | None = None

    def of(self, rows: Any) -> TargetColumn:
        """That of some rows."""
        return TargetColumn(*(None if v is None else v[rows] for v in self))  # type: ignore[arg-type]

    def take(self, columns: Tensor) -> Tensor:
        """The targets' entries (N, 1, ...) of columns (N, C, ...); 0 where the target is elsewhere."""
        if not columns.shape[1]:
            return columns.new_zeros(self.column.shape) + columns.sum(1, keepdim=True)
        own = columns.gather(1, self.column)
        return own if self.here is None else own.where(self.here, 0.0)

    def put_(self, columns: Tensor, value: float | Tensor) -> Tensor:
        """Columns with other entries (N, 1, ...) of the targets, in place."""
        if not columns.shape[1]:
            return columns
        if self.here is not None:
            value = torch.where(self.here, value, columns.gather(1, self.column))
        return columns.scatter_(1, self.column, value)


@dataclass(frozen=True)
class Shard:
    """The classes [start, start + count) of ``total``, or with ``columns`` some of them. Without a group all are here.

    Between the ranks of ``group`` there are two kinds of numbers. *Shared* numbers are the same on every rank, like the
    loss of a row; *partial* numbers are this rank's part of a sum over the classes. :meth:`all_reduce_sum` turns
    partial numbers into shared ones, and passes gradients on as they are. :meth:`broadcast_with_grad_sum` marks where
    shared numbers meet the columns of this rank, and adds up the gradients of all ranks.

    Attributes:
        widest: the most classes that a rank has.
        columns: the classes of the columns, in rising order, where not all of this rank's are there.
    """

    group: ProcessGroup | None
    start: int
    count: int
    total: int
    widest: int
    columns: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Shard:
        """Itself: a process group cannot be copied, and copies of a head belong to the same."""
        return self

    def locate(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """The column of each target, and whether it is here; elsewhere the column is any one."""
        if self.columns is None:
            here = (target >= self.start) & (target < self.start + self.count)
            return torch.where(here, target - self.start, 0), here
        at = torch.searchsorted(self.columns, target).clamp(max=max(len(self.columns) - 1, 0))
        here = self.columns[at] == target if len(self.columns) else torch.zeros_like(target, dtype=torch.bool)
        return torch.where(here, at, 0), here

    def classes(self, column: Tensor) -> Tensor:
        """The classes of columns."""
        return column + self.start if self.columns is None else self.columns[column]

    def local(self, per_class: Tensor) -> Tensor:
        """The entries (C,) of the classes that are here."""
        return per_class[self.start : self.start + self.count] if self.columns is None else per_class[self.columns]

    def all_reduce_sum(self, part: Tensor) -> Tensor:
        """The sum over the ranks. Its gradient goes to each of them."""
        total: Tensor = _AllReduceSum.apply(part, self.group)
        return total

    def broadcast_with_grad_sum(self, value: Tensor) -> Tensor:
        """The value itself. Its gradient is the sum over the ranks."""
        same: Tensor = _BroadcastWithGradSum.apply(value, self.group) if value.requires_grad else value
        return same

    def max(self, part: Tensor) -> Tensor:
        """The maximum over the ranks, without a gradient."""
        return reduce_(part.clone(), self.group, distributed.ReduceOp.MAX)


def reduce_(part: Tensor, group: ProcessGroup | None, op: Any = None) -> Tensor:
    """Reduce over the ranks, in place, by sum if nothing else is said. Without a group this process is alone."""
    if group is None:
        return part
    distributed.all_reduce(part, op=distributed.ReduceOp.SUM if op is None else op, group=group)
    return part


class _AllReduceSum(Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, group: ProcessGroup | None) -> Tensor:
        return reduce_(part.clone(memory_format=torch.contiguous_format), group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class _BroadcastWithGradSum(Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, group: ProcessGroup | None) -> Tensor:
        ctx.group = group
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return reduce_(grad.clone(memory_format=torch.contiguous_format), ctx.group), None


def is_sharded(value: object) -> bool:
    """Whether it is a DTensor."""
    if not (isinstance(value, Tensor) and distributed.is_available() and distributed.is_initialized()):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


def refuse(**tensors: object) -> None:
    """Raise where one is a DTensor, in what works on one process."""
    for name, value in tensors.items():
        if is_sharded(value):
            raise ValueError(f"Expected `{name}` as a tensor on one process, but got a DTensor.")


def group_of(value: Tensor) -> ProcessGroup:
    """The ranks that a DTensor is spread over."""
    from torch.distributed.tensor import DTensor

    assert isinstance(value, DTensor)
    group: ProcessGroup = value.device_mesh.get_group(0)
    return group


def local(name: str, value: Tensor, dim: int) -> Tensor:
    """The part of a DTensor that is here.

    Raises:
        ValueError: it is not sharded over the classes, along ``dim``.
    """
    from torch.distributed.tensor import DTensor, Replicate
    from torch.distributed.tensor import Shard as Along

    assert isinstance(value, DTensor)
    mesh, placements = value.device_mesh, value.placements
    over = [i for i, p in enumerate(placements) if not isinstance(p, Replicate)]
    placed = placements[over[0]] if len(over) == 1 else None
    if type(placed) is not Along or placed.dim % value.ndim != dim or mesh.ndim != 1:
        raise ValueError(
            f"Expected `{name}` as a DTensor sharded on dimension {dim}, the classes, of a mesh of one dimension, but "
            f"got {list(placements)} on a mesh of {mesh.ndim}. Of a larger mesh, take the part for the classes: "
            f"mesh['name']."
        )
    return value.to_local()


def from_counts(name: str, group: ProcessGroup, noted: list[list[int]]) -> Shard:
    """The shard of this rank, by the classes that each rank has and those that it takes for all.

    Raises:
        ValueError: the shards do not cover the classes.
    """
    counts, totals = map(list, zip(*noted, strict=True))
    if any(total != sum(counts) for total in totals):
        raise ValueError(
            f"Expected the shards of `{name}` to cover its {totals[0]} classes on all ranks, but they have "
            f"{counts} of {totals}. DTensor.from_local needs shape= and stride= where shards are uneven."
        )
    rank = distributed.get_rank(group)
    return Shard(group, sum(counts[:rank]), counts[rank], totals[0], max(counts))


def spread_over(mesh: DeviceMesh, classes: int) -> Shard:
    """The shard of this rank where classes are dealt out as DTensor does: as many to each, the last ones fewer."""
    world, rank = mesh.size(), mesh.get_local_rank()
    each = -(-classes // world)
    start, stop = min(rank * each, classes), min((rank + 1) * each, classes)
    return Shard(mesh.get_group(0), start, stop - start, classes, each)
