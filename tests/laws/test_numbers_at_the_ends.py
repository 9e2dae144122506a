"""Inputs at the ends of the types, against references in float64 or by hand."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import lossfit

INF, NAN = math.inf, math.nan
ZERO = torch.tensor([0])


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0, 3.0])], ids=["even", "weighted"])
def test_smoothed_labels_with_an_excluded_target(weight: Tensor | None) -> None:
    loss = lossfit.CrossEntropyLoss(weight=weight, label_smoothing=0.1, reduction="none")
    z = torch.tensor([[-INF, 0.0, 1.0], [0.5, 0.0, 1.0]])
    assert_close(loss(z, torch.tensor([0, 0])), loss(z.double(), torch.tensor([0, 0])).float())
    assert loss(z, torch.tensor([0, 0]))[0] == INF
    assert loss(z, torch.tensor([0, 0]))[1].isfinite()


@pytest.mark.parametrize("log", [False, True])
def test_a_row_without_numbers_leaves_the_others_alone(log: bool) -> None:
    loss = lossfit.ExactLoss(log=log, reduction="none")
    z, y = torch.tensor([[30.0, -20.0, 5.0], [NAN, 0.0, 1.0], [-9.0, 20.0, 14.0]]), torch.tensor([1, 0, 0])
    alone = torch.stack([loss(z[i : i + 1], y[i : i + 1])[0] for i in (0, 2)])
    assert_close(loss(z, y)[[0, 2]], alone)
    assert alone.isfinite().all()
    assert loss(z, y)[1].isnan()


def test_exact_with_an_excluded_target() -> None:
    z = torch.tensor([[-INF, 0.0, 1.0]])
    assert lossfit.ExactLoss(log=True)(z, ZERO) == INF
    assert lossfit.ExactLoss()(z, ZERO) == 1


def zero_weight(p: Tensor) -> Tensor:
    return p


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lossfit.SymmetricCrossEntropyLoss(alpha=0.0, beta=1.0, log_zero=-4.0), 4.0),
        (lossfit.SymmetricCrossEntropyLoss(alpha=torch.tensor(0.0), beta=1.0, log_zero=-4.0), 4.0),
        (lossfit.SensitivityLoss(zero_weight, of="weight"), 0.0),
        (lossfit.GammaCrossEntropyLoss(gamma=0.5, floor=1e-30), INF),
        (lossfit.GammaCrossEntropyLoss(gamma=1e-41), 41 * math.log(10)),
        (lossfit.GammaCrossEntropyLoss(gamma=1e-300), 300 * math.log(10)),
    ],
    ids=repr,
)
def test_an_excluded_target(loss: lossfit.SingleLabelLoss, expected: float) -> None:
    z = torch.tensor([[-INF, 0.0]])
    assert_close(loss(z, ZERO).item(), expected, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("gamma", [1e-31, 1e-39, 1e-44, 1e-80])
@pytest.mark.parametrize("d", [-300.0, -120.0, -95.0, -89.0, -70.0, -61.0, -59.0, -1.0, 0.0, 5.0])
def test_small_gamma(gamma: float, d: float) -> None:
    z = torch.tensor([[d, 0.0]], requires_grad=True)
    loss = lossfit.GammaCrossEntropyLoss(gamma=gamma)(z, ZERO)
    loss.backward()
    log_p = -np.logaddexp(0, -d)
    expected = -np.logaddexp(math.log(gamma), log_p)
    pull = math.exp(log_p - np.logaddexp(math.log(gamma), log_p) - np.logaddexp(0, d))
    assert_close(loss.item(), float(expected), rtol=1e-6, atol=0.0)
    assert_close(z.grad[0, 0].item(), -pull, rtol=2e-5, atol=1e-37)


def longhand_divergence(z: Tensor, t: Tensor, temperature: float) -> float:
    """In numbers of 120 digits."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(120):
        logs = []
        for row in (z.tolist(), t.tolist()):
            scaled = [mpmath.mpf(v) / temperature for v in row]
            total = mpmath.log(sum(mpmath.exp(v) for v in scaled))
            logs.append([v - total for v in scaled])
        divergence = sum(mpmath.exp(p) * (p - q) for q, p in zip(*logs, strict=True))
        return float(divergence * mpmath.mpf(temperature) ** 2)


@pytest.mark.parametrize("temperature", [1.0, 30.0, 1e3, 1e6, 1e12, 1e20, 1e38])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hot_distillation(temperature: float, dtype: torch.dtype) -> None:
    z = torch.tensor([[2.0, -1.0, 0.5, 7.0]], dtype=dtype, requires_grad=True)
    t = torch.tensor([[1.5, 3.0, -2.0, 6.0]], dtype=dtype)
    loss = lossfit.DistillationLoss(temperature, alpha=1.0)(z, t)
    loss.backward()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    assert_close(loss.item(), longhand_divergence(z[0], t[0], temperature), rtol=tolerance, atol=0.0)
    if temperature >= 1e6:  # the limit is half the variance of the differences
        x = (z - t).detach()
        expected = (x - x.mean()) / 4
        assert_close(z.grad, expected, rtol=1e-4, atol=0.0)


def test_hot_distillation_with_classes_that_both_exclude() -> None:
    z, t = torch.tensor([[2.0, -INF, 0.5]]), torch.tensor([[1.0, -INF, 3.0]])
    loss = lossfit.DistillationLoss(1e6, alpha=1.0)
    assert_close(loss(z, t), loss(z[:, [0, 2]], t[:, [0, 2]]))


def test_priors_whose_sum_is_too_large() -> None:
    prior = torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64)
    z = torch.tensor([[0.3, 0.1, -0.2]])
    plain, large = (lossfit.CrossEntropyLoss(class_prior=prior * scale)(z, ZERO) for scale in (1.0, 8e307))
    assert_close(large, plain)


@pytest.mark.parametrize("loss", [lossfit.TopKAccuracyLoss(k=2), lossfit.MatthewsLoss(), lossfit.CohenKappaLoss()])
def test_metrics_do_not_hide_what_is_no_number(loss: lossfit.MetricLoss) -> None:
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    z[1, 2] = NAN
    assert loss(z, torch.tensor([0, 1, 2, 0])).isnan()


@pytest.mark.parametrize("kind", ["pairwise", "balanced", "analogy", "centered"])
def test_offsets_of_questions(kind: str) -> None:
    s = 8.0 * torch.randint(-3, 4, (2, 3, 4), generator=torch.Generator().manual_seed(1))
    y = torch.randint(0, 4, (2, 3), generator=torch.Generator().manual_seed(2))
    loss = lossfit.MultiWayLoss(kind, reduction="none")
    assert_close(loss(s + 1e8, y), loss(s.double(), y).float(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("size", [1e19, 1e25, 1e37])
def test_long_features_have_the_cosines_of_short_ones(size: float) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4, 8, generator=generator)
    head = lossfit.CosineHead(8, 3, scale=4.0)
    assert_close(head(x * size), head(x), rtol=1e-5, atol=1e-5)
    assert head(x * size).abs().amax() > 0.1


def refused(error: type[Exception], make: Callable[[], object], match: str) -> None:
    with pytest.raises(error, match=match):
        make()


def test_open_ranges_refuse_infinity() -> None:
    refused(ValueError, lambda: lossfit.CrossEntropyLoss(temperature=INF), "`temperature`.*got inf")
    refused(ValueError, lambda: lossfit.ExactLoss(sigma=torch.tensor([1.0, INF])), "`sigma`.*to inf")
    refused(ValueError, lambda: lossfit.FocalLoss(INF), "got inf")
    refused(ValueError, lambda: lossfit.SymmetricCrossEntropyLoss(log_zero=-INF), "`log_zero`.*got -inf")


def test_complex_numbers_are_refused() -> None:
    weight = torch.ones(2, dtype=torch.complex64)
    refused(TypeError, lambda: lossfit.CrossEntropyLoss(weight), "`weight`.*complex64")
    refused(TypeError, lambda: lossfit.CrossEntropyLoss(temperature=weight), "`temperature`.*complex64")
    loss = lossfit.CrossEntropyLoss()
    z, y = torch.zeros(2, 3), torch.tensor([0, 1])
    refused(TypeError, lambda: loss(z, y, sample_weight=weight), "`sample_weight`.*complex64")
