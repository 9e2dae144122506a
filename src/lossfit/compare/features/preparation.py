"""What turns rows to numbers, fitted on some rows and used on others: plain arrays and lists, so that it can be stored.

scikit-learn fits, and reads texts; the rest of the arithmetic is here, as in scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from sklearn.preprocessing import OneHotEncoder

from lossfit.compare.data.columns import MANY_VALUES
from lossfit.compare.errors import InputError
from lossfit.compare.features.scaling import Numbers, Part, Stored, are_strings, check_shape
from lossfit.compare.features.texts import Columns, HashedColumns

# How many standard deviations from the training rows others may be; single precision would overflow.
FURTHEST = 1e6


class Rows(NamedTuple):
    """What rows hold, by kind.

    Attributes:
        images: (N, height, width, channels).
        numeric: (N, .), missing values as NaN.
        categorical: (N, .), of strings.
        vectors: (N, .), of texts, by an embedding model.
        text, hashed: (N, .), of texts to be read by a vocabulary, or by the hashes of their words.
    """

    images: np.ndarray | None = None
    numeric: np.ndarray | None = None
    categorical: np.ndarray | None = None
    vectors: np.ndarray | None = None
    text: np.ndarray | None = None
    hashed: np.ndarray | None = None

    def take(self, rows: np.ndarray | slice) -> Rows:
        return Rows(*(None if part is None else part[rows] for part in self))


@dataclass(frozen=True)
class Preparation:
    """All kinds of columns to one matrix.

    Attributes:
        parts: by the field of :class:`Rows` that they read, in the order of the matrix.
    """

    parts: dict[str, Part]

    @classmethod
    def fit(cls, rows: Rows, *, missing: bool = False) -> tuple[Preparation, np.ndarray]:
        """Fit on training rows, whose matrix comes too.

        Args:
            rows: the training rows.
            missing: whether numbers may be missing, in these rows or in others.

        Raises:
            InputError: texts hold too few words.
        """
        found: dict[str, tuple[Part, np.ndarray]] = {}
        for name, values in rows._asdict().items():
            if values is not None:
                found[name] = KINDS[name].fit(values, **({"missing": missing} if name == "numeric" else {}))
        return cls({name: part for name, (part, _) in found.items()}), _joined([matrix for _, matrix in found.values()])

    @property
    def width(self) -> int:
        return sum(part.width for part in self.parts.values())

    def __call__(self, rows: Rows) -> np.ndarray:
        """The matrix (N, width) of any rows, in single precision."""
        return _joined([part(getattr(rows, name)) for name, part in self.parts.items()])

    def stored(self) -> Stored:
        each = {name: part.stored() for name, part in self.parts.items()}
        settings = {name: found for name, (found, _) in each.items()}
        arrays = {f"{name}.{key}": array for name, (_, own) in each.items() for key, array in own.items()}
        # safetensors writes the memory as it lies.
        return settings, {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    @classmethod
    def restore(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Preparation:
        """The inverse of :meth:`stored`.

        Raises:
            InputError: a part is unknown, or settings or arrays are missing or do not fit together.
        """
        parts: dict[str, Part] = {}
        for name, found in settings.items():
            if name not in KINDS:
                raise InputError(f"Expected parts named {', '.join(KINDS)}, but got {name!r}.")
            own = {key.removeprefix(f"{name}."): a for key, a in arrays.items() if key.startswith(f"{name}.")}
            try:
                parts[name] = KINDS[name].restore(found, own)
            except (KeyError, TypeError, ValueError) as error:
                told = f"{error} is missing" if isinstance(error, KeyError) else str(error)
                raise InputError(f"The preparation of {name} cannot be rebuilt: {told}") from error
        return cls(parts)


@dataclass(frozen=True)
class Categories:
    """A column of 0 and 1 for each category; at most 50 for a column of strings, the last one for the rare ones.

    Strings that were not there are taken as rare; where no category is rare, all columns are 0.

    Attributes:
        common: of each column, the categories with a column of their own.
        rare: of each column, those that share one.
    """

    common: list[list[str]]
    rare: list[list[str]] = field(default_factory=list)

    @classmethod
    def fit(cls, values: np.ndarray) -> tuple[Categories, np.ndarray]:
        encoder = OneHotEncoder(max_categories=MANY_VALUES, handle_unknown="infrequent_if_exist").fit(values)
        rare = [[] if found is None else found.tolist() for found in encoder.infrequent_categories_]
        known = [found.tolist() for found in encoder.categories_]
        common = [[c for c in every if c not in set(few)] for every, few in zip(known, rare, strict=True)]
        found = cls(common, rare)
        return found, found(values)

    @property
    def known(self) -> list[list[str]]:
        """The categories of each column."""
        return [[*common, *rare] for common, rare in zip(self.common, self.rare, strict=True)]

    @property
    def width(self) -> int:
        return sum(len(common) + bool(rare) for common, rare in zip(self.common, self.rare, strict=True))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        found = []
        for column, common, rare in zip(values.T, self.common, self.rare, strict=True):
            number = {category: i for i, category in enumerate(common)}
            other = len(common) if rare else -1
            at = np.array([number.get(value, other) for value in column], dtype=np.int64)
            found.append(at[:, None] == np.arange(len(common) + bool(rare)))
        return np.hstack(found).astype(np.float64)

    def stored(self) -> Stored:
        return {"common": self.common, "rare": self.rare}, {}

    @classmethod
    def restore(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Categories:
        for lists in (settings["common"], settings["rare"]):
            if not isinstance(lists, list) or not all(are_strings(found) for found in lists):
                raise ValueError("expected lists of strings for the columns.")
        if len(settings["common"]) != len(settings["rare"]):
            raise ValueError("expected as many columns of rare categories as of common ones.")
        return cls(settings["common"], settings["rare"])


@dataclass(frozen=True)
class Pixels:
    """Images flattened, each channel with a mean of 0 and a standard deviation of 1 over all training pixels.

    Whole channels are scaled: a pixel by itself may be the same in almost every image.

    Attributes:
        mean, spread: (channels,).
        size: height and width.
    """

    mean: np.ndarray
    spread: np.ndarray
    size: tuple[int, int]

    @classmethod
    def fit(cls, images: np.ndarray) -> tuple[Pixels, np.ndarray]:
        count = images[..., 0].size
        mean = images.sum((0, 1, 2), dtype=np.float64) / count
        squares = sum(np.square(image, dtype=np.float64).sum((0, 1)) for image in images)
        spread = np.sqrt(np.maximum(squares / count - mean**2, 0))
        spread[spread <= 1e-6 * np.abs(mean)] = 1.0  # the same everywhere, but for rounding
        found = cls(mean, spread, (images.shape[1], images.shape[2]))
        return found, found(images)

    @property
    def width(self) -> int:
        return self.size[0] * self.size[1] * len(self.mean)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        found: np.ndarray = (values - self.mean.astype(np.float32)) / self.spread.astype(np.float32)
        return found.reshape(len(values), -1)

    def stored(self) -> Stored:
        return {"size": list(self.size)}, {"mean": self.mean, "spread": self.spread}

    @classmethod
    def restore(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Pixels:
        height, width = (int(n) for n in settings["size"])
        found = cls(arrays["mean"], arrays["spread"], (height, width))
        check_shape("mean", found.mean, (found.mean.size,))
        check_shape("spread", found.spread, found.mean.shape)
        return found


KINDS: dict[str, Any] = {
    "images": Pixels,
    "numeric": Numbers,
    "categorical": Categories,
    "vectors": Numbers,
    "text": Columns,
    "hashed": HashedColumns,
}
"""The class of each part."""


def _joined(matrices: list[np.ndarray]) -> np.ndarray:
    return np.hstack(matrices).clip(-FURTHEST, FURTHEST).astype(np.float32)
