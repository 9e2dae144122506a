"""Laws that hold for every loss of the registry, in its default and in other settings."""

import copy
import inspect
import math
import pickle
import re
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

import lossfit
from helpers import (
    INF,
    PATHS,
    REQUIRED,
    build,
    case_id,
    every_case,
    has_second_derivative,
    number_settings,
    promises_value_gradient,
    with_numbers,
)

CASES = every_case()
Case = tuple[str, dict[str, object]]
N, C, D1, D2 = 5, 4, 3, 2
SHAPES = [(N, C), (N, C, D1), (N, C, D1, D2)]


@pytest.fixture(params=CASES, ids=case_id)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def make(case: Case, **common: object) -> lossfit.SingleLabelLoss:
    name, settings = case
    return build(name, **{**settings, **common})


def scores(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return 2 * torch.randn(*(shape or (N, C)), dtype=dtype)


def targets(shape: tuple[int, ...] = (N, C)) -> torch.Tensor:
    return torch.randint(shape[1], (shape[0], *shape[2:]))


def weights(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64) + 0.5


def close(case: Case, found: torch.Tensor, expected: torch.Tensor) -> None:
    """EXACT is an integral of 1e-9 precision; what others compute in two ways differs by rounding only."""
    rtol, atol = (1e-7, 1e-9) if case[0] == "exact" else (1e-11, 1e-13)
    assert_close(found, expected, rtol=rtol, atol=atol)


def steps(case: Case) -> dict[str, Any]:
    """How ``gradcheck`` looks: at EXACT, where each step is an integral, along one direction that is no axis."""
    return {"eps": 1e-4, "fast_mode": True} if case[0] == "exact" else {}


def gradient(value: torch.Tensor, *of: torch.Tensor, **options: object) -> torch.Tensor:
    return torch.autograd.grad(value.sum(), of, **options)[0]


class TestReduction:
    """Rows to a number."""

    @pytest.mark.parametrize("shape", SHAPES)
    def test_none_has_the_shape_of_the_rows(self, case: Case, shape: tuple[int, ...]) -> None:
        z, y = scores(*shape), targets(shape)
        for target in (y, torch.rand(shape, dtype=torch.float64)):
            assert make(case, reduction="none")(z, target).shape == y.shape
            assert make(case, reduction="none", label_smoothing=0.1)(z, target).shape == y.shape
            assert make(case)(z, target).shape == ()

    def test_no_batch_dimension(self, case: Case) -> None:
        z, y = scores(1, C), targets((1, C))
        for reduction in ("none", "sum", "mean"):
            loss = make(case, reduction=reduction, weight=weights(C))
            for target in (y, torch.rand(1, C, dtype=torch.float64)):
                alone = loss(z[0], target[0], sample_weight=torch.tensor(2.0))
                assert alone.shape == ()
                close(case, alone, loss(z, target, sample_weight=torch.tensor([2.0])).squeeze())

    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    @pytest.mark.parametrize("shape", SHAPES[:2])
    def test_sum_and_mean_are_those_of_the_rows(
        self, case: Case, weighted: bool, smoothing: float, shape: tuple[int, ...]
    ) -> None:
        z, y = scores(*shape), targets(shape)
        w, s = (weights(C), weights(N)) if weighted else (None, None)
        common = {"weight": w, "label_smoothing": smoothing}
        rows = make(case, reduction="none", **common)(z, y, sample_weight=s)
        close(case, make(case, reduction="sum", **common)(z, y, sample_weight=s), rows.sum())
        mass = torch.ones(y.shape, dtype=torch.float64)
        if weighted:
            mass = w[y] * s.view(-1, *(1,) * (y.ndim - 1))
        close(case, make(case, **common)(z, y, sample_weight=s), rows.sum() / mass.sum())
        for denominator in (7.5, torch.tensor(7.5, dtype=torch.float64)):
            found = make(case, **common)(z, y, sample_weight=s, denominator=denominator)
            close(case, found, rows.sum() / 7.5)

    def test_the_mean_over_probabilities_is_over_rows(self, case: Case) -> None:
        z, q, w, s = scores(), weights(N, C), weights(C), weights(N)
        rows = make(case, reduction="none", weight=w)(z, q)
        close(case, make(case, weight=w)(z, q), rows.mean())
        weighted = make(case, reduction="none", weight=w)(z, q, sample_weight=s)
        close(case, weighted, rows * s)
        close(case, make(case, weight=w)(z, q, sample_weight=s), weighted.sum() / s.sum())

    def test_class_and_sample_weights_multiply_the_rows(self, case: Case) -> None:
        shape = (N, C, D1)
        z, y, w = scores(*shape), targets(shape), weights(C)
        rows = make(case, reduction="none")(z, y)
        close(case, make(case, reduction="none", weight=w)(z, y), w[y] * rows)
        for s in (weights(N), weights(N, D1)):
            expected = s.view(N, -1) * rows
            close(case, make(case, reduction="none")(z, y, sample_weight=s), expected)
            close(case, make(case, reduction="none", weight=w)(z, y, sample_weight=s), w[y] * expected)

    def test_sample_weights_may_learn(self, case: Case) -> None:
        z, y, s = scores(), targets(), weights(N).requires_grad_()
        rows = make(case, reduction="none")(z, y)
        found = gradient(make(case, reduction="sum")(z, y, sample_weight=s), s)
        close(case, found, rows)

    def test_zero_rows(self, case: Case) -> None:
        z = torch.zeros(0, C, requires_grad=True)
        for target in (torch.zeros(0, dtype=torch.int64), torch.zeros(0, C)):
            for reduction, smoothing in (("none", 0.0), ("sum", 0.1), ("mean", 0.0), ("mean", 0.1)):
                loss = make(case, reduction=reduction, label_smoothing=smoothing, weight=torch.ones(C))(z, target)
                assert loss.shape == ((0,) if reduction == "none" else ())
                assert loss.sum().item() == 0
                assert gradient(loss, z).shape == (0, C)


class TestIgnoredRows:
    """They count for nothing, wherever they stand and whatever they hold."""

    @pytest.mark.parametrize("ignore_index", [-100, 2])
    @pytest.mark.parametrize("where", [[0], [1, 2, 4]])
    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    def test_no_loss_and_no_gradient(self, case: Case, ignore_index: int, where: list[int], smoothing: float) -> None:
        z, y, w = scores(), torch.tensor([0, 1, 3, 1, 0]), weights(C)
        kept = [i for i in range(N) if i not in where]
        common = {"weight": w, "label_smoothing": smoothing}
        before = z[kept].clone().requires_grad_()
        loss = make(case, **common)(before, y[kept])
        expected = gradient(loss, before)
        y[where] = ignore_index
        for junk in (1.0, math.nan, INF, -INF):
            z[where] = junk
            x = z.clone().requires_grad_()
            rows = make(case, reduction="none", ignore_index=ignore_index, **common)(x, y)
            assert (rows[where] == 0).all()
            mean = make(case, ignore_index=ignore_index, **common)(x, y)
            close(case, mean, loss)
            grad = gradient(mean, x)
            assert (grad[where] == 0).all()
            close(case, grad[kept], expected)

    @pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    def test_all_ignored(self, case: Case, reduction: str, smoothing: float) -> None:
        z = scores().requires_grad_()
        loss = make(case, reduction=reduction, label_smoothing=smoothing, weight=weights(C))(z, torch.full((N,), -100))
        assert (loss == 0).all()
        assert not gradient(loss, z).any()

    def test_at_positions_with_sample_weights(self, case: Case) -> None:
        shape = (N, C, D1)
        z, y, s = scores(*shape), targets(shape), weights(N)
        rows = make(case, reduction="none")(z, y)
        y[2, 1] = y[4, 2] = -100
        z[2, :, 1] = math.nan
        valid = y != -100
        mass = s[:, None].expand(N, D1)[valid].sum()
        found = make(case)(z, y, sample_weight=s)
        close(case, found, (s[:, None] * rows)[valid].sum() / mass)


class TestCallers:
    """What the caller passes in is left alone."""

    @pytest.mark.parametrize("recorded", [False, True])
    def test_inputs_and_grad_mode_are_unchanged(self, case: Case, recorded: bool) -> None:
        given = {"z": scores(), "y": targets(), "q": weights(N, C), "s": weights(N), "w": weights(C), "p": weights(C)}
        given["y"][1] = -100
        before = {key: value.clone() for key, value in given.items()}
        z = given["z"].requires_grad_(recorded)
        loss = make(case, weight=given["w"], class_prior=given["p"], temperature=2.0)
        plain = make(case)
        with torch.set_grad_enabled(recorded):
            for target in (given["y"], given["q"]):
                for value in (loss(z, target, sample_weight=given["s"]), plain(z, target)):
                    assert value.requires_grad == recorded
                    if recorded:
                        value.backward()
            assert torch.is_grad_enabled() == recorded
        for key, value in given.items():
            assert torch.equal(value.detach(), before[key])

    def test_a_second_backward_gives_the_same(self, case: Case) -> None:
        z = scores().requires_grad_()
        loss = make(case)(z, targets())
        first = gradient(loss, z, retain_graph=True)
        up = torch.tensor(3.0, dtype=torch.float64)
        again = torch.autograd.grad(loss, z, up)[0]
        close(case, again, 3 * first)


class TestSymmetries:
    """Rows and classes have no order, scores no origin, and a target may be given in several ways."""

    def test_rows_commute(self, case: Case) -> None:
        z, y, order = scores(), targets(), torch.randperm(N)
        loss = make(case, reduction="none", label_smoothing=0.1)
        close(case, loss(z[order], y[order]), loss(z, y)[order])
        close(case, make(case)(z[order], y[order]), make(case)(z, y))

    def test_classes_commute(self, case: Case) -> None:
        z, y, q = scores(), targets(), weights(N, C)
        w, prior, order = weights(C), weights(C), torch.randperm(C)
        for smoothing in (0.0, 0.1):
            loss = make(case, weight=w, class_prior=prior, label_smoothing=smoothing)
            permuted = make(case, weight=w[order], class_prior=prior[order], label_smoothing=smoothing)
            close(case, permuted(z[:, order], order.argsort()[y]), loss(z, y))
            close(case, permuted(z[:, order], q[:, order]), loss(z, q))

    def test_positions_are_rows(self, case: Case) -> None:
        shape = (N, C, D1, D2)
        z, y, q = scores(*shape), targets(shape), weights(*shape)
        loss = make(case, reduction="none", label_smoothing=0.1, weight=weights(C))
        for i, j in ((0, 0), (2, 1)):
            close(case, loss(z, y)[:, i, j], loss(z[:, :, i, j], y[:, i, j]))
            close(case, loss(z, q)[:, i, j], loss(z[:, :, i, j], q[:, :, i, j]))

    @pytest.mark.parametrize("weighted", [False, True])
    def test_an_index_is_a_one_hot_target(self, case: Case, weighted: bool) -> None:
        shape = (N, C, D1)
        y = targets(shape)
        one_hot = torch.nn.functional.one_hot(y, C).movedim(-1, 1).double()
        loss = make(case, reduction="none", weight=weights(C) if weighted else None)
        z = scores(*shape).requires_grad_()
        by_index, by_share = loss(z, y), loss(z, one_hot)
        close(case, by_share, by_index)
        close(case, gradient(by_share, z), gradient(by_index, z))

    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("shape", SHAPES[:2])
    def test_smoothing_is_a_soft_target(self, case: Case, weighted: bool, shape: tuple[int, ...]) -> None:
        y, eps = targets(shape), 0.3
        share = (1 - eps) * torch.nn.functional.one_hot(y, C).movedim(-1, 1).double() + eps / C
        w = weights(C) if weighted else None
        z = scores(*shape).requires_grad_()
        smooth = make(case, reduction="none", weight=w, label_smoothing=eps)(z, y)
        soft = make(case, reduction="none", weight=w)(z, share)
        close(case, smooth, soft)
        close(case, gradient(smooth, z), gradient(soft, z))

    def test_a_soft_target_is_a_weighted_sum_over_classes(self, case: Case) -> None:
        z, q, w, eps = scores(), weights(N, C), weights(C), 0.3
        each = torch.stack([make(case, reduction="none")(z, torch.full((N,), c)) for c in range(C)], 1)
        close(case, make(case, reduction="none", weight=w)(z, q), (q * w * each).sum(1))
        smoothed = (1 - eps) * q + eps / C
        found = make(case, reduction="none", weight=w, label_smoothing=eps)(z, q)
        close(case, found, (smoothed * w * each).sum(1))

    @pytest.mark.parametrize("shift", [-50.0, 3.7, 400.0])
    def test_adding_a_number_to_all_scores_changes_nothing(self, case: Case, shift: float) -> None:
        z, y, q = scores(), targets(), weights(N, C)
        for target in (y, q):
            expected = make(case, label_smoothing=0.1)(z, target)
            rtol = 1e-7 if case[0] == "exact" else 1e-11
            assert_close(make(case, label_smoothing=0.1)(z + shift, target), expected, rtol=rtol, atol=0)

    def test_a_masked_rival_is_as_good_as_removed(self, case: Case) -> None:
        z, y = scores(), torch.tensor([0, 1, 3, 1, 0])
        masked = z.index_fill(1, torch.tensor([2]), -INF).requires_grad_()
        fewer = z[:, [0, 1, 3]].requires_grad_()
        loss = make(case, reduction="none")
        found, expected = loss(masked, y), loss(fewer, torch.tensor([0, 1, 2, 1, 0]))
        close(case, found, expected)
        grad = gradient(found, masked)
        assert not grad[:, 2].any()
        close(case, grad[:, [0, 1, 3]], gradient(expected, fewer))

    def test_one_class_has_nothing_to_learn(self, case: Case) -> None:
        z = scores(N, 1).requires_grad_()
        rows = make(case, reduction="none")(z, torch.zeros(N, dtype=torch.int64))
        assert rows.isfinite().all()
        assert not gradient(rows, z).any()

    def test_memory_layout_does_not_matter(self, case: Case) -> None:
        z, y = scores(N, C, D1), targets((N, C, D1))
        expected = make(case)(z, y)
        close(case, make(case)(z.movedim(1, -1).contiguous().movedim(-1, 1), y), expected)
        wide = z.repeat_interleave(2, 1)[:, ::2]
        close(case, make(case)(wide, y), expected)
        same = z[:1].expand(N, C, D1)
        close(case, make(case)(same, y), make(case)(same.contiguous(), y))


def promised(case: Case, loss: lossfit.SingleLabelLoss, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Rows whose derivative is the designed gradient: a weight that is held fixed times cross-entropy."""
    log_p = z.log_softmax(1).gather(1, y.unsqueeze(1)).squeeze(1)
    p = log_p.exp().detach()
    if case[0] == "sensitivity":
        return -REQUIRED["sensitivity"]["sensitivity"](p) * p * log_p
    return -(p / (loss.gamma + (1 - loss.gamma) * p)).clamp(min=loss.floor) * log_p


class TestGradients:
    """They are those of the value, or those that were designed."""

    @pytest.mark.parametrize("common", [{}, {"label_smoothing": 0.2}, {"temperature": 1.7}, {"ignore_index": 1}])
    def test_of_class_indices(self, case: Case, common: dict[str, object]) -> None:
        shape = (N, C) if case[0] == "exact" else (3, C, 2)
        z, y, w, s = scores(*shape).requires_grad_(), targets(shape), weights(C), weights(shape[0])
        loss = make(case, weight=w, reduction="none", **common)
        if promises_value_gradient(*case):
            assert gradcheck(lambda z: loss(z, y, sample_weight=s), z, **steps(case), atol=1e-6, rtol=1e-5)
        elif not common:
            expected = w[y] * s.view(-1, *(1,) * (y.ndim - 1)) * promised(case, loss, z, y)
            close(case, loss(z, y, sample_weight=s), expected)
            close(case, gradient(loss(z, y, sample_weight=s), z), gradient(expected, z))

    def test_of_probabilities(self, case: Case) -> None:
        rows = 2 if case[0] == "exact" else N
        z, q = scores(rows, C).requires_grad_(), weights(rows, C).requires_grad_()
        loss = make(case, weight=weights(C), label_smoothing=0.1)
        if promises_value_gradient(*case):
            assert gradcheck(loss, (z, q), **steps(case), atol=1e-6, rtol=1e-5)
        else:
            every = [make(case, reduction="none")(z, torch.full((rows,), c)) for c in range(C)]
            share = (0.9 * q + 0.1 / C) * loss.weight
            close(case, gradient(loss(z, q), z), gradient((share * torch.stack(every, 1)).sum(1).mean(), z))

    def test_of_second_order(self, case: Case) -> None:
        z, y, q = scores().requires_grad_(), targets(), weights(N, C)
        y[1] = -100
        loss = make(case, weight=weights(C))
        if not has_second_derivative(*case):
            first = gradient(loss(z, y), z, create_graph=True)
            with pytest.raises(NotImplementedError, match="no second derivative"):
                first.sum().backward()
        elif promises_value_gradient(*case):
            assert gradgradcheck(lambda z: loss(z, y), z)
            assert gradgradcheck(lambda z: loss(z, q), z)

    @pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_one_node_is_the_same_as_stages(self, case: Case, reduction: str, shape: tuple[int, ...]) -> None:
        """Without create_graph the gradient takes a short way."""
        y, s = targets(shape), weights(N)
        y.view(-1)[3] = -100
        z = scores(*shape).requires_grad_()
        numbers = {
            k: torch.full((), v, dtype=torch.float64).requires_grad_() for k, v in number_settings(*case).items()
        }
        loss = with_numbers(*case, numbers, weight=weights(C), reduction=reduction)
        wanted = (z, *numbers.values()) if not case[1].get("floor") else (z,)
        if case[1].get("floor"):
            loss = make(case, weight=loss.weight, reduction=reduction)
        short, staged = loss(z, y, sample_weight=s), loss(z, y, sample_weight=s)
        up = torch.randn(short.shape, dtype=torch.float64)
        found = torch.autograd.grad(short, wanted, up)
        expected = torch.autograd.grad(staged, wanted, up, create_graph=True)
        for one, other in zip(found, expected, strict=True):
            close(case, one, other)

    def test_far_out_they_are_finite(self, case: Case) -> None:
        if case[0] == "exponential_margin":
            pytest.skip("it overflows, as documented")
        z = (1e4 * torch.randn(40, C)).requires_grad_()
        y = torch.randint(C, (40,))
        for target in (y, torch.rand(40, C)):
            loss = make(case)(z, target)
            assert loss.isfinite()
            assert gradient(loss, z).isfinite().all()

    def test_a_target_at_minus_infinity_has_a_finite_gradient(self, case: Case) -> None:
        if case[0] in ("exponential_margin", "hinge") and case[1].get("squared", case[0] != "hinge"):
            pytest.skip("its slope is infinite there")
        z, y = scores(), targets()
        z[range(N), y] = -INF
        z.requires_grad_()
        rows = make(case, reduction="none")(z, y)
        assert not rows.isnan().any()
        assert gradient(rows, z).isfinite().all()


class TestPrecisions:
    """Half precision is computed in float32."""

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_is_as_good_as_its_input(self, case: Case, dtype: torch.dtype) -> None:
        z, y, q = scores(20, 9).to(dtype).requires_grad_(), torch.randint(9, (20,)), torch.rand(20, 9)
        exact = z.detach().double().requires_grad_()
        eps = torch.finfo(dtype).eps
        for target in (y, q.to(dtype)):
            of_exact = target.double() if target.is_floating_point() else target
            found, expected = make(case, reduction="none")(z, target), make(case, reduction="none")(exact, of_exact)
            assert found.dtype == torch.float32
            assert_close(found.double(), expected, rtol=2e-5, atol=1e-6)
            grad = gradient(found, z)
            assert grad.dtype == dtype
            truth = gradient(expected, exact)
            assert_close(grad.double(), truth, rtol=2 * eps, atol=eps * truth.abs().max().item())

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_cross_entropy_is_no_worse_than_that_of_pytorch(self, dtype: torch.dtype) -> None:
        z, y = (5 * scores(50, 30)).to(dtype), torch.randint(30, (50,))
        truth = torch.nn.functional.cross_entropy(z.double(), y, reduction="none")
        baseline = torch.nn.functional.cross_entropy(z, y, reduction="none").double() - truth
        found = lossfit.CrossEntropyLoss(reduction="none")(z, y).double() - truth
        assert (found.abs() <= baseline.abs() + 1e-5).all()

    def test_autocast_changes_nothing(self, case: Case) -> None:
        z, y = scores(dtype=torch.float32), targets()
        for target in (y, torch.rand(N, C)):
            expected = make(case)(z, target)
            with torch.autocast("cpu", torch.bfloat16):
                found = make(case)(z, target)
            assert found.dtype == torch.float32
            assert_close(found, expected)


class TestTransformations:
    """torch.func, and many gradients at once."""

    def test_grad_and_vmap(self, case: Case) -> None:
        z, y = scores(3, N, C), torch.randint(C, (3, N))
        y[1, 2] = -100
        loss = make(case, weight=weights(C))
        expected = []
        for i in range(3):
            x = z[i].clone().requires_grad_()
            value = loss(x, y[i])
            expected.append((value.detach(), gradient(value, x)))
        close(case, torch.func.vmap(loss)(z, y), torch.stack([v for v, _ in expected]))
        close(case, torch.func.grad(loss)(z[0], y[0]), expected[0][1])
        close(case, torch.func.vmap(torch.func.grad(loss))(z, y), torch.stack([g for _, g in expected]))
        over = torch.func.grad(lambda z: torch.func.vmap(loss)(z, y).sum())(z)
        close(case, over, torch.stack([g for _, g in expected]))

    def test_many_gradients_at_once(self, case: Case) -> None:
        z, y = scores().requires_grad_(), targets()
        rows = make(case, reduction="none", weight=weights(C))(z, y)
        up = torch.randn(3, N, dtype=torch.float64)
        found = torch.autograd.grad(rows, z, up, is_grads_batched=True, retain_graph=True)[0]
        for i in range(3):
            close(case, found[i], torch.autograd.grad(rows, z, up[i], retain_graph=True)[0])

    def test_checkpoint(self, case: Case) -> None:
        z, y = scores().requires_grad_(), targets()
        loss = torch.utils.checkpoint.checkpoint(make(case), z, y, use_reentrant=False)
        close(case, gradient(loss, z), gradient(make(case)(z, y), z))

    @pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch does it
    @pytest.mark.parametrize(
        "case",
        [pytest.param(case, id=case_id(case), marks=[pytest.mark.slow] * (case not in PATHS)) for case in CASES],
    )
    def test_compiled_is_eager(self, case: Case) -> None:
        torch._dynamo.reset()
        z, y, s = scores().requires_grad_(), targets(), weights(N)
        y[1] = -100
        loss = make(case, weight=weights(C))
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(z, y, sample_weight=s)
        eager = loss(z, y, sample_weight=s)
        close(case, compiled, eager)
        close(case, gradient(compiled, z), gradient(eager, z))

    @pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch does it
    @pytest.mark.parametrize("case", PATHS, ids=case_id)
    def test_compiled_with_every_kind_of_target_and_at_validation(self, case: Case) -> None:
        torch._dynamo.reset()
        z, y, q = scores().requires_grad_(), targets(), weights(N, C)
        y[1] = -100
        plain, smooth = make(case, weight=weights(C)), make(case, label_smoothing=0.1, temperature=2.0)

        def total(z: torch.Tensor) -> torch.Tensor:
            return smooth(z, y) + plain(z, q)

        compiled, eager = torch.compile(total, fullgraph=True, backend="aot_eager")(z), total(z)
        close(case, compiled, eager)
        close(case, gradient(compiled, z), gradient(eager, z))
        with torch.no_grad():
            close(case, torch.compile(plain, fullgraph=True, backend="aot_eager")(z, y), plain(z, y))


class TestModules:
    """They are modules, and functions."""

    def test_the_function_is_the_module(self, case: Case) -> None:
        name, settings = case
        function = getattr(lossfit.functional, lossfit.functional.twin_name(name))
        z, y, s = scores(), targets(), weights(N)
        common = {"weight": weights(C), "label_smoothing": 0.1, "reduction": "sum", "temperature": 2.0}
        found = function(z, y, **{**REQUIRED.get(name, {}), **settings, **common}, sample_weight=s)
        assert torch.equal(found, make(case, **common)(z, y, sample_weight=s))
        found = function(z, y, denominator=7.0, **REQUIRED.get(name, {}), **settings)
        assert torch.equal(found, make(case)(z, y, denominator=7.0))

    def test_copies_and_pickles(self, case: Case) -> None:
        z, y = scores(), targets()
        loss = make(case, weight=weights(C), class_prior=weights(C), label_smoothing=0.1)
        for copied in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
            assert torch.equal(copied(z, y), loss(z, y))
            assert repr(copied) == repr(loss)
            assert copied.weight.data_ptr() != loss.weight.data_ptr()

    def test_weight_and_prior_are_buffers(self, case: Case) -> None:
        loss = make(case, weight=weights(C).float(), class_prior=weights(C).float())
        assert {"weight", "class_prior"} <= set(loss.state_dict())
        assert {k: v.dtype for k, v in loss.double().named_buffers()}.items() >= {
            "weight": torch.float64,
            "class_prior": torch.float64,
        }.items()
        assert all(b.device.type == "meta" for b in loss.to("meta").buffers())

    def test_it_shows_its_numbers(self, case: Case) -> None:
        shown = repr(make(case))
        for key, value in number_settings(*case).items():
            assert f"{key}={value}" in shown
        assert "reduction" not in shown
        shown = repr(make(case, temperature=2.0, reduction="sum"))
        assert "temperature=2.0" in shown
        assert shown.endswith("reduction='sum')")


class TestHyperParameters:
    """Numbers, tensors and schedules."""

    def tensors(self, case: Case, *shape: int) -> dict[str, torch.Tensor]:
        """Other values of each number for each row, inside their ranges."""
        cards, found = lossfit.registry.get(case[0]).hypers, {}
        for key, value in number_settings(*case).items():
            card = cards.get(key, cards.get("coefficients"))
            low, high = max(card.low, value - 0.4), min(card.high, value + 0.4)
            found[key] = low + 0.05 + (high - low - 0.1) * torch.rand(shape, dtype=torch.float64)
        return found

    def test_one_for_each_row_is_a_loop_over_rows(self, case: Case) -> None:
        z, y, q = scores(), targets(), weights(N, C)
        tensors = self.tensors(case, N)
        extra = {"label_smoothing": torch.rand(N), "temperature": 0.5 + torch.rand(N)}
        for common in ({}, extra):
            loss = with_numbers(*case, tensors, reduction="none", **common)
            for target in (y, q):
                rows = loss(z, target)
                for i in range(N):
                    at = {k: v[i].item() for k, v in tensors.items()}
                    alone = with_numbers(*case, at, **{k: v[i].item() for k, v in common.items()})
                    close(case, rows[i], alone(z[i : i + 1], target[i : i + 1]))

    def test_they_broadcast_to_positions(self, case: Case) -> None:
        shape = (N, C, D1)
        z, y, q = scores(*shape), targets(shape), weights(*shape)
        tensors = self.tensors(case, N, 1)
        loss = with_numbers(*case, tensors, reduction="none")
        flat = with_numbers(*case, {k: v.squeeze(1) for k, v in tensors.items()}, reduction="none")
        for target in (y, q):
            for i in range(D1):
                close(case, loss(z, target)[:, i], flat(z[:, :, i], target[..., i]))

    def test_they_get_gradients(self, case: Case) -> None:
        if not promises_value_gradient(*case):
            pytest.skip("its weight is detached")
        rows = 2 if case[0] == "exact" else N  # its integral is evaluated twice for each number
        z, y, q = scores(rows, C).requires_grad_(), targets((rows, C)), weights(rows, C)
        tensors = self.tensors(case, rows)
        own = [v.requires_grad_() for v in tensors.values()]
        common = [(0.2 + 0.5 * torch.rand(rows, dtype=torch.float64)).requires_grad_() for _ in range(2)]
        for target in (y, q):

            def values(z: torch.Tensor, eps: torch.Tensor, t: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
                numbers = dict(zip(tensors, given, strict=True))
                loss = with_numbers(*case, numbers, label_smoothing=eps, temperature=t, reduction="none")
                return loss(z, target)  # noqa: B023

            assert gradcheck(values, (z, *common, *own), **steps(case), atol=1e-6, rtol=1e-5)

    def test_they_get_gradients_on_the_short_way(self, case: Case) -> None:
        if not promises_value_gradient(*case) or not number_settings(*case):
            pytest.skip("nothing to learn")
        z, y, s = scores(), targets(), weights(N)
        y[2] = -100
        own = [v.requires_grad_() for v in self.tensors(case, N).values()]
        names = list(number_settings(*case))

        def mean(*values: torch.Tensor) -> torch.Tensor:
            return with_numbers(*case, dict(zip(names, values, strict=True)))(z, y, sample_weight=s)

        assert gradcheck(mean, own, **steps(case), atol=1e-6, rtol=1e-5)

    def test_a_parameter_is_a_parameter(self, case: Case) -> None:
        numbers = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in number_settings(*case).items()}
        loss = with_numbers(*case, numbers)
        assert set(dict(loss.named_parameters())) == set(numbers)
        assert set(loss.state_dict()) == set(numbers)

    def test_a_schedule_moves_with_the_steps(self, case: Case) -> None:
        z, y = scores(), targets()
        start = number_settings(*case)
        cards = lossfit.registry.get(case[0]).hypers
        down = {k: cards.get(k, cards.get("coefficients")).high <= v for k, v in start.items()}
        schedules = {k: lambda t, v=v, d=down[k]: v + (-1) ** d * 0.01 * t for k, v in start.items()}
        common = {"label_smoothing": lambda t: 0.01 * t, "temperature": lambda t: 1 + 0.1 * t}
        loss = with_numbers(*case, schedules, **common)

        def at(t: int) -> torch.Tensor:
            numbers = {k: f(t) for k, f in schedules.items()}
            return with_numbers(*case, numbers, **{k: f(t) for k, f in common.items()})(z, y)

        close(case, loss(z, y), at(0))
        loss.step()
        loss.step()
        close(case, loss(z, y), at(2))
        loss.step(to=7)
        close(case, loss(z, y), at(7))
        other = with_numbers(*case, schedules, **common)
        other.load_state_dict(loss.state_dict())
        close(case, other(z, y), at(7))
        other.step()
        close(case, other(z, y), at(8))

    def test_without_a_schedule_a_step_does_nothing(self, case: Case) -> None:
        loss = make(case)
        before = loss(torch.eye(C), torch.arange(C))
        loss.step()
        assert torch.equal(loss(torch.eye(C), torch.arange(C)), before)

    def test_temperature_divides_and_a_prior_is_added(self, case: Case) -> None:
        shape = (N, C, D1)
        z, y, q, counts = scores(*shape), targets(shape), weights(*shape), torch.tensor([10, 300, 2, 45])
        log_prior = (counts.double() / counts.sum()).log().view(1, C, 1)
        for target in (y, q):
            close(case, make(case, temperature=2.5)(z, target), make(case)(z / 2.5, target))
            found = make(case, class_prior=counts.double())(z, target)
            close(case, found, make(case)(z + log_prior, target))
            both = make(case, class_prior=counts.double(), temperature=2.5)(z, target)
            close(case, both, make(case)(z / 2.5 + log_prior, target))


class TestMasks:
    """Classes that are masked by -inf."""

    def test_a_learnt_temperature(self, case: Case) -> None:
        if case[0] == "exponential_margin":
            return  # infinite for a class that cannot be
        z = torch.tensor([[1.0, 0.0, -torch.inf], [0.0, 2.0, 1.0]], dtype=torch.float64, requires_grad=True)
        temperature = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
        found = make(case, temperature=temperature)(z, torch.tensor([0, 1]))
        plain = make(case, temperature=2.0)(z, torch.tensor([0, 1]))
        close(case, found, plain)
        slopes = torch.autograd.grad(found, (z, temperature))
        close(case, slopes[0], gradient(plain, z))
        assert slopes[1].isfinite()

    def test_soft_targets_without_a_share_there(self, case: Case) -> None:
        z = torch.tensor([[1.0, 0.0, -torch.inf], [0.0, 2.0, 1.0]], dtype=torch.float64, requires_grad=True)
        q = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
        loss = make(case)(z, q)
        assert loss.isfinite()
        slope = gradient(loss, z)
        assert slope.isfinite().all()
        assert slope[0, 2] == 0


class TestErrors:
    """They name the argument, say what was expected and what came."""

    def test_of_the_constructor(self, case: Case) -> None:
        for error, match, arguments in (
            (
                ValueError,
                r"`reduction` to be one of 'none', 'mean', 'sum', but got 'meen'. Did you mean 'mean'",
                {"reduction": "meen"},
            ),
            (ValueError, r"`weight` to be a tensor of shape \(C,\), but got \(2, 2\)", {"weight": torch.ones(2, 2)}),
            (ValueError, r"`weight` to be a tensor of shape \(C,\), but got list", {"weight": [1.0, 2.0]}),
            (ValueError, r"`class_prior` to be a vector of positive", {"class_prior": torch.tensor([1.0, 0.0])}),
            (ValueError, r"`class_prior` to be a vector of positive", {"class_prior": torch.tensor([1.0, math.nan])}),
            (ValueError, r"`label_smoothing` in \[0, 1\], but got 1.5", {"label_smoothing": 1.5}),
            (ValueError, r"`temperature` in \(0, inf\), but got 0", {"temperature": 0.0}),
            (
                ValueError,
                r"`temperature` in \(0, inf\), but got values from -1 to 2",
                {"temperature": torch.tensor([-1.0, 2.0])},
            ),
            (
                TypeError,
                r"`temperature` to be a number, a torch.Tensor or a function of the step, but got str",
                {"temperature": "1"},
            ),
            (TypeError, r"`label_smoothing` to be a number", {"label_smoothing": True}),
            (TypeError, r"unexpected keyword argument 'wieght'", {"wieght": torch.ones(3)}),
        ):
            with pytest.raises(error, match=match):
                make(case, **arguments)

    def test_of_numbers_out_of_range(self, case: Case) -> None:
        cards = lossfit.registry.get(case[0]).hypers
        for key in number_settings(*case):
            card = cards.get(key, cards.get("coefficients"))
            wrong = [card.low - 1] * math.isfinite(card.low) + [card.high + 1] * math.isfinite(card.high) + [math.nan]
            for value in wrong:
                for given in (value, torch.tensor([value, value]), lambda t, v=value: v):
                    with pytest.raises(ValueError, match=rf"Expected `{key}` in {re.escape(card.range)}, but got"):
                        with_numbers(*case, {key: given})

    def test_of_a_schedule_that_leaves_the_range(self, case: Case) -> None:
        loss = make(case, label_smoothing=lambda t: 0.5 * t)
        loss.step()
        with pytest.raises(ValueError, match=r"`label_smoothing at step 3` in \[0, 1\], but got 1.5"):
            loss.step(to=3)

    def test_of_the_call(self, case: Case) -> None:
        z, y = scores(), targets()
        for error, match, common, call in (
            (ValueError, r"`weight` .* per class, \(4,\), but got \(3,\)", {"weight": torch.ones(3)}, {}),
            (ValueError, r"`class_prior` to have one entry per class", {"class_prior": torch.ones(5)}, {}),
            (ValueError, r"`sample_weight` of shape \(5,\), .* got \(4,\)", {}, {"sample_weight": torch.ones(4)}),
            (ValueError, r"`sample_weight` of shape \(5,\)", {}, {"sample_weight": torch.ones(5, 1)}),
            (TypeError, r"`sample_weight` to be a torch.Tensor, but got list", {}, {"sample_weight": [1.0] * 5}),
            (ValueError, r"`denominator` only .* got reduction='sum'", {"reduction": "sum"}, {"denominator": 3}),
            (ValueError, r"`denominator` only with", {"reduction": "none"}, {"denominator": 3}),
            (ValueError, r"`denominator` to be positive and finite, but got 0", {}, {"denominator": 0}),
            (ValueError, r"`temperature` to broadcast .* \(5,\), but got \(3,\)", {"temperature": torch.ones(3)}, {}),
            (ValueError, r"`label_smoothing` to broadcast to the rows", {"label_smoothing": torch.ones(5, 5)}, {}),
        ):  # fmt: skip
            with pytest.raises(error, match=match):
                make(case, **common)(z, y, **call)

    def test_of_scores_and_targets(self, case: Case) -> None:
        loss = make(case)
        for error, match, z, y in (
            (TypeError, r"`input` to hold floating-point scores, but got torch.int64", scores().long(), targets()),
            (ValueError, r"`target` of shape \(5,\) for `input` .* got \(4,\)", scores(), targets()[:4]),
            (ValueError, r"one-hot target must be floating point", scores(), torch.zeros(N, C, dtype=torch.int64)),
            (TypeError, r"class indices or probabilities of shape \(5,\) or \(5, 4\)", scores(), torch.rand(N)),
            (TypeError, r"integer class indices, but got torch.bool", scores(), targets().bool()),
            (IndexError, r"\[0, 4\) or .* but got 4 at position \(1,\)", scores(), torch.tensor([0, 4, 1, 2, 3])),
        ):  # fmt: skip
            with pytest.raises(error, match=match):
                loss(z, y)


class TestCatalogue:
    """What documentation, command line and comparison read off the classes."""

    @pytest.mark.parametrize("name", lossfit.available_losses("single_label"))
    def test_the_function_has_a_signature_and_a_docstring(self, name: str) -> None:
        function = getattr(lossfit.functional, lossfit.functional.twin_name(name))
        assert function.__name__ in lossfit.functional.__all__
        assert f":class:`lossfit.{lossfit.registry.get(name).__name__}`" in function.__doc__
        taken = inspect.signature(function).parameters
        assert list(taken)[:2] == ["input", "target"]
        own = {p.name for p in inspect.signature(lossfit.registry.get(name)).parameters.values() if p.name != "common"}
        common = {"weight", "ignore_index", "reduction", "label_smoothing", "temperature", "class_prior"}
        assert set(taken) == own | common | {"input", "target", "sample_weight", "denominator"}
