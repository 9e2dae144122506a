"""The loss of an estimator: found by its name, and called on rows with weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lossfit import registry
from lossfit.core.checks import check_choice, check_per_class
from lossfit.core.keywords import constructor
from lossfit.integrations.sklearn.sparse_rows import SparseRows
from lossfit.losses.base import Loss
from lossfit.losses.metric.base import MetricLoss


class Rows(NamedTuple):
    """Features (N, F), targets (N,) or (N, L), and positive weights (N,)."""

    x: Tensor | SparseRows
    y: Tensor
    weight: Tensor


def find(loss: str | Loss, settings: Mapping[str, Any] | None, kinds: tuple[type[Loss], ...]) -> Loss:
    """A loss of one of these kinds, with the mean as its reduction.

    Args:
        loss: a name of the registry, or a loss, which is copied.
        settings: what the loss of that name is made with; arrays become tensors.
        kinds: the classes that are welcome.

    Raises:
        TypeError, ValueError: there is no such loss, or it has no such setting.
    """
    if isinstance(loss, str):
        check_choice("loss", loss, [n for n in registry.available_losses() if issubclass(registry.get(n), kinds)])
        if settings is not None and not isinstance(settings, Mapping):
            raise TypeError(f"Expected `loss_params` to be a dictionary, but got {type(settings).__name__}.")
        found = _make(loss, settings or {})
    elif not isinstance(loss, kinds):
        names = " or ".join(f"a {kind.__name__}" for kind in kinds)
        raise TypeError(f"Expected `loss` to be {names}, or the name of one, but got {type(loss).__name__}.")
    elif settings:
        raise ValueError(f"Expected `loss_params` only with a loss given by its name, but `loss` is {loss!r}.")
    else:
        found = copy.deepcopy(loss)
    found.reduction = "mean"
    return found


def _make(name: str, settings: Mapping[str, Any]) -> Loss:
    accepted = constructor(registry.get(name))
    for key in settings:
        check_choice(f"loss_params of {name}", key, [parameter.name for parameter in accepted])
    for parameter in accepted:
        if parameter.default is parameter.empty and parameter.name not in settings:
            raise ValueError(f"Expected `loss_params` with {parameter.name!r}, which {name} cannot be made without.")
    return registry.make(
        name, **{key: torch.as_tensor(v) if isinstance(v, np.ndarray) else v for key, v in settings.items()}
    )


def why_stepwise(loss: Loss) -> str | None:
    """Why a loss is no fixed function with the gradient of its value, which a line search needs; None if it is."""
    if loss.designed_gradient or torch.as_tensor(getattr(loss, "floor", 0.0)).gt(0).any():
        return "its gradient is not that of its value"
    if loss._schedules:
        return "its hyper-parameters change with the step"
    return None


def mean_weight(loss: Loss, rows: Rows, classes: int) -> float:
    """The mean of what the rows are weighted by, with the class weights of the loss itself."""
    weight = getattr(loss, "weight", None)
    if rows.y.ndim > 1 or weight is None:
        return rows.weight.mean().item()
    check_per_class("weight", weight, classes)
    both: Tensor = rows.weight * weight[rows.y].to(rows.weight.dtype)
    return both.mean().item()


def value(loss: Loss, logits: Tensor, rows: Rows, divisor: float | None = None) -> Tensor:
    """The weighted mean of the loss; with a divisor, the sum over the rows divided by it.

    The loss of a metric is that of its batch in either case.
    """
    if divisor is None or isinstance(loss, MetricLoss):
        found: Tensor = loss(logits, rows.y, sample_weight=rows.weight)
    else:
        found = loss(logits, rows.y, sample_weight=rows.weight, denominator=divisor)
    return found
