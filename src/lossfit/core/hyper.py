"""Hyper-parameters of losses: a number, a schedule over steps, or a tensor with one entry per row."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Number = float | Tensor
"""A hyper-parameter as a step needs it: a number, or a tensor of no dimension or of the shape of the rows."""

HyperValue = Number | Callable[[int], float]
"""A hyper-parameter as a user gives it."""


def per_row(numbers: dict[str, Number], function: Callable[[Tensor], Tensor]) -> dict[str, Number]:
    """Numbers by name, with tensors per row changed by a function."""
    return {n: function(v) if isinstance(v, Tensor) and v.ndim else v for n, v in numbers.items()}


@dataclass(frozen=True)
class Hyper:
    """What a loss says of one of its hyper-parameters.

    Attributes:
        meaning: in a few words.
        low, high: the range that makes sense, ends included unless ``open_low`` or infinite.
        search: values worth trying on new data, from mild to strong.
    """

    meaning: str
    low: float = -math.inf
    high: float = math.inf
    search: tuple[float, ...] = ()
    open_low: bool = False

    @property
    def range(self) -> str:
        left = "(" if self.open_low or math.isinf(self.low) else "["
        right = ")" if math.isinf(self.high) else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"

    def check(self, name: str, value: object) -> None:
        """Raise unless ``value``, a number or a tensor of numbers, lies in the range."""
        if isinstance(value, Tensor):
            if value.is_complex():
                raise TypeError(f"Expected `{name}` to hold real numbers, but got {value.dtype}.")
            low, high = (value.min().item(), value.max().item()) if value.numel() else (math.nan, math.nan)
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(
                f"Expected `{name}` to be a number, a torch.Tensor or a function of the step, "
                f"but got {type(value).__name__}."
            )
        else:
            low = high = value
        above = low > self.low if self.open_low or math.isinf(self.low) else low >= self.low
        below = high < self.high if math.isinf(self.high) else high <= self.high
        if not (above and below):
            shown = f"{low:g}" if low == high or math.isnan(low) else f"values from {low:g} to {high:g}"
            shown = "an empty tensor" if isinstance(value, Tensor) and not value.numel() else shown
            raise ValueError(f"Expected `{name}` in {self.range}, but got {shown}.")
