"""What one pass over the scores of rows tells, what it is told, and the way back: numbers per row, in tuples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Wanted(NamedTuple):
    """Which statistics of the rows are wanted."""

    hard: bool = False
    mean: bool = False
    hit: bool = False
    entropy: bool = False


class RowInputs(NamedTuple):
    """What belongs to rows of scores (N, C) or (N, C, S).

    Attributes:
        target: the column of each target (N) or (N, S).
        valid: which rows count; None for all of them.
        here: whose target is among these columns, where that is not true of all: the classes are spread over ranks.
        own: the targets' scores where they cannot all be read from these columns, but the mean needs them.
        weight: of the classes (C,), for the mean.
    """

    target: Tensor
    valid: Tensor | None = None
    here: Tensor | None = None
    own: Tensor | None = None
    weight: Tensor | None = None

    def cut(self, at: Any) -> RowInputs:
        """Those of some rows."""
        return self.each(lambda v: v[at])

    def each(self, function: Callable[[Tensor], Tensor]) -> RowInputs:
        """With a function of each tensor of the rows."""
        valid, here, own = (None if v is None else function(v) for v in self[1:4])
        return RowInputs(function(self.target), valid, here, own, self.weight)


class RowStats(NamedTuple):
    """What one pass over the scores of rows tells, relative to the top rival, so that an offset costs no digits.

    With w the weights of the classes and q the shares of the rivals, exp(z_k - top - log_sum):

    Attributes:
        own: the target's score z_y; 0 where that is among other columns.
        top: the largest score of a rival, or the lowest number of the type; taken as constant.
        log_sum: log(sum_{k != y} exp(z_k - top)); for the hard gap 0, and its gradient goes to the top rivals.
        mean: sum_{k != y} w_k (z_k - z_y) / C, with z_y taken as constant.
        hit: whether the target has the largest score, the first one if scores tie.
        among: the entropy among the rivals, -sum_{k != y} q_k log q_k.
    """

    own: Tensor
    top: Tensor
    log_sum: Tensor
    mean: Tensor | None = None
    hit: Tensor | None = None
    among: Tensor | None = None

    def cut(self, at: Any) -> RowStats:
        """Those of some rows."""
        return RowStats(*(None if v is None else v[at] for v in self))  # type: ignore[arg-type]

    def masked(self, valid: Tensor | None) -> RowStats:
        """With 0 in the rows that do not count."""
        if valid is None:
            return self
        return RowStats(*(None if v is None else v.masked_fill(~valid, 0) for v in self))  # type: ignore[arg-type]


class Upstream(NamedTuple):
    """The gradients of statistics of rows; None is 0."""

    own: Tensor | None = None
    log_sum: Tensor | None = None
    mean: Tensor | None = None
    among: Tensor | None = None

    def cut(self, at: Any) -> Upstream:
        """Those of some rows."""
        return Upstream(*(None if v is None else v[at] for v in self))


def join(parts: RowStats, hard: bool = False, divisor: Tensor | None = None) -> RowStats:
    """The statistics of rows, from those of parts of their columns, stacked along the first dimension.

    ``own`` and ``mean`` add up, as they do where one part has the target and the mean is over all columns.
    """
    own, top, log_sum, mean, hit, among = parts
    whole = top.amax(0)
    behind = top - whole
    behind = finite(behind if divisor is None else behind / divisor) + log_sum
    own, mean = own.sum(0), None if mean is None else mean.sum(0)
    hit = None if hit is None else hit.all(0)
    if hard:  # the best part as it is, so that its top rivals are found again
        best = behind.argmax(0, keepdim=True)
        top, log_sum = (v.gather(0, best).squeeze(0) for v in (top, log_sum))
        return RowStats(own, top, log_sum, mean, hit)
    joined = behind.logsumexp(0)
    if among is not None:
        share = (behind - joined).exp()
        among = (share * (among - finite(behind - joined))).sum(0)
    return RowStats(own, whole, joined, mean, hit, among)


def finite(x: Tensor) -> Tensor:
    """Without -inf, so that 0 times it is 0."""
    return x.clamp(min=torch.finfo(x.dtype).min)
