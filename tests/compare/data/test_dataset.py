"""Sources of data."""

import datetime
import decimal
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lossfit.compare.data import dataset
from lossfit.compare.data.dataset import Dataset, load, table
from lossfit.compare.data.sources import bundled, tables
from lossfit.compare.errors import InputError

CSV = "x,word,y\n1.5,red,b\n-2,blue,a\n0,red,b\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def to(content: str | bytes, name: str = "some table.csv") -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return to


def read(target: list[object] | pl.Series, **columns: object) -> Dataset:
    """A table of this target, with a column of numbers where no other is given."""
    return table(pl.DataFrame({**(columns or {"x": range(len(target))}), "y": target}), "test", "y")


def test_a_csv_file(write: Callable[..., str]) -> None:
    path = write(CSV)
    found = load(path, "y")
    assert (found.name, found.rows, found.classes) == ("some table", 3, ["a", "b"])
    assert found.labels.tolist() == [1, 0, 1]
    assert found.labels.dtype == np.int64
    assert found.counts.tolist() == [1, 2]
    assert found.numeric.to_dict(as_series=False) == {"x": [1.5, -2.0, 0.0]}
    assert found.categorical.to_dict(as_series=False) == {"word": ["red", "blue", "red"]}
    assert (found.text.width, found.votes, found.notes) == (0, None, [])


def test_a_parquet_file_holds_the_same(tmp_path: Path, write: Callable[..., str]) -> None:
    path = tmp_path / "some table.parquet"
    plain = load(write(CSV), "y")
    pl.read_csv(CSV.encode()).write_parquet(path)
    found = load(str(path), "y")
    assert found.labels.tolist() == plain.labels.tolist()
    assert found.numeric.equals(plain.numeric)
    assert found.categorical.equals(plain.categorical)
    assert (found.name, found.classes) == (plain.name, plain.classes)


def test_the_fingerprint_is_of_the_content(write: Callable[..., str]) -> None:
    one, other, again = write(CSV, "1.csv"), write(CSV + "3,red,a\n", "2.csv"), write(CSV, "3.csv")
    assert load(one, "y").fingerprint == load(again, "word").fingerprint
    assert load(one, "y").fingerprint != load(other, "y").fingerprint


def test_types_of_columns() -> None:
    frame = pl.DataFrame(
        {
            "integer": [1, 2, 3],
            "small": pl.Series([1, 2, 3], dtype=pl.UInt8),
            "flag": [True, False, True],
            "decimal": [decimal.Decimal("1.5"), decimal.Decimal("2"), decimal.Decimal("1.5")],
            "day": [datetime.date(2020, 1, 2)] * 3,
            "list": [[1], [2], [3]],
            "nothing": [None] * 3,
            "string": ["u", "v", "u"],
            "kind": pl.Series(["p", "q", "p"], dtype=pl.Categorical),
            "level": pl.Series(["low", "high", "low"], dtype=pl.Enum(["low", "high"])),
            "y": [0, 1, 0],
        }
    )
    found = table(frame, "test", "y")
    assert found.numeric.to_dict(as_series=False) == {
        "integer": [1.0, 2.0, 3.0],
        "small": [1.0, 2.0, 3.0],
        "flag": [1.0, 0.0, 1.0],
        "decimal": [1.5, 2.0, 1.5],
        "list[0]": [1.0, 2.0, 3.0],
    }
    assert set(found.numeric.dtypes) == {pl.Float64}
    assert found.categorical.columns == ["string", "kind", "level"]
    assert set(found.categorical.dtypes) == {pl.String}
    assert found.notes == [
        "Left out: the column 'day', the same in every row.",
        "Left out: the column 'nothing', empty.",
    ]


@pytest.mark.parametrize(
    ("target", "classes", "labels"),
    [
        ([3, -1, 3, 10], ["-1", "3", "10"], [1, 0, 1, 2]),
        ([2.0, 1.0, 10.0], ["1", "2", "10"], [1, 0, 2]),
        ([True, False, True], ["False", "True"], [1, 0, 1]),
        (["10", "9", "é", ""], ["", "10", "9", "é"], [1, 2, 3, 0]),
        (pl.Series(["q", "p", "q"], dtype=pl.Categorical), ["p", "q"], [1, 0, 1]),
        (pl.Series(["low", "high", "low"], dtype=pl.Enum(["low", "high"])), ["low", "high"], [0, 1, 0]),
        ([datetime.date(2021, 1, 1), datetime.date(2020, 1, 1)], ["2020-01-01", "2021-01-01"], [1, 0]),
        ([decimal.Decimal("2"), decimal.Decimal("1")], ["1", "2"], [1, 0]),
    ],
    ids=["integers", "floats", "booleans", "strings", "categories", "enum", "dates", "decimals"],
)
def test_targets(target: list[object], classes: list[str], labels: list[int]) -> None:
    found = read(target)
    assert found.classes == classes
    assert found.labels.tolist() == labels


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([1, None, 2, None], "The target 'y' is missing in 2 rows, the first of them row 2 of the data."),
        ([1.0, 2.0, float("nan")], "The target 'y' is missing in 1 rows, the first of them row 3 of the data."),
        ([None, None], "The target 'y' is missing in 2 rows, the first of them row 1 of the data."),
        ([0.5, 1.0, 2.0, 0.5], "The target 'y' holds fractions (3 distinct values): lossfit compares classifiers"),
        ([decimal.Decimal("0.5"), decimal.Decimal("1")], "The target 'y' holds fractions (2 distinct values)"),
        ([1.0, float("inf"), 2.0], "The target 'y' holds inf, which is no class."),
        ([1.0, -1e300, 2.0], "The target 'y' holds -1e+300, which is no class."),
        ([4, 4, 4], "The target 'y' has one class only, '4'; there is nothing to tell apart."),
        ([[1], [2]], "Expected the target 'y' to hold classes, but it is List(Int64)."),
        ([{"a": 1}, {"a": 2}], "Expected the target 'y' to hold classes, but it is Struct({'a': Int64})."),
    ],
)
def test_targets_that_are_no_classes(target: list[object], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        read(target)


def test_a_text_column_is_text_and_nothing_else() -> None:
    frame = pl.DataFrame({"t": ["one two", None, ""], "x": [1, 2, 3], "y": [0, 1, 0]})
    found = table(frame, "test", "y", text="t")
    assert found.text["t"].to_list() == ["one two", "", ""]
    assert found.categorical.width == 0
    assert found.numeric.columns == ["x"]
    assert table(frame, "test", "y", text="t", drop=("x",)).numeric.width == 0


@pytest.mark.parametrize("column", [[1, 2, 3], [True, False, True], [None] * 3])
def test_a_text_column_holds_strings(column: list[object]) -> None:
    frame = pl.DataFrame({"t": column, "y": [0, 1, 0]})
    with pytest.raises(InputError, match=f"Expected the column 't' to hold text, but it is {frame['t'].dtype}"):
        table(frame, "test", "y", text="t")


def test_columns_left_out() -> None:
    frame = pl.DataFrame({"a": [1, 2], "b": [3, None], "c": ["u", "v"], "y": [0, 1]})
    found = table(frame, "test", "y", drop=("b", "c", "b"))
    assert (found.numeric.columns, found.categorical.columns, found.notes) == (["a"], [], [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": None}, "Name the column with the classes by --target. The columns are: x, t, y."),
        ({"target": "z"}, "--target: there is no column 'z'. The columns are: x, t, y."),
        ({"text": "z"}, "--text: there is no column 'z'. The columns are: x, t, y."),
        ({"drop": ("x", "z")}, "--drop: there is no column 'z'. The columns are: x, t, y."),
        ({"text": "y"}, "--text: the column 'y' is named by --target already."),
        ({"drop": ("y",)}, "--drop: the column 'y' is named by --target already."),
        ({"text": "t", "drop": ("t",)}, "--drop: the column 't' is named by --text already."),
        ({"drop": ("x", "t")}, "No column is left to learn from. The columns are: x, t, y; the target is 'y'."),
    ],
)
def test_names_of_columns(options: dict[str, object], message: str, write: Callable[..., str]) -> None:
    path = write("x,t,y\n1,one,0\n2,two,1\n")
    with pytest.raises(InputError, match=re.escape(message)):
        load(path, **{"target": "y", **options})  # type: ignore[arg-type]


def test_columns_of_other_types_alone_are_not_enough() -> None:
    with pytest.raises(InputError, match="No column is left to learn from"):
        read([0, 1], day=[datetime.date(2020, 1, 1)] * 2)


@pytest.mark.parametrize("value", ["inf", "-inf", "1e39", "1e400"])
def test_numbers_are_finite(value: str, write: Callable[..., str]) -> None:
    path = write(f"x,z,y\n1,1,a\n,{value},b\n3,{value},b\n")
    for impute in (False, True):
        with pytest.raises(InputError, match="The column 'z' is infinite in 2 rows, the first of them row 2 of"):
            load(path, "y", impute=impute)


def test_missing_values(write: Callable[..., str]) -> None:
    path = write("x,z,c,y\n1,1,u,a\nNaN,2,,b\n,3,v,a\n2,4,v,b\n")
    message = "Values are missing in 'x' (2 rows, among them 'NaN' (1)), 'c' (1 rows). Pass --impute to fill them in"
    with pytest.raises(InputError, match=re.escape(message)):
        load(path, "y")
    found = load(path, "y", impute=True)
    assert found.categorical["c"].to_list() == ["u", "missing", "v", "v"]
    x = found.numeric["x"].to_numpy()
    assert x[0] == 1.0
    assert np.isnan(x[1:3]).all()  # the median is known when the rows are split
    assert load(path, "y", drop=("x", "c")).numeric.columns == ["z"]


@pytest.mark.parametrize(("rows", "distinct", "allowed"), [(60, 50, True), (60, 51, False), (200, 100, True)])
def test_strings_of_too_many_kinds_are_not_categories(rows: int, distinct: int, allowed: bool) -> None:
    column = [f"v{i % distinct}" for i in range(rows)]
    target = [i % 2 for i in range(rows)]
    if allowed:
        assert read(target, c=column).categorical.columns == ["c"]
        return
    message = f"The column 'c' holds {distinct} distinct strings in {rows} rows. Pass --text c to read it as text, or"
    with pytest.raises(InputError, match=message):
        read(target, c=column)
    assert table(pl.DataFrame({"c": column, "y": target}), "test", "y", text="c").text["c"].to_list() == column


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n\n", "holds blank lines alone"),
        ("x,y\n", "has a header but no rows"),
        ("x,y", "has a header but no rows"),
        ("x,y,x,z,z\n1,2,3,4,5\n", "has several columns of the same name: 'x', 'z'"),
        ('\n\n"x",y,x\n1,2,3\n', "has several columns of the same name: 'x'"),
        ("x,y\n1,a\n2,b,c\n", "cannot be read as .csv: line 3 has 3 fields, where the header has 2: '2,b,c'"),
        ("жизнь,y\n1,a\n2,b\n".encode("cp1251"), r"is not in UTF-8 \(see line 1\), and its encoding cannot be told"),
        (b"x,y\n" + 20_000 * b"1,a\n" + b"2,\xe9\x81\n", r"is not in UTF-8 \(see line 20002\)"),
        ("x,y\n1,a\n".encode("utf-16")[:-1], "cannot be read as utf-16: "),
        (b"x" * 200_000 + b",y\n1,a,b\n1,a\n", "cannot be read as .csv: line 2 has 3 fields"),
    ],
    ids=["empty", "blank", "header", "no end", "twice", "quoted", "ragged", "cyrillic", "late", "utf-16", "long"],
)
def test_csv_files_that_are_none(content: str | bytes, message: str, write: Callable[..., str]) -> None:
    with pytest.raises(InputError, match=rf"The file '.*some table\.csv' {message}") as caught:
        load(write(content), "y")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + CSV,
        CSV.replace("\n", "\r\n"),
        CSV.rstrip(),
        CSV.replace("y", '"y"'),
        CSV.replace(",", ";"),
        CSV.replace(",", ";").replace(".", ","),
        CSV.replace(",", "\t"),
        CSV.replace(",", ";").replace("word", '"a, word"'),
        CSV.replace("word", "a;word"),
    ],
)
def test_csv_files_of_other_hands(content: str, write: Callable[..., str]) -> None:
    found = load(write(content), "y")
    assert found.classes == ["a", "b"]
    assert found.numeric.columns == ["x"]
    assert found.rows == 3


def test_a_decimal_comma_is_one_where_all_of_a_column_are_numbers(write: Callable[..., str]) -> None:
    found = load(write("x;z;u;y\n1,5;1,5;;a\n-2;1,5 m;;b\n3,25e2;7 m;;b\n"), "y")
    assert found.numeric.to_dict(as_series=False) == {"x": [1.5, -2, 325]}
    assert found.categorical.columns == ["z"]
    assert found.notes == ["Left out: the column 'u', empty."]


@pytest.mark.parametrize("name", ["a.CSV", "a.tsv", "a.TSV"])
def test_suffixes(name: str, write: Callable[..., str]) -> None:
    assert load(write(CSV.replace(",", "\t"), name), "y").rows == 3


def test_names_of_columns_may_hold_quotes(tmp_path: Path) -> None:
    path, names = tmp_path / "quotes.csv", ['<img src="x">', "it's", 'y"']
    pl.DataFrame(dict(zip(names, ([1, 2, 2], [4, 5, 9], [0, 1, 1]), strict=True))).write_csv(path)
    assert load(str(path), names[2]).numeric.columns == names[:2]
    assert tables.read(path).frame.columns == names


def test_a_column_is_read_whole_before_its_type_is_known(write: Callable[..., str]) -> None:
    found = load(write("x,c,y\n" + 500 * "1,01,0\n" + "2.5,u,1\n"), "y")
    assert found.numeric["x"][500] == 2.5
    assert found.categorical["c"][500] == "u"


def test_parquet_files_that_are_none(tmp_path: Path, write: Callable[..., str]) -> None:
    frame, path = pl.DataFrame({"x": [1, 2], "y": [0, 1]}), tmp_path / "whole.parquet"
    frame.write_parquet(path)
    whole = path.read_bytes()
    for content in (b"no parquet at all", whole[:-20], whole[:20] + 30 * b"\xff" + whole[50:]):
        with pytest.raises(InputError, match=r"The file '.*\.parquet' cannot be read as \.parquet: "):
            load(write(content, "broken.parquet"), "y")
    with pytest.raises(InputError, match=r"The file '.*\.parquet' is empty"):
        load(write("", "empty.parquet"), "y")
    frame.clear().write_parquet(path)
    with pytest.raises(InputError, match="has a header but no rows"):
        load(str(path), "y")


def test_sources_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"SOURCE to be one of tweets, yeast or a \.csv, .* but got 'a\.docx'"):
        load("a.docx", "y")
    with pytest.raises(InputError, match=r"There is no file 'nowhere\.csv'"):
        load("nowhere.csv", "y")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"Expected the folder '.*folder\.csv' to hold"):
        load(str(tmp_path / "folder.csv"), "y")


@pytest.mark.parametrize("options", [{"target": "y"}, {"text": "t"}, {"drop": ("x",)}])
@pytest.mark.parametrize("name", dataset.BUNDLED)
def test_bundled_sets_need_no_options(name: str, options: dict[str, object]) -> None:
    with pytest.raises(
        InputError, match=f"The bundled set '{name}' needs no --target, --text, --drop or other columns"
    ):
        load(name, **options)  # type: ignore[arg-type]


def test_yeast() -> None:
    found = load("yeast")
    counts = dict(zip(found.classes, found.counts.tolist(), strict=True))
    assert counts == {
        "CYT": 438, "NUC": 425, "MIT": 244, "ME3": 162, "ME2": 51, "ME1": 43, "EXC": 35, "VAC": 30, "POX": 20, "ERL": 5
    }  # fmt: skip
    assert found.rows == 1453
    assert found.numeric.shape == (1453, 8)
    assert found.categorical.width == 0
    assert found.numeric.null_count().sum_horizontal().item() == 0
    assert found.votes is None
    assert any("K. Nakai" in note and "CC BY 4.0" in note for note in found.notes)


def test_tweets() -> None:
    found = load("tweets")
    assert found.votes is not None
    assert found.classes == ["negative", "neutral", "positive"]
    assert found.counts.tolist() == [1107, 683, 2348]
    assert found.numeric.shape == (4138, 384)
    assert found.votes.shape == (4138, 3)
    assert 20 <= found.votes.sum(1).min() <= found.votes.sum(1).max() < 100
    for votes, label in zip(found.votes.tolist(), found.labels.tolist(), strict=True):
        assert all(votes[label] > other for c, other in enumerate(votes) if c != label)
    assert any("C.J. Hutto and E. Gilbert" in note and "MIT" in note for note in found.notes)
    assert "Left out: 62 rows without one class of most votes." in found.notes


def test_the_vectors_of_the_tweets_are_those_of_its_rows() -> None:
    folder = Path(dataset.__file__).parent / "bundled"
    vectors = np.load(folder / "tweets.npy", allow_pickle=False).astype(float)
    raw = pl.read_csv(folder / "tweets.csv")
    assert vectors.shape == (raw.height, 384) == (4200, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4200), abs=1e-3)
    votes = raw.drop("text").to_numpy()
    ranked = np.sort(votes, axis=1)
    kept = vectors[ranked[:, -1] > ranked[:, -2]]
    assert np.array_equal(load("tweets").numeric.to_numpy(), kept.astype(np.float32))
    texts = bundled.tweet_texts()
    assert len(texts) == 4200
    assert texts[2].startswith("We were 17 deep last night & the love")
    similarity = kept @ kept.T
    np.fill_diagonal(similarity, -1)
    labels = load("tweets").labels
    assert np.mean(labels[similarity.argmax(1)] == labels) > 0.6  # rows in another order agree in 43%


@pytest.mark.parametrize("marker", ["", "NA", "nan", "NULL", "n/a"])
def test_markers_of_missing_values_in_csv_files(write: Callable[..., str], marker: str) -> None:
    path = write(f"x,y\n1,a\n{marker},b\n3,a\n")
    taken = f", among them {marker!r} \\(1\\)" if marker else ""
    with pytest.raises(InputError, match=rf"Values are missing in 'x' \(1 rows{taken}\)"):
        load(path, "y")
    assert load(path, "y", impute=True).numeric["x"].is_null().to_list() == [False, True, False]


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "__index_level_0__"])
def test_row_numbers_are_left_out(name: str) -> None:
    found = table(pl.DataFrame({name: [0, 1, 2], "x": [3, 1, 2], "y": ["a", "b", "a"]}), "test", "y")
    assert found.numeric.columns == ["x"]
    assert found.notes == [f"Left out: the column {name!r}, row numbers."]


def test_a_column_of_numbers_with_words_among_them_is_refused() -> None:
    words = ["1", "2", "four", "4", "5", "6"]
    told = "The column 'x' is of numbers, but holds 'four' in row 3 (1 of 6 rows are no numbers). Pass --categorical x"
    with pytest.raises(InputError, match=re.escape(told)):
        read(list("ababab"), x=words)
    frame = pl.DataFrame({"x": words, "y": list("ababab")})
    assert table(frame, "test", "y", categorical=("x",)).categorical["x"].to_list() == words
    found = table(frame, "test", "y", impute=True)
    assert found.numeric["x"].to_list() == [1, 2, None, 4, 5, 6]
    assert found.notes == [
        f"{told.split('. Pass')[0]}. They are taken for missing.",
        "Filled in by the median of the training rows: 'x' (1 rows).",
    ]
