"""What is made of the scores of features, and how the work on them goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from lossfit.core.batch import Targets
from lossfit.core.hyper import Number
from lossfit.core.reduce import Weighing
from lossfit.core.row_stats import Wanted
from lossfit.gaps.types import Gap


class ChunkPlan(NamedTuple):
    """How the scores are worked on.

    Attributes:
        chunked: some rows at a time, not all at once.
        triton: by the kernels.
        memory: what the chunks and the sum of the weight's gradient may take, in bytes; None for the usual.
    """

    chunked: bool
    triton: bool = False
    memory: int | None = None


class GapProgram(NamedTuple):
    """Results that are made of the gap of the scores alone, so that a kernel can work on the scores.

    Attributes:
        results: from the gap of a chunk, the chunk's place and the numbers to results per row, each (n,).
        wanted, mean_weight: what of the gap, as :func:`gap` takes it.
        cap: c of the scores c tanh(z / c); 0 for none. They are divided by the number "temperature", if there is one.
        shift: what is added to the scores of each class then (C,).
    """

    results: Callable[[Gap, slice, dict[str, Number]], tuple[Tensor, ...]]
    wanted: Wanted = Wanted()
    mean_weight: Tensor | None = None
    cap: float = 0.0
    shift: Tensor | None = None


class Job(NamedTuple):
    """What is made of the scores.

    Attributes:
        rows: from the scores of a chunk (n, C), the chunk's place and the numbers to results per row, each (n,).
        targets: those of all rows.
        numbers: by name; tensors of no dimension, of shape (N,) with one entry per row, or any shape if ``whole``.
        whole: the names of those that are never cut.
        margin: from the targets' own scores (n,), the chunk's place and the numbers to the scores that take their
            place; None to leave them.
        weighing: how the first result becomes a number; None to return it per row.
        graded: which of the results get a gradient.
        no_other_grads: whether ``rows`` is known to hold nothing else that gets a gradient.
        form: what ``rows`` makes of the scores, where it is made of the gap alone.
        plan: how to go about it.
    """

    rows: Callable[[Tensor, slice, dict[str, Number]], tuple[Tensor, ...]]
    targets: Targets
    numbers: dict[str, Number]
    whole: frozenset[str] = frozenset()
    margin: Callable[[Tensor, slice, dict[str, Number]], Tensor] | None = None
    weighing: Weighing | None = None
    graded: tuple[bool, ...] = (True,)
    no_other_grads: bool = False
    form: GapProgram | None = None
    plan: ChunkPlan = ChunkPlan(False)

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.numbers.items() if isinstance(value, Tensor)}

    def cut(self, name: str, value: Tensor, at: slice) -> Tensor:
        return value[at] if value.ndim and name not in self.whole else value


def uses_triton(job: Job) -> bool:
    """Whether a kernel makes the gap of each chunk, and of it the gradient of the scores."""
    return job.plan.triton and job.form is not None
