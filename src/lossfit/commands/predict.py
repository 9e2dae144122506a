"""lossfit predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from lossfit.commands import terminal
from lossfit.commands.terminal import Terminal
from lossfit.compare import files, written_tables
from lossfit.compare.data.sources.dialect import FileOptions
from lossfit.compare.errors import InputError
from lossfit.compare.export.model import Predictions, load
from lossfit.compare.report import wording
from lossfit.compare.scoring.tasks import CARDS


def predict(
    folder: Annotated[Path, typer.Argument(help="A folder that `lossfit export` wrote to.", metavar="DIR")],
    source: Annotated[
        str,
        typer.Argument(
            help="A table in a file, with the columns of the comparison, the target not needed; - for the standard "
            "input; an .npz file with X; an image, or a folder of images."
        ),
    ],
    keep: Annotated[
        list[str] | None, typer.Option(help="Columns to pass on, such as id,name.", metavar="A,B,...")
    ] = None,
    impute: Annotated[
        bool, typer.Option("--impute", help="Fill in missing values, numbers with the median of the training rows.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            help="Of a network of your own its package.module:factory, a function or class in the current folder or "
            "installed: the model's folder does not choose by itself what code runs.",
        ),
    ] = None,
    embedding: Annotated[
        str | None, typer.Option(help="The embedding model, where texts are read by another than lossfit's own.")
    ] = None,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            help="Write cells of a .csv as they are. If not given, an apostrophe is put before those that a "
            "spreadsheet would run as a formula.",
        ),
    ] = False,
    separator: Annotated[
        str | None, typer.Option(help="What stands between the fields of a text file; found if not given.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of a text file, such as cp1252; UTF-8, or found, if not given.")
    ] = None,
    comment: Annotated[
        str | None, typer.Option(help="What lines of a text file that are no rows begin with, such as #.")
    ] = None,
    skip_rows: Annotated[int, typer.Option(help="Lines of a text file before the names of the columns.")] = 0,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out images that cannot be read, and count them.")
    ] = False,
    out: Annotated[Path, typer.Option(help="A .csv or .parquet file; overwritten.")] = Path("predictions.csv"),
) -> None:
    """Predict the classes of new rows with an exported model.

    \b
    lossfit predict lossfit-customers new.csv
    lossfit predict lossfit-customers new.parquet --keep id,name --out scored.parquet
    lossfit predict lossfit-photos holiday/ --keep file

    Writes the class, its probability and those of all classes, a row for each, in the order of the input. Where the
    target is among the columns, the metrics are shown.
    """
    console = terminal.console()
    if out.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"Expected --out to end in .csv or .parquet, but got {str(out)!r}.")
    if out.is_dir() or (out.exists() and Path(source).exists() and out.samefile(source)):
        raise InputError(f"The output {str(out)!r} is {'a folder' if out.is_dir() else 'the input'}; name another.")
    loaded = load(folder, architecture=model, embedding=embedding)
    names = tuple(dict.fromkeys(part.strip() for name in keep or () for part in name.split(",") if part.strip()))
    options = FileOptions(separator, encoding, comment, skip_rows, skip_unreadable)
    found = loaded.predictions(source, keep=names, impute=impute or None, options=options)
    files.write({out: written_tables.contents(found.table, out.suffix, raw=raw)})
    for note in found.notes:
        console.say(note)
    console.say(f"Wrote {found.table.height:,} rows to {out}.")
    if found.metrics:
        _print_metrics(console, found)


def _print_metrics(console: Terminal, found: Predictions) -> None:
    console.print(f"\nOn {found.labelled:,} rows with a known class:", highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in found.metrics.items():
        card = CARDS[name]
        table.add_row(Text(card.title + (", %" if card.percent else "")), Text(wording.number(value, name)))
    console.print(table)
    console.say("On rows that the model was trained on, these look better than they are.")
