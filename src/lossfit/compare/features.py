"""Rows to numbers: what is fitted is fitted on the training rows of each split."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from lossfit.compare.columns import MANY_VALUES
from lossfit.compare.data import Dataset
from lossfit.compare.errors import InputError
from lossfit.compare.splits import Split

TEXT_DIMENSIONS = 256
# How many standard deviations from the training rows others may be; single precision would overflow.
FURTHEST = 1e6

Matrices = tuple[np.ndarray, np.ndarray, np.ndarray]


def make(data: Dataset, splits: list[Split], embedding: str | None = None) -> list[Matrices]:
    """For each split the matrices (rows, features) of its training, validation and test rows, all of one width.

    Numbers are standardised, categories one-hot (at most 50 a column, the rest as one), text is TF-IDF of words and
    pairs reduced to at most 256 dimensions, or the vectors of an embedding model. Images are flattened, with a mean of
    0 and a standard deviation of 1 over all training pixels of a channel.
    """
    check(data, embedding)
    embedded = _embed(data.text, embedding) if data.text is not None and embedding else None
    found = [_make_one(data, split, embedded) for split in splits]
    # A split may not meet every category, or have words for every dimension.
    width = max(train.shape[1] for train, _, _ in found)
    for i, parts in enumerate(found):
        if parts[0].shape[1] < width:
            train, validation, test = (np.pad(m, ((0, 0), (0, width - m.shape[1]))) for m in parts)
            found[i] = train, validation, test
    return found


def check(data: Dataset, embedding: str | None) -> None:
    """Raise InputError if there is no text to embed."""
    if embedding and data.text is None:
        raise InputError("--embedding needs a text column, named by --text.")


def _make_one(data: Dataset, split: Split, embedded: np.ndarray | None) -> Matrices:
    parts = []
    if data.images is not None:
        parts.append(_pixels(data.images, split))
    if data.numeric.width:
        numbers = data.numeric.to_numpy()
        scale: Any = StandardScaler()
        if np.isnan(numbers.sum()):
            scale = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), scale)
        parts.append(_fit(scale, numbers, split))
    if data.categorical.width:
        one_hot = OneHotEncoder(max_categories=MANY_VALUES, handle_unknown="infrequent_if_exist", sparse_output=False)
        parts.append(_fit(one_hot, data.categorical.to_numpy(), split))
    if embedded is not None:
        parts.append(_scaled(*(embedded[rows] for rows in (split.train, split.validation, split.test))))
    elif data.text is not None:
        parts.append(_text(data.text, split))
    train, validation, test = (
        np.hstack(part).clip(-FURTHEST, FURTHEST).astype(np.float32) for part in zip(*parts, strict=True)
    )
    return train, validation, test


def _pixels(images: np.ndarray, split: Split) -> Matrices:
    """Whole channels are scaled: a pixel by itself may be the same in almost every image."""
    train = images[split.train]
    count = train[..., 0].size
    mean = train.sum((0, 1, 2), dtype=np.float64) / count
    squares = sum(np.square(image, dtype=np.float64).sum((0, 1)) for image in train)
    spread = np.sqrt(np.maximum(squares / count - mean**2, 0))
    spread[spread <= 1e-6 * np.abs(mean)] = 1.0  # the same everywhere, but for rounding

    def scaled(part: np.ndarray) -> np.ndarray:
        found: np.ndarray = (part - mean.astype(np.float32)) / spread.astype(np.float32)
        return found.reshape(len(part), -1)

    return scaled(train), scaled(images[split.validation]), scaled(images[split.test])


def _text(text: list[str], split: Split) -> Matrices:
    train, validation, test = ([text[i] for i in rows] for rows in (split.train, split.validation, split.test))
    tfidf = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2, max_features=50_000)
    try:
        found = tfidf.fit_transform(train)
    except ValueError as error:
        raise InputError(f"The text column holds too few words to learn from: {error}") from error
    if found.shape[1] <= TEXT_DIMENSIONS:
        return _scaled(found.toarray(), *(tfidf.transform(part).toarray() for part in (validation, test)))
    reduce = TruncatedSVD(min(TEXT_DIMENSIONS, found.shape[0] - 1), random_state=0)
    return _scaled(
        reduce.fit_transform(found), *(reduce.transform(tfidf.transform(part)) for part in (validation, test))
    )


def _embed(text: list[str], model: str) -> np.ndarray:
    """Vectors of an embedding model: a name or path for sentence-transformers."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise InputError("--embedding needs an extra: pip install 'lossfit[embed]'.") from error
    try:
        encoder = SentenceTransformer(model)
    except Exception as error:
        raise InputError(f"The embedding model {model!r} cannot be loaded: {error}") from error
    return np.asarray(encoder.encode(text, normalize_embeddings=True), dtype=np.float32)


def _scaled(train: np.ndarray, validation: np.ndarray, test: np.ndarray) -> Matrices:
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), scaler.transform(validation), scaler.transform(test)


def _fit(transform: Any, whole: np.ndarray, split: Split) -> Matrices:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found unknown categories")  # they count as infrequent
        train = transform.fit_transform(whole[split.train])
        return train, transform.transform(whole[split.validation]), transform.transform(whole[split.test])
