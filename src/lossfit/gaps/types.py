"""What of the scores of a row a loss is made of."""

from __future__ import annotations

from typing import Literal, NamedTuple

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
