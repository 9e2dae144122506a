"""lossfit claims."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from lossfit import claims as catalogue
from lossfit.claims import report
from lossfit.commands import terminal
from lossfit.compare import files
from lossfit.compare.errors import InputError

_STYLES = {"holds": "green", "holds with a correction": "yellow", "refuted": "red"}


def claims(
    names: Annotated[list[str] | None, typer.Argument(help="Claims by name; all if not given.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the page.")] = Path("lossfit-claims"),
) -> None:
    """Run the checkable statements of the articles behind this library, and say which hold.

    \b
    lossfit claims
    lossfit claims toy_example low_temperature --out two-claims

    Writes claims.html (open it), claims.md with pictures, and claims.json.
    """
    console = terminal.console()
    wanted = [catalogue.get(name) for name in dict.fromkeys(names or catalogue.MODULES)]
    if out.exists() and not out.is_dir():
        raise InputError(f"The output {str(out)!r} is a file; name a folder by --out.")
    if out.exists() and files.names_in(out) and not (out / "claims.json").is_file():
        raise InputError(f"The folder {str(out)!r} exists and holds something else; name another by --out.")
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(wanted))
        results = report.run(wanted, lambda name, done: bar.update(task, description=name, completed=done))
    contents = report.write(results, out)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Claim")
    table.add_column("Verdict", no_wrap=True)
    for record in contents["claims"]:
        table.add_row(Text(record["statement"]), Text(record["verdict"], style=_STYLES[record["verdict"]]))
    console.print(table)
    told = ", ".join(f"{verdict}: {count}" for verdict, count in contents["counts"].items())
    console.say(f"\n{told}. {contents['seconds']:.0f} s. Page: {out / 'claims.html'}")
