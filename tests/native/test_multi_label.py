"""Multi-label losses by the native kernels against plain PyTorch in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import lossfit
from lossfit import kernels
from native_helpers import LEVELS, needs_library, rounding, use_level

pytestmark = needs_library

LOSSES: dict[str, Callable[..., lossfit.MultiLabelLoss]] = {
    "zlpr": lossfit.ZLPRLoss,
    "bce": lossfit.BCELoss,
    **{f"focal {g:g}": lambda g=g, **k: lossfit.FocalBCELoss(g, **k) for g in (0.0, 0.5, 3.0)},
    "focal, no alpha": lambda **k: lossfit.FocalBCELoss(2.0, None, **k),
    "asymmetric": lossfit.AsymmetricLoss,
    "asymmetric, no clip": lambda **k: lossfit.AsymmetricLoss(1.0, 2.0, 0.0, **k),
    "asymmetric, all clipped": lambda **k: lossfit.AsymmetricLoss(0.0, 4.0, 1.0, **k),
}


@pytest.fixture(params=LEVELS, autouse=True)
def _level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    use_level(request.param, monkeypatch)


def compare(loss: Any, scores: Tensor, target: Tensor, **arguments: Any) -> None:
    z, exact = scores.clone().requires_grad_(), scores.double().requires_grad_()
    with kernels.using("native"):
        value = loss(z, target, **arguments)
    expected = loss(exact, target.double() if target.is_floating_point() else target, **arguments)
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=2e-7)
    upstream = torch.linspace(0.5, 1.5, value.numel()).view(value.shape)
    (grad,) = torch.autograd.grad(value, z, upstream)
    (expected_grad,) = torch.autograd.grad(expected, exact, upstream.double())
    # A power of a probability is as much steeper as the exponent says.
    steep = 1e-5 if isinstance(loss, lossfit.FocalBCELoss | lossfit.AsymmetricLoss) else 2e-6
    bound = steep * expected_grad.abs().amax(1, keepdim=True) + rounding(expected_grad, scores.dtype)
    error = (grad.double() - expected_grad).abs()
    assert (error <= bound).all(), (error / bound).max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("classes", [1, 2, 7, 8, 9, 33, 300])
@pytest.mark.parametrize("name", LOSSES)
def test_labels_of_every_kind(name: str, classes: int, dtype: torch.dtype) -> None:
    scores = (torch.randn(13, classes) * 4).to(dtype)
    hard = (torch.rand(13, classes) < 0.3).float()
    loss = LOSSES[name](reduction="none")
    compare(loss, scores, hard)
    compare(loss, scores, hard.bool())
    compare(loss, scores, torch.rand(13, classes))
    compare(loss, scores, torch.where(torch.rand(13, classes) < 0.5, hard, torch.rand(13, classes)))
    unknown = hard.masked_fill(torch.rand(13, classes) < 0.3, -100.0)
    compare(loss, scores, unknown)
    compare(LOSSES[name](), scores, unknown)


@pytest.mark.parametrize("name", LOSSES)
def test_scores_up_to_infinity(name: str) -> None:
    scores = torch.tensor([[-torch.inf, torch.inf, 0.0], [80.0, -80.0, 300.0], [-1e30, 1e30, 1e-30]])
    for label in (torch.zeros(3, 3), torch.ones(3, 3), torch.eye(3)):
        compare(LOSSES[name](reduction="none"), scores, label)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("name", LOSSES)
def test_what_rows_are_weighed_by(name: str, reduction: str) -> None:
    scores, target = torch.randn(17, 6), (torch.rand(17, 6) < 0.3).float()
    scores[4], target[4] = torch.nan, -100.0
    loss = LOSSES[name](reduction=reduction)
    compare(loss, scores, target)
    weight = torch.rand(17)
    scores[5], weight[5] = torch.inf, 0.0
    compare(loss, scores, target, sample_weight=weight)
    if reduction == "mean":
        compare(loss, scores, target, denominator=3.0)


def test_weights_of_classes_and_hyper_parameters_of_rows() -> None:
    scores, target = torch.randn(17, 11), (torch.rand(17, 11) < 0.3).float()
    weight, pos_weight, each = torch.rand(11), torch.rand(11) * 5, torch.rand(17)
    compare(lossfit.BCELoss(weight=weight, pos_weight=pos_weight), scores, target)
    compare(lossfit.FocalBCELoss(each * 3, each, weight=weight), scores, target)
    compare(lossfit.AsymmetricLoss(each, each * 4), scores, torch.rand(17, 11))


def test_second_derivatives() -> None:
    scores, target = torch.randn(5, 4, requires_grad=True), (torch.rand(5, 4) < 0.5).float()
    with kernels.using("native"):
        (grad,) = torch.autograd.grad(lossfit.ZLPRLoss()(scores, target), scores, create_graph=True)
        (second,) = torch.autograd.grad(grad.square().sum(), scores)
    exact = scores.detach().double().requires_grad_()
    (grad,) = torch.autograd.grad(lossfit.ZLPRLoss()(exact, target.double()), exact, create_graph=True)
    torch.testing.assert_close(
        second.double(), torch.autograd.grad(grad.square().sum(), exact)[0], rtol=1e-4, atol=1e-7
    )
