"""The contrastive losses against longhand sums, PyTorch's cross-entropy and mpmath."""

import copy
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
from helpers import REQUIRED

N, D = 5, 3
VIEWS = {
    "info_nce": lambda **s: lossfit.InfoNCELoss(**s),
    "symmetric": lambda **s: lossfit.InfoNCELoss(symmetric=True, **s),
    "nt_xent": lambda **s: lossfit.NTXentLoss(**s),
}
ALL = [*VIEWS, "sup_con"]


def build(name: str, **settings: object) -> lossfit.Loss:
    return lossfit.SupConLoss(**settings) if name == "sup_con" else VIEWS[name](**settings)


def batch(name: str, rows: int = N, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    first = torch.randn(rows, D, dtype=dtype)
    return first, (torch.arange(rows) // 2 if name == "sup_con" else torch.randn(rows, D, dtype=dtype))


def cosine(a: Tensor, b: Tensor) -> float:
    product = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    return product / math.sqrt(sum(x * x for x in a.tolist()) * sum(y * y for y in b.tolist()))


def pick(scores: list[float], right: int) -> float:
    return math.log(sum(math.exp(s) for s in scores)) - scores[right]


def longhand(name: str, first: Tensor, second: Tensor, temperature: float) -> list[float]:
    """The losses of the rows, pair by pair. None for a row that has no positives."""
    rows = range(len(first))
    if name in ("info_nce", "symmetric"):
        there = [pick([cosine(first[i], second[j]) / temperature for j in rows], i) for i in rows]
        back = [pick([cosine(second[i], first[j]) / temperature for j in rows], i) for i in rows]
        return there if name == "info_nce" else [(t + b) / 2 for t, b in zip(there, back, strict=True)]
    if name == "nt_xent":
        both, n = torch.cat([first, second]), len(first)
        found = []
        for i in range(2 * n):
            others = [k for k in range(2 * n) if k != i]
            scores = [cosine(both[i], both[k]) / temperature for k in others]
            found.append(pick(scores, others.index((i + n) % (2 * n))))
        return [(found[i] + found[i + n]) / 2 for i in rows]
    found = []
    for i in rows:
        others = [k for k in rows if k != i]
        scores = [cosine(first[i], first[k]) / temperature for k in others]
        right = [place for place, k in enumerate(others) if second[k] == second[i]]
        found.append(sum(pick(scores, p) for p in right) / len(right) if right else None)
    return found


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=30, deadline=None, database=None, derandomize=True)
@given(seed=st.integers(0, 2**31), rows=st.integers(2, 7), temperature=st.sampled_from([0.05, 0.3, 1.0, 4.0]))
def test_equals_the_sum_over_pairs(name: str, seed: int, rows: int, temperature: float) -> None:
    torch.manual_seed(seed)
    first, second = batch(name, rows)
    if name == "sup_con":
        second = torch.randint(-1, 2, (rows,))
    expected = longhand(name, first, second, temperature)
    found = build(name, temperature=temperature, reduction="none")(first, second)
    assert_close(found, torch.tensor([e or 0.0 for e in expected], dtype=torch.float64))
    counted = [e for e in expected if e is not None]
    mean = sum(counted) / max(len(counted), 1)
    assert build(name, temperature=temperature)(first, second).item() == pytest.approx(mean, abs=1e-12)
    total = build(name, temperature=temperature, reduction="sum")(first, second)
    assert total.item() == pytest.approx(sum(counted), abs=1e-12)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_gradients(name: str, similarity: str) -> None:
    first, second = batch(name)
    first.requires_grad_()
    if name != "sup_con":
        second.requires_grad_()
    weight = torch.rand(N, dtype=torch.float64, requires_grad=True)
    per_row = (torch.rand(N, dtype=torch.float64) + 0.3).requires_grad_()
    for temperature in (torch.tensor(0.5, dtype=torch.float64, requires_grad=True), per_row):

        def value(f: Tensor, s: Tensor, t: Tensor, w: Tensor) -> Tensor:
            return build(name, temperature=t, similarity=similarity)(f, s, sample_weight=w)

        assert gradcheck(value, (first, second, temperature, weight))
    assert gradgradcheck(lambda f: build(name, similarity=similarity)(f, second), first)


@pytest.mark.parametrize("name", ALL)
def test_weights_and_denominator(name: str) -> None:
    first, second = batch(name, 4)
    rows = build(name, reduction="none")(first, second)
    weight = torch.tensor([0.5, 2.0, 0.0, 1.0], dtype=torch.float64)
    assert_close(build(name)(first, second, sample_weight=weight), (weight * rows).sum() / 3.5)
    assert_close(build(name)(first, second, denominator=7), rows.sum() / 7)
    assert_close(build(name, reduction="none")(first, second, sample_weight=weight), weight * rows)


@pytest.mark.parametrize("name", ALL)
def test_the_order_of_the_rows_does_not_matter(name: str) -> None:
    first, second = batch(name)
    order = torch.randperm(N)
    loss = build(name, reduction="none")
    assert_close(loss(first[order], second[order]), loss(first, second)[order])


def test_nt_xent_is_sup_con_with_two_of_each_label() -> None:
    first, second = batch("nt_xent")
    both, labels = torch.cat([first, second]), torch.arange(N).repeat(2)
    assert_close(lossfit.NTXentLoss(0.2)(first, second), lossfit.SupConLoss(0.2)(both, labels))


def test_a_hard_positive_keeps_its_loss_and_gradient() -> None:
    """At -log p = 200, where an eps inside of the logarithm would cap it at 87."""
    first = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    second = torch.tensor([[-1.0, 0.01], [1.0, 0.01]])
    loss = lossfit.InfoNCELoss(0.01, reduction="none")(first, second)
    assert_close(loss, torch.tensor([2 / math.sqrt(1.0001) / 0.01] * 2))
    loss[0].backward()
    # d s_00 - d s_01 = (b_0 - b_1) / T, across the direction of a_0; the shares are 0 and 1 to rounding.
    assert first.grad[0, 1].item() == pytest.approx(0.0, abs=1e-3)
    third = torch.tensor([[-1.0, 0.3], [1.0, 0.0]])
    first.grad = None
    lossfit.InfoNCELoss(0.01, reduction="none")(first, third)[0].backward()
    assert first.grad[0, 1].item() == pytest.approx(-0.3 / math.sqrt(1.09) / 0.01, rel=1e-5)


def test_an_easy_positive_keeps_its_digits() -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    with mpmath.workdps(40):
        expected = float(mpmath.log1p(mpmath.exp(-mpmath.mpf(1) / mpmath.mpf("0.015625"))))
    found = lossfit.InfoNCELoss(1 / 64)(a, a)
    assert found.item() == pytest.approx(expected, rel=1e-6)
    assert expected < 1e-27
    labels = torch.tensor([0, 0])
    assert lossfit.SupConLoss(1 / 64)(a, labels).item() == 0.0  # one positive and no rival


@pytest.mark.parametrize("name", ALL)
def test_zero_vectors_are_defined(name: str) -> None:
    first, second = batch(name)
    first[0] = 0
    first.requires_grad_()
    loss = build(name, temperature=0.5)(first, second)
    loss.backward()
    assert loss.isfinite()
    assert first.grad.isfinite().all()
    assert (first.grad[0] == 0).all()
    assert first.grad[1:].abs().sum() > 0
    if name == "info_nce":
        row = lossfit.InfoNCELoss(0.5, reduction="none")(first.detach(), second)[0]
        assert row.item() == pytest.approx(math.log(N))


@pytest.mark.parametrize("length", [1e-30, 1e-20, 1.0, 1e20, 3e37])
def test_only_the_direction_matters(length: float) -> None:
    first, second = batch("info_nce", dtype=torch.float32)
    scaled = (functional.normalize(first) * length).requires_grad_()
    loss = lossfit.InfoNCELoss(0.5)
    assert_close(loss(scaled, second), loss(first, second))
    loss(scaled, second).backward()
    unit = functional.normalize(first).requires_grad_()
    loss(unit, second).backward()
    assert_close(scaled.grad.double() * length, unit.grad.double(), rtol=1e-4, atol=1e-6)


def test_dot_products_are_logits() -> None:
    first, second = batch("info_nce")
    logits = first @ second.T / 0.7
    found = lossfit.InfoNCELoss(0.7, similarity="dot")(first, second)
    assert_close(found, functional.cross_entropy(logits, torch.arange(N)))
    both = lossfit.InfoNCELoss(0.7, True, similarity="dot")(first, second)
    assert_close(both, (found + functional.cross_entropy(logits.T, torch.arange(N))) / 2)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("inner", lossfit.available_losses("single_label"))
def test_any_single_label_loss_may_stand_in(name: str, inner: str) -> None:
    first, second = batch(name)
    first.requires_grad_()
    loss = lossfit.make(inner, **REQUIRED.get(inner, {}))
    outer = build(name, temperature=0.5, loss=loss)
    value = outer(first, second)
    (grad,) = torch.autograd.grad(value, first)
    assert value.isfinite()
    assert grad.isfinite().all()
    assert (value - build(name, temperature=0.5)(first, second)).abs() > 1e-9 or inner in ("cross_entropy", "poly")


def test_expected_accuracy_of_pairs() -> None:
    first, second = batch("info_nce")
    p = (functional.normalize(first) @ functional.normalize(second).T / 0.3).softmax(1).diagonal()
    found = lossfit.InfoNCELoss(0.3, loss=lossfit.ExpectedAccuracyLoss())(first, second)
    assert_close(found, 1 - p.mean())
    labels = torch.tensor([0, 0, 0, 1, 1])
    scores = functional.normalize(first) @ functional.normalize(first).T / 0.3
    p = scores.masked_fill(torch.eye(N, dtype=torch.bool), -math.inf).softmax(1)
    expected = [1 - (p[i] * (labels == labels[i])).sum() / ((labels == labels[i]).sum() - 1) for i in range(N)]
    found = lossfit.SupConLoss(0.3, loss=lossfit.ExpectedAccuracyLoss(reduction="sum"), reduction="none")(first, labels)
    assert_close(found, torch.stack(expected))


def test_label_smoothing_inside() -> None:
    first, second = batch("nt_xent")
    both = functional.normalize(torch.cat([first, second]))
    scores = both @ both.T / 0.5
    others = torch.stack([torch.cat([row[:i], row[i + 1 :]]) for i, row in enumerate(scores)])
    at = torch.tensor([(i + N) % (2 * N) - ((i + N) % (2 * N) > i) for i in range(2 * N)])
    expected = functional.cross_entropy(others, at, label_smoothing=0.2)
    loss = lossfit.NTXentLoss(0.5, loss=lossfit.CrossEntropyLoss(label_smoothing=0.2))
    assert_close(loss(first, second), expected)


def test_rows_without_positives() -> None:
    first = torch.randn(4, D, dtype=torch.float64, requires_grad=True)
    loss = lossfit.SupConLoss()
    nothing = loss(first, torch.arange(4))
    assert nothing.item() == 0
    assert (torch.autograd.grad(nothing, first)[0] == 0).all()
    some = lossfit.SupConLoss(reduction="none")(first, torch.tensor([3, 7, 3, 8]))
    assert ((some == 0) == torch.tensor([False, True, False, True])).all()
    assert_close(loss(first, torch.tensor([3, 7, 3, 8])), some.sum() / 2)
    (grad,) = torch.autograd.grad(some.sum(), first)
    assert grad[1].abs().sum() > 0  # it is a rival


@pytest.mark.parametrize("name", ALL)
def test_an_empty_batch(name: str) -> None:
    first, second = batch(name, 0)
    first.requires_grad_()
    for reduction in ("mean", "sum"):
        value = build(name, reduction=reduction)(first, second)
        assert value.item() == 0
        assert torch.autograd.grad(value, first)[0].shape == (0, D)
    assert build(name, reduction="none")(first, second).shape == (0,)


def test_a_learnt_temperature_finds_its_optimum() -> None:
    """Scores between two rows whose own is right with probability p have their best temperature where p is met."""
    temperature = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    loss = lossfit.InfoNCELoss(temperature)
    assert list(loss.parameters()) == [temperature]
    # Three of four pairs agree, one is swapped with another: log odds d = 2 / T at the optimum of the mean.
    first = torch.eye(2, dtype=torch.float64)
    pairs = [(first, first)] * 3 + [(first, first.flip(0))]
    optimizer = torch.optim.LBFGS([temperature], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = sum(loss(a, b) for a, b in pairs)
        total.backward()
        return total

    optimizer.step(closure)
    assert temperature.item() == pytest.approx(1 / math.log(3), rel=1e-5)


def test_schedules_advance_inside_too() -> None:
    loss = lossfit.InfoNCELoss(lambda step: 1 / (1 + step), loss=lossfit.FocalLoss(gamma=lambda step: float(step)))
    loss.step()
    assert (loss.temperature, loss.loss.gamma) == (0.5, 1.0)
    fresh = lossfit.InfoNCELoss(lambda step: 1 / (1 + step), loss=lossfit.FocalLoss(gamma=lambda step: float(step)))
    fresh.load_state_dict(loss.state_dict())
    assert (fresh.temperature, fresh.loss.gamma) == (0.5, 1.0)


def test_the_loss_inside_shares_its_tensors_and_stays_as_it_is() -> None:
    gamma = torch.nn.Parameter(torch.tensor(2.0))
    inner = lossfit.FocalLoss(gamma=gamma)
    outer = lossfit.NTXentLoss(loss=inner)
    assert inner.reduction == "mean"
    assert list(outer.parameters()) == [gamma]
    outer(torch.randn(4, 3), torch.randn(4, 3)).backward()
    assert gamma.grad is not None
    assert next(copy.deepcopy(outer).parameters()) is not gamma


@pytest.mark.parametrize("name", ALL)
def test_autocast_keeps_float32(name: str) -> None:
    first, second = batch(name, 8, torch.float32)
    expected = build(name)(first, second)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(build(name)(first, second), expected)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch does it
@pytest.mark.parametrize("name", ALL)
def test_transformations(name: str) -> None:
    first, second = batch(name)
    loss = build(name)
    expected = torch.autograd.grad(loss(first.requires_grad_(), second), first)[0]
    first = first.detach()
    assert_close(torch.func.grad(loss)(first, second), expected)
    many = torch.stack([first, 2 * first + 1])
    each = torch.stack([loss(f, second) for f in many])
    assert_close(torch.func.vmap(lambda f: loss(f, second))(many), each)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    f = first.requires_grad_()
    assert_close(torch.autograd.grad(compiled(f, second), f)[0], expected)


FEATURES = torch.randn(4, 3)


@pytest.mark.parametrize(
    ("error", "match", "make"),
    [
        (ValueError, r"`input` of at least 2 rows.*got 1", lambda: lossfit.InfoNCELoss()(FEATURES[:1], FEATURES[:1])),
        (ValueError, r"`input` of at least 2 rows.*got 1", lambda: lossfit.NTXentLoss()(FEATURES[:1], FEATURES[:1])),
        (
            ValueError,
            r"`input` of at least 2 rows.*got 1",
            lambda: lossfit.SupConLoss()(FEATURES[:1], torch.tensor([0])),
        ),
        (TypeError, r"`input` to be a torch.Tensor, but got list", lambda: lossfit.InfoNCELoss()([1.0], FEATURES)),
        (TypeError, r"`other` to hold floating-point", lambda: lossfit.NTXentLoss()(FEATURES, FEATURES.long())),
        (ValueError, r"`input` of shape \(N, D\)", lambda: lossfit.InfoNCELoss()(FEATURES[0], FEATURES[0])),
        (ValueError, r"`other` of the shape of `input`", lambda: lossfit.InfoNCELoss()(FEATURES, FEATURES[:3])),
        (
            TypeError,
            r"`target` to hold integer labels.*float32",
            lambda: lossfit.SupConLoss()(FEATURES, FEATURES[:, 0]),
        ),
        (TypeError, r"`target` to be a torch.Tensor", lambda: lossfit.SupConLoss()(FEATURES, [0, 0, 1, 1])),
        (ValueError, r"`target` of shape \(4,\)", lambda: lossfit.SupConLoss()(FEATURES, torch.arange(3))),
        (ValueError, r"`temperature` in \(0, inf\)", lambda: lossfit.InfoNCELoss(0.0)),
        (ValueError, r"`temperature` to broadcast", lambda: lossfit.InfoNCELoss(torch.ones(3))(FEATURES, FEATURES)),
        (ValueError, r"`similarity` to be one of 'cosine', 'dot'", lambda: lossfit.NTXentLoss(similarity="euclid")),
        (ValueError, r"`reduction` to be one of", lambda: lossfit.NTXentLoss(reduction="avg")),
        (TypeError, r"`loss` to be a SingleLabelLoss", lambda: lossfit.NTXentLoss(loss=torch.nn.CrossEntropyLoss())),
        (
            ValueError,
            r"`loss` without `weight`",
            lambda: lossfit.NTXentLoss(loss=lossfit.CrossEntropyLoss(weight=torch.ones(3))),
        ),
        (
            ValueError,
            r"negative `ignore_index`, but got 0",
            lambda: lossfit.NTXentLoss(loss=lossfit.CrossEntropyLoss(ignore_index=0)),
        ),
        (TypeError, r"`gather` to be a bool or a process group", lambda: lossfit.InfoNCELoss(gather="all")),
        (ValueError, r"initialised torch.distributed", lambda: lossfit.InfoNCELoss(gather=True)(FEATURES, FEATURES)),
    ],
)
def test_bad_input(error: type[Exception], match: str, make: object) -> None:
    with pytest.raises(error, match=match):
        make()
