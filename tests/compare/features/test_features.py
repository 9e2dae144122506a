"""Rows to numbers."""

import sys
import types

import numpy as np
import polars as pl
import pytest

from lossfit.compare.data.dataset import Dataset
from lossfit.compare.errors import InputError
from lossfit.compare.features import make, texts
from lossfit.compare.features.make import Parts

ROWS = 60
WORDS = ["red", "green", "blue", "old", "new", "fast", "slow", "warm", "cold", "dry"]


def split(train: int = 40, validation: int = 10, rows: int = ROWS, seed: int = 0) -> Parts:
    order = np.random.default_rng(seed).permutation(rows)
    return Parts(order[:train], order[train : train + validation], order[train + validation :])


def dataset(**columns: object) -> Dataset:
    if isinstance(columns.get("text"), list):
        columns["text"] = {"t": columns["text"]}
    columns = {name: pl.DataFrame(v) if isinstance(v, dict) else v for name, v in columns.items()}
    return Dataset("test", np.arange(ROWS) % 2, ["a", "b"], "", **columns)  # type: ignore[arg-type]


def numbers(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"small": rng.normal(5, 1e-3, ROWS), "large": rng.normal(-2e6, 1e5, ROWS), "count": rng.poisson(2.0, ROWS)}


def sentences(seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 6)) for _ in range(ROWS)]


def one(data: Dataset, rows: Parts, embedding: str | None = None, asked: str = "auto") -> make.Matrices:
    return make.make(data, [rows], make.reader(data, asked, embedding)[0])[0]


def test_rows_are_where_the_split_puts_them() -> None:
    rows, given = split(), numbers()
    for part, matrix in zip((rows.train, rows.held_out, rows.test), one(dataset(numeric=given), rows), strict=True):
        assert matrix.shape == (len(part), 3)
        assert matrix.dtype == np.float32
        for j, column in enumerate(given.values()):
            expected = (column[part] - column[rows.train].mean()) / column[rows.train].std()
            assert matrix[:, j] == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("kind", ["numeric", "text"])
def test_training_columns_are_standardised(kind: str) -> None:
    train, validation, _ = one(dataset(**{kind: numbers() if kind == "numeric" else sentences()}), split())
    assert train.mean(0) == pytest.approx(np.zeros(train.shape[1]), abs=1e-4)
    assert train.std(0) == pytest.approx(np.ones(train.shape[1]), rel=1e-3)
    assert np.abs(validation.mean(0)).max() > 1e-3  # theirs is not


def test_nothing_is_fitted_on_rows_held_out() -> None:
    rows = split()
    held_out = np.setdiff1d(np.arange(ROWS), rows.train)
    numeric, category, text = numbers(), np.array([f"c{i % 4}" for i in range(ROWS)], dtype=object), sentences()
    before = one(dataset(numeric=numeric, categorical={"category": category}, text=text), rows)
    numeric["small"][held_out[:3]] = np.nan
    numeric["large"][held_out] = 1e30
    numeric["count"] = numeric["count"].astype(float)
    numeric["count"][held_out] = -7
    category[held_out] = [f"unseen {i}" for i in range(len(held_out))]
    for i in held_out:
        text[i] = "words that nobody else has"
    after = one(dataset(numeric=numeric, categorical={"category": category}, text=text), rows)
    assert np.array_equal(before[0], after[0])
    assert not np.array_equal(before[1], after[1])
    assert all(np.isfinite(part).all() for part in after)


@pytest.mark.parametrize("value", [1e30, -3e38])
def test_outliers_held_out_stay_finite(value: float) -> None:
    given = {"x": np.random.default_rng(0).normal(size=ROWS), "same": np.zeros(ROWS)}
    rows = split()
    expected = one(dataset(numeric=given), rows)
    given["x"][rows.held_out[0]] = given["same"][rows.test[0]] = value
    found = one(dataset(numeric=given), rows)
    assert all(np.isfinite(part).all() for part in found)
    assert np.sign(found[1][0, 0]) == np.sign(value)
    assert abs(found[1][0, 0]) == 1e6
    assert np.array_equal(found[1][1:], expected[1][1:])


def test_categories_are_one_hot() -> None:
    colours, sizes = np.arange(ROWS) % 3, np.arange(ROWS) % 2
    given = {"colour": [["red", "green", "blue"][i] for i in colours], "size": [["s", "l"][i] for i in sizes]}
    rows = split()
    for part, matrix in zip((rows.train, rows.held_out, rows.test), one(dataset(categorical=given), rows), strict=True):
        assert matrix.shape == (len(part), 5)
        assert set(matrix.ravel()) == {0.0, 1.0}
        assert (matrix[:, :3].sum(1) == 1).all()
        assert (matrix[:, 3:].sum(1) == 1).all()
        assert len({(colours[i], sizes[i], *row) for i, row in zip(part, matrix, strict=True)}) <= 6


@pytest.mark.parametrize("distinct", [49, 50, 51, 80])
def test_a_column_has_at_most_50_categories(distinct: int) -> None:
    rows = 400
    values = np.array([f"v{i % distinct}" for i in range(rows)])
    values[:100] = "v0"
    data = Dataset(
        "test", np.zeros(rows, dtype=np.int64), ["a"], "", categorical=pl.DataFrame({"category": values.tolist()})
    )
    parts = split(300, 50, rows)
    train, _, _ = one(data, parts)
    assert train.shape[1] == min(50, len(set(values[parts.train])))
    assert (train.sum(1) == 1).all()
    meanings = [set(values[parts.train][train[:, j] == 1]) for j in range(train.shape[1])]
    shared = [m for m in meanings if len(m) > 1]
    assert len(shared) == (distinct > 50)
    assert all("v0" not in m for m in shared)  # the frequent one has a column of its own


def test_categories_not_seen_in_training_are_none_of_them() -> None:
    rows = split()
    values = np.array(["a", "b"] * (ROWS // 2), dtype=object)
    values[rows.test] = "c"
    _, _, test = one(dataset(categorical={"category": values}), rows)
    assert not test.any()


def test_all_splits_have_one_width() -> None:
    values = np.array(["a", "b"] * (ROWS // 2), dtype=object)
    first, second = split(seed=1), split(seed=2)
    only_second = np.setdiff1d(second.train, first.train)
    values[only_second[:2]] = ["c", "d"]
    data = dataset(categorical={"category": values}, numeric=numbers())
    alone, found = one(data, first), make.make(data, [first, second])
    assert alone[0].shape[1] == 5
    for parts in found:
        assert [m.shape[1] for m in parts] == [7, 7, 7]
    for padded, plain in zip(found[0], alone, strict=True):
        assert np.array_equal(padded[:, :5], plain)
        assert not padded[:, 5:].any()


def test_constant_columns_are_0_in_training() -> None:
    rows = split()
    given = {**numbers(), "same": np.full(ROWS, 7.5)}
    train, validation, test = one(dataset(numeric=given), rows)
    assert not train[:, 3].any()
    assert not validation[:, 3].any()
    assert not test[:, 3].any()


def test_missing_numbers_are_the_median_of_the_training_rows() -> None:
    rows, given = split(), numbers()
    column = given["large"]
    column[rows.train[:4]] = column[rows.test[0]] = np.nan
    median = np.nanmedian(column[rows.train])
    filled = np.where(np.isnan(column), median, column)[rows.train]
    train, _, test = one(dataset(numeric={"large": column}), rows)
    expected = (median - filled.mean()) / filled.std()
    assert [*train[:4, 0], test[0, 0]] == pytest.approx([expected] * 5, rel=1e-4)
    assert np.isfinite(train).all()


@pytest.mark.parametrize("where", ["everywhere", "in training"])
def test_columns_without_a_number_to_learn_from_are_finite(where: str) -> None:
    rows = split()
    column = np.full(ROWS, np.nan)
    if where == "in training":
        column[rows.test] = 3.0
    parts = one(dataset(numeric={**numbers(), "missing": column}), rows)
    assert all(part.shape[1] == 4 and np.isfinite(part).all() for part in parts)
    assert not parts[0][:, 3].any()


def test_text_becomes_what_its_words_say() -> None:
    rows, text = split(), sentences()
    text[rows.test[0]] = text[rows.train[0]]
    text[rows.test[1]] = text[rows.train[0]].upper()
    text[rows.test[2]] = ""
    train, _, test = one(dataset(text=text), rows)
    assert test[0] == pytest.approx(train[0], abs=1e-4)
    assert test[1] == pytest.approx(train[0], abs=1e-4)
    assert np.isfinite(test).all()
    assert not np.allclose(train[0], train[1], atol=1e-2)


def test_text_has_at_most_256_dimensions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert texts.DIMENSIONS == 256
    words = {w for i in split().train for w in sentences()[i].split()}
    assert len(words) <= one(dataset(text=sentences()), split())[0].shape[1] < 256
    monkeypatch.setattr(texts, "DIMENSIONS", 6)
    assert one(dataset(text=sentences()), split())[0].shape[1] == 6


def test_the_columns_of_all_kinds_stand_side_by_side() -> None:
    data = dataset(numeric=numbers(), categorical={"c": ["a", "b"] * (ROWS // 2)}, text=sentences())
    train, _, _ = one(data, split())
    assert np.array_equal(train[:, :3], one(dataset(numeric=numbers()), split())[0])
    assert set(train[:, 3:5].ravel()) == {0.0, 1.0}
    assert np.array_equal(train[:, 5:], one(dataset(text=sentences()), split())[0])


@pytest.mark.parametrize(
    "text",
    [[f"one word{i}" for i in range(60)], ["one", "two"] * 30, ["same words"] * 60],
    ids=["one", "two", "equal"],
)
def test_few_words_are_enough(text: list[str]) -> None:
    assert all(part.shape[1] >= 1 and np.isfinite(part).all() for part in one(dataset(text=text), split()))


@pytest.mark.parametrize("text", [[""] * ROWS, ["?!"] * ROWS, [f"word{i}" for i in range(ROWS)]])
def test_text_without_words_is_an_error(text: list[str]) -> None:
    with pytest.raises(InputError, match="The text column holds too few words to learn from"):
        one(dataset(text=text), split())


class Encoder:
    """Stands in for an embedding model."""

    def __init__(self, name: str) -> None:
        if name != "known":
            raise OSError("no such model")

    def encode(self, text: list[str], normalize_embeddings: bool) -> np.ndarray:
        assert normalize_embeddings
        return np.array([[len(t), t.count("e"), t.count("o")] for t in text], dtype=float)


def test_an_embedding_takes_the_place_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", types.SimpleNamespace(SentenceTransformer=Encoder))
    text, rows = sentences(), split()
    train, _, test = one(dataset(text=text), rows, "known")
    lengths = np.array([len(t) for t in text])
    fit = lengths[rows.train].mean(), lengths[rows.train].std()
    assert train.shape[1] == 3
    assert train[:, 0] == pytest.approx((lengths[rows.train] - fit[0]) / fit[1], abs=1e-4)
    assert test[:, 0] == pytest.approx((lengths[rows.test] - fit[0]) / fit[1], abs=1e-4)
    with pytest.raises(InputError, match="The embedding model 'other' cannot be loaded: no such model"):
        one(dataset(text=text), rows, "other")


def test_an_embedding_needs_text_and_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--embedding needs a text column, named by --text"):
        one(dataset(numeric=numbers()), split(), "known")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(InputError, match=r"Sentence vectors need an extra: pip install 'lossfit\[embed\]'"):
        one(dataset(text=sentences()), split(), "known")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_images_are_scaled_by_channel_and_flattened(channels: int, kind: type) -> None:
    rng = np.random.default_rng(0)
    images = (rng.integers(0, 200, (ROWS, 4, 3, channels)) + 10 * np.arange(channels)).astype(kind)
    rows = split()
    train = images[rows.train].astype(float)
    mean, spread = train.mean((0, 1, 2)), train.std((0, 1, 2))
    for part, matrix in zip((rows.train, rows.held_out, rows.test), one(dataset(images=images), rows), strict=True):
        assert matrix.dtype == np.float32
        expected = ((images[part] - mean) / spread).reshape(len(part), 12 * channels)
        assert matrix == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 7.0])
def test_a_channel_of_one_value_is_0(value: float) -> None:
    images = np.full((ROWS, 4, 3, 1), value, dtype=np.float32)
    assert np.abs(one(dataset(images=images), split())[0]).max() < 1e-5


def test_single_precision_stays() -> None:
    x = np.random.default_rng(0).normal(3.0, 2.0, (ROWS, 4)).astype(np.float32)
    rows = split()
    found = one(dataset(numeric=pl.DataFrame(x, schema=list("abcd"))), rows)
    expected = (x[rows.test] - x[rows.train].mean(0)) / x[rows.train].std(0)
    assert found[2] == pytest.approx(expected, abs=1e-5)
