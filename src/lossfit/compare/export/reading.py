"""New rows, read as the rows that the model was trained on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from lossfit.compare.data import columns
from lossfit.compare.data.dataset import Dataset
from lossfit.compare.data.sources import KINDS, arrays, bundled, folders, hugging_face, images, tables
from lossfit.compare.data.sources.raw_table import Raw
from lossfit.compare.errors import InputError, listed
from lossfit.compare.features import make
from lossfit.compare.features.preparation import Categories, Preparation, Rows

LARGEST_SIDE = 1 << 13
"""Of images, in pixels."""
MISSING = "missing"
"""The category of a missing string, where missing values are filled in."""


class Found(NamedTuple):
    """Rows as they were found.

    Attributes:
        rows: what the model reads of them.
        frame: all columns.
        notes: what should be known.
    """

    rows: Rows
    frame: pl.DataFrame
    notes: list[str]


@dataclass(frozen=True)
class Reading:
    """What a model reads of a row.

    Attributes:
        numeric, categorical: columns, in the order of the model's features.
        text: columns of texts.
        reader: how they are read, "tfidf", "hashing" or "sentence".
        embedding: the model of sentence-transformers that reads them, if it is "sentence".
        images: height, width and channels.
        impute: whether missing values are filled in.
        single: whether numbers are read in single precision.
        dtypes: of the columns in the file that the model was trained on, as Polars calls them.
    """

    numeric: list[str] = field(default_factory=list)
    categorical: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    reader: str = "tfidf"
    embedding: str = ""
    images: list[int] | None = None
    impute: bool = False
    single: bool = False
    dtypes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Dataset, reader: make.Reader, impute: bool) -> Reading:
        """As the data was read."""
        names = [*data.numeric.columns, *data.categorical.columns]
        return cls(
            data.numeric.columns,
            data.categorical.columns,
            data.text.columns,
            reader.kind,
            reader.model,
            None if data.images is None else [int(n) for n in data.images.shape[1:]],
            impute,
            bool(data.numeric.width) and all(dtype == pl.Float32 for dtype in data.numeric.dtypes),
            {column.name: column.dtype for column in data.columns if column.name in names},
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Reading:
        """The inverse of :meth:`to_json`.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        made = cls(**{name: found[name] for name in cls.__dataclass_fields__})
        for name in ("numeric", "categorical", "text"):
            columns = getattr(made, name)
            if not isinstance(columns, list) or not all(isinstance(column, str) for column in columns):
                raise TypeError(f"the names of columns are strings, but {name} is {columns!r}.")
        if len(set(made.names)) < len(made.names):
            raise ValueError("a column has two roles.")
        if made.reader not in make.TEXT_FEATURES[1:] or not isinstance(made.embedding, str):
            raise TypeError(f"texts are not read by {made.reader!r}.")
        if made.images is not None and not (
            isinstance(made.images, list) and len(made.images) == 3 and all(map(_is_size, made.images))
        ):
            raise TypeError(f"images have height, width and channels of 1 to {LARGEST_SIDE}.")
        if not isinstance(made.impute, bool) or not isinstance(made.single, bool):
            raise TypeError("impute and single are true or false.")
        if not isinstance(made.dtypes, dict) or not all(isinstance(v, str) for v in made.dtypes.values()):
            raise TypeError("the types of columns are strings.")
        return made

    @property
    def names(self) -> list[str]:
        """The columns that must be there."""
        return [*self.numeric, *self.categorical, *self.text]

    def read(self, source: Any, preparation: Preparation, impute: bool | None = None) -> Found:
        """Rows of a file, a folder, a table or an array.

        Args:
            source: a path, or a table (of Polars, of pandas, or a dict of lists), or an array (N, features) or of
                images.
            preparation: which knows the categories.
            impute: whether missing values are filled in; if not given, as when the model was trained.

        Raises:
            InputError: it cannot be read, lacks columns, or holds other things in them.
            TypeError: it is none of these.
        """
        impute = self.impute if impute is None else impute
        raw = self._source(source)
        if self.images is not None and raw.images is None:
            raise InputError(f"Expected images of {_size(self.images)}, but {_told(source)} holds none.")
        if self.images is not None and raw.images is not None and list(raw.images.shape[1:]) != self.images:
            raise InputError(
                f"Expected images of {_size(self.images)}, but {_told(source)} holds images of "
                f"{_size(list(raw.images.shape[1:]))}."
            )
        lacking = [name for name in self.names if name not in raw.frame.columns]
        if lacking:
            raise InputError(
                f"{_told(source)} lacks the columns {listed(lacking)}, which the model reads. "
                f"The columns there are: {', '.join(raw.frame.columns)}."
            )
        notes = list(raw.notes)
        numeric = [self._numbers(raw.frame[name], impute) for name in self.numeric]
        categorical = [self._strings(raw.frame[name]) for name in self.categorical]
        _check_missing([*numeric, *categorical], impute)
        numbers, strings = pl.DataFrame(numeric), pl.DataFrame(categorical).fill_null(MISSING)
        columns.check_finite(numbers)
        known = preparation.parts.get("categorical")
        if isinstance(known, Categories):
            notes += _unseen(strings, known)
        text: dict[str, np.ndarray] = {}
        if self.text:
            frame = pl.DataFrame([self._text(raw.frame[name]) for name in self.text])
            text = make.texts(frame.to_numpy(), make.Reader(self.reader, self.embedding))
        rows = Rows(
            None if self.images is None else raw.images,
            numbers.to_numpy() if self.numeric else None,
            strings.to_numpy() if self.categorical else None,
            **text,
        )
        return Found(rows, raw.frame, notes)

    def _source(self, source: Any) -> Raw:
        if isinstance(source, np.ndarray):
            return arrays.unlabelled(source)
        if isinstance(source, str | Path):
            return self._path(source)
        try:
            frame = source if isinstance(source, pl.DataFrame) else pl.DataFrame(source)
        except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
            raise TypeError(f"Expected a path, a table or an array, but got {type(source).__name__}.") from error
        if frame.is_empty():
            raise InputError("Expected a table with rows, but got an empty one.")
        return Raw(frame, "")

    def _path(self, source: str | Path) -> Raw:
        path = Path(source)
        if not path.exists() and str(source) in bundled.BUNDLED:
            return bundled.yeast() if str(source) == "yeast" else bundled.tweets()
        if not path.exists():
            raise InputError(f"There is no file or folder {str(path)!r}.")
        size = None if self.images is None else (self.images[0], self.images[1])
        if path.is_dir() and hugging_face.is_saved(path):
            return hugging_face.read(path, size)
        if path.is_dir() or path.suffix.lower() in folders.SUFFIXES:
            return self._pictures(path)
        if path.suffix.lower() == ".npz":
            return arrays.read(path, labelled=False)
        if path.suffix.lower() not in (".csv", ".tsv", ".parquet"):
            raise InputError(f"Expected rows in {KINDS}, or an image, but got {str(path)!r}.")
        strings = [name for name, dtype in self.dtypes.items() if _is_string(dtype)]
        return Raw(tables.read_file(path, [*strings, *self.text]), "")

    def _pictures(self, path: Path) -> Raw:
        if self.images is None:
            raise InputError(f"{_told(path)} holds images, but the model reads columns: {listed(self.names)}.")
        inside = [path] if path.is_file() else folders.inside(path)
        if not inside:
            raise InputError(f"The folder {str(path)!r} holds no image ({', '.join(folders.SUFFIXES)}).")
        height, width, channels = self.images
        pixels, note = images.read([str(p) for p in inside], inside.__getitem__, (height, width), channels)
        within = [p.relative_to(path if path.is_dir() else path.parent) for p in inside]
        frame = pl.DataFrame(
            {"file": [str(p) for p in within], folders.TARGET: [_class_folder(p) for p in within]},
            schema={"file": pl.String, folders.TARGET: pl.String},
        )
        return Raw(frame, "", pixels, notes=[note])

    def _numbers(self, column: pl.Series, impute: bool) -> pl.Series:
        if column.dtype.is_nested():
            raise InputError(f"Expected numbers in the column {column.name!r}, but it is {column.dtype}.")
        numbers, wrong = columns.as_numbers(column)
        if wrong.any() and not impute:
            at = int(wrong.arg_true()[0])
            raise InputError(
                f"Expected numbers in the column {column.name!r}, but row {at + 1} of the data holds {column[at]!r} "
                f"({wrong.sum()} rows are no numbers). Pass --impute to take these for missing."
            )
        return numbers.alias(column.name).cast(pl.Float32 if self.single else pl.Float64)

    def _strings(self, column: pl.Series) -> pl.Series:
        trained = self.dtypes.get(column.name, "String")
        if column.dtype.is_nested():
            raise InputError(f"Expected categories in the column {column.name!r}, but it is {column.dtype}.")
        if not _is_string(trained) and str(column.dtype) != trained and column.dtype.is_numeric():
            # 7 and 7.0 are one category.
            whole = column.cast(pl.Int64, strict=False)
            column = whole if "Int" in trained and (whole == column).all() else column.cast(pl.Float64)
        return column.cast(pl.String)

    def _text(self, column: pl.Series) -> pl.Series:
        if column.dtype not in columns.STRINGS and column.null_count() < len(column):
            raise InputError(f"Expected the column {column.name!r} to hold text, but it is {column.dtype}.")
        return column.cast(pl.String).fill_null("")


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value <= LARGEST_SIDE


def _is_string(dtype: str) -> bool:
    return dtype.startswith(("String", "Categorical", "Enum"))


def _check_missing(found: list[pl.Series], impute: bool) -> None:
    if impute:
        return
    for column in found:
        missing = column.is_null() | column.is_nan() if column.dtype.is_float() else column.is_null()
        if missing.any():
            raise InputError(
                f"Values are missing in the column {column.name!r} in {missing.sum()} rows, the first of them row "
                f"{int(missing.arg_true()[0]) + 1} of the data. Pass --impute to fill them in, numbers with the median "
                "of the training rows."
            )


def _unseen(strings: pl.DataFrame, known: Categories) -> list[str]:
    notes = []
    for column, common, rare in zip(strings, known.common, known.rare, strict=True):
        new = column.filter(~column.is_in([*common, *rare]))
        if len(new):
            taken = "one of the rare ones" if rare else "none of them"
            notes.append(
                f"The column {column.name!r} holds categories that the model was not trained on in {len(new):,} rows, "
                f"{listed(new.unique(maintain_order=True).to_list(), 3)}: each is taken for {taken}."
            )
    return notes


def _class_folder(path: Path) -> str | None:
    """The class of CLASS/NAME.png or test/CLASS/NAME.png."""
    parents = [part for i, part in enumerate(path.parts[:-1]) if i or part not in folders.PARTS]
    return parents[0] if parents else None


def _size(size: list[int]) -> str:
    return f"{size[0]} x {size[1]} pixels in {size[2]} channel{'s' * (size[2] > 1)}"


def _told(source: Any) -> str:
    return repr(str(source)) if isinstance(source, str | Path) else "the table"
