"""Formats of cells, against Python's own formatting of numbers and dates."""

import datetime
import random

import numpy as np
import polars as pl
import pytest

from lossfit.compare.data import formats
from lossfit.compare.data.cells import matched, spelt
from lossfit.compare.data.formats import BooleanFormat, DateFormat, Format, ListFormat, NumberFormat

NUMBERS = [0.0, 1.5, -2.25, 1234.5, -1234567.0, 999.0, 1000.0, 12.75]


def german(x: float) -> str:
    return f"{x:,.2f}".translate(str.maketrans(",.", ".,"))


WRITTEN = {
    "plain": (repr, ""),
    "thousands": (lambda x: f"{x:,.2f}", "thousands by commas"),
    "german": (german, "thousands by points, decimal comma"),
    "blanks": (lambda x: f"{x:,.2f}".replace(",", " "), "thousands by blanks"),
    "narrow blanks": (lambda x: f"{x:,.2f}".replace(",", "\u202f"), "thousands by blanks"),
    "swiss": (lambda x: f"{x:,.2f}".replace(",", "'"), "thousands by apostrophes"),
    "dollars": (lambda x: f"${x:,.2f}".replace("$-", "-$"), "$, thousands by commas"),
    "sign after": (lambda x: f"$ {x:,.2f}", "$, thousands by commas"),
    "euros": (lambda x: f"{german(x)} €", "€, thousands by points, decimal comma"),
    "codes": (lambda x: f"CHF {x:.2f}", "CHF"),
    "percent": (lambda x: f"{x:.2f} %", "percent"),
    "accounting": (lambda x: f"({-x:,.2f})" if x < 0 else f"{x:,.2f}", "thousands by commas, (12) as -12"),
    "dollars in parentheses": (
        lambda x: f"(${-x:,.2f})" if x < 0 else f"${x:,.2f}",
        "$, thousands by commas, (12) as -12",
    ),
    "minus after": (lambda x: f"{-x:.2f}-" if x < 0 else f"{x:.2f}", "(12) as -12"),
    "minus of Unicode": (lambda x: f"{x:.2f}".replace("-", "−"), ""),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_numbers_come_back_from_how_they_are_written(kind: str) -> None:
    write, told = WRITTEN[kind]
    cells = pl.Series("x", [write(x) for x in NUMBERS])
    found = formats.of_text(cells)
    assert isinstance(found, NumberFormat)
    assert found.describe() == told
    assert found.read(cells).to_series().to_list() == NUMBERS
    odd = found.read(pl.Series("x", ["unknown", "1.2.3", "", "1,2,3,4", "((1))", "5 pieces"])).to_series()
    assert odd.is_null().all()


@pytest.mark.parametrize(
    "cells",
    [["$5", "€5"], ["50%", "0.5"], ["1,23", "1.23"], ["12kg", "3kg"], ["1/2", "3/4"], ["(5", "7"], ["a1", "a2"], ["-"]],
)
def test_strings_that_are_no_numbers_of_one_format(cells: list[str]) -> None:
    assert formats.of_text(pl.Series("x", cells)) is None


RANDOM = random.Random(0)
MOMENTS = [
    datetime.datetime(2015, 1, 31, 13, 5, 7) + datetime.timedelta(seconds=RANDOM.randrange(3 * 365 * 86400))
    for _ in range(40)
]


@pytest.mark.parametrize(
    ("pattern", "exact"),
    [
        ("%Y-%m-%d", "day"),
        ("%Y/%m/%d", "day"),
        ("%d.%m.%Y", "day"),
        ("%d.%m.%y", "day"),
        ("%m/%d/%Y", "day"),
        ("%d/%m/%Y", "day"),
        ("%d %B %Y", "day"),
        ("%b %d, %Y", "day"),
        ("%d-%b-%Y", "day"),
        ("%Y-%m-%d %H:%M:%S", "second"),
        ("%Y-%m-%dT%H:%M:%S", "second"),
        ("%Y-%m-%d %H:%M:%S.%f", "second"),
        ("%Y-%m-%dT%H:%M:%SZ", "second"),
        ("%Y-%m-%d %H:%M:%S+00:00", "second"),
        ("%d.%m.%Y %H:%M", "minute"),
        ("%m/%d/%Y %I:%M %p", "minute"),
        ("%m/%d/%Y %I:%M:%S %p", "second"),
    ],
)
def test_dates_become_the_parts_that_python_finds(pattern: str, exact: str) -> None:
    cells = pl.Series("d", [moment.strftime(pattern) for moment in MOMENTS])
    found = formats.of_text(cells)
    assert isinstance(found, DateFormat)
    zero = {"day": {"hour": 0, "minute": 0, "second": 0}, "minute": {"second": 0}, "second": {}}[exact]
    moments = [moment.replace(**zero) for moment in MOMENTS]
    values = found.read(cells)
    assert values.columns == [f"d: {part}" for part in found.parts]
    assert values["d: year"].to_list() == [moment.year for moment in moments]
    assert values["d: month"].to_list() == [moment.month for moment in moments]
    assert values["d: weekday"].to_list() == [moment.isoweekday() for moment in moments]
    days = [(moment - min(moments)).total_seconds() / 86400 for moment in moments]
    assert values["d: days"].to_list() == pytest.approx(days)
    assert ("hour" in found.parts) == (exact != "day")
    if exact != "day":
        assert values["d: hour"].to_list() == pytest.approx([m.hour + m.minute / 60 for m in moments])
    assert found.read(pl.Series("d", ["2019-13-45", "", "soon"])).null_count().row(0) == (3,) * len(found.parts)


def test_a_typed_column_of_days_is_read_by_the_format_of_strings() -> None:
    days = pl.Series("d", [moment.date() for moment in MOMENTS])
    found = formats.of_text(days.dt.strftime("%d.%m.%Y"))
    assert found is not None
    assert found.read(days).equals(found.read(days.dt.strftime("%d.%m.%Y")))
    zoned = pl.Series("d", MOMENTS).dt.replace_time_zone("Europe/Berlin")
    assert formats.of_type(zoned).read(zoned)["d: hour"].to_list() == pytest.approx(  # type: ignore[union-attr]
        [h + m / 60 for h, m in zip(zoned.dt.convert_time_zone("UTC").dt.hour(), zoned.dt.minute(), strict=True)]
    )


def test_days_that_can_be_read_in_two_ways() -> None:
    cells = pl.Series("d", ["01/02/2019", "03/04/2019"])
    with pytest.raises(formats.AmbiguousDatesError):
        formats.of_text(cells)
    for order, months in (("dmy", [2, 4]), ("mdy", [1, 3])):
        found = formats.of_text(cells, date_order=order)
        assert found is not None
        assert found.read(cells)["d: month"].to_list() == months


@pytest.mark.parametrize(
    "found",
    [
        NumberFormat(",", ".", "$"),
        NumberFormat(percent=True, accounting=True),
        BooleanFormat(),
        DateFormat("%d.%m.%Y", ("year", "days"), "2019-01-01T00:00:00"),
        ListFormat(3),
    ],
)
def test_formats_are_stored(found: Format) -> None:
    assert formats.from_json(formats.to_json(found)) == found


@pytest.mark.parametrize(
    "contents",
    [
        {"kind": "spell"},
        {},
        {"kind": "number", "thousands": 3.5},
        {"kind": "list", "width": 0},
        {"kind": "date", "parts": ["century"]},
        {"kind": "number", "novelty": 1},
    ],
)
def test_stored_formats_that_are_none(contents: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        formats.from_json(contents)


def test_lists_of_any_writing() -> None:
    values = np.arange(6.0).reshape(3, 2).tolist()
    found = ListFormat(2)
    typed = [pl.Series("v", values), pl.Series("v", values, dtype=pl.Array(pl.Float64, 2))]
    written = [pl.Series("v", [str(row) for row in values]), pl.Series("v", [f"[{a} {b}]" for a, b in values])]
    for column in (*typed, *written):
        assert found.read(column).rows() == [tuple(row) for row in values]
    assert found.read(pl.Series("v", [[1.0], [1.0, 2.0], None])).rows() == [(None, None), (1.0, 2.0), (None, None)]


def test_spellings_of_one_value() -> None:
    assert spelt("1") == spelt("1.0") == spelt("1e0") != spelt("01")
    assert spelt("TRUE") == spelt("true") != spelt("yes")
    assert spelt("007") == "007"
    assert len({spelt(word) for word in ("nan", "NaN", "NA", "na")}) == 4
    cells = pl.Series(["1.0", "TRUE", "02", "2", None, "x"])
    assert matched(cells, ["1", "True", "02", "x"]).to_list() == ["1", "True", "02", "2", None, "x"]
    assert matched(pl.Series(["1.0"]), ["1", "1.00"]).to_list() == ["1.0"]  # which of the two is not known
