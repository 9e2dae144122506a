"""Cross-entropy against torch.nn.CrossEntropyLoss, over all that both take."""

import copy
import io
import math
import pickle

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import lossfit
from helpers import INF

Z = torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0], [-2.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
Y = torch.tensor([2, 0, 1, 1])


@st.composite
def problems(draw: st.DrawFn) -> dict[str, object]:
    """Arguments for nn.CrossEntropyLoss and a batch for it."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    classes = draw(st.integers(1, 7))
    places = draw(st.sampled_from([None, (), (3,), (2, 3)]))
    rows = draw(st.integers(1, 6))
    shape = (classes,) if places is None else (rows, classes, *places)
    of_rows = () if places is None else (rows, *places)
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    scale = draw(st.sampled_from([1.0, 10.0, 300.0]))
    logits = (scale * torch.randn(shape, dtype=torch.float64, generator=generator)).to(dtype)
    weight = draw(st.sampled_from([None, "positive", "with a zero"]))
    if weight is not None:
        zero = weight == "with a zero"
        weight = torch.rand(classes, dtype=dtype, generator=generator) + 0.1
        weight[-1] = 0.0 if zero else 1.0
    arguments = {
        "weight": weight,
        "reduction": draw(st.sampled_from(["mean", "sum", "none"])),
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 0.7, 1.0])),
    }
    if draw(st.booleans()):
        target = torch.rand(shape, dtype=dtype, generator=generator)
        target = target * (torch.rand(shape, generator=generator) < 0.6)  # some probabilities are 0
        if draw(st.booleans()):
            target = target / target.sum(-1 if places is None else 1, keepdim=True).clamp(min=1e-3)
    else:
        ignore_index = draw(st.sampled_from([-100, -1, 255, 0, classes - 1]))
        target = torch.randint(classes, of_rows, generator=generator)
        ignored = torch.rand(of_rows, generator=generator) < draw(st.sampled_from([0.0, 0.3]))
        target = torch.where(ignored, ignore_index, target)
        arguments["ignore_index"] = ignore_index
    return {"logits": logits, "target": target, "arguments": arguments}


def value_and_gradient(loss: torch.nn.Module, logits: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
    z = logits.clone().requires_grad_()
    value = loss(z, *rest)
    up = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).view(value.shape)
    return value.detach(), torch.autograd.grad(value, z, up)[0]


@settings(max_examples=400, deadline=None, database=None, derandomize=True)
@given(problems())
def test_equals_that_of_pytorch(problem: dict[str, object]) -> None:
    logits, target, arguments = problem["logits"], problem["target"], problem["arguments"]
    exact_arguments = {**arguments, "weight": None if arguments["weight"] is None else arguments["weight"].double()}
    exact_target = target.double() if target.is_floating_point() else target
    expected, slope = value_and_gradient(torch.nn.CrossEntropyLoss(**exact_arguments), logits.double(), exact_target)
    assume(not expected.isnan().any())  # no weight at all: PyTorch has NaN there
    value, grad = value_and_gradient(lossfit.CrossEntropyLoss(**arguments), logits, target)
    assert value.dtype == grad.dtype == logits.dtype
    # A score of 300 is known to eps times 300, and a row of the sum has as many scores as classes.
    allowed = 8 * torch.finfo(logits.dtype).eps * max(1.0, logits.abs().max().item())
    assert_close(value.double(), expected, rtol=allowed, atol=allowed * max(1, value.numel(), target.numel()))
    assert_close(grad.double(), slope, rtol=allowed, atol=allowed)


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(problems())
def test_probabilities_get_the_gradient_of_pytorch(problem: dict[str, object]) -> None:
    logits, target, arguments = problem["logits"].double(), problem["target"].double(), problem["arguments"]
    assume(target.shape == logits.shape and logits.numel())
    arguments = {**arguments, "weight": None if arguments["weight"] is None else arguments["weight"].double()}
    arguments.pop("ignore_index", None)
    q = target.requires_grad_()
    found, expected = (
        torch.autograd.grad(kind(**arguments)(logits, q).sum(), q)[0]
        for kind in (lossfit.CrossEntropyLoss, torch.nn.CrossEntropyLoss)
    )
    assert_close(found, expected, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_second_derivatives_are_those_of_pytorch(soft: bool, smoothing: float, weighted: bool) -> None:
    weight = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64) if weighted else None
    target = torch.rand(4, 3, dtype=torch.float64) if soft else Y
    v = torch.randn(4, 3, dtype=torch.float64)
    seconds = []
    for kind in (lossfit.CrossEntropyLoss, torch.nn.CrossEntropyLoss):
        z = Z.clone().requires_grad_()
        first = torch.autograd.grad(kind(weight, label_smoothing=smoothing)(z, target), z, create_graph=True)[0]
        seconds.append(torch.autograd.grad((first * v).sum(), z)[0])
    assert_close(*seconds, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0, 3.0])])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (3,)])
@pytest.mark.parametrize("junk", [0.0, math.nan, INF])
def test_all_ignored_is_0_with_zero_gradient(
    reduction: str, smoothing: float, weight: torch.Tensor | None, shape: tuple[int, ...], junk: float
) -> None:
    z = torch.full(shape, junk, requires_grad=True)
    target = torch.full((shape[0], *shape[2:]) if len(shape) > 1 else (), -100)
    loss = lossfit.CrossEntropyLoss(weight, reduction=reduction, label_smoothing=smoothing)(z, target)
    assert (loss == 0).all()
    assert torch.equal(torch.autograd.grad(loss.sum(), z)[0], torch.zeros(shape))


def test_no_weight_at_all_is_0_with_zero_gradient() -> None:
    z = Z.clone().requires_grad_()
    loss = lossfit.CrossEntropyLoss(torch.tensor([1.0, 0.0, 1.0]))(z, torch.tensor([1, 1, 1, 1]))
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, z)[0].any()
    loss = lossfit.CrossEntropyLoss()(z, Y, sample_weight=torch.zeros(4))
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, z)[0].any()


@pytest.mark.parametrize("target", [torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3)], ids=["indices", "soft"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, torch.ones(3)])
def test_zero_rows(target: torch.Tensor, smoothing: float, weight: torch.Tensor | None) -> None:
    for reduction, shape in (("mean", ()), ("sum", ()), ("none", (0,))):
        z = torch.zeros(0, 3, requires_grad=True)
        loss = lossfit.CrossEntropyLoss(weight, reduction=reduction, label_smoothing=smoothing)(z, target)
        assert loss.shape == shape
        assert loss.sum().item() == 0
        assert torch.autograd.grad(loss.sum(), z)[0].shape == (0, 3)


def test_a_target_far_ahead_keeps_its_loss() -> None:
    z = torch.tensor([[40.0, 0.0, 0.0], [700.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    loss = lossfit.CrossEntropyLoss(reduction="none")(z, torch.tensor([0, 0]))
    expected = [2 * math.exp(-40), 2 * math.exp(-700)]  # log1p(x) is x here
    assert loss.tolist() == pytest.approx(expected, rel=1e-12, abs=0)
    grad = torch.autograd.grad(loss.sum(), z)[0]
    assert grad[:, 0].tolist() == pytest.approx([-e for e in expected], rel=1e-12, abs=0)
    assert grad[:, 1].tolist() == pytest.approx([e / 2 for e in expected], rel=1e-12, abs=0)


class TestMinusInfinity:
    """Masked classes: PyTorch's conventions, but a one-hot target is as good as an index."""

    z = torch.tensor([[1.0, -INF, 2.0], [-INF, 0.5, -INF], [0.0, 1.0, -INF]], dtype=torch.float64)
    y = torch.tensor([0, 1, 1])

    def test_masked_rivals_count_as_none(self) -> None:
        found = value_and_gradient(lossfit.CrossEntropyLoss(reduction="none"), self.z, self.y)
        expected = value_and_gradient(torch.nn.CrossEntropyLoss(reduction="none"), self.z, self.y)
        assert_close(found, expected, rtol=1e-14, atol=1e-15)

    def test_a_one_hot_target_is_the_index(self) -> None:
        one_hot = torch.nn.functional.one_hot(self.y, 3).double()
        found = value_and_gradient(lossfit.CrossEntropyLoss(reduction="none"), self.z, one_hot)
        expected = value_and_gradient(torch.nn.CrossEntropyLoss(reduction="none"), self.z, self.y)
        assert_close(found, expected, rtol=1e-14, atol=1e-15)

    def test_a_masked_target_has_an_infinite_loss_and_a_finite_gradient(self) -> None:
        y = torch.tensor([1, 0, 2])
        found = value_and_gradient(lossfit.CrossEntropyLoss(reduction="none"), self.z, y)
        expected = value_and_gradient(torch.nn.CrossEntropyLoss(reduction="none"), self.z, y)
        assert found[0].tolist() == [INF] * 3
        assert found[1].isfinite().all()
        assert_close(found, expected, rtol=1e-14, atol=1e-15)

    def test_smoothing_over_masked_classes_is_infinite(self) -> None:
        loss = lossfit.CrossEntropyLoss(reduction="none", label_smoothing=0.1)(self.z, self.y)
        assert loss.tolist() == [INF] * 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_a_float32_loss_and_a_gradient_of_its_type(dtype: torch.dtype) -> None:
    z = (3 * torch.randn(40, 30)).to(dtype)
    y = torch.randint(30, (40,))
    value, grad = value_and_gradient(lossfit.CrossEntropyLoss(), z, y)
    expected, slope = value_and_gradient(torch.nn.CrossEntropyLoss(), z.double(), y)
    assert value.dtype == torch.float32
    assert grad.dtype == dtype
    assert_close(value.double(), expected, rtol=1e-6, atol=0)
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    assert_close(grad.double(), slope, rtol=torch.finfo(dtype).eps, atol=tiny)


class TestModule:
    """It is a torch.nn.Module like PyTorch's."""

    weight = torch.tensor([1.0, 2.0, 3.0])

    def test_the_weight_is_a_buffer_in_the_state(self) -> None:
        loss = lossfit.CrossEntropyLoss(self.weight)
        assert torch.equal(loss.state_dict()["weight"], self.weight)
        assert list(loss.state_dict()) == list(torch.nn.CrossEntropyLoss(self.weight).state_dict())
        other = lossfit.CrossEntropyLoss(torch.ones(3))
        other.load_state_dict(torch.nn.CrossEntropyLoss(self.weight).state_dict())
        assert torch.equal(other.weight, self.weight)

    def test_without_weight_the_state_is_empty(self) -> None:
        assert not lossfit.CrossEntropyLoss().state_dict()

    def test_the_weight_moves_along(self) -> None:
        loss = lossfit.CrossEntropyLoss(self.weight)
        assert loss.double().weight.dtype == torch.float64
        assert loss.to("meta").weight.device.type == "meta"

    def test_copies_and_pickles(self) -> None:
        loss = lossfit.CrossEntropyLoss(self.weight, label_smoothing=0.1, reduction="sum")
        expected = loss(Z, Y)
        stream = io.BytesIO()
        torch.save(loss, stream)
        stream.seek(0)
        for copied in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), torch.load(stream, weights_only=False)):
            assert copied.weight is not loss.weight
            assert_close(copied(Z, Y), expected, rtol=0, atol=0)
            assert repr(copied) == repr(loss)

    def test_it_shows_what_it_was_given(self) -> None:
        loss = lossfit.CrossEntropyLoss(label_smoothing=0.1, reduction="sum")
        assert repr(loss) == "CrossEntropyLoss(label_smoothing=0.1, reduction='sum')"

    def test_the_dtype_of_the_weight_does_not_matter(self) -> None:
        loss = lossfit.CrossEntropyLoss(self.weight)(Z, Y)
        assert loss.dtype == torch.float64
        assert_close(loss, torch.nn.CrossEntropyLoss(self.weight.double())(Z, Y))


@pytest.mark.parametrize("backend", ["dense", "chunked"])
@pytest.mark.parametrize("weighted", [False, True])
def test_smoothing_over_the_other_classes(weighted: bool, backend: str) -> None:
    """The target keeps 1 - eps, and every other class gets eps / (C - 1)."""
    z, y, eps = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1]), 0.2
    weight = torch.linspace(0.5, 2, 4, dtype=torch.float64) if weighted else None
    q = torch.full((6, 4), eps / 3, dtype=torch.float64).scatter(1, y.unsqueeze(1), 1 - eps)
    for name in ("cross_entropy", "focal"):
        loss = lossfit.make(name, label_smoothing=eps, smooth_over="others", weight=weight, reduction="sum")
        value = loss.linear(z, torch.eye(4, dtype=torch.float64), y, backend=backend)
        torch.testing.assert_close(value, lossfit.make(name, weight=weight, reduction="sum")(z, q))
    with pytest.raises(ValueError, match="`smooth_over` to be one of 'all', 'others', but got 'rest'"):
        lossfit.CrossEntropyLoss(smooth_over="rest")
