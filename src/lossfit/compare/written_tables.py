"""Tables as they are written for people, who may open them in a spreadsheet."""

from __future__ import annotations

import io

import polars as pl

_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
_FORMULA = r"^\s*[=+\-@]|^[\t\r\n]"


def contents(table: pl.DataFrame, suffix: str, *, raw: bool = False) -> bytes:
    """A table as .csv or .parquet.

    A spreadsheet runs cells of a .csv that begin with =, +, - or @ as formulas, in quotes or not. An apostrophe is put
    before such strings and names of columns, which makes them text there; numbers stay as they are.

    Args:
        table: what to write.
        suffix: ".csv" or ".parquet".
        raw: leave the strings of a .csv as they are.
    """
    # By way of memory, since what Polars says of a full disk may be anything.
    found = io.BytesIO()
    if suffix.lower() == ".csv":
        (table if raw else _marked(table)).write_csv(found)
    else:
        table.write_parquet(found)
    return found.getvalue()


def _marked(table: pl.DataFrame) -> pl.DataFrame:
    strings = [pl.col(name) for name, dtype in table.schema.items() if dtype in (pl.String, pl.Categorical, pl.Enum)]
    text = [column.cast(pl.String) for column in strings]
    runs = [column.str.contains(_FORMULA) & column.cast(pl.Float64, strict=False).is_null() for column in text]
    cells = [
        pl.when(run).then(pl.lit("'") + column).otherwise(column).alias(column.meta.output_name())
        for run, column in zip(runs, text, strict=True)
    ]
    names = {name: f"'{name}" for name in table.columns if name.lstrip().startswith(_STARTS) or name[:1] in _STARTS}
    return table.with_columns(cells).rename(names)
