"""How the cells of a column are written: numbers, booleans, dates and lists, from text or from typed columns.

A format is found on the rows of a comparison and stored with a model, so that new rows are read in the same way.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, ClassVar, Protocol

import polars as pl

STRINGS = (pl.String, pl.Categorical, pl.Enum)
_BLANKS = r"[\u00a0\u2007\u2009\u202f]"
_DIGITS = r"[\d.,'’()\s−+-]"
_CURRENCIES = (
    r"(?:[A-Z]{1,3}\$|\$|€|£|¥|₹|₽|₩|₺|₫|฿|₪|kr\.?|zł|Kč|Ft|Fr\.|"
    r"USD|EUR|GBP|JPY|CHF|CNY|INR|AUD|CAD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|RUB|BRL|MXN|ZAR|KRW|TRY|SGD|HKD)"
)
# The first that fits all cells is taken: (between thousands, before decimals).
_MARKS = (("", "."), (",", "."), (" ", "."), ("'", "."), ("’", "."), (".", ","), (" ", ","), ("'", ","), ("", ","))
_MARK_NAMES = {",": "commas", ".": "points", " ": "blanks", "'": "apostrophes", "’": "apostrophes"}
_TRUE = {"true", "t", "yes", "y", "on", "1", "1.0"}
_FALSE = {"false", "f", "no", "n", "off", "0", "0.0"}
_PAIRS = (("true", "false"), ("yes", "no"), ("y", "n"), ("t", "f"), ("on", "off"))
_DAYS = 86_400_000_000


class Format(Protocol):
    """How the cells of a column are written."""

    kind: ClassVar[str]
    plural: ClassVar[str]

    def read(self, column: pl.Series) -> pl.DataFrame:
        """Numeric columns of the cells; null where a cell is missing or written otherwise."""

    def names(self, column: str) -> list[str]:
        """What the columns of :meth:`read` are called."""

    def describe(self) -> str:
        """What the user is told of the format; nothing for plain numbers."""


@dataclass(frozen=True)
class NumberFormat:
    """Numbers, which may have a currency or a percent sign, marks between thousands, and parentheses as a minus.

    Attributes:
        thousands: the mark between groups of three digits, or nothing.
        decimal: the mark before decimals.
        currency: what stands before or after each number.
        percent: whether a percent sign stands after each; 50% is read as 50.
        accounting: whether (12) and 12- are -12.
    """

    kind: ClassVar[str] = "number"
    plural: ClassVar[str] = "numbers"
    thousands: str = ""
    decimal: str = "."
    currency: str = ""
    percent: bool = False
    accounting: bool = False

    def read(self, column: pl.Series) -> pl.DataFrame:
        if column.dtype not in STRINGS:
            column = column.to_physical() if column.dtype.is_temporal() else column
            return (column if column.dtype == pl.Float32 else column.cast(pl.Float64, strict=False)).to_frame()
        text = column.cast(pl.String)
        if self == NumberFormat():
            numbers = text.cast(pl.Float64, strict=False)
            if numbers.null_count():
                bare = text.str.strip_chars().str.replace_all("−", "-", literal=True)
                numbers = bare.cast(pl.Float64, strict=False)
            return numbers.to_frame()
        bare = text.str.strip_chars().str.replace_all(_BLANKS, " ").str.replace_all("−", "-", literal=True)
        parts = bare.str.extract_groups(self._pattern).struct
        digits = parts.field("digits").str.replace_all(self.thousands, "", literal=True)
        numbers = digits.str.replace(self.decimal, ".", literal=True).cast(pl.Float64, strict=False)
        there = pl.DataFrame(
            {name: parts.field(name).fill_null("") != "" for name in ("open", "close", "sign", "after")}
        )
        minus = there["open"].cast(pl.Int8) + there["sign"].cast(pl.Int8) + there["after"].cast(pl.Int8)
        odd = (there["open"] != there["close"]) | (minus > 1)
        frame = pl.DataFrame({"x": numbers, "minus": minus, "odd": odd})
        signed = pl.when("odd").then(None).when(pl.col("minus") == 1).then(-pl.col("x")).otherwise("x")
        return frame.select(signed.alias(column.name))

    @property
    def _pattern(self) -> str:
        sign, currency = r"(?:\+|(?P<sign>-))?", f"(?:{re.escape(self.currency)})?" if self.currency else ""
        mark, point = re.escape(self.thousands), re.escape(self.decimal)
        # Lakhs and crores are groups of two before the last of three.
        whole = rf"(?:[1-9]\d{{0,2}}(?:{mark}\d{{2,3}})*{mark}\d{{3}}|\d+)" if mark else r"\d+"
        digits = rf"(?P<digits>(?:{whole})(?:{point}\d*)?(?:[eE][+-]?\d+)?|{point}\d+)"
        end = r"\s*%" if self.percent else rf"\s*{currency}"
        around = (r"(?P<open>\()?", r"(?P<close>\))?(?P<after>-)?")
        if not self.accounting:
            around = (r"(?P<open>\b\B)?", r"(?P<close>\b\B)?(?P<after>\b\B)?")  # which match nothing
        return rf"^{around[0]}\s*{currency}\s*{sign}\s*{currency}\s*{digits}{end}{around[1]}$"

    def names(self, column: str) -> list[str]:
        return [column]

    def describe(self) -> str:
        told = [self.currency] if self.currency else []
        told += ["percent"] if self.percent else []
        told += [f"thousands by {_MARK_NAMES[self.thousands]}"] if self.thousands else []
        told += ["decimal comma"] if self.decimal == "," else []
        told += ["(12) as -12"] if self.accounting else []
        return ", ".join(told)


@dataclass(frozen=True)
class BooleanFormat:
    """True and false, yes and no, on and off, or their first letters, in any case: 1 and 0."""

    kind: ClassVar[str] = "boolean"
    plural: ClassVar[str] = "booleans"

    def read(self, column: pl.Series) -> pl.DataFrame:
        if column.dtype not in STRINGS:
            numbers = column.cast(pl.Float64, strict=False)
            return numbers.set(~numbers.is_in([0.0, 1.0]), None).to_frame()
        words = column.cast(pl.String).str.strip_chars().str.to_lowercase()
        known = dict.fromkeys(_TRUE, 1.0) | dict.fromkeys(_FALSE, 0.0)
        return words.replace_strict(known, default=None, return_dtype=pl.Float64).alias(column.name).to_frame()

    def names(self, column: str) -> list[str]:
        return [column]

    def describe(self) -> str:
        return "boolean"


@dataclass(frozen=True)
class DateFormat:
    """Days and times to the year, the month, the day of the week, the hour, and the days since the first.

    Attributes:
        pattern: as of ``strptime``; of typed columns, ISO.
        parts: those that are not the same in every row, from :data:`PARTS`.
        origin: the first day or moment, in ISO.
    """

    kind: ClassVar[str] = "date"
    plural: ClassVar[str] = "dates"
    PARTS: ClassVar[tuple[str, ...]] = ("year", "month", "weekday", "hour", "days")
    pattern: str = "%Y-%m-%d"
    parts: tuple[str, ...] = PARTS
    origin: str = "1970-01-01T00:00:00"

    def moments(self, column: pl.Series) -> pl.Series:
        """The cells as moments, in UTC where they have a time zone."""
        if column.dtype == pl.Date:
            return column.cast(pl.Datetime("us"))
        if isinstance(column.dtype, pl.Datetime):
            if column.dtype.time_zone is not None:
                column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
            return column.cast(pl.Datetime("us"))
        text = column.cast(pl.String, strict=False).str.strip_chars()
        return _moments(text, self.pattern)

    @classmethod
    def of(cls, column: pl.Series, pattern: str = "%Y-%m-%d") -> DateFormat:
        """The format of a column, with the parts that differ between its rows."""
        moments = cls(pattern).moments(column)
        first = moments.min()
        assert first is not None
        found = cls(pattern, cls.PARTS, first.isoformat())  # type: ignore[union-attr]
        values = found.read(column)
        parts = [part for part, name in zip(cls.PARTS, values.columns, strict=True) if values[name].n_unique() > 1]
        parts = ["hour"] if pattern.startswith("%H") else parts
        return cls(pattern, tuple(parts) or ("days",), found.origin)

    def read(self, column: pl.Series) -> pl.DataFrame:
        moments = self.moments(column).alias("at")
        at = pl.col("at")
        since = (at - pl.lit(self.origin).str.to_datetime(time_unit="us")).dt.total_microseconds() / _DAYS
        each = {
            "year": at.dt.year(),
            "month": at.dt.month(),
            "weekday": at.dt.weekday(),
            "hour": at.dt.hour() + at.dt.minute() / 60,
            "days": since,
        }
        wanted = zip(self.parts, self.names(column.name), strict=True)
        return moments.to_frame().select(each[part].cast(pl.Float64).alias(name) for part, name in wanted)

    def names(self, column: str) -> list[str]:
        return [f"{column}: {part}" for part in self.parts]

    def describe(self) -> str:
        return f"{'time' if self.pattern.startswith('%H') else 'date'}: {', '.join(self.parts)}"


@dataclass(frozen=True)
class ListFormat:
    """Lists of numbers, all of one length, such as the vectors of an embedding: a column for each place.

    Attributes:
        width: their length.
    """

    kind: ClassVar[str] = "list"
    plural: ClassVar[str] = "lists of numbers"
    width: int

    def read(self, column: pl.Series) -> pl.DataFrame:
        if column.dtype == pl.String:
            # NumPy writes blanks between numbers, JSON commas.
            inner = column.str.strip_chars().str.strip_chars("[]").str.strip_chars()
            column = inner.str.replace_all(r"[,;\s]+", " ").str.split(" ")
            column = column.list.eval(pl.element().cast(pl.Float64, strict=False))
        elif isinstance(column.dtype, pl.Array):
            column = column.arr.to_list()
        fits = (column.list.len() == self.width).fill_null(False)
        frame = pl.DataFrame([column.alias("x"), fits.alias("fits")])
        lists = pl.when("fits").then("x")
        names = self.names(column.name)
        return frame.select(
            lists.list.get(i, null_on_oob=True).cast(pl.Float64).alias(name) for i, name in enumerate(names)
        )

    def names(self, column: str) -> list[str]:
        return [f"{column}[{i}]" for i in range(self.width)]

    def describe(self) -> str:
        return f"list of {self.width} numbers"


KINDS: dict[str, Any] = {found.kind: found for found in (NumberFormat, BooleanFormat, DateFormat, ListFormat)}


def to_json(found: Format) -> dict[str, Any]:
    return {"kind": found.kind, **asdict(found)}  # type: ignore[call-overload]


def from_json(found: dict[str, Any]) -> Format:
    """The inverse of :func:`to_json`.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    given = dict(found)
    kind = KINDS[given.pop("kind")]
    if kind is DateFormat:
        given["parts"] = tuple(given["parts"])
        if not given["parts"] or not set(given["parts"]) <= set(DateFormat.PARTS):
            raise ValueError(f"there are no such parts of a date: {given['parts']!r}.")
    made: Format = kind(**given)
    if isinstance(made, ListFormat) and not (isinstance(made.width, int) and 0 < made.width <= 1 << 20):
        raise ValueError(f"expected a length of lists of at least 1, but got {made.width!r}.")
    if not all(isinstance(value, str | bool | int | tuple) for value in asdict(made).values()):  # type: ignore[call-overload]
        raise TypeError("a format is made of strings and numbers.")
    return made


def of_type(column: pl.Series) -> Format | None:
    """The format of a typed column; None if its type is none of numbers, booleans, dates and lists of one length."""
    if column.dtype == pl.Boolean:
        return BooleanFormat()
    if column.dtype.is_integer():
        return compact_dates(column.drop_nulls())
    if column.dtype.is_numeric():
        return NumberFormat()
    if column.dtype in (pl.Date, pl.Datetime) and column.count():
        return DateFormat.of(column)
    if isinstance(column.dtype, pl.Array) and column.dtype.shape and len(column.dtype.shape) == 1:
        return ListFormat(column.dtype.shape[0]) if column.dtype.inner.is_numeric() else None
    if isinstance(column.dtype, pl.List) and column.dtype.inner.is_numeric() and column.count():
        lengths = column.list.len().drop_nulls()
        return ListFormat(int(lengths[0])) if lengths[0] and lengths.n_unique() == 1 else None
    return None


def of_text(cells: pl.Series, *, decimal_comma: bool = False, date_order: str | None = None) -> Format | None:
    """The format that all cells have; None if there is none.

    Args:
        cells: strings without blanks around them, and without missing ones.
        decimal_comma: whether 1,234 is 1.234, where nothing else in the column says so.
        date_order: "dmy" or "mdy", for dates that may be both.

    Raises:
        AmbiguousDatesError: the cells are dates with the day or the month first, and ``date_order`` is None.
    """
    distinct = cells.unique(maintain_order=True)
    if not len(distinct):
        return None
    words = set(distinct.head(9).str.to_lowercase())
    if len(distinct) < 9 and any(words == set(pair) for pair in _PAIRS):
        return BooleanFormat()
    return _number(distinct, decimal_comma) or _date(cells, distinct, date_order) or _list(distinct)


def of_most(
    cells: pl.Series, *, decimal_comma: bool = False, date_order: str | None = None, booleans: bool = False
) -> Format | None:
    """The format of numbers, dates, or booleans if asked for, that more than half of the cells have, but not all.

    Args:
        cells, decimal_comma, date_order: as in :func:`of_text`.
        booleans: whether the cells may be booleans; strings with `yes` and `no` among them are categories otherwise.

    Raises:
        AmbiguousDatesError: most cells are dates with the day or the month first, and ``date_order`` is None.
    """
    signs = cells.str.replace_all(_DIGITS, "")
    most = cells.filter(cells.str.contains(r"\d") & (signs == signs.mode().sort()[0]))
    others: list[Format | None] = [NumberFormat(), _number(most.unique(maintain_order=True), decimal_comma)]
    for form in [*others, BooleanFormat()] if booleans else others:
        if form is not None and _have_most(form, cells):
            return form
    shapes = cells.str.replace_all(r"\d+", "0").str.replace_all(r"\p{L}+", "a")
    dates = cells.filter(shapes == shapes.mode().sort()[0])
    form = _date(dates, dates.unique(maintain_order=True), date_order, 0.5)
    return form if form is not None and _have_most(form, cells) else None


def _have_most(form: Format, cells: pl.Series) -> bool:
    return 0 < form.read(cells).to_series(0).null_count() < cells.count() / 2


def has_decimal_commas(cells: pl.Series) -> bool:
    """Whether all cells are numbers, and one of them has a comma that cannot be one between thousands."""
    if not cells.str.contains(r"^[+-]?(\d{1,3}(\.\d{3})+|\d+)(,\d+)?$").all():
        return False
    return bool(cells.str.contains(r"^[+-]?(0|\d{4,}|[\d.]+\.\d{3}),|,(\d{1,2}|\d{4,})$").any())


def has_thousands_points(cells: pl.Series) -> bool:
    """Whether all cells are whole numbers, some of them with points between thousands."""
    return bool(
        cells.str.contains(r"^[+-]?(\d+|[1-9]\d{0,2}(\.\d{3})+)$").all() and cells.str.contains(".", literal=True).any()
    )


def compact_dates(known: pl.Series) -> Format:
    """The format of whole numbers, which are dates if all are such as 20191231."""
    for part in (known.head(20), known):
        text = part.cast(pl.String)
        if not len(text) or not text.str.contains(r"^(19|20)\d{6}$").all():
            return NumberFormat()
    return DateFormat.of(known, "%Y%m%d") if not _moments(text, "%Y%m%d").null_count() else NumberFormat()


def are_codes(cells: pl.Series) -> bool:
    """Whether whole numbers are written with zeros before them, as codes are."""
    return bool(cells.str.contains(r"^0\d+$").any())


def _number(distinct: pl.Series, decimal_comma: bool) -> NumberFormat | None:
    """The format of numbers that all these have."""
    if not len(distinct):
        return None
    text = distinct.str.replace_all(_BLANKS, " ").str.replace_all("−", "-", literal=True)
    percent = bool(text.str.contains(r"%\)?-?$").all())
    currency = ""
    symbols = text.str.extract(rf"^\(?\s*[+-]?\s*({_CURRENCIES})\s*[+-]?[\d.,]|", 1).unique()
    after = text.str.extract(rf"\d\s*({_CURRENCIES})\)?-?$", 1).unique()
    for found in (symbols, after):
        if len(found) == 1 and found[0] is not None:
            currency = found[0]
    marks = list(_MARKS)
    if decimal_comma:
        marks = [("", ","), (".", ","), *marks]
    accounting = bool(text.str.contains(r"^\(|-$").any())
    for thousands, decimal in marks:
        made = NumberFormat(thousands, decimal, currency, percent, accounting)
        # Most columns fail within a few cells.
        if all(not made.read(part).to_series().null_count() for part in (distinct.head(20), distinct)):
            return made
    return None


class AmbiguousDatesError(ValueError):
    """Dates of which the first number may be the day or the month."""


_DATES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"\d{4}-\d{1,2}-\d{1,2}", ("%Y-%m-%d",)),
    (r"\d{4}/\d{1,2}/\d{1,2}", ("%Y/%m/%d",)),
    (r"\d{4}\.\d{1,2}\.\d{1,2}", ("%Y.%m.%d",)),
    (r"(?:19|20)\d{6}", ("%Y%m%d",)),
    (r"\d{4}-\d{1,2}", ("%Y-%m",)),
    (r"\d{1,2}\.\d{1,2}\.\d{4}", ("%d.%m.%Y",)),
    (r"\d{1,2}\.\d{1,2}\.\d{2}", ("%d.%m.%y",)),
    (r"\d{1,2}/\d{1,2}/\d{4}", ("%d/%m/%Y", "%m/%d/%Y")),
    (r"\d{1,2}/\d{1,2}/\d{2}", ("%d/%m/%y", "%m/%d/%y")),
    (r"\d{1,2}-\d{1,2}-\d{4}", ("%d-%m-%Y", "%m-%d-%Y")),
    (r"\d{1,2} \p{L}{3,}\.? \d{4}", ("%d %B %Y",)),
    (r"\d{1,2}\. \p{L}{3,} \d{4}", ("%d. %B %Y",)),
    (r"\d{1,2}-\p{L}{3}-\d{4}", ("%d-%b-%Y",)),
    (r"\d{1,2}-\p{L}{3}-\d{2}", ("%d-%b-%y",)),
    (r"\p{L}{3,} \d{1,2},? \d{4}", ("%B %d, %Y", "%B %d %Y")),
    (r"\d{1,2}:\d{2}", ("%H:%M",)),
    (r"\d{1,2}:\d{2}:\d{2}", ("%H:%M:%S",)),
)
_TIMES: tuple[tuple[str, str], ...] = (
    (r"", ""),
    (r"\d{1,2}:\d{2}", "%H:%M"),
    (r"\d{1,2}:\d{2}:\d{2}", "%H:%M:%S"),
    (r"\d{1,2}:\d{2}:\d{2}\.\d+", "%H:%M:%S%.f"),
    (r"\d{1,2}:\d{2} ?[AaPp][Mm]", "%I:%M %p"),
    (r"\d{1,2}:\d{2}:\d{2} ?[AaPp][Mm]", "%I:%M:%S %p"),
)
_ZONE = r"(?:Z| ?UTC| ?[+-]\d{2}:?\d{2})"


def _date(cells: pl.Series, distinct: pl.Series, date_order: str | None, least: float = 1.0) -> DateFormat | None:
    """The format of dates that at least this share of strings of one shape has, more of them than any other."""
    first = distinct[0]
    if not re.search(r"\d", first):
        return None
    for (date, patterns), (time, clock), zone in product(_DATES, _TIMES, ("", _ZONE)):
        if (zone and not clock) or (clock and patterns[0].startswith("%H")):
            continue
        shape = f"{date}[ T]{time}{zone}" if clock else date
        if not re.fullmatch(shape.replace(r"\p{L}", r"[^\W\d_]"), first):
            continue
        if not distinct.str.contains(f"^{shape}$").all():
            return None
        tail = f" {clock}{'%z' if zone else ''}" if clock else ""
        wrong = {pattern: _moments(distinct, pattern + tail).null_count() for pattern in patterns}
        fewest = min(wrong.values())
        fits = [p for p, count in wrong.items() if count == fewest and count <= (1 - least) * len(distinct)]
        if len(fits) == 2 and fits[0].startswith("%d"):
            if date_order is None:
                raise AmbiguousDatesError(first)
            fits = [pattern for pattern in fits if pattern.startswith("%d") == (date_order == "dmy")]
        if not fits:
            return None
        pattern = fits[0] + tail
        return DateFormat.of(cells.filter(_moments(cells, pattern).is_not_null()), pattern)
    return None


def _moments(text: pl.Series, pattern: str) -> pl.Series:
    """Strings as moments by a pattern, with a blank or a T before the time."""
    if " %H" in pattern or " %I" in pattern:
        text = text.str.replace(r"(\d)T(\d)", "$1 $2").str.replace(r"(\d) ?([AaPp][Mm])$", "$1 $2")
    if pattern.endswith("%z"):
        text = text.str.replace(r" ?(Z|UTC)$", "+00:00").str.replace(r" ([+-]\d{2}:?\d{2})$", "$1")
        zoned = text.str.strptime(pl.Datetime("us", "UTC"), pattern, strict=False)
        return zoned.dt.replace_time_zone(None)
    if pattern == "%Y-%m":
        text, pattern = text + "-01", "%Y-%m-%d"
    if pattern.startswith("%H"):
        text, pattern = "1970-01-01 " + text, f"%Y-%m-%d {pattern}"
    if "%H" in pattern or "%I" in pattern:
        return text.str.strptime(pl.Datetime("us"), pattern, strict=False)
    return text.str.strptime(pl.Date, pattern, strict=False).cast(pl.Datetime("us"))


def _list(distinct: pl.Series) -> ListFormat | None:
    if not distinct.str.contains(r"^\[[\s\d.,;eE+-]+\]$").all():
        return None
    width = len(re.split(r"[,;\s]+", distinct[0].strip("[] \n\t")))
    made = ListFormat(width)
    return made if width > 1 and not made.read(distinct).null_count().sum_horizontal().item() else None
