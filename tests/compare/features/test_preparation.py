"""Rows to numbers in plain arrays: as scikit-learn has it, and the same after a way through files."""

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from lossfit.compare.data import columns
from lossfit.compare.errors import InputError
from lossfit.compare.features import texts as reading
from lossfit.compare.features.preparation import Preparation, Rows

ROWS, NEW = 80, 30


def numbers(rows: int, seed: int, kind: type) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(rows, 4)) * [1, 1e4, 1e-4, 0] + [0, -3e5, 7, 2.5]
    return found.astype(kind)


def strings(rows: int, seed: int, spread: float = 9) -> np.ndarray:
    """Two columns: one of few categories, one of too many to have a column each; new rows have others."""
    rng = np.random.default_rng(seed)
    few = np.array(["a", "ü", " b", "d"], dtype=object)[rng.integers(0, 3 + (seed > 0), rows)]
    many = np.array([f"c{int(v)}" for v in rng.exponential(spread, rows)], dtype=object)
    return np.stack([few, many], 1)


def texts(rows: int, seed: int, words: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = [[" ".join(f"Wort{k}é" for k in rng.integers(0, words, 7))] for _ in range(rows)]
    return np.array(found, dtype=object)


def both(rows: Rows, *, missing: bool = False) -> tuple[Preparation, Preparation, np.ndarray]:
    """Fitted, the same after a way through JSON and safetensors, and the matrix of the training rows."""
    fitted, matrix = Preparation.fit(rows, missing=missing)
    settings, arrays = fitted.stored()
    return fitted, Preparation.restore(json.loads(json.dumps(settings)), load(save(arrays))), matrix


def check(rows: Rows, new: Rows, steps: Any, name: str, *, missing: bool = False) -> None:
    fitted, restored, matrix = both(rows, missing=missing)
    steps.fit(getattr(rows, name))
    for part in (rows, new):
        expected = np.asarray(steps.transform(getattr(part, name))).astype(np.float32)
        assert fitted(part) == pytest.approx(expected, rel=1e-6, abs=1e-6)
        assert np.array_equal(restored(part), fitted(part))
    assert np.array_equal(matrix, fitted(rows))
    assert restored.width == fitted.width == matrix.shape[1]


@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize("missing", [False, True])
def test_numbers_are_standardised_as_by_scikit_learn(kind: type, missing: bool) -> None:
    rows, new = numbers(ROWS, 0, kind), numbers(NEW, 1, kind)
    steps = [StandardScaler()]
    if missing:
        rows[::7, 1] = new[3] = rows[:, 2] = np.nan
        steps.insert(0, SimpleImputer(strategy="median", keep_empty_features=True))
    check(Rows(numeric=rows), Rows(numeric=new), make_pipeline(*steps), "numeric", missing=missing)


@pytest.mark.filterwarnings("ignore:Found unknown categories")
def test_categories_are_those_of_scikit_learn() -> None:
    rows, new = strings(ROWS, 0), strings(NEW, 1)
    assert len(set(rows[:, 1])) < columns.MANY_VALUES
    steps = OneHotEncoder(max_categories=50, handle_unknown="infrequent_if_exist", sparse_output=False)
    check(Rows(categorical=rows), Rows(categorical=new), steps, "categorical")
    assert "d" in new[:, 0]
    many, new = strings(6 * ROWS, 0, 40), strings(6 * NEW, 1, 40)
    assert len(set(many[:, 1])) > columns.MANY_VALUES
    check(Rows(categorical=many), Rows(categorical=new), steps, "categorical")


@pytest.mark.parametrize("words", [20, 60])
def test_texts_are_those_of_scikit_learn(words: int) -> None:
    rows, new = texts(ROWS, 0, words), texts(NEW, 1, 2 * words)
    ravel = FunctionTransformer(lambda column: column[:, 0])
    tfidf = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2, max_features=50_000)
    steps = [ravel, tfidf, TruncatedSVD(12, random_state=0), StandardScaler()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "DIMENSIONS", 12)
        check(Rows(text=rows), Rows(text=new), make_pipeline(*steps), "text")


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_pixels_are_scaled_by_channel(kind: type) -> None:
    rng = np.random.default_rng(0)
    rows, new = ((rng.integers(0, 99, (n, 5, 4, 3)) + np.array([0, 50, 100])).astype(kind) for n in (ROWS, NEW))
    fitted, restored, matrix = both(Rows(images=rows))
    mean, spread = (f(rows.astype(float), axis=(0, 1, 2)) for f in (np.mean, np.std))
    assert matrix == pytest.approx(((rows - mean) / spread).reshape(ROWS, -1), abs=1e-5)
    assert fitted(Rows(images=new)) == pytest.approx(((new - mean) / spread).reshape(NEW, -1), abs=1e-5)
    assert np.array_equal(restored(Rows(images=new)), fitted(Rows(images=new)))


def test_all_kinds_come_back_side_by_side() -> None:
    words, vectors = texts(ROWS, 0, 9), numbers(ROWS, 2, np.float32)
    rows = Rows(None, numbers(ROWS, 0, float), strings(ROWS, 0), vectors, np.hstack([words, words]), words)
    fitted, restored, _ = both(rows)
    assert list(restored.parts) == ["numeric", "categorical", "vectors", "text", "hashed"]
    assert np.array_equal(restored(rows), fitted(rows))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s, a: s.update(colours={}), "Expected parts named images, numeric, .*, but got 'colours'"),
        (lambda s, a: a.pop("numeric.mean"), "preparation of numeric cannot be rebuilt: 'mean' is missing"),
        (
            lambda s, a: a.update({"numeric.scale": np.ones(3)}),
            r"shape \(4,\) in 'scale', but got float64 of shape \(3,\)",
        ),
        (lambda s, a: a.update({"numeric.mean": np.full(4, np.nan)}), "finite numbers of shape"),
        (lambda s, a: s["categorical"].pop("rare"), "'rare' is missing"),
        (lambda s, a: s["categorical"].update(common=[["a"], [1]]), "lists of strings"),
        (lambda s, a: s["categorical"]["rare"].pop(), "as many columns of rare categories"),
        (lambda s, a: s["text"]["columns"][0]["vocabulary"].pop(), r"shape \(\d+,\) in 'idf'"),
        (lambda s, a: s["text"]["columns"][0].update(vocabulary=["a", "a"]), "distinct strings"),
        (lambda s, a: a.update({"text.0.mean": np.ones(2), "text.0.scale": np.ones(2)}), "expected .* but got 2"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: Any, told: str) -> None:
    rows = Rows(None, numbers(ROWS, 0, float), strings(ROWS, 0), None, texts(ROWS, 0, 9))
    settings, arrays = Preparation.fit(rows)[0].stored()
    settings = json.loads(json.dumps(settings))
    change(settings, arrays)
    with pytest.raises(InputError, match=told):
        Preparation.restore(settings, arrays)
