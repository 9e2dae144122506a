"""From a source to a classification problem."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from lossfit.compare.data import columns, leaks, row_roles, sources, targets
from lossfit.compare.data.cells import Missing, look_like_codes
from lossfit.compare.data.columns import Column, Roles
from lossfit.compare.data.formats import Format
from lossfit.compare.data.names import resolved
from lossfit.compare.data.sources import bundled
from lossfit.compare.data.sources.bundled import BUNDLED
from lossfit.compare.data.sources.dialect import FileOptions
from lossfit.compare.data.sources.raw_table import Raw, with_test
from lossfit.compare.errors import InputError, listed

__all__ = ["BUNDLED", "Dataset", "load", "table"]

_MOST_NAMES = 30


@dataclass(frozen=True)
class Dataset:
    """A classification problem.

    Attributes:
        name: what to call it.
        labels: class indices (N,); or, where any number of classes may be right, which are (N, C), as bools.
        classes: their names.
        numeric: columns of numbers, (N, .).
        categorical: columns of strings, (N, .).
        text: columns of texts, (N, .).
        images: (N, height, width, channels).
        votes: how many raters chose each class, or its probability, (N, C). Then ``labels`` is the majority.
        groups: numbers (N,); rows of the same number stay together.
        weight: what each row counts, (N,), 1 in the mean.
        test: which rows are to test on (N,), where that is given.
        fingerprint: of what was read, to recognise it again.
        columns: what was read, to be shown; of bundled sets, nothing.
        target: the columns of the labels, if they are not votes.
        notes: what should be known of the reading.
        formats: how numeric columns are written, by the name of the column that they were read from.
        missing: which cells were missing.
        mark: what stands between the classes of a row, where one column holds any number of them; else nothing.
    """

    name: str
    labels: np.ndarray
    classes: list[str]
    fingerprint: str
    numeric: pl.DataFrame = field(default_factory=pl.DataFrame)
    categorical: pl.DataFrame = field(default_factory=pl.DataFrame)
    text: pl.DataFrame = field(default_factory=pl.DataFrame)
    votes: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)
    images: np.ndarray | None = None
    groups: np.ndarray | None = None
    weight: np.ndarray | None = None
    test: np.ndarray | None = None
    columns: list[Column] = field(default_factory=list)
    target: tuple[str, ...] = ()
    formats: dict[str, Format] = field(default_factory=dict)
    missing: Missing = field(default_factory=Missing)
    mark: str = ""

    @property
    def rows(self) -> int:
        return len(self.labels)

    @property
    def image(self) -> tuple[int, int, int] | None:
        """Channels, height and width, if there are images."""
        if self.images is None:
            return None
        _, height, width, channels = self.images.shape
        return channels, height, width

    @property
    def counts(self) -> np.ndarray:
        """Rows of each class."""
        if self.labels.ndim == 2:
            counts: np.ndarray = self.labels.sum(0)
            return counts
        return np.bincount(self.labels, minlength=len(self.classes))


def load(
    source: str | Sequence[str],
    target: str | tuple[str, ...] | None = None,
    *,
    test: str | None = None,
    files: FileOptions = FileOptions(),  # noqa: B008
    **roles: Any,
) -> Dataset:
    """A bundled set by its name, or what a file, several of them, or a folder hold.

    Args:
        source: "tweets", "yeast", a path, or several: see :func:`lossfit.compare.data.sources.read`.
        target: the column with the classes; or several columns, each with whether that class is right. Needed for
            tables.
        test: a file or folder of the rows to test on, with the same columns.
        files: how files are written.
        roles: of the columns, the fields of :class:`~lossfit.compare.data.columns.Roles`.

    Raises:
        InputError: with what is wrong and where; one line for each problem.
    """
    return read(source, _roles(target, roles), test, files)


def read(
    source: str | Sequence[str],
    roles: Roles,
    test: str | None = None,
    files: FileOptions = FileOptions(),  # noqa: B008
) -> Dataset:
    """As :func:`load`, with the roles of the columns."""
    if isinstance(source, str) and source in BUNDLED:
        if test or roles != Roles():
            raise InputError(f"The bundled set {source!r} needs no --target, --text, --drop or other columns.")
        if source == "yeast":
            return replace(_dataset(bundled.yeast(), source, Roles()), columns=[])
        raw = bundled.tweets()
        vectors = tuple(c for c in raw.frame.columns if c not in bundled.TWEET_CLASSES)
        found = _dataset(raw, source, Roles(votes=bundled.TWEET_CLASSES, numeric=vectors))
        return replace(found, columns=[])
    raw = sources.read(source, options=files)
    if test is not None:
        size = None if raw.images is None else (raw.images.shape[1], raw.images.shape[2])
        rows = sources.read(test, size, files)
        told = source if isinstance(source, str) else " ".join(source)
        raw = with_test(raw, rows, (told, test), _separate(roles.drop, raw.frame))
    return _dataset(raw, sources.name_of(source), roles)


def table(
    frame: pl.DataFrame, name: str, target: str | tuple[str, ...] | None, *, fingerprint: str = "", **roles: Any
) -> Dataset:
    """A data set from a table, as :func:`load` makes one from a file."""
    return _dataset(Raw(frame, fingerprint), name, _roles(target, roles))


def _roles(target: str | tuple[str, ...] | None, roles: dict[str, Any]) -> Roles:
    text = roles.pop("text", None) or ()
    target = (target,) if isinstance(target, str) else target or ()
    return Roles(target, text=(text,) if isinstance(text, str) else tuple(text), **roles)


def _dataset(raw: Raw, name: str, roles: Roles) -> Dataset:
    roles = _named(raw, roles)
    there = ", ".join(raw.frame.columns[:_MOST_NAMES])
    there += f" and {raw.frame.width - _MOST_NAMES:,} more" if raw.frame.width > _MOST_NAMES else ""
    if not roles.target and not roles.votes:
        raise InputError(f"Name the column with the classes by --target. The columns are: {there}.")
    if roles.target and roles.votes:
        raise InputError("Expected one of --target and --votes, but got both.")
    if wrong := columns.check_names(raw.frame, roles):
        raise InputError(*wrong)
    notes, problems = list(raw.notes), list[str]()
    missing, told = _missing(raw, roles)
    notes += told
    if roles.test_column is not None:
        if raw.test is not None:
            raise InputError("The rows to test on are given already; leave out --test-column.")
        with _collected(problems):
            column = raw.frame[roles.test_column]
            raw = replace(raw, test=row_roles.to_test_on(missing.values(column) if raw.written else column))
    weight = votes = groups = None
    if roles.weight is not None:
        with _collected(problems):
            weight = row_roles.weights(columns.numbers_of(raw.frame[roles.weight], missing))
            raw, weight, told = _of_some_weight(raw, weight, roles, missing)
            notes += told
    labels, classes, mark = np.zeros(raw.frame.height, dtype=np.int64), [""], ""
    with _collected(problems):
        if roles.votes:
            votes = targets.votes(pl.DataFrame([columns.numbers_of(raw.frame[c], missing) for c in roles.votes]))
            clear = targets.untied(votes)
            if not clear.all():
                notes.append(f"Left out: {int((~clear).sum())} rows without one class of most votes.")
                raw, votes = _select(raw, clear), votes[clear]
                weight = None if weight is None else weight[clear] / weight[clear].mean()
            labels, classes = votes.argmax(1), list(roles.votes)
            notes.append(
                f"The classes are the columns {', '.join(classes)}: in each repeat models are trained and chosen on "
                "labels drawn from each row's votes, and tested on the class of most votes."
            )
        elif roles.multi_label and len(roles.target) == 1:
            labels, classes, mark = targets.tags(raw.frame[roles.target[0]], missing)
            notes.append(f"Each row of {roles.target[0]!r} has any number of {len(classes)} classes, {_told(mark)}.")
        elif len(roles.target) == 1:
            labels, classes, told = targets.classes(raw.frame[roles.target[0]], missing)
            notes += told
        else:
            labels, classes = targets.right(raw.frame.select(roles.target), missing)
    frame = raw.frame
    types = dict.fromkeys(roles.target, "target") | dict.fromkeys(roles.votes, "votes")
    types |= dict.fromkeys(roles.drop, "(left out)")
    if roles.votes and raw.target is not None:
        types.setdefault(raw.target, "target (left out)")
    if roles.group is not None:
        types[roles.group] = "group"
        with _collected(problems):
            values = frame[roles.group]
            groups = row_roles.groups(missing.values(values) if values.dtype == pl.String else values)
            notes.append(f"No value of {roles.group!r} is in two folds; there are {groups.max() + 1} of them.")
    if roles.weight is not None:
        types[roles.weight] = "weight"
        notes.append(f"Rows count by {roles.weight!r}, in training and in the metrics.")
    if roles.test_column is not None:
        types[roles.test_column] = "rows to test on"
    rules = columns.Rules(roles, missing, raw.arrays, raw.decimal_comma, test=raw.test)
    found = columns.features(frame.drop(types), rules)
    problems += found.problems
    if problems:
        raise InputError(*problems)
    if not found.numeric.width and not found.categorical.width and not found.text.width and raw.images is None:
        told_target = ", ".join(map(repr, roles.target or roles.votes))
        left = " ".join(found.notes)
        raise InputError(
            f"No column is left to learn from. The columns are: {there}; the target is {told_target}. {left}".rstrip()
        )
    if not raw.arrays and (leak := leaks.note(labels, found.numeric, found.categorical)):
        notes.append(leak)
    return Dataset(
        name,
        labels,
        classes,
        raw.fingerprint,
        found.numeric,
        found.categorical,
        found.text,
        votes,
        notes + found.notes,
        raw.images,
        groups,
        weight,
        raw.test,
        columns.described(frame, {**types, **found.types}, found.missing),
        roles.target,
        found.formats,
        missing,
        mark,
    )


def _named(raw: Raw, roles: Roles) -> Roles:
    """The roles with the names of the columns as they are in the table."""
    frame = raw.frame
    roles = replace(
        roles,
        target=roles.target or ((raw.target,) if raw.target is not None and not roles.votes else ()),
        votes=_separate(roles.votes, frame),
        drop=_separate(roles.drop, frame),
        numeric=_separate(roles.numeric, frame),
        categorical=_separate(roles.categorical, frame),
        keep_na=_separate(roles.keep_na, frame),
    )
    return roles.renamed(lambda name: resolved(name, frame.columns))


def _missing(raw: Raw, roles: Roles) -> tuple[Missing, list[str]]:
    """Which cells are missing, and notes on columns in which NA is a value."""
    features = raw.frame.drop(roles.target, roles.keep_na, *raw.quoted, strict=False) if raw.written else pl.DataFrame()
    codes = [column.name for column in features if column.dtype == pl.String and look_like_codes(column)]
    notes = [
        f"'NA' is a value in {name!r}, where all others are codes of two letters; --na-values NA says otherwise."
        for name in codes
        if "NA" not in roles.na_values
    ]
    words = tuple(word.strip() for given in roles.na_values for word in given.split(","))
    return Missing(words, frozenset({*roles.keep_na, *raw.quoted, *codes}), raw.written), notes


def _of_some_weight(raw: Raw, weight: np.ndarray, roles: Roles, missing: Missing) -> tuple[Raw, np.ndarray, list[str]]:
    """Without the rows of weight 0: a part of a split with such rows alone would have no metrics."""
    counted = weight > 0
    if counted.all():
        return raw, weight, []
    notes = [f"Left out: {int((~counted).sum())} rows of weight 0."]
    if len(roles.target) == 1 and not roles.multi_label:
        values = raw.frame[roles.target[0]]
        values = missing.values(values) if values.dtype == pl.String else values
        if not values.dtype.is_nested():
            gone = sorted({*map(str, values.unique())} - {*map(str, values.filter(counted).unique())})
            if gone:
                notes.append(f"All rows of {listed(gone)} have weight 0, so that {_are_no_classes(len(gone))}.")
    return _select(raw, counted), weight[counted] / weight[counted].mean(), notes


def _are_no_classes(count: int) -> str:
    return "it is no class of the comparison" if count == 1 else "they are no classes of the comparison"


def _told(mark: str) -> str:
    return "in lists" if mark == "[]" else f"with {mark!r} between them"


@contextmanager
def _collected(problems: list[str]) -> Iterator[None]:
    """In here an error of the input is a problem among others."""
    try:
        yield
    except InputError as error:
        problems.append(str(error))


def _separate(names: tuple[str, ...], frame: pl.DataFrame) -> tuple[str, ...]:
    """Names, of which one may be several, separated by commas."""
    found: list[str] = []
    for name in names:
        found += [name] if name in frame.columns or "," not in name else [part.strip() for part in name.split(",")]
    return tuple(found)


def _select(raw: Raw, kept: np.ndarray) -> Raw:
    return replace(
        raw,
        frame=raw.frame.filter(kept),
        images=None if raw.images is None else raw.images[kept],
        test=None if raw.test is None else raw.test[kept],
    )
