"""The multi-label losses against mpmath, longhand sums and PyTorch."""

import math

import mpmath
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lossfit
from lossfit.core.limits import limited
from lossfit.core.reduce import Weighing
from lossfit.losses.multi_label import value_and_grad

NAMES = lossfit.available_losses("multi_label")
# Settings beside the default ones.
CASES = [
    ("zlpr", {}),
    ("bce", {}),
    ("bce", {"pos_weight": torch.tensor([2.0, 0.5, 1.0, 3.0, 0.0]).double()}),
    ("bce", {"weight": torch.tensor([1.0, 0.0, 2.0, 0.5, 1.5]).double()}),
    ("focal_bce", {}),
    ("focal_bce", {"gamma": 0.5, "alpha": None}),
    ("asymmetric", {}),
    ("asymmetric", {"gamma_pos": 0.5, "gamma_neg": 0.3, "clip": 0.2}),
    ("asymmetric", {"gamma_pos": 1.0, "clip": 0.0}),
]
mpmath.mp.dps = 400  # 1 - p keeps digits where p is 1 - 1e-304


def batch(*shape: int, soft: bool = False, spread: float = 3.0) -> tuple[Tensor, Tensor]:
    target = torch.rand(shape, dtype=torch.float64)
    return (torch.randn(shape, dtype=torch.float64) * spread).requires_grad_(), target if soft else target.round()


def naive_zlpr(s: Tensor, t: Tensor) -> Tensor:
    return torch.log1p(((1 - t) * s.exp()).sum(1)) + torch.log1p((t * (-s).exp()).sum(1))


def exact(name: str, s: float, t: float, **numbers: float) -> mpmath.mpf:
    """The loss of one label."""
    one, s, t = mpmath.mpf(1), mpmath.mpf(s), mpmath.mpf(t)
    p, q = one / (1 + mpmath.exp(-s)), one / (1 + mpmath.exp(s))
    if name == "bce":
        return -t * mpmath.log(p) - (1 - t) * mpmath.log(q)
    if name == "focal_bce":
        alpha, gamma = mpmath.mpf(numbers["alpha"]), numbers["gamma"]
        return -alpha * t * q**gamma * mpmath.log(p) - (1 - alpha) * (1 - t) * p**gamma * mpmath.log(q)
    m = max(p - mpmath.mpf(numbers["clip"]), mpmath.mpf(0))
    negative = m ** numbers["gamma_neg"] * mpmath.log(1 - m) if m else mpmath.mpf(0)
    return -t * q ** numbers["gamma_pos"] * mpmath.log(p) - (1 - t) * negative


NUMBERS = {
    "bce": [{}],
    "focal_bce": [{"gamma": 2.0, "alpha": 0.25}, {"gamma": 0.5, "alpha": 0.9}],
    "asymmetric": [
        {"gamma_pos": 0.0, "gamma_neg": 4.0, "clip": 0.05},
        {"gamma_pos": 0.5, "gamma_neg": 0.3, "clip": 0.0},
        {"gamma_pos": 1.0, "gamma_neg": 0.5, "clip": 1e-6},
    ],
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("t", [0.0, 1.0, 0.3])
def test_labels_against_mpmath(name: str, t: float) -> None:
    points = [-700.0, -40.0, -20.0, -3.0, -0.7, 0.0, 0.9, 2.5, 20.0, 40.0, 700.0]
    s = torch.tensor(points, dtype=torch.float64).unsqueeze(1).requires_grad_()
    for numbers in NUMBERS[name]:
        value = lossfit.make(name, reduction="none", **numbers)(s, torch.full_like(s, t).detach())
        (grad,) = torch.autograd.grad(value.sum(), s)
        for i, x in enumerate(points):
            want = exact(name, x, t, **numbers)
            slope = mpmath.diff(lambda z, n=numbers: exact(name, z, t, **n), x, h=mpmath.mpf(10) ** -60)
            if want < 1e-300:
                assert value[i].item() < 1e-300
                continue
            assert value[i].item() == pytest.approx(float(want), rel=1e-11), (numbers, x)
            assert grad[i].item() == pytest.approx(float(slope), rel=1e-11, abs=1e-300), (numbers, x)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("gap", [0.0, 5.0, 15.0, 20.0, 40.0, 300.0])
def test_zlpr_keeps_digits_far_ahead(gap: float, soft: bool) -> None:
    s = torch.tensor([[gap, -gap, -gap - 1, -gap - 2]], dtype=torch.float64, requires_grad=True)
    share = torch.tensor([0.75 if soft else 1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    scores, labels = [mpmath.mpf(v) for v in s[0].tolist()], [mpmath.mpf(v) for v in share.tolist()]
    low = sum((1 - t) * mpmath.exp(z) for z, t in zip(scores, labels, strict=True))
    high = sum(t * mpmath.exp(-z) for z, t in zip(scores, labels, strict=True))
    value = lossfit.ZLPRLoss()(s, share.unsqueeze(0))
    value.backward()
    assert value.item() == pytest.approx(float(mpmath.log1p(low) + mpmath.log1p(high)), rel=1e-12)
    for i, (z, t) in enumerate(zip(scores, labels, strict=True)):
        want = (1 - t) * mpmath.exp(z) / (1 + low) - t * mpmath.exp(-z) / (1 + high)
        assert s.grad[0, i].item() == pytest.approx(float(want), rel=1e-12)


@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 2), (2, 3, 2, 2)])
@pytest.mark.parametrize("soft", [False, True])
def test_zlpr_against_the_sums(shape: tuple[int, ...], soft: bool) -> None:
    s, t = batch(*shape, soft=soft)
    value = lossfit.ZLPRLoss(reduction="none")(s, t)
    want = naive_zlpr(s, t)
    torch.testing.assert_close(value, want)
    assert value.shape == shape[:1] + shape[2:]
    torch.testing.assert_close(torch.autograd.grad(value.sum(), s), torch.autograd.grad(want.sum(), s))


def test_zlpr_is_least_where_sigmoid_of_twice_the_scores_is_the_label() -> None:
    _, t = batch(4, 6, soft=True)
    s = (t.logit() / 2).requires_grad_()
    (grad,) = torch.autograd.grad(lossfit.ZLPRLoss(reduction="sum")(s, t), s)
    assert grad.abs().max() < 1e-15


def test_zlpr_of_one_right_class_against_a_threshold_is_cross_entropy() -> None:
    """With a right class far above 0, what is left is the cross-entropy of the threshold among the wrong ones."""
    s, _ = batch(5, 4)
    t = F.one_hot(torch.full((5,), 3), 4).double()
    scores = torch.cat([s[:, :3], torch.full((5, 1), 800.0, dtype=torch.float64)], 1)
    with_zero = torch.cat([s[:, :3], torch.zeros(5, 1, dtype=torch.float64)], 1)
    want = F.cross_entropy(with_zero, torch.full((5,), 3))
    torch.testing.assert_close(lossfit.ZLPRLoss()(scores, t), want)


@pytest.mark.parametrize(("name", "numbers"), CASES)
@pytest.mark.parametrize("soft", [False, True])
def test_gradients(name: str, numbers: dict, soft: bool) -> None:
    s, t = batch(4, 5, 2, soft=soft)
    loss = lossfit.make(name, reduction="none", **numbers)
    assert torch.autograd.gradcheck(lambda z: loss(z, t), s)
    assert torch.autograd.gradgradcheck(lambda z: loss(z, t), s)


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 2.0, 1.0, 0.0])])
@pytest.mark.parametrize("pos_weight", [None, torch.tensor([3.0, 0.5, 1.0, 2.0])])
@pytest.mark.parametrize("soft", [False, True])
def test_the_mean_of_bce_is_torchs(weight: Tensor | None, pos_weight: Tensor | None, soft: bool) -> None:
    s, t = batch(7, 4, soft=soft)
    value = lossfit.BCELoss(weight=weight, pos_weight=pos_weight)(s, t)
    want = F.binary_cross_entropy_with_logits(s, t, weight, pos_weight=pos_weight)
    torch.testing.assert_close(value, want)
    torch.testing.assert_close(torch.autograd.grad(value, s), torch.autograd.grad(want, s))


@pytest.mark.parametrize("shape", [(700, 61), (300, 7, 13), (40, 5001)])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_blocks_do_not_matter(name: str, shape: tuple[int, ...], soft: bool) -> None:
    s, t = batch(*shape, soft=soft)
    loss = lossfit.make(name, reduction="none")
    body = loss._body(s, loss._numbers(s[:, 0].shape, s.dtype))._replace(blocks=False)
    whole = value_and_grad.reduced(body, Weighing("none"), s, t, None)
    with limited(label_bytes=100_000):
        value = loss(s, t)
    torch.testing.assert_close(value, whole, rtol=1e-12, atol=1e-14)
    upstream = torch.rand_like(value)
    grads = torch.autograd.grad(value, s, upstream), torch.autograd.grad(whole, s, upstream)
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-14)
    with torch.no_grad():
        assert torch.equal(loss(s, t), value)


def test_identities_between_losses() -> None:
    s, t = batch(6, 5, soft=True)
    bce = lossfit.BCELoss()(s, t)
    torch.testing.assert_close(lossfit.FocalBCELoss(gamma=0.0, alpha=None)(s, t), bce)
    torch.testing.assert_close(lossfit.FocalBCELoss(gamma=0.0, alpha=0.5)(s, t), bce / 2)
    torch.testing.assert_close(lossfit.AsymmetricLoss(0.0, 0.0, 0.0)(s, t), bce)
    focal = lossfit.FocalBCELoss(gamma=1.5, alpha=None)(s, t)
    torch.testing.assert_close(lossfit.AsymmetricLoss(1.5, 1.5, 0.0)(s, t), focal)
    torch.testing.assert_close(lossfit.AsymmetricLoss(1.5, 1.5, 1e-14)(s, t), focal)


def test_alpha_is_the_weight_of_ones() -> None:
    s = torch.zeros(1, 1, dtype=torch.float64)
    loss = lossfit.FocalBCELoss(gamma=1.0, alpha=0.25)
    assert loss(s, torch.ones(1, 1)).item() == pytest.approx(0.25 * 0.5 * math.log(2))
    assert loss(s, torch.zeros(1, 1)).item() == pytest.approx(0.75 * 0.5 * math.log(2))


@pytest.mark.parametrize("name", NAMES)
def test_lists_of_classes_are_dense_labels(name: str) -> None:
    s, _ = batch(4, 6)
    dense = torch.zeros(4, 6)
    dense[0, [1, 4]] = dense[2, 0] = dense[3, [5, 0, 2]] = 1
    listed = torch.tensor([[4, 1, -100], [-100, -100, -100], [-100, 0, -100], [5, 0, 2]])
    loss = lossfit.make(name, reduction="none")
    want = loss(s, dense)
    for target in (dense.bool(), dense.double(), dense.bfloat16(), listed, listed.int(), listed.to(torch.int8)):
        assert torch.equal(loss(s, target), want)
    other = lossfit.make(name, reduction="none", ignore_index=-1)
    assert torch.equal(other(s, listed.clamp(min=-1)), want)
    assert torch.equal(loss(s, torch.zeros(4, 0, dtype=torch.int64)), loss(s, torch.zeros(4, 6)))


def test_lists_of_classes_at_positions() -> None:
    s, _ = batch(2, 3, 4)
    listed = torch.full((2, 2, 4), -100)
    listed[0, :, 1] = torch.tensor([2, 0])
    listed[1, 1, 3] = 1
    dense = torch.zeros(2, 3, 4)
    dense[0, [0, 2], 1] = dense[1, 1, 3] = 1
    assert torch.equal(lossfit.ZLPRLoss(reduction="none")(s, listed), lossfit.ZLPRLoss(reduction="none")(s, dense))


@pytest.mark.parametrize(("name", "numbers"), CASES)
@pytest.mark.parametrize("soft", [False, True])
def test_unknown_labels_are_left_out(name: str, numbers: dict, soft: bool) -> None:
    s, t = batch(4, 5, soft=soft)
    unknown = torch.zeros(4, 5, dtype=torch.bool)
    unknown[0, 2] = unknown[1, [0, 4]] = unknown[3] = True
    marked = t.masked_fill(unknown, -100.0)
    scores = s.detach().masked_fill(unknown, math.nan).requires_grad_()
    value = lossfit.make(name, reduction="none", **numbers)(scores, marked)
    for i in range(3):
        kept = ~unknown[i]
        fewer = {k: v[kept] if isinstance(v, Tensor) else v for k, v in numbers.items()}
        torch.testing.assert_close(value[i], lossfit.make(name, **fewer)(s[i : i + 1, kept], t[i : i + 1, kept]))
    assert value[3] == 0
    mean = lossfit.make(name, **numbers)(scores, marked)
    torch.testing.assert_close(mean, value.sum() / 3)
    mean.backward()
    assert (scores.grad[unknown] == 0).all()
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_weights_and_reductions(name: str) -> None:
    s, t = batch(4, 5)
    rows = lossfit.make(name, reduction="none")(s, t)
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5], dtype=torch.float64)
    assert rows.shape == (4,)
    torch.testing.assert_close(lossfit.make(name, reduction="sum")(s, t), rows.sum())
    torch.testing.assert_close(lossfit.make(name)(s, t), rows.mean())
    torch.testing.assert_close(lossfit.make(name)(s, t, sample_weight=weight), (rows * weight).sum() / 3.5)
    torch.testing.assert_close(lossfit.make(name)(s, t, denominator=8), rows.sum() / 8)


def test_sample_weights_can_be_learnt() -> None:
    s, t = batch(4, 5)
    weight = torch.rand(4, dtype=torch.float64, requires_grad=True)
    for name in NAMES:
        loss = lossfit.make(name)
        assert torch.autograd.gradcheck(lambda z, w, loss=loss: loss(z, t, sample_weight=w), (s, weight))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 2), (2, 3, 0)])
def test_empty_batches(name: str, shape: tuple[int, ...]) -> None:
    s = torch.zeros(shape, requires_grad=True)
    value = lossfit.make(name)(s, torch.zeros(shape))
    assert value.item() == 0
    value.backward()
    assert s.grad.shape == shape


@pytest.mark.parametrize("name", NAMES)
def test_masked_classes_have_no_share(name: str) -> None:
    """A class with the score -inf and the label 0 adds nothing."""
    s, t = batch(3, 4)
    scores = torch.cat([s, torch.full((3, 1), -math.inf, dtype=torch.float64)], 1)
    value = lossfit.make(name, reduction="sum")(scores, torch.cat([t, torch.zeros(3, 1)], 1))
    want = lossfit.make(name, reduction="sum")(s, t)
    torch.testing.assert_close(value, want if name == "zlpr" else want * 4 / 5)
    assert torch.autograd.grad(value, s)[0].isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_second_backward_pass_gives_the_same(name: str) -> None:
    s, t = batch(300, 90)
    value = lossfit.make(name)(s, t)
    first = torch.autograd.grad(value, s, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(value, s)[0], first)


@pytest.mark.parametrize("name", NAMES)
def test_transformations(name: str) -> None:
    s, t = batch(3, 4)
    loss = lossfit.make(name)
    want = torch.autograd.grad(loss(s, t), s)[0]
    z = s.detach()
    torch.testing.assert_close(torch.func.grad(loss)(z, t), want)
    both = torch.func.vmap(torch.func.grad(loss))(torch.stack([z, 2 * z]), torch.stack([t, 1 - t]))
    torch.testing.assert_close(both[0], want)
    listed = torch.tensor([[0, -100], [1, 2], [-100, -100]])
    one = torch.func.vmap(loss)(torch.stack([z, 2 * z]), torch.stack([listed, listed]))
    torch.testing.assert_close(one[1], loss(2 * z, listed))


@pytest.mark.parametrize("name", NAMES)
def test_compiles(name: str) -> None:
    s, t = batch(4, 5)
    loss = lossfit.make(name)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    value = compiled(s, t)
    torch.testing.assert_close(value, loss(s, t))
    torch.testing.assert_close(torch.autograd.grad(value, s), torch.autograd.grad(loss(s, t), s))


def test_exponents_can_be_learnt_and_differ_by_row() -> None:
    s, t = batch(4, 3)
    gamma = torch.tensor([0.0, 0.5, 1.0, 3.0], dtype=torch.float64, requires_grad=True)
    value = lossfit.FocalBCELoss(gamma=gamma, reduction="none")(s, t)
    for i, g in enumerate(gamma.tolist()):
        torch.testing.assert_close(value[i], lossfit.FocalBCELoss(gamma=g)(s[i : i + 1], t[i : i + 1]))
    beyond = (gamma.detach() + 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda g: lossfit.FocalBCELoss(gamma=g)(s.detach(), t), beyond)
    slope = torch.autograd.grad(value.sum(), gamma)[0]
    step = lossfit.FocalBCELoss(gamma=1.0 + 1e-6)(s[2:3], t[2:3]) - lossfit.FocalBCELoss(gamma=1.0 - 1e-6)(
        s[2:3], t[2:3]
    )
    assert slope[2].item() == pytest.approx(step.item() / 2e-6, rel=1e-6)
    loss = lossfit.AsymmetricLoss(clip=lambda step: 0.05 * step)
    assert loss.clip == 0
    loss.step()
    torch.testing.assert_close(loss(s, t), lossfit.AsymmetricLoss(clip=0.05)(s, t))


SCORES = st.floats(-500, 500)
LABELS = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))


@given(st.lists(st.tuples(SCORES, LABELS), min_size=1, max_size=6), st.sampled_from(CASES[:2] + CASES[4:]))
@settings(max_examples=150, deadline=None)
def test_any_batch_has_a_finite_loss(pairs: list[tuple[float, float]], case: tuple[str, dict]) -> None:
    scores, labels = zip(*pairs, strict=True)
    for dtype in (torch.float32, torch.float64):
        s = torch.tensor([scores], dtype=dtype, requires_grad=True)
        t = torch.tensor([labels], dtype=dtype)
        loss = lossfit.make(case[0], **case[1])
        value = loss(s, t)
        (grad,) = torch.autograd.grad(value, s)
        assert value >= 0
        assert value.isfinite()
        assert grad.isfinite().all()
        order = torch.randperm(s.shape[1])
        torch.testing.assert_close(loss(s[:, order], t[:, order]), value, rtol=1e-4, atol=1e-6)


@given(st.lists(st.tuples(st.floats(-50, 50), LABELS), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_zlpr_falls_along_its_gradient_and_is_convex(pairs: list[tuple[float, float]]) -> None:
    s, t = torch.tensor(pairs, dtype=torch.float64).T.unsqueeze(1).unbind()
    loss = lossfit.ZLPRLoss()
    other = s.flip(1) + 1
    assert loss((s + other) / 2, t) <= (loss(s, t) + loss(other, t)) / 2 + 1e-12


GOOD = torch.zeros(2, 3)
BAD = [
    ((GOOD.tolist(), GOOD), TypeError, "`input` to be a torch.Tensor, but got list"),
    ((GOOD, [[1, 0, 0]]), TypeError, "`target` to be a torch.Tensor, but got list"),
    ((GOOD.long(), GOOD), TypeError, "`input` to hold floating-point scores, but got torch.int64"),
    ((GOOD[0, 0], GOOD[0, 0]), ValueError, r"`input` of shape \(N, C\).* but got \(\)"),
    ((torch.zeros(2, 0), torch.zeros(2, 0)), ValueError, r"C of at least 1, but got \(2, 0\)"),
    ((GOOD, torch.zeros(2, 4)), ValueError, r"shape of `input`, \(2, 3\), but got \(2, 4\)"),
    ((GOOD, torch.zeros(2)), ValueError, r"shape of `input`, \(2, 3\), but got \(2,\)"),
    ((GOOD, torch.zeros(2, dtype=torch.int64)), ValueError, r"shape \(2, K\).* but got \(2,\)"),
    ((torch.zeros(2, 3, 4), torch.zeros(2, 3, 5).long()), ValueError, r"shape \(2, K, 4\).* but got \(2, 3, 5\)"),
    ((GOOD, torch.zeros(2, 3, dtype=torch.complex64)), TypeError, "labels or class indices, but got torch.complex64"),
    ((GOOD, torch.tensor([[0, 0, 0], [0, 1.5, 0]])), ValueError, r"in \[0, 1\].* but got 1.5 at position \(1, 1\)"),
    ((GOOD, torch.tensor([[0, -0.1, 0], [0, 1, 0]])), ValueError, r"but got -0.1 at position \(0, 1\)"),
    ((GOOD, torch.tensor([[0, math.nan, 0], [0, 1, 0]])), ValueError, r"but got nan at position \(0, 1\)"),
    (
        (GOOD, torch.tensor([[0, 3], [1, -100]])),
        IndexError,
        r"class indices in \[0, 3\).* but got 3 at position \(0, 1\)",
    ),
    ((GOOD, torch.tensor([[0, -1], [1, -100]])), IndexError, r"but got -1 at position \(0, 1\)"),
    ((GOOD, torch.tensor([[0, 0], [1, -100]])), ValueError, r"class 0 is listed 2 times in row \(0,\)"),
    (
        (GOOD, torch.tensor([[0, 2, -100], [0, 0, 1]])),
        ValueError,
        r"hold 0, 1 or prob.* but got 2 at position \(0, 1\)",
    ),
]


@pytest.mark.parametrize("name", ["zlpr", "bce", "focal_bce", "asymmetric"])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_labels_of_the_shape_of_the_scores_are_labels_of_any_type(name: str, classes: int) -> None:
    """Also where they would be a valid list of classes."""
    z, loss = torch.randn(4, classes), lossfit.make(name)
    hot = torch.nn.functional.one_hot(torch.randint(classes, (4,)), classes)
    several = torch.tensor([[0, 1], [1, 0], [1, -100], [0, 1]]).repeat(1, 3)[:, :classes]
    x, weight = torch.randn(4, 3), torch.randn(classes, 3)
    for labels in (hot, several):
        expected, of_features = loss(z, labels.float()), loss.linear(x, weight, labels.float())
        for dtype in (torch.int64, torch.int32, torch.int16, torch.float16, torch.float64):
            torch.testing.assert_close(loss(z, labels.to(dtype)), expected)
            torch.testing.assert_close(loss.linear(x, weight, labels.to(dtype)), of_features)
    listed = torch.full((4, classes + 1), -100)
    listed[:, 0] = hot.argmax(1)
    torch.testing.assert_close(loss(z, listed), loss(z, hot))


@pytest.mark.parametrize("pos_weight", [None, 3.0, torch.tensor(3.0), torch.tensor([3.0])])
def test_one_question_is_that_of_pytorch(pos_weight: float | torch.Tensor | None) -> None:
    z, labels = torch.randn(7, dtype=torch.float64, requires_grad=True), torch.rand(7, dtype=torch.float64).round()
    weight = None if pos_weight is None else torch.as_tensor(pos_weight, dtype=torch.float64)
    for reduction in ("none", "mean", "sum"):
        found = lossfit.BCELoss(pos_weight=pos_weight, reduction=reduction)(z, labels.long())
        expected = torch.nn.BCEWithLogitsLoss(pos_weight=weight, reduction=reduction)(z, labels)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(*(torch.autograd.grad(v.sum(), z)[0] for v in (found, expected)))
    focal = lossfit.FocalBCELoss(gamma=0.0, alpha=None)(z, labels)
    torch.testing.assert_close(focal, torch.nn.functional.binary_cross_entropy_with_logits(z, labels))
    wide = lossfit.BCELoss(pos_weight=pos_weight)(z.view(1, 7), labels.view(1, 7))
    torch.testing.assert_close(wide, torch.nn.BCEWithLogitsLoss(pos_weight=weight)(z, labels))


@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
@pytest.mark.parametrize("name", NAMES)
def test_bad_batches_are_named(name: str, arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lossfit.make(name)(*arguments)


@pytest.mark.parametrize(
    ("name", "numbers", "error", "message"),
    [
        ("focal_bce", {"gamma": -1.0}, ValueError, r"`gamma` in \[0, inf\), but got -1"),
        ("focal_bce", {"alpha": 1.5}, ValueError, r"`alpha` in \[0, 1\], but got 1.5"),
        ("asymmetric", {"gamma_neg": -1.0}, ValueError, r"`gamma_neg` in \[0, inf\), but got -1"),
        ("asymmetric", {"clip": 2.0}, ValueError, r"`clip` in \[0, 1\], but got 2"),
        ("asymmetric", {"clip": torch.tensor(0.1)}, TypeError, "`clip` to be a number .* torch.Tensor"),
        ("bce", {"weight": [1.0]}, ValueError, r"`weight` to be a tensor of shape \(C,\), but got list"),
        ("bce", {"pos_weight": "2"}, TypeError, r"`pos_weight` to be a number, but got str"),
        ("bce", {"pos_weight": torch.tensor([-2.0])}, ValueError, "`pos_weight` to hold no negative"),
        ("zlpr", {"reduction": "avg"}, ValueError, "`reduction` to be one of .* but got 'avg'"),
    ],
)
def test_bad_settings_are_named(name: str, numbers: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lossfit.make(name, **numbers)


def test_weights_for_other_classes_are_named() -> None:
    for name in ("weight", "pos_weight"):
        with pytest.raises(ValueError, match=rf"`{name}` to have one entry per class, \(3,\), but got \(2,\)"):
            lossfit.BCELoss(**{name: torch.ones(2)})(GOOD, GOOD)
