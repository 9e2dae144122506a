"""lossfit diff."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lossfit.commands import terminal
from lossfit.compare import files
from lossfit.compare.errors import InputError
from lossfit.compare.report import diff as report


def diff(
    first: Annotated[Path, typer.Argument(help="The folder of a finished comparison.", metavar="DIR1")],
    second: Annotated[Path, typer.Argument(help="The folder of another one.", metavar="DIR2")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("lossfit-diff.html"),
) -> None:
    """Set two comparisons side by side: what differs in plan, data and versions, and what it changes.

    \b
    lossfit diff lossfit-tweets lossfit-tweets-noisy
    lossfit diff before after --out changes.html

    On the same data, seed and folds the differences are taken row by row.
    """
    if out.is_dir():
        raise InputError(f"The output {str(out)!r} is a folder; name a file by --out.")
    files.write({out: report.render(report.read_run(first), report.read_run(second))})
    terminal.console().say(f"Wrote {out}")
