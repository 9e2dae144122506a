"""What follows the product that makes a chunk's scores: their gap, and then their gradient in their place.

The loss of the rows is made of the gap in plain PyTorch, on numbers per row, and so is its slope. The scores are read
twice and written once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed

from lossfit.core.batch import Batch
from lossfit.core.class_shards import Shard
from lossfit.core.numerics import LOWEST, accumulation_dtype
from lossfit.gaps.types import Gap, GapFields
from lossfit.kernels import launch
from lossfit.kernels.launch import Scoring
from lossfit.linear.chunk import Chunk
from lossfit.linear.job import GapProgram

if TYPE_CHECKING:
    from lossfit.kernels.sparse import Sparse


class TritonChunk(Chunk):
    """A chunk whose results are made of the gap alone."""

    def start(self) -> None:
        super().start()
        form = self.form
        self.scoring = scoring(form, self.numbers, self.part, self.z)
        self.columns, self.here = self.part.target, None
        if self.part.shard is not None:
            self.columns, self.here = self.part.shard.locate(self.part.target)
        self.mean_weight = None if form.mean_weight is None else self.part.local(form.mean_weight)
        if not self.z.shape[1]:
            found = _of_no_columns(self.z, form)
        else:
            wanted = form.kind == "hard", form.mean, form.hit, form.entropy
            given = self.columns, self.part.valid, self.mean_weight
            found = launch.forward(self.z, *given, *wanted, self.here, self.scoring)
        self.meeting = None if self.part.shard is None else _Meeting(found, self.z, self.part.shard)
        self.gap = Gap._make(found)

    def results(self) -> tuple[Tensor, ...]:
        if self.meeting is not None:
            self.gap = self.meeting.gap(self.part.valid)
        graded = torch.is_grad_enabled()
        leaves = {n: v.detach().requires_grad_(graded) for n, v in self._fields(self.gap).items()}
        self.leaves, self.names = list(leaves.values()), list(leaves)
        return self.form.results(self.gap._replace(**leaves), self.at, self.numbers)

    def to_scores(self, grads: list[Tensor | None]) -> Tensor:
        if not self.z.shape[1]:
            return torch.zeros_like(self.z)
        by_name = dict(zip(self.names, grads, strict=True))
        g_mean = by_name.get("mean")
        if g_mean is not None and self.part.shard is not None:
            g_mean = g_mean * (self.z.shape[1] / self.part.shard.total)
        upstream = by_name["target"], by_name["rivals"], g_mean, by_name.get("entropy")
        fields = self.gap.target, self.gap.rivals, self.gap.entropy
        given = self.columns, self.part.valid, self.mean_weight, *fields, *upstream
        out = self.z if self.overwrites else torch.empty_like(self.z)
        if self.job.plan.skip_blocks and self.overwrites and self.job.margin is None:
            self.sparse = multiplied_in_part(self.z)
        kept = None if self.sparse is None else self.sparse.kept
        hard = self.form.kind == "hard"
        return launch.backward(self.z, *given, hard, self.here, out, self.scoring, kept)

    @property
    def form(self) -> GapProgram:
        assert self.job.form is not None
        return self.job.form

    def _fields(self, found: Gap) -> dict[str, Tensor]:
        return {n: v for n, v in found._asdict().items() if v is not None and n != "hit"}


def multiplied_in_part(z: Tensor) -> Sparse | None:
    """What skips blocks of the gradient in a chunk's place; float64 is there for its digits, and skips none."""
    if z.dtype == torch.float64:
        return None
    from lossfit.kernels.sparse import Sparse

    return Sparse(launch.tiles(z))


def scoring(form: GapProgram, numbers: dict[str, float | Tensor], part: Batch, z: Tensor) -> Scoring:
    """What the kernels make scores with, of a chunk's logits."""
    shift = None if form.shift is None else part.local(form.shift)
    divisor = numbers.get("temperature", 1.0)
    if isinstance(divisor, Tensor):
        divisor = divisor.detach().to(accumulation_dtype(z)).expand(z.shape[0])
    elif divisor != 1:
        divisor = z.new_full(z.shape[:1], divisor, dtype=accumulation_dtype(z))
    return Scoring(form.cap, divisor if isinstance(divisor, Tensor) else None, shift)


def _of_no_columns(z: Tensor, form: GapProgram) -> GapFields:
    none = z.new_zeros(z.shape[0], dtype=accumulation_dtype(z))
    lowest = torch.full_like(none, LOWEST[none.dtype])
    return none, lowest, none if form.mean else None, None, none if form.entropy else None


class _Meeting:
    """The ranks tell each other the gaps of their columns: one collective, which the next product need not wait for."""

    def __init__(self, found: GapFields, z: Tensor, shard: Shard) -> None:
        own, rivals, mean, _, entropy = found
        mean = None if mean is None else mean * (z.shape[1] / shard.total)
        self.fields = own, rivals, mean, None, entropy
        self.work = None
        if shard.group is not None:
            mine = torch.stack([v for v in self.fields if v is not None])
            self.every = mine.new_empty(distributed.get_world_size(shard.group), *mine.shape)
            self.work = distributed.all_gather_into_tensor(
                self.every.flatten(0, 1), mine, group=shard.group, async_op=True
            )

    def gap(self, valid: Tensor | None) -> Gap:
        """That of the whole rows."""
        if self.work is None:
            every = iter(torch.stack([v for v in self.fields if v is not None]).unsqueeze(0).unbind(1))
        else:
            self.work.wait()
            every = iter(self.every.unbind(1))
        own, rivals, mean, _, entropy = (None if v is None else next(every) for v in self.fields)
        assert own is not None
        assert rivals is not None
        joined = launch.join(rivals, entropy)
        own, mean = own.sum(0), None if mean is None else mean.sum(0)
        found = own, joined.rivals, mean, None, joined.of_row(own)
        return Gap._make(v if v is None or valid is None else v.masked_fill(~valid, 0) for v in found)
