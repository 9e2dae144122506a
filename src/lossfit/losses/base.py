"""What every loss of the library has: a card in the registry, hyper-parameters, schedules, a reduction."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lossfit import inputs, registry
from lossfit.autograd import transformed
from lossfit.hyper import Hyper, HyperValue
from lossfit.reduce import REDUCTIONS, Reduction

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class Loss(nn.Module):
    """A loss.

    A subclass with a ``formula`` is in the registry: in the functions, the command line, the documentation and the law
    tests. Hyper-parameters may be numbers; functions of the step, which :meth:`step` advances; or tensors, with
    gradients if they require them.

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
    hypers: ClassVar[dict[str, Hyper]] = {}
    """The loss's own hyper-parameters."""
    common_hypers: ClassVar[dict[str, tuple[Hyper, float]]] = {}
    """Those that its family shares, with their defaults."""
    designed_gradient: ClassVar[bool] = False
    """Whether the gradient was designed, and is not the derivative of the value."""

    steps: Tensor

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "formula" in cls.__dict__:
            cls.name = _WORDS.sub("_", cls.__name__.removesuffix("Loss")).lower()
            registry.add(cls)

    def __init__(self, hypers: dict[str, HyperValue] | None = None, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        inputs.check_choice("reduction", reduction, REDUCTIONS)
        self.reduction: Reduction = reduction
        self._schedules: dict[str, Callable[[int], float]] = {}
        self._step = 0
        self._hypers = tuple(hypers or {})
        for name, value in (hypers or {}).items():
            self._set_hyper(name, value)
        if self._schedules:
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def _set_hyper(self, name: str, value: HyperValue) -> None:
        card = self._card(name)
        if isinstance(value, Tensor):
            card.check(name, value.detach()) if readable(value) else None
            if isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            else:
                self.register_buffer(name, value)
        elif callable(value):
            self._schedules[name] = value
            card.check(name, value(0))
            setattr(self, name, float(value(0)))
        else:
            card.check(name, value)
            setattr(self, name, value)

    def _card(self, name: str) -> Hyper:
        return self.hypers[name] if name in self.hypers else self.common_hypers[name][0]

    def step(self, to: int | None = None) -> None:
        """Advance the schedules among the hyper-parameters: by one step, or to step ``to``.

        Call it where the optimiser steps. The step is in the state dict. Without schedules it does nothing.

        Example:
            >>> loss = lossfit.GammaCrossEntropyLoss(gamma=lambda step: min(1.0, step / 100))
            >>> loss.step(to=50)
            >>> loss.gamma
            0.5
        """
        if self._schedules:
            self._move_to(self._step + 1 if to is None else to)
            self.steps.fill_(self._step)

    def _move_to(self, step: int) -> None:
        self._step = step
        for name, schedule in self._schedules.items():
            value = float(schedule(step))
            self._card(name).check(f"{name} at step {step}", value)
            setattr(self, name, value)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if self._schedules:
            self._move_to(int(self.steps))

    def _hyper(self, name: str, shape: torch.Size) -> float | Tensor:
        """A hyper-parameter for rows of this shape."""
        value: float | Tensor = getattr(self, name)
        if isinstance(value, Tensor) and value.ndim:
            sizes = zip(reversed(value.shape), reversed(shape), strict=False)
            if value.ndim > len(shape) or any(have not in (1, size) for have, size in sizes):
                raise ValueError(
                    f"Expected `{name}` to broadcast to the rows {tuple(shape)}, but got {tuple(value.shape)}."
                )
            return value.expand(shape)
        return value

    def settings(self, shape: torch.Size) -> dict[str, float | Tensor]:
        """The loss's own hyper-parameters for rows of this shape."""
        return {name: self._hyper(name, shape) for name in self._hypers if name not in self.common_hypers}

    def extra_repr(self) -> str:
        shown = {name: self._schedules.get(name, getattr(self, name)) for name in self._hypers}
        defaults = {name: default for name, (_, default) in self.common_hypers.items()}
        parts = [
            f"{name}={tuple(v.shape) if isinstance(v, Tensor) and v.ndim else v.item() if isinstance(v, Tensor) else v}"
            for name, v in shown.items()
            if isinstance(v, Tensor) or v != defaults.get(name)
        ]
        parts += [] if self.reduction == "mean" else [f"reduction={self.reduction!r}"]
        return ", ".join(parts)


def readable(value: Tensor) -> bool:
    """Whether the host may look at the numbers: not on a GPU (it would wait), not inside a transformation."""
    return value.device.type == "cpu" and not torch.compiler.is_compiling() and not transformed()
