"""Which cells are missing: what stands for nothing depends on what the column is for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import polars as pl

from lossfit.compare.data.formats import STRINGS
from lossfit.compare.data.sources.tables import MISSING

NUMBERS_MISSING = frozenset(
    {"", "na", "n/a", "n.a.", "<na>", "#n/a", "nan", "-nan", "null", "none", "nil", "missing", "-", "--", "---", "—"}
    | {"–", "?", ".", "..", "...", "*", "#value!", "#div/0!", "#ref!", "#num!", "#name?", "#null!"}
)
"""What stands for a missing number, in any case."""
_LONGEST = max(len(word.encode()) for word in NUMBERS_MISSING)
_CODE = r"^[A-Z]{2}$"


@dataclass(frozen=True)
class Missing:
    """What stands for missing values, besides nothing.

    Attributes:
        words: what the user names, for all columns.
        kept: columns in which NA and the like are values.
        written: whether the columns are strings as they stand in a file, so that NA and the like may be missing values.
    """

    words: tuple[str, ...] = ()
    kept: frozenset[str] = field(default_factory=frozenset)
    written: bool = False

    def values(self, column: pl.Series, known: Collection[str] = ()) -> pl.Series:
        """Strings as they are written, without blanks around them; null where one is missing.

        Args:
            column: of strings.
            known: strings that are values, whatever they stand for elsewhere.
        """
        text = column.cast(pl.String)
        text = text.str.strip_chars() if self.written else text
        words = {*self.words}
        if self.written:
            words |= {""} | (set() if column.name in self.kept else {*MISSING})
        words -= set(known)
        return text.set(text.is_in(list(words)), None) if words and text.is_in(list(words)).any() else text

    def numbers(self, column: pl.Series) -> pl.Series:
        """Cells of a column that may be of numbers; null where one is missing."""
        if column.dtype not in STRINGS:
            return self._without_words(column)
        text = column.cast(pl.String)
        plain = text.cast(pl.Float64, strict=False)
        odd = (plain.is_null() & text.is_not_null()) | plain.is_nan().fill_null(False)
        absent = text.is_in(list(self.words)) if self.words else pl.repeat(False, len(text), eager=True)
        if odd.any():
            text = text.str.strip_chars()
            short = odd & (text.str.len_bytes() <= _LONGEST)
            words = text.filter(short).str.to_lowercase()
            places = short.arg_true().filter(words.is_in(list(NUMBERS_MISSING)))
            absent = (absent | text.is_in(list(self.words)) if self.words else absent).scatter(places, True)
        absent = absent.fill_null(False)
        return text.set(absent, None) if absent.any() else text

    def _without_words(self, column: pl.Series) -> pl.Series:
        numbers = [float(word) for word in self.words if _is_number(word)]
        if not numbers or not column.dtype.is_numeric():
            return column
        return column.set(column.cast(pl.Float64).is_in(numbers), None)

    def told(self, column: pl.Series, values: pl.Series) -> str:
        """The cells that were taken as missing, but for empty ones; nothing if there are none."""
        if column.dtype not in STRINGS:
            taken = column.filter(values.is_null() & column.is_not_null()).cast(pl.String)
        else:
            taken = column.cast(pl.String).str.strip_chars().filter(values.is_null())
        counts = taken.drop_nulls().value_counts(sort=True)
        return ", ".join(f"{word!r} ({count})" for word, count in counts.rows()[:3] if word)


def look_like_codes(column: pl.Series) -> bool:
    """Whether all strings but the missing ones are codes of two letters, of which NA may be one."""
    text = column.str.strip_chars()
    known = text.filter(~text.is_in([*MISSING, ""])).drop_nulls()
    return known.n_unique() > 1 and bool(known.str.contains(_CODE).all()) and bool((text == "NA").any())


def spelt(cell: str) -> str:
    """What cells have in common that say the same in another spelling: 1 and 1.0, True and true."""
    word = cell.strip()
    if word.lower() in ("true", "false"):
        return word.lower()
    if _is_number(word) and not (len(word) > 1 and word.lstrip("+-")[:2].isdigit() and word.lstrip("+-")[0] == "0"):
        number = float(word)
        return f"{number:.0f}" if number == round(number) and abs(number) < 1e15 else repr(number)
    return word


def matched(cells: pl.Series, known: Collection[str]) -> pl.Series:
    """Cells in the spelling of the known ones, where these say the same; others as they are."""
    there = set(known)
    new = [cell for cell in cells.unique().drop_nulls() if cell not in there]
    spellings: dict[str, list[str]] = {}
    for word in known:
        spellings.setdefault(spelt(word), []).append(word)
    found = {cell: spellings[spelt(cell)][0] for cell in new if len(spellings.get(spelt(cell), [])) == 1}
    return cells.replace(found) if found else cells


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return "_" not in word and word.strip().lower().lstrip("+-") not in ("nan", "inf", "infinity")
