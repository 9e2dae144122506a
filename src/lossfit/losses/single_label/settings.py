"""The hyper-parameters of a single-label loss, as a batch needs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from lossfit.core.hyper import Number, per_row


class Settings(NamedTuple):
    """The hyper-parameters of a loss: numbers, or tensors of no dimension or of the shape of the rows.

    Attributes:
        own: those that only this loss has, by name, in the order in which its link takes them.
        temperature: the number that the logits are divided by.
        label_smoothing: the share of the target that is spread over all classes.
    """

    own: dict[str, Number]
    temperature: Number = 1.0
    label_smoothing: Number = 0.0

    @property
    def is_smooth(self) -> bool:
        """Whether labels are smoothed."""
        return isinstance(self.label_smoothing, Tensor) or self.label_smoothing > 0

    def named(self) -> dict[str, Number]:
        """All of them by name."""
        return {**self.own, "temperature": self.temperature, "label_smoothing": self.label_smoothing}

    def renewed(self, numbers: dict[str, Number], prefix: str = "") -> Settings:
        """The same settings with the numbers that have their names, such as those of some of the rows."""
        own = {name: numbers[prefix + name] for name in self.own}
        return Settings(own, numbers[f"{prefix}temperature"], numbers[f"{prefix}label_smoothing"])

    def map(self, function: Callable[[Tensor], Tensor]) -> Settings:
        """The same settings with tensors per row changed by a function."""
        return self.renewed(per_row(self.named(), function))
