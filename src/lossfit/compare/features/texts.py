"""Texts to numbers: TF-IDF of words and pairs of words, reduced to at most 256 dimensions, and scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer, TfidfVectorizer

from lossfit.compare.errors import InputError
from lossfit.compare.features.scaling import Numbers, Stored, are_strings, check_shape

DIMENSIONS = 256
TERMS = 50_000
"""How many words and pairs count, at most."""
HASHES = 1 << 20
_FEW = "holds too few words to learn from"
_TFIDF: dict[str, Any] = {"sublinear_tf": True, "ngram_range": (1, 2)}


@dataclass(frozen=True)
class Reduced:
    """What follows TF-IDF.

    Attributes:
        scaling: of what comes out.
        components: (256, V), if V is above 256.
    """

    scaling: Numbers
    components: np.ndarray | None = None

    @classmethod
    def fit(cls, found: csr_matrix) -> tuple[Reduced, np.ndarray]:
        if found.shape[1] <= DIMENSIONS:
            scaling, matrix = Numbers.fit(found.toarray())
            return cls(scaling), matrix
        reduce = TruncatedSVD(min(DIMENSIONS, found.shape[0] - 1), random_state=0).fit(found)
        scaling, matrix = Numbers.fit(found @ reduce.components_.T)
        return cls(scaling, reduce.components_), matrix

    def __call__(self, found: csr_matrix) -> np.ndarray:
        return self.scaling(found.toarray() if self.components is None else found @ self.components.T)

    def arrays(self) -> dict[str, np.ndarray]:
        own = self.scaling.stored()[1]
        return own if self.components is None else {**own, "components": self.components}

    @classmethod
    def restore(cls, arrays: dict[str, np.ndarray], terms: int) -> Reduced:
        scaling, components = Numbers.restore({}, arrays), arrays.get("components")
        if components is not None:
            check_shape("components", components, (scaling.width, terms))
        elif scaling.width != terms:
            raise ValueError(f"expected {terms} means, but got {scaling.width}.")
        return cls(scaling, components)


@dataclass(frozen=True)
class Words:
    """A column by a vocabulary of the 50,000 most frequent words and pairs that two rows have.

    Attributes:
        vocabulary: words and pairs, in the order of ``idf``.
        idf: (V,).
        reduced: what follows.
    """

    vocabulary: list[str]
    idf: np.ndarray
    reduced: Reduced

    @classmethod
    def fit(cls, text: np.ndarray) -> tuple[Words, np.ndarray]:
        tfidf = TfidfVectorizer(**_TFIDF, min_df=2, max_features=TERMS)
        try:
            found = tfidf.fit_transform(text)
        except ValueError as error:
            raise InputError(f"{_FEW}: {error}") from error
        reduced, matrix = Reduced.fit(found)
        return cls(tfidf.get_feature_names_out().tolist(), tfidf.idf_, reduced), matrix

    def __call__(self, text: np.ndarray) -> np.ndarray:
        tfidf = TfidfVectorizer(**_TFIDF, vocabulary=self.vocabulary)
        tfidf.idf_ = self.idf
        return self.reduced(tfidf.transform(text))

    def stored(self) -> Stored:
        return {"vocabulary": self.vocabulary}, {"idf": self.idf, **self.reduced.arrays()}

    @classmethod
    def restore(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Words:
        words = settings["vocabulary"]
        if not are_strings(words) or len(set(words)) < len(words) or not words:
            raise ValueError("expected a vocabulary of distinct strings.")
        check_shape("idf", arrays["idf"], (len(words),))
        return cls(words, arrays["idf"], Reduced.restore(arrays, len(words)))


@dataclass(frozen=True)
class Hashed:
    """A column by the hashes of its words and pairs, in 2^20 places, the 50,000 most frequent that two rows have.

    No vocabulary is held: long texts take the time of reading them. Words of one hash are not told apart.

    Attributes:
        places: numbers of hashes (V,), growing.
        idf: (V,).
        reduced: what follows.
    """

    places: np.ndarray
    idf: np.ndarray
    reduced: Reduced

    @classmethod
    def fit(cls, text: np.ndarray) -> tuple[Hashed, np.ndarray]:
        counts = _hashes(text)
        rows = counts.getnnz(0)
        frequent = np.flatnonzero(rows >= 2)
        if not len(frequent):
            raise InputError(f"{_FEW}: no word is in two rows.")
        frequent = np.sort(frequent[np.argsort(-rows[frequent], kind="stable")[:TERMS]])
        tfidf = TfidfTransformer(sublinear_tf=True)
        reduced, matrix = Reduced.fit(tfidf.fit_transform(counts[:, frequent]))
        return cls(frequent, tfidf.idf_, reduced), matrix

    def __call__(self, text: np.ndarray) -> np.ndarray:
        tfidf = TfidfTransformer(sublinear_tf=True)
        tfidf.idf_ = self.idf
        return self.reduced(tfidf.transform(_hashes(text)[:, self.places]))

    def stored(self) -> Stored:
        return {"places": self.places.tolist()}, {"idf": self.idf, **self.reduced.arrays()}

    @classmethod
    def restore(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Hashed:
        places = np.array(settings["places"])
        if places.ndim != 1 or places.dtype.kind != "i" or (np.diff(places, prepend=-1) <= 0).any():
            raise ValueError("expected growing numbers of hashes.")
        if not len(places) or places[-1] >= HASHES:
            raise ValueError(f"expected numbers of hashes below {HASHES}.")
        check_shape("idf", arrays["idf"], places.shape)
        return cls(places, arrays["idf"], Reduced.restore(arrays, len(places)))


def _hashes(text: np.ndarray) -> csr_matrix:
    """How often each hash is in each row."""
    read = HashingVectorizer(n_features=HASHES, ngram_range=_TFIDF["ngram_range"], norm=None, alternate_sign=False)
    return read.transform(text)


@dataclass(frozen=True)
class Columns:
    """Columns of texts side by side, each by itself.

    Attributes:
        each: their parts.
    """

    each: list[Any]
    kind: ClassVar[Any] = Words

    @classmethod
    def fit(cls, values: np.ndarray) -> tuple[Columns, np.ndarray]:
        found = []
        for i, column in enumerate(values.T):
            try:
                found.append(cls.kind.fit(column))
            except InputError as error:
                which = "The text column" if values.shape[1] == 1 else f"Text column {i + 1} of {values.shape[1]}"
                raise InputError(f"{which} {error}") from error
        return cls([part for part, _ in found]), np.hstack([matrix for _, matrix in found])

    @property
    def width(self) -> int:
        return sum(part.reduced.scaling.width for part in self.each)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return np.hstack([part(column) for part, column in zip(self.each, values.T, strict=True)])

    def stored(self) -> Stored:
        each = [part.stored() for part in self.each]
        arrays = {f"{i}.{name}": array for i, (_, found) in enumerate(each) for name, array in found.items()}
        return {"columns": [settings for settings, _ in each]}, arrays

    @classmethod
    def restore(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Columns:
        each = []
        for i, found in enumerate(settings["columns"]):
            own = {name.removeprefix(f"{i}."): a for name, a in arrays.items() if name.startswith(f"{i}.")}
            each.append(cls.kind.restore(found, own))
        return cls(each)


class HashedColumns(Columns):
    """The same by hashes."""

    kind: ClassVar[Any] = Hashed
