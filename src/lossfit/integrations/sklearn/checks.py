"""The settings of an estimator, checked when it is fitted, as is the custom of scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np


def number(name: str, value: object, low: float, high: float = math.inf, *, open_low: bool = False) -> None:
    """Raise unless ``value`` is a number from ``low`` to below ``high``."""
    expected = f"`{name}` in {'(' if open_low else '['}{low:g}, {high:g})"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"Expected {expected}, but got {value!r}.")
    given = float(value)
    if not (low < given if open_low else low <= given) or not given < high:
        raise ValueError(f"Expected {expected}, but got {value}.")


def count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"Expected `{name}` to be an integer, but got {value!r}.")
    if int(value) < 1:
        raise ValueError(f"Expected `{name}` of at least 1, but got {value}.")


def flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"Expected `{name}` to be True or False, but got {value!r}.")


def sizes(name: str, value: object) -> tuple[int, ...]:
    """Sizes of layers, one number for one layer."""
    each = (value,) if isinstance(value, Integral) else value
    if not isinstance(each, Sequence) or not all(_is_size(size) for size in each):
        raise ValueError(f"Expected `{name}` to hold integers of at least 1, one for each layer, but got {value!r}.")
    return tuple(int(size) for size in each)


def _is_size(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= 1


def two_classes(classes: np.ndarray) -> None:
    if len(classes) < 2:
        raise ValueError(f"Expected `y` with at least two classes, but got one class only: {classes.tolist()}.")


def class_weights(weights: np.ndarray) -> None:
    if not (np.isfinite(weights) & (weights >= 0)).all() or not weights.any():
        raise ValueError(f"Expected `class_weight` of at least 0, and some above it, but got {weights.tolist()}.")
