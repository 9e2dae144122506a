"""Rows to numbers: what is fitted is fitted on the training rows of each split."""

from __future__ import annotations

import numpy as np

from lossfit.compare.data import Dataset
from lossfit.compare.errors import InputError
from lossfit.compare.preparation import Preparation, Rows
from lossfit.compare.splits import Split

Matrices = tuple[np.ndarray, np.ndarray, np.ndarray]


def make(data: Dataset, splits: list[Split], embedding: str | None = None) -> list[Matrices]:
    """For each split the matrices (rows, features) of its training, validation and test rows, all of one width.

    Numbers are standardised, categories one-hot (at most 50 a column, the rest as one), text is TF-IDF of words and
    pairs reduced to at most 256 dimensions, or the vectors of an embedding model. Images are flattened, with a mean of
    0 and a standard deviation of 1 over all training pixels of a channel.
    """
    check(data, embedding)
    rows = rows_of(data, embedding)
    missing = rows.numeric is not None and bool(np.isnan(rows.numeric.sum()))
    found = [_make_one(rows, split, missing) for split in splits]
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


def _make_one(rows: Rows, split: Split, missing: bool) -> Matrices:
    prepare, train = Preparation.fit(rows.take(split.train), missing=missing)
    return train, prepare(rows.take(split.validation)), prepare(rows.take(split.test))


def rows_of(data: Dataset, embedding: str | None = None) -> Rows:
    """What the rows hold, by kind."""
    text = None if data.text is None or embedding else np.array(data.text, dtype=object)
    vectors = embed(data.text, embedding) if data.text is not None and embedding else None
    return Rows(
        data.images,
        data.numeric.to_numpy() if data.numeric.width else None,
        data.categorical.to_numpy() if data.categorical.width else None,
        vectors,
        text,
    )


def embed(text: list[str], model: str) -> np.ndarray:
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
