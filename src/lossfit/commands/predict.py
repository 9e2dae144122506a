"""lossfit predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lossfit.compare.errors import InputError
from lossfit.compare.export.model import Predictions, load
from lossfit.compare.report import wording
from lossfit.compare.running import store
from lossfit.compare.scoring.tasks import CARDS


def predict(
    folder: Annotated[Path, typer.Argument(help="A folder that `lossfit export` wrote to.", metavar="DIR")],
    source: Annotated[
        str,
        typer.Argument(
            help="A .csv or .parquet file with the columns of the comparison, the target not needed; an .npz file "
            "with X; an image, or a folder of images."
        ),
    ],
    keep: Annotated[
        list[str] | None, typer.Option(help="Columns to pass on, such as id,name.", metavar="A,B,...")
    ] = None,
    impute: Annotated[
        bool, typer.Option("--impute", help="Fill in missing values, numbers with the median of the training rows.")
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
    console = Console()
    if out.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"Expected --out to end in .csv or .parquet, but got {str(out)!r}.")
    if out.is_dir() or (out.exists() and Path(source).exists() and out.samefile(source)):
        raise InputError(f"The output {str(out)!r} is {'a folder' if out.is_dir() else 'the input'}; name another.")
    model = load(folder)
    names = tuple(dict.fromkeys(part.strip() for name in keep or () for part in name.split(",") if part.strip()))
    found = model.predictions(source, keep=names, impute=impute or None)
    store.write_table(out, found.table)
    for note in found.notes:
        console.print(Text(note), soft_wrap=True)
    console.print(Text(f"Wrote {found.table.height:,} rows to {out}."), soft_wrap=True)
    if found.metrics:
        _print_metrics(console, found)


def _print_metrics(console: Console, found: Predictions) -> None:
    console.print(f"\nOn {found.labelled:,} rows with a known class:", highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in found.metrics.items():
        card = CARDS[name]
        table.add_row(Text(card.title + (", %" if card.percent else "")), Text(wording.number(value, name)))
    console.print(table)
    console.print(Text("On rows that the model was trained on, these look better than they are."))
