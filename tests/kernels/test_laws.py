"""Every single-label loss: the same value and gradient on the kernels as in plain PyTorch."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from helpers import PATHS, build, case_id, every_case
from lossfit import kernels

pytest.importorskip("triton")
from lossfit.kernels import exact, launch

# All but those that no gap goes into.
# Where time counts, a loss for each path: a link is data to the kernels.
CASES = [
    pytest.param(case, id=case_id(case), marks=[pytest.mark.slow] * (case not in PATHS))
    for case in every_case()
    if case[0] != "sum_hinge"
]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels' wrappers that have run."""
    seen: list[str] = []
    for module, names in ((launch, ("forward", "backward")), (exact, ("sums_at", "push"))):
        for name in names:
            real = getattr(module, name)
            monkeypatch.setattr(module, name, lambda *a, real=real, name=name: (seen.append(name), real(*a))[1])
    return seen


def value_and_gradient(
    backend: kernels.Backend, case: tuple[str, dict[str, object]], z: Tensor, y: Tensor, **common: object
) -> tuple[Tensor, Tensor]:
    name, settings = case
    z = z.clone().requires_grad_()
    with kernels.using(backend):
        loss = build(name, **settings, **common).to(z.device)(z, y)
        (grad,) = torch.autograd.grad(loss.sum(), z)
    return loss.detach(), grad


@pytest.mark.parametrize("case", CASES)
def test_the_backends_agree(case: tuple[str, dict[str, object]], device: str, launched: list[str]) -> None:
    z = 2 * torch.randn(5, 4, dtype=torch.float64, device=device)
    y = torch.tensor([3, 0, -100, 1, 1], device=device)
    (value, grad), (expected, expected_grad) = (
        value_and_gradient(backend, case, z, y, reduction="none") for backend in ("triton", "torch")
    )
    assert len(launched) >= 2
    assert value[2] == 0
    assert (grad[2] == 0).all()
    assert_close(value, expected, rtol=1e-9, atol=1e-12)
    assert_close(grad, expected_grad, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("case", [case for case in CASES if case.values[0][0] != "exact"])
def test_the_backends_agree_on_every_way_of_calling(
    case: tuple[str, dict[str, object]], device: str, launched: list[str]
) -> None:
    z = 2 * torch.randn(2, 3, 2, dtype=torch.float64, device=device)
    y = torch.tensor([[2, -100], [0, 1]], device=device)
    weight = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64, device=device)
    ways: list[tuple[Tensor, dict[str, object]]] = [
        (y, {"weight": weight, "label_smoothing": 0.1}),
        (z.flip(0).softmax(1), {"weight": weight}),
    ]
    for target, common in ways:
        launched.clear()
        (value, grad), (expected, expected_grad) = (
            value_and_gradient(backend, case, z, target, **common) for backend in ("triton", "torch")
        )
        assert len(launched) >= 2
        assert_close(value, expected, rtol=1e-12, atol=1e-13)
        assert_close(grad, expected_grad, rtol=1e-11, atol=1e-12)
