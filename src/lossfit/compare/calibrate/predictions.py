"""Predictions in a file: a column of scores for each class, and a column of labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl
import torch
from torch import Tensor

from lossfit.compare.data import formats
from lossfit.compare.data.cells import Missing, matched
from lossfit.compare.data.columns import ROW_NUMBERS
from lossfit.compare.data.formats import STRINGS, BooleanFormat, NumberFormat
from lossfit.compare.data.names import near, resolved
from lossfit.compare.data.sources import tables
from lossfit.compare.data.sources.dialect import FileOptions
from lossfit.compare.errors import InputError, listed
from lossfit.core.checks import check_choice

Scale = Literal["auto", "logits", "probabilities", "percent"]
SCALES = ("auto", "logits", "probabilities", "percent")

# Rounding to four decimals in a file of many classes leaves less than this.
_SUM_TOLERANCE = 0.01


@dataclass(frozen=True)
class Predictions:
    """What was read.

    Attributes:
        logits: (N, C) in float64; of probabilities, their logarithms.
        labels: class indices (N,).
        classes: the names of the classes, in the order of the columns.
        columns: the columns of the scores; one alone is of the second class, the first has the rest.
        target: the column of the labels.
        label_values: what stands there.
        floor: None for logits; for probabilities, the smallest number taken for one.
        notes: what should be known of the reading.
    """

    logits: Tensor
    labels: Tensor
    classes: list[str]
    columns: list[str]
    target: str
    label_values: pl.Series
    floor: float | None
    notes: list[str]


def read(
    path: Path,
    target: str | None,
    columns: str | None = None,
    scale: Scale = "auto",
    files: FileOptions = FileOptions(),  # noqa: B008
) -> Predictions:
    """Predictions from a table in a file, such as `lossfit predict` writes.

    Args:
        path: the file.
        target: the column of the labels: names of classes, as they stand in the names of the columns of scores; or
            integers from 0, in the order of the columns.
        columns: the columns of scores, "a,b,c", or what their names begin with. If not given, those with the labels in
            their names; or all numeric ones. A single column is of the probability of one of two classes.
        scale: "logits", "probabilities", "percent", or "auto": probabilities if all rows are in [0, 1] and sum to 1.
        files: how the file is written.

    Raises:
        InputError: with what is wrong and where.
    """
    check_choice("--scale", scale, SCALES)
    if not tables.is_table(path):
        raise InputError(
            f"Expected SOURCE to be a table, in a file ending in {', '.join(tables.SUFFIXES)}, but got {str(path)!r}."
        )
    if str(path) != tables.STDIN and not path.is_file():
        raise InputError(f"There is no file {str(path)!r}.")
    raw = tables.read(path, files)
    frame, missing = raw.frame, Missing(kept=raw.quoted, written=raw.written)
    if target is None:
        raise InputError(f"Name the column with the labels by --target. {near('', frame.columns)}")
    target = resolved(target, frame.columns)
    if target not in frame.columns:
        raise InputError(f"--target: there is no column {target!r}. {near(target, frame.columns)}")
    values = _values(frame[target], missing)
    there = _typed(frame.drop(target), missing)
    names = _columns(there, columns, values, near("", frame.columns))
    scores = _numbers(there.select(names))
    if len(names) == 1:
        labels, classes = _of_two(values, names[0])
        scores, floor, notes = _of_one(scores, scale, names[0])
    else:
        labels, classes = _labels(values, names, columns)
        unused = [names[c] for c in range(len(names)) if not (labels == c).any()]
        if columns is None and unused and not _share_a_prefix(names):
            raise InputError(
                f"No row has the label of the columns {', '.join(map(repr, unused))}. Name the columns of the scores "
                "by --logits."
            )
        floor, notes = None, list[str]()
        scores = scores / 100 if scale == "percent" else scores
        if _are_probabilities(scores, scale):
            scores, floor, notes = _logarithms(scores)
    return Predictions(scores, labels, classes, names, target, frame[target], floor, [*raw.notes, *notes])


def _values(column: pl.Series, missing: Missing) -> pl.Series:
    """The labels as strings."""
    if column.dtype in STRINGS:
        values = missing.values(column)
    else:
        whole = column.cast(pl.Int64, strict=False) if column.dtype.is_float() else column
        column = whole if (whole == column).all() else column
        values = column.map_elements(str, pl.String) if column.dtype == pl.Boolean else column.cast(pl.String)
    absent = values.is_null() | (column.is_nan() if column.dtype.is_float() else pl.Series([False]))
    if absent.any():
        raise InputError(f"The target {column.name!r} is missing in row {int(absent.arg_true()[0]) + 1} of the data.")
    if values.n_unique() == 1:
        raise InputError(
            f"The target {column.name!r} has one class only, {values[0]!r}; there is nothing to calibrate."
        )
    return values


def _typed(frame: pl.DataFrame, missing: Missing) -> pl.DataFrame:
    """With the columns of numbers as numbers."""
    found = {}
    for column in frame:
        cells = missing.numbers(column) if missing.written else column
        if cells.dtype == pl.String and cells.count():
            form = formats.of_text(cells.drop_nulls().str.strip_chars(), date_order="dmy")
            column = form.read(cells).to_series() if isinstance(form, NumberFormat) else column
        found[column.name] = column
    return pl.DataFrame(found)


def _columns(frame: pl.DataFrame, asked: str | None, values: pl.Series, there: str) -> list[str]:
    """The columns of the scores."""
    if asked is None:
        numbers = [c for c in frame.select(pl.selectors.numeric()).columns if c not in ROW_NUMBERS]
        names = _named_by(numbers, values) or numbers
    elif asked in frame.columns:
        names = [asked]
    elif "," in asked:
        names = [name.strip() for name in asked.split(",") if name.strip()]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise InputError(f"--logits names {', '.join(map(repr, sorted(twice)))} more than once.")
    else:
        names = [c for c in frame.columns if c.startswith(asked.removesuffix("*"))]
        if not names:
            raise InputError(f"--logits: no column begins with {asked!r}. {there}")
    for name in names:
        if name not in frame.columns:
            raise InputError(f"--logits: there is no column {name!r} beside the target. {there}")
        if not frame[name].dtype.is_numeric():
            raise InputError(f"Expected the column {name!r} to hold numbers, but it is {frame[name].dtype}.")
    if not names or (len(names) == 1 and values.n_unique() > 2):
        raise InputError(f"Expected a column of scores for each class, two at least, but found {names}. {there}")
    return names


def _named_by(columns: list[str], values: pl.Series) -> list[str]:
    """The columns that begin alike and end in the labels, with those of classes that no row has; or none."""
    labels = values.unique().sort().to_list()
    for column in columns:
        if not column.endswith(labels[0]):
            continue
        start = column[: len(column) - len(labels[0])]
        if start and all(f"{start}{label}" in columns for label in labels):
            return [name for name in columns if name.startswith(start)]
    return []


def _share_a_prefix(names: list[str]) -> bool:
    return _alike(names) > 0 and not names[0][: _alike(names)].isalnum()


def _numbers(frame: pl.DataFrame) -> Tensor:
    for column in frame.cast(pl.Float64):
        wrong = column.is_null() | column.is_nan() | column.is_infinite()
        if wrong.any():
            at = int(wrong.arg_true()[0])
            found = "missing" if column[at] is None else f"{column[at]}"
            raise InputError(
                f"Expected finite numbers in the column {column.name!r}, but row {at + 1} of the data is {found} "
                f"({wrong.sum()} rows are not finite)."
            )
    return torch.from_numpy(frame.cast(pl.Float64).to_numpy().copy())


def _labels(values: pl.Series, names: list[str], asked: str | None) -> tuple[Tensor, list[str]]:
    """Class indices, and the names of the classes."""
    for classes in _possible_classes(names, asked):
        found = _found(values, classes)
        if found is not None:
            return found, classes
    classes = _possible_classes(names, None)[0]
    whole = values.cast(pl.Int64, strict=False)
    if whole.null_count():
        strange = values.filter(~values.is_in(classes))
        strange = strange.filter(strange.cast(pl.Int64, strict=False).is_null())
        first = strange[0] if len(strange) else values[0]
        raise InputError(
            f"The label {first!r} in row {values.to_list().index(first) + 1} of the data is none of the classes, "
            f"which by the columns of scores are: {', '.join(classes)}. --logits names other columns."
        )
    wrong = (whole < 0) | (whole >= len(names))
    if wrong.any():
        at = int(wrong.arg_true()[0])
        raise InputError(
            f"The label {whole[at]} in row {at + 1} of the data is out of range: with {len(names)} columns of scores, "
            f"labels are 0 to {len(names) - 1}, in the order of the columns, or the names of the columns."
        )
    return torch.tensor(whole.to_list()), classes


def _found(values: pl.Series, classes: list[str]) -> Tensor | None:
    """Class indices of labels in any spelling; None if one is no class."""
    if len(set(classes)) < len(classes):
        return None
    own = matched(values, classes)
    if not own.is_in(classes).all():
        folded = {name.casefold(): name for name in classes}
        own = own.str.to_lowercase().replace(folded) if len(folded) == len(classes) else own
    if not own.is_in(classes).all() and len(classes) == 2:
        read = BooleanFormat().read(pl.Series([*classes, *values])).to_series()
        if not read.null_count() and set(read[:2]) == {0.0, 1.0}:
            return torch.tensor([int(v != read[0]) for v in read[2:]])
    if not own.is_in(classes).all():
        return None
    index = {name: i for i, name in enumerate(classes)}
    return torch.tensor([index[v] for v in own])


def _possible_classes(names: list[str], asked: str | None) -> list[list[str]]:
    """What the classes may be called, the shortest names first: the columns without what they begin and end with alike,
    or a part of that.
    """
    start = _alike(names)
    end = _alike([name[start:][::-1] for name in names])
    cuts = sorted(((a, b) for a in range(start + 1) for b in range(end + 1)), key=lambda cut: -sum(cut))
    shorter = [[name[a : len(name) - b] for name in names] for a, b in cuts]
    found = [classes for classes in shorter if all(classes)]
    if asked is not None and "," not in asked:
        found.insert(0, [name.removeprefix(asked.removesuffix("*")) for name in names])
    return found


def _alike(names: list[str]) -> int:
    """How many characters all names begin with."""
    return next(
        (i for i, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1), min(map(len, names))
    )


def _of_two(values: pl.Series, column: str) -> tuple[Tensor, list[str]]:
    """Labels of two classes, the second of which a column of scores belongs to."""
    labels = values.unique().sort().to_list()
    read = BooleanFormat().read(pl.Series(labels)).to_series().to_list()
    named = [label for label in labels if column.casefold().endswith(label.casefold())]
    if len(named) == 2 and named[0].casefold() != named[1].casefold():  # "not" ends in "t", and "unfit" in "fit"
        named = [max(named, key=len)]
    if len(named) == 1:
        second = named[0]
    elif set(read) == {0.0, 1.0}:
        second = labels[read.index(1.0)]
    else:
        raise InputError(
            f"The column {column!r} holds one score in each row. Which of the classes {listed(labels)} does it belong "
            f"to? Name it so, such as {f'p_{labels[1]}'!r}."
        )
    first = next(label for label in labels if label != second)
    return torch.tensor([int(v == second) for v in values]), [first, second]


def _of_one(scores: Tensor, scale: Scale, column: str) -> tuple[Tensor, float | None, list[str]]:
    """Logits of two classes from the scores of the second."""
    if scale == "percent":
        scores = scores / 100
    within = bool(((scores >= 0) & (scores <= 1)).all())
    if scale == "logits" or (scale == "auto" and bool((scores < 0).any())):
        return torch.cat([torch.zeros_like(scores), scores], 1), None, []
    if not within:
        at = int(((scores < 0) | (scores > 1)).flatten().nonzero()[0])
        percent = " If these are percentages, pass --scale percent." if bool((scores <= 100).all()) else ""
        raise InputError(
            f"Expected probabilities in the column {column!r}, but row {at + 1} of the data is {scores[at].item():g}."
            f"{percent} If these are logits, pass --scale logits."
        )
    return _logarithms(torch.cat([1 - scores, scores], 1))


def _logarithms(scores: Tensor) -> tuple[Tensor, float, list[str]]:
    """Logarithms of probabilities, the smallest number taken for one, and a note on zeros."""
    floor = min(scores[scores > 0].min().item() / 2, 1e-7)
    zeros = int((scores == 0).sum())
    notes = []
    if zeros:
        floor = scores[scores > 0].min().item() / 2
        notes.append(f"{zeros} probabilities of 0 are taken for {floor:.2g}, half of the smallest other one.")
    return scores.clamp(min=floor).log(), floor, notes


def _are_probabilities(scores: Tensor, scale: Scale) -> bool:
    within = ((scores >= 0) & (scores <= 1)).all(1)
    sums = scores.sum(1)
    good = within & ((sums - 1).abs() <= _SUM_TOLERANCE)
    if scale == "logits" or bool(good.all()):
        return scale != "logits"
    at = int((~good).nonzero()[0])
    if scale == "auto" and bool((scores >= 0).all()) and bool(((sums - 100).abs() <= 100 * _SUM_TOLERANCE).all()):
        raise InputError("Rows sum to 100: if these are percentages, pass --scale percent; if logits, --scale logits.")
    # Some rows that sum to 1 are chance; most of them, a mistake in the others.
    if scale in ("probabilities", "percent") or good.double().mean() > 0.5:
        raise InputError(
            f"Expected rows of probabilities, in [0, 1] and with a sum of 1, but row {at + 1} of the data sums to "
            f"{sums[at].item():.4g}, with values from {scores[at].min().item():.4g} to "
            f"{scores[at].max().item():.4g} ({int((~good).sum())} of {len(good)} rows are none). "
            "If these are logits, pass --scale logits."
        )
    if bool(within.all()):
        raise InputError(
            f"All scores lie in [0, 1], but rows do not sum to 1: row {at + 1} of the data sums to "
            f"{sums[at].item():.4g}, and rows to {sums.mean().item():.4g} in the mean. Probabilities of each class "
            "against the rest are none of one class among all; divide each row by its sum first. If these are logits, "
            "pass --scale logits."
        )
    return False
