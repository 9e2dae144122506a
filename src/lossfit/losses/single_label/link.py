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
from lossfit.core.batch import Targets
from lossfit.core.checks import check_choice
from lossfit.core.hyper import HyperValue, Number, per_row
from lossfit.core.reduce import Weighing
from lossfit.core.row_stats import RowInputs, RowStats, Upstream, Wanted
from lossfit.gaps.autograd_functions import row_stats, scores_grad
from lossfit.gaps.gap import all_log_odds, gap_rows
from lossfit.gaps.types import KINDS, Fields, Gap, Kind
from lossfit.losses.single_label.base import Common, SingleLabelLoss
from lossfit.losses.single_label.settings import Settings
from lossfit.native.single_label import LINKS, Term


class Link(NamedTuple):
    """The loss l of rows at their gap d, -dl/dd, and functions that give the derivatives in the numbers."""

    value: Tensor
    neg_grad: Tensor
    by_number: tuple[Callable[[], Tensor], ...] = ()


LinkFunction = Callable[..., Link]
"""A function of the gap and of numbers."""

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


class GapLoss(SingleLabelLoss):
    """A loss that is a function of the gap."""

    gap: Kind

    def _losses(self, d: Tensor, own: dict[str, Number]) -> Tensor:
        """The loss of every row at the gap d, of any shape."""
        raise NotImplementedError

    def _fields(self, targets: Targets, settings: Settings) -> Fields | None:
        return None if targets.probabilities or settings.is_smooth else Fields(self.gap)

    def _of_gap(self, gap: Gap, targets: Targets, settings: Settings) -> Tensor:
        return self._losses(gap.log_odds, settings.own)

    def _all_rows(self, scores: Tensor, targets: Targets, settings: Settings) -> Tensor:
        everywhere = {name: targets.broadcast(value) for name, value in settings.own.items()}
        return self._losses(
            all_log_odds(scores, self.gap, targets.shard), per_row(everywhere, lambda value: value.unsqueeze(1))
        )


def weigh_link(weight: Number, loss: Tensor) -> Tensor:
    """The weight times the loss, 0 where the weight is, also where the loss is infinite."""
    if isinstance(weight, Tensor):
        return weight * loss.masked_fill((weight == 0) & loss.isinf(), 0.0)
    return weight * loss if weight != 0 else loss.masked_fill(loss.isinf(), 0.0) * 0.0


class LinkLoss(GapLoss):
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

    def __init__(self, link: Callable[[Tensor], Tensor], *, gap: Kind = "soft", **common: Unpack[Common]) -> None:
        if not callable(link):
            raise TypeError(f"Expected `link` to be a function of the gap, but got {type(link).__name__}.")
        check_choice("gap", gap, KINDS)
        super().__init__(**common)
        self.gap = gap
        self.link = link

    def _losses(self, d: Tensor, own: dict[str, Number]) -> Tensor:
        return self.link(d)


class AnalyticLoss(GapLoss):
    """A loss that has a :class:`Link`, which gives its derivatives beside its value.

    Autograd of a formula that is stable in value is often not stable in gradient (0 times inf, cancellation), and it
    walks through the rows once per operation. So a link writes its derivatives down, next to the value and sharing its
    terms. Autograd differentiates them in turn where a second derivative is asked for.
    """

    _hands_keywords_to = SingleLabelLoss
    _no_other_grads = True
    link: LinkFunction
    """A function of the gap and of the loss's own hyper-parameters, in their order."""

    def __init__(
        self, hypers: dict[str, HyperValue] | None = None, *, gap: Kind = "soft", **common: Unpack[Common]
    ) -> None:
        check_choice("gap", gap, KINDS)
        super().__init__(hypers, **common)
        self.gap = gap

    def _link(self, own: dict[str, Number]) -> tuple[LinkFunction, tuple[Number, ...]]:
        """The link and its numbers."""
        return self.link, tuple(own.values())

    def _losses(self, d: Tensor, own: dict[str, Number]) -> Tensor:
        link, numbers = self._link(own)
        return apply(link, d, *numbers)

    def _native_term(self, own: dict[str, Number]) -> Term | None:
        link, numbers = self._link(own)
        name = getattr(link, "__name__", None)
        if name not in LINKS or not link.__module__.startswith("lossfit.losses.single_label"):
            return None  # somebody's own
        return Term(name, numbers, self.gap == "hard")

    def _reduced(self, logits: Tensor, targets: Targets, settings: Settings, weighing: Weighing) -> Tensor:
        plain = not targets.probabilities and not settings.is_smooth and logits.ndim <= 3 and targets.shard is None
        if not plain or weighing.is_trainable or torch.compiler.is_compiling() or transformed():
            return super()._reduced(logits, targets, settings, weighing)
        scores, _ = self._adjusted(logits, targets, settings)
        link, numbers = self._link(settings.own)
        loss: Tensor = call(_FusedLossFunction, _Plan(targets, self.gap, link, weighing), scores, *numbers)
        return loss


def apply(link: LinkFunction, d: Tensor, *numbers: Number) -> Tensor:
    """The value of a link, with its gradients."""
    if torch.compiler.is_compiling() and not _differentiable(d, *numbers):
        return link(d, *numbers).value  # Dynamo passes ctx on to a variadic forward that gets no gradient
    value: Tensor = call(_LinkFunction, link, d, *numbers)[0]
    return value


def _differentiable(*numbers: Number) -> bool:
    return torch.is_grad_enabled() and any(isinstance(n, Tensor) and n.requires_grad for n in numbers)


class _LinkFunction(Function):
    """(link, d, *numbers) -> value, neg_grad, which is kept for the backward pass."""

    has_plain_forward = generate_vmap_rule = True

    @staticmethod
    def forward(link: LinkFunction, d: Tensor, *numbers: Number) -> tuple[Tensor, Tensor]:
        return link(d, *numbers)[:2]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.link, d, *numbers = inputs
        ctx.plain, tensors = _split(numbers)
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(d, output[1], *tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        d, neg_grad, *tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad[2:]
        if grad is None:
            return (None, None, *(None for _ in needed))
        if not torch.is_grad_enabled() and not any(needed):
            return (None, -grad * neg_grad, *(None for _ in needed))
        numbers = _join(ctx.plain, tensors)
        link = ctx.link(d, *numbers)
        return (None, -grad * link.neg_grad, *_by_number(grad, link, numbers, needed))


class _Plan(NamedTuple):
    """All that does not get a gradient on the way from scores to loss."""

    targets: Targets
    kind: Kind
    link: LinkFunction
    weighing: Weighing

    @property
    def rows(self) -> RowInputs:
        return RowInputs(self.targets.target, self.targets.valid)

    @property
    def hard(self) -> bool:
        return self.kind == "hard"

    def staged(self, scores: Tensor, *numbers: Number) -> Tensor:
        d = gap_rows(scores, self.targets, self.kind).log_odds
        return self.weighing.reduce(apply(self.link, d, *numbers))


class _FusedLossFunction(Function):
    """scores -> gap -> link -> reduce as one node of the graph: for small batches a node costs more than its work.

    The stages are the same functions, called in a row. Where more than a first derivative is wanted, they are gone
    through one by one.
    """

    @staticmethod
    def forward(ctx: Any, plan: _Plan, scores: Tensor, *numbers: Number) -> Tensor:
        stats = row_stats(scores, plan.rows, Wanted(plan.hard))
        d = (stats.own - stats.top).sub_(stats.log_sum)
        link = _in_chunks(plan.link, d, numbers)
        ctx.plan, ctx.backend = plan, kernels.current()
        ctx.plain, tensors = _split(numbers)
        ctx.save_for_backward(scores, d, *stats[1:3], link.neg_grad, *tensors)
        return plan.weighing.reduce(link.value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        scores, d, top, log_sum, neg_grad, *tensors = ctx.saved_tensors
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
        upstream = plan.weighing.spread(grad, neg_grad.numel())
        by_number: tuple[Tensor | None, ...] = (None,) * len(numbers)
        if any(needed[1:]):
            by_number = _by_number(upstream, plan.link(d, *numbers), numbers, needed[1:])
        to_rivals = upstream * neg_grad
        to_scores = None
        if needed[0]:
            back = kernels.with_backend(ctx.backend, scores_grad)
            stats = RowStats(top, top, log_sum)
            to_scores = back(scores, plan.rows, stats, Upstream(-to_rivals, to_rivals), plan.hard)
        return (None, to_scores, *by_number)


def _in_chunks(link: LinkFunction, d: Tensor, numbers: tuple[Number, ...]) -> Link:
    """The link of many rows, in chunks whose temporaries stay in the cache: a third faster on two cores (measured)."""
    if d.numel() <= 2 * _CHUNK:
        return link(d, *numbers)
    flat = d.reshape(-1)
    each = [n.expand(d.shape).reshape(-1) if isinstance(n, Tensor) and n.ndim else n for n in numbers]
    value, neg_grad = torch.empty_like(flat), torch.empty_like(flat)
    for start in range(0, flat.numel(), _CHUNK):
        at = slice(start, start + _CHUNK)
        part = link(flat[at], *(n[at] if isinstance(n, Tensor) and n.ndim else n for n in each))
        value[at], neg_grad[at] = part.value, part.neg_grad
    return Link(value.view(d.shape), neg_grad.view(d.shape))


def _split(numbers: Any) -> tuple[list[float | None], list[Tensor | None]]:
    plain = [None if isinstance(n, Tensor) else n for n in numbers]
    return plain, [n if isinstance(n, Tensor) else None for n in numbers]


def _join(plain: list[float | None], tensors: list[Tensor | None]) -> list[Any]:
    return [p if t is None else t for p, t in zip(plain, tensors, strict=True)]


def _by_number(grad: Tensor, link: Link, numbers: list[Any], needed: Any) -> tuple[Tensor | None, ...]:
    """The gradients of the numbers that want one."""
    return tuple(
        (grad * link.by_number[i]()).sum_to_size(number.shape) if need else None
        for i, (number, need) in enumerate(zip(numbers, needed, strict=True))
    )
