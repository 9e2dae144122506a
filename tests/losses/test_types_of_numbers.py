"""Hyper-parameters of another floating-point type than the scores: the results and gradients are those of one type."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import lossfit
from lossfit import AdditiveMargin, ArcMargin, CosineHead

N, C = 5, 4
Y = torch.tensor([0, 1, 2, 3, 0])
NUMBERS = {
    "focal": "gamma",
    "gamma_cross_entropy": "gamma",
    "generalized_cross_entropy": "q",
    "smooth_accuracy": "beta",
    "logistic_margin": "margin",
    "exponential_margin": "scale",
    "symmetric_cross_entropy": "alpha",
    "hinge": "margin",
    "sum_hinge": "margin",
    "exact": "sigma",
    "poly": "coefficients",
    "temperature": "temperature",
    "label_smoothing": "label_smoothing",
}


def gradients(run: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The value, and the gradients of scores in float32 and of numbers in this type."""
    z = torch.linspace(-1, 2, N * C).view(N, C).requires_grad_()
    numbers = torch.linspace(0.3, 0.7, N).to(dtype).requires_grad_()
    value = run(z, numbers)
    assert value.dtype == torch.float32
    return [value, *torch.autograd.grad(value, [z, numbers])]


def loss_of(name: str, numbers: Tensor) -> lossfit.SingleLabelLoss:
    key, number = NUMBERS[name], [numbers] if name == "poly" else numbers
    return lossfit.make("cross_entropy" if name == key else name, **{key: number})


@pytest.mark.parametrize("way", ["dense", "chunked", "tokens", "weights"])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_per_row(name: str, way: str) -> None:
    ways: dict[str, Callable[[Any, Tensor], Tensor]] = {
        "dense": lambda loss, z: loss(z, Y),
        "chunked": lambda loss, z: loss.linear(z, torch.eye(C), Y, backend="chunked"),
        "tokens": lambda loss, z: lossfit.TokenLoss(loss)(z.unsqueeze(0), Y.unsqueeze(0)),
        "weights": lambda loss, z: loss(z, Y, sample_weight=torch.ones(N, dtype=torch.float64)),
    }

    def run(z: Tensor, numbers: Tensor) -> Tensor:
        return ways[way](loss_of(name, numbers), z)

    for double, single in zip(gradients(run, torch.float64), gradients(run, torch.float32), strict=True):
        assert_close(double.float(), single, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("margin", [ArcMargin, AdditiveMargin])
def test_numbers_of_margins(margin: type[lossfit.Margin]) -> None:
    def run(dtype: torch.dtype, backend: str) -> list[Tensor]:
        torch.manual_seed(0)
        m = nn.Parameter(torch.linspace(0.1, 0.4, C).to(dtype))
        head = CosineHead(3, C, margin=margin(m), scale=8.0)
        x = torch.randn(N, 3, requires_grad=True)
        value = head.loss(x, Y, backend=backend)
        return [value, *torch.autograd.grad(value, [x, head.weight, m])]

    single = run(torch.float32, "dense")
    for backend in ("dense", "chunked"):
        for found, expected in zip(run(torch.float64, backend), single, strict=True):
            assert_close(found.float(), expected, rtol=1e-4, atol=1e-6)


def test_numbers_of_several_labels() -> None:
    z, t = torch.randn(N, C), torch.rand(N, C).round()
    gamma = torch.full((N,), 1.5)
    assert lossfit.FocalBCELoss(gamma.double())(z, t).dtype == torch.float32
    assert_close(lossfit.FocalBCELoss(gamma.double())(z, t), lossfit.FocalBCELoss(gamma)(z, t))
