"""The kernels' own exp, log and their like, against SciPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import torch
from torch import Tensor

from lossfit.native import library
from native_helpers import LEVELS, needs_library

pytestmark = needs_library

TINY = np.finfo(np.float32).tiny

# Number, function in float64, arguments, largest relative error above the smallest normal number.
FUNCTIONS = {
    "exp_negative": (0, np.exp, (-87.3, 0.0), 1e-7),
    "exp": (1, np.exp, (-87.3, 88.7), 1e-7),
    "expm1": (2, np.expm1, (-50.0, 20.0), 1.6e-7),
    "log": (3, np.log, None, 1.1e-7),
    "log1p": (4, np.log1p, (-0.999, 10.0), 1.6e-7),
    "log1p_of_share": (5, np.log1p, (0.0, 1.0), 1.4e-7),
    "sigmoid": (6, scipy.special.expit, (-87.0, 87.0), 2.2e-7),
    "softplus": (7, lambda x: np.logaddexp(0, x), (-87.0, 87.0), 2.2e-7),
}


def apply(number: int, x: Tensor, level: int) -> Tensor:
    out = torch.full_like(x, torch.nan)
    settings = library.settings(link=number)
    status = library.run(library.MATHS, x.unsqueeze(1), x, out, None, settings, level=level)
    assert status == library.DONE
    return out


def arguments(span: tuple[float, float] | None) -> Tensor:
    if span is None:
        return torch.cat([torch.logspace(-37.9, 38.5, 200_001), torch.linspace(0.5, 2.0, 100_001)])
    low, high = span
    x = torch.cat([torch.linspace(low, high, 200_001), torch.logspace(-30, 0, 20_001), -torch.logspace(-30, 0, 20_001)])
    return x[(x >= low) & (x <= high)].contiguous()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_is_a_few_roundings(name: str, level: int) -> None:
    number, exact, span, bound = FUNCTIONS[name]
    x = arguments(span)
    result, expected = apply(number, x, level).double().numpy(), exact(x.double().numpy())
    normal = np.abs(expected) >= TINY
    error = np.abs(result[normal] / expected[normal] - 1)
    assert error.max() <= bound, (x[torch.from_numpy(normal)][error.argmax()], error.max())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("name", "at", "expected"),
    [
        ("exp_negative", [-torch.inf, -88.0, -1e30, 0.0], [0.0, 0.0, 0.0, 1.0]),
        ("exp", [-torch.inf, -1e30, 0.0, 89.0, 1e30, torch.inf], [0.0, 0.0, 1.0, torch.inf, torch.inf, torch.inf]),
        ("expm1", [-torch.inf, 0.0, torch.inf], [-1.0, 0.0, torch.inf]),
        ("log", [0.0, 1.0, torch.inf], [-torch.inf, 0.0, torch.inf]),
        ("log1p", [0.0, 1e-30, torch.inf], [0.0, 1e-30, torch.inf]),
        ("sigmoid", [-torch.inf, 0.0, torch.inf], [0.0, 0.5, 1.0]),
        ("softplus", [-torch.inf, -200.0, torch.inf], [0.0, 0.0, torch.inf]),
    ],
)
def test_ends(name: str, at: list[float], expected: list[float], level: int) -> None:
    assert apply(FUNCTIONS[name][0], torch.tensor(at), level).tolist() == pytest.approx(expected, rel=1e-6, abs=0)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_no_number_stays_none(name: str, level: int) -> None:
    x = torch.full((11,), torch.nan)
    x[::2] = 0.5
    assert torch.equal(apply(FUNCTIONS[name][0], x, level).isnan(), x.isnan())


@pytest.mark.parametrize("level", LEVELS)
def test_subnormal_powers(level: int) -> None:
    x = torch.linspace(-103.0, -87.4, 1001)
    expected = x.double().exp()
    assert (apply(1, x, level) - expected).abs().max() <= 2.0**-149
