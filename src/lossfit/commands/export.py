"""lossfit export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lossfit.commands import terminal
from lossfit.compare import files
from lossfit.compare.export import final
from lossfit.compare.export.model import FOLDER, JSON, WEIGHTS
from lossfit.compare.report import wording


def export(
    folder: Annotated[Path, typer.Argument(help="The folder of a finished comparison.", metavar="DIR")],
    loss: Annotated[str | None, typer.Option(help="A loss of the comparison, if not the advised one.")] = None,
    source: Annotated[
        str | None, typer.Option(help="Where the data of the comparison is now, if it was moved.", metavar="FILE")
    ] = None,
    test: Annotated[
        str | None, typer.Option(help="Where its rows to test on are now, if they were moved.", metavar="FILE")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Where the comparison trained a network of your own: its package.module:factory. A folder does not "
            "choose by itself what code runs.",
        ),
    ] = None,
    embedding: Annotated[
        str | None, typer.Option(help="Where it read texts by an embedding model of your choice: that model.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the model; DIR/model if not given.")] = None,
) -> None:
    """Train the loss that a comparison advises on all its rows, and write the model.

    \b
    lossfit export lossfit-customers
    lossfit export lossfit-customers --loss focal --out focal-model
    lossfit export lossfit-customers --source archive/customers.csv

    Writes model.safetensors and model.json, for `lossfit predict`. Rows that were given to test on are
    left out.
    """
    console = terminal.console()
    out = out or files.child(folder, FOLDER)
    with Progress(
        TextColumn("Training"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=1.0)
        trained = final.export(
            folder,
            loss=loss,
            source=source,
            test=test,
            architecture=model,
            embedding=embedding,
            progress=lambda share: bar.update(task, completed=share),
        )
    trained.save(out)
    about = trained.trained
    console.say(
        f"{wording.with_setting(trained.loss, trained.params)}: trained on {about['rows']:,} rows for "
        f"{about['steps']:,} of {about['of']:,} steps, as the comparison advises."
    )
    size = sum((out / name).stat().st_size for name in (JSON, WEIGHTS))
    console.say(f"Wrote {out / WEIGHTS} and {JSON}, {size / 1024:,.0f} KiB. Use them by:")
    use = folder if out == folder / FOLDER else out
    named = [*(["--model", model] if model else []), *(["--embedding", embedding] if embedding else [])]
    console.say(f"\n    {terminal.command('lossfit', 'predict', use, 'new.csv', *named)}")
