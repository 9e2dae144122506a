"""lossfit bench: what it times, and how it is called."""

import json
from pathlib import Path

import pytest
import torch

import lossfit
from command import refused, run
from lossfit.commands import timing


@pytest.mark.parametrize(("features", "called"), [(None, "forward"), (6, "linear")])
def test_steps_make_the_gradients(features: int | None, called: str) -> None:
    """Those of the baseline are those of cross-entropy as a loss, of everything that it is called with."""
    loss, seen = lossfit.CrossEntropyLoss(), []
    method = getattr(loss, called)
    setattr(loss, called, lambda *given: (seen.extend(given), method(*given))[1])
    baseline, mine = timing.steps({"mine": loss}, 5, 4, features).values()
    mine()
    leaves = [tensor for tensor in seen if tensor.requires_grad]
    found = [leaf.grad for leaf in leaves]
    baseline()
    assert len(leaves) == (1 if features is None else 2)
    for one, leaf in zip(found, leaves, strict=True):
        torch.testing.assert_close(one, leaf.grad)


def test_costs_are_relative_to_the_first() -> None:
    slow = torch.randn(300, 300)
    told: list[int] = []
    steps = {"a": lambda: None, "b": lambda: [slow @ slow for _ in range(5)] and None}
    found = timing.measure(steps, 3, timed=lambda: told.append(1))
    assert len(told) == 2 * 4
    assert (found["a"].ratio, found["a"].low, found["a"].high) == (1, 1, 1)
    assert found["b"].low <= found["b"].ratio <= found["b"].high
    assert found["b"].ratio > 10
    assert found["b"].milliseconds > found["a"].milliseconds


def test_a_table_and_a_file(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    small = ("--rows", 8, "--classes", 5, "--rounds", 2, "--device", "cpu")
    found = run("bench", "focal:gamma=3", "exact", "--features", 4, "--dtype", "bfloat16", *small, "--out", out)
    assert found.exit_code == 0, found.output
    for line in ("Scores (8, 5) from 4 features, bfloat16", timing.BASELINE, "focal:gamma=3", "exact"):
        assert line in found.stdout
    written = json.loads(out.read_text())
    assert list(written["losses"]) == [timing.BASELINE, "focal:gamma=3", "exact"]
    assert written["losses"][timing.BASELINE]["ratio"] == 1
    assert (written["rows"], written["classes"], written["features"], written["dtype"]) == (8, 5, 4, "bfloat16")
    every = run("bench", *small)
    assert all(name in every.stdout for name in lossfit.available_losses("single_label") if name != "sensitivity")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("focla",), "focal"),
        (("focal:gama=2",), "focal has no setting 'gama'"),
        (("bce",), "Expected losses of one right class, cross_entropy"),
        (("--dtype", "int8"), "Expected --dtype to be one of float32, bfloat16, float16, float64, but got 'int8'"),
        (("--out", "bench.txt"), "Expected --out to be a .json file, but got 'bench.txt'"),
        (("--classes", 1), "--classes"),
        (("--rounds", 1), "--rounds"),
        (("focal", "--rows", 10**14, "--classes", 10), "do not fit the memory"),
    ],
)
def test_wrong_input(arguments: tuple[object, ...], told: str) -> None:
    if "--rows" in arguments:
        found = run("bench", *arguments, "--device", "cpu")
        assert found.exit_code == 2
        assert told in " ".join(found.stderr.split())
    else:
        assert told in refused("bench", *arguments)
