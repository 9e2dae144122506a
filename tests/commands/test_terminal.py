"""What commands print never steers the terminal, and what they print to paste runs one command."""

import io
import json
import shlex
from pathlib import Path

import polars as pl
import pytest
from rich.table import Table
from rich.text import Text

from command import refused, run
from lossfit.commands import terminal
from trainings import short_trainings

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202edlrow"


def printed(renderable: object) -> str:
    console = terminal.Terminal(file=io.StringIO(), width=120, force_terminal=True)
    console.print(renderable)
    found = console.file
    assert isinstance(found, io.StringIO)
    return found.getvalue()


@pytest.mark.parametrize("wrapped", [Text, str, lambda text: Text(f"a {text} b", style="red")])
def test_controls_are_shown_as_escapes(wrapped: object) -> None:
    assert callable(wrapped)
    found = printed(wrapped(EVIL.replace("[", "(")))
    assert "\\x1b" in found
    assert "\\u202e" in found
    for character in "\x9b\u202e\x07":
        assert character not in found
    assert "\x1b]" not in found
    assert "\x1b(" not in found


def test_in_a_table_too() -> None:
    table = Table()
    table.add_column(Text(EVIL))
    table.add_row(Text(EVIL))
    found = printed(table)
    assert "\x1b]0" not in found
    assert "\x1b[2J" not in found


def test_names_in_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{i % 7},{i % 3},a{i % 2}" for i in range(40)]
    Path("t.csv").write_text("\n".join([f'"{EVIL}","x","y"', *rows]))
    options = ("--losses", "focal", "--folds", 3, "--repeats", 1, "--trials", 1, "--workers", 1, "--model", "linear")
    with short_trainings():
        found = run("compare", "t.csv", "--target", "y", *options)
    assert found.exit_code == 0, found.output
    assert "\x1b" not in found.stdout
    assert "\\x1b]0;owned" in found.stdout
    told = refused("compare", "t.csv", "--target", "z\x1b[2J\ny", *options)
    assert "\x1b" not in told


def test_commands_to_paste() -> None:
    found = terminal.command("lossfit", "export", "a; rm -rf ~")
    assert shlex.split(found) == ["lossfit", "export", "a; rm -rf ~"]
    assert "\x1b" not in terminal.command("lossfit", "\x1b[2J")


def test_lines_to_paste_stay_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    evil = "a\nimport os; os.abort()\n#"
    # So sure that the temperature is worth having.
    p = [0.999 if (i % 2 == 0) == (i * 3 % 10 < 7) else 0.001 for i in range(200)]
    pl.DataFrame({evil: p, "b": [1 - v for v in p], "y": [i % 2 for i in range(200)]}).write_csv("p.csv")
    found = run("calibrate", "p.csv", "--target", "y", "--resamples", 100, "--picture", "svg")
    assert found.exit_code == 0, found.output
    code = json.loads(Path("lossfit-calibrate-p/calibration.json").read_text())["code"]
    assert code
    assert not any("\n" in line for line in code)
