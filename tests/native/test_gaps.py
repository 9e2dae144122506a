"""The gap by the native kernels against plain PyTorch in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import lossfit
from lossfit import kernels, native
from native_helpers import LEVELS, needs_library, rounding, use_level

pytestmark = needs_library


@pytest.fixture(params=LEVELS, autouse=True)
def _level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    use_level(request.param, monkeypatch)


def compare(scores: Tensor, target: Tensor, kind: Any, offset: float = 0.0, **wanted: Any) -> None:
    """Every field, and the gradient of a sum of them."""
    z, exact = scores.clone().requires_grad_(), scores.double().requires_grad_()
    result = lossfit.gap(z, target, kind, hit=True, backend="native", **wanted)
    expected = lossfit.gap(exact, target, kind, hit=True, backend="torch", **wanted)
    assert (result.hit == expected.hit).all()
    total: list[Any] = [0.0, 0.0]
    for name, field, right in zip(result._fields, result, expected, strict=True):
        if field is None or name == "hit":
            assert (right is None) == (field is None)
            continue
        absolute = name in ("target", "rivals", "mean")  # as large as the scores
        torch.testing.assert_close(field.double(), right, rtol=2e-6, atol=2e-6 + absolute * 1e-6 * offset)
        weight = torch.linspace(0.3, 1.4, right.numel()).view(right.shape)
        total[0] = total[0] + (weight * field).sum()
        total[1] = total[1] + (weight * right).sum()
    (grad,) = torch.autograd.grad(total[0], z)
    (expected_grad,) = torch.autograd.grad(total[1], exact)
    bound = 3e-6 * expected_grad.abs().amax(1, keepdim=True) + rounding(expected_grad, scores.dtype)
    assert ((grad.double() - expected_grad).abs() <= bound).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["soft", "hard"])
@pytest.mark.parametrize("classes", [2, 3, 8, 9, 31, 33, 200])
def test_every_field(classes: int, kind: str, dtype: torch.dtype) -> None:
    scores, target = torch.randn(21, classes).mul(2).to(dtype), torch.randint(classes, (21,))
    target[5] = -100
    compare(scores, target, kind)
    compare(scores, target, kind, mean=True)
    compare(scores, target, kind, entropy=True, mean=True)
    compare(scores, target, kind, mean=True, mean_weight=torch.rand(classes))


@pytest.mark.parametrize("kind", ["soft", "hard"])
@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 5, 17), (3, 40, 2, 9)], ids=str)
def test_more_dimensions(shape: tuple[int, ...], kind: str) -> None:
    scores = torch.randn(shape)
    target = torch.randint(shape[1], scores[:, 0].shape)
    target[1, 0] = -100
    compare(scores, target, kind, mean=True, entropy=kind == "soft")


@pytest.mark.parametrize("classes", [5, 50])
def test_offsets(classes: int) -> None:
    compare(torch.randn(9, classes) + 1000, torch.randint(classes, (9,)), "soft", 1000.0, mean=True, entropy=True)


@pytest.mark.parametrize("classes", [4, 40])
def test_ties(classes: int) -> None:
    scores = torch.randint(0, 3, (40, classes)).float()
    compare(scores, torch.randint(classes, (40,)), "hard")
    compare(scores, torch.randint(classes, (40,)), "soft")


@pytest.mark.parametrize("classes", [1, 4, 40])
def test_no_rival(classes: int) -> None:
    scores = torch.full((3, classes), -torch.inf)
    scores[:2, 0] = torch.tensor([1.0, -3.0])
    target = torch.zeros(3, dtype=torch.int64)
    z = scores.requires_grad_()
    result = lossfit.gap(z, target, backend="native")
    expected = lossfit.gap(scores.detach(), target, backend="torch")
    torch.testing.assert_close(result.log_odds, expected.log_odds)
    torch.testing.assert_close(result.rivals, expected.rivals)
    (grad,) = torch.autograd.grad(torch.sigmoid(-result.log_odds)[:2].sum(), z)
    assert (grad == 0).all()


def test_own_links_and_second_derivatives() -> None:
    scores, target = torch.randn(6, 5), torch.randint(5, (6,))
    loss = lossfit.LinkLoss(lambda d: torch.nn.functional.softplus(1 - d))
    seconds = []
    for z, backend in ((scores.clone(), "native"), (scores.double(), "torch")):
        z.requires_grad_()
        with kernels.using(backend):  # type: ignore[arg-type]
            (grad,) = torch.autograd.grad(loss(z, target), z, create_graph=True)
            seconds.append(torch.autograd.grad(grad.square().sum(), z)[0])
    torch.testing.assert_close(seconds[0].double(), seconds[1], rtol=1e-5, atol=1e-7)


def refusals() -> dict[str, tuple[Tensor, type[Exception], str]]:
    return {
        "float64": (torch.randn(3, 4, dtype=torch.float64), TypeError, "float32, bfloat16, float16 for backend"),
        "turned": (torch.randn(4, 3).t(), ValueError, "whose classes lie side by side"),
        "a subclass": (torch.randn(3, 4).as_subclass(_Subclass), ValueError, "to be a plain tensor"),
        "meta": (torch.randn(3, 4, device="meta"), ValueError, "Expected CPU tensors"),
    }


class _Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize("name", refusals())
def test_by_name_it_tells_what_it_cannot_do(name: str) -> None:
    scores, error, message = refusals()[name]
    target = torch.zeros(3, dtype=torch.int64, device=scores.device)
    with pytest.raises(error, match=message):
        lossfit.gap(scores, target, backend="native")
    assert not native.serves(scores)


def test_transformations_and_modes_are_left_to_pytorch() -> None:
    scores, target = torch.randn(3, 4), torch.zeros(3, dtype=torch.int64)
    loss = lossfit.CrossEntropyLoss()
    expected = loss(scores, target)
    torch.testing.assert_close(torch.func.vmap(loss)(scores.unsqueeze(0), target.unsqueeze(0))[0], expected)
    grad = torch.func.grad(lambda z: loss(z, target))(scores)
    z = scores.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(loss(z, target), z)[0], grad)
    with kernels.using("native"), pytest.raises(ValueError, match="a transformation, a trace or a mode"):
        torch.func.grad(lambda z: loss(z, target))(scores)
