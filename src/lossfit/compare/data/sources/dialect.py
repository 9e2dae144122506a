"""How a text file is written: its encoding, and what stands between its fields, told by its parsed structure."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

from lossfit.compare.errors import InputError, first_line

_SAMPLE = 1 << 18
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SIGNS = "–—‘’‚“”„…€£¥°§«»·²³¹µ½¼¾©®™ºª¿¡´¨×±•†‰\u00a0\u00ad"
BLANKS = " "
"""The separator that stands for any number of blanks."""
_SEPARATORS = (",", ";", "\t", "|", BLANKS)
_NAMES = {"\\t": "\t", "tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "blank": BLANKS}


@dataclass(frozen=True)
class FileOptions:
    """What the user says of how files are written; what is None is found from the file.

    Attributes:
        separator: what stands between fields of a text file.
        encoding: of a text file, such as "cp1252".
        comment: what lines that are no rows begin with.
        skip_rows: lines before the names of the columns.
        skip_unreadable: leave out images that cannot be read, instead of stopping.
    """

    separator: str | None = None
    encoding: str | None = None
    comment: str | None = None
    skip_rows: int = 0
    skip_unreadable: bool = False

    @property
    def mark(self) -> str | None:
        """The separator as a character."""
        return self.separator if self.separator is None else _NAMES.get(self.separator.lower(), self.separator)

    def check(self) -> None:
        """Raise InputError if one of them means nothing."""
        if self.mark is not None and len(self.mark) != 1:
            raise InputError(
                f"Expected --separator to be one character, or one of {', '.join(_NAMES)}, but got {self.separator!r}."
            )
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError:
                raise InputError(f"--encoding: there is no encoding {self.encoding!r}.") from None
        if self.comment == "":
            raise InputError("Expected --comment to be a character or more, but got nothing.")
        if self.skip_rows < 0:
            raise InputError(f"Expected --skip-rows of at least 0, but got {self.skip_rows}.")


@dataclass(frozen=True)
class Dialect:
    """How the lines of a text file are written.

    Attributes:
        separator: what stands between fields.
        quote: what may stand around fields.
        escape: what stands before a quote in a field, if it is not doubled.
        comment: what lines that are no rows begin with.
        blanks: whether blanks after a separator do not count.
        names: of the columns.
        width: fields of a row.
        start: where the rows start, in bytes of UTF-8.
        lines: lines before the rows.
        quoted: whether quotes stand around some fields and not around others, so that they tell something.
    """

    separator: str
    quote: str
    escape: str | None
    comment: str | None
    blanks: bool
    names: list[str]
    width: int
    start: int
    lines: int
    quoted: bool

    def rows(self, text: str) -> Iterator[tuple[int, list[str]]]:
        """Rows of the text, each with the number of its first line, from 0; blank lines and comments are left out."""
        return _rows(text, self.separator, self.quote, self.escape, self.comment, self.blanks)


def decoded(name: str, data: bytes, encoding: str | None) -> tuple[bytes, list[str]]:
    """The bytes in UTF-8, and a note where the encoding was guessed.

    Raises:
        InputError: the bytes are not of the encoding, or there is none that fits.
    """
    if encoding is not None and codecs.lookup(encoding).name not in ("utf-8", "ascii"):
        try:
            return data.decode(encoding).removeprefix("\ufeff").encode(), []
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise InputError(
                f"The file {name!r} is not in {encoding}: see line {line}. ({first_line(error)})"
            ) from None
    for bom, found in _BOMS:
        if data.startswith(bom):
            if found == "utf-8-sig":
                data = data[len(bom) :]
                break
            return _wide(name, data, found), []
    head = data[:1000]
    if head.count(b"\0") * 3 > len(head):
        return _wide(name, data, "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"), []
    if data.isascii():
        return data, []
    wrong = _first_not_utf8(data)
    if wrong is None:
        return data, []
    line = data.count(b"\n", 0, wrong) + 1
    if encoding is not None or not _is_western(data):
        raise InputError(
            f"The file {name!r} is not in UTF-8 (see line {line}), and its encoding cannot be told. Name it by "
            "--encoding, such as cp1252, cp1251, gb18030 or shift_jis."
        )
    text = data.decode("cp1252")
    word = re.search(r"\S*[^\x00-\x7f]\S*", text)
    assert word is not None
    example = re.split(r"[,;\t|\"]", word.group())
    shown = next(part for part in example if not part.isascii())
    return text.encode(), [f"Read as cp1252, since it is not UTF-8, such as {shown!r}; --encoding says otherwise."]


def _wide(name: str, data: bytes, encoding: str) -> bytes:
    try:
        return data.decode(encoding).encode()
    except UnicodeDecodeError as error:
        raise InputError(f"The file {name!r} cannot be read as {encoding}: {first_line(error)}.") from None


def _first_not_utf8(data: bytes) -> int | None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(data), 1 << 20):
        try:
            decoder.decode(data[start : start + (1 << 20)], final=start + (1 << 20) >= len(data))
        except UnicodeDecodeError as error:
            return start + max(error.start, 0)
    return None


def _is_western(data: bytes) -> bool:
    """Whether bytes above 127 are single letters and signs of western Europe, as in cp1252 and Latin-1."""
    try:
        found = data[: 1 << 22].decode("cp1252")
    except UnicodeDecodeError:
        return False
    runs = re.findall(r"[^\x00-\x7f]+", found)
    letters = "".join(runs)
    fits = all(letter in _SIGNS or "À" <= letter <= "ÿ" or letter in "ŠšŽžŒœŸƒ" for letter in set(letters))
    return fits and (len(letters) <= 1.5 * len(runs) or max(map(len, runs)) <= 2)


def detected(name: str, data: bytes, options: FileOptions, prefer: str | None = None) -> Dialect:
    """The dialect of a text in UTF-8.

    The separator is the one that gives the same number of fields, two at least, on all lines.

    Args:
        name: of the file, for errors.
        data: the text.
        options: what the user says.
        prefer: the separator to take if several fit.

    Raises:
        InputError: there are no lines, or the names of columns are not there.
    """
    sample, cut = _sample(data)
    skipped, told = _before(sample, options)
    text = sample[len(skipped) :]
    given = options.mark or told
    separators = [given] if given else list(_SEPARATORS)
    if prefer in separators:
        separators.sort(key=lambda mark: mark != prefer)
    best: tuple[tuple[float, ...], Dialect] | None = None
    for order, (separator, quote, escape) in enumerate(product(separators, ('"', "'"), (None, "\\"))):
        if (separator not in (",", BLANKS) and separator not in text and len(separators) > 1) or quote not in (
            '"' + text
        ):
            continue
        if escape and f"{escape}{quote}" not in text:
            continue
        blanks = separator == BLANKS or bool(re.search(rf"{re.escape(separator)} +{quote}", text))
        comment = options.comment or _comment(text, separator, quote, blanks)
        with long_fields():
            rows = list(_rows(text, separator, quote, escape, comment, blanks))
        if cut and len(rows) > 1:
            rows = rows[:-1]
        if not rows:
            continue
        widths = Counter(len(row) for _, row in rows[1:] or rows)
        head = len(rows[0][1])
        width, count = max(widths.items(), key=lambda item: (item[1], item[0] == head, item[0]))
        even = count / max(len(rows) - 1, 1)
        fits = head in (width, width - 1)
        wrapped = sum(cell[:1] == cell[-1:] == "'" for _, row in rows for cell in row if len(cell) > 1)
        consistent = width > 1 and fits and even == 1
        if separator == BLANKS and not consistent and len(separators) > 1:
            continue
        score = (consistent, separator != BLANKS, head == width, width > 1, -wrapped, even, fits, -order)
        with long_fields():
            lines = _lines_of_first(text, separator, quote, escape, comment, blanks)
        start = len((skipped + "".join(lines)).encode())
        before = len(_physical(skipped)) + len(lines)
        made = Dialect(
            separator,
            quote,
            escape,
            comment,
            blanks,
            [cell.strip() for cell in rows[0][1]],
            width,
            start,
            before,
            _tells(text, separator, quote),
        )
        if best is None or score > best[0]:
            best = score, made
    if best is None:
        raise InputError(f"The file {name!r} holds blank lines alone.")
    return best[1]


def _sample(data: bytes) -> tuple[str, bool]:
    """The first lines, and whether there are more."""
    if len(data) <= _SAMPLE:
        return data.decode(), False
    # A character may be cut in two.
    return data[:_SAMPLE].decode(errors="ignore"), True


def _before(sample: str, options: FileOptions) -> tuple[str, str | None]:
    """What stands before the names of the columns, and the separator that a line `sep=;` names."""
    lines = _physical(sample)
    skipped, rest = "".join(lines[: options.skip_rows]), lines[options.skip_rows :]
    while rest and not rest[0].strip():
        skipped += rest.pop(0)
    told = re.fullmatch(r"sep=(.)", rest[0].rstrip("\r\n").strip('"'), re.IGNORECASE) if rest else None
    return (skipped + rest[0], told.group(1)) if told else (skipped, None)


def _comment(text: str, separator: str, quote: str, blanks: bool) -> str | None:
    """What lines before the names of the columns begin with, if they are comments."""
    for mark in ("#", "%", "//"):
        if not text.startswith(mark):
            continue
        rows = [row for _, row in _rows(text, separator, quote, None, None, blanks)]
        marked = next((i for i, row in enumerate(rows) if not row[0].startswith(mark)), len(rows))
        rest = rows[marked:]
        # A single line of as many fields as the rows holds the names of the columns.
        if rest and (marked > 1 or len(rows[0]) != len(rest[0])):
            return mark
    return None


def _tells(text: str, separator: str, quote: str) -> bool:
    """Whether quotes stand around some fields and not around others."""
    fields = [field.strip() for line in _physical(text)[:200] for field in line.rstrip("\r\n").split(separator)]
    quoted = sum(field.startswith(quote) for field in fields)
    return 0 < quoted < sum(field != "" for field in fields)


def _physical(text: str) -> list[str]:
    return list(io.StringIO(text, newline=""))


def _lines_of_first(
    text: str, separator: str, quote: str, escape: str | None, comment: str | None, blanks: bool
) -> list[str]:
    """The lines up to the end of the first row."""
    lines = _physical(text)
    for count in range(1, len(lines) + 1):
        if not lines[count - 1].strip() and count < len(lines):
            continue
        found = next(_rows("".join(lines[:count]), separator, quote, escape, comment, blanks, strict=True), None)
        if found is not None:
            return lines[:count]
    return lines


def _rows(
    text: str,
    separator: str,
    quote: str,
    escape: str | None,
    comment: str | None,
    blanks: bool,
    strict: bool = False,
) -> Iterator[tuple[int, list[str]]]:
    lines = io.StringIO(text, newline="")
    given = (line.strip() + "\n" for line in lines) if separator == BLANKS else lines
    reader = csv.reader(
        given,
        delimiter=separator,
        quotechar=quote,
        escapechar=escape,
        doublequote=escape is None,
        skipinitialspace=blanks,
        strict=strict,
    )
    first = 0
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            if strict:
                return
            raise
        start, first = first, reader.line_num
        if not row or (len(row) == 1 and not row[0].strip()):
            continue
        if comment is None or not row[0].lstrip().startswith(comment):
            yield start, row


@contextmanager
def long_fields() -> Iterator[None]:
    """In here Python's csv reads fields of any length."""
    before = csv.field_size_limit(1 << 30)
    try:
        yield
    finally:
        csv.field_size_limit(before)
