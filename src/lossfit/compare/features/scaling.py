"""What the parts of a preparation have in common, and the part that scales numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

Stored = tuple[dict[str, Any], dict[str, np.ndarray]]
"""What a part consists of: settings for JSON, and arrays."""


class Part(Protocol):
    """One kind of columns to a matrix."""

    @property
    def width(self) -> int:
        """Columns of the matrix."""

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """The matrix (N, width)."""

    def stored(self) -> Stored:
        """Settings and arrays, from which ``restore`` makes it again."""


@dataclass(frozen=True)
class Numbers:
    """Missing numbers become the median, then (x - mean) / scale.

    Attributes:
        mean, scale: (D,).
        median: (D,), if numbers may be missing.
    """

    mean: np.ndarray
    scale: np.ndarray
    median: np.ndarray | None = None

    @classmethod
    def fit(cls, values: np.ndarray, *, missing: bool = False) -> tuple[Numbers, np.ndarray]:
        median = None
        if missing:
            imputer = SimpleImputer(strategy="median", keep_empty_features=True)
            values, median = imputer.fit_transform(values), imputer.statistics_
        scaler = StandardScaler().fit(values)
        found = cls(scaler.mean_, scaler.scale_, median)
        return found, found(values)

    @property
    def width(self) -> int:
        return len(self.mean)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        if self.median is not None:
            values = np.where(np.isnan(values), self.median.astype(values.dtype), values)
        found: np.ndarray = (values - self.mean.astype(values.dtype)) / self.scale.astype(values.dtype)
        return found

    def stored(self) -> Stored:
        arrays = {"mean": self.mean, "scale": self.scale}
        return {}, arrays if self.median is None else {**arrays, "median": self.median}

    @classmethod
    def restore(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Numbers:
        found = cls(arrays["mean"], arrays["scale"], arrays.get("median"))
        check_shape("scale", found.scale, found.mean.shape)
        check_shape("mean", found.mean, (found.mean.size,))
        if found.median is not None:
            check_shape("median", found.median, found.mean.shape)
        return found


def check_shape(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
        raise ValueError(
            f"expected finite numbers of shape {shape} in {name!r}, but got {array.dtype} of shape {array.shape}."
        )


def are_strings(found: object) -> bool:
    return isinstance(found, list) and all(isinstance(entry, str) for entry in found)
