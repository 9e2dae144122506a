"""From a source to a classification problem."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lossfit.compare.data import columns, row_roles, sources, targets
from lossfit.compare.data.columns import Column, Roles
from lossfit.compare.data.sources import bundled
from lossfit.compare.data.sources.bundled import BUNDLED
from lossfit.compare.data.sources.raw_table import Raw, with_test
from lossfit.compare.errors import InputError, listed

__all__ = ["BUNDLED", "Dataset", "load", "table"]


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


def load(source: str, target: str | tuple[str, ...] | None = None, *, test: str | None = None, **roles: Any) -> Dataset:
    """A bundled set by its name, or what a file or folder holds.

    Args:
        source: "tweets", "yeast", or a path: see :func:`lossfit.compare.data.sources.read`.
        target: the column with the classes; or several columns, each with whether that class is right. Needed for
            tables.
        test: a file or folder of the rows to test on, with the same columns.
        roles: of the columns, the fields of :class:`~lossfit.compare.data.columns.Roles`.

    Raises:
        InputError: with what is wrong and where.
    """
    return read(source, _roles(target, roles), test)


def read(source: str, roles: Roles, test: str | None = None) -> Dataset:
    """As :func:`load`, with the roles of the columns."""
    if source in BUNDLED:
        if test or roles != Roles():
            raise InputError(f"The bundled set {source!r} needs no --target, --text, --drop or other columns.")
        if source == "yeast":
            return replace(_dataset(bundled.yeast(), source, Roles()), columns=[])
        raw = bundled.tweets()
        vectors = tuple(c for c in raw.frame.columns if c not in bundled.TWEET_CLASSES)
        found = _dataset(raw, source, Roles(votes=bundled.TWEET_CLASSES, numeric=vectors))
        return replace(found, columns=[])
    path = Path(source)
    raw = sources.read(path)
    if test is not None:
        size = None if raw.images is None else (raw.images.shape[1], raw.images.shape[2])
        raw = with_test(raw, sources.read(Path(test), size), (source, test), _separate(roles.drop, raw.frame))
    return _dataset(raw, path.stem, roles)


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
    frame = raw.frame
    roles = replace(
        roles,
        target=roles.target or ((raw.target,) if raw.target is not None and not roles.votes else ()),
        votes=_separate(roles.votes, frame),
        drop=_separate(roles.drop, frame),
        numeric=_separate(roles.numeric, frame),
        categorical=_separate(roles.categorical, frame),
    )
    there = ", ".join(frame.columns)
    if not roles.target and not roles.votes:
        raise InputError(f"Name the column with the classes by --target. The columns are: {there}.")
    if roles.target and roles.votes:
        raise InputError("Expected one of --target and --votes, but got both.")
    columns.check_names(frame, roles)
    notes = list(raw.notes)
    test = raw.test
    if roles.test_column is not None:
        if test is not None:
            raise InputError("The rows to test on are given already; leave out --test-column.")
        test = row_roles.to_test_on(frame[roles.test_column])
    raw = replace(raw, test=test)
    if roles.weight is not None:
        counted = row_roles.weights(frame[roles.weight]) > 0
        if not counted.all():
            # A part of a split with such rows alone would have no metrics.
            notes.append(f"Left out: {int((~counted).sum())} rows of weight 0.")
            raw = _select(raw, counted)
            frame = raw.frame
    votes = None
    if roles.votes:
        votes = targets.votes(frame.select(roles.votes))
        clear = targets.untied(votes)
        if not clear.all():
            notes.append(f"Left out: {int((~clear).sum())} rows without one class of most votes.")
            raw, votes = _select(raw, clear), votes[clear]
            frame = raw.frame
        labels, classes = votes.argmax(1), list(roles.votes)
        notes.append(
            f"The classes are the columns {', '.join(classes)}: in each repeat models are trained and chosen on labels "
            "drawn from each row's votes, and tested on the class of most votes."
        )
    elif len(roles.target) == 1:
        labels, classes = targets.classes(frame[roles.target[0]])
    else:
        labels, classes = targets.right(frame.select(roles.target))
    types = dict.fromkeys(roles.target, "target") | dict.fromkeys(roles.votes, "votes")
    types |= dict.fromkeys(roles.drop, "(left out)")
    if roles.votes and raw.target is not None:
        types.setdefault(raw.target, "target (left out)")
    weight = groups = None
    if roles.group is not None:
        groups = row_roles.groups(frame[roles.group])
        types[roles.group] = "group"
        notes.append(f"No value of {roles.group!r} is in two folds; there are {groups.max() + 1} of them.")
    if roles.weight is not None:
        weight = row_roles.weights(frame[roles.weight])
        types[roles.weight] = "weight"
        notes.append(f"Rows count by {roles.weight!r}, in training and in the metrics.")
    if roles.test_column is not None:
        types[roles.test_column] = "rows to test on"
    texts = columns.texts(frame.drop(types, *roles.text), roles)
    if texts:
        notes.append(f"Read as text: {listed(texts)}; --categorical or --drop says otherwise.")
        roles = replace(roles, text=(*roles.text, *texts))
    for column in roles.text:
        if frame[column].dtype != pl.String:
            raise InputError(f"Expected the column {column!r} to hold text, but it is {frame[column].dtype}.")
    text = frame.select(pl.col(column).fill_null("") for column in roles.text)
    types |= dict.fromkeys(roles.text, "text")
    found = columns.features(frame.drop(types), roles, raw.arrays, raw.test)
    if not found.numeric.width and not found.categorical.width and not text.width and raw.images is None:
        told = ", ".join(map(repr, roles.target or roles.votes))
        left = " ".join(found.notes)
        raise InputError(
            f"No column is left to learn from. The columns are: {there}; the target is {told}. {left}".rstrip()
        )
    return Dataset(
        name,
        labels,
        classes,
        raw.fingerprint,
        found.numeric,
        found.categorical,
        text,
        votes,
        notes + found.notes,
        raw.images,
        groups,
        weight,
        raw.test,
        columns.described(frame, {**types, **found.types}),
        roles.target,
    )


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
