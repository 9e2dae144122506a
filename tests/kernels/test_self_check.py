"""The check of the kernels before a device is used, where the interpreter takes the place of a driver."""

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lossfit import kernels

pytest.importorskip("triton")
from lossfit.kernels import launch, self_check

LIKE = torch.zeros(1)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "_passed", {})
    monkeypatch.delenv("LOSSFIT_KERNELS", raising=False)


@pytest.mark.parametrize("dtype", kernels.DTYPES, ids=str)
def test_right_kernels_pass(dtype: torch.dtype) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.filterwarnings("ignore", module="triton")
        assert self_check.trusted(LIKE.to(dtype))


def test_a_wrong_gradient_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = [], launch.backward

    def backward(*arguments: Any) -> Any:
        calls.append(1)
        return real(*arguments) * 1.01

    monkeypatch.setattr(launch, "backward", backward)
    with pytest.warns(RuntimeWarning, match=r"the gradient of the soft gap differs .* Please report this line"):
        assert not self_check.trusted(LIKE)
    count = len(calls)
    assert count
    assert not self_check.trusted(LIKE)
    assert len(calls) == count


def test_a_compiler_that_fails_leads_to_plain_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(*_: Any) -> None:
        raise RuntimeError("PassManager::run failed\nand much more")

    monkeypatch.setattr(launch, "forward", forward)
    with pytest.warns(RuntimeWarning, match=r"PyTorch computes: RuntimeError: PassManager::run failed\. Please"):
        assert not self_check.trusted(LIKE)


def test_the_variable_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "_difference", lambda *_: pytest.fail("looked"))
    for mode in ("on", "off"):
        monkeypatch.setenv("LOSSFIT_KERNELS", mode)
        assert self_check.trusted(LIKE) == (mode == "on")
    monkeypatch.setenv("LOSSFIT_KERNELS", "maybe")
    with pytest.raises(ValueError, match="`LOSSFIT_KERNELS` to be one of 'check', 'on', 'off', but got 'maybe'"):
        self_check.trusted(LIKE)


def test_auto_asks_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor that says it is on a GPU."""
    on_gpu: Any = SimpleNamespace(is_cuda=True, dtype=torch.float32, device=torch.device("cuda"))
    for mode in ("on", "off"):
        monkeypatch.setenv("LOSSFIT_KERNELS", mode)
        assert kernels.chosen(on_gpu) == (mode == "on")
    with kernels.using("triton"):
        assert kernels.chosen(on_gpu)
