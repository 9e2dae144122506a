"""Distillation against PyTorch's kl_div and cross_entropy, mpmath, and longhand limits."""

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional
from torch.testing import assert_close

import lossfit
from helpers import INF, REQUIRED

N, C = 5, 4


def batch(*places: int) -> tuple[Tensor, Tensor, Tensor]:
    z, t = 2 * torch.randn(2, N, C, *places, dtype=torch.float64)
    return z, t, torch.randint(C, (N, *places))


def divergence(z: Tensor, t: Tensor, temperature: float) -> Tensor:
    """Of every row, by PyTorch."""
    log_q, log_p = (z / temperature).log_softmax(1), (t / temperature).log_softmax(1)
    return functional.kl_div(log_q, log_p, log_target=True, reduction="none").sum(1)


@settings(max_examples=40, deadline=None, database=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    places=st.sampled_from([(), (3,), (2, 3)]),
    temperature=st.sampled_from([0.5, 1.0, 4.0]),
    alpha=st.sampled_from([0.0, 0.3, 1.0]),
    scaled=st.booleans(),
    reduction=st.sampled_from(["mean", "sum", "none"]),
)
def test_equals_its_two_parts(
    seed: int, places: tuple[int, ...], temperature: float, alpha: float, scaled: bool, reduction: str
) -> None:
    torch.manual_seed(seed)
    z, t, y = batch(*places)
    z.requires_grad_()
    soft = divergence(z, t, temperature) * (temperature**2 if scaled else 1)
    rows = alpha * soft + (1 - alpha) * functional.cross_entropy(z, y, reduction="none")
    expected = {"mean": rows.mean(), "sum": rows.sum(), "none": rows}[reduction]
    loss = lossfit.DistillationLoss(temperature, alpha, scale_by_t2=scaled, reduction=reduction)
    found = loss(z, t, y)
    assert_close(found, expected)
    up = torch.linspace(0.5, 1.5, found.numel(), dtype=torch.float64).view(found.shape)
    assert_close(torch.autograd.grad(found, z, up)[0], torch.autograd.grad(expected, z, up)[0])


def test_t_squared_keeps_the_size_of_the_gradient() -> None:
    """For large T the gradient of the divergence is (z - t, both centred) / (C T^2)."""
    z, t, _ = batch()
    z.requires_grad_()
    loss = lossfit.DistillationLoss(1000.0, 1.0, reduction="sum")
    (grad,) = torch.autograd.grad(loss(z, t), z)
    expected = (z - z.mean(1, keepdim=True) - t + t.mean(1, keepdim=True)).detach() / C
    assert_close(grad, expected, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("per_row", [True, False])
def test_gradients(scaled: bool, per_row: bool) -> None:
    z, t, y = batch()
    shape = (N,) if per_row else ()
    temperature = (torch.rand(shape, dtype=torch.float64) + 0.7).requires_grad_()
    alpha = (0.2 + 0.6 * torch.rand(shape, dtype=torch.float64)).requires_grad_()
    weight = torch.rand(N, dtype=torch.float64, requires_grad=True)

    def value(z: Tensor, temperature: Tensor, alpha: Tensor, weight: Tensor) -> Tensor:
        return lossfit.DistillationLoss(temperature, alpha, scale_by_t2=scaled)(z, t, y, sample_weight=weight)

    arguments = (z.requires_grad_(), temperature, alpha, weight)
    assert gradcheck(value, arguments, fast_mode=True)
    assert gradgradcheck(value, arguments, fast_mode=True)


def test_the_teacher_is_a_constant() -> None:
    z, t, y = batch()
    z.requires_grad_()
    with pytest.raises(ValueError, match="`teacher` without a gradient"):
        lossfit.DistillationLoss()(z, t.clone().requires_grad_(), y)
    with pytest.raises(ValueError, match="`teacher_x` without a gradient"):
        lossfit.DistillationLoss().linear(z, torch.eye(C).double(), t.requires_grad_(), torch.eye(C).double(), y)
    temperature = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    lossfit.DistillationLoss(temperature)(z, t.detach(), y).backward()
    assert temperature.grad is not None
    assert z.grad.abs().sum() > 0


@pytest.mark.parametrize("apart", [1e-2, 1e-5, 1e-8])
def test_a_student_close_to_its_teacher_keeps_its_digits(apart: float) -> None:
    """The plain sum of p (log p - log q) has an error of 1e-16, beside a value of 1e-17 for the last."""
    teacher = [0.3, 1.0, -2.0, 0.0]
    student = [a + apart * b for a, b in zip(teacher, [1.0, -1.0, 2.0, 0.5], strict=True)]
    with mpmath.workdps(50):
        q, p = ([mpmath.exp(mpmath.mpf(v)) for v in values] for values in (student, teacher))
        q, p = ([v / mpmath.fsum(values) for v in values] for values in (q, p))
        expected = float(mpmath.fsum(a * mpmath.log(a / b) for a, b in zip(p, q, strict=True)))
        slope = [float(b - a) for a, b in zip(p, q, strict=True)]
    z = torch.tensor([student], dtype=torch.float64, requires_grad=True)
    loss = lossfit.DistillationLoss(1.0, 1.0)(z, torch.tensor([teacher], dtype=torch.float64))
    # Logits of size 1 know their difference to 2e-16.
    assert loss.item() == pytest.approx(expected, rel=2e-15 / apart)
    (grad,) = torch.autograd.grad(loss, z)
    assert grad[0].tolist() == pytest.approx(slope, rel=2e-15 / apart)
    assert loss.item() > 0


def test_the_same_logits_give_0() -> None:
    _, t, _ = batch()
    assert lossfit.DistillationLoss(alpha=1.0)(t, t + 0.0).item() == 0
    far = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    value = lossfit.DistillationLoss(alpha=1.0, temperature=1.0)(far, -far.detach())
    assert value.item() == pytest.approx(2e4)
    assert torch.autograd.grad(value, far)[0].tolist() == [[1.0, -1.0, 0.0]]


class TestMinusInfinity:
    def test_what_both_exclude_counts_for_nothing(self) -> None:
        z, t, y = batch()
        y = y.clamp(max=1)
        z[:, 2] = t[:, 2] = -INF
        z.requires_grad_()
        kept = [0, 1, 3]
        loss = lossfit.DistillationLoss(3.0)
        value, expected = loss(z, t, y), loss(z[:, kept], t[:, kept], y)
        assert_close(value, expected)
        grad, wanted = (torch.autograd.grad(v, z)[0] for v in (value, expected))
        assert_close(grad, wanted)
        assert (grad[:, 2] == 0).all()

    def test_what_the_teacher_excludes_is_pushed_down(self) -> None:
        z, t, y = batch()
        t[:, 2] = -INF
        z.requires_grad_()
        value = lossfit.DistillationLoss(1.0, 1.0, reduction="sum")(z, t, y)
        p, log_q = t.softmax(1), z.log_softmax(1)
        expected = torch.special.xlogy(p, p).sum() - (p * log_q).sum()
        assert_close(value, expected)
        (grad,) = torch.autograd.grad(value, z)
        assert_close(grad, z.softmax(1) - p)

    def test_what_only_the_student_excludes_is_infinite_with_a_finite_gradient(self) -> None:
        z, t, y = batch()
        z[0, 2] = -INF
        y[0] = 0
        z.requires_grad_()
        value = lossfit.DistillationLoss(1.0, 1.0, reduction="none")(z, t, y)
        assert value[0] == INF
        assert value[1:].isfinite().all()
        (grad,) = torch.autograd.grad(value.sum(), z)
        assert_close(grad, (z.softmax(1) - t.softmax(1)).detach())

    def test_a_learnt_temperature_stays_finite(self) -> None:
        z, t, y = batch()
        y = y.clamp(max=1)
        z[:, 2] = t[:, 2] = -INF
        values = []
        for at in (2.0 - 1e-6, 2.0 + 1e-6):
            values.append(lossfit.DistillationLoss(at)(z, t, y).item())
        temperature = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        lossfit.DistillationLoss(temperature)(z, t, y).backward()
        assert temperature.grad.item() == pytest.approx((values[1] - values[0]) / 2e-6, rel=1e-6)


class TestRows:
    def test_ignored_rows_may_hold_anything(self) -> None:
        z, t, y = batch(3)
        z[1, :, 2], t[1, :, 2], z[4, :, 0] = math.nan, math.nan, INF
        y[1, 2] = y[4, 0] = 255
        z.requires_grad_()
        loss = lossfit.DistillationLoss(loss=lossfit.CrossEntropyLoss(ignore_index=255))
        value = loss(z, t, y)
        kept = y.flatten() != 255
        rows = [v.movedim(1, -1).reshape(-1, C)[kept] for v in (z, t)]
        assert_close(value, lossfit.DistillationLoss()(*rows, y.flatten()[kept]))
        (grad,) = torch.autograd.grad(value, z)
        assert grad.isfinite().all()
        assert (grad[1, :, 2] == 0).all()
        assert (grad[4, :, 0] == 0).all()
        y[:] = 255
        value = loss(z, t, y)
        assert value.item() == 0
        assert (torch.autograd.grad(value, z)[0] == 0).all()

    def test_weights(self) -> None:
        z, t, y = batch()
        class_weight, sample = torch.rand(C).double() + 0.1, torch.rand(N).double()
        loss = lossfit.DistillationLoss(2.0, 0.3, loss=lossfit.CrossEntropyLoss(weight=class_weight))
        hard = (functional.cross_entropy(z, y, weight=class_weight, reduction="none") * sample).sum()
        soft = (4 * divergence(z, t, 2.0) * sample).sum()
        expected = 0.3 * soft / sample.sum() + 0.7 * hard / (class_weight[y] * sample).sum()
        assert_close(loss(z, t, y, sample_weight=sample), expected)
        assert_close(loss(z, t, y, sample_weight=sample, denominator=3), (0.3 * soft + 0.7 * hard) / 3)
        assert "loss.weight" in loss.state_dict()

    def test_without_a_batch(self) -> None:
        z, t, y = batch()
        for reduction in ("mean", "none"):
            loss = lossfit.DistillationLoss(reduction=reduction)
            assert loss(z[0], t[0], y[0]).shape == ()
            assert_close(loss(z[0], t[0], y[0]), loss(z[:1], t[:1], y[:1]).squeeze())

    def test_an_empty_batch(self) -> None:
        z, t, y = batch()
        z.requires_grad_()
        value = lossfit.DistillationLoss()(z[:0], t[:0], y[:0])
        assert value.item() == 0
        assert (torch.autograd.grad(value, z)[0] == 0).all()

    def test_probabilities_as_targets(self) -> None:
        z, t, _ = batch()
        target = torch.rand(N, C).double().softmax(1)
        expected = 0.5 * 4 * divergence(z, t, 2.0).mean() + 0.5 * functional.cross_entropy(z, target)
        assert_close(lossfit.DistillationLoss()(z, t, target), expected)

    def test_no_labels_are_needed_for_the_teacher_alone(self) -> None:
        z, t, y = batch(3)
        loss = lossfit.DistillationLoss(alpha=1.0)
        assert_close(loss(z, t), loss(z, t, y))
        assert_close(lossfit.functional.distillation_loss(z, t, alpha=1.0), loss(z, t))


@pytest.mark.parametrize("inner", lossfit.available_losses("single_label"))
def test_any_loss_for_the_labels(inner: str) -> None:
    z, t, y = batch()
    single = lossfit.make(inner, **REQUIRED.get(inner, {}))
    expected = 0.25 * 9 * divergence(z, t, 3.0).mean() + 0.75 * single(z, y)
    assert_close(lossfit.DistillationLoss(3.0, 0.25, loss=single)(z, t, y), expected)
    assert single.reduction == "mean"


def test_schedules() -> None:
    loss = lossfit.DistillationLoss(lambda step: 4.0 - step, lambda step: step / 2)
    z, t, y = batch()
    assert_close(loss(z, t, y), functional.cross_entropy(z, y))
    loss.step(2)
    assert_close(loss(z, t, y), 4 * divergence(z, t, 2.0).mean())


def test_bfloat16_teacher_and_student() -> None:
    z, t, y = batch()
    half, teacher = z.bfloat16().requires_grad_(), t.bfloat16()
    value = lossfit.DistillationLoss()(half, teacher, y)
    assert value.dtype == torch.float32
    assert_close(value, lossfit.DistillationLoss()(half.float(), teacher.float(), y))
    value.backward()
    assert half.grad.dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch does it
def test_transformations() -> None:
    z, t, y = batch()
    loss = lossfit.DistillationLoss()
    expected = torch.autograd.grad(loss(z.requires_grad_(), t, y), z)[0]
    z = z.detach()
    assert_close(torch.func.grad(loss)(z, t, y), expected)
    many = torch.stack([z, 2 * z + 1])
    assert_close(torch.func.vmap(lambda v: loss(v, t, y))(many), torch.stack([loss(v, t, y) for v in many]))
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    z.requires_grad_()
    assert_close(torch.autograd.grad(compiled(z, t, y), z)[0], expected)


Z, Y = torch.randn(N, C), torch.zeros(N, dtype=torch.int64)


@pytest.mark.parametrize(
    ("error", "match", "make"),
    [
        (ValueError, r"`teacher` of the shape of `input`, \(5, 4\), but got \(5, 3\)", lambda d: d()(Z, Z[:, :3], Y)),
        (TypeError, r"`teacher` to be a tensor of floating-point logits.*int64", lambda d: d()(Z, Y, Y)),
        (TypeError, r"`teacher` to be a tensor.*list", lambda d: d()(Z, [1.0], Y)),
        (TypeError, r"`input` to be a torch.Tensor", lambda d: d(alpha=1.0)([1.0], Z)),
        (ValueError, r"`target` where `alpha` is not 1.*alpha=0.5", lambda d: d()(Z, Z)),
        (IndexError, r"`target` to hold class indices.*4", lambda d: d()(Z, Z, Y + 4)),
        (ValueError, r"`temperature` in \(0, inf\), but got 0", lambda d: d(0.0)),
        (ValueError, r"`alpha` in \[0, 1\], but got 1.5", lambda d: d(alpha=1.5)),
        (TypeError, r"`loss` to be a SingleLabelLoss, but got CrossEntropyLoss", lambda d: d(loss=torch_loss())),
        (ValueError, r"`sample_weight` of shape \(5,\)", lambda d: d()(Z, Z, Y, sample_weight=torch.ones(3))),
    ],
)
def test_bad_input(error: type[Exception], match: str, make: object) -> None:
    with pytest.raises(error, match=match):
        make(lossfit.DistillationLoss)


def torch_loss() -> torch.nn.Module:
    return torch.nn.CrossEntropyLoss()
