"""The examples of the integrations run, and show what they say."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_scikit_learn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    example = load("scikit_learn")
    monkeypatch.setattr(example, "LOSSES", [{"loss": ["cross_entropy", "expected_accuracy"]}])
    example.main()
    told = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: [float(cell.rstrip("%")) for cell in line.split()[1:]] for line in told[1:3]}
    assert rows["expected_accuracy"][0] > rows["cross_entropy"][0] + 2
    assert rows["expected_accuracy"][1] > rows["cross_entropy"][1] + 3
    assert len(told) == 6
    assert all(line.startswith("macro F1 with threshold") for line in told[4:])


def test_plain_loop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    example = load("plain_loop")
    monkeypatch.setattr(example, "EPOCHS", 6)
    assert example.main() > 0.8
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 7
    assert "gamma 1.0" in told[5]


def test_accelerate_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("accelerate")
    example = load("accelerate_loop")
    monkeypatch.setattr(example, "EPOCHS", 6)
    found = example.main()
    assert found["rows"] == 1797
    assert found["gamma"] == 1
    assert found["accuracy"] > 0.8
