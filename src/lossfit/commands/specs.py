"""Losses as they are written on a command line."""

from __future__ import annotations

import inspect
import json

from lossfit import registry
from lossfit.compare.errors import InputError
from lossfit.losses.single_label.base import SingleLabelLoss


def single_label(spec: str) -> SingleLabelLoss:
    """name:setting=value,... to a loss.

    Raises:
        InputError: it is written in another way, or is no single-label loss.
    """
    name, _, rest = spec.partition(":")
    settings = {}
    for pair in rest.split(",") if rest else ():
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"Expected name:setting=value,setting=value, but got {spec!r}.")
        try:
            settings[key] = json.loads(value)
        except json.JSONDecodeError:
            settings[key] = value
    known = inspect.signature(registry.get(name)).parameters
    for key in settings:
        if key not in known:
            raise InputError(f"{name} has no setting {key!r}; it has {', '.join(known)}.")
    loss = registry.make(name, **settings)
    if not isinstance(loss, SingleLabelLoss):
        names = ", ".join(registry.available_losses("single_label"))
        raise InputError(f"Expected losses of one right class, {names}, but got {name!r}.")
    return loss
