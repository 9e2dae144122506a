r"""The sums and maxima over all paths of a chain, by recursion over time, for the whole batch at once.

With scores :math:`u_t(k)` and transitions :math:`A_{jk}` the recursion is

.. math:: r_1 = u_1, \quad r_t(k) = u_t(k) + \log\Big(\sum_j e^{r_{t-1}(j) + A_{jk}} + e^{v_t(k)}\Big)

where :math:`v` are paths that enter at t. For the sum over all paths there are none. For the sum over all paths but
one, y, scores are taken relative to those of y, and the paths that leave y at t enter there:
:math:`v_t(k) = A_{y_{t-1} k}` for :math:`k \neq y_t`. So y is left out before any logarithm, and nothing cancels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from lossfit.core.autograd import call, differentiated_again, is_abstract, transformed
from lossfit.core.numerics import LOWEST
from lossfit.gaps.types import Kind

# Sums of exponentials whose logarithm is above this are right: what underflows beside the largest, below exp(-87) or
# exp(-708), is nothing to them.
_SAFE = {torch.float32: -60.0, torch.float64: -600.0}


class Chain(NamedTuple):
    """A checked batch of chains.

    emissions (T, B, K), transitions (K, K), start (K,), end (K,), and the last position of each row (B,), or None where
    it is T - 1 in all of them.
    """

    emissions: Tensor
    transitions: Tensor
    start: Tensor
    end: Tensor
    last: Tensor | None


def log_partition(chain: Chain) -> Tensor:
    """The log of the sum over all paths, (B,)."""
    return _total(chain, None, "soft")


def log_odds(chain: Chain, tags: Tensor, kind: Kind) -> Tensor:
    """The score of the path ``tags`` (T, B) minus that of its rivals, (B,): all together, or the best of them."""
    return -_total(chain, tags, kind)


def best_path(chain: Chain) -> Tensor:
    """The tags (T, B) of the path with the largest score; where paths tie, the first. Constant after the last."""
    emissions, transitions, start, end, last = chain
    reached, back = [emissions[0] + start], []
    for emission in emissions.unbind(0)[1:]:
        scores, best = (reached[-1].unsqueeze(-1) + transitions).max(1)
        reached.append(scores.add_(emission))
        back.append(best)
    final = reached[-1] if last is None else _at(torch.stack(reached), last)
    tag = (final + end).argmax(-1, keepdim=True)
    tags = [tag]
    if back:
        pointers = torch.stack(back)
        if last is not None:
            steps = torch.arange(len(back), device=last.device).view(-1, 1, 1)
            stay = torch.arange(pointers.shape[-1], device=last.device)
            pointers = torch.where(steps < last.view(-1, 1), pointers, stay)
        for pointer in reversed(pointers.unbind(0)):
            tag = pointer.gather(-1, tag)
            tags.append(tag)
    return torch.cat(tags[::-1], -1).t()


def _total(chain: Chain, tags: Tensor | None, kind: Kind) -> Tensor:
    """The log of the sum over all paths; with tags, over all but this one, and relative to it. "hard": the maximum."""
    if kind == "hard" or is_abstract(chain.emissions) or torch.compiler.is_compiling() or transformed():
        return _plain(chain, tags, kind)
    value: Tensor = call(_Total, *chain, tags)
    return value


def _plain(chain: Chain, tags: Tensor | None, kind: Kind) -> Tensor:
    """The recursion in plain operations, for any transitions and any transformation."""
    chain = _bounded(chain)
    scores, entering, final = _terms(chain, tags)
    reached = [scores[0]]
    for t in range(1, scores.shape[0]):
        into = reached[-1].unsqueeze(-1) + chain.transitions
        if entering is not None:
            into = torch.cat([into, entering[t - 1].unsqueeze(1)], 1)
        reached.append(scores[t] + (into.logsumexp(1) if kind == "soft" else into.amax(1)))
    final = final + (reached[-1] if chain.last is None else _at(torch.stack(reached), chain.last))
    return final.logsumexp(-1) if kind == "soft" else final.amax(-1)


def _bounded(chain: Chain) -> Chain:
    lowest = LOWEST[chain.emissions.dtype]
    emissions, transitions, start, end = (value.clamp(min=lowest) for value in chain[:4])
    return Chain(emissions, transitions, start, end, chain.last)


def _terms(chain: Chain, tags: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
    """Scores (T, B, K), the paths that enter (T - 1, B, K), and what the last position's scores get added."""
    emissions, transitions, start, end, last = chain
    if tags is None:
        return torch.cat([(emissions[0] + start).unsqueeze(0), emissions[1:]]), None, end
    lowest, at = LOWEST[emissions.dtype], tags.unsqueeze(-1)
    is_own = torch.zeros_like(emissions, dtype=torch.bool).scatter(-1, at, True)
    ahead = (emissions - emissions.gather(-1, at)).masked_fill(is_own, 0.0)
    first = (ahead[0] + start - start[tags[0]].unsqueeze(-1)).masked_fill(is_own[0], lowest)
    leaving = functional.embedding(tags[:-1], transitions)
    scores = torch.cat([first.unsqueeze(0), ahead[1:] - leaving.gather(-1, at[1:])])
    own_end = end[tags[-1] if last is None else _at(tags, last)]
    return scores, leaving.masked_fill(is_own[1:], lowest), end - own_end.unsqueeze(-1)


def _at(steps: Tensor, last: Tensor) -> Tensor:
    """The entries of (T, B, ...) at the last position of every row."""
    at = last.view(1, -1, *(1,) * (steps.ndim - 2)).expand(1, *steps.shape[1:])
    return steps.gather(0, at).squeeze(0)


class _Total(Function):
    """(emissions, transitions, start, end, last, tags) -> the log of the sum, with its gradient written out.

    The recursion goes by matrix products of exponentials, shifted by each row's largest. Where a sum comes out so small
    that terms may have been lost, as where a tag is only reached over transitions far below the others, the plain
    recursion takes over. Backward, all that is added up has one sign.
    """

    @staticmethod
    def forward(
        ctx: Any,
        emissions: Tensor,
        transitions: Tensor,
        start: Tensor,
        end: Tensor,
        last: Tensor | None,
        tags: Tensor | None,
    ) -> Tensor:
        chain = _bounded(Chain(emissions, transitions, start, end, last))
        scores, entering, final = _terms(chain, tags)
        top = chain.transitions.max()
        weights = (chain.transitions - top).exp_()
        inner, shares = scores.new_empty(2, len(scores) - 1, *scores.shape[1:]).unbind(0)
        offsets = scores.new_zeros(*scores.shape[:2], 1)
        reached = scores.unbind(0)
        state = reached[0]
        enter = None if entering is None else entering.unbind(0)
        # The state is kept with its largest at 0, and what was taken off in the offsets: long sequences lose no digits.
        steps = zip(inner.unbind(0), shares.unbind(0), offsets.unbind(0)[:-1], offsets.unbind(0)[1:], strict=True)
        for t, (out, share, before, after) in enumerate(steps):
            shift = state.amax(-1, keepdim=True)
            torch.sub(state, shift, out=share).exp_()
            torch.add(before, shift.add_(top), out=after)
            torch.mm(share, weights, out=out).log_()
            if enter is not None:
                torch.logaddexp(out, enter[t].sub_(after), out=out)
            state = reached[t + 1].add_(out)
        ctx.plain = inner.numel() > 0 and not bool(inner.amin() > _SAFE[inner.dtype])
        if ctx.plain:
            ctx.save_for_backward(emissions, transitions, start, end, last, tags)
            return _plain(Chain(emissions, transitions, start, end, last), tags, "soft")
        reached_last = state + offsets[-1] if last is None else _at(scores, last) + _at(offsets, last)
        final = final + reached_last
        value = final.logsumexp(-1)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(
            emissions, transitions, start, end, last, tags, entering, weights, inner, shares, final, value
        )
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 6
        *given, last, tags = ctx.saved_tensors[:6]
        if ctx.plain or differentiated_again(grad):
            return (*_again(grad, given, last, tags, ctx.needs_input_grad[:4]), None, None)
        entering, weights, inner, shares, final, value = ctx.saved_tensors[6:]
        to_final = (final - value.unsqueeze(-1)).exp_().mul_(grad.unsqueeze(-1))
        to_scores = to_final.new_zeros(given[0].shape)
        if last is None:
            to_scores[-1] = to_final
        else:
            to_scores[last, torch.arange(len(last), device=last.device)] = to_final
        per_term = inner.neg().exp_()
        upstream, factors, states = to_scores.unbind(0), per_term.unbind(0), shares.unbind(0)
        back = weights.t()
        for t in range(len(states) - 1, -1, -1):
            factor = factors[t].mul_(upstream[t + 1])
            upstream[t].addcmul_(torch.mm(factor, back), states[t])
        to_transitions = (shares.flatten(0, 1).t() @ per_term.flatten(0, 1)).mul_(weights)
        if tags is not None:
            at = tags.unsqueeze(-1)
            leaving = (entering - inner).exp_().mul_(to_scores[1:])
            leaving.scatter_(-1, at[1:], -to_scores[1:].sum(-1, keepdim=True))
            to_transitions.index_add_(0, tags[:-1].reshape(-1), leaving.flatten(0, 1))
            to_scores.scatter_(-1, at, 0.0)
            to_scores.scatter_(-1, at, -to_scores.sum(-1, keepdim=True))
            own_last = tags[-1] if last is None else _at(tags, last)
            to_final.scatter_add_(-1, own_last.unsqueeze(-1), -grad.unsqueeze(-1))
        return to_scores, to_transitions, to_scores[0].sum(0), to_final.sum(0), None, None


def _again(
    grad: Tensor, given: list[Tensor], last: Tensor | None, tags: Tensor | None, needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The gradient through the plain recursion, for more than a first derivative."""
    with torch.enable_grad():
        # Aliases, since one of them may be a function of another.
        given = [value.view_as(value) for value in given]
        emissions, transitions, start, end = given
        value = _plain(Chain(emissions, transitions, start, end, last), tags, "soft")
    wanted = [value for value, need in zip(given, needed, strict=True) if need]
    grads = iter(torch.autograd.grad(value, wanted, grad, create_graph=torch.is_grad_enabled(), allow_unused=True))
    return tuple(next(grads) if need else None for need in needed)
