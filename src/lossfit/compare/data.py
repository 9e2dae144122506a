"""Sources of data: the bundled sets, and tables in .csv or .parquet files."""

from __future__ import annotations

import csv
import hashlib
import html
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np
import polars as pl

from lossfit.compare.errors import InputError

BUNDLED = {
    "tweets": "4,200 tweet-like texts as sentence vectors (all-MiniLM-L6-v2); each split trains and validates on the "
    "label of one rater drawn for each text, and tests on the majority. C.J. Hutto and E. Gilbert, VADER, 2014 (MIT).",
    "yeast": "UCI Yeast: 1,453 proteins, 8 measurements, 10 places in the cell with 438 down to 5 rows. K. Nakai "
    "(CC BY 4.0).",
}
MANY_VALUES = 50
# What stands for a missing value in a .csv file, besides nothing.
MISSING = ["NA", "N/A", "n/a", "<NA>", "NaN", "nan", "null", "NULL"]
# The names that tables get for their row numbers.
ROW_NUMBERS = ("", "Unnamed: 0", "__index_level_0__")


@dataclass(frozen=True)
class Dataset:
    """A classification problem.

    Attributes:
        name: what to call it.
        labels: class indices (N,); or, where any number of classes may be right, which are (N, C), as bools.
        classes: their names.
        numeric: columns of numbers, (N, .).
        categorical: columns of strings, (N, .).
        text: a column of texts.
        votes: how many raters chose each class, (N, C). Then ``labels`` is the majority.
        fingerprint: of what was read, to recognise it again.
        notes: what should be known of the reading.
    """

    name: str
    labels: np.ndarray
    classes: list[str]
    fingerprint: str
    numeric: pl.DataFrame = field(default_factory=pl.DataFrame)
    categorical: pl.DataFrame = field(default_factory=pl.DataFrame)
    text: list[str] | None = None
    votes: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> np.ndarray:
        """Rows of each class."""
        if self.labels.ndim == 2:
            counts: np.ndarray = self.labels.sum(0)
            return counts
        return np.bincount(self.labels, minlength=len(self.classes))


def load(
    source: str,
    target: str | tuple[str, ...] | None = None,
    *,
    text: str | None = None,
    drop: tuple[str, ...] = (),
    impute: bool = False,
) -> Dataset:
    """A bundled set by its name, or a table from a file.

    Args:
        source: "tweets", "yeast", or the path of a .csv or .parquet file.
        target: the column with the classes; or several columns, each with whether that class is right. Only for a
            file, and needed there.
        text: a column to read as text.
        drop: columns to leave out.
        impute: fill missing numbers with the median of the training rows and missing categories with "missing",
            instead of raising.

    Raises:
        InputError: with what is wrong and where.
    """
    if source in BUNDLED:
        if target or text or drop:
            raise InputError(f"The bundled set {source!r} needs no --target, --text or --drop.")
        return _tweets() if source == "tweets" else _yeast()
    path = Path(source)
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(
            f"Expected SOURCE to be one of {', '.join(BUNDLED)} or a .csv or .parquet file, but got {source!r}."
        )
    if not path.is_file():
        raise InputError(f"There is no file {source!r}.")
    return table(read_file(path), path.stem, target, text=text, drop=drop, impute=impute, fingerprint=_hash(path))


def table(
    frame: pl.DataFrame,
    name: str,
    target: str | tuple[str, ...] | None,
    *,
    text: str | None = None,
    drop: tuple[str, ...] = (),
    impute: bool = False,
    fingerprint: str = "",
) -> Dataset:
    """A data set from a table: numbers and booleans are numeric, strings categorical, the rest is left out."""
    columns = ", ".join(frame.columns)
    targets = (target,) if isinstance(target, str) else target
    if not targets:
        raise InputError(f"Name the column with the classes by --target. The columns are: {columns}.")
    named: dict[str, str] = {}
    for option, column in (
        *(("--target", column) for column in targets),
        ("--text", text),
        *(("--drop", column) for column in dict.fromkeys(drop)),
    ):
        if column is None:
            continue
        if column not in frame.columns:
            raise InputError(f"{option}: there is no column {column!r}. The columns are: {columns}.")
        if column in named:
            raise InputError(f"{option}: the column {column!r} is named by {named[column]} already.")
        named[column] = option
    labels, classes = _classes(frame[targets[0]]) if len(targets) == 1 else _right(frame.select(targets))
    frame = frame.drop(*targets, *drop)
    notes = [f"Left out: the column {c!r}, which holds row numbers." for c in frame.columns if c in ROW_NUMBERS]
    frame = frame.select(c for c in frame.columns if c not in ROW_NUMBERS or c == text)
    texts = None
    if text is not None:
        if frame[text].dtype != pl.String:
            raise InputError(f"Expected the column {text!r} to hold text, but it is {frame[text].dtype}.")
        texts = frame[text].fill_null("").to_list()
        frame = frame.drop(text)
    numeric = frame.select(pl.selectors.numeric() | pl.selectors.boolean()).cast(pl.Float64)
    categorical = frame.select(pl.selectors.string() | pl.selectors.categorical() | pl.selectors.enum())
    categorical = categorical.cast(pl.String)
    left_out = [c for c in frame.columns if c not in numeric.columns and c not in categorical.columns]
    notes += [f"Left out: the column {c!r} of type {frame[c].dtype}." for c in left_out]
    _check_finite(numeric)
    _check_missing(numeric, categorical, impute)
    _check_categories(categorical)
    notes += [f"{hint} It is read as categories." for column in categorical if (hint := _almost_numbers(column))]
    if impute:
        categorical = categorical.fill_null("missing")
    if not numeric.width and not categorical.width and texts is None:
        told = ", ".join(map(repr, targets))
        raise InputError(f"No column is left to learn from. The columns are: {columns}; the target is {told}.")
    return Dataset(name, labels, classes, fingerprint, numeric, categorical, texts, notes=notes)


def read_file(path: Path) -> pl.DataFrame:
    """The table in a .csv or .parquet file.

    Raises:
        InputError: it is empty, or not what its name says.
    """
    if path.stat().st_size == 0:
        raise InputError(f"The file {str(path)!r} is empty.")
    try:
        if path.suffix == ".csv":
            _check_header(path)
            frame = pl.read_csv(path, infer_schema_length=None, null_values=MISSING)
        else:
            frame = pl.read_parquet(path)
    except InputError:
        raise
    except (pl.exceptions.PolarsError, csv.Error, OSError, UnicodeDecodeError) as error:
        raise InputError(f"The file {str(path)!r} cannot be read as {path.suffix}: {error}") from error
    if frame.is_empty():
        raise InputError(f"The file {str(path)!r} has a header but no rows.")
    return frame


def _check_header(path: Path) -> None:
    with open(path, encoding="utf-8-sig", newline="") as file:
        header = next((row for row in csv.reader(file) if row), [])
    twice = sorted({c for c in header if header.count(c) > 1})
    if twice:
        raise InputError(f"The file {str(path)!r} has several columns of the same name: {', '.join(map(repr, twice))}.")


def _classes(column: pl.Series) -> tuple[np.ndarray, list[str]]:
    if column.dtype.is_nested():
        raise InputError(f"Expected the target {column.name!r} to hold classes, but it is {column.dtype}.")
    if column.dtype.is_decimal():
        column = column.cast(pl.Float64)
    missing = column.is_null()
    if column.dtype.is_float():
        missing |= column.is_nan()
    if missing.any():
        at = missing.arg_true().to_list()
        raise InputError(
            f"The target {column.name!r} is missing in {len(at)} rows, the first of them row {at[0] + 1} of the data."
        )
    if column.dtype.is_float() and (column != column.round()).any():
        raise InputError(
            f"The target {column.name!r} holds fractions ({column.n_unique()} distinct values): lossfit compares "
            "classifiers, and needs classes."
        )
    if column.dtype.is_float():
        whole = column.cast(pl.Int64, strict=False)
        if whole.has_nulls():
            strange = column.filter(whole.is_null())[0]
            raise InputError(f"The target {column.name!r} holds {strange:g}, which is no class.")
        column = whole
    values = column.unique().sort()
    names = [str(v) for v in values]
    if len(names) < 2:
        raise InputError(
            f"The target {column.name!r} has one class only, {names[0]!r}; there is nothing to tell apart."
        )
    index = {value: i for i, value in enumerate(values)}
    return np.array([index[v] for v in column], dtype=np.int64), names


def _right(columns: pl.DataFrame) -> tuple[np.ndarray, list[str]]:
    """Which classes are right, from columns of 0 and 1 or of false and true."""
    for column in columns:
        if column.null_count():
            at = column.is_null().arg_true()[0] + 1
            raise InputError(f"The target {column.name!r} is missing in {column.null_count()} rows, first in row {at}.")
        if not (column.dtype == pl.Boolean or (column.dtype.is_numeric() and ((column == 0) | (column == 1)).all())):
            wrong = next((v for v in column if v not in (0, 1)), None)
            raise InputError(
                f"With several --target, each is a column of 0 and 1; {column.name!r} holds {wrong!r}. For one column "
                "with the name of the class, pass one --target."
            )
        if column.n_unique() < 2:
            raise InputError(f"The target {column.name!r} is {column[0]} in every row; there is nothing to tell apart.")
    return columns.cast(pl.Boolean).to_numpy(), columns.columns


def _check_finite(numeric: pl.DataFrame) -> None:
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
    missing = {name: count for name, count in missing.items() if count}
    if missing and not impute:
        listed = ", ".join(f"{name!r} ({count} rows)" for name, count in missing.items())
        raise InputError(
            f"Values are missing in {listed}. Pass --impute to fill them in, or leave columns out by --drop."
        )


def _check_categories(categorical: pl.DataFrame) -> None:
    for column in categorical:
        distinct = column.n_unique()
        if distinct > max(MANY_VALUES, len(column) // 2):
            raise InputError(
                f"The column {column.name!r} holds {distinct} distinct strings in {len(column)} rows. Pass "
                f"--text {column.name} to read it as text, or leave it out by --drop {column.name}. "
                f"{_almost_numbers(column)}".rstrip()
            )


def _almost_numbers(column: pl.Series) -> str:
    """What keeps a column of strings, most of them numbers, from being numeric; nothing for other columns."""
    wrong = column.cast(pl.Float64, strict=False).is_null() & column.is_not_null()
    if not 0 < wrong.sum() < len(column) / 2:
        return ""
    at = int(wrong.arg_true()[0])
    return f"The column {column.name!r} would be numeric but for {column[at]!r} in row {at + 1} of the data."


def _tweets() -> Dataset:
    frame = pl.read_csv(_bundled("tweets.csv"))
    vectors = np.load(_bundled("tweets.npy"), allow_pickle=False).astype(np.float32)
    classes = ["negative", "neutral", "positive"]
    votes = frame.select(classes).to_numpy()
    clear = (votes == votes.max(1, keepdims=True)).sum(1) == 1
    return Dataset(
        "tweets",
        votes[clear].argmax(1),
        classes,
        _hash(_bundled("tweets.csv")),
        numeric=pl.DataFrame(vectors[clear], schema=[f"v{i}" for i in range(vectors.shape[1])]),
        votes=votes[clear],
        notes=[BUNDLED["tweets"], f"Left out: {int((~clear).sum())} texts on which the raters tie."],
    )


def tweet_texts() -> list[str]:
    """The texts of the bundled tweets."""
    return [html.unescape(t) for t in pl.read_csv(_bundled("tweets.csv"))["text"]]


def _yeast() -> Dataset:
    path = _bundled("yeast.csv")
    found = table(pl.read_csv(path), "yeast", "localization", fingerprint=_hash(path))
    found.notes.append(BUNDLED["yeast"])
    return found


def _bundled(name: str) -> Path:
    return Path(str(files("lossfit.compare") / "bundled" / name))


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
