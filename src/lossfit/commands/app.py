"""The command line."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

import lossfit
from lossfit.commands.bench import bench
from lossfit.commands.calibrate import calibrate
from lossfit.commands.claims import claims
from lossfit.commands.compare import compare
from lossfit.commands.diff import diff
from lossfit.commands.export import export
from lossfit.commands.interrupt import stopping
from lossfit.commands.losses import list_losses, plot
from lossfit.commands.predict import predict
from lossfit.commands.serve import serve
from lossfit.compare.errors import InputError

app = typer.Typer(
    name="lossfit",
    help="Train the metric you report: losses that fit it, and which of them to use on your data.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lossfit {lossfit.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


def _plainly(command: Callable[..., None]) -> Callable[..., None]:
    """What the user can mend is told in a line, without a traceback."""

    @wraps(command)
    def told(*args: Any, **kwargs: Any) -> None:
        try:
            with stopping():
                command(*args, **kwargs)
        except KeyboardInterrupt:
            Console(stderr=True).print("\nStopped.")
            raise typer.Exit(130) from None
        except (InputError, OSError, ValueError, TypeError) as error:
            if not isinstance(error, InputError | OSError) and not str(error).startswith("Expected "):
                raise
            Console(stderr=True).print(Text(f"lossfit: {error}", style="red"), soft_wrap=True)
            raise typer.Exit(2) from error

    return told


app.command()(_plainly(compare))
app.command("list")(_plainly(list_losses))
for _command in (plot, bench, export, predict, calibrate, claims, diff, serve):
    app.command()(_plainly(_command))
