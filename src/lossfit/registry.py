"""The losses by name. Documentation, command line, comparison and law tests go through here."""

from __future__ import annotations

from typing import Any

from lossfit.core.checks import check_choice
from lossfit.losses.base import FAMILIES, REGISTRY, Loss


def available_losses(family: str | None = None) -> list[str]:
    """The names of all losses, or of those of a family, in the order of the catalogue.

    Raises:
        ValueError: there is no such family.

    Example:
        >>> lossfit.available_losses("single_label")[:3]
        ['cross_entropy', 'expected_accuracy', 'gamma_cross_entropy']
    """
    if family is not None:
        check_choice("family", family, FAMILIES)
    return [name for name, cls in REGISTRY.items() if family in (None, cls.family)]


def get(name: str) -> type[Loss]:
    """The class of a loss by its name.

    Raises:
        ValueError: no loss has this name; the nearest one is suggested.

    Example:
        >>> lossfit.registry.get("focal")
        <class 'lossfit.losses.single_label.focal.FocalLoss'>
    """
    check_choice("name", name, REGISTRY)
    return REGISTRY[name]


def make(name: str, **settings: Any) -> Loss:
    """A loss by its name, with its hyper-parameters and the keywords of its family.

    Example:
        >>> lossfit.make("gamma_cross_entropy", gamma=0.1)
        GammaCrossEntropyLoss(gamma=0.1, floor=0.0)
    """
    return get(name)(**settings)
