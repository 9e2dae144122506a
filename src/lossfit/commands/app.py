"""The command line. A command's module is imported when the command runs: together they take longer than PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from rich.text import Text
from typer.core import TyperCommand
from typer.main import get_command

import lossfit
from lossfit.commands import terminal
from lossfit.commands.importing import importing
from lossfit.commands.interrupt import stopping
from lossfit.compare.errors import InputError, is_exhausted

_PLAIN: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}
app = typer.Typer(
    name="lossfit",
    help="Train the metric you report: losses that fit it, and which of them to use on your data.",
    no_args_is_help=True,
    **_PLAIN,
)


class Source(NamedTuple):
    """Where a command is, and the first sentence of its help."""

    module: str
    function: str
    summary: str


COMMANDS = {
    "compare": Source("compare", "compare", "Train every loss on your data, fairly, and say which one to use."),
    "list": Source("losses", "list_losses", "Every loss: formula, hyper-parameters, source."),
    "plot": Source("losses", "plot", "Draw losses and their sensitivities."),
    "bench": Source("bench", "bench", "What a step of each loss takes on this machine, as a ratio to F.cross_entropy."),
    "export": Source(
        "export", "export", "Train the loss that a comparison advises on all its rows, and write the model."
    ),
    "predict": Source("predict", "predict", "Predict the classes of new rows with an exported model."),
    "calibrate": Source(
        "calibrate",
        "calibrate",
        "Calibrate predictions: by temperature, vector and matrix scaling, measured on rows that did not fit them.",
    ),
    "claims": Source(
        "claims", "claims", "Run the checkable statements of the articles behind this library, and say which hold."
    ),
    "diff": Source(
        "diff",
        "diff",
        "Set two comparisons side by side: what differs in plan, data and versions, and what it changes.",
    ),
    "serve": Source(
        "serve",
        "serve",
        "List the comparisons in a folder in the browser, with their reports and what differs between two.",
    ),
}


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
            terminal.console(errors=True).say("\nStopped.")
            raise typer.Exit(130) from None
        except Exception as error:
            line = _line(error)
            if line is None:
                raise
            terminal.console(errors=True).print(Text(f"lossfit: {line}", style="red"), soft_wrap=True)
            raise typer.Exit(2) from error

    return told


def _line(error: Exception) -> str | None:
    """What to say of an error that the user can mend, in a line; None of others."""
    told = str(error).replace("\n", " ")
    if is_exhausted(error):
        return f"There is not enough memory. {told}".strip()
    if isinstance(error, InputError | OSError) or (
        isinstance(error, ValueError | TypeError) and told.startswith("Expected ")
    ):
        return told
    return None


class _OnDemand(TyperCommand):
    """Stands for a command until the command runs or its own help is asked for."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> Any:
        source = COMMANDS[self.name or ""]
        with importing():
            module = import_module(f"lossfit.commands.{source.module}")
        alone = typer.Typer(**_PLAIN)
        alone.command(self.name)(_plainly(getattr(module, source.function)))
        return get_command(alone).make_context(info_name, args, *more, **extra)


for _name, _source in COMMANDS.items():
    app.command(_name, cls=_OnDemand, help=_source.summary)(lambda: None)
