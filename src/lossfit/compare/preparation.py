"""What turns rows to numbers, fitted on some rows and used on others: plain arrays and lists, so that it can be stored.

scikit-learn fits, and reads texts; the rest of the arithmetic is here, as in scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from lossfit.compare.columns import MANY_VALUES
from lossfit.compare.errors import InputError

TEXT_DIMENSIONS = 256
# How many standard deviations from the training rows others may be; single precision would overflow.
FURTHEST = 1e6

Stored = tuple[dict[str, Any], dict[str, np.ndarray]]
"""What a part consists of: settings for JSON, and arrays."""


class Rows(NamedTuple):
    """What rows hold, by kind.

    Attributes:
        images: (N, height, width, channels).
        numeric: (N, .), missing values as NaN.
        categorical: (N, .), of strings.
        vectors: (N, .), of texts, by an embedding model.
        text: (N,), of strings.
    """

    images: np.ndarray | None = None
    numeric: np.ndarray | None = None
    categorical: np.ndarray | None = None
    vectors: np.ndarray | None = None
    text: np.ndarray | None = None

    def take(self, rows: np.ndarray | slice) -> Rows:
        return Rows(*(None if part is None else part[rows] for part in self))


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
        if rows.images is not None:
            found["images"] = Pixels.fit(rows.images)
        if rows.numeric is not None:
            found["numeric"] = Numbers.fit(rows.numeric, missing=missing)
        if rows.categorical is not None:
            found["categorical"] = Categories.fit(rows.categorical)
        if rows.vectors is not None:
            found["vectors"] = Numbers.fit(rows.vectors)
        if rows.text is not None:
            found["text"] = Texts.fit(rows.text)
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
        return settings, {f"{name}.{key}": a for name, (_, arrays) in each.items() for key, a in arrays.items()}

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
        _check_shape("scale", found.scale, found.mean.shape)
        _check_shape("mean", found.mean, (found.mean.size,))
        if found.median is not None:
            _check_shape("median", found.median, found.mean.shape)
        return found


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
            if not isinstance(lists, list) or not all(_are_strings(found) for found in lists):
                raise ValueError("expected lists of strings for the columns.")
        if len(settings["common"]) != len(settings["rare"]):
            raise ValueError("expected as many columns of rare categories as of common ones.")
        return cls(settings["common"], settings["rare"])


@dataclass(frozen=True)
class Texts:
    """TF-IDF of words and pairs of words, reduced to at most 256 dimensions, and scaled.

    Attributes:
        vocabulary: words and pairs, in the order of ``idf``.
        idf: (V,).
        scaling: of what comes out.
        components: (dimensions, V), if V is above 256.
    """

    vocabulary: list[str]
    idf: np.ndarray
    scaling: Numbers
    components: np.ndarray | None = None

    @classmethod
    def fit(cls, text: np.ndarray) -> tuple[Texts, np.ndarray]:
        tfidf = TfidfVectorizer(**_TFIDF, min_df=2, max_features=50_000)
        try:
            found = tfidf.fit_transform(text)
        except ValueError as error:
            raise InputError(f"The text column holds too few words to learn from: {error}") from error
        words, idf = tfidf.get_feature_names_out().tolist(), tfidf.idf_
        if found.shape[1] <= TEXT_DIMENSIONS:
            scaling, matrix = Numbers.fit(found.toarray())
            return cls(words, idf, scaling), matrix
        reduce = TruncatedSVD(min(TEXT_DIMENSIONS, found.shape[0] - 1), random_state=0).fit(found)
        scaling, matrix = Numbers.fit(found @ reduce.components_.T)
        return cls(words, idf, scaling, reduce.components_), matrix

    @property
    def width(self) -> int:
        return self.scaling.width

    def __call__(self, values: np.ndarray) -> np.ndarray:
        tfidf = TfidfVectorizer(**_TFIDF, vocabulary=self.vocabulary)
        tfidf.idf_ = self.idf
        found = tfidf.transform(values)
        return self.scaling(found.toarray() if self.components is None else found @ self.components.T)

    def stored(self) -> Stored:
        arrays = {"idf": self.idf, **self.scaling.stored()[1]}
        if self.components is not None:
            arrays["components"] = self.components
        return {"vocabulary": self.vocabulary}, arrays

    @classmethod
    def restore(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Texts:
        words, scaling = settings["vocabulary"], Numbers.restore({}, arrays)
        if not _are_strings(words) or len(set(words)) < len(words) or not words:
            raise ValueError("expected a vocabulary of distinct strings.")
        found = cls(words, arrays["idf"], scaling, arrays.get("components"))
        _check_shape("idf", found.idf, (len(words),))
        if found.components is not None:
            _check_shape("components", found.components, (scaling.width, len(words)))
        elif scaling.width != len(words):
            raise ValueError(f"expected {len(words)} means, but got {scaling.width}.")
        return found


_TFIDF: dict[str, Any] = {"sublinear_tf": True, "ngram_range": (1, 2)}


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
        _check_shape("mean", found.mean, (found.mean.size,))
        _check_shape("spread", found.spread, found.mean.shape)
        return found


KINDS: dict[str, Any] = {
    "images": Pixels,
    "numeric": Numbers,
    "categorical": Categories,
    "vectors": Numbers,
    "text": Texts,
}
"""The class of each part."""


def _joined(matrices: list[np.ndarray]) -> np.ndarray:
    return np.hstack(matrices).clip(-FURTHEST, FURTHEST).astype(np.float32)


def _check_shape(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
        raise ValueError(
            f"expected finite numbers of shape {shape} in {name!r}, but got {array.dtype} of shape {array.shape}."
        )


def _are_strings(found: object) -> bool:
    return isinstance(found, list) and all(isinstance(entry, str) for entry in found)
