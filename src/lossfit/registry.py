"""The losses by name. Documentation, command line, comparison and law tests go through here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lossfit import inputs

if TYPE_CHECKING:
    from lossfit.losses.base import SingleLabelLoss

_losses: dict[str, type[SingleLabelLoss]] = {}


def add(cls: type[SingleLabelLoss]) -> None:
    _losses[cls.name] = cls


def available_losses() -> list[str]:
    """The names of all losses, in the order of the catalogue.

    Example:
        >>> lossfit.available_losses()[:3]
        ['cross_entropy', 'expected_accuracy', 'gamma_cross_entropy']
    """
    return list(_losses)


def get(name: str) -> type[SingleLabelLoss]:
    """The class of a loss by its name.

    Raises:
        ValueError: no loss has this name; the nearest one is suggested.

    Example:
        >>> lossfit.registry.get("focal")
        <class 'lossfit.losses.weighted.FocalLoss'>
    """
    inputs.check_choice("name", name, _losses)
    return _losses[name]


def make(name: str, **settings: Any) -> SingleLabelLoss:
    """A loss by its name, with its hyper-parameters and the common keywords.

    Example:
        >>> lossfit.make("gamma_cross_entropy", gamma=0.1)
        GammaCrossEntropyLoss(gamma=0.1, floor=0.0)
    """
    return get(name)(**settings)
