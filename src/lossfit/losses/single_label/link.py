"""Links: from the gap d to the loss of a row, with a gradient that is exact at any d."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Unpack

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from lossfit import kernels
from lossfit.core.autograd import call, differentiated_again, transformed
from lossfit.core.batch import Batch
from lossfit.core.checks import check_choice
from lossfit.core.hyper import HyperValue
from lossfit.core.reduce import Weighing
from lossfit.core.row_stats import RowInputs, RowStats, Upstream, Wanted
from lossfit.gaps import gap
from lossfit.gaps.autograd_functions import row_stats, scores_grad
from lossfit.gaps.types import KINDS, Fields, Gap, Kind
from lossfit.losses.single_label.base import Common, Settings, SingleLabelLoss, is_smooth

Number = float | Tensor


class Linked(NamedTuple):
    """What the body of a link returns: the loss l, its pull -dl/dd, and what gives its derivatives in the numbers."""

    value: Tensor
    pull: Tensor
    by_number: tuple[Callable[[], Tensor], ...] = ()


Body = Callable[..., Linked]

_CHUNK = 1 << 14
_LOG2_E = math.log2(math.e)

NEGLIGIBLE = 1e-20
"""Where log1p(x) / x and its like are 1 in every type, yet still far from underflow."""


def exp(x: Tensor) -> Tensor:
    """E to the x, by way of exp2, which takes a third of the time on a CPU (measured)."""
    return torch.exp2(x * _LOG2_E)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) to full relative precision: PyTorch's default threshold cuts it off at 20."""
    return functional.softplus(x, threshold=700.0 if x.dtype == torch.float64 else 80.0)


class LinkLoss(SingleLabelLoss):
    """A loss that is a function of the gap: your own.

    Args:
        link: a function of the gap (N, d1, ...), in plain PyTorch, that returns the loss of each row.
        gap: "soft" (the gap is the log-odds of the target) or "hard" (target score minus best rival).
        common: the keywords of :class:`SingleLabelLoss`.

    Example:
        >>> loss = lossfit.LinkLoss(lambda d: torch.nn.functional.softplus(1 - d))
        >>> loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.5514)
    """

    link: Callable[..., Tensor]
    """The loss of a row as a function of the gap and the hyper-parameters."""

    def __init__(self, link: Callable[[Tensor], Tensor], *, gap: Kind = "soft", **common: Unpack[Common]) -> None:
        if not callable(link):
            raise TypeError(f"Expected `link` to be a function of the gap, but got {type(link).__name__}.")
        check_choice("gap", gap, KINDS)
        super().__init__(**common)
        self.gap: Kind = gap
        self.link = link

    def rows(self, batch: Batch, settings: Settings) -> Tensor:
        return self.link(gap.gap_rows(batch, self.gap).log_odds, **self.own(settings))

    def fields(self, batch: Batch, settings: Settings) -> Fields | None:
        return None if batch.probabilities or is_smooth(settings) else Fields(self.gap)

    def of_fields(self, found: Gap, batch: Batch, settings: Settings) -> Tensor:
        return self.link(found.log_odds, **self.own(settings))

    def from_gap(self, found: Gap, batch: Batch, settings: Settings) -> Tensor:
        if self.gap == "hard" or batch.probabilities or is_smooth(settings):
            return super().from_gap(found, batch, settings)
        return self.link(found.log_odds, **self.own(settings))

    def all_rows(self, batch: Batch, settings: Settings) -> Tensor:
        shared = {name: batch.shared(value) for name, value in self.own(settings).items()}
        per_class = {k: v.unsqueeze(1) if isinstance(v, Tensor) and v.ndim else v for k, v in shared.items()}
        return self.link(gap.all_log_odds(batch, self.gap), **per_class)


class AnalyticLoss(LinkLoss):
    """A loss whose link is given with its derivatives.

    Autograd of a formula that is stable in value is often not stable in gradient (0 times inf, cancellation), and it
    walks through the rows once per operation. So the body of a link writes its derivatives down, next to the value
    and sharing its terms. Autograd differentiates them in turn where a second derivative is asked for.
    """

    _hands_keywords_to = SingleLabelLoss
    closed = True
    body: Callable[..., Linked]
    """A function of d and the hyper-parameters, in their order."""

    def __init__(
        self, hypers: dict[str, HyperValue] | None = None, *, gap: Kind = "soft", **common: Unpack[Common]
    ) -> None:
        check_choice("gap", gap, KINDS)
        SingleLabelLoss.__init__(self, hypers, **common)
        self.gap = gap

    def terms(self, settings: dict[str, Number]) -> tuple[Body, tuple[Number, ...]]:
        """The body and its numbers."""
        return self.body, tuple(settings.values())

    def link(self, d: Tensor, **settings: Number) -> Tensor:
        body, numbers = self.terms(settings)
        if torch.compiler.is_compiling() and not _differentiable(d, *numbers):
            return body(d, *numbers).value  # Dynamo passes ctx on to a variadic forward that gets no gradient
        value: Tensor = call(_Link, body, d, *numbers)[0]
        return value

    def reduced(self, batch: Batch, settings: Settings, weighing: Weighing) -> Tensor:
        plain = not batch.probabilities and not is_smooth(settings) and batch.input.ndim <= 3 and batch.shard is None
        if not plain or weighing.is_learnt or torch.compiler.is_compiling() or transformed():
            return super().reduced(batch, settings, weighing)
        batch = self.adjusted(batch, settings)
        body, numbers = self.terms(self.own(settings))
        loss: Tensor = call(_OneNode, _Plan(batch, self.gap, body, weighing), batch.input, *numbers)
        return loss


def _differentiable(*numbers: Number) -> bool:
    return torch.is_grad_enabled() and any(isinstance(n, Tensor) and n.requires_grad for n in numbers)


class _Link(Function):
    """(body, d, *numbers) -> value, pull; the pull is kept for the backward pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(body: Body, d: Tensor, *numbers: Number) -> tuple[Tensor, Tensor]:
        found = body(d, *numbers)
        return found.value, found.pull

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.body, d, *numbers = inputs
        ctx.plain, tensors = _split(numbers)
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(d, output[1], *tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        d, pull, *tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad[2:]
        if grad is None:
            return (None, None, *(None for _ in needed))
        if not torch.is_grad_enabled() and not any(needed):
            return (None, -grad * pull, *(None for _ in needed))
        numbers = _join(ctx.plain, tensors)
        found = ctx.body(d, *numbers)
        return (None, -grad * found.pull, *_by_number(grad, found, numbers, needed))


class _Plan(NamedTuple):
    """All that does not get a gradient on the way from scores to loss."""

    batch: Batch
    kind: Kind
    body: Body
    weighing: Weighing

    @property
    def rows(self) -> RowInputs:
        return RowInputs(self.batch.target, self.batch.valid)

    @property
    def hard(self) -> bool:
        return self.kind == "hard"

    def staged(self, scores: Tensor, *numbers: Number) -> Tensor:
        d = gap.gap_rows(self.batch._replace(input=scores), self.kind).log_odds
        return self.weighing.reduce(call(_Link, self.body, d, *numbers)[0])


class _OneNode(Function):
    """scores -> gap -> link -> reduce as one node of the graph: for small batches a node costs more than its work.

    The stages are the same functions, called in a row. Where more than a first derivative is wanted, they are gone
    through one by one.
    """

    @staticmethod
    def forward(ctx: Any, plan: _Plan, scores: Tensor, *numbers: Number) -> Tensor:
        stats = row_stats(scores, plan.rows, Wanted(plan.hard))
        d = (stats.own - stats.top).sub_(stats.log_sum)
        found = _in_chunks(plan.body, d, numbers)
        ctx.plan, ctx.backend = plan, kernels.current()
        ctx.plain, tensors = _split(numbers)
        ctx.save_for_backward(scores, d, *stats[1:3], found.pull, *tensors)
        return plan.weighing.reduce(found.value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        scores, d, top, log_sum, pull, *tensors = ctx.saved_tensors
        numbers = _join(ctx.plain, tensors)
        needed = ctx.needs_input_grad[1:]
        if differentiated_again(grad):
            with torch.enable_grad(), kernels.using(ctx.backend):
                # Aliases, since one of them may be a function of another.
                arguments = [v.view_as(v) if isinstance(v, Tensor) else v for v in (scores, *numbers)]
                loss = plan.staged(*arguments)
            wanted = [v for v, need in zip(arguments, needed, strict=True) if need]
            grads = iter(torch.autograd.grad(loss, wanted, grad, create_graph=torch.is_grad_enabled()))
            return (None, *(next(grads) if need else None for need in needed))
        upstream = plan.weighing.spread(grad, pull.numel())
        by_number: tuple[Tensor | None, ...] = (None,) * len(numbers)
        if any(needed[1:]):
            by_number = _by_number(upstream, plan.body(d, *numbers), numbers, needed[1:])
        to_rivals = upstream * pull
        to_scores = None
        if needed[0]:
            back = kernels.keeping(ctx.backend, scores_grad)
            stats = RowStats(top, top, log_sum)
            to_scores = back(scores, plan.rows, stats, Upstream(-to_rivals, to_rivals), plan.hard)
        return (None, to_scores, *by_number)


def _in_chunks(body: Body, d: Tensor, numbers: tuple[Number, ...]) -> Linked:
    """The link of many rows, in chunks whose temporaries stay in the cache: a third faster on two cores (measured)."""
    if d.numel() <= 2 * _CHUNK:
        return body(d, *numbers)
    flat = d.reshape(-1)
    each = [n.expand(d.shape).reshape(-1) if isinstance(n, Tensor) and n.ndim else n for n in numbers]
    value, pull = torch.empty_like(flat), torch.empty_like(flat)
    for start in range(0, flat.numel(), _CHUNK):
        at = slice(start, start + _CHUNK)
        found = body(flat[at], *(n[at] if isinstance(n, Tensor) and n.ndim else n for n in each))
        value[at], pull[at] = found.value, found.pull
    return Linked(value.view(d.shape), pull.view(d.shape))


def _split(numbers: Any) -> tuple[list[float | None], list[Tensor | None]]:
    plain = [None if isinstance(n, Tensor) else n for n in numbers]
    return plain, [n if isinstance(n, Tensor) else None for n in numbers]


def _join(plain: list[float | None], tensors: list[Tensor | None]) -> list[Any]:
    return [p if t is None else t for p, t in zip(plain, tensors, strict=True)]


def _by_number(grad: Tensor, found: Linked, numbers: list[Any], needed: Any) -> tuple[Tensor | None, ...]:
    """The gradients of the numbers that want one."""
    return tuple(
        (grad * found.by_number[i]()).sum_to_size(number.shape) if need else None
        for i, (number, need) in enumerate(zip(numbers, needed, strict=True))
    )
