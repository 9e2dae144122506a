"""Checks of single arguments, with errors that name the argument, what was expected and what came."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from numbers import Real
from typing import Any

import torch
from torch import Tensor


def check_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"Expected `{name}` to be a torch.Tensor, but got {type(value).__name__}.")


def check_number(name: str, value: Any) -> float:
    """A number, not a tensor, which a GPU would be waited for to compare."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"Expected `{name}` to be a number, but got {type(value).__name__}.")
    return float(value)


def check_index(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"Expected `{name}` to be an integer, but got {value!r}.")
    return value


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise unless ``value`` is one of ``choices``, with the nearest one suggested."""
    choices = tuple(choices)
    if value in choices:
        return
    near = nearest(str(value), choices)
    hint = "" if near is None else f" Did you mean {near!r}?"
    raise ValueError(f"Expected `{name}` to be one of {', '.join(map(repr, choices))}, but got {value!r}.{hint}")


def nearest(value: str, choices: Iterable[str]) -> str | None:
    """The choice that is most like ``value``; None if no choice is much like it."""
    near = max(choices, key=lambda choice: _likeness(value, choice), default=None)
    return near if near is not None and _likeness(value, near) >= 0.6 else None


def _likeness(value: str, choice: str) -> float:
    """How much alike two names are, or the name and a word of the other, in [0, 1]."""
    words = (choice, *choice.split("_"))
    return max(difflib.SequenceMatcher(None, value.lower(), word).ratio() for word in words)


def check_constant(**tensors: Tensor | None) -> None:
    """Raise where one requires a gradient, in what would not give it one."""
    for name, value in tensors.items():
        if isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"Expected `{name}` without a gradient, since it would get none, but it requires one.")


def check_per_class(name: str, value: Tensor | None, classes: int) -> None:
    if value is not None and value.shape != (classes,):
        raise ValueError(f"Expected `{name}` to have one entry per class, ({classes},), but got {tuple(value.shape)}.")
