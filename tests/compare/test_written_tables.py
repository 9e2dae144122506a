"""Tables that people open in a spreadsheet run nothing there."""

import io

import polars as pl
import pytest

from lossfit.compare import written_tables


@pytest.mark.parametrize(
    "cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", " =1", "\r=1", "=HYPERLINK(1)"]
)
def test_cells_that_would_run_are_text(cell: str) -> None:
    table = pl.DataFrame({"name": [cell, "plain"], cell: [1, -2]})
    found = pl.read_csv(io.BytesIO(written_tables.contents(table, ".csv")))
    assert found.columns == ["name", f"'{cell}"]
    assert found["name"].to_list() == [f"'{cell}", "plain"]
    assert found[f"'{cell}"].to_list() == [1, -2]
    raw = pl.read_csv(io.BytesIO(written_tables.contents(table, ".csv", raw=True)))
    assert raw.equals(table)
    assert pl.read_parquet(io.BytesIO(written_tables.contents(table, ".parquet"))).equals(table)


def test_numbers_and_other_text_stay() -> None:
    table = pl.DataFrame({"a": ["-5", "+1e3", "x=1", "", None, "'=1"], "b": [-0.5, 1.0, 2.0, 3.0, 4.0, 5.0]})
    assert pl.read_csv(io.BytesIO(written_tables.contents(table, ".csv")), infer_schema=False)["a"].to_list() == [
        "-5",
        "+1e3",
        "x=1",
        "",
        None,
        "'=1",
    ]


def test_categories() -> None:
    table = pl.DataFrame({"a": pl.Series(["=1", "b"], dtype=pl.Categorical)})
    assert b"'=1" in written_tables.contents(table, ".csv")
