"""lossfit export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from lossfit.compare.export import final
from lossfit.compare.export.model import FOLDER, JSON, WEIGHTS
from lossfit.compare.report import wording


def export(
    folder: Annotated[Path, typer.Argument(help="The folder of a finished comparison.", metavar="DIR")],
    loss: Annotated[str | None, typer.Option(help="A loss of the comparison, if not the recommended one.")] = None,
    source: Annotated[
        str | None, typer.Option(help="Where the data of the comparison is now, if it was moved.", metavar="FILE")
    ] = None,
    test: Annotated[
        str | None, typer.Option(help="Where its rows to test on are now, if they were moved.", metavar="FILE")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the model; DIR/model if not given.")] = None,
) -> None:
    """Train the loss that a comparison recommends on all its rows, and write the model.

    \b
    lossfit export lossfit-customers
    lossfit export lossfit-customers --loss focal --out focal-model
    lossfit export lossfit-customers --source archive/customers.csv

    Writes model.safetensors and model.json, for `lossfit predict`. Four of five rows are trained on, one of five
    chooses the checkpoint; rows that were given to test on are left out.
    """
    console = Console()
    out = out or folder / FOLDER
    with Progress(
        TextColumn("Training"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=1.0)
        model = final.export(
            folder, loss=loss, source=source, test=test, progress=lambda share: bar.update(task, completed=share)
        )
    model.save(out)
    told = wording.with_setting(model.loss, model.params)
    trained = model.trained
    console.print(
        Text(
            f"{told}: trained on {trained['rows']:,} rows; {trained['rows_to_choose_on']:,} others chose the weights "
            f"after step {trained['steps']:,}."
        ),
        soft_wrap=True,
    )
    size = sum((out / name).stat().st_size for name in (JSON, WEIGHTS))
    console.print(Text(f"Wrote {out / WEIGHTS} and {JSON}, {size / 1024:,.0f} KiB. Use them by:"), soft_wrap=True)
    use = folder if out == folder / FOLDER else out
    console.print(Text(f"\n    lossfit predict {use} new.csv"), soft_wrap=True)
