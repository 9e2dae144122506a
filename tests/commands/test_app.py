"""The command line starts fast: it imports what the command needs, and nothing else."""

import inspect
from importlib import import_module

import pytest
import typer

from command import flat, run
from forks import Forks
from lossfit.commands.app import COMMANDS, app

# What commands need, none of which is fast to import.
HEAVY = [
    "altair",
    "jinja2",
    "lossfit.claims",
    "lossfit.compare.data",
    "lossfit.compare.report",
    "lossfit.compare.running",
    "pandas",
    "PIL",
    "polars",
    "pyarrow",
    "ray",
    "safetensors",
    "scipy",
    "sklearn",
    "transformers",
    "triton",
    "vl_convert",
]

IMPORTED = """
import sys
from lossfit.__main__ import main
for arguments in {calls!r}:
    sys.argv = ["lossfit", *arguments]
    try:
        main()
    except SystemExit as ended:
        print("ended:", *arguments, ended.code, file=sys.stderr)
print("imported:", *(name for name in {heavy!r} if name in sys.modules), file=sys.stderr)
"""


def imported(forks: Forks, *calls: list[str]) -> list[str]:
    """How each call of the command line ended, and which of the heavy modules were imported in the end."""
    code = IMPORTED.format(calls=calls, heavy=HEAVY)
    found = forks.run(code)
    assert found.returncode == 0, found.stderr
    return [line for line in found.stderr.splitlines() if line.startswith(("ended: ", "imported:"))]


def test_what_needs_no_command_imports_none(forks: Forks) -> None:
    found = imported(forks, ["--version"], ["--help"], ["list"], ["list", "focal"], ["comapre"])
    assert found == [
        "ended: --version 0",
        "ended: --help 0",
        "ended: list 0",
        "ended: list focal 0",
        "ended: comapre 2",
        "imported:",
    ]


def test_the_names_of_what_is_heavy_are_right(forks: Forks) -> None:
    """Else the test above could not fail."""
    (ended, names) = imported(forks, ["compare", "--help"])
    assert ended == "ended: compare --help 0"
    assert {"altair", "polars", "sklearn", "scipy", "lossfit.compare.running"} <= {*names.split()}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_of_a_command_is_the_first_sentence_of_its_help(name: str) -> None:
    source = COMMANDS[name]
    command = getattr(import_module(f"lossfit.commands.{source.module}"), source.function)
    assert inspect.getdoc(command).splitlines()[0] == source.summary
    told = run(name, "--help").stdout
    assert told.startswith(f"Usage: lossfit {name} [OPTIONS]")
    assert source.summary in flat(told)
    assert typer.main.get_command(app).commands[name].get_short_help_str(200) == source.summary


def test_every_command_is_in_the_top_help() -> None:
    lines = [line.split()[0] for line in run("--help").stdout.partition("Commands:\n")[2].splitlines()]
    assert lines == [*COMMANDS]


def test_a_typo_is_answered_by_the_nearest_command() -> None:
    found = run("comapre")
    assert found.exit_code == 2
    assert "No such command 'comapre'. Did you mean 'compare'?" in found.stderr
