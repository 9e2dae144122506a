"""Logits to scores, and what comes from class counts."""

import math
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.testing import assert_close

import lossfit
from lossfit.core import scores

COUNTS = [90, 9, 1, 400]


def adjusted(z: torch.Tensor, *given: Any) -> torch.Tensor:
    """With what is taken off each row put on again."""
    relative, origin = scores.adjust(z, *given)
    assert relative.amax(1).isfinite().all()
    return relative + origin.unsqueeze(1)


def test_adjust_divides_and_adds_the_log_prior() -> None:
    z = torch.randn(3, 4, 2, dtype=torch.float64)
    found = adjusted(z, 2.0, torch.tensor(COUNTS, dtype=torch.float64))
    for i in range(3):
        for c in range(4):
            for j in range(2):
                expected = z[i, c, j].item() / 2 + math.log(COUNTS[c] / sum(COUNTS))
                assert found[i, c, j].item() == pytest.approx(expected, rel=1e-14)


def test_adjust_takes_a_temperature_for_each_row() -> None:
    z, t = torch.randn(3, 4, dtype=torch.float64), torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    assert_close(adjusted(z, t), z / t[:, None])
    z, t = torch.randn(3, 4, 2, dtype=torch.float64), torch.rand(3, 2, dtype=torch.float64) + 0.5
    assert_close(adjusted(z, t)[:, 1], z[:, 1] / t)


def test_adjust_computes_half_precision_in_float32() -> None:
    assert adjusted(torch.zeros(2, 3, dtype=torch.float16), 3.0).dtype == torch.float32


@pytest.mark.parametrize("kind", [torch.tensor, lambda c: torch.tensor(c, dtype=torch.float64), list])
def test_inverse_frequencies_are_the_balanced_weights_of_scikit_learn(kind: object) -> None:
    labels = np.repeat(np.arange(4), COUNTS)
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    found = lossfit.inverse_frequency_weight(kind(COUNTS))
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    half = lossfit.inverse_frequency_weight(kind(COUNTS), power=0.5)
    assert half.tolist() == pytest.approx(np.sqrt(expected).tolist(), rel=1e-6)
    assert lossfit.inverse_frequency_weight(kind(COUNTS), power=0).tolist() == [1] * 4


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.9, 0.999, 1 - 1e-6, 1 - 1e-12])
def test_class_balanced_weights_are_the_effective_numbers(beta: float) -> None:
    found = lossfit.class_balanced_weight(torch.tensor(COUNTS, dtype=torch.float64), beta=beta)
    with mp.workdps(50):
        raw = [(1 - mp.mpf(beta)) / (1 - mp.mpf(beta) ** n) for n in COUNTS]
        expected = [float(len(COUNTS) * w / mp.fsum(raw)) for w in raw]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_class_balanced_weights_tend_to_inverse_frequencies() -> None:
    found = lossfit.class_balanced_weight(torch.tensor(COUNTS, dtype=torch.float64), beta=1 - 1e-12)
    inverse = 1 / np.array(COUNTS)
    assert found.tolist() == pytest.approx((4 * inverse / inverse.sum()).tolist(), rel=1e-9)


@pytest.mark.parametrize("function", [lossfit.inverse_frequency_weight, lossfit.class_balanced_weight])
@pytest.mark.parametrize("counts", [[3, 0, 1], [3, -1], [[1, 2]], [math.nan, 1.0], [math.inf, 1.0]])
def test_counts_are_positive(function: object, counts: list[object]) -> None:
    with pytest.raises(ValueError, match="`counts` to be a vector of positive, finite numbers"):
        function(torch.tensor(counts))


@pytest.mark.parametrize("beta", [-0.1, 1.0, 1.5, math.nan])
def test_beta_is_below_1(beta: float) -> None:
    with pytest.raises(ValueError, match=r"`beta` in \[0, 1\), but got"):
        lossfit.class_balanced_weight(torch.tensor([1, 2]), beta=beta)


def test_the_weights_fit_a_loss() -> None:
    z, y = torch.randn(6, 4), torch.randint(4, (6,))
    weight = lossfit.inverse_frequency_weight(torch.tensor(COUNTS))
    assert_close(lossfit.CrossEntropyLoss(weight)(z, y), torch.nn.functional.cross_entropy(z, y, weight))
