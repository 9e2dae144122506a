"""The losses as functions: ``lossfit.functional.focal_loss(input, target, gamma=2.0, reduction="none")``.

Every loss in the registry has a twin here, called with what the loss is called with and then what its class takes. A
name that does not end in "entropy" or "accuracy" gets the ending "_loss".
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Any

from torch import Tensor

from lossfit import registry
from lossfit.core.keywords import constructor
from lossfit.losses.base import Loss


def _twin(cls: type[Loss]) -> Callable[..., Tensor]:
    called = list(inspect.signature(cls.forward).parameters.values())[1:]
    made = constructor(cls)
    at = [p for p in called if p.kind is Parameter.POSITIONAL_OR_KEYWORD]
    names = {p.name for p in called}

    def loss(*args: Any, **settings: Any) -> Tensor:
        call = {name: settings.pop(name) for name in names & settings.keys()}
        value: Tensor = cls(*args[len(at) :], **settings)(*args[: len(at)], **call)
        return value

    positional = [p for p in made if p.kind is Parameter.POSITIONAL_OR_KEYWORD]
    keyword = [p for p in (*called, *made) if p.kind is Parameter.KEYWORD_ONLY]
    # What follows a default needs one too.
    if any(p.default is not p.empty for p in at):
        positional = [p.replace(kind=Parameter.KEYWORD_ONLY) for p in positional]
    loss.__signature__ = inspect.Signature([*at, *positional, *keyword], return_annotation=Tensor)  # type: ignore[attr-defined]
    loss.__name__ = loss.__qualname__ = twin_name(cls.name)
    loss.__module__ = __name__
    loss.__doc__ = f"Function form of :class:`lossfit.{cls.__name__}`.\n\n{inspect.cleandoc(cls.__doc__ or '')}"
    return loss


def twin_name(name: str) -> str:
    """The function's name for a name in the registry."""
    return name if name.endswith(("entropy", "accuracy")) else f"{name}_loss"


_names = {twin_name(name): name for name in registry.available_losses()}
__all__ = list(_names)


def __getattr__(name: str) -> Callable[..., Tensor]:
    """Made on first use: signatures take longer to put together than the rest of the package to import."""
    if name not in _names:
        raise AttributeError(f"module {__name__!r} has no loss {name!r}; there are {', '.join(__all__)}")
    globals()[name] = made = _twin(registry.get(_names[name]))
    return made


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
