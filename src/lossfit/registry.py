"""The losses by name. Documentation, command line, comparison and law tests go through here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lossfit import inputs

if TYPE_CHECKING:
    from lossfit.losses.base import Loss

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

_losses: dict[str, type[Loss]] = {}


def add(cls: type[Loss]) -> None:
    assert cls.family in FAMILIES
    _losses[cls.name] = cls


def available_losses(family: str | None = None) -> list[str]:
    """The names of all losses, or of those of a family, in the order of the catalogue.

    Raises:
        ValueError: there is no such family.

    Example:
        >>> lossfit.available_losses("single_label")[:3]
        ['cross_entropy', 'expected_accuracy', 'gamma_cross_entropy']
    """
    if family is not None:
        inputs.check_choice("family", family, FAMILIES)
    return [name for name, cls in _losses.items() if family in (None, cls.family)]


def get(name: str) -> type[Loss]:
    """The class of a loss by its name.

    Raises:
        ValueError: no loss has this name; the nearest one is suggested.

    Example:
        >>> lossfit.registry.get("focal")
        <class 'lossfit.losses.weighted.FocalLoss'>
    """
    inputs.check_choice("name", name, _losses)
    return _losses[name]


def make(name: str, **settings: Any) -> Loss:
    """A loss by its name, with its hyper-parameters and the keywords of its family.

    Example:
        >>> lossfit.make("gamma_cross_entropy", gamma=0.1)
        GammaCrossEntropyLoss(gamma=0.1, floor=0.0)
    """
    return get(name)(**settings)
