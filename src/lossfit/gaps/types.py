"""What of the scores of a row a loss is made of."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

Kind = Literal["soft", "hard"]


KINDS = ("soft", "hard")


class Gap(NamedTuple):
    """What :func:`gap` returns: numbers per row, each of shape (N, d1, ...) and of float32 or better.

    ``mean``, ``hit`` and ``entropy`` are None unless asked for.
    """

    target: Tensor
    rivals: Tensor
    mean: Tensor | None = None
    hit: Tensor | None = None
    entropy: Tensor | None = None

    @property
    def log_odds(self) -> Tensor:
        """The gap ``target - rivals``; for the soft gap log(p / (1 - p)), the log-odds of the target."""
        return self.target - self.rivals


class Fields(NamedTuple):
    """What of the gap a loss is made of, as :func:`gap` takes it."""

    kind: Kind
    mean: bool = False
    mean_weight: Tensor | None = None


GapFields = tuple[Tensor | None, ...]
