"""What columns are taken for, and what is left out."""

import datetime
import decimal
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from lossfit.commands.columns import print_columns
from lossfit.compare.data.dataset import Dataset, load, table
from lossfit.compare.errors import InputError

ROWS = 24
BASE = {"x": [float(i * i % 7) for i in range(ROWS)], "y": [i % 3 for i in range(ROWS)]}


def read(options: dict[str, Any] | None = None, **columns: Any) -> Dataset:
    return table(pl.DataFrame({**BASE, **columns}), "test", "y", **(options or {}))


def types(found: Dataset) -> dict[str, str]:
    return {column.name: column.type for column in found.columns}


SHUFFLED = [(i * 7) % ROWS for i in range(ROWS)]


@pytest.mark.parametrize(
    ("column", "name", "kind", "told"),
    [
        (ROWS * [3], "c", "constant", "the same in every row"),
        (ROWS * ["a"], "c", "constant", "the same in every row"),
        (ROWS * [True], "c", "constant", "the same in every row"),
        (ROWS * [None], "c", "empty", "empty"),
        (ROWS * [float("nan")], "c", "empty", "empty"),
        (pl.Series(ROWS * [None], dtype=pl.String), "c", "empty", "empty"),
        ([1.0, None, float("nan")] + (ROWS - 3) * [1.0], "c", "constant", "the same in every row"),
        (list(range(ROWS)), "c", "id", "an id, different in every row"),
        (list(range(100, 100 + ROWS)), "c", "id", "an id, different in every row"),
        (SHUFFLED, "id", "id", "an id, different in every row"),
        (SHUFFLED, "customer_id", "id", "an id, different in every row"),
        (SHUFFLED, "customerId", "id", "an id, different in every row"),
        (SHUFFLED, "row number", "id", "an id, different in every row"),
        ([f"u{i}" for i in SHUFFLED], "user_id", "id", "an id, different in every row"),
        ([f"B{i}" for i in SHUFFLED], "bottle", "id", "an id, different in every row"),
        (ROWS * [datetime.date(2020, 1, 1)], "c", "constant", "the same in every row"),
    ],
)
def test_columns_that_tell_nothing_are_left_out(column: Any, name: str, kind: str, told: str) -> None:
    found = read(**{name: column})
    assert found.numeric.columns == ["x"]
    assert not found.categorical.columns
    assert types(found)[name] == f"{kind} (left out)"
    assert found.notes[0].startswith(f"Left out: the column {name!r}, {told}")


@pytest.mark.parametrize(
    ("column", "name"),
    [
        (SHUFFLED, "c"),
        (SHUFFLED, "paid"),
        (SHUFFLED, "grid"),
        (SHUFFLED, "humid"),
        (SHUFFLED, "identity"),
        ([*range(ROWS - 1), 0], "id"),
        ([i / 7 for i in SHUFFLED], "x_id"),
        ([2 * i for i in range(ROWS)], "year"),
        ((ROWS - 1) * [1] + [0], "c"),
        ((ROWS - 1) * ["a"] + ["b"], "c"),
    ],
)
def test_columns_that_tell_something_stay(column: list[Any], name: str) -> None:
    found = read(**{name: column})
    assert found.notes == []
    assert name in found.numeric.columns + found.categorical.columns


def test_a_string_that_is_there_or_missing_tells_something() -> None:
    found = read({"impute": True}, c=(ROWS - 4) * ["a"] + 4 * [None])
    assert found.categorical["c"].to_list() == (ROWS - 4) * ["a"] + 4 * ["missing"]


def test_few_rows_may_be_in_order_by_chance() -> None:
    frame = pl.DataFrame({"id": range(19), "y": [i % 2 for i in range(19)]})
    assert table(frame, "test", "y").numeric.columns == ["id"]


def test_columns_of_one_kind_are_told_together() -> None:
    found = read(**{f"c{i}": ROWS * [i] for i in range(12)})
    assert found.notes == [
        "Left out: 12 columns, the same in every row: " + ", ".join(f"'c{i}'" for i in range(10)) + " and 2 more."
    ]


def test_what_is_left_out_is_told_if_nothing_is_left() -> None:
    frame = pl.DataFrame({"id": SHUFFLED, "y": BASE["y"]})
    with pytest.raises(InputError, match=r"No column is left .* is 'y'\. Left out: the column 'id', an id"):
        table(frame, "test", "y")


def test_rows_to_test_on_do_not_count() -> None:
    held = [i >= ROWS for i in range(2 * ROWS)]
    frame = pl.DataFrame(
        {
            "id": 2 * list(range(ROWS)),
            "same": ROWS * [1] + list(range(ROWS)),
            "x": 2 * BASE["x"],
            "held": held,
            "y": 2 * BASE["y"],
        }
    )
    found = table(frame, "test", "y", test_column="held")
    assert found.numeric.columns == ["x"]
    assert types(found)["id"] == "id (left out)"
    assert types(found)["same"] == "constant (left out)"
    assert table(frame, "test", "y").numeric.columns == ["id", "same", "x", "held"]


class TestAsked:
    """--numeric, --categorical, --drop."""

    def test_what_is_asked_for_is_kept(self) -> None:
        found = read({"numeric": ("id",), "categorical": ("c",)}, id=SHUFFLED, c=ROWS * [3])
        assert found.numeric["id"].to_list() == SHUFFLED
        assert found.categorical["c"].to_list() == ROWS * ["3"]
        assert found.notes == []

    def test_numbers_as_categories(self) -> None:
        zips = [10_000 + i for i in SHUFFLED]
        found = read({"categorical": ("zip",)}, zip=zips)
        assert found.categorical["zip"].to_list() == [str(z) for z in zips]
        assert types(found)["zip"] == "categorical"

    def test_strings_as_numbers(self) -> None:
        words = ["five" if i == 4 else f" {i}" for i in range(ROWS)]
        match = (
            r"--numeric: The column 'w' is of numbers, but holds 'five' in row 5 \(1 of 24 rows are no numbers\)\. "
            "Pass --impute"
        )
        with pytest.raises(InputError, match=match):
            read({"numeric": ("w",)}, w=words)
        found = read({"numeric": ("w",), "impute": True}, w=words)
        assert found.numeric["w"].to_list()[3:6] == [3.0, None, 5.0]

    def test_decimals_and_categories_as_numbers(self) -> None:
        found = read(
            {"numeric": ("d", "c")},
            d=[decimal.Decimal(i) / 4 for i in SHUFFLED],
            c=pl.Series([str(i) for i in SHUFFLED], dtype=pl.Categorical),
        )
        assert found.numeric["d"].to_list() == [i / 4 for i in SHUFFLED]
        assert found.numeric["c"].to_list() == SHUFFLED

    def test_days_as_numbers(self) -> None:
        found = read({"numeric": ("day",)}, day=[datetime.date(1970, 1, 1 + i) for i in range(ROWS)])
        assert found.numeric["day"].to_list() == list(range(ROWS))

    def test_columns_separated_by_commas(self) -> None:
        columns = {"a": SHUFFLED, "b": SHUFFLED, "c,d": SHUFFLED}
        found = read({"drop": ("a, b",), "categorical": ("c,d",)}, **columns)
        assert (found.numeric.columns, found.categorical.columns) == (["x"], ["c,d"])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"numeric": ("z",)}, "--numeric: there is no column 'z'."),
            ({"categorical": ("x,z",)}, "--categorical: there is no column 'z'."),
            (
                {"categorical": ("x",), "numeric": ("x",)},
                "--categorical: the column 'x' is named by --numeric already.",
            ),
            ({"numeric": ("y",)}, "--numeric: the column 'y' is named by --target already."),
            ({"group": "z"}, "--group: there is no column 'z'."),
            ({"group": "y"}, "--group: the column 'y' is named by --target already."),
            ({"weight": "y"}, "--weight: the column 'y' is named by --target already."),
            ({"weight": "x", "drop": ("x",)}, "--drop: the column 'x' is named by --weight already."),
            ({"test_column": "z"}, "--test-column: there is no column 'z'."),
            ({"votes": ("x,z",)}, "Expected one of --target and --votes, but got both."),
            ({"numeric": ("list",)}, "--numeric: the column 'list' is List(String)."),
            ({"categorical": ("list",)}, "--categorical: the column 'list' is List(String)."),
        ],
    )
    def test_names_that_are_wrong(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=re.escape(message)):
            read(options, list=[["a"]] * ROWS)


class TestTexts:
    """Columns of texts that no option names."""

    LONG = [f"the {i} words of a sentence" for i in range(60)]

    def read(self, column: list[str | None], **options: Any) -> Dataset:
        frame = pl.DataFrame({"x": [i * i % 7 for i in range(60)], "c": column, "y": [i % 3 for i in range(60)]})
        return table(frame, "test", "y", **options)

    def test_many_long_strings_are_text(self) -> None:
        found = self.read([None, *self.LONG[1:]])
        assert found.text["c"].to_list() == ["", *self.LONG[1:]]
        assert types(found)["c"] == "text"
        assert found.notes == ["Read as text: 'c'; --categorical or --drop says otherwise."]

    def test_the_user_says_otherwise(self) -> None:
        assert self.read(self.LONG, categorical=("c",)).categorical.columns == ["c"]
        assert self.read(self.LONG, drop=("c",)).text.width == 0
        assert self.read(self.LONG, text="c").notes == []

    def test_few_strings_are_categories_and_short_ones_are_told(self) -> None:
        assert self.read([text.replace(text[4:6], "n") for text in self.LONG]).categorical.columns == ["c"]
        with pytest.raises(InputError, match=r"'c' holds 60 distinct strings in 60 rows\. Pass --text c to read it"):
            self.read([text.removesuffix(" of a sentence") for text in self.LONG])


class TestWeights:
    """--weight."""

    def test_weights_are_1_in_the_mean(self) -> None:
        weights = [float(i + 1) for i in range(ROWS)]
        found = read({"weight": "w"}, w=weights)
        assert found.weight is not None
        assert found.weight.tolist() == pytest.approx([w / np.mean(weights) for w in weights])
        assert found.numeric.columns == ["x"]
        assert found.notes == ["Rows count by 'w', in training and in the metrics."]

    def test_rows_of_weight_0_are_left_out(self) -> None:
        """A part of a split could have no others, and its metrics would be 0."""
        found = read({"weight": "w"}, w=[0.0, 0.0, *range(1, ROWS - 1)])
        assert found.rows == len(found.numeric) == ROWS - 2
        assert found.weight is not None
        assert found.weight.min() > 0
        assert found.notes[0] == "Left out: 2 rows of weight 0."

    @pytest.mark.parametrize(
        ("column", "match"),
        [
            ([-1, *range(1, ROWS)], r"of at least 0 in the column 'w', but row 1 of the data holds -1 \(1 rows"),
            ([1.0, None, *range(2, ROWS)], "row 2 of the data holds None"),
            ([1.0, float("nan"), *range(2, ROWS)], "row 2 of the data holds nan"),
            ([1.0, float("inf"), *range(2, ROWS)], "row 2 of the data holds inf"),
            (ROWS * ["1"], "Expected the weight 'w' to hold numbers, but it is String"),
            (ROWS * [0], "The weight 'w' is 0 in every row"),
        ],
    )
    def test_weights_that_are_none(self, column: list[Any], match: str) -> None:
        with pytest.raises(InputError, match=match):
            read({"weight": "w"}, w=column)


class TestVotes:
    """--votes."""

    FRAME = pl.DataFrame({"x": [1.0, 2.0, 4.0, 3.0], "neg": [3, 1, 2, 0], "pos": [1, 1, 5, 1], "z": [0.5, 1, 0, 0]})

    def test_votes(self) -> None:
        found = table(self.FRAME.drop("z"), "test", None, votes=("neg,pos",))
        assert found.classes == ["neg", "pos"]
        assert found.labels.tolist() == [0, 1, 1]
        assert found.votes is not None
        assert found.votes.tolist() == [[3, 1], [2, 5], [0, 1]]
        assert found.numeric["x"].to_list() == [1, 4, 3]
        assert found.notes[0] == "Left out: 1 rows without one class of most votes."
        assert found.notes[1].startswith("The classes are the columns neg, pos: in each repeat models are trained and")
        assert types(found) == {"x": "numeric", "neg": "votes", "pos": "votes"}

    def test_probabilities(self) -> None:
        p = [[0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]]
        frame = pl.DataFrame(p, schema=["a", "b", "c"], orient="row").with_columns(x=pl.Series([1, 2, 4]))
        found = table(frame, "test", None, votes=("a", "b", "c"))
        assert found.labels.tolist() == [2, 0, 2]
        assert found.votes is not None
        assert found.votes.tolist() == p

    @pytest.mark.parametrize(
        ("column", "match"),
        [
            ([1, -1, 1, 1], "at least 0 in the column 'v', but row 2 of the data holds -1 "),
            ([1, None, 1, 1], "row 2 of the data holds nothing"),
            ([1.0, float("nan"), 1.0, 1.0], "row 2 of the data holds nan"),
            (["1", "2", "3", "4"], "Expected the votes 'v' to be numbers, but the column is String"),
            ([1, 1, 1, 0], "No class has a vote in 1 rows, the first of them row 4"),
        ],
    )
    def test_votes_that_are_none(self, column: list[Any], match: str) -> None:
        frame = self.FRAME.with_columns(pl.Series("v", column))
        with pytest.raises(InputError, match=match):
            table(frame, "test", None, votes=("z", "v"))

    def test_one_column_is_not_enough(self) -> None:
        with pytest.raises(InputError, match=r"a column for each class, two at least, but got \['neg'\]"):
            table(self.FRAME, "test", None, votes=("neg",))


def printed(data: Dataset, width: int = 100) -> list[str]:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_columns(console, data)
    console.file.close()
    return [line.rstrip() for line in console.export_text().splitlines()]


class TestShown:
    """The table before training."""

    def test_columns_types_missing_and_examples(self) -> None:
        found = read(
            {"impute": True, "text": "note", "drop": ("old",)},
            city=(["Rome", None, "[red]Oslo[/red]"] * ROWS)[:ROWS],
            note=[f"a note that is longer\nthan a table is wide, {i}" for i in range(ROWS)],
            id=SHUFFLED,
            old=SHUFFLED,
        )
        assert printed(found) == [
            "24 rows, 3 classes",
            "Column  type           missing  examples",
            "x       numeric                 0, 1, 4",
            "y       target                  0, 1, 2",
            "city    categorical          8  Rome, [red]Oslo[/red]",
            "note    text                    a note that is longer...",
            "id      id (left out)           0, 7, 14",
            "old     (left out)              0, 7, 14",
            "",
        ]

    def test_many_columns_are_told_in_a_row(self) -> None:
        found = read(**{f"v{i}": [float(j * (i % 10 + 1) % 11) for j in range(ROWS)] for i in range(200)})
        shown = printed(found)
        assert [line.split("  ")[0] for line in shown] == [
            "24 rows, 3 classes",
            "Column",
            "x ... v199, 201 columns",
            "y",
            "",
        ]

    def test_nothing_of_bundled_sets(self) -> None:
        assert printed(load("yeast")) == []

    def test_a_file_of_the_name_of_a_bundled_set(self, tmp_path: Path) -> None:
        path = tmp_path / "yeast.csv"
        pl.DataFrame(BASE).write_csv(path)
        assert printed(load(str(path), "y"))[0] == "24 rows, 3 classes"

    def test_images(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", X=np.zeros((4, 9, 8), dtype=np.uint8), y=[0, 1, 0, 1])
        assert printed(load(str(tmp_path / "a.npz")))[0] == "4 rows, 2 classes, images of 9 x 8 x 1"
