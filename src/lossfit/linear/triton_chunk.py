"""What follows the product that makes a chunk's scores: their gap, and then their gradient in their place.

The loss of the rows is made of the gap in plain PyTorch, on numbers per row, and so is its slope. The scores are read
twice and written once.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed

from lossfit.core import class_shards
from lossfit.core.batch import Targets
from lossfit.core.class_shards import Shard
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.row_stats import RowInputs, RowStats, Upstream, join
from lossfit.gaps.fields import to_gap
from lossfit.gaps.sharded import of_no_columns
from lossfit.kernels import launch
from lossfit.kernels.launch import Scoring
from lossfit.linear.chunk import Chunk
from lossfit.linear.job import GapProgram


class TritonChunk(Chunk):
    """A chunk whose results are made of the gap alone."""

    def start(self) -> None:
        super().start()
        form, targets, shard = self.form, self.targets, self.targets.shard
        self.scoring = scoring(form, self.numbers, targets, self.z)
        self.rows = RowInputs(targets.target, targets.valid, weight=form.mean_weight)
        self.columns = self.rows
        if shard is not None:
            at, here = shard.locate(targets.target)
            weight = None if form.mean_weight is None else shard.local(form.mean_weight)
            self.columns = RowInputs(at, targets.valid, here, None, weight)
            if form.wanted.mean:
                self._find_own(shard)
        if not self.z.shape[1]:
            self.stats = of_no_columns(self.z, self.columns, form.wanted)
        else:
            self.stats = launch.forward(self.z, self.columns, form.wanted, self.scoring)
        self.meeting = None if shard is None else _Meeting(self.stats, self.z, shard, self.scoring.divisor)

    def _find_own(self, shard: Shard) -> None:
        """The targets' logits and shifts, which the mean is relative to."""
        own = self.column.take(self.z).squeeze(1).to(accumulation_dtype(self.z))
        own = own if not self.form.cap else torch.tanh(own / self.form.cap) * self.form.cap
        self.columns = self.columns._replace(own=class_shards.reduce_(own, shard.group))
        if self.form.shift is not None:
            self.scoring = self.scoring._replace(own_shift=self.form.shift[self.targets.target])

    def results(self) -> tuple[Tensor, ...]:
        if self.meeting is not None:
            self.stats = self.meeting.stats(self.targets.valid)
        graded = torch.is_grad_enabled()
        leaves = Upstream(*(getattr(self.stats, name) for name in Upstream._fields))
        leaves = Upstream(*(None if v is None else v.detach().requires_grad_(graded) for v in leaves))
        self.names = [name for name, v in leaves._asdict().items() if v is not None]
        self.leaves = [v for v in leaves if v is not None]
        stats = self.stats._replace(**leaves._asdict())
        gap = to_gap(stats, self.rows, self.targets.classes, self.scoring.divisor, self.form.shift)
        return self.form.results(gap, self.at, self.numbers)

    def to_scores(self, grads: list[Tensor | None]) -> Tensor:
        if not self.z.shape[1]:
            return torch.zeros_like(self.z)
        upstream = Upstream(**dict(zip(self.names, grads, strict=True)))
        if upstream.mean is not None and self.targets.shard is not None:
            upstream = upstream._replace(mean=upstream.mean * (self.z.shape[1] / self.targets.shard.total))
        out = self.z if self.overwrites else torch.empty_like(self.z)
        hard = self.form.wanted.hard
        return launch.backward(self.z, self.columns, self.stats, upstream, hard, out, self.scoring)

    @property
    def form(self) -> GapProgram:
        assert self.job.form is not None
        return self.job.form


def scoring(form: GapProgram, numbers: dict[str, float | Tensor], targets: Targets, z: Tensor) -> Scoring:
    """What the kernels make scores with, of a chunk's logits."""
    shift = None if form.shift is None else targets.local(form.shift)
    divisor = numbers.get("temperature", 1.0)
    if isinstance(divisor, Tensor):
        divisor = divisor.detach().to(accumulation_dtype(z)).expand(z.shape[0])
    elif divisor != 1:
        divisor = z.new_full(z.shape[:1], divisor, dtype=accumulation_dtype(z))
    return Scoring(form.cap, divisor if isinstance(divisor, Tensor) else None, shift)


class _Meeting:
    """The ranks tell each other of their columns: one collective, which the next product need not wait for."""

    def __init__(self, stats: RowStats, z: Tensor, shard: Shard, divisor: Tensor | None) -> None:
        mean = None if stats.mean is None else stats.mean * (z.shape[1] / shard.total)
        self.mine, self.divisor, self.work = stats._replace(mean=mean), divisor, None
        mine = torch.stack([v for v in self.mine if v is not None])
        self.every = mine.unsqueeze(0)
        if shard.group is not None:
            self.every = mine.new_empty(distributed.get_world_size(shard.group), *mine.shape)
            self.work = distributed.all_gather_into_tensor(
                self.every.flatten(0, 1), mine, group=shard.group, async_op=True
            )

    def stats(self, valid: Tensor | None) -> RowStats:
        """Those of the whole rows."""
        if self.work is not None:
            self.work.wait()
        every = iter(self.every.unbind(1))
        parts = RowStats(*(None if v is None else next(every) for v in self.mine))  # type: ignore[arg-type]
        return join(parts, divisor=self.divisor).masked(valid)
