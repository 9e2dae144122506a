"""The n x m losses against their sums written longhand, and what the derivation proves of them."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lossfit

KINDS = ("pairwise", "balanced", "analogy", "centered")
SOLVED = ("pairwise", "balanced")


def batch(samples: int, n: int, m: int, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    share = torch.randn(samples, n, m, dtype=torch.float64).mul(2).softmax(2)
    return (torch.randn(samples, n, m, dtype=torch.float64) * spread).requires_grad_(), share


def longhand(kind: str, s: list[list[float]], t: list[list[float]]) -> float:
    n, m = len(s), len(s[0])
    overlap = [sum(math.sqrt(t[i][j] * t[i][k]) for i in range(n) for k in range(m) if k != j) for j in range(m)]
    total = 0.0
    for j in range(m):
        rivals = [k for k in range(m) if k != j]
        pairs = {k: sum(t[i][j] * math.exp(s[i][k] - s[i][j]) for i in range(n)) for k in rivals}
        if kind == "pairwise":
            total += sum(math.log1p(pairs[k]) for k in rivals)
        elif kind == "centered":
            total += math.log1p(sum(t[i][j] * math.exp(sum(s[i]) / m - s[i][j]) for i in range(n)))
        else:
            weight = 1 / (1 + max(overlap) - overlap[j]) if kind == "balanced" else 1
            total += math.log1p(weight * sum(pairs.values()))
    return total


def dense(kind: str, s: Tensor, t: Tensor) -> Tensor:
    """The same over all pairs in logarithms, differentiated by autograd, (B, n, m) -> (B,)."""
    m = s.shape[2]
    same = torch.eye(m, dtype=torch.bool)
    low = -1e200
    pairs = (t.clamp(min=1e-320).log() - s).masked_fill(t == 0, low).unsqueeze(3) + s.unsqueeze(2)
    pairs = pairs.masked_fill(same, low)
    if kind == "pairwise":
        return torch.logaddexp(pairs.logsumexp(1), torch.zeros(())).masked_fill(same, 0.0).sum((1, 2))
    if kind == "centered":
        terms = (t.clamp(min=1e-320).log() + s.mean(2, keepdim=True) - s).masked_fill(t == 0, low).logsumexp(1)
    else:
        terms = pairs.logsumexp((1, 3))
        if kind == "balanced":
            root = t.sqrt()
            overlap = (root.unsqueeze(3) * root.unsqueeze(2)).masked_fill(same, 0.0).sum((1, 3))
            terms = terms + (1 / (1 + overlap.amax(1, keepdim=True) - overlap)).log()
    return torch.logaddexp(terms, torch.zeros(())).sum(1)


def least(loss: lossfit.MultiWayLoss, t: Tensor, start: Tensor) -> Tensor:
    """The scores where L-BFGS ends."""
    s = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [s], max_iter=2000, tolerance_grad=1e-13, tolerance_change=1e-18, line_search_fn="strong_wolfe"
    )

    def value() -> Tensor:
        optimizer.zero_grad()
        found = loss(s, t)
        found.backward()
        return found

    optimizer.step(value)
    return s.detach()


@pytest.mark.parametrize("kind", KINDS)
def test_value_is_the_sum(kind: str) -> None:
    s, t = batch(3, 5, 4)
    value = lossfit.MultiWayLoss(kind, reduction="none")(s, t)
    want = [longhand(kind, s[i].tolist(), t[i].tolist()) for i in range(3)]
    torch.testing.assert_close(value, torch.tensor(want, dtype=torch.float64), rtol=1e-13, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spread", [0.1, 1.0, 30.0, 300.0, 3000.0])
def test_gradient_at_any_range_with_zeros_and_hard_rows(kind: str, spread: float) -> None:
    s, t = batch(3, 6, 5, spread)
    t[0, 0] = F.one_hot(torch.tensor(2), 5)
    t[0, 1] = torch.tensor([0.5, 0.5, 0.0, 0.0, 0.0])
    t[1] = F.one_hot(torch.tensor([0, 0, 1, 2, 2, 0]), 5)
    value = lossfit.MultiWayLoss(kind, reduction="none")(s, t)
    want = dense(kind, s, t)
    torch.testing.assert_close(value, want, rtol=1e-12, atol=1e-300)
    torch.testing.assert_close(
        torch.autograd.grad(value.sum(), s)[0], torch.autograd.grad(want.sum(), s)[0], rtol=1e-10, atol=1e-13
    )


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_once_and_twice(kind: str) -> None:
    s, t = batch(2, 3, 4)
    loss = lossfit.MultiWayLoss(kind, reduction="none")
    assert torch.autograd.gradcheck(lambda z: loss(z, t), s)
    assert torch.autograd.gradgradcheck(lambda z: loss(z, t), s)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_keeps_digits_far_ahead(kind: str) -> None:
    """A right answer 40 ahead: the loss is about 1e-17, and so is its gradient."""
    s = torch.tensor([[[40.0, 0.0, -1.0]]], requires_grad=True)
    value = lossfit.MultiWayLoss(kind)(s, torch.tensor([[0]]))
    exact = s.detach().double().requires_grad_()
    want = dense(kind, exact, torch.tensor([[[1.0, 0.0, 0.0]]], dtype=torch.float64)).sum()
    assert value.item() == pytest.approx(want.item(), rel=1e-5)
    grads = torch.autograd.grad(value, s)[0], torch.autograd.grad(want, exact)[0].float()
    torch.testing.assert_close(*grads, rtol=1e-5, atol=0)


@pytest.mark.parametrize("spread", [150.0, 1e4, 1e30])
@pytest.mark.parametrize("kind", KINDS)
def test_float32_does_not_overflow(kind: str, spread: float) -> None:
    s = (torch.randn(3, 40, 6) * spread).requires_grad_()
    t = torch.randn(3, 40, 6).softmax(2)
    value = lossfit.MultiWayLoss(kind)(s, t)
    assert value.isfinite()
    assert torch.autograd.grad(value, s)[0].isfinite().all()


@pytest.mark.parametrize("kind", SOLVED)
@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 7, 3), (1, 50, 10), (1, 4, 2)])
def test_the_gradient_is_zero_where_softmax_of_twice_the_scores_is_the_label(kind: str, shape: tuple) -> None:
    _, t = batch(*shape)
    shift = torch.randn(*shape[:2], 1, dtype=torch.float64) * 5
    s = (t.log() / 2 + shift).requires_grad_()
    (grad,) = torch.autograd.grad(lossfit.MultiWayLoss(kind, reduction="sum")(s, t), s)
    assert grad.abs().max() < 1e-12
    nearby = (s.detach() + 1e-3 * torch.randn_like(s)).requires_grad_()
    assert torch.autograd.grad(lossfit.MultiWayLoss(kind, reduction="sum")(nearby, t), nearby)[0].abs().max() > 1e-6


@pytest.mark.parametrize("kind", SOLVED)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_descent_from_anywhere_ends_at_the_labels(kind: str, seed: int) -> None:
    torch.manual_seed(seed)
    start, t = batch(1, 6, 4, spread=3.0 * seed)  # from 0 with seed 0
    loss = lossfit.MultiWayLoss(kind)
    s = least(loss, t, start.detach())
    torch.testing.assert_close(loss.predict(s), t, rtol=0, atol=1e-5)


def test_centered_ends_at_softmax_of_the_scores_and_analogy_elsewhere() -> None:
    start, t = batch(1, 4, 3)
    centered, analogy = lossfit.MultiWayLoss("centered"), lossfit.MultiWayLoss("analogy")
    torch.testing.assert_close(centered.predict(least(centered, t, start.detach())), t, rtol=0, atol=1e-5)
    assert (analogy.predict(least(analogy, t, start.detach())) - t).abs().max() > 0.01


@pytest.mark.parametrize("kind", SOLVED)
def test_labels_with_zeros_are_approached(kind: str) -> None:
    """The infimum is the sum over the logarithms at the closed form, in the limit; it is not attained."""
    t = torch.tensor([[[0.6, 0.4, 0.0], [0.0, 0.0, 1.0], [0.2, 0.3, 0.5], [0.5, 0.0, 0.5]]], dtype=torch.float64)
    loss = lossfit.MultiWayLoss(kind)
    values = [loss(t.clamp(min=e).log() / 2, t).item() for e in (1e-8, 1e-16, 1e-32, 1e-300)]
    root = t[0].sqrt()
    pairs = (root.T @ root).fill_diagonal_(0.0)
    overlap = pairs.sum(1)
    limit = pairs.log1p().sum() if kind == "pairwise" else (overlap / (1 + overlap.max() - overlap)).log1p().sum()
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(limit.item(), abs=1e-12)
    s = least(loss, t, torch.randn_like(t))
    assert limit.item() - 1e-12 <= loss(s, t).item() < limit.item() + 1e-5
    torch.testing.assert_close(loss.predict(s), t, rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", ["pairwise", "balanced", "analogy"])
def test_two_answers_make_zlpr(kind: str) -> None:
    s, t = batch(4, 7, 2, spread=3.0)
    value = lossfit.MultiWayLoss(kind, reduction="none")(s, t)
    want = lossfit.ZLPRLoss(reduction="none")(s[..., 1] - s[..., 0], t[..., 1])
    torch.testing.assert_close(value, want)
    torch.testing.assert_close(torch.autograd.grad(value.sum(), s), torch.autograd.grad(want.sum(), s))


def test_centered_of_two_answers_is_zlpr_of_half_the_scores() -> None:
    s, t = batch(4, 7, 2, spread=3.0)
    value = lossfit.MultiWayLoss("centered", reduction="none")(s, t)
    want = lossfit.ZLPRLoss(reduction="none")((s[..., 1] - s[..., 0]) / 2, t[..., 1])
    torch.testing.assert_close(value, want)


def test_balanced_of_hard_labels_is_analogy() -> None:
    s, _ = batch(3, 6, 4)
    right = torch.randint(4, (3, 6))
    values = [lossfit.MultiWayLoss(kind, reduction="none")(s, right) for kind in ("balanced", "analogy")]
    assert torch.equal(*values)
    soft = F.one_hot(right, 4).double() * 0.96 + 0.01
    soft = [lossfit.MultiWayLoss(kind, reduction="none")(s, soft) for kind in ("balanced", "analogy")]
    assert (soft[0] - soft[1]).abs().min() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", [torch.int64, torch.int32, torch.uint8])
def test_indices_are_one_hot_probabilities(kind: str, target: torch.dtype) -> None:
    s, _ = batch(3, 6, 4)
    right = torch.randint(4, (3, 6))
    loss = lossfit.MultiWayLoss(kind)
    torch.testing.assert_close(loss(s, right.to(target)), loss(s, F.one_hot(right, 4).float()))


def test_one_question_of_two_answers_is_cross_entropy_of_hard_labels() -> None:
    s, _ = batch(5, 1, 2)
    right = torch.tensor([0, 1, 1, 0, 1])
    value = lossfit.MultiWayLoss()(s, right.unsqueeze(1))
    torch.testing.assert_close(value, F.cross_entropy(s[:, 0], right))


def shared(kind: str, counts: list[int]) -> Tensor:
    """What is predicted where all questions share their scores and answer j is right in counts[j] of them."""
    right = torch.repeat_interleave(torch.tensor(counts)).unsqueeze(0)
    loss = lossfit.MultiWayLoss(kind)
    s = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [s], max_iter=1000, tolerance_grad=1e-13, tolerance_change=1e-18, line_search_fn="strong_wolfe"
    )

    def value() -> Tensor:
        optimizer.zero_grad()
        found = loss(s.expand(1, right.shape[1], 3), right)
        found.backward()
        return found

    optimizer.step(value)
    return loss.predict(s.detach())


@pytest.mark.parametrize("counts", [[7, 2, 1], [70, 20, 10], [700, 200, 100]])
def test_drawn_labels_give_the_distribution_back(counts: list[int]) -> None:
    want = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    for kind in ("pairwise", "centered"):
        torch.testing.assert_close(shared(kind, counts), want, rtol=0, atol=1e-6)


def test_drawn_labels_of_single_questions_are_given_back_by_softmax_of_the_scores() -> None:
    """The mean over samples stands outside of the logarithms: the factor 2 is lost."""
    counts = torch.tensor([7, 2, 1])
    right = torch.repeat_interleave(counts).unsqueeze(1)
    s = (counts.double() / 10).log().requires_grad_()
    (grad,) = torch.autograd.grad(lossfit.MultiWayLoss()(s.expand(10, 1, 3), right), s)
    assert grad.abs().max() < 1e-15


@pytest.mark.parametrize(
    ("counts", "predicted"),
    [
        ([7, 2, 1], [0.499, 0.293, 0.207]),
        ([70, 20, 10], [0.359, 0.334, 0.307]),
        ([700, 200, 100], [0.336, 0.334, 0.330]),
    ],
)
def test_balanced_forgets_the_distribution_of_drawn_labels(counts: list[int], predicted: list[float]) -> None:
    want = torch.tensor(predicted, dtype=torch.float64)
    torch.testing.assert_close(shared("balanced", counts), want, rtol=0, atol=6e-4)


def test_centered_is_content_with_a_wrong_answer() -> None:
    s = torch.tensor([[[10.0, 11.0, -21.0]]], dtype=torch.float64)
    right = torch.tensor([[0]])
    assert s.argmax() == 1
    assert lossfit.MultiWayLoss("centered")(s, right).item() == pytest.approx(4.54e-5, rel=1e-3)
    for kind in ("pairwise", "balanced", "analogy"):
        assert lossfit.MultiWayLoss(kind)(s, right) > 1.3


def test_pairwise_stays_balanced_where_labels_are_soft() -> None:
    """Of 1000 questions, the share of the pull at equal scores that each answer's own labels have."""
    counts = [800, 150, 30, 15, 5]
    right = torch.repeat_interleave(torch.tensor(counts))
    t = (F.one_hot(right, 5).double() * 0.99 + 0.01 / 5).unsqueeze(0)
    shares = {}
    for kind in ("pairwise", "balanced", "analogy"):
        s = torch.zeros(1, 1000, 5, dtype=torch.float64, requires_grad=True)
        (grad,) = torch.autograd.grad(lossfit.MultiWayLoss(kind)(s, t), s)
        own = grad[0].gather(1, right.unsqueeze(1)).squeeze(1).abs()
        mass = torch.zeros(5, dtype=torch.float64).scatter_add(0, right, own)
        shares[kind] = mass / mass.sum()
    assert (shares["pairwise"] > 0.1).all()
    assert shares["balanced"][-1] < shares["pairwise"][-1] / 2
    assert shares["balanced"][0] > 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_ignored_questions_are_as_if_left_out(kind: str) -> None:
    s, t = batch(3, 5, 4)
    right = torch.randint(4, (3, 5))
    ignored = torch.zeros(3, 5, dtype=torch.bool)
    ignored[0, 1] = ignored[1, [0, 4]] = ignored[2] = True
    scores = s.detach().masked_fill(ignored.unsqueeze(2), math.nan).requires_grad_()
    loss = lossfit.MultiWayLoss(kind, reduction="none")
    for target in (right.masked_fill(ignored, -100), t.masked_fill(ignored.unsqueeze(2), -100.0)):
        value = loss(scores, target)
        for i in range(2):
            kept = ~ignored[i]
            torch.testing.assert_close(value[i], loss(s[i : i + 1, kept], target[i : i + 1, kept])[0])
        assert value[2] == 0
        (grad,) = torch.autograd.grad(lossfit.MultiWayLoss(kind)(scores, target), scores)
        assert (grad[ignored] == 0).all()
        assert grad.isfinite().all()
        torch.testing.assert_close(lossfit.MultiWayLoss(kind)(scores, target), value.sum() / 2)
    other = lossfit.MultiWayLoss(kind, reduction="none", ignore_index=9)
    torch.testing.assert_close(
        other(scores, right.masked_fill(ignored, 9)), loss(scores, right.masked_fill(ignored, -100))
    )


@pytest.mark.parametrize("kind", ["pairwise", "balanced", "analogy"])
def test_masked_answers_have_no_share(kind: str) -> None:
    s, t = batch(2, 4, 3)
    loss = lossfit.MultiWayLoss(kind, reduction="none")
    masked = torch.cat([s, torch.full((2, 4, 1), -math.inf, dtype=torch.float64)], 2)
    value = loss(masked, torch.cat([t, torch.zeros(2, 4, 1)], 2))
    torch.testing.assert_close(value, loss(s, t))
    assert torch.autograd.grad(value.sum(), s)[0].isfinite().all()


def test_weights_and_reductions() -> None:
    s, t = batch(4, 3, 5)
    rows = lossfit.MultiWayLoss(reduction="none")(s, t)
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5], dtype=torch.float64)
    assert rows.shape == (4,)
    torch.testing.assert_close(lossfit.MultiWayLoss(reduction="sum")(s, t), rows.sum())
    torch.testing.assert_close(lossfit.MultiWayLoss()(s, t, sample_weight=weight), (rows * weight).sum() / 3.5)
    torch.testing.assert_close(lossfit.MultiWayLoss()(s, t, denominator=8), rows.sum() / 8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4)])
def test_empty_batches(kind: str, shape: tuple[int, ...]) -> None:
    s = torch.zeros(shape, requires_grad=True)
    for target in (torch.zeros(shape), torch.zeros(shape[:2], dtype=torch.int64)):
        value = lossfit.MultiWayLoss(kind)(s, target)
        assert value.item() == 0
        value.backward()
        assert s.grad.shape == shape


def test_one_answer_alone_costs_nothing() -> None:
    for kind in ("pairwise", "balanced", "analogy"):
        s = torch.randn(2, 3, 1, requires_grad=True)
        value = lossfit.MultiWayLoss(kind)(s, torch.zeros(2, 3, dtype=torch.int64))
        assert value.item() == 0
        assert (torch.autograd.grad(value, s)[0] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_transformations_and_compilation(kind: str) -> None:
    s, t = batch(2, 4, 3)
    loss = lossfit.MultiWayLoss(kind)
    want = torch.autograd.grad(loss(s, t), s)[0]
    z = s.detach()
    torch.testing.assert_close(torch.func.grad(loss)(z, t), want)
    both = torch.func.vmap(torch.func.grad(loss))(torch.stack([z, 2 * z]), torch.stack([t, t]))
    torch.testing.assert_close(both[0], want)
    right = torch.randint(3, (2, 2, 4))
    torch.testing.assert_close(torch.func.vmap(loss)(torch.stack([z, z]), right)[1], loss(z, right[1]))
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(s, t), loss(s, t))


def test_labels_are_constants() -> None:
    s, t = batch(2, 3, 4)
    with pytest.raises(ValueError, match="`target` without a gradient"):
        lossfit.MultiWayLoss()(s, t.requires_grad_())


NUMBERS = st.lists(st.lists(st.floats(-200, 200), min_size=3, max_size=3), min_size=1, max_size=5)


@given(NUMBERS, NUMBERS, st.integers(0, 2**31), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_convex_and_blind_to_shifts(one: list, other: list, seed: int, at: float) -> None:
    n = min(len(one), len(other))
    a, b = torch.tensor([one[:n]], dtype=torch.float64), torch.tensor([other[:n]], dtype=torch.float64)
    t = torch.randn(1, n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).mul(3).softmax(2)
    for kind in KINDS:
        loss = lossfit.MultiWayLoss(kind)
        between, ends = loss(at * a + (1 - at) * b, t), at * loss(a, t) + (1 - at) * loss(b, t)
        assert between <= ends + 1e-10 * (1 + ends)
        assert between >= 0
        torch.testing.assert_close(loss(a + torch.randn(1, n, 1).double(), t), loss(a, t), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["pairwise", "balanced", "analogy", "centered"])
def test_curved_in_every_direction_but_the_shifts(kind: str) -> None:
    s, t = batch(1, 4, 3)
    curvature = torch.func.hessian(lambda z: lossfit.MultiWayLoss(kind)(z.view(1, 4, 3), t))(s.detach().flatten())
    eigenvalues = torch.linalg.eigvalsh(curvature)
    assert (eigenvalues > -1e-12).all()
    assert (eigenvalues < 1e-10).sum() == 4


GOOD = torch.zeros(2, 3, 4)
RIGHT = torch.zeros(2, 3, dtype=torch.int64)


def with_entry(value: float) -> Tensor:
    t = torch.full((2, 3, 4), 0.25)
    t[1, 2, 0] = value
    return t


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((GOOD.tolist(), RIGHT), TypeError, "`input` to be a torch.Tensor, but got list"),
        ((GOOD, [[0]]), TypeError, "`target` to be a torch.Tensor, but got list"),
        ((GOOD.long(), RIGHT), TypeError, "`input` to hold floating-point scores, but got torch.int64"),
        ((GOOD[0], RIGHT), ValueError, r"`input` of shape \(B, n, m\).* but got \(3, 4\)"),
        ((torch.zeros(2, 3, 0), RIGHT), ValueError, r"m of at least 1, but got \(2, 3, 0\)"),
        ((GOOD, RIGHT[:1]), ValueError, r"indices of answers, of shape \(2, 3\) .* but got \(1, 3\)"),
        ((GOOD, GOOD[:, :, :2]), ValueError, r"probabilities, of shape \(2, 3, 4\) .* but got \(2, 3, 2\)"),
        ((GOOD, GOOD.bool()), TypeError, "indices of answers or probabilities, but got torch.bool"),
        ((GOOD, RIGHT + 4), IndexError, r"class indices in \[0, 4\) .* but got 4 at position \(0, 0\)"),
        ((GOOD, with_entry(0.3)), ValueError, r"sum to 1 .* at question \(1, 2\) \(sum 1.05; 1 of 6 questions"),
        ((GOOD, with_entry(-0.25)), ValueError, r"not negative .* at question \(1, 2\)"),
        ((GOOD, with_entry(math.nan)), ValueError, r"at question \(1, 2\) \(sum nan"),
        ((GOOD, with_entry(-100.0)), ValueError, r"at question \(1, 2\)"),
    ],
)
def test_bad_batches_are_named(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lossfit.MultiWayLoss()(*arguments)


def test_rounded_probabilities_are_taken() -> None:
    assert lossfit.MultiWayLoss()(GOOD, with_entry(0.2504)).isfinite()
    thirds = torch.full((2, 3, 3), 1 / 3, dtype=torch.bfloat16)
    assert lossfit.MultiWayLoss()(GOOD[..., :3], thirds).isfinite()


def test_unknown_kinds_are_named() -> None:
    with pytest.raises(ValueError, match=r"`kind` to be one of .* but got 'balance'. Did you mean 'balanced'"):
        lossfit.MultiWayLoss("balance")
