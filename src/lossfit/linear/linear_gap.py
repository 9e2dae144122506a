"""The gap from features and weights."""

from __future__ import annotations

from torch import Tensor

from lossfit.core.checks import check_choice
from lossfit.core.hyper import Number
from lossfit.core.row_stats import Wanted
from lossfit.gaps import gap
from lossfit.gaps.types import KINDS, Gap, Kind
from lossfit.linear import chunked
from lossfit.linear.features import BACKENDS, Backend, read
from lossfit.linear.job import GapProgram, Job


def linear_gap(
    x: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    kind: Kind = "soft",
    *,
    mean: bool = False,
    hit: bool = False,
    entropy: bool = False,
    ignore_index: int = -100,
    shift: int = 0,
    backend: Backend = "auto",
    memory: int | None = None,
) -> Gap:
    r"""The :func:`gap` of scores :math:`z = x W^\top + b`, which are never there as a whole.

    All but ``hit`` are differentiable by x, weight and bias, whatever is made of them: the backward pass makes the
    scores again, a chunk at a time.

    Args:
        x: features (..., D).
        weight: of the classes (C, D); also a DTensor sharded over the classes.
        target: class indices (...).
        bias: of the classes (C,).
        kind, mean, hit, entropy, ignore_index: see :func:`gap`.
        shift: the target of a position is that of so many positions later; 1 for causal language models.
        backend, memory: see :meth:`SingleLabelLoss.linear`.

    Returns:
        A :class:`Gap` of numbers per row (...).

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what was expected and what came.

    Example:
        >>> x, weight = torch.ones(2, 3), torch.eye(3)
        >>> lossfit.linear_gap(x, weight, torch.tensor([0, 1])).log_odds
        tensor([-0.6931, -0.6931])
    """
    check_choice("kind", kind, KINDS)
    check_choice("backend", backend, BACKENDS)
    rows = read(x, weight, target, bias, ignore_index, shift=shift, probabilities=False, backend=backend)
    mine = (True, True, True, mean, mean, hit, entropy)

    def results(z: Tensor, at: slice, _: dict[str, Number]) -> tuple[Tensor, ...]:
        targets = rows.targets.cut(at)
        return of_gap(gap.gap_rows(z, targets, kind, mean=mean, hit=hit, entropy=entropy), at, _)

    def of_gap(fields: Gap, at: slice, _: dict[str, Number]) -> tuple[Tensor, ...]:
        return tuple(v.clone() for v in fields if v is not None)

    graded = tuple(name != "hit" for name, wanted in zip(Gap._fields, mine, strict=True) if wanted)
    apart = rows.targets.shard is not None and (kind == "hard" or hit)
    no_form = apart or (kind == "hard" and entropy)
    form = None if no_form else GapProgram(of_gap, Wanted(kind == "hard", mean, hit, entropy))
    how = rows.plan(backend, memory)
    job = Job(results, rows.targets, {}, graded=graded, no_other_grads=True, form=form, plan=how)
    fields = iter(chunked.run(job, rows.layer))
    return Gap._make(rows.spread(next(fields)) if wanted else None for wanted in mine)
