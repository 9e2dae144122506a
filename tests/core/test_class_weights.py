"""Numbers per class are as good as float64 makes them, whatever type they come in."""

import mpmath as mp
import pytest
import torch
from torch.testing import assert_close

import lossfit
from lossfit.core.class_weights import log_prior

COUNTS = (40000, 3, 900)
TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int32]


def balanced(counts: tuple[int, ...], beta: float) -> list[float]:
    """With 60 digits."""
    with mp.workdps(60):
        each = [1 / (1 - mp.mpf(beta) ** n) for n in counts]
        return [float(w * len(counts) / sum(each)) for w in each]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999, 1 - 1e-7, 1 - 1e-8, 1 - 1e-12])
def test_class_balanced_weight(dtype: torch.dtype, beta: float) -> None:
    counts = torch.tensor(COUNTS).to(dtype)
    found = lossfit.class_balanced_weight(counts, beta)
    expected = balanced(tuple(int(c) for c in counts.tolist()), beta)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    # 1 - 1e-12 is held to 1e-4 of its distance from 1; the reference has the same number.
    assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=3e-7, atol=0)


@pytest.mark.parametrize("dtype", TYPES)
def test_inverse_frequency_weight(dtype: torch.dtype) -> None:
    counts = torch.tensor(COUNTS).to(dtype)
    exact = [float(c) for c in counts.tolist()]
    for power in (0.0, 0.5, 1.0):
        found = lossfit.inverse_frequency_weight(counts, power)
        expected = [(sum(exact) / (3 * c)) ** power for c in exact]
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=2e-7, atol=0)


@pytest.mark.parametrize("dtype", TYPES)
def test_priors(dtype: torch.dtype) -> None:
    prior = torch.tensor(COUNTS).to(dtype)
    exact = [float(c) for c in prior.tolist()]
    expected = torch.tensor([float(mp.log(c / mp.fsum(exact))) for c in exact], dtype=torch.float64)
    assert_close(log_prior(prior), expected, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("kind", ["half", "bfloat16"])
def test_a_loss_made_half_keeps_its_numbers_per_class(kind: str) -> None:
    z, y = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])
    numbers = {"weight": torch.tensor([1e-9, 1.0, 3.3]), "class_prior": torch.tensor([40000.0, 1e6, 3.0])}
    loss = lossfit.FocalLoss(**numbers)
    expected = loss(z, y)
    made = getattr(loss, kind)()
    assert torch.equal(made.weight, numbers["weight"])
    assert torch.equal(made(z, y), expected)
    assert made.double().class_prior.dtype == torch.float64
    labels = torch.rand(5, 3).round()
    several = lossfit.BCELoss(weight=numbers["weight"], pos_weight=numbers["class_prior"])
    expected = several(z, labels)
    assert torch.equal(getattr(several, kind)()(z, labels), expected)


def test_a_parameter_stays_one() -> None:
    loss = lossfit.CrossEntropyLoss(torch.nn.Parameter(torch.ones(3)), label_smoothing=0.1)
    assert [name for name, _ in loss.named_parameters()] == ["weight"]
    loss.half()
    loss(torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])).backward()
    assert loss.weight.grad.dtype == loss.weight.dtype == torch.float32
