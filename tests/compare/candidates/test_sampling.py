"""Learning rates and weight decays that fill their ranges."""

import numpy as np
import pytest
from scipy.stats import qmc

from lossfit.compare.candidates import sampling
from lossfit.compare.candidates.sampling import RANGES


@pytest.mark.parametrize("seed", [0, 5, (1 << 32) - 1])
def test_they_are_halton_points(seed: int) -> None:
    found = sampling.spread(7, seed)
    points = qmc.Halton(2, seed=seed).random(7)
    for column, (name, (low, high)) in zip(points.T, RANGES.items(), strict=True):
        assert [one[name] for one in found] == pytest.approx(low * (high / low) ** column)
    assert sampling.spread(3, seed) == found[:3]


def test_those_of_earlier_versions() -> None:
    """By Optuna's QMCSampler, seed 0."""
    expected = [
        [0.002751669673809854, 0.014512468348624704],
        [0.01375834836904927, 1.4512468348624696],
        [0.006152920442263509, 0.14512468348624694],
    ]
    found = [[one[name] for name in RANGES] for one in sampling.spread(3, 0)]
    assert found == pytest.approx(np.array(expected), rel=1e-12)
