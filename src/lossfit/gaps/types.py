"""What of the scores of a row a loss is made of, and what goes into it and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from torch import Tensor

Kind = Literal["soft", "hard"]


KINDS = ("soft", "hard")


class Gap(NamedTuple):
    """What :func:`gap` returns: numbers per row, each of shape (N, d1, ...) and of float32 or better.

    ``log_odds`` and ``over_mean`` come from differences of scores, so a common offset of a row's scores costs them no
    digits. ``target``, ``rivals`` and ``mean`` are as large as the scores, and their differences have fewer digits.
    ``mean``, ``over_mean``, ``hit`` and ``entropy`` are None unless asked for.

    Attributes:
        target: the target's score.
        rivals: the score of the rivals.
        log_odds: the gap, target minus rivals; for the soft gap log(p / (1 - p)), the log-odds of the target.
        mean: the mean score, with weights if there are any.
        over_mean: the mean of the target's score minus those of all classes, with the same weights.
        hit: whether the target has the largest score.
        entropy: of softmax(z), in nats.
    """

    target: Tensor
    rivals: Tensor
    log_odds: Tensor
    mean: Tensor | None = None
    over_mean: Tensor | None = None
    hit: Tensor | None = None
    entropy: Tensor | None = None


class Fields(NamedTuple):
    """What of the gap a loss is made of, as :func:`gap` takes it."""

    kind: Kind
    mean: bool = False
    mean_weight: Tensor | None = None


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
