"""The rows of all ranks of a process group in one place, and gradients back to where they came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Union

import torch
from torch import Tensor, distributed
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from lossfit.core.roll_call import RollCall

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Gather = Union[bool, "ProcessGroup"]
"""False: this process alone. True: all ranks of the default group. Or a group."""


@dataclass(frozen=True)
class Ranks:
    """How many rows each rank has, and which of them this is."""

    sizes: tuple[int, ...]
    index: int = 0
    group: ProcessGroup | None = None

    @property
    def total(self) -> int:
        return sum(self.sizes)

    @property
    def start(self) -> int:
        """The place of this rank's first row among all."""
        return sum(self.sizes[: self.index])

    def gather(self, *tensors: Tensor, alike: bool = False) -> tuple[Tensor, ...]:
        """Tensors (n, D) with the rows of all ranks, (N, D): one collective forward, one backward.

        A rank's gradient is the sum of what all ranks' losses say of its rows. Where they all say the same, which
        ``alike`` promises, no collective is needed for it.
        """
        if len(self.sizes) == 1:
            return tensors
        joined: Tensor = _Gather.apply(torch.cat(tensors, 1), self, alike)
        parts: tuple[Tensor, ...] = joined.split([t.shape[1] for t in tensors], 1)
        return parts

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a number over the ranks."""
        if len(self.sizes) == 1:
            return value
        one_each = replace(self, sizes=(1,) * len(self.sizes))
        return one_each.gather(value.reshape(1, 1))[0].sum()


def exchange_sizes(
    gather: Gather, device: torch.device, rows: Callable[[], int], shared: Callable[[], dict[str, Any]]
) -> Ranks:
    """Ask all ranks for their number of rows, and whether they bring what goes together.

    Args:
        gather: whose rows are gathered.
        device: where they are.
        rows: checks what this rank has, and counts its rows.
        shared: what must be the same on all ranks, by name.

    Raises:
        ValueError: ranks shall be gathered, and there is no process group; or they differ.
        TypeError, ValueError, IndexError: on all ranks, what ``rows`` raises on one.
    """
    if gather is False:
        return Ranks((rows(),))
    if not (distributed.is_available() and distributed.is_initialized()):
        raise ValueError(
            "Expected an initialised torch.distributed for `gather`, but there is none. "
            "Call torch.distributed.init_process_group first, or pass gather=False."
        )
    group = None if gather is True else gather
    with RollCall(group, device, "their rows") as call:
        call.note(rows())
        call.same(**shared())
    return Ranks(tuple(size for (size,) in call.noted), distributed.get_rank(group), group)


def check_gather(gather: object) -> None:
    if isinstance(gather, bool) or (distributed.is_available() and isinstance(gather, distributed.ProcessGroup)):
        return
    raise TypeError(f"Expected `gather` to be a bool or a process group, but got {type(gather).__name__}.")


class _Gather(Function):
    """Collectives move equal shapes, so shorter ranks are padded on the way."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, ranks: Ranks, alike: bool) -> Tensor:
        ctx.ranks, ctx.alike = ranks, alike
        longest = max(ranks.sizes)
        padded = own.new_zeros((longest, *own.shape[1:]))
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in ranks.sizes]
        distributed.all_gather(parts, padded, group=ranks.group)
        return torch.cat([part[:size] for part, size in zip(parts, ranks.sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        ranks: Ranks = ctx.ranks
        here = slice(ranks.start, ranks.start + ranks.sizes[ranks.index])
        if ctx.alike:
            return len(ranks.sizes) * grad[here], None, None
        total = grad.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total, group=ranks.group)
        return total[here], None, None
