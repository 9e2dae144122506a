"""What the README shows runs, and names what there is."""

import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import lossfit
from lossfit.commands.app import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh.md").read_text(encoding="utf-8")


def test_its_python_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})


def test_the_page_on_own_losses_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page, names = (ROOT / "docs/own_loss.md").read_text(encoding="utf-8"), {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)
    assert capsys.readouterr().out.split("\n")[:2] == re.findall(r"# (tensor\(.*\))$", page, re.MULTILINE)
    loss, target = names["TemperedAccuracyLoss"], torch.tensor([0, 1, 2, 0])
    z, power = torch.randn(4, 3, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)
    of = z.requires_grad_(), power.requires_grad_()
    assert torch.autograd.gradcheck(lambda z, power: loss(power=power)(z, target), of)


def test_it_names_every_loss() -> None:
    for name in lossfit.available_losses():
        assert f"`{lossfit.registry.get(name).__name__}`" in README


def test_its_commands_have_these_options() -> None:
    helps = [
        CliRunner().invoke(app, [command, "--help"]).stdout for command in ("compare", "bench", "calibrate", "claims")
    ]
    told = " ".join(" ".join(helps).split())
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)):
        assert option in told


def test_its_files_are_there() -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).is_file(), path


def test_the_chinese_one_says_the_same() -> None:
    """Code and numbers of the README, as often, are in README.zh.md; its lines of Python are the same."""
    for kind in (r"`[^`\n]+`", r"(?<![\w.])\d[\d,.]*\d|\b\d\b", r"\]\([^)]+\)"):
        missing = Counter(re.findall(kind, README)) - Counter(re.findall(kind, CHINESE))
        assert not missing - Counter({"](README.zh.md)": 1}), "not in README.zh.md"
    lines = [
        [
            re.sub(r"\s*#.*", "", line)
            for block in re.findall(r"```\w+\n(.*?)```", page, re.DOTALL)
            for line in block.splitlines()
        ]
        for page in (README, CHINESE)
    ]
    assert lines[0] == lines[1]


def test_its_files_are_there_too() -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", CHINESE):
        assert (ROOT / path).is_file(), path
