"""Predictions in a file: a column of scores for each class, and a column of labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl
import torch
from torch import Tensor

from lossfit.compare.data.columns import ROW_NUMBERS
from lossfit.compare.data.sources.tables import read_file
from lossfit.compare.errors import InputError
from lossfit.core.checks import check_choice

Scale = Literal["auto", "logits", "probabilities"]
SCALES = ("auto", "logits", "probabilities")

# Rounding to four decimals in a file of many classes leaves less than this.
_SUM_TOLERANCE = 0.01


@dataclass(frozen=True)
class Predictions:
    """What was read.

    Attributes:
        logits: (N, C) in float64; of probabilities, their logarithms.
        labels: class indices (N,).
        classes: the names of the classes, in the order of the columns.
        columns: the columns of the scores.
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


def read(path: Path, target: str | None, columns: str | None = None, scale: Scale = "auto") -> Predictions:
    """Predictions from a .csv or .parquet file.

    Args:
        path: the file.
        target: the column of the labels: names of classes, as in the names of the columns of scores with or without
            what these have in common; or integers from 0, in the order of the columns.
        columns: the columns of scores, "a,b,c", or what their names begin with; all numeric ones if not given.
        scale: "logits", "probabilities", or "auto": probabilities if all rows are in [0, 1] and sum to 1.

    Raises:
        InputError: with what is wrong and where.
    """
    check_choice("--scale", scale, SCALES)
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"Expected SOURCE to be a .csv or .parquet file, but got {str(path)!r}.")
    if not path.is_file():
        raise InputError(f"There is no file {str(path)!r}.")
    frame = read_file(path)
    there = ", ".join(frame.columns)
    if target is None:
        raise InputError(f"Name the column with the labels by --target. The columns are: {there}.")
    if target not in frame.columns:
        raise InputError(f"--target: there is no column {target!r}. The columns are: {there}.")
    names = _columns(frame.drop(target), columns, there)
    scores = _numbers(frame.select(names))
    labels, classes = _labels(frame[target], names, columns)
    if columns is None:
        unused = [names[c] for c in range(len(names)) if not (labels == c).any()]
        if unused:
            raise InputError(
                f"No row has the label of the columns {', '.join(map(repr, unused))}. Name the columns of the scores "
                "by --logits."
            )
    notes = []
    floor = None
    if _are_probabilities(scores, scale):
        floor = min(scores[scores > 0].min().item() / 2, 1e-7)
        zeros = int((scores == 0).sum())
        if zeros:
            floor = scores[scores > 0].min().item() / 2
            notes.append(f"{zeros} probabilities of 0 are taken for {floor:.2g}, half of the smallest other one.")
        scores = scores.clamp(min=floor).log()
    return Predictions(scores, labels, classes, names, target, frame[target], floor, notes)


def _columns(frame: pl.DataFrame, asked: str | None, there: str) -> list[str]:
    """The columns of the scores."""
    if asked is None:
        names = [c for c in frame.select(pl.selectors.numeric()).columns if c not in ROW_NUMBERS]
    elif "," in asked:
        names = [name.strip() for name in asked.split(",") if name.strip()]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise InputError(f"--logits names {', '.join(map(repr, sorted(twice)))} more than once.")
    else:
        names = [c for c in frame.columns if c.startswith(asked.removesuffix("*"))]
        if not names:
            raise InputError(f"--logits: no column begins with {asked!r}. The columns are: {there}.")
    for name in names:
        if name not in frame.columns:
            raise InputError(f"--logits: there is no column {name!r} beside the target. The columns are: {there}.")
        if not frame[name].dtype.is_numeric():
            raise InputError(f"Expected the column {name!r} to hold numbers, but it is {frame[name].dtype}.")
    if len(names) < 2:
        raise InputError(
            f"Expected a column of scores for each class, two at least, but found {names}. The columns are: {there}."
        )
    return names


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


def _labels(column: pl.Series, names: list[str], asked: str | None) -> tuple[Tensor, list[str]]:
    """Class indices, and the names of the classes."""
    missing = column.is_null() | (column.is_nan() if column.dtype.is_float() else False)
    if missing.any():
        raise InputError(f"The target {column.name!r} is missing in row {int(missing.arg_true()[0]) + 1} of the data.")
    if column.dtype.is_float() and (column == column.round()).all():
        column = column.cast(pl.Int64)
    values = column.cast(pl.String)
    if values.n_unique() == 1:
        raise InputError(
            f"The target {column.name!r} has one class only, {values[0]!r}; there is nothing to calibrate."
        )
    shorter = [_without_common(names)]
    if asked is not None and "," not in asked:
        shorter.insert(0, [name.removeprefix(asked.removesuffix("*")) for name in names])
    for classes in (names, *shorter):
        if set(values.unique()) <= set(classes):
            index = {name: i for i, name in enumerate(classes)}
            return torch.tensor([index[v] for v in values]), shorter[0]
    if not column.dtype.is_integer():
        strange = next(v for v in values if v not in names and all(v not in s for s in shorter))
        raise InputError(
            f"The label {strange!r} in row {values.to_list().index(strange) + 1} of the data is none of the classes, "
            f"which by the columns of scores are: {', '.join(shorter[0])}. --logits names other columns."
        )
    wrong = (column < 0) | (column >= len(names))
    if wrong.any():
        at = int(wrong.arg_true()[0])
        raise InputError(
            f"The label {column[at]} in row {at + 1} of the data is out of range: with {len(names)} columns of scores, "
            f"labels are 0 to {len(names) - 1}, in the order of the columns, or the names of the columns."
        )
    return torch.tensor(column.cast(pl.Int64).to_list()), shorter[0]


def _without_common(names: list[str]) -> list[str]:
    """The names without what all begin and end with."""
    start = _alike(names)
    rest = [name[start:] for name in names]
    end = _alike([name[::-1] for name in rest])
    rest = [name[: len(name) - end] for name in rest]
    return rest if all(rest) else names


def _alike(names: list[str]) -> int:
    """How many characters all names begin with."""
    return next(
        (i for i, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1), min(map(len, names))
    )


def _are_probabilities(scores: Tensor, scale: Scale) -> bool:
    within = ((scores >= 0) & (scores <= 1)).all(1)
    good = within & ((scores.sum(1) - 1).abs() <= _SUM_TOLERANCE)
    if scale == "logits" or bool(good.all()):
        return scale != "logits"
    # Some rows that sum to 1 are chance; most of them, a mistake in the others.
    if scale == "probabilities" or good.double().mean() > 0.5:
        at = int((~good).nonzero()[0])
        raise InputError(
            f"Expected rows of probabilities, in [0, 1] and with a sum of 1, but row {at + 1} of the data sums to "
            f"{scores[at].sum().item():.4g}, with values from {scores[at].min().item():.4g} to "
            f"{scores[at].max().item():.4g} ({int((~good).sum())} of {len(good)} rows are none). "
            "If these are logits, pass --scale logits."
        )
    return False
