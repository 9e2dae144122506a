"""A chunk of rows: results from their scores, and the gradient of the scores."""

from __future__ import annotations

import torch
from torch import Tensor

from lossfit.core.hyper import Number
from lossfit.linear.job import Job

Pulled = list[Tensor | None]


class Chunk:
    """Results of a chunk's scores, and their gradients."""

    x: Tensor
    buffer: Tensor
    overwrites: bool
    """Whether nobody reads the scores again, so that their gradient may take their place."""

    def __init__(self, job: Job, at: slice, z: Tensor, numbers: dict[str, Tensor], hidden: list[Tensor]) -> None:
        self.job, self.at, self.z, self.hidden = job, at, z, hidden
        self.numbers: dict[str, Number] = {**job.numbers, **numbers}
        self.trainable = {name: value for name, value in numbers.items() if value.requires_grad}
        self.targets = job.targets.cut(at)
        self.column = self.targets.column()

    def start(self) -> None:
        """Put the margin's scores in the place of the targets' own; :meth:`grads` puts them back."""
        if self.job.margin is not None:
            self.own = self.column.take(self.z).squeeze(1).requires_grad_(torch.is_grad_enabled())
            self.new = self.job.margin(self.own, self.at, self.numbers)
            self._put(self.new)

    def results(self) -> tuple[Tensor, ...]:
        self.leaves: list[Tensor] = [self.z.detach().requires_grad_(torch.is_grad_enabled())]
        return self.job.rows(self.leaves[0], self.at, self.numbers)

    def to_scores(self, grads: list[Tensor | None]) -> Tensor:
        """The gradient of the scores, from those of the leaves."""
        return torch.zeros_like(self.z) if grads[0] is None else grads[0]

    def _put(self, value: Tensor) -> None:
        self.column.put_(self.z, value.detach().to(self.z.dtype).unsqueeze(1))

    def grads(
        self, results: tuple[Tensor, ...], upstream: list[Tensor | None]
    ) -> tuple[Tensor, dict[str, Tensor], Pulled]:
        """The gradients of the scores, of the numbers by name, and of hidden tensors."""
        pairs = [(f, u) for f, u in zip(results, upstream, strict=False) if u is not None and f.requires_grad]
        if not pairs:
            return torch.zeros_like(self.z), {}, [None] * len(self.hidden)
        of, by = [f for f, _ in pairs], [u.to(f.dtype) for f, u in pairs]
        to_leaves, by_number, by_hidden = self._grad(of, self.leaves, by)
        dz = self.to_scores(to_leaves)
        if self.job.margin is None:
            return dz, by_number, by_hidden
        to_new = self.column.take(dz).squeeze(1).to(self.new.dtype)
        (to_own,), further, _ = self._grad([self.new], [self.own], [to_new])
        if to_own is None:
            to_own = torch.zeros_like(self.own)
        self.column.put_(dz, to_own.to(dz.dtype).unsqueeze(1))
        if dz is not self.z:
            self._put(self.own)
        for name, value in further.items():
            by_number[name] = by_number[name] + value if name in by_number else value
        return dz, by_number, by_hidden

    def _grad(
        self, of: list[Tensor], leaves: list[Tensor], upstream: list[Tensor]
    ) -> tuple[list[Tensor | None], dict[str, Tensor], Pulled]:
        wanted = [*leaves, *self.trainable.values(), *self.hidden]
        # What hidden tensors are made of is the same for all chunks.
        grads = torch.autograd.grad(of, wanted, upstream, allow_unused=True, retain_graph=bool(self.hidden))
        count = len(leaves) + len(self.trainable)
        named = {n: g for n, g in zip(self.trainable, grads[len(leaves) : count], strict=True) if g is not None}
        return list(grads[: len(leaves)]), named, list(grads[count:])
