"""What each column of a table is: inferred, told to the user, and checked."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from lossfit.compare.errors import InputError, listed

MANY_VALUES = 50
# Half of the values of a column of texts have so many words; names and addresses have fewer.
_WORDS = 5
# The names that tables get for their row numbers.
ROW_NUMBERS = ("", "Unnamed: 0", "__index_level_0__")
# Fewer rows can be numbered in order by chance.
FEWEST_IDS = 20
_NUMBERS, _EMPTY, _CONSTANT = "row numbers", "empty", "the same in every row"
_IDS = "an id, different in every row; --numeric or --categorical keeps it"
STRINGS = (pl.String, pl.Categorical, pl.Enum)
_SHORT = {_NUMBERS: "row number", _EMPTY: "empty", _CONSTANT: "constant", _IDS: "id"}
_ID = re.compile(
    r"(?i:^(id|uuid|guid|index|idx|key|row|row[_ ]?(number|num|nr|id))$|(_|-|\s|\.)(id|uuid|guid)$)|[a-z]I[dD]$"
)


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


def check_names(frame: pl.DataFrame, roles: Roles) -> None:
    """Raise InputError if a column that is named is not there, or has two roles."""
    columns = ", ".join(frame.columns)
    options: dict[str, str] = {}
    for option, column in roles.named:
        if column not in frame.columns:
            raise InputError(f"{option}: there is no column {column!r}. The columns are: {columns}.")
        if column in options:
            raise InputError(f"{option}: the column {column!r} is named by {options[column]} already.")
        options[column] = option


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
        types: of every column of the table, by name.
        notes: what was left out, and why.
    """

    numeric: pl.DataFrame
    categorical: pl.DataFrame
    types: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def features(frame: pl.DataFrame, roles: Roles, arrays: bool = False, test: np.ndarray | None = None) -> Features:
    """Numbers and booleans are numeric, strings categorical; the rest is left out, as is what cannot tell anything.

    Left out are columns that are empty or the same in every row, row numbers and ids, and columns of other types;
    unless the user names them.

    Args:
        frame: the columns that have no other role.
        roles: for the columns that the user names as numeric or categorical.
        arrays: the columns are those of an array, so that none is an id.
        test: the rows that are not learnt from, which do not count for what can be told from a column.

    Raises:
        InputError: a column named as numeric holds something else, numbers are not finite, or strings are too many to
            be categories.
    """
    asked = {*roles.numeric, *roles.categorical}
    frame = _as_asked(frame, roles)
    found = Features(pl.DataFrame(), pl.DataFrame())
    out: dict[str, list[str]] = {}
    for column in frame if test is None else frame.filter(~test):
        why = None if column.name in asked else _useless(column, arrays, frame[column.name])
        if why:
            out.setdefault(why, []).append(column.name)
            found.types[column.name] = f"{_SHORT.get(why, str(column.dtype))} (left out)"
    found.notes = [_left_out(names, why) for why, names in out.items()]
    frame = frame.drop(found.types)
    for column in frame:
        found.types[column.name] = "categorical" if column.dtype in STRINGS else "numeric"
    numeric = frame.select(c for c in frame.columns if found.types[c] == "numeric")
    single = arrays and all(dtype == pl.Float32 for dtype in numeric.dtypes)
    found.numeric = numeric if single else numeric.cast(pl.Float64)
    found.categorical = frame.select(c for c in frame.columns if found.types[c] == "categorical").cast(pl.String)
    check_finite(found.numeric)
    _check_missing(found.numeric, found.categorical, roles.impute)
    _check_categories(found.categorical.drop(roles.categorical, strict=False))
    hints = {column.name: _almost_numbers(column) for column in found.categorical if column.name not in asked}
    found.notes += [
        f"{hint} It is read as categories; --numeric {name} --impute takes the others as missing."
        for name, hint in hints.items()
        if hint
    ]
    if roles.impute:
        found.categorical = found.categorical.fill_null("missing")
    return found


def texts(frame: pl.DataFrame, roles: Roles) -> list[str]:
    """Columns to read as text although the user does not say so: of strings too many to be categories, and long ones.

    Args:
        frame: the columns that have no other role.
        roles: for the columns that the user names as numeric or categorical.
    """
    return [
        column.name
        for column in frame.drop(roles.numeric, roles.categorical)
        if column.dtype == pl.String
        and column.n_unique() > _most_categories(column)
        and 2 * (column.str.count_matches(r"\S+") >= _WORDS).sum() >= column.len() - column.null_count()
    ]


def _as_asked(frame: pl.DataFrame, roles: Roles) -> pl.DataFrame:
    for name in roles.numeric:
        column = frame[name]
        if column.dtype.is_nested():
            raise InputError(f"--numeric: the column {name!r} is {column.dtype}.")
        if column.dtype.is_float():
            continue
        numbers, wrong = as_numbers(column)
        if wrong.any() and not roles.impute:
            at = int(wrong.arg_true()[0])
            raise InputError(
                f"--numeric: the column {name!r} holds {column[at]!r} in row {at + 1} of the data ({wrong.sum()} rows "
                "are no numbers). Pass --impute to take these for missing."
            )
        frame = frame.with_columns(numbers.alias(name))
    for name in roles.categorical:
        if frame[name].dtype.is_nested():
            raise InputError(f"--categorical: the column {name!r} is {frame[name].dtype}.")
        frame = frame.with_columns(frame[name].cast(pl.String))
    return frame


def as_numbers(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Numbers from a column of any single values, and where there is a value that is none."""
    plain = column.cast(pl.String).str.strip_chars() if column.dtype in STRINGS else column
    numbers = (plain.to_physical() if plain.dtype.is_temporal() else plain).cast(pl.Float64, strict=False)
    return numbers, numbers.is_null() & column.is_not_null()


def _useless(column: pl.Series, arrays: bool, whole: pl.Series) -> str | None:
    """Why nothing can be learnt from a column, of the rows to learn from or the whole; None if something may."""
    if column.name in ROW_NUMBERS:
        return _NUMBERS
    known = column.drop_nulls()
    known = known.drop_nans() if known.dtype.is_float() else known
    if not len(known):
        return _EMPTY
    number = column.dtype.is_numeric() or column.dtype == pl.Boolean
    if not number and column.dtype not in STRINGS:
        return f"of type {column.dtype}"
    # A missing string is a category of its own; a missing number is filled in.
    if known.n_unique() == 1 and (number or len(known) == len(column)):
        return _CONSTANT
    if not arrays and (_is_id(column) or _is_id(whole)):
        return _IDS
    return None


def _is_id(column: pl.Series) -> bool:
    """Whether a column numbers the rows, or names them: as its name says, or by a single word for each."""
    if len(column) < FEWEST_IDS or column.null_count() or column.n_unique() < len(column):
        return False
    if column.dtype.is_integer():
        return bool(_ID.search(column.name)) or bool((column.cast(pl.Int128).diff().drop_nulls() == 1).all())
    if column.dtype != pl.String:
        return False
    words = column.str.contains(r"\S\s+\S").any() or _almost_numbers(column)
    return bool(_ID.search(column.name)) or not words


def _left_out(names: list[str], why: str) -> str:
    """A sentence on columns that are left out."""
    if len(names) > 1:
        return f"Left out: {len(names)} columns, {why}: {listed(names)}."
    return f"Left out: the column {names[0]!r}, {why}."


def check_finite(numeric: pl.DataFrame) -> None:
    for column in numeric:
        wrong = column.cast(pl.Float32).is_infinite().fill_null(False)
        if wrong.any():
            raise InputError(
                f"The column {column.name!r} is infinite in {wrong.sum()} rows, the first of them row "
                f"{wrong.arg_true()[0] + 1} of the data (in single precision: beyond 3.4e38)."
            )


def _check_missing(numeric: pl.DataFrame, categorical: pl.DataFrame, impute: bool) -> None:
    missing = {c.name: int((c.is_null() | c.is_nan()).sum()) for c in numeric}
    missing |= {c.name: c.null_count() for c in categorical}
    told = [f"{name!r} ({count} rows)" for name, count in missing.items() if count]
    if told and not impute:
        more = f" and {len(told) - 10} more columns" if len(told) > 10 else ""
        raise InputError(
            f"Values are missing in {', '.join(told[:10])}{more}. Pass --impute to fill them in, or leave columns out "
            "by --drop."
        )


def _check_categories(categorical: pl.DataFrame) -> None:
    for column in categorical:
        distinct = column.n_unique()
        if distinct > _most_categories(column):
            raise InputError(
                f"The column {column.name!r} holds {distinct} distinct strings in {len(column)} rows. Pass "
                f"--text {column.name} to read it as text, or leave it out by --drop {column.name}. "
                f"{_almost_numbers(column)}".rstrip()
            )


def _most_categories(column: pl.Series) -> int:
    return max(MANY_VALUES, len(column) // 2)


def _almost_numbers(column: pl.Series) -> str:
    """What keeps a column of strings, most of them numbers, from being numeric; nothing for other columns."""
    wrong = column.cast(pl.Float64, strict=False).is_null() & column.is_not_null()
    if not 0 < wrong.sum() < len(column) / 2:
        return ""
    at = int(wrong.arg_true()[0])
    return f"The column {column.name!r} would be numeric but for {column[at]!r} in row {at + 1} of the data."


def described(frame: pl.DataFrame, types: dict[str, str]) -> list[Column]:
    """Every column of a table, with how many values are missing and the first distinct ones."""
    return [
        Column(column.name, types[column.name], _missing(column), _examples(column), str(column.dtype))
        for column in frame
        if column.name in types
    ]


def _missing(column: pl.Series) -> int:
    return column.null_count() + (int(column.is_nan().sum()) if column.dtype.is_float() else 0)


def _examples(column: pl.Series) -> list[str]:
    if column.dtype.is_nested():
        return []
    known = column.drop_nulls().head(1000)
    return [f"{v:g}" if isinstance(v, float) else str(v) for v in known.unique(maintain_order=True).head(3)]
