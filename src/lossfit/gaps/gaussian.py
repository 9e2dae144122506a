r"""The probability that the target wins under Gaussian noise, P = P(argmax_k (z_k / sigma + e_k) = y), e ~ N(0, I).

With the leads :math:`\delta_k = (z_y - z_k) / \sigma`, the distribution function :math:`\Phi` and the hazard
:math:`h = \phi / \Phi`, it is one integral over the target's own noise, and so is its complement Q, over the noise of
the strongest rival:

.. math:: P = \int \phi(x) e^{A(x)} dx, \quad Q = 1 - P = \int \Phi(x) S(x) e^{A(x)} dx, \quad
          A(x) = \sum_{k \neq y} \log\Phi(x + \delta_k), \quad S = A' = \sum_{k \neq y} h(x + \delta_k).

All terms are positive, so whichever of the two is small keeps its digits. The integrands are log-concave: their mode is
found by a few safeguarded Newton steps, their width on either side by probing, and then an equally spaced rule in a
stretched variable converges faster than any power of the number of nodes. A node costs one pass over the classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from lossfit import kernels
from lossfit.core import class_shards
from lossfit.core.autograd import batched, call, fold, is_abstract
from lossfit.core.batch import Targets
from lossfit.core.class_shards import Shard, TargetColumn
from lossfit.core.numerics import accumulation_dtype

# Worked on at a time: so many rows x classes, at so many nodes that it stays in the cache (measured).
_ROWS_BY_CLASSES = 1 << 16
_BY_NODES = 1 << 17
# The kernels work through any number of nodes in place; this bounds the leads alone.
_ROWS_BY_CLASSES_KERNELS = 1 << 26
# The place of the target among its rivals, and the most a rival can be behind: no hazard is left at that lead.
_OUT_OF_SIGHT = 1e4
# The most a rival can be ahead, so that a target at -inf has a finite gradient.
_FAR_AHEAD = 1e6
# Where every rival is so far behind, Q is 0 in the type, for any number of them, and there is nothing to integrate.
_WON = {torch.float64: 60.0, torch.float32: 24.0}
# How far the logarithm of the integrand has dropped at the ends of the rule, in nats.
_DROP = 20.0
_PROBES = (0.2, 0.35, 0.5, 0.65, 0.8)
_SQRT_HALF = math.sqrt(0.5)
_LOG2_E = math.log2(math.e)
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class Win(NamedTuple):
    """The smaller-looking of P and Q per row, and what its gradient needs: numbers per row and node."""

    log_share: Tensor
    complement: Tensor
    """Whether it is the share of Q."""
    place: Tensor
    """The nodes x (N, nodes)."""
    push: Tensor
    """Their weights c (N, nodes) in d log_share / d lead_k = sum_n c_n h(x_n + lead_k)."""


def exact_rows(scores: Tensor, target: Tensor, sigma: float | Tensor, log: bool, shard: Shard | None = None) -> Tensor:
    """1 - P, or -log P, of every row: scores (N, C), targets (N,), sigma a number or (N,)."""
    if is_abstract(scores) and not torch.compiler.is_compiling():  # without numbers there is no rule of integration
        return scores.to(accumulation_dtype(scores)).sum(1) + (sigma if isinstance(sigma, Tensor) else 0.0)
    if shard is not None:
        rows: Tensor = call(_Sharded, shard, scores, target, sigma, log)
        return rows
    values: tuple[Tensor, ...] = call(_Exact, scores, target, sigma, log)
    return values[0]


class _Exact(Function):
    @staticmethod
    def forward(scores: Tensor, target: Tensor, sigma: float | Tensor, log: bool) -> tuple[Tensor, ...]:
        if torch.compiler.is_compiling():
            values: tuple[Tensor, ...] = _opaque_forward(scores, target, _per_row(sigma, target, scores), log)
            return values
        return _forward(scores, target, sigma, log)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        scores, target, sigma, ctx.log = inputs
        ctx.sigma, ctx.backend = None if isinstance(sigma, Tensor) else sigma, kernels.current()
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(scores, target, sigma if isinstance(sigma, Tensor) else None, *output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None
        scores, target, sigma, *win = ctx.saved_tensors
        sigma = ctx.sigma if sigma is None else sigma
        back: Callable[..., Any] = partial(call, _ExactBackward)
        back = back if torch.compiler.is_compiling() else kernels.with_backend(ctx.backend, back)
        if batched(grad):  # it is linear in the gradient
            to_scores, to_sigma = back(torch.ones_like(win[0]), scores, target, sigma, *win, ctx.log)
            to_scores, to_sigma = grad.unsqueeze(1) * to_scores, grad * to_sigma
        else:
            to_scores, to_sigma = back(grad, scores, target, sigma, *win, ctx.log)
        return to_scores, None, to_sigma if ctx.needs_input_grad[2] else None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[tuple[Tensor, ...], int]:
        results = _Exact.apply(*fold(info.batch_size, in_dims, arguments))
        return tuple(v.unflatten(0, (info.batch_size, -1)) for v in results), 0


class _Sharded(Function):
    """The same where the classes are spread over ranks: every sum over the classes is one over the ranks too."""

    @staticmethod
    def forward(ctx: Any, shard: Shard, scores: Tensor, target: Tensor, sigma: float | Tensor, log: bool) -> Tensor:
        loss, *win = _forward(scores, target, sigma, log, shard)
        ctx.shard, ctx.log, ctx.backend = shard, log, kernels.current()
        ctx.sigma = None if isinstance(sigma, Tensor) else sigma
        ctx.save_for_backward(scores, target, sigma if isinstance(sigma, Tensor) else None, *win)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise NotImplementedError("ExactLoss has no second derivative.")
        scores, target, sigma, log_share, complement, place, weights = ctx.saved_tensors
        sigma, win = ctx.sigma if sigma is None else sigma, Win(log_share, complement, place, weights)
        back = kernels.with_backend(ctx.backend, _backward)
        to_scores, to_sigma = back(grad, scores, target, sigma, *win, ctx.log, ctx.shard)
        return None, to_scores, None, to_sigma if ctx.needs_input_grad[3] else None, None


class _ExactBackward(Function):
    @staticmethod
    def forward(
        grad: Tensor,
        scores: Tensor,
        target: Tensor,
        sigma: float | Tensor,
        log_share: Tensor,
        complement: Tensor,
        place: Tensor,
        weights: Tensor,
        log: bool,
    ) -> tuple[Tensor, Tensor]:
        win = log_share, complement, place, weights
        if torch.compiler.is_compiling():
            each = _per_row(sigma, target, scores)
            values: tuple[Tensor, Tensor] = _opaque_backward(grad, scores, target, each, *win, log)
            return values
        return _backward(grad, scores, target, sigma, *win, log)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:
        raise NotImplementedError("ExactLoss has no second derivative.")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[tuple[Tensor, ...], int]:
        results = _ExactBackward.apply(*fold(info.batch_size, in_dims, arguments))
        return tuple(v.unflatten(0, (info.batch_size, -1)) for v in results), 0


def _forward(
    scores: Tensor, target: Tensor, sigma: float | Tensor, log: bool, shard: Shard | None = None
) -> tuple[Tensor, ...]:
    nodes = node_count(scores.shape[1] if shard is None else shard.total)
    parts = [_win(lead, nodes) for _, lead in _leads(scores, target, sigma, shard)]
    win = Win(*(torch.cat(column) for column in zip(*parts, strict=True))) if parts else _no_rows(scores, nodes)
    share = win.log_share.exp()
    if log:
        loss = torch.where(win.complement, -torch.log1p(-share), -win.log_share)
        own = Targets(target, scores.shape[1] if shard is None else shard.total, shard=shard).column().take(scores)
        own = own if shard is None else class_shards.reduce_(own, shard.group)
        loss = loss.masked_fill(own.squeeze(1) == -torch.inf, torch.inf)
    else:
        loss = torch.where(win.complement, share, -torch.expm1(win.log_share))
    return loss, *win


def _backward(
    grad: Tensor,
    scores: Tensor,
    target: Tensor,
    sigma: float | Tensor,
    log_share: Tensor,
    complement: Tensor,
    place: Tensor,
    weights: Tensor,
    log: bool,
    shard: Shard | None = None,
) -> tuple[Tensor, Tensor]:
    # dl / d log_share
    share = log_share.exp()
    if log:
        grad = grad * torch.where(complement, share / (1 - share), -1.0)
    else:
        grad = grad * torch.where(complement, share, -share)
    to_scores = torch.empty_like(scores, dtype=grad.dtype)
    by_sigma = []
    win = Win(log_share, complement, place, weights)
    for at, leads in _leads(scores, target, sigma, shard):
        lead = leads.of
        push = _push(lead, Win(*(v[at] for v in win)))  # d log_share / d lead
        scale = grad[at] / (sigma[at] if isinstance(sigma, Tensor) else sigma)
        by_sigma.append(-leads.sum((push * lead).sum(1)) * scale)
        push.mul_(-scale.unsqueeze(1))
        push = leads.place.put_(push, 0.0)
        to_scores[at] = leads.place.put_(push, -leads.sum(push.sum(1, keepdim=True)))
    to_sigma = torch.cat(by_sigma) if by_sigma else grad.new_empty(0)
    return to_scores.to(scores.dtype), to_sigma


# A compiler cannot trace where the nodes are placed, which depends on what the rows hold: it gets one operator.
_opaque_forward = torch.library.custom_op(
    "lossfit::exact_forward",
    _forward,
    mutates_args=(),
    schema="(Tensor scores, Tensor target, Tensor sigma, bool log) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_opaque_backward = torch.library.custom_op(
    "lossfit::exact_backward",
    _backward,
    mutates_args=(),
    schema="(Tensor grad, Tensor scores, Tensor target, Tensor sigma, Tensor log_share, Tensor complement, "
    "Tensor place, Tensor weights, bool log) -> (Tensor, Tensor)",
)


@_opaque_forward.register_fake
def _(scores: Tensor, target: Tensor, sigma: Tensor, log: bool) -> tuple[Tensor, ...]:
    rows = scores.new_empty(target.shape, dtype=accumulation_dtype(scores))
    nodes = rows.new_empty((len(target), node_count(scores.shape[1])))
    return rows, torch.empty_like(rows), torch.empty_like(rows, dtype=torch.bool), nodes, torch.empty_like(nodes)


@_opaque_backward.register_fake
def _(grad: Tensor, scores: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(scores), torch.empty_like(grad)


def _per_row(sigma: float | Tensor, target: Tensor, scores: Tensor) -> Tensor:
    if isinstance(sigma, Tensor):
        return sigma
    return scores.new_full(target.shape, sigma, dtype=accumulation_dtype(scores))


def node_count(classes: int) -> int:
    """Nodes of the rule: enough for 1e-8 in P and 1e-6 relative in log P at any lead."""
    return 24 if classes <= 1000 else 32


class _Leads(NamedTuple):
    """Leads (rows, classes), in which the target's own place is out of sight, and what is true of all classes."""

    of: Tensor
    place: TargetColumn
    shard: Shard | None
    classes: int

    def sum(self, part: Tensor) -> Tensor:
        """The sum over all classes, of that over these columns."""
        return part if self.shard is None else class_shards.reduce_(part.contiguous(), self.shard.group)

    def least(self) -> Tensor:
        """The least lead over all classes."""
        if self.shard is None:
            return self.of.amin(1)
        least = self.of.amin(1) if self.of.shape[1] else self.of.new_full(self.of.shape[:1], _OUT_OF_SIGHT)
        return -self.shard.max(-least)

    def at(self, rows: Tensor) -> _Leads:
        return self._replace(of=self.of[rows])


def _leads(
    scores: Tensor, target: Tensor, sigma: float | Tensor, shard: Shard | None = None
) -> Iterator[tuple[slice, _Leads]]:
    """Blocks of rows, the same on all ranks."""
    dtype = accumulation_dtype(scores)
    classes = scores.shape[1] if shard is None else shard.total
    place = Targets(target, classes, shard=shard).column()
    height = max(1, (_ROWS_BY_CLASSES_KERNELS if kernels.chosen(scores) else _ROWS_BY_CLASSES) // classes)
    for top in range(0, len(scores), height):
        at = slice(top, top + height)
        z, there = scores[at].to(dtype).clamp(min=torch.finfo(dtype).min / 4), place.of(at)
        own = there.take(z)
        lead = (own if shard is None else class_shards.reduce_(own, shard.group)) - z
        lead = lead / (sigma[at].to(dtype).unsqueeze(1) if isinstance(sigma, Tensor) else sigma)
        lead = there.put_(lead.clamp_(-_FAR_AHEAD, _OUT_OF_SIGHT), _OUT_OF_SIGHT)
        yield at, _Leads(lead, there, shard, classes)


def _no_rows(scores: Tensor, nodes: int) -> Win:
    empty = scores.new_empty(0, dtype=accumulation_dtype(scores))
    place = empty.new_empty(0, nodes)
    return Win(empty, empty.bool(), place, place.clone())


def _win(leads: _Leads, nodes: int) -> Win:
    least = leads.least()
    # The number of rivals that matter, as many equal ones would.
    rivals = leads.sum(_exp(-2 * (leads.of - least.unsqueeze(1))).sum(1))
    half, _ = _root(lambda u: (rivals - 1) * _hazard(u) - u, *_ends(least, -10.0, 14.0))
    complement = half < least
    open = ~(least > _WON[least.dtype])
    place = least.new_zeros(len(least), nodes)
    if kernels.chosen(leads.of):  # all rows at once: the host need not know which are which
        log_share, *at_nodes = _integrate(leads, least, rivals, complement, nodes)
        place, push = (v.masked_fill(~open.unsqueeze(1), 0.0) for v in at_nodes)
        return Win(log_share.masked_fill(~open, -torch.inf), complement, place, push)
    out = Win(torch.full_like(least, -torch.inf), complement, place, torch.zeros_like(place))
    for of_q in (False, True):
        at = ((complement == of_q) & open).nonzero().squeeze(1)
        if len(at):
            parts = _integrate(leads.at(at), least[at], rivals[at], of_q, nodes)
            for whole, part in zip((out.log_share, out.place, out.push), parts, strict=True):
                whole[at] = part
    return out


def _integrate(
    lead: _Leads, least: Tensor, rivals: Tensor, of_q: bool | Tensor, nodes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Logarithm of Q or of P, the nodes that gave it, and their weights in the gradient."""
    if isinstance(of_q, Tensor):
        both = zip(_locate_q(lead, least, rivals), _locate_p(lead, least, rivals), strict=True)
        centre, left, right = (torch.where(of_q, q, p) for q, p in both)
    else:
        centre, left, right = (_locate_q if of_q else _locate_p)(lead, least, rivals)
    left, right = _widths(lead, of_q, centre, left, right)
    stretch = torch.log(right / left)
    x, log_weight = _rule(centre, left, torch.where(stretch.abs() < 1e-3, 1e-3, stretch), nodes)
    log_values, s = _log_integrand(lead, of_q, x)
    log_values += log_weight
    log_share = torch.logsumexp(log_values, 1)
    push = _exp(log_values - log_share.unsqueeze(1))
    if s is None:
        return log_share, x, push
    push_of_q = -push * _hazard(x) / s.clamp(min=torch.finfo(s.dtype).tiny)
    return log_share, x, torch.where(of_q.unsqueeze(1), push_of_q, push) if isinstance(of_q, Tensor) else push_of_q


def _rule(centre: Tensor, left: Tensor, stretch: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """Places (rows, nodes) from centre - left to centre + left exp(stretch), and the logarithms of their weights."""
    t = torch.linspace(-1, 1, nodes, dtype=centre.dtype, device=centre.device)
    c = stretch.unsqueeze(1)
    scale = left.unsqueeze(1) / -torch.expm1(-c)
    x = centre.unsqueeze(1) + scale * torch.expm1(c * t)
    return x, torch.log(scale * c) + c * t + math.log(2 / (nodes - 1))


def _locate_p(lead: _Leads, least: Tensor, rivals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mode of phi e^A, where S(x) = x, and bounds on its widths."""
    # As if there were one rival, as many as matter, or all of them, each as strong as the strongest.
    count = torch.stack([torch.ones_like(rivals), rivals, torch.full_like(rivals, lead.classes - 1)], 1)
    ends = torch.zeros_like(count), (14.0 - least.clamp(max=0)).unsqueeze(1).expand_as(count)
    below, above = _root(lambda x: count * _hazard(x + least.unsqueeze(1)) - x, *ends)
    low, x, high = below[:, 0], (below[:, 1] + above[:, 1]) / 2, above[:, 2]
    tiny = torch.finfo(x.dtype).tiny
    for _ in range(4):
        s, ds, _ = _hazard_sums(lead, x)
        ratio = (s.clamp(min=tiny) / x.clamp(min=tiny)).log() / (1 / x.clamp(min=tiny) - ds / s.clamp(min=tiny))
        newton, log_newton = x + (s - x) / (1 - ds), x + ratio
        below = s > x
        low = torch.where(below, torch.maximum(low, torch.maximum(x, newton)), low)
        high = torch.where(below, high, torch.minimum(high, x))
        up = (newton + torch.minimum(torch.maximum(newton, log_newton), high)) / 2
        x = torch.where(below, torch.maximum(up, low), torch.minimum(torch.maximum(log_newton, low), high))
    s, ds, _ = _hazard_sums(lead, x)
    left = torch.minimum(1.84 * (2 * _DROP / (1 - ds)).sqrt(), torch.full_like(x, 1.15 * math.sqrt(2 * _DROP)))
    rate = (-ds / s.clamp(min=tiny)).clamp(min=1e-6)
    _, right = _root(
        lambda y: 1.3 * _DROP - (x * y + y * y / 2 + s * torch.expm1(-rate * y) / rate), *_ends(x, 0.0, 9.0)
    )
    return x, left, right


def _locate_q(lead: _Leads, least: Tensor, rivals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mode of Phi S e^A, and bounds on its widths."""
    ends = -least.abs() - 1, torch.full_like(least, 14.0)
    below, above = _root(lambda x: _hazard(x) + (rivals - 1) * _hazard(x + least) - x - least, *ends)
    x = (below + above) / 2
    for _ in range(4):
        s, ds, dds = _hazard_sums(lead, x)
        h, s = _hazard(x), s.clamp(min=torch.finfo(x.dtype).tiny)
        first = h + s + ds / s
        second = -h * (x + h) + ds + dds / s - (ds / s) ** 2
        x = x - (first / second.clamp(max=-1)).clamp(-1.5, 1.5)
    width = torch.full_like(x, 1.15 * math.sqrt(2 * _DROP))
    return x, width, width


def _widths(lead: _Leads, of_q: bool | Tensor, centre: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """How far on either side of the centre, at most ``left`` and ``right``, the integrand has dropped by _DROP nats."""
    probes = _numbers(centre, _PROBES)
    bounds = torch.stack([-left, right], 1).unsqueeze(2)  # (rows, sides, 1)
    x = centre.view(-1, 1, 1) + bounds * probes
    log_values, _ = _log_integrand(lead, of_q, torch.cat([centre.unsqueeze(1), x.flatten(1)], 1))
    drop = (log_values[:, :1] - log_values[:, 1:]).clamp(min=1e-30).view(x.shape)
    # The first probe that is far enough, or the bound itself.
    enough = torch.cat([drop >= _DROP, torch.ones_like(drop[..., :1], dtype=torch.bool)], 2)
    first = enough.to(torch.int8).argmax(2, keepdim=True)
    fractions = _numbers(centre, (0.0, *_PROBES, 1.0))
    here, before = fractions[first + 1], fractions[first]
    # Pull back to where the drop is 1.15 of what is needed, by interpolating its logarithm, and add a quarter step.
    log_drop, last = drop.log(), len(_PROBES) - 1
    at_here = log_drop.gather(2, first.clamp(max=last))
    at_before = log_drop.gather(2, (first - 1).clamp(min=0))
    part = (math.log(1.15 * _DROP) - at_before) / (at_here - at_before).clamp(min=1e-30)
    pulled = before + (here - before) * (part + 0.25).clamp(max=1.0)
    between = (first > 0) & (first <= last)
    width = (bounds.abs() * torch.where(between, pulled, here)).squeeze(2)
    return width[:, 0], width[:, 1]


def _numbers(like: Tensor, values: tuple[float, ...]) -> Tensor:
    """A tensor made on the device: copied there, the host would wait."""
    return torch.stack([like.new_full((), value) for value in values])


def _log_integrand(lead: _Leads, of_q: bool | Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """log(Phi S e^A) and S, or log(phi e^A), at x (rows, nodes)."""
    if isinstance(of_q, Tensor):
        from lossfit.kernels import exact

        logs, slopes = (lead.sum(v) for v in exact.sums_at(lead.of, x))
        log_q, log_p = logs + _log_cdf(x) + slopes.log(), logs - (0.5 * x * x + _LOG_SQRT_2PI)
        return torch.where(of_q.unsqueeze(1), log_q, log_p), slopes
    a, s = [], []
    many = lead.classes > 1000
    for at in _node_blocks(lead.of, x.shape[1]):
        u = x[:, at].unsqueeze(2) + lead.of.unsqueeze(1)
        a.append(_log_cdf(u, close_to_1=many).sum(2))
        if of_q:
            s.append(_hazard(u).sum(2))
    total = lead.sum(torch.cat(a, 1))
    if not of_q:
        return total.sub_(0.5 * x * x + _LOG_SQRT_2PI), None
    sums = lead.sum(torch.cat(s, 1))
    return total + _log_cdf(x) + sums.log(), sums


def _push(lead: Tensor, win: Win) -> Tensor:
    """D log_share / d lead (rows, classes)."""
    if kernels.chosen(lead):
        from lossfit.kernels import exact

        return exact.push(lead, win.place, win.push)
    total = torch.zeros_like(lead)
    for at in _node_blocks(lead, win.place.shape[1]):
        h = _hazard(win.place[:, at].unsqueeze(2) + lead.unsqueeze(1))
        total += (win.push[:, at].unsqueeze(1) @ h).squeeze(1)
    return total


def _hazard_sums(lead: _Leads, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """S, S' and S'' at x (rows,)."""
    if kernels.chosen(lead.of):
        from lossfit.kernels import exact

        first, second, third = lead.sum(torch.stack(exact.hazard_sums(lead.of, x)))
        return first, second, third
    u = x.unsqueeze(1) + lead.of
    h = _hazard(u)
    uh = u + h
    sums = torch.stack([h.sum(1), -(h * uh).sum(1), (h * (uh * (uh + h) - 1)).sum(1)])
    first, second, third = lead.sum(sums)
    return first, second, third


def _node_blocks(lead: Tensor, nodes: int) -> list[slice]:
    width = max(1, _BY_NODES // max(lead.numel(), 1))
    return [slice(i, i + width) for i in range(0, nodes, width)]


def _hazard(u: Tensor) -> Tensor:
    """phi(u) / Phi(u)."""
    hazard = _exp(u * u * -0.5).mul_(math.sqrt(2 / math.pi)).div_(torch.special.erfc(u * -_SQRT_HALF))
    if not _any_far(u):
        return hazard
    low = u.clamp(max=_FAR[u.dtype])
    return torch.where(u < _FAR[u.dtype], -low / _mills_series(low), hazard)


def _log_cdf(u: Tensor, *, close_to_1: bool = False) -> Tensor:
    """Log Phi(u), to the type's precision of Phi, or also of 1 - Phi, which a sum over many classes needs."""
    if close_to_1:
        tail = torch.special.erfc(u.abs().mul_(_SQRT_HALF)).mul_(0.5)
        log_cdf = torch.where(u > 0, torch.log1p(-tail), tail.log())
    else:
        log_cdf = torch.special.erfc(u * -_SQRT_HALF).mul_(0.5).log_()
    if not _any_far(u):
        return log_cdf
    low = u.clamp(max=_FAR[u.dtype])
    return torch.where(u < _FAR[u.dtype], (_mills_series(low) / -low).log() - 0.5 * low * low - _LOG_SQRT_2PI, log_cdf)


# Where Phi comes near underflow, and its asymptotic series has all the digits of the type.
_FAR = {torch.float64: -25.0, torch.float32: -10.0}


def _any_far(u: Tensor) -> bool:
    """Whether any is far; on a GPU, where the host would wait for the answer, it may be."""
    return u.device.type != "cpu" or (u.numel() > 0 and not bool(u.amin() >= _FAR[u.dtype]))


def _mills_series(u: Tensor) -> Tensor:
    """Phi(u) |u| / phi(u) for very negative u."""
    v = 1 / (u * u)
    return 1 + v * (-1 + v * (3 + v * (-15 + v * (105 - 945 * v))))


def _exp(x: Tensor) -> Tensor:
    """By way of exp2, which takes a third of the time on a CPU (measured)."""
    return torch.exp2(x * _LOG2_E)


def _ends(like: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    return torch.full_like(like, low), torch.full_like(like, high)


def _root(f: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds on the root of a decreasing function, by bisection."""
    for _ in range(10):
        middle = (low + high) / 2
        positive = f(middle) > 0
        low, high = torch.where(positive, middle, low), torch.where(positive, high, middle)
    return low, high
