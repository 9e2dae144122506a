"""The keywords of a class, those of its bases spelled out; one that it does not take is named, with the nearest."""

from __future__ import annotations

import inspect
from inspect import Parameter, Signature
from typing import Any, Self

from torch import Tensor

from lossfit.core.checks import nearest

_SYNONYMS = {
    "alpha": "weight",
    "class_weight": "weight",
    "class_weights": "weight",
    "smoothing": "label_smoothing",
    "eps": "label_smoothing",
    "priors": "class_prior",
    "prior": "class_prior",
    "s": "scale",
    "tau": "temperature",
    "t": "temperature",
}
"""What other libraries call them."""


class _Spelled:
    """A signature that is put together when asked for, since that takes longer than the import of the package."""

    def __get__(self, instance: object, cls: type) -> Signature:
        return Signature(constructor(cls))


class Keywords:
    """A class whose ``__init__`` may hand its ``**common`` on to that of a base."""

    __signature__ = _Spelled()

    def __new__(cls, *args: Any, **settings: Any) -> Self:
        if settings:
            taken = [p.name for p in constructor(cls) if p.kind is not Parameter.POSITIONAL_ONLY]
            for name in settings.keys() - taken:
                near = _nearest(name, taken)
                hint = f" Did you mean {near!r}?" if near else ""
                raise TypeError(
                    f"{cls.__name__} got an unexpected keyword argument {name!r}; it takes {', '.join(taken)}.{hint}"
                )
        return super().__new__(cls)

    def _changed(self, *but: str) -> list[str]:
        """The arguments that differ from their default, but for those named; a tensor is shown by its shape.

        Functions and modules are left out: a function has no short form, and a module shows itself.
        """
        changed = []
        kept = {**vars(self), **vars(self).get("_buffers", {}), **vars(self).get("_parameters", {})}
        for argument in constructor(type(self)):
            value = kept.get(argument.name, argument.default)
            if argument.name in but or argument.name not in kept or callable(value):
                continue
            if isinstance(value, Tensor):
                value = tuple(value.shape)
            elif not isinstance(value, str | int | float | tuple | list | None):
                value = True  # an object, such as a process group, is there
            if value != argument.default:
                changed.append(f"{argument.name}={value!r}")
        return changed


def _nearest(name: str, taken: list[str]) -> str | None:
    if (known := _SYNONYMS.get(name.lower())) in taken:
        return known
    return nearest(name, taken)


def constructor(cls: type) -> list[Parameter]:
    """What a class takes: first what its own ``__init__`` names, then the keywords of the bases it hands them on to."""
    parameters: dict[str, Parameter] = {}
    bases = iter(cls.__mro__)
    for base in bases:
        if "__init__" not in vars(base):
            continue
        further = vars(base).get("_hands_keywords_to")
        if further is not None and base is not cls:  # what it names itself is for its subclasses to fill in
            base = next(b for b in bases if b is further)
        own = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        named = [p for p in own if p.kind is not Parameter.VAR_KEYWORD]
        if parameters:  # handed on by name, but for the numbers, which a subclass puts together
            named = [p.replace(kind=Parameter.KEYWORD_ONLY) for p in named if p.name not in {*parameters, "hypers"}]
        parameters |= {p.name: p for p in named}
        if own[-1:] and own[-1].kind is Parameter.VAR_KEYWORD:
            continue
        break
    return sorted(parameters.values(), key=lambda p: p.kind)
