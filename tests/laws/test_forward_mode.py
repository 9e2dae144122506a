"""Forward-mode and second derivatives by ``torch.func``, and by dual numbers, of every loss that has them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import hessian, jacfwd, jacrev, jvp
from torch.testing import assert_close

import lossfit
from families import EXAMPLES
from helpers import build, case_id, every_case, has_second_derivative

N, C = 4, 5
COMMON: list[dict[str, object]] = [
    {},
    {"label_smoothing": 0.1, "temperature": 2.0, "weight": torch.linspace(0.5, 2, C, dtype=torch.float64)},
]


def scores() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    z, along = (torch.randn(N, C, dtype=torch.float64, generator=generator) for _ in range(2))
    return z, along, torch.tensor([0, 3, -100, 4])


def slope(function: Callable[[Tensor], Tensor], z: Tensor, along: Tensor) -> Tensor:
    """The derivative along a direction, by reverse mode."""
    z = z.clone().requires_grad_()
    return (torch.autograd.grad(function(z), z)[0] * along).sum()


CASES = [case for case in every_case() if has_second_derivative(*case)]


@pytest.mark.parametrize("common", COMMON, ids=["plain", "smoothed"])
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_single_label(case: tuple[str, dict[str, object]], common: dict[str, object]) -> None:
    z, along, y = scores()
    loss = build(case[0], **case[1], **common)

    def value(z: Tensor) -> Tensor:
        return loss(z, y)

    expected = slope(value, z, along)
    plain, forward = jvp(value, (z,), (along,))
    assert_close(plain, value(z), rtol=1e-12, atol=1e-14)
    assert_close(forward, expected, rtol=1e-9, atol=1e-11)
    assert_close(jacfwd(value)(z), jacrev(value)(z), rtol=1e-9, atol=1e-11)
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(value(forward_ad.make_dual(z, along)))
        assert_close(dual.tangent, expected, rtol=1e-9, atol=1e-11)
    curvature = hessian(value)(z)
    (twice,) = torch.autograd.functional.hessian(value, (z,), vectorize=False)[0]
    assert_close(curvature, twice, rtol=1e-8, atol=1e-10)


def agree(function: Callable[[Tensor], Tensor], z: Tensor, along: Tensor) -> None:
    """Forward mode with reverse mode, and the second derivatives with those of two backward passes."""
    expected = slope(function, z, along)
    assert_close(jvp(function, (z,), (along,))[1], expected, rtol=1e-8, atol=1e-10)
    assert_close(hessian(function)(z), torch.autograd.functional.hessian(function, z), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if lossfit.registry.get(name).family != "ranking"])
def test_every_loss_of_the_other_families(name: str) -> None:
    given, *rest = EXAMPLES[name]()
    loss = lossfit.make(name)
    agree(lambda z: loss(z, *rest), given.detach(), torch.randn_like(given))


def test_from_features_and_the_gap() -> None:
    z, along, _ = scores()
    y, eye = torch.tensor([0, 3, 1, 4]), torch.eye(C, dtype=torch.float64)
    agree(lambda z: lossfit.FocalLoss().linear(z, eye, y), z, along)
    agree(lambda z: lossfit.gap(z, y, mean=True, entropy=True).entropy.sum(), z, along)


def test_what_has_none_says_so() -> None:
    z, along, y = scores()
    with pytest.raises(NotImplementedError):
        jvp(lambda z: lossfit.ExactLoss()(z, y), (z,), (along,))
