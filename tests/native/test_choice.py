"""Where the native kernels come from, and what is said of them. These tests need no library."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch

import lossfit
from lossfit import kernels, native
from lossfit.native import library


@pytest.fixture
def _without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "load", lambda: "lossfit was installed without a C++ compiler")


def test_no_library_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOSSFIT_NATIVE", raising=False)
    assert library.load(tmp_path / "kernels.so") == "lossfit was installed without a C++ compiler"
    (tmp_path / "broken.so").write_bytes(b"no library")
    assert "cannot be loaded" in str(library.load(tmp_path / "broken.so"))


def test_the_environment_switches_it_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSFIT_NATIVE", "0")
    assert library.load(tmp_path / "off.so") == "LOSSFIT_NATIVE=0 is set"
    monkeypatch.setenv("LOSSFIT_NATIVE", str(tmp_path / "another.so"))
    assert library.load(tmp_path / "other.so") == "lossfit was installed without a C++ compiler"


@pytest.mark.usefixtures("_without")
def test_without_it_all_works_but_by_name() -> None:
    scores, target = torch.randn(3, 4), torch.zeros(3, dtype=torch.int64)
    lossfit.CrossEntropyLoss()(scores, target)
    with pytest.raises(ImportError, match="needs the compiled kernels, but lossfit was installed without"):
        lossfit.gap(scores, target, backend="native")


@pytest.mark.usefixtures("_without")
def test_what_is_shown_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    lossfit.show_config()
    shown = capsys.readouterr().out
    assert "native kernels: none: lossfit was installed without a C++ compiler" in shown
    assert "CPU tensors: torch: there are no native kernels" in shown


def test_what_is_shown_of_a_choice(capsys: pytest.CaptureFixture[str]) -> None:
    with kernels.using("torch"):
        lossfit.show_config()
    assert "CPU tensors: torch, as lossfit.kernels.using says" in capsys.readouterr().out
    assert kernels.backend_for("cpu", torch.float64).startswith("torch: ")


def test_a_module_that_has_worked_is_copied_and_pickled() -> None:
    scores, target = torch.randn(3, 4), torch.zeros(3, dtype=torch.int64)
    for loss, labels in ((lossfit.FocalLoss(), target), (lossfit.ZLPRLoss(), torch.ones(3, 4))):
        expected = loss(scores, labels)
        for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
            assert torch.equal(other(scores, labels), expected)


def test_a_setting_that_changes_counts_at_once() -> None:
    scores, target = torch.randn(3, 4), torch.zeros(3, dtype=torch.int64)
    loss = lossfit.FocalLoss(gamma=1.0)
    loss(scores, target)
    loss.gamma, loss.reduction = 3.0, "sum"
    torch.testing.assert_close(loss(scores, target), lossfit.FocalLoss(gamma=3.0, reduction="sum")(scores, target))
    scheduled = lossfit.FocalLoss(gamma=lambda step: float(step))
    scheduled(scores, target)
    scheduled.step(to=3)
    torch.testing.assert_close(scheduled(scores, target), lossfit.FocalLoss(gamma=3.0)(scores, target))
    loss.weight = torch.tensor([2.0, 1.0, 1.0, 1.0])
    torch.testing.assert_close(loss(scores, target), 2 * lossfit.FocalLoss(gamma=3.0, reduction="sum")(scores, target))
