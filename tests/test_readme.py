"""What the README shows runs, and names what there is."""

import re
from pathlib import Path

from typer.testing import CliRunner

import lossfit
from lossfit.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_python_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})


def test_it_names_every_loss() -> None:
    for name in lossfit.available_losses():
        assert f"`{lossfit.registry.get(name).__name__}`" in README


def test_its_commands_have_these_options() -> None:
    helps = [CliRunner().invoke(app, [command, "--help"]).stdout for command in ("compare", "calibrate", "claims")]
    told = " ".join(" ".join(helps).split())
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)):
        assert option in told


def test_its_files_are_there() -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).is_file(), path
