"""The losses as functions: ``lossfit.functional.focal_loss(input, target, gamma=2.0, reduction="none")``.

Every loss in the registry has a twin here, called with the input, the target and then what its class takes, and
``sample_weight`` and ``denominator``. A name that does not end in "entropy" or "accuracy" gets the ending "_loss".
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from lossfit import registry
from lossfit.losses.base import SingleLabelLoss


def _twin(cls: type[SingleLabelLoss]) -> Callable[..., Tensor]:
    def loss(
        input: Tensor,
        target: Tensor,
        *args: Any,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
        **settings: Any,
    ) -> Tensor:
        value: Tensor = cls(*args, **settings)(input, target, sample_weight=sample_weight, denominator=denominator)
        return value

    own = inspect.signature(loss).parameters
    taken = [p for p in inspect.signature(cls).parameters.values() if p.kind is not p.VAR_KEYWORD]
    common = inspect.signature(SingleLabelLoss).parameters
    extra = [p for name, p in common.items() if name not in {p.name for p in taken} and name != "hypers"]
    positional = [p for p in taken if p.kind is p.POSITIONAL_OR_KEYWORD]
    keyword = [p for p in taken if p.kind is p.KEYWORD_ONLY]
    loss.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [own["input"], own["target"], *positional, own["sample_weight"], own["denominator"], *keyword, *extra],
        return_annotation=Tensor,
    )
    loss.__name__ = loss.__qualname__ = twin_name(cls.name)
    loss.__module__ = __name__
    loss.__doc__ = f"Function form of :class:`lossfit.{cls.__name__}`.\n\n{inspect.cleandoc(cls.__doc__ or '')}"
    return loss


def twin_name(name: str) -> str:
    """The function's name for a name in the registry."""
    return name if name.endswith(("entropy", "accuracy")) else f"{name}_loss"


__all__ = [twin_name(name) for name in registry.available_losses()]
globals().update({twin_name(name): _twin(registry.get(name)) for name in registry.available_losses()})


def __getattr__(name: str) -> Callable[..., Tensor]:
    raise AttributeError(f"module {__name__!r} has no loss {name!r}; there are {', '.join(__all__)}")
