"""What computes the gap: chosen, or refused with a reason."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import lossfit
from forks import Forks
from lossfit import kernels


def without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "triton" else find(name, *rest)
    )


def test_without_triton_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without_triton(monkeypatch)
    z, y = torch.randn(2, 3), torch.tensor([0, 1])
    assert not kernels.available(z)
    for ask in (lambda: kernels.require(z), lambda: lossfit.gap(z, y, backend="triton")):
        with pytest.raises(ImportError, match=r'pip install "lossfit\[triton\]"'):
            ask()
    assert lossfit.gap(z, y).target.shape == (2,)


def test_a_cpu_without_the_interpreter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    z, y = torch.randn(2, 3), torch.tensor([0, 1])
    for value in (None, "0"):
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        if value is not None:
            monkeypatch.setenv("TRITON_INTERPRET", value)
        assert not kernels.available(z)
        for ask in (lambda: kernels.require(z), lambda: lossfit.gap(z, y, backend="triton")):
            with pytest.raises(ValueError, match=r"Expected CUDA tensors .* but got one on cpu"):
                ask()
        assert lossfit.gap(z, y, backend="auto").target.shape == (2,)


def test_types_that_the_kernels_do_not_read_are_refused() -> None:
    pytest.importorskip("triton")
    z = torch.randn(2, 3).to(torch.float8_e5m2)
    with pytest.raises(TypeError, match=r"float32, bfloat16, float16, float64 .* but got torch.float8_e5m2"):
        kernels.require(z)
    with pytest.raises(TypeError, match=r"but got torch.float8_e5m2"):
        lossfit.gap(z, torch.tensor([0, 1]), backend="triton")


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(
        ValueError, match="Expected `backend` to be one of 'auto', 'torch', 'triton', 'native', but got 'tritn'"
    ):
        lossfit.gap(torch.randn(2, 3), torch.tensor([0, 1]), backend="tritn")
    with pytest.raises(ValueError, match="Expected `backend`"), kernels.using("cuda"):
        pass


def test_the_choice_ends_with_its_block() -> None:
    assert kernels.current() == "auto"
    with kernels.using("torch"):
        assert kernels.current() == "torch"
        with pytest.raises(TypeError, match="int64"), kernels.using("triton"):
            lossfit.gap(torch.zeros(2, 3).long(), torch.tensor([0, 1]))
        assert kernels.current() == "torch"
    assert kernels.current() == "auto"


def spy(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    from lossfit.kernels import launch

    seen: list[str] = []
    for name in ("forward", "backward"):
        real = getattr(launch, name)
        monkeypatch.setattr(launch, name, lambda *a, real=real, name=name: (seen.append(name), real(*a))[1])
    return seen


def test_the_backward_pass_keeps_the_choice_of_the_forward_pass(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    pytest.importorskip("triton")
    seen = spy(monkeypatch)
    z, y = torch.randn(2, 3, device=device, requires_grad=True), torch.tensor([0, 1], device=device)
    for backend, expected in (("triton", ["forward", "backward"]), ("torch", [])):
        for inside in (False, True):
            with kernels.using(backend if inside else "auto"):
                d = lossfit.gap(z, y, backend="auto" if inside else backend).log_odds
            d.sum().backward()
            assert seen == expected
            seen.clear()


@pytest.mark.parametrize("loss", [lossfit.CrossEntropyLoss(), lossfit.ExactLoss()], ids=repr)
def test_a_loss_keeps_the_choice_too(
    loss: lossfit.SingleLabelLoss, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    pytest.importorskip("triton")
    from lossfit.kernels import exact

    seen = spy(monkeypatch)
    push = exact.push
    monkeypatch.setattr(exact, "push", lambda *a: (seen.append("backward"), push(*a))[1])
    z, y = torch.randn(2, 3, device=device, requires_grad=True), torch.tensor([0, 1], device=device)
    for backend, after in (("triton", "torch"), ("torch", "triton")):
        seen.clear()
        with kernels.using(backend):
            value = loss(z, y)
        with kernels.using(after):
            value.backward()
        assert ("backward" in seen) == (backend == "triton")


def test_auto_takes_the_kernels_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    pytest.importorskip("triton")
    seen = spy(monkeypatch)
    lossfit.gap(torch.randn(2, 3, device=device), torch.tensor([0, 1], device=device))
    assert seen == (["forward"] if device == "cuda" else [])


def test_every_kernel_is_launched_on_the_device_of_its_tensors(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """Triton launches on the current device, which need not be theirs."""
    pytest.importorskip("triton")
    from lossfit.kernels import exact, gap

    inside: list[torch.device] = []
    launched: set[str] = set()
    real = torch.cuda.device_of

    @contextmanager
    def device_of(tensor: Tensor) -> Iterator[None]:
        inside.append(tensor.device)
        with real(tensor):
            yield
        inside.pop()

    class Watched:
        def __init__(self, name: str, kernel: Any) -> None:
            self.name, self.kernel = name, kernel

        def __getitem__(self, grid: Any) -> Any:
            assert inside
            launched.add(self.name)
            return self.kernel[grid]

    names = {gap: ("forward", "backward"), exact: ("at_places", "sums", "push_kernel")}
    for module, kernels_of_it in names.items():
        for name in kernels_of_it:
            monkeypatch.setattr(module, name, Watched(name, getattr(module, name)))
    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    x, weight = (torch.randn(3, 4, device=device, requires_grad=True) for _ in range(2))
    y = torch.tensor([0, 1, 2], device=device)
    for loss in (lossfit.CrossEntropyLoss(), lossfit.ExactLoss()):
        loss.linear(x, weight, y, backend="triton").backward()
    assert launched == {name for kernels_of_it in names.values() for name in kernels_of_it}
    assert not inside


def test_the_library_is_imported_without_triton(forks: Forks) -> None:
    code = "import sys; sys.modules['triton'] = None; import lossfit.kernels; assert lossfit.CrossEntropyLoss()"
    found = forks.run(code)
    assert found.returncode == 0, found.stderr
