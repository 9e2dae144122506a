"""Tables in text files, spreadsheets, and the files of Arrow, Parquet and JSON."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.csv

from lossfit.compare import memory_limits
from lossfit.compare.data.sources.dialect import Dialect, FileOptions, decoded, detected, long_fields
from lossfit.compare.data.sources.raw_table import Raw, digest
from lossfit.compare.errors import InputError, first_line, listed

TEXT = (".csv", ".tsv", ".txt", ".dat", ".data")
JSON = (".json", ".jsonl", ".ndjson")
ARROW = (".arrow", ".feather", ".ipc")
EXCEL = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")
SUFFIXES = (*TEXT, *JSON, *ARROW, *EXCEL, ".parquet")
PACKED = (".gz", ".zst", ".bz2")
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
STDIN = "-"
MISSING = ("NA", "N/A", "n/a", "<NA>", "#N/A", "NaN", "nan", "NAN", "-nan", "null", "NULL")
"""What stands for a missing value in a text file, besides nothing."""
_BLOCK = 1 << 22
_SHOWN = 80
LONGEST_HEADER = 1 << 24
"""Bytes of the line with the names of the columns."""


def suffix_of(path: Path) -> str:
    """What kind of file it is, whether or not it is packed."""
    suffixes = [part.lower() for part in path.suffixes[-2:]]
    return suffixes[0] if suffixes and suffixes[-1] in PACKED and len(suffixes) > 1 else "".join(suffixes[-1:])


def is_table(path: Path) -> bool:
    return str(path) == STDIN or suffix_of(path) in SUFFIXES


def read(path: Path, options: FileOptions = FileOptions()) -> Raw:  # noqa: B008
    """The table in a file; cells of text files and spreadsheets stay as they are written there.

    Args:
        path: the file; "-" is the standard input.
        options: how text files are written.

    Raises:
        InputError: it is empty, or not what its name says.
    """
    options.check()
    name = "standard input" if str(path) == STDIN else str(path)
    data = sys.stdin.buffer.read() if str(path) == STDIN else path.read_bytes()
    if not data:
        raise InputError(f"The file {name!r} is empty.")
    fingerprint = digest(data)
    data = _unpacked(name, data)
    kind = _kind(data) if str(path) == STDIN else suffix_of(path)
    if kind in TEXT:
        raw = _text(name, kind, data, options)
    elif kind == ".parquet":
        raw = Raw(parse_parquet(data, path), "")
    else:
        reader = _json if kind in JSON else _arrow if kind in ARROW else _excel
        with library_errors(f"The file {name!r} cannot be read as {kind}"):
            frame, notes = reader(name, data)
        raw = Raw(frame, "", notes=notes, written=kind in EXCEL)
    return replace(_without_blanks(name, raw), fingerprint=fingerprint)


def _kind(data: bytes) -> str:
    """What kind of file the standard input is."""
    for start, kind in ((b"PAR1", ".parquet"), (b"ARROW1", ".arrow"), (b"PK\x03\x04", ".xlsx")):
        if data.startswith(start):
            return kind
    if data[:1] == b"{":
        return ".jsonl"
    return ".json" if data[:1] == b"[" else ".csv"


def _unpacked(name: str, data: bytes) -> bytes:
    """The bytes, unpacked if they begin as a packed file does, as far as the memory goes."""
    codec = next((codec for start, codec in _MAGIC.items() if data.startswith(start)), None)
    if codec is None:
        return data
    parts, size, free = [], 0, memory_limits.available()
    try:
        with pa.CompressedInputStream(pa.BufferReader(data), codec) as stream:
            while part := stream.read(_BLOCK):
                parts.append(part)
                size += len(part)
                if 2 * size > free:
                    memory_limits.check_fits(f"The file {name!r}", 2 * size)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"The file {name!r} cannot be unpacked by {codec}: {first_line(error)}") from error
    return b"".join(parts)


def _without_blanks(name: str, raw: Raw) -> Raw:
    """Without the rows in which nothing stands."""
    frame, notes = raw.frame, raw.notes
    if raw.written and frame.height and (frame.to_series(0).str.strip_chars() == "").any():
        empty = frame.select(pl.all_horizontal(pl.all().str.strip_chars() == "")).to_series()
        if empty.any():
            frame, notes = frame.filter(~empty), [*notes, f"Left out: {empty.sum()} rows in which nothing stands."]
    if frame.is_empty():
        raise InputError(f"The file {name!r} has a header but no rows.")
    return replace(raw, frame=frame, notes=notes)


def _text(name: str, kind: str, data: bytes, options: FileOptions) -> Raw:
    data, notes = decoded(name, data, options.encoding)
    if len(data) > LONGEST_HEADER and not any(end in data[:LONGEST_HEADER] for end in (b"\n", b"\r")):
        raise InputError(f"The first line of the file {name!r} does not end within {LONGEST_HEADER >> 20} MiB.")
    try:
        dialect = detected(name, data, options, "\t" if kind == ".tsv" else None)
        names = _names(name, dialect, data)
        columns = _lenient(name, kind, data, dialect) if _is_odd(dialect) else _parsed(name, kind, data, dialect)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"The file {name!r} cannot be read as {kind}: {first_line(error)}") from error
    unnamed = [i for i, column in enumerate(names) if not column and (i or len(names) == dialect.width)]
    empty = [i for i in unnamed if (columns[i].str.strip_chars() == "").all()]
    left = [i for i in range(len(names)) if i not in empty]
    kept = _kept(data, dialect, columns) if dialect.quoted and not _is_odd(dialect) else {}
    for i, missing in kept.items():
        columns[i] = columns[i].set(missing, None)
    frame = pl.DataFrame({column: columns[i] for i, column in _named(name, names, left)})
    if dialect.comment is not None:
        # Those of another number of fields are left out by the parser.
        marked = frame.to_series(0).str.strip_chars_start().str.starts_with(dialect.comment).fill_null(False)
        if marked.any():
            frame = frame.filter(~marked)
            notes.append(f"Left out: {marked.sum()} lines between rows that begin with {dialect.comment!r}.")
    quoted = frozenset(names[i] for i in kept)
    return Raw(frame, "", notes=notes, written=True, quoted=quoted, decimal_comma=dialect.separator == ";")


def _named(file: str, names: Sequence[str], places: Iterable[int]) -> list[tuple[int, str]]:
    """Some of the columns with their names in one form of Unicode.

    Raises:
        InputError: two columns have one name, or none.
    """
    found = [(i, unicodedata.normalize("NFC", names[i].strip())) for i in places]
    twice = [name for name, count in Counter(name for _, name in found).items() if count > 1]
    if twice == [""]:
        without = [i + 1 for i, name in found if not name]
        raise InputError(f"The file {file!r} has columns without a name, at the places {listed(without)}.")
    if twice:
        raise InputError(f"The file {file!r} has several columns of the same name: {listed(sorted(twice))}.")
    return found


def _is_odd(dialect: Dialect) -> bool:
    """Whether Python's csv has to read the file: blanks are part of what stands between fields."""
    return dialect.blanks or len(dialect.separator.encode()) > 1


def _names(name: str, dialect: Dialect, data: bytes) -> list[str]:
    """The names of the columns, one for each field of a row."""
    names = dialect.names
    if dialect.width == len(names) + 1:
        # Either each row ends in a separator, or its first field is its name, as R writes it.
        rows = (row for _, row in dialect.rows(_decoded_head(data[dialect.start :])))
        trailing = all(not row[-1].strip() for row, _ in zip(rows, range(100), strict=False))
        return [*names, ""] if trailing else ["", *names]
    return names


def _decoded_head(data: bytes) -> str:
    return data[: 1 << 16].decode(errors="ignore")


def _parsed(name: str, kind: str, data: bytes, dialect: Dialect) -> list[pl.Series]:
    """The columns, by Arrow's parser."""
    width = max(dialect.width, len(dialect.names))
    if len(data) == dialect.start:
        return [pl.Series([], dtype=pl.String)] * width
    try:
        table = _arrow_csv(data, dialect, width)
    except pa.ArrowException as error:
        _raise_for_row(name, kind, data, dialect, width)
        raise InputError(f"The file {name!r} cannot be read as {kind}: {first_line(error)}") from error
    columns = []
    for i in range(width):
        columns.append(_series(table.column(0), i))
        table = table.remove_column(0)  # so that no column is held twice
    return columns


def _arrow_csv(data: bytes, dialect: Dialect, width: int, bare: Sequence[str] = ()) -> Any:
    """The rows as strings, of which those in ``bare`` are null where they stand without quotes."""
    quotes = dialect.quote.encode() in data

    def handle(row: Any) -> str:
        text = row.text.strip()
        return "skip" if not text or (dialect.comment and text.startswith(dialect.comment)) else "error"

    names = [f"{i}" for i in range(width)]
    block = _BLOCK
    while True:
        try:
            return pyarrow.csv.read_csv(
                pa.BufferReader(pa.py_buffer(memoryview(data)[dialect.start :])),
                pyarrow.csv.ReadOptions(column_names=names, block_size=block),
                pyarrow.csv.ParseOptions(
                    delimiter=dialect.separator,
                    quote_char=dialect.quote if quotes else False,
                    double_quote=dialect.escape is None,
                    escape_char=dialect.escape or False,
                    newlines_in_values=quotes,
                    invalid_row_handler=handle,
                ),
                pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    null_values=list(bare),
                    strings_can_be_null=bool(bare),
                    quoted_strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid as error:  # a row is longer than a block
            if "straddling" not in str(error) or block >= len(data):
                raise
            block = min(block * 16, 1 << 30)


def _series(column: Any, number: int) -> pl.Series:
    found = pl.from_arrow(column)
    assert isinstance(found, pl.Series)
    return found.alias(f"{number}")


def _lenient(name: str, kind: str, data: bytes, dialect: Dialect) -> list[pl.Series]:
    width = max(dialect.width, len(dialect.names))
    text = data[dialect.start :].decode()
    with long_fields():
        rows = [row for _, row in dialect.rows(text)]
    if any(len(row) != width for row in rows):
        _raise_for_row(name, kind, data, dialect, width)
    return [pl.Series(f"{i}", [row[i] for row in rows], dtype=pl.String) for i in range(width)]


def _raise_for_row(name: str, kind: str, data: bytes, dialect: Dialect, width: int) -> None:
    """Raise InputError for the first row of another number of fields, if there is one."""
    text = data[dialect.start :].decode()
    with long_fields():
        for line, row in dialect.rows(text):
            if len(row) == width:
                continue
            number = dialect.lines + line + 1
            shown = list(io.StringIO(text, newline=""))[line].rstrip()[:_SHOWN]
            advice = "--separator, --comment and --skip-rows say how the file is written."
            if any("\n" in cell for cell in row):
                advice = "A quote that opens there may not be closed."
            raise InputError(
                f"The file {name!r} cannot be read as {kind}: line {number} has {_fields(len(row))}, where "
                f"{'the header has' if len(dialect.names) == width else 'other rows have'} {width}: {shown!r}. {advice}"
            )


def _fields(count: int) -> str:
    return f"{count} field{'s' * (count != 1)}"


def _kept(data: bytes, dialect: Dialect, columns: list[pl.Series]) -> dict[int, pl.Series]:
    """Columns in which a marker of missing values stands in quotes, and where one stands without, which is missing.

    Writers that put quotes around strings alone write a missing one without them.
    """
    quote = dialect.quote.encode()
    markers = [marker for marker in MISSING if quote + marker.encode() + quote in data]
    there = {i: column.is_in(markers) for i, column in enumerate(columns)} if markers else {}
    if not any(marked.any() for marked in there.values()):
        return {}
    table = _arrow_csv(data, dialect, len(columns), markers)
    bare = {i: _series(table.column(i), i).is_null() for i, marked in there.items() if marked.any()}
    return {i: missing for i, missing in bare.items() if (there[i] & ~missing).any()}


def parse_parquet(source: Path | bytes, path: Path | None = None) -> pl.DataFrame:
    """The table in a .parquet file, or in its bytes, of which ``path`` is the name.

    Raises:
        InputError: it is none, or its rows do not fit the memory.
    """
    name = f"The file {str(path or source)!r}"
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    with library_errors(f"{name} cannot be read as .parquet"):
        rows = pl.scan_parquet(opened, glob=False)
        columns = len(rows.collect_schema())
        count = int(rows.select(pl.len()).collect().item())
    memory_limits.check_fits(name, 8 * columns * count)
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    with library_errors(f"{name} cannot be read as .parquet"):
        return pl.read_parquet(opened, glob=False)


@contextmanager
def library_errors(sentence: str) -> Iterator[None]:
    """Errors of the table library as an InputError; what a panic of its Rust code prints is not shown."""
    try:
        with _silent():
            yield
    except InputError:
        raise
    except pl.exceptions.PanicException as error:
        raise InputError(f"{sentence}: it is damaged ({first_line(error)}).") from error
    except Exception as error:
        raise InputError(f"{sentence}: {first_line(error)}") from error


@contextmanager
def _silent() -> Iterator[None]:
    try:
        shown = os.dup(2)
    except OSError:  # there is none
        yield
        return
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(shown, 2)
        os.close(shown)


def arrow_batches(name: str, contents: bytes) -> Any:
    """The rows in Arrow's file or stream, batch by batch as far as the memory goes."""
    batches, size, free = [], 0, memory_limits.available()
    in_file = contents.startswith(b"ARROW1")
    with (pa.ipc.open_file if in_file else pa.ipc.open_stream)(contents) as opened:
        for batch in map(opened.get_batch, range(opened.num_record_batches)) if in_file else opened:
            batch.validate(full=True)
            batches.append(batch)
            size += batch.nbytes
            if size > free:
                memory_limits.check_fits(name, size)
        return pa.Table.from_batches(batches, opened.schema)


def _arrow(name: str, data: bytes) -> tuple[pl.DataFrame, list[str]]:
    frame = pl.from_arrow(arrow_batches(f"The file {name!r}", data))
    assert isinstance(frame, pl.DataFrame)
    return frame, []


def _json(name: str, data: bytes) -> tuple[pl.DataFrame, list[str]]:
    """Records: one a line, or a list; or an object of columns."""
    text = data.decode("utf-8-sig")
    try:
        found = json.loads(text)
    except ValueError:
        found = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    found.append(json.loads(line))
                except ValueError as error:
                    raise InputError(
                        f"The file {name!r} cannot be read as JSON: line {number} is {line[:_SHOWN]!r}. "
                        f"({first_line(error)})"
                    ) from None
    if isinstance(found, dict):
        inner = [value for value in found.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
        if {"columns", "data"} <= set(found):
            found = [dict(zip(found["columns"], row, strict=True)) for row in found["data"]]
        elif len(inner) == 1:
            found = inner[0]
        elif found and all(isinstance(value, list) for value in found.values()):
            return pl.DataFrame(found, strict=False), []
        else:
            found = [found]
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise InputError(f"Expected the file {name!r} to hold a list of records, or a record on each line.")
    for column in {name for row in found for name in row}:
        kinds = {type(row.get(column)) for row in found} - {type(None)}
        if str in kinds and len(kinds) > 1:
            for row in found:
                value = row.get(column)
                row[column] = value if value is None or isinstance(value, str) else json.dumps(value)
    return pl.DataFrame(found, infer_schema_length=None, strict=False), []


def _excel(name: str, data: bytes) -> tuple[pl.DataFrame, list[str]]:
    """The first sheet that holds rows, as it is written there."""
    try:
        import fastexcel
    except ImportError as error:
        raise InputError("Spreadsheets need an extra: pip install 'lossfit[excel]'.") from error
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            memory_limits.check_fits(f"The file {name!r}", sum(entry.file_size for entry in archive.infolist()))
    try:
        book = fastexcel.read_excel(data)
        for i, sheet in enumerate(book.sheet_names):
            frame = book.load_sheet(i, dtypes="string").to_polars()
            frame = pl.DataFrame({c: frame.to_series(n) for n, c in _named(name, frame.columns, range(frame.width))})
            if frame.height:
                others = [name for name in book.sheet_names if name != sheet]
                told = [f"Read: the sheet {sheet!r}; not read: {listed(others)}."] if others else []
                return frame.with_columns(pl.all().fill_null("")), told
    except fastexcel.FastExcelError as error:
        raise InputError(f"The file {name!r} cannot be read as a spreadsheet: {first_line(error)}") from error
    raise InputError(f"The file {name!r} holds no sheet with rows.")
