"""EXACT by the native kernels against plain PyTorch in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import lossfit
from lossfit import kernels
from native_helpers import LEVELS, needs_library, rounding, use_level

pytestmark = needs_library


@pytest.fixture(params=LEVELS, autouse=True)
def _level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    use_level(request.param, monkeypatch)


def compare(loss: lossfit.ExactLoss, scores: Tensor, target: Tensor, value_error: float = 2e-6) -> None:
    z, exact = scores.clone().requires_grad_(), scores.double().requires_grad_()
    with kernels.using("native"):
        value = loss(z, target)
    expected = loss(exact, target)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=value_error)
    (grad,) = torch.autograd.grad(value.sum(), z)
    (expected_grad,) = torch.autograd.grad(expected.sum(), exact)
    error = (grad.double() - expected_grad).abs()
    bound = 1e-5 * expected_grad.abs().amax(1, keepdim=True) + rounding(expected_grad, scores.dtype)
    assert (error <= bound).all(), (error / bound).max()


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 10, 33, 100])
def test_gaps_from_lost_to_won(classes: int, log: bool) -> None:
    scores = torch.randn(31, classes)
    scores[:, 0] += torch.linspace(-15, 15, 31)
    loss = lossfit.ExactLoss(log=log, reduction="none")
    compare(loss, scores, torch.zeros(31, dtype=torch.int64))
    compare(loss, scores * 0.3, torch.randint(classes, (31,)))


@pytest.mark.parametrize("classes", [1000, 3000])
def test_many_classes(classes: int) -> None:
    scores = torch.randn(4, classes)
    scores[:, 0] += torch.tensor([-4.0, 0.0, 4.0, 9.0])
    for log in (False, True):
        compare(lossfit.ExactLoss(log=log, reduction="none"), scores, torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    compare(lossfit.ExactLoss(reduction="none"), torch.randn(9, 7).to(dtype), torch.randint(7, (9,)))


def test_infinite_scores() -> None:
    scores = torch.randn(5, 4)
    scores[0, 1:] = -torch.inf
    scores[1, 2:] = -torch.inf
    scores[2, 0] = -torch.inf
    target = torch.zeros(5, dtype=torch.int64)
    compare(lossfit.ExactLoss(reduction="none"), scores, target)
    compare(lossfit.ExactLoss(reduction="none"), torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))


def test_ignored_rows_may_hold_anything() -> None:
    scores, target = torch.randn(9, 5), torch.randint(5, (9,))
    scores[2], target[2] = torch.nan, -100
    compare(lossfit.ExactLoss(), scores, target)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("shape", [(), (11,), (1,)], ids=str)
def test_the_gradient_of_sigma(shape: tuple[int, ...], log: bool) -> None:
    scores, target = torch.randn(11, 6), torch.randint(6, (11,))
    grads = []
    for dtype, backend in ((torch.float32, "native"), (torch.float64, "torch")):
        sigma = torch.linspace(0.5, 2.0, 11, dtype=dtype)[: shape[0] if shape else 1].reshape(shape).clone()
        loss = lossfit.ExactLoss(torch.nn.Parameter(sigma), log=log, temperature=0.7)
        with kernels.using(backend):  # type: ignore[arg-type]
            loss(scores.to(dtype), target).backward()
        assert isinstance(loss.sigma, Tensor)
        grads.append(loss.sigma.grad)
    torch.testing.assert_close(grads[0].double(), grads[1], rtol=2e-5, atol=1e-7)


def test_it_has_no_second_derivative() -> None:
    z = torch.randn(3, 4, requires_grad=True)
    with kernels.using("native"):
        value = lossfit.ExactLoss()(z, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(NotImplementedError, match="no second derivative"):
        torch.autograd.grad(torch.autograd.grad(value, z, create_graph=True)[0].sum(), z)


def test_segmentation() -> None:
    scores, target = torch.randn(2, 5, 3, 7), torch.randint(5, (2, 3, 7))
    target[0, 0, 0] = -100
    loss = lossfit.ExactLoss(reduction="none")
    with kernels.using("native"):
        value = loss(scores, target)
    torch.testing.assert_close(value.double(), loss(scores.double(), target), rtol=1e-5, atol=2e-6)
