"""What was read, told before training."""

from __future__ import annotations

from itertools import groupby

from rich.table import Table
from rich.text import Text

from lossfit.commands.terminal import Terminal
from lossfit.compare.data.columns import Column
from lossfit.compare.data.dataset import Dataset

_LONGEST = 24
_FEW = 20
_MOST = 30


def print_columns(console: Terminal, data: Dataset) -> None:
    """A row for each column, or for each run of many columns of one type; nothing for bundled sets."""
    if not data.columns:
        return
    console.print(
        f"{data.rows:,} rows, {len(data.classes):,} classes" + ("" if data.images is None else _of_images(data)),
        highlight=False,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Column", "type", "missing", "examples"):
        table.add_column(title, justify="right" if title == "missing" else "left")
    rows = [row for columns in _alike(data.columns) for row in _rows(columns)]
    for row in rows[:_MOST]:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    if len(rows) > _MOST:
        console.print(f"and {len(rows) - _MOST} rows more", highlight=False)
    console.print()


def _of_images(data: Dataset) -> str:
    assert data.images is not None
    _, height, width, channels = data.images.shape
    return f", images of {height} x {width} x {channels}"


def _alike(columns: list[Column]) -> list[list[Column]]:
    """Columns side by side of one type; of a wide table, all columns of one type."""
    order = sorted(columns, key=lambda c: c.type) if len(columns) > _MOST else columns
    return [list(run) for _, run in groupby(order, lambda c: c.type)]


def _rows(columns: list[Column]) -> list[tuple[str, str, str, str]]:
    """A row for each; many of them are told by the first and the last."""
    if len(columns) <= _FEW:
        return [
            (_short(c.name), c.type, f"{c.missing:,}" if c.missing else "", _shortened(c.examples)) for c in columns
        ]
    names = f"{_short(columns[0].name)} ... {_short(columns[-1].name)}, {len(columns):,} columns"
    missing = sum(c.missing for c in columns)
    return [(names, columns[0].type, f"{missing:,}" if missing else "", _shortened(columns[0].examples))]


def _shortened(examples: list[str]) -> str:
    return ", ".join(dict.fromkeys(_short(example) for example in examples))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
