"""What each column of a table is: told by its role first, then by its cells; shown to the user, and checked."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from lossfit.compare.data import formats
from lossfit.compare.data.cells import Missing
from lossfit.compare.data.formats import STRINGS, AmbiguousDatesError, Format, ListFormat, NumberFormat
from lossfit.compare.data.names import near
from lossfit.compare.errors import InputError, listed

MANY_VALUES = 50
# Half of the values of a column of texts have so many words; names and addresses have fewer.
_WORDS = 5
# The names that tables get for their row numbers.
ROW_NUMBERS = ("", "Unnamed: 0", "__index_level_0__")
# Fewer rows can be numbered in order by chance.
FEWEST_IDS = 20
UNREADABLE = 0.2
"""The share of cells that may be no numbers in a column of numbers, where missing ones are filled in."""
_NUMBERS, _EMPTY, _CONSTANT = "row numbers", "empty", "the same in every row"
_IDS = "an id, different in every row; --numeric or --categorical keeps it"
_SHORT = {_NUMBERS: "row number", _EMPTY: "empty", _CONSTANT: "constant", _IDS: "id"}
_ID = re.compile(
    r"(?i:^(id|uuid|guid|index|idx|key|row|row[_ ]?(number|num|nr|id))$|(_|-|\s|\.)(id|uuid|guid)$)|[a-z]I[dD]$"
)
_YEARS = (1800, 2100)


@dataclass(frozen=True)
class Roles:
    """What the user says of the columns.

    Attributes:
        target: the column of the classes, or several, each with whether that class is right.
        votes: a column for each class, with votes or probabilities; then there is no target.
        text: columns to read as text.
        drop: columns to leave out.
        numeric, categorical: columns to read so, whatever they look like.
        group: rows of the same value stay together in every split.
        weight: what each row counts.
        test_column: which rows are to test on.
        impute: fill missing numbers with the median of the training rows and missing categories with "missing", instead
            of raising.
        na_values: what stands for a missing value, besides nothing, NA and the like.
        keep_na: columns in which NA and the like are values.
        date_order: "dmy" or "mdy", for dates such as 01/02/2019.
        multi_label: whether a single target holds any number of classes in each row.
    """

    target: tuple[str, ...] = ()
    votes: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    group: str | None = None
    weight: str | None = None
    test_column: str | None = None
    impute: bool = False
    na_values: tuple[str, ...] = ()
    keep_na: tuple[str, ...] = ()
    date_order: str | None = None
    multi_label: bool = False

    @property
    def named(self) -> list[tuple[str, str]]:
        """Options and the columns that they name."""
        lists = {"--target": self.target, "--votes": self.votes, "--drop": tuple(dict.fromkeys(self.drop))}
        lists |= {"--numeric": tuple(dict.fromkeys(self.numeric))}
        lists |= {"--categorical": tuple(dict.fromkeys(self.categorical))}
        ones = {"--group": self.group, "--weight": self.weight, "--test-column": self.test_column}
        found = [("--target", column) for column in lists.pop("--target")]
        found += [("--text", column) for column in self.text]
        found += [(option, column) for option, column in ones.items() if column is not None]
        return found + [(option, column) for option, columns in lists.items() for column in columns]

    def renamed(self, name: Callable[[str], str]) -> Roles:
        """The same with other names of columns."""
        lists = ("target", "votes", "text", "drop", "numeric", "categorical", "keep_na")
        ones = ("group", "weight", "test_column")
        new: dict[str, Any] = {field: tuple(name(column) for column in getattr(self, field)) for field in lists}
        new |= {field: name(getattr(self, field)) for field in ones if getattr(self, field) is not None}
        return replace(self, **new)


def check_names(frame: pl.DataFrame, roles: Roles) -> list[str]:
    """What is wrong with the names of columns: one is not there, or has two roles."""
    options: dict[str, str] = {}
    wrong = []
    for option, column in [*roles.named, *(("--keep-na", column) for column in roles.keep_na)]:
        if column not in frame.columns:
            wrong.append(f"{option}: there is no column {column!r}. {near(column, frame.columns)}")
        elif column in options and option != "--keep-na":
            wrong.append(f"{option}: the column {column!r} is named by {options[column]} already.")
        options[column] = option
    return wrong


@dataclass(frozen=True)
class Column:
    """A column as it is shown before training, and its type in the file."""

    name: str
    type: str
    missing: int
    examples: list[str]
    dtype: str = ""


@dataclass
class Features:
    """Columns to learn from.

    Attributes:
        numeric: of floating-point numbers.
        categorical: of strings.
        text: of texts.
        formats: how the cells of the numeric columns are written, by the name of the column in the table.
        types: of every column of the table, by name.
        missing: values of columns that are missing or cannot be read, by name.
        notes: what was left out or filled in, and why.
        problems: what the user has to decide before anything can be learnt.
    """

    numeric: pl.DataFrame = field(default_factory=pl.DataFrame)
    categorical: pl.DataFrame = field(default_factory=pl.DataFrame)
    text: pl.DataFrame = field(default_factory=pl.DataFrame)
    formats: dict[str, Format] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Rules:
    """How columns are read whose role is to be learnt from.

    Attributes:
        roles: what the user says of them.
        missing: which cells are missing.
        arrays: the columns are those of an array, so that none is an id.
        decimal_comma: whether 1,234 is rather 1.234.
        thousands_points: whether 1.234 is rather 1234.
        test: the rows that are not learnt from, which do not count for what can be told from a column.
    """

    roles: Roles
    missing: Missing = field(default_factory=Missing)
    arrays: bool = False
    decimal_comma: bool = False
    thousands_points: bool = False
    test: np.ndarray | None = None


def features(frame: pl.DataFrame, rules: Rules) -> Features:
    """Numbers, booleans and dates are numeric, strings categorical or text; the rest is left out.

    Strings are numbers if all are that stand for something, in one format; if more than half are and others are not,
    the user is asked. Left out are columns that are empty or the same in every row, row numbers and ids, and columns of
    other types; unless the user names them.

    Args:
        frame: the columns that have no other role.
        rules: how they are read.
    """
    found = Features()
    out: dict[str, list[str]] = {}
    numeric: list[pl.DataFrame] = []
    categorical: list[pl.Series] = []
    text: list[pl.Series] = []
    taken: dict[str, str] = {}
    commas = _has_decimal_commas(frame, rules)
    rules = replace(rules, decimal_comma=rules.decimal_comma or commas, thousands_points=commas)
    for name in frame.columns:
        column = frame[name]
        try:
            read = _read(column, rules)
        except InputError as error:
            found.problems.append(str(error))
            continue
        if isinstance(read, str):
            out.setdefault(read, []).append(name)
            kind = _SHORT.get(read, "date" if column.dtype.is_temporal() else str(column.dtype))
            found.types[name] = f"{kind} (left out)"
            found.missing[name] = _missing(column)
            continue
        found.types[name], found.missing[name] = read.type, read.missing
        if read.taken:
            taken[name] = read.taken
        if read.note:
            found.notes.append(read.note)
        if read.format is not None:
            found.formats[name] = read.format
            numeric.append(read.values.to_frame() if isinstance(read.values, pl.Series) else read.values)
        elif read.type.startswith("text"):
            assert isinstance(read.values, pl.Series)
            text.append(read.values)
        else:
            assert isinstance(read.values, pl.Series)
            categorical.append(read.values)
    found.notes = [*(_left_out(names, why) for why, names in out.items()), *found.notes]
    numbers = pl.concat(numeric, how="horizontal") if numeric else pl.DataFrame()
    single = rules.arrays and all(dtype == pl.Float32 for dtype in numbers.dtypes)
    found.numeric = numbers if single else numbers.cast(pl.Float64)
    found.categorical, found.text = (pl.DataFrame({c.name: c for c in part}) for part in (categorical, text))
    _check(found, rules, taken)
    return found


def _check(found: Features, rules: Rules, taken: dict[str, str]) -> None:
    """Problems of the columns that were read, and what is filled in."""
    found.problems += not_finite(found.numeric)
    asked = {*rules.roles.categorical}
    found.problems += [told for c in found.categorical if c.name not in asked and (told := _too_many(c))]
    texts = set(found.text.columns)
    missing = {name: count for name, count in found.missing.items() if count and _is_used(found, name)}
    missing = {name: count for name, count in missing.items() if name not in texts}
    if missing and not rules.roles.impute:
        each = [_told_missing(name, count, taken.get(name)) for name, count in missing.items()]
        words = [name for name in missing if taken.get(name) and name in found.categorical.columns]
        keep = f" --keep-na {shlex.quote(words[0])} keeps such words as values." if words else ""
        found.problems.append(
            f"Values are missing in {_first_ten(each)}. Pass --impute to fill them in, or leave columns out "
            f"by --drop.{keep}"
        )
    elif missing:
        parts = (
            ("the median of the training rows", [name for name in missing if name in found.formats]),
            ("the category 'missing'", [name for name in missing if name in found.categorical.columns]),
        )
        for how, names in parts:
            if each := [_told_missing(name, missing[name], taken.get(name)) for name in names]:
                found.notes.append(f"Filled in by {how}: {_first_ten(each)}.")
    if rules.roles.impute:
        found.categorical = found.categorical.fill_null("missing")


def _first_ten(told: list[str]) -> str:
    return ", ".join(told[:10]) + (f" and {len(told) - 10} more columns" if len(told) > 10 else "")


def _is_used(found: Features, name: str) -> bool:
    return not found.types[name].endswith("(left out)")


def _told_missing(name: str, count: int, taken: str | None) -> str:
    return f"{name!r} ({count} rows{f', among them {taken}' if taken else ''})"


def _has_decimal_commas(frame: pl.DataFrame, rules: Rules) -> bool:
    """Whether a column of the table is of numbers with a decimal comma."""
    head = frame.head(1000)
    found = (rules.missing.numbers(column).drop_nulls() for column in head if column.dtype == pl.String)
    return any(len(cells) and formats.has_decimal_commas(cells) for cells in found)


@dataclass(frozen=True)
class _Read:
    """A column that is read.

    Attributes:
        values: its numbers, strings or texts.
        type: as it is shown.
        format: of numbers.
        missing: how many values are missing or cannot be read.
        taken: the cells that stand for missing values.
        note: what should be known of it.
    """

    values: pl.Series | pl.DataFrame
    type: str
    format: Format | None = None
    missing: int = 0
    taken: str = ""
    note: str = ""


def _read(column: pl.Series, rules: Rules) -> _Read | str:
    """The values of a column, or why nothing can be learnt from it.

    Raises:
        InputError: the user has to say how to read it.
    """
    name, roles = column.name, rules.roles
    if name in roles.text:
        if column.dtype != pl.String:
            raise InputError(f"Expected the column {name!r} to hold text, but it is {column.dtype}.")
        return _Read(column.fill_null(""), "text", missing=_missing(column))
    if name in roles.categorical:
        if column.dtype.is_nested():
            raise InputError(f"--categorical: the column {name!r} is {column.dtype}.")
        return _as_categories(column, rules)
    if name in roles.numeric:
        return _as_numbers(column, rules)
    if name in ROW_NUMBERS:
        return _NUMBERS
    if column.dtype not in STRINGS:
        cells = rules.missing.numbers(column)
        form = formats.of_type(cells)
        if form is None:
            return _EMPTY if not column.count() else f"of type {column.dtype}"
        return _of_numbers(column, cells, form, rules)
    return _of_strings(column, rules)


def _of_numbers(column: pl.Series, cells: pl.Series, form: Format, rules: Rules) -> _Read | str:
    read = _numbers(column, cells, form)
    if isinstance(form, ListFormat):
        return read
    assert isinstance(read.values, pl.DataFrame)
    if _is_empty(read.values.to_series(0), rules):
        return _EMPTY
    if all(_is_constant(values, rules) for values in read.values):
        return _CONSTANT
    # Numbers in a format of their own, and dates, name no rows.
    return _IDS if form == NumberFormat() and _names_rows(cells, rules, _numbers_rows) else read


def _of_strings(column: pl.Series, rules: Rules) -> _Read | str:
    """Strings are numbers, dates, categories or texts."""
    cells = rules.missing.numbers(column)
    known = cells.drop_nulls()
    if not len(known):
        return _EMPTY
    if column.dtype == pl.String:
        plain = known.cast(pl.Float64, strict=False)
        form = almost = None
        if plain.null_count():
            form = _format(column.name, known, rules)
            if form is None and not formats.are_codes(known):
                almost = _format_of_most(column.name, known, rules)
        elif rules.missing.written:  # else whoever made the column says that these are strings
            form = _plain_format(known, plain, rules)
        if form is not None:
            return _of_numbers(column, cells, form, rules)
        if almost is not None:
            return _as_numbers(column, rules, almost)
    values = rules.missing.values(column)
    if _is_empty(values, rules):
        return _EMPTY
    # A missing string is a category of its own.
    if _is_constant(values, rules) and not _learnt(values, rules).null_count():
        return _CONSTANT
    if _names_rows(values, rules, _numbers_rows) or _names_rows(values, rules, _is_a_word_for_each):
        return _IDS
    if column.dtype == pl.String and _is_text(values):
        note = f"Read as text: {column.name!r}; --categorical or --drop says otherwise."
        return _Read(values.fill_null(""), "text", missing=values.null_count(), note=note)
    return _as_categories(column, rules)


def _plain_format(known: pl.Series, numbers: pl.Series, rules: Rules) -> Format | None:
    """The format of strings that are numbers, or None for codes."""
    if rules.thousands_points and formats.has_thousands_points(known):
        return NumberFormat(".", ",")
    whole = bool((numbers == numbers.round()).all())
    if whole and formats.are_codes(known):
        return None
    return formats.compact_dates(known) if whole else NumberFormat()


def _format(name: str, known: pl.Series, rules: Rules) -> Format | None:
    with _dates_asked_about(name):
        return formats.of_text(known, decimal_comma=rules.decimal_comma, date_order=rules.roles.date_order)


def _format_of_most(name: str, known: pl.Series, rules: Rules) -> Format | None:
    """The format that more than half of the cells have; booleans where the user says that the column is numeric."""
    with _dates_asked_about(name):
        return formats.of_most(
            known,
            decimal_comma=rules.decimal_comma,
            date_order=rules.roles.date_order,
            booleans=name in rules.roles.numeric,
        )


@contextmanager
def _dates_asked_about(name: str) -> Iterator[None]:
    try:
        yield
    except AmbiguousDatesError as error:
        raise InputError(
            f"The column {name!r} holds dates such as {str(error)!r}, of which the first number may be the day or the "
            "month. Pass --date-order dmy or --date-order mdy."
        ) from None


def _numbers(column: pl.Series, cells: pl.Series, form: Format) -> _Read:
    values = form.read(cells)
    if isinstance(form, NumberFormat):
        values = values.rename({values.columns[0]: column.name})
    told = form.describe()
    absent = int(_absent(values.to_series(0)).sum())
    return _Read(
        values,
        f"numeric ({told})" if told else "numeric",
        form,
        absent,
        Missing().told(column, cells) if absent else "",
    )


def _absent(column: pl.Series) -> pl.Series:
    return column.is_null() | column.is_nan() if column.dtype.is_float() else column.is_null()


def _as_numbers(column: pl.Series, rules: Rules, form: Format | None = None) -> _Read:
    """A column of numbers, in which other cells are taken as missing where that is asked for."""
    name = column.name
    if column.dtype.is_nested() and formats.of_type(column) is None:
        raise InputError(f"--numeric: the column {name!r} is {column.dtype}.")
    cells = rules.missing.numbers(column)
    if form is None and column.dtype in STRINGS:
        known = cells.cast(pl.String).drop_nulls()
        form = NumberFormat()
        if form.read(known).to_series().null_count():
            form = _format(name, known, rules) or _format_of_most(name, known, rules) or form
    elif form is None:
        form = NumberFormat() if not column.dtype.is_nested() else formats.of_type(column)
    assert form is not None
    read = _numbers(column, cells, form)
    wrong = unreadable(cells, read.values)
    if not wrong.any():
        return read
    message = told_unreadable(name, cells, wrong, form)
    asked = name in rules.roles.numeric
    if not rules.roles.impute:
        ways = (
            ""
            if asked
            else f"--categorical {shlex.quote(name)} to read all as they are written, --drop to leave it out, or "
        )
        numeric = "" if asked else f"--numeric {shlex.quote(name)} "
        raise InputError(
            f"{'--numeric: ' if asked else ''}{message} Pass {ways}{numeric}--impute to take these for missing."
        )
    if wrong.sum() > cells.count() / 2:
        raise InputError(
            f"{message} That is more than half of its cells: pass --categorical {shlex.quote(name)} or "
            f"--drop {shlex.quote(name)}."
        )
    if wrong.sum() > UNREADABLE * len(column) and not asked:
        raise InputError(
            f"{message} That is more than {UNREADABLE:.0%} of the rows, too many to take for missing: pass "
            f"--categorical {shlex.quote(name)}, --drop {shlex.quote(name)}, or --numeric {shlex.quote(name)} to do so."
        )
    return replace(read, note=f"{message} They are taken for missing.")


def numbers_of(column: pl.Series, missing: Missing) -> pl.Series:
    """The numbers of a column that is no feature, such as weights; typed columns stay as they are.

    Raises:
        InputError: cells are no numbers.
    """
    if column.dtype != pl.String or not missing.written:
        return column
    values = _as_numbers(column, Rules(Roles(numeric=(column.name,)), missing)).values
    return values if isinstance(values, pl.Series) else values.to_series()


def unreadable(cells: pl.Series, values: pl.Series | pl.DataFrame) -> pl.Series:
    """Where cells that stand for something are no numbers."""
    first = values if isinstance(values, pl.Series) else values.to_series(0)
    return first.is_null() & cells.is_not_null()


def told_unreadable(name: str, cells: pl.Series, wrong: pl.Series, form: Format) -> str:
    """Which cells of a column of numbers or dates are none, the first three with their rows."""
    rows = wrong.arg_true()
    first = ", ".join(f"{cells[int(at)]!r} in row {int(at) + 1}" for at in rows[:3])
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return (
        f"The column {name!r} is of {form.plural}, but holds {first}{more} ({len(rows)} of {len(cells)} rows are no "
        f"{form.plural})."
    )


def _as_categories(column: pl.Series, rules: Rules) -> _Read:
    strings = column.dtype in STRINGS
    values = rules.missing.values(column) if strings else rules.missing.numbers(column).cast(pl.String)
    told = rules.missing.told(column, values) if values.null_count() else ""
    return _Read(values.alias(column.name), "categorical", missing=values.null_count(), taken=told)


def _learnt(values: pl.Series, rules: Rules) -> pl.Series:
    """The rows to learn from."""
    return values if rules.test is None else values.filter(~rules.test)


def _is_empty(values: pl.Series, rules: Rules) -> bool:
    return bool(_absent(_learnt(values, rules)).all())


def _is_constant(values: pl.Series, rules: Rules) -> bool:
    """Whether all values that are there are the same."""
    learnt = _learnt(values, rules)
    known = learnt.filter(~_absent(learnt))
    return known.head(1000).n_unique() == 1 and known.n_unique() == 1


def _names_rows(values: pl.Series, rules: Rules, are_ids: Callable[[pl.Series], bool]) -> bool:
    """Whether the values of the rows to learn from, or those of all rows, are ids."""
    parts = [values] if rules.test is None else [_learnt(values, rules), values]
    return not rules.arrays and any(
        len(part) >= FEWEST_IDS and not part.null_count() and part.head(1000).is_unique().all() and are_ids(part)
        for part in parts
    )


def _numbers_rows(column: pl.Series) -> bool:
    """Whether whole numbers, none of them twice, are ids: as the name says, or one after the other, but for years."""
    if column.dtype == pl.String and column.head(100).cast(pl.Int128, strict=False).null_count():
        return False
    if not (column.dtype.is_integer() or column.dtype == pl.String):
        return False
    numbers = column.cast(pl.Int128, strict=False)
    if numbers.null_count() or column.n_unique() < len(column):
        return False
    if _ID.search(column.name):
        return True
    years = _YEARS[0] <= numbers.min() and numbers.max() <= _YEARS[1]  # type: ignore[operator]
    return not years and bool((numbers.diff().drop_nulls() == 1).all())


def _is_a_word_for_each(column: pl.Series) -> bool:
    """Whether strings, none of them twice, are ids: as the name says, or since each is a single word."""
    if column.dtype != pl.String or column.n_unique() < len(column):
        return False
    return bool(_ID.search(column.name)) or not column.str.contains(r"\S\s+\S").any()


def _is_text(values: pl.Series) -> bool:
    """Whether strings are too many to be categories, and long."""
    return (
        values.n_unique() > _most_categories(values)
        and 2 * int((values.str.count_matches(r"\S+") >= _WORDS).sum()) >= len(values) - values.null_count()
    )


def _left_out(names: list[str], why: str) -> str:
    """A sentence on columns that are left out."""
    if len(names) > 1:
        return f"Left out: {len(names)} columns, {why}: {listed(names)}."
    return f"Left out: the column {names[0]!r}, {why}."


def not_finite(numeric: pl.DataFrame) -> list[str]:
    """Which columns are infinite."""
    found = []
    for column in numeric:
        wrong = column.cast(pl.Float32).is_infinite().fill_null(False)
        if wrong.any():
            found.append(
                f"The column {column.name!r} is infinite in {wrong.sum()} rows, the first of them row "
                f"{wrong.arg_true()[0] + 1} of the data (in single precision: beyond 3.4e38)."
            )
    return found


def _too_many(column: pl.Series) -> str:
    """What the user may do with strings too many to be categories; nothing for others."""
    distinct = column.n_unique()
    if distinct <= _most_categories(column):
        return ""
    name = shlex.quote(column.name)
    return (
        f"The column {column.name!r} holds {distinct} distinct strings in {len(column)} rows. Pass --text {name} to "
        f"read it as text, or leave it out by --drop {name}."
    )


def _most_categories(column: pl.Series) -> int:
    return max(MANY_VALUES, len(column) // 2)


def described(frame: pl.DataFrame, types: dict[str, str], missing: dict[str, int]) -> list[Column]:
    """Every column of a table, with how many values are missing and the first distinct ones."""
    return [
        Column(
            column.name,
            types[column.name],
            missing.get(column.name, _missing(column)),
            _examples(column),
            str(column.dtype),
        )
        for column in frame
        if column.name in types
    ]


def _missing(column: pl.Series) -> int:
    absent = column.null_count() + (int(column.is_nan().sum()) if column.dtype.is_float() else 0)
    return absent + (int((column == "").sum()) if column.dtype == pl.String else 0)


def _examples(column: pl.Series) -> list[str]:
    if column.dtype.is_nested():
        return []
    known = column.drop_nulls().head(1000)
    if known.dtype == pl.String:
        known = known.str.strip_chars()
        known = known.filter(known != "")
    return [f"{v:g}" if isinstance(v, float) else str(v) for v in known.unique(maintain_order=True).head(3)]
