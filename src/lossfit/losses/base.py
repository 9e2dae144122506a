"""What every loss of the library has: a card in the registry, hyper-parameters, schedules, a reduction."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from lossfit.core.checks import check_choice
from lossfit.core.hyper import Hyper, HyperValue, Number
from lossfit.core.reduce import REDUCTIONS, Reduction
from lossfit.core.tunable import Tunable

FAMILIES = {
    "single_label": "One right class among many",
    "multi_label": "Any number of right classes",
    "multi_way": "Several questions of several answers each",
    "ranking": "Order: positives before negatives",
    "metric": "A metric of the whole batch",
    "contrastive": "Pairs and sampled rivals",
    "distillation": "Another model as the target",
    "sequence": "Sequences",
}
"""The families, whose losses are called alike, with a title for each."""

REGISTRY: dict[str, type[Loss]] = {}
"""The losses by name, in the order of the catalogue."""

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class Loss(Tunable):
    """A loss.

    A subclass with a ``formula`` is in the registry: in the functions, the command line, the documentation and the law
    tests.

    Args:
        hypers: the values of the hyper-parameters, by name, each with a card in ``hypers`` or ``common_hypers``.
        reduction: "mean", "sum" or "none".
    """

    name: ClassVar[str]
    """The name in the registry: the class name in snake case without "Loss"."""
    family: ClassVar[str]
    """Losses of a family are called in the same way."""
    formula: ClassVar[str]
    """The loss in plain text."""
    sensitivity: ClassVar[str] = ""
    """S(p) = -dl/dp in plain text, where it has a simple form."""
    source: ClassVar[str]
    """Author, title, year, section."""
    common_hypers: ClassVar[dict[str, tuple[Hyper, float]]] = {}
    """Those that its family shares, with their defaults."""
    designed_gradient: ClassVar[bool] = False
    """Whether the gradient was designed, and is not the derivative of the value."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "formula" in cls.__dict__:
            cls.name = _WORDS.sub("_", cls.__name__.removesuffix("Loss")).lower()
            assert cls.family in FAMILIES
            REGISTRY[cls.name] = cls

    def __init__(self, hypers: dict[str, HyperValue] | None = None, *, reduction: Reduction = "mean") -> None:
        super().__init__(hypers or {})
        check_choice("reduction", reduction, REDUCTIONS)
        self.reduction: Reduction = reduction
        self._class_numbers: list[str] = []

    def _keep_per_class(self, name: str, value: Tensor | None) -> None:
        """Keep numbers per class (C,) as a buffer, or as a parameter if they are one."""
        if value is not None and not (isinstance(value, Tensor) and value.ndim == 1):
            shown = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"Expected `{name}` to be a tensor of shape (C,), but got {shown}.")
        if value is not None and value.is_complex():
            raise TypeError(f"Expected `{name}` to hold real numbers, but got {value.dtype}.")
        keep = self.register_parameter if isinstance(value, nn.Parameter) else self.register_buffer
        keep(name, value)  # type: ignore[arg-type]
        self._class_numbers.append(name)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Numbers per class move with the loss, but stay in float32 or wider: float16 ends at a count of 65504."""
        before = {name: value.detach() for name in self._class_numbers if (value := getattr(self, name)) is not None}
        super()._apply(fn, recurse)
        for name, value in before.items():
            moved = getattr(self, name)
            if moved.dtype in (torch.float16, torch.bfloat16) and value.dtype != moved.dtype:
                moved.data = value.to(moved.device)
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__.pop("_packed", None)
        super().__setattr__(name, value)

    def _card(self, name: str) -> Hyper:
        return self.hypers[name] if name in self.hypers else self.common_hypers[name][0]

    def _hyper(self, name: str, shape: torch.Size, dtype: torch.dtype | None = None) -> Number:
        """A hyper-parameter for rows of this shape, and of this type if one is given."""
        value: Number = getattr(self, name)
        if isinstance(value, Tensor) and dtype is not None:
            value = value.to(dtype)
        if isinstance(value, Tensor) and value.ndim:
            sizes = zip(reversed(value.shape), reversed(shape), strict=False)
            if value.ndim > len(shape) or any(have not in (1, size) for have, size in sizes):
                raise ValueError(
                    f"Expected `{name}` to broadcast to the rows {tuple(shape)}, but got {tuple(value.shape)}."
                )
            return value.expand(shape)
        return value

    def _numbers(self, shape: torch.Size, dtype: torch.dtype) -> dict[str, Number]:
        """All hyper-parameters by name, for rows of this shape that are computed in this type."""
        self._check_exported()
        return {name: self._hyper(name, shape, dtype) for name in self._hypers}

    def extra_repr(self) -> str:
        defaults = {name: default for name, (_, default) in self.common_hypers.items()}
        values = {name: self._schedules.get(name, getattr(self, name)) for name in self._hypers}
        parts = [self._describe(n) for n, v in values.items() if isinstance(v, Tensor) or v != defaults.get(n)]
        parts += self._changed(*self._hypers, "reduction")
        parts += [] if self.reduction == "mean" else [f"reduction={self.reduction!r}"]
        return ", ".join(parts)
