"""New rows, read as the rows that the model was trained on."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from lossfit.compare.data import columns, formats
from lossfit.compare.data.cells import Missing, matched
from lossfit.compare.data.dataset import Dataset
from lossfit.compare.data.formats import STRINGS, Format, ListFormat, NumberFormat
from lossfit.compare.data.names import near, resolved
from lossfit.compare.data.sources import KINDS, arrays, bundled, folders, hugging_face, images, tables
from lossfit.compare.data.sources.dialect import FileOptions
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
        missing: which cells are missing.
        notes: what should be known.
    """

    rows: Rows
    frame: pl.DataFrame
    missing: Missing
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
        deep: whether images have more than 8 bits.
        impute: whether missing values are filled in.
        single: whether numbers are read in single precision.
        formats: how numeric columns are written; plain numbers, if not given.
        na_values: what stands for a missing value, besides nothing, NA and the like.
        kept: columns in which NA and the like are values.
        mark: what stands between the classes of a row, where one column holds any number of them.
    """

    numeric: list[str] = field(default_factory=list)
    categorical: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    reader: str = "tfidf"
    embedding: str = ""
    images: list[int] | None = None
    impute: bool = False
    single: bool = False
    formats: dict[str, Format] = field(default_factory=dict)
    na_values: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    mark: str = ""
    deep: bool = False

    @classmethod
    def of(cls, data: Dataset, reader: make.Reader, impute: bool) -> Reading:
        """As the data was read."""
        return cls(
            list(data.formats),
            data.categorical.columns,
            data.text.columns,
            reader.kind,
            reader.model,
            None if data.images is None else [int(n) for n in data.images.shape[1:]],
            impute,
            bool(data.numeric.width) and all(dtype == pl.Float32 for dtype in data.numeric.dtypes),
            data.formats,
            list(data.missing.words),
            sorted(data.missing.kept),
            data.mark,
            data.images is not None and data.images.dtype != np.uint8,
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "formats": {name: formats.to_json(found) for name, found in self.formats.items()}}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Reading:
        """The inverse of :meth:`to_json`.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        later = {"formats": {}, "na_values": [], "kept": [], "mark": "", "deep": False}  # which older models do without
        given = {
            name: found.get(name, later[name]) if name in later else found[name] for name in cls.__dataclass_fields__
        }
        if not isinstance(given["formats"], dict):
            raise TypeError(f"formats are given by column, but they are {given['formats']!r}.")
        given["formats"] = {str(name): formats.from_json(own) for name, own in given["formats"].items()}
        made = cls(**given)
        for name in ("numeric", "categorical", "text", "na_values", "kept"):
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
        if not all(isinstance(value, bool) for value in (made.impute, made.single, made.deep)):
            raise TypeError("impute, single and deep are true or false.")
        if not isinstance(made.mark, str):
            raise TypeError("the mark between classes is a string.")
        return made

    @property
    def names(self) -> list[str]:
        """The columns that must be there."""
        return [*self.numeric, *self.categorical, *self.text]

    @property
    def numbers(self) -> int:
        """How many features the numeric columns are."""
        return sum(len(self._format(name).names(name)) for name in self.numeric)

    def _format(self, name: str) -> Format:
        return self.formats.get(name, NumberFormat())

    def read(
        self,
        source: Any,
        preparation: Preparation,
        impute: bool | None = None,
        files: FileOptions = FileOptions(),  # noqa: B008
    ) -> Found:
        """Rows of a file, a folder, a table or an array.

        Args:
            source: a path, or a table (of Polars, of pandas, or a dict of lists), or an array (N, features) or of
                images.
            preparation: which knows the categories.
            impute: whether missing values are filled in; if not given, as when the model was trained.
            files: how a text file is written.

        Raises:
            InputError: it cannot be read, lacks columns, or holds other things in them.
            TypeError: it is none of these.
        """
        impute = self.impute if impute is None else impute
        raw = self._source(source, files)
        if self.images is not None and raw.images is None:
            raise InputError(f"Expected images of {_size(self.images)}, but {_told(source)} holds none.")
        if self.images is not None and raw.images is not None and list(raw.images.shape[1:]) != self.images:
            raise InputError(
                f"Expected images of {_size(self.images)}, but {_told(source)} holds images of "
                f"{_size(list(raw.images.shape[1:]))}."
            )
        if self.images is not None and raw.images is not None and raw.images.dtype != np.uint8 and not self.deep:
            raise InputError(
                f"Expected images of 8 bits, from 0 to 255, but {_told(source)} holds {raw.images.dtype} from "
                f"{raw.images.min():g} to {raw.images.max():g}."
            )
        raw = replace(raw, frame=self._resolved(raw.frame))
        lacking = [name for name in self.names if name not in raw.frame.columns]
        if lacking:
            raise InputError(
                f"{_told(source)} lacks the columns {listed(lacking)}, which the model reads. "
                f"{near(lacking[0], raw.frame.columns)}"
            )
        missing = self.missing(raw)
        notes, problems = list(raw.notes), list[str]()
        numeric = [self._numbers(raw.frame[name], missing, impute, notes, problems) for name in self.numeric]
        known = preparation.parts.get("categorical")
        common = known.known if isinstance(known, Categories) else [[]] * len(self.categorical)
        categorical = [
            self._strings(raw.frame[name], missing, there, impute, notes, problems)
            for name, there in zip(self.categorical, common, strict=True)
        ]
        if problems:
            raise InputError(*problems)
        numbers = pl.concat(numeric, how="horizontal") if numeric else pl.DataFrame()
        strings = pl.DataFrame(categorical).fill_null(MISSING)
        if infinite := columns.not_finite(numbers):
            raise InputError(*infinite)
        if isinstance(known, Categories):
            notes += _unseen(strings, known)
        text: dict[str, np.ndarray] = {}
        if self.text:
            frame = pl.DataFrame([self._text(raw.frame[name]) for name in self.text])
            text = make.texts(frame.to_numpy(), make.Reader(self.reader, self.embedding))
        rows = Rows(
            None if self.images is None else raw.images,
            numbers.cast(pl.Float32 if self.single else pl.Float64).to_numpy() if self.numeric else None,
            strings.to_numpy() if self.categorical else None,
            **text,
        )
        return Found(rows, raw.frame, missing, notes)

    def missing(self, raw: Raw) -> Missing:
        """Which cells are missing in rows that were read."""
        return Missing(tuple(self.na_values), frozenset(self.kept) | raw.quoted, raw.written)

    def _resolved(self, frame: pl.DataFrame) -> pl.DataFrame:
        """With the names that the model knows, where the case or the form of Unicode is another."""
        there = {resolved(name, frame.columns): name for name in self.names}
        return frame.rename(
            {old: new for old, new in there.items() if old != new and new not in frame.columns}, strict=False
        )

    def _source(self, source: Any, files: FileOptions) -> Raw:
        if isinstance(source, np.ndarray):
            return arrays.unlabelled(source)
        if isinstance(source, str | Path):
            return self._path(source, files)
        try:
            frame = source if isinstance(source, pl.DataFrame) else pl.DataFrame(source)
        except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
            raise TypeError(f"Expected a path, a table or an array, but got {type(source).__name__}.") from error
        if frame.is_empty():
            raise InputError("Expected a table with rows, but got an empty one.")
        return Raw(frame, "")

    def _path(self, source: str | Path, files: FileOptions) -> Raw:
        path = Path(source)
        if not path.exists() and str(source) in bundled.BUNDLED:
            return bundled.yeast() if str(source) == "yeast" else bundled.tweets()
        if not path.exists() and str(path) != tables.STDIN:
            raise InputError(f"There is no file or folder {str(path)!r}.")
        size = None if self.images is None else (self.images[0], self.images[1])
        if path.is_dir() and hugging_face.is_saved(path):
            return hugging_face.read(path, size)
        if path.is_dir() or path.suffix.lower() in folders.SUFFIXES:
            return self._pictures(path, files.skip_unreadable)
        if path.suffix.lower() == ".npz":
            return arrays.read(path, labelled=False)
        if not tables.is_table(path):
            raise InputError(f"Expected rows in {KINDS}, or an image, but got {str(path)!r}.")
        return tables.read(path, files)

    def _pictures(self, path: Path, skip_unreadable: bool) -> Raw:
        if self.images is None:
            raise InputError(f"{_told(path)} holds images, but the model reads columns: {listed(self.names)}.")
        found = folders.Inside([path], 0, Counter()) if path.is_file() else folders.inside(path)
        if not found.images:
            raise InputError(f"The folder {str(path)!r} holds no image ({', '.join(folders.SUFFIXES)}).")
        height, width, channels = self.images
        names = [str(p) for p in found.images]
        opened = found.images.__getitem__
        size = height, width
        read = images.read(names, opened, size, channels, deep=self.deep, skip_unreadable=skip_unreadable)
        within = [found.images[i].relative_to(path if path.is_dir() else path.parent) for i in read.kept]
        frame = pl.DataFrame(
            {"file": [str(p) for p in within], folders.TARGET: [_class_folder(p) for p in within]},
            schema={"file": pl.String, folders.TARGET: pl.String},
        )
        return Raw(frame, "", read.pixels, notes=[*read.notes, *folders.notes_of([found])])

    def _numbers(
        self, column: pl.Series, missing: Missing, impute: bool, notes: list[str], problems: list[str]
    ) -> pl.DataFrame:
        """The features of a column, null where a cell is missing; what is filled in is noted."""
        name, form = column.name, self._format(column.name)
        if column.dtype.is_nested() != isinstance(form, ListFormat) and column.dtype not in STRINGS:
            problems.append(f"Expected numbers in the column {name!r}, but it is {column.dtype}.")
            return pl.DataFrame()
        cells = missing.numbers(column)
        values = form.read(cells)
        values = values.rename({values.columns[0]: name}) if isinstance(form, NumberFormat) else values
        wrong = columns.unreadable(cells, values)
        if wrong.any():
            told = columns.told_unreadable(name, cells, wrong, form)
            if not impute:
                problems.append(f"{told} Pass --impute to take these for missing.")
            elif wrong.sum() > columns.UNREADABLE * len(column):
                problems.append(f"{told} That is more than {columns.UNREADABLE:.0%} of the rows, too many to fill in.")
            else:
                notes.append(f"{told} They are filled in by the median of the training rows.")
        absent = values.to_series(0)
        absent = (absent.is_null() | absent.is_nan()) & ~wrong
        _note_missing(
            name, absent, missing.told(column, cells), impute, notes, problems, "the median of the training rows"
        )
        return values

    def _strings(
        self,
        column: pl.Series,
        missing: Missing,
        known: list[str],
        impute: bool,
        notes: list[str],
        problems: list[str],
    ) -> pl.Series:
        if column.dtype.is_nested():
            problems.append(f"Expected categories in the column {column.name!r}, but it is {column.dtype}.")
            return pl.Series(column.name, [], dtype=pl.String)
        string = column.dtype in STRINGS
        values = missing.values(column, known) if string else missing.numbers(column).cast(pl.String)
        told = missing.told(column, values)
        _note_missing(column.name, values.is_null(), told, impute, notes, problems, "the category 'missing'")
        return matched(values, known)

    def _text(self, column: pl.Series) -> pl.Series:
        if column.dtype not in STRINGS and column.null_count() < len(column):
            raise InputError(f"Expected the column {column.name!r} to hold text, but it is {column.dtype}.")
        return column.cast(pl.String).fill_null("")


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value <= LARGEST_SIDE


def _note_missing(
    name: str, absent: pl.Series, taken: str, impute: bool, notes: list[str], problems: list[str], how: str
) -> None:
    if not absent.any():
        return
    rows, first = int(absent.sum()), int(absent.arg_true()[0]) + 1
    among = f", among them {taken}" if taken else ""
    if impute:
        every = ", which is every row" if rows == len(absent) else ""
        notes.append(f"Filled in by {how}: {name!r} in {rows} rows{every}{among}.")
    else:
        problems.append(
            f"Values are missing in the column {name!r} in {rows} rows, the first of them row {first} of the "
            f"data{among}. Pass --impute to fill them in by {how}."
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
    parents = [part for i, part in enumerate(path.parts[:-1]) if i or folders.part_of(part) is None]
    return parents[0] if parents else None


def _size(size: list[int]) -> str:
    return f"{size[0]} x {size[1]} pixels in {size[2]} channel{'s' * (size[2] > 1)}"


def _told(source: Any) -> str:
    return repr(str(source)) if isinstance(source, str | Path) else "the table"
