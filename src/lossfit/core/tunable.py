"""Modules with hyper-parameters: numbers, functions of the step, or tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lossfit.core.autograd import has_numbers, readable
from lossfit.core.hyper import Hyper, HyperValue
from lossfit.core.keywords import Keywords


class Tunable(Keywords, nn.Module):
    """What losses and margins share.

    Hyper-parameters may be numbers; functions of the step, which :meth:`step` advances; or tensors, with gradients if
    they require them.

    Args:
        hypers: the values of the hyper-parameters, by name, each with a card in ``hypers``.
    """

    hypers: ClassVar[dict[str, Hyper]] = {}
    """The module's own hyper-parameters."""

    steps: Tensor
    __call__: Callable[..., Tensor]  # to a type checker, nn.Module returns anything

    def __init__(self, hypers: dict[str, HyperValue]) -> None:
        super().__init__()
        self._schedules: dict[str, Callable[[int], float]] = {}
        self._step = 0
        self._hypers = tuple(hypers)
        for name, value in hypers.items():
            if isinstance(value, Tensor):
                self._keep(name, value)
            elif callable(value):
                self._check(name, value(0))
                self._schedules[name] = value
            else:
                self._check(name, value)
                setattr(self, name, value)
        if self._schedules:
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
            self.register_forward_pre_hook(_refuse_export)
            self._move_to(0)

    def _keep(self, name: str, value: Tensor) -> None:
        if readable(value):
            self._check(name, value.detach())
        keep = self.register_parameter if isinstance(value, nn.Parameter) else self.register_buffer
        keep(name, value)  # type: ignore[arg-type]

    def _card(self, name: str) -> Hyper:
        return self.hypers[name]

    def _check(self, name: str, value: Any, shown: str | None = None) -> None:
        self._card(name).check(shown or name, value)

    def step(self, to: int | None = None) -> None:
        """Advance the hyper-parameters that are functions of the step: by one step, or to step ``to``.

        Call it where the optimiser steps. The step is in the state dict. Without schedules it does nothing.

        Example:
            >>> loss = lossfit.GammaCrossEntropyLoss(gamma=lambda step: min(1.0, step / 100))
            >>> loss.step(to=50)
            >>> loss.gamma
            0.5
        """
        if self._schedules:
            self._move_to(self._step + 1 if to is None else to)

    def _move_to(self, step: int) -> None:
        self._step = step
        self.steps.fill_(step)
        for name, schedule in self._schedules.items():
            value = schedule(step)
            self._check(name, value, f"{name} at step {step}")
            setattr(self, name, float(value))

    def _check_exported(self) -> None:
        """Raise in an export of what only a number at this step could stand for."""
        if self._schedules and torch.compiler.is_exporting():
            name = next(iter(self._schedules))
            raise ValueError(
                f"Expected hyper-parameters that an export can hold, but `{name}` is a function of the step: "
                f"export with its number, {name}={getattr(self, name):g} at this step."
            )

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if self._schedules:
            self._move_to(int(self.steps))

    def _describe(self, name: str) -> str:
        """A hyper-parameter as the representation shows it."""
        value = self._schedules.get(name, getattr(self, name))
        if isinstance(value, Tensor):
            value = value.item() if not value.ndim and has_numbers(value) else tuple(value.shape)
        return f"{name}={value}"

    def extra_repr(self) -> str:
        return ", ".join(map(self._describe, self._hypers))


def _refuse_export(module: Tunable, args: Any) -> None:
    module._check_exported()
