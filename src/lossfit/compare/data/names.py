"""Names of columns: found without their case and in any form of Unicode, and told where one is not there."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence

from lossfit.compare.errors import listed

_MOST = 10


def folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().casefold()


def resolved(name: str, columns: Sequence[str]) -> str:
    """The one column of this name, in any case and form of Unicode; the name itself if there is none or are several."""
    if name in columns:
        return name
    alike = [column for column in columns if folded(column) == folded(name)]
    return alike[0] if len(alike) == 1 else name


def near(name: str, columns: Sequence[str]) -> str:
    """A sentence on the columns that are there: all of a few, or those whose names come near."""
    if len(columns) <= _MOST:
        return f"The columns are: {', '.join(columns)}."
    folds: dict[str, str] = {}
    for column in columns:
        folds.setdefault(folded(column), column)
    alike = difflib.get_close_matches(folded(name), folds, _MOST, 0.6)
    parts = [column for fold, column in folds.items() if folded(name) in fold or fold in folded(name)] if name else []
    found = list(dict.fromkeys([*(folds[fold] for fold in alike), *parts]))[:_MOST]
    if found:
        return f"Of {len(columns):,} columns, these come near: {listed(found)}."
    return f"There are {len(columns):,} columns: {', '.join(columns[:_MOST])} and {len(columns) - _MOST:,} more."
