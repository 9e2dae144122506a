"""Losses by the native kernels against the same losses of plain PyTorch in float64, over all that may differ."""

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

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# Every link, with its hyper-parameters at their ends, and between.
LINKS: dict[str, Callable[..., lossfit.SingleLabelLoss]] = {
    "cross_entropy": lossfit.CrossEntropyLoss,
    "expected_accuracy": lossfit.ExpectedAccuracyLoss,
    **{
        f"gamma {g:g}": lambda g=g, **k: lossfit.GammaCrossEntropyLoss(g, **k)
        for g in (0.0, 1e-30, 1e-7, 0.1, 0.9, 1.0)
    },
    **{f"floor {f:g}": lambda f=f, **k: lossfit.GammaCrossEntropyLoss(0.1, floor=f, **k) for f in (0.01, 1.0)},
    **{f"focal {g:g}": lambda g=g, **k: lossfit.FocalLoss(g, **k) for g in (0.0, 0.25, 2.0, 20.0)},
    "poly": lambda **k: lossfit.PolyLoss([1.0, -0.5, 2.0], **k),
    "poly scaled": lambda **k: lossfit.PolyLoss([1.0], form="scaled", **k),
    "poly none": lambda **k: lossfit.PolyLoss(**k),
    **{f"q {q:g}": lambda q=q, **k: lossfit.GeneralizedCrossEntropyLoss(q, **k) for q in (0.0, 1e-20, 0.1, 0.7, 1.0)},
    "symmetric": lossfit.SymmetricCrossEntropyLoss,
    "squared": lossfit.SquaredLoss,
    "exponential": lossfit.ExponentialLoss,
    "logistic margin": lambda **k: lossfit.LogisticMarginLoss(2.0, **k),
    "logistic margin hard": lambda **k: lossfit.LogisticMarginLoss(2.0, gap="hard", **k),
    "exponential margin": lambda **k: lossfit.ExponentialMarginLoss(0.5, **k),
    "hinge": lambda **k: lossfit.HingeLoss(1.0, **k),
    "hinge soft": lambda **k: lossfit.HingeLoss(1.0, gap="soft", **k),
    "squared hinge": lambda **k: lossfit.HingeLoss(1.0, squared=True, **k),
    "smooth accuracy": lambda **k: lossfit.SmoothAccuracyLoss(2.0, **k),
    "smooth accuracy soft": lambda **k: lossfit.SmoothAccuracyLoss(0.5, gap="soft", **k),
}


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The instruction set that is used."""
    use_level(request.param, monkeypatch)


def compare(loss: Any, scores: Tensor, target: Tensor, steepness: float = 1.0, **arguments: Any) -> None:
    """The kernels' loss and gradient against those of float64, row by row.

    A gap of float32 is rounded, and a loss may be so much steeper than it: exp(-d) has the digits of d after the point.
    """
    z = scores.detach().clone().requires_grad_()
    exact = scores.detach().double().requires_grad_()
    with kernels.using("native"):
        value = loss(z, target, **arguments)
    expected = loss(exact, target, **arguments)
    assert value.dtype == torch.float32
    assert value.shape == expected.shape
    upstream = torch.linspace(0.5, 1.5, value.numel()).view(value.shape)
    (grad,) = torch.autograd.grad(value, z, upstream)
    (expected_grad,) = torch.autograd.grad(expected, exact, upstream.double())
    assert grad.dtype == scores.dtype
    torch.testing.assert_close(value.double(), expected, rtol=1e-6 * steepness, atol=2e-7, equal_nan=True)
    largest = expected_grad.abs().amax(1, keepdim=True)
    error = (grad.double() - expected_grad).abs()
    levels = torch.nan_to_num(exact.detach(), 0.0, 0.0, 0.0)
    gaps = (levels.amax(1, keepdim=True) - levels.amin(1, keepdim=True)).clamp(max=100.0)
    bound = (1e-6 + 2.0**-23 * steepness * gaps) * largest + rounding(expected_grad, scores.dtype)
    over = error > bound
    assert not over.any(), (error[over].max(), expected_grad[over][:5], grad[over][:5])


def batch(rows: int, classes: int, dtype: torch.dtype = torch.float32, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    scores = torch.randn(rows, classes).mul_(scale).to(dtype)
    return scores, torch.randint(classes, (rows,))


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [*range(1, 34), 100, 1000])
def test_every_number_of_classes(classes: int, dtype: torch.dtype) -> None:
    for loss in (lossfit.CrossEntropyLoss(reduction="none"), lossfit.HingeLoss(reduction="none")):
        compare(loss, *batch(19, classes, dtype))
    compare(lossfit.GammaCrossEntropyLoss(0.2), *batch(19, classes, dtype))


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", DTYPES)
def test_very_many_classes(dtype: torch.dtype) -> None:
    compare(lossfit.CrossEntropyLoss(reduction="none"), *batch(3, 128_000, dtype))


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("classes", [3, 40])
@pytest.mark.parametrize("name", LINKS)
def test_every_link(name: str, classes: int) -> None:
    scores, target = batch(61, classes)
    scores[:40, 0] += torch.linspace(-60, 60, 40)  # gaps on either side, to the end of what the type holds of 1 - p
    target[:40] = 0
    steepness = 22.0 if name == "focal 20" else 4.0
    compare(LINKS[name](reduction="none"), scores, target, steepness)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("classes", [5, 50])
@pytest.mark.parametrize("offset", [-1e4, 1e3, 3e6])
def test_offsets_cost_no_digits(offset: float, classes: int) -> None:
    scores, target = batch(17, classes)
    compare(lossfit.CrossEntropyLoss(reduction="none"), scores + offset, target)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("classes", [4, 44])
def test_infinite_scores(classes: int) -> None:
    scores, _ = batch(6, classes)
    target = torch.zeros(6, dtype=torch.int64)
    scores[0, 1:] = -torch.inf  # no rival is left
    scores[1, 2:] = -torch.inf  # one is
    scores[2, 0] = -torch.inf
    scores[3, 0] = torch.inf
    scores[4, 1] = 3e38
    for loss in (lossfit.ExpectedAccuracyLoss(reduction="none"), lossfit.SquaredLoss(reduction="none")):
        compare(loss, scores, target)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("classes", [4, 44])
def test_what_is_no_number_stays_in_its_row(classes: int) -> None:
    scores, target = batch(5, classes)
    scores[1, 2] = torch.nan
    scores[3, 1] = torch.inf
    target[3] = 0
    scores.requires_grad_()
    with kernels.using("native"):
        value = lossfit.CrossEntropyLoss(reduction="none")(scores, target)
    value.sum().backward()
    assert value.isnan().tolist() == [False, True, False, True, False]
    assert scores.grad is not None
    assert scores.grad.isfinite().all(1).tolist() == [True, False, True, False, True]


WEIGHTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weight": {"weight": True},
    "temperature": {"temperature": 0.7},
    "temperature of rows": {"temperature": "rows"},
    "prior": {"class_prior": True},
    "prior, temperature": {"class_prior": True, "temperature": 2.0},
    "smooth": {"label_smoothing": 0.1},
    "smooth, all": {"label_smoothing": 1.0},
    "smooth, rows": {"label_smoothing": "rows"},
    "smooth, weight": {"label_smoothing": 0.1, "weight": True},
    "smooth, weight, prior, temperature": {
        "label_smoothing": 0.3,
        "weight": True,
        "class_prior": True,
        "temperature": 1.5,
    },
}


def module(arguments: dict[str, Any], classes: int, shape: torch.Size, **more: Any) -> lossfit.CrossEntropyLoss:
    made: dict[str, Any] = {}
    for name, value in arguments.items():
        made[name] = value
        if value is True:
            made[name] = torch.rand(classes, dtype=torch.float64) + 0.1
        elif value == "rows":
            made[name] = torch.rand(shape, dtype=torch.float64)
    return lossfit.CrossEntropyLoss(**made, **more)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("shape", [(21, 7), (21, 70), (3, 7, 11), (2, 40, 3, 5)], ids=str)
@pytest.mark.parametrize("arguments", WEIGHTS.values(), ids=WEIGHTS)
def test_everything_that_rows_are_weighed_by(arguments: dict[str, Any], shape: tuple[int, ...], reduction: Any) -> None:
    scores = torch.randn(shape) * 3
    rows = scores[:, 0].shape
    target = torch.randint(shape[1], rows)
    target.view(-1)[::4] = -100
    loss = module(arguments, shape[1], rows, reduction=reduction)
    sample_weight = torch.rand(rows)
    sample_weight.view(-1)[1] = 0.0
    compare(loss, scores, target)
    compare(loss, scores, target, sample_weight=sample_weight)
    compare(loss, scores, target, sample_weight=torch.rand(shape[0]))
    if reduction == "mean":
        compare(loss, scores, target, denominator=5.0)
        compare(loss, scores, target, denominator=torch.tensor(3))


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("classes", [6, 60])
def test_hyper_parameters_of_rows(classes: int) -> None:
    scores, target = batch(23, classes)
    each = torch.linspace(0, 1, 23)
    compare(lossfit.GammaCrossEntropyLoss(each, reduction="none"), scores, target)
    compare(lossfit.GeneralizedCrossEntropyLoss(each), scores, target)
    compare(lossfit.SymmetricCrossEntropyLoss(each, each + 1, torch.tensor(-2.0)), scores, target)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("classes", [6, 60])
def test_ignored_rows_may_hold_anything(classes: int) -> None:
    scores, target = batch(19, classes)
    scores[3], target[3] = torch.nan, -100
    scores[18], target[18] = torch.inf, -100
    for reduction in ("none", "mean"):
        compare(lossfit.CrossEntropyLoss(reduction=reduction), scores, target)
    weight = torch.ones(19)
    scores[7], weight[7] = torch.nan, 0.0
    compare(lossfit.CrossEntropyLoss(), scores, target, sample_weight=weight)
    compare(lossfit.CrossEntropyLoss(ignore_index=2), *batch(19, classes))


@pytest.mark.parametrize("rows", [0, 3])
def test_no_row_counts(rows: int) -> None:
    scores, target = torch.randn(rows, 5), torch.full((rows,), -100)
    for reduction in ("mean", "sum", "none"):
        compare(lossfit.CrossEntropyLoss(reduction=reduction), scores, target)


STRIDED: dict[str, Callable[[], Tensor]] = {
    "columns": lambda: torch.randn(12, 20)[:, 3:11],
    "rows": lambda: torch.randn(24, 8)[::2],
    "expanded": lambda: torch.randn(1, 8).expand(12, 8),
    "many columns": lambda: torch.randn(12, 200)[:, 3:111],
}


@pytest.mark.parametrize("name", STRIDED)
def test_rows_apart_in_memory(name: str) -> None:
    scores, loss, target = STRIDED[name](), lossfit.CrossEntropyLoss(), torch.randint(8, (12,))
    with kernels.using("native"):
        value = loss(scores, target)
        z = scores.requires_grad_()
        (grad,) = torch.autograd.grad(loss(z, target), z)
    together = scores.detach().double().contiguous().requires_grad_()
    expected = loss(together, target)
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(grad.double(), torch.autograd.grad(expected, together)[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("position", [0, 18, 40])
@pytest.mark.parametrize("wrong", [-1, 5, 2**40, -(2**62)])
def test_a_target_that_is_no_class_is_named(wrong: int, position: int) -> None:
    scores, target = batch(41, 5)
    target[position] = wrong
    with kernels.using("native"), pytest.raises(IndexError, match=rf"but got {wrong} at position \({position},\)"):
        lossfit.CrossEntropyLoss()(scores.requires_grad_(), target)


def test_second_derivatives_and_second_passes() -> None:
    scores, target = batch(7, 5)
    loss = lossfit.GammaCrossEntropyLoss(0.2)
    with kernels.using("native"):
        z = scores.clone().requires_grad_()
        value = loss(z, target)
        (first,) = torch.autograd.grad(value, z, retain_graph=True)
        (again,) = torch.autograd.grad(value, z, retain_graph=True)
        (scaled,) = torch.autograd.grad(value, z, torch.tensor(3.0), retain_graph=True)
        (twice,) = torch.autograd.grad(value, z, create_graph=True)
        (second,) = torch.autograd.grad(twice.square().sum(), z)
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    torch.testing.assert_close(scaled, 3 * first)
    exact = scores.double().requires_grad_()
    (expected,) = torch.autograd.grad(loss(exact, target), exact, create_graph=True)
    (expected,) = torch.autograd.grad(expected.square().sum(), exact)
    torch.testing.assert_close(second.double(), expected, rtol=1e-5, atol=1e-7)


def test_many_gradients_at_a_time() -> None:
    scores, target = batch(4, 3)
    z = scores.requires_grad_()
    with kernels.using("native"):
        value = lossfit.CrossEntropyLoss(reduction="none")(z, target)
    (rows,) = torch.autograd.grad(value, z, torch.eye(4), is_grads_batched=True, retain_graph=True)
    for i, row in enumerate(torch.eye(4)):
        torch.testing.assert_close(rows[i], torch.autograd.grad(value, z, row, retain_graph=True)[0])


def test_scores_changed_in_between_are_noticed() -> None:
    z = torch.randn(5, 4, requires_grad=True)
    scores = z * 1
    with kernels.using("native"):
        value = lossfit.CrossEntropyLoss()(scores, torch.zeros(5, dtype=torch.int64))
    scores.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_scaled_loss_has_the_gradient_of_its_scale(dtype: torch.dtype) -> None:
    """As with a GradScaler: in float16 a gradient that is scaled afterwards would have lost its small numbers."""
    scores, target = batch(512, 10, dtype)
    z, exact = scores.clone().requires_grad_(), scores.double().requires_grad_()
    loss = lossfit.CrossEntropyLoss()
    with kernels.using("native"):
        (loss(z, target) * 2.0**12).backward()
    (loss(exact, target) * 2.0**12).backward()
    assert z.grad is not None
    assert exact.grad is not None
    error = (z.grad.double() - exact.grad).abs()
    assert (error <= rounding(exact.grad, dtype) + 1e-6 * exact.grad.abs().max()).all()


@pytest.mark.parametrize("shape", [(70_000, 3), (4000, 100), (30, 50_000), (64, 5, 700)], ids=str)
def test_the_number_of_threads_changes_nothing(shape: tuple[int, ...]) -> None:
    scores = torch.randn(shape)
    target = torch.randint(shape[1], scores[:, 0].shape)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            z = scores.clone().requires_grad_()
            with kernels.using("native"):
                value = lossfit.CrossEntropyLoss()(z, target)
            value.backward()
            results.append((value.detach(), z.grad))
    finally:
        torch.set_num_threads(before)
    for value, grad in results[1:]:
        assert torch.equal(value, results[0][0])
        assert torch.equal(grad, results[0][1])


@pytest.mark.parametrize("name", ["cross_entropy", "exact", "zlpr", "bce"])
@pytest.mark.parametrize("backend", ["auto", "native"])
def test_scores_without_numbers(name: str, backend: Any) -> None:
    """No rows give 0, and no classes the error of the other backends."""
    indices = name in ("cross_entropy", "exact")
    with kernels.using(backend):
        for rows, classes in ((0, 3), (2, 0)):
            z = torch.zeros(rows, classes, requires_grad=True)
            target = torch.zeros(rows, dtype=torch.int64) if indices else torch.zeros(rows, classes)
            if classes:
                assert lossfit.make(name)(z, target).item() == 0.0
                continue
            with pytest.raises(ValueError, match="at least"):
                lossfit.make(name)(z, target)


def test_a_mean_of_the_smallest_scores_is_finite() -> None:
    z = torch.zeros(2, 40)
    z[:, 0] = torch.finfo(torch.float32).min
    for some in (z, z[:, :5].contiguous()):
        target = torch.tensor([0, 1])
        with kernels.using("native"):
            value = lossfit.CrossEntropyLoss(label_smoothing=0.1, reduction="none")(some, target)
        expected = lossfit.CrossEntropyLoss(label_smoothing=0.1, reduction="none")(some.double(), target)
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0.0)
