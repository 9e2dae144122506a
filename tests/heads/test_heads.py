"""Heads, against longhand scores and the formulas of other libraries."""

import copy
import math
import pickle
from importlib.util import find_spec

import mpmath as mp
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

import lossfit
from helpers import build, case_id, every_case, has_second_derivative, promises_value_gradient
from interpreter import quicken
from lossfit import AdditiveMargin, AngularMargin, ArcMargin, CombinedMargin, CosineHead, LinearHead
from lossfit.core.cosines import cosines
from lossfit.core.limits import limited

quicken()
N, D, C = 5, 4, 6
MARGINS = [
    None,
    AdditiveMargin(0.35),
    ArcMargin(0.5),
    ArcMargin(0.5, "pml"),
    AngularMargin(2.5, annealing=1.0),
    CombinedMargin(1.3, 0.2, 0.1),
]


def features(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape or (N, D), dtype=dtype)


def labels() -> Tensor:
    return torch.tensor([0, 3, 5, 3, 1])


def head(margin: lossfit.Margin | None = None, **settings: object) -> CosineHead:
    return CosineHead(D, C, **{"scale": 5.0, "margin": margin, **settings}).double()


def angles(x: Tensor, weight: Tensor) -> Tensor:
    """One by one, from the vectors' components."""
    return torch.tensor(
        [
            [math.acos(math.fsum(x_i * w_i) / math.sqrt(math.fsum(x_i**2) * math.fsum(w_i**2))) for w_i in weight]
            for x_i in x
        ],
        dtype=torch.float64,
    )


class TestCosines:
    def test_longhand(self) -> None:
        x, layer = features(), head()
        assert_close(layer.cosines(x), angles(x, layer.weight.detach()).cos(), rtol=0, atol=1e-14)
        assert_close(layer(x), 5 * layer.cosines(x))

    def test_gradients(self) -> None:
        x, w = features().requires_grad_(), features(C, D).requires_grad_()
        assert torch.autograd.gradcheck(cosines, (x, w), check_batched_grad=True)
        assert torch.autograd.gradgradcheck(cosines, (x, w))

    def test_against_normalised_vectors(self) -> None:
        x, w, g = (v.requires_grad_() for v in (features(), features(C, D), features(N, C)))
        plain = F.normalize(x) @ F.normalize(w).T
        found = cosines(x, w)
        for a, b in zip(torch.autograd.grad(found, (x, w), g), torch.autograd.grad(plain, (x, w), g), strict=True):
            assert_close(a, b)

    def test_leading_dimensions(self) -> None:
        x, layer = features(2, 3, D), head()
        assert_close(layer(x)[1, 2], layer(x[1, 2]))
        assert layer(features(0, D)).shape == (0, C)

    def test_any_length_gives_the_same(self) -> None:
        x, layer = features(dtype=torch.float32), head().float()
        for size in (1e-9, 1e9):
            assert_close(layer(x * size), layer(x), rtol=1e-5, atol=1e-5)

    def test_transformations(self) -> None:
        x, w = features(), features(3, C, D)
        each = torch.func.vmap(torch.func.grad(lambda w: cosines(x, w).square().sum()))(w)
        for found, one in zip(each, w, strict=True):
            one = one.clone().requires_grad_()
            assert_close(found, torch.autograd.grad(cosines(x, one).square().sum(), one)[0])

    def test_rows_of_zero(self) -> None:
        x, w = features(), features(C, D)
        x[1], w[2] = 0, 0
        x.requires_grad_(), w.requires_grad_()
        found = cosines(x, w)
        assert found[1].abs().max() == 0
        assert found[:, 2].abs().max() == 0
        to_x, to_w = torch.autograd.grad(found.exp().sum(), (x, w), create_graph=True)
        assert to_x[1].abs().max() == 0
        assert to_w[2].abs().max() == 0
        for grad in torch.autograd.grad(to_x.square().sum() + to_w.square().sum(), (x, w)):
            assert grad.isfinite().all()


class TestScores:
    @pytest.mark.parametrize(
        ("margin", "formula"),
        [
            (AdditiveMargin(0.35), lambda t: math.cos(t) - 0.35),
            (ArcMargin(0.5), lambda t: math.cos(t + 0.5) if t <= math.pi - 0.5 else -2 - math.cos(t + 0.5)),
            (AngularMargin(2), lambda t: math.cos(2 * t) if t <= math.pi / 2 else -math.cos(2 * t) - 2),
        ],
    )
    def test_the_margin_is_in_the_target_column_only(self, margin: lossfit.Margin, formula: object) -> None:
        layer, x, y = head(margin), features(), labels()
        theta = angles(x, layer.weight.detach())
        expected = 5 * theta.cos()
        for i, c in enumerate(y.tolist()):
            expected[i, c] = 5 * formula(theta[i, c].item())
        assert_close(layer.scores(x, y), expected, rtol=0, atol=1e-13)
        assert_close(layer(x), 5 * theta.cos(), rtol=0, atol=1e-13)
        assert_close(layer.loss(x, y), F.cross_entropy(expected, y))

    def test_sphereface(self) -> None:
        layer, x, y = head(AngularMargin(3), scale="norm"), features(), labels()
        theta, norm = angles(x, layer.weight.detach()), x.norm(dim=1)
        expected = norm[:, None] * theta.cos()
        for i, c in enumerate(y.tolist()):
            k = math.floor(3 * theta[i, c] / math.pi)
            expected[i, c] = norm[i] * ((-1) ** k * math.cos(3 * theta[i, c]) - 2 * k)
        assert_close(layer.scores(x, y), expected, rtol=0, atol=1e-13)

    def test_large_margin_softmax(self) -> None:
        layer, x, y = LinearHead(D, C, margin=AngularMargin(2)).double(), features(), labels()
        weight, bias = layer.weight.detach(), layer.bias.detach()
        theta = angles(x, weight)
        expected = x @ weight.T + bias
        for i, c in enumerate(y.tolist()):
            k = math.floor(2 * theta[i, c] / math.pi)
            psi = (-1) ** k * math.cos(2 * theta[i, c]) - 2 * k
            expected[i, c] = weight[c].norm() * x[i].norm() * psi + bias[c]
        assert_close(layer.scores(x, y), expected, rtol=0, atol=1e-13)
        assert_close(layer(x), F.linear(x, weight, bias))

    def test_sub_centres(self) -> None:
        layer, x, y = head(ArcMargin(0.3), sub_centers=3), features(), labels()
        each = angles(x, layer.weight.detach()).view(N, C, 3)
        nearest = each.amin(2)
        assert layer.weight.shape == (C * 3, D)
        assert_close(layer(x), 5 * nearest.cos(), rtol=0, atol=1e-13)
        own = nearest.gather(1, y[:, None])
        assert_close(layer.scores(x, y), 5 * nearest.cos().scatter(1, y[:, None], (own + 0.3).cos()))
        assert torch.autograd.gradcheck(lambda x: layer.loss(x, y), x.requires_grad_())

    def test_a_margin_for_each_class(self) -> None:
        m = torch.linspace(0, 0.5, C)
        layer, x, y = head(AdditiveMargin(m)), features(), labels()
        expected = layer(x).scatter_add(1, y[:, None], -5 * m[y].double()[:, None])
        assert_close(layer.scores(x, y), expected)
        with pytest.raises(ValueError, match=r"`m` to have one entry per class, \(7,\), but got \(6,\)"):
            CosineHead(D, 7, margin=AdditiveMargin(m))

    def test_margins_of_nothing_agree(self) -> None:
        x, y = features(), labels()
        plain = head()
        for margin in (AdditiveMargin(0.0), ArcMargin(0.0), AngularMargin(1)):
            layer = head(margin)
            layer.load_state_dict(plain.state_dict())
            assert_close(layer.loss(x, y), plain.loss(x, y))


class TestEveryLoss:
    """A margin changes the target's score, so every link and every gap works under it."""

    @pytest.mark.parametrize("case", every_case(), ids=case_id)
    def test_it_is_the_loss_of_the_scores_with_the_margin(self, case: tuple[str, dict[str, object]]) -> None:
        name, settings = case
        weight, y = torch.rand(C) + 0.5, labels()
        y[1] = -100
        loss = build(name, **settings, label_smoothing=0.1, weight=weight, ignore_index=-100)
        for margin in MARGINS:
            layer, x = head(margin), features()
            z = layer(x).detach()
            if margin is not None:
                at = y.clamp(min=0)[:, None]
                z = z.scatter(1, at, 5 * margin(z.gather(1, at) / 5))
            assert_close(layer.loss(x, y, loss, sample_weight=x[:, 0]), loss(z, y, sample_weight=x[:, 0]))

    @pytest.mark.parametrize("case", every_case(), ids=case_id)
    def test_gradients_under_every_margin(self, case: tuple[str, dict[str, object]]) -> None:
        name, settings = case
        if not promises_value_gradient(name, settings):
            pytest.skip("the gradient is designed")
        loss, y = build(name, **settings), labels()[:3]
        for margin in MARGINS:
            # Small scales, so that no row is lost to the loss's flat ends.
            cosine, linear = head(margin, scale=1.5), LinearHead(D, C, margin=margin).double()
            x = features(3, D).requires_grad_()
            for layer in (cosine, linear):
                whole = _Loss(layer, loss, y)

                def total(x: Tensor, w: Tensor, whole: nn.Module = whole) -> Tensor:
                    return torch.func.functional_call(whole, {"head.weight": w}, x)

                assert torch.autograd.gradcheck(total, (x, layer.weight), fast_mode=True)

    @pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")
    @pytest.mark.parametrize("case", every_case(), ids=case_id)
    @limited(least_rows=2, chunk_bytes=1)
    def test_every_backend_gives_the_same_under_every_head_and_margin(
        self, case: tuple[str, dict[str, object]]
    ) -> None:
        """A head has numbers of its own, a scale or a length, and so has a loss: neither sees the other's."""
        name, settings = case
        x, y, loss = features(), labels(), build(name, **settings)
        y[1] = -100
        rtol, atol = (1e-7, 1e-9) if name == "exact" else (1e-11, 1e-13)
        for margin in (ArcMargin(0.5), AdditiveMargin(nn.Parameter(torch.tensor(0.2, dtype=torch.float64)))):
            for layer in (
                head(margin, scale="norm"),
                head(margin, scale=8.0, learn_scale=True, sub_centers=2),
                LinearHead(D, C, margin=margin).double(),
            ):
                of = [x.requires_grad_(), *layer.parameters()]
                value = loss(layer.scores(x, y), y)
                expected = [value, *torch.autograd.grad(value, of)]
                for backend, rows, target in (
                    ("dense", x, y), ("chunked", x, y), ("auto", x.unsqueeze(1), y.unsqueeze(1)), ("triton", x, y),
                ):  # fmt: skip
                    if backend == "triton" and not (find_spec("triton") and name == "exponential_margin"):
                        continue  # a launch of the interpreter takes long: for the loss with a number called scale
                    value = layer.loss(rows, target, loss, backend=backend)
                    found = [value, *torch.autograd.grad(value, of)]
                    for one, other in zip(found, expected, strict=True):
                        note = f"{layer} {backend}"
                        assert_close(one, other, rtol=rtol, atol=atol, msg=lambda m, note=note: f"{note}: {m}")

    def test_second_derivatives(self) -> None:
        x, y = features().requires_grad_(), labels()
        for name in ("cross_entropy", "focal"):
            assert has_second_derivative(name, {})
            for margin in MARGINS:
                for layer in (head(margin), LinearHead(D, C, margin=margin).double(), head(margin, scale="norm")):
                    loss = build(name)
                    assert torch.autograd.gradgradcheck(lambda x, h=layer, f=loss: h.loss(x, y, f), x, fast_mode=True)

    @pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
    def test_reductions_and_denominators(self, reduction: str) -> None:
        layer, x, y = head(ArcMargin(0.5)), features(), labels()
        loss, s = lossfit.FocalLoss(reduction=reduction), torch.rand(N, dtype=torch.float64)
        assert_close(layer.loss(x, y, loss, sample_weight=s), loss(layer.scores(x, y), y, sample_weight=s))
        if reduction == "mean":
            assert_close(layer.loss(x, y, loss, denominator=7.0), loss(layer.scores(x, y), y) * N / 7)

    def test_probabilities_as_targets_need_no_margin(self) -> None:
        x, q = features(), torch.rand(N, C, dtype=torch.float64).softmax(1)
        assert_close(head().loss(x[:0], q[:0]), torch.zeros((), dtype=torch.float64))
        layer = head()
        assert_close(layer.loss(x, q), F.cross_entropy(layer(x), q))
        with pytest.raises(TypeError, match="`target` to hold integer class indices"):
            head(ArcMargin()).loss(x, q)


class TestLeadingShapes:
    @pytest.mark.parametrize("layer", [head(ArcMargin(0.3)), LinearHead(D, C, margin=AngularMargin(2.0)).double()])
    @pytest.mark.parametrize("backend", ["auto", "dense", "chunked"])
    def test_rows_may_have_any(self, layer: lossfit.CosineHead, backend: str) -> None:
        x, target = features(2, 3, D).requires_grad_(), torch.tensor([[0, 3, -100], [5, 3, 1]])
        loss, weight = lossfit.FocalLoss(reduction="none"), torch.rand(2, 3).double()
        found = layer.loss(x, target, loss, sample_weight=weight, backend=backend)
        expected = layer.loss(x.flatten(0, 1), target.flatten(), loss, sample_weight=weight.flatten())
        assert_close(found, expected.view(2, 3))
        of = [x, *layer.parameters()]
        assert_close(torch.autograd.grad(found.sum(), of), torch.autograd.grad(expected.sum(), of))
        alone = layer.loss(x[0, 1], target[0, 1], lossfit.FocalLoss(), backend=backend)
        assert_close(alone, layer.loss(x[0, 1:2], target[0, 1:2], lossfit.FocalLoss()))


class TestSampledRivals:
    """On one process; tests/distributed has those of several."""

    @pytest.mark.parametrize("temperature", [1.0, 2.0])
    @pytest.mark.parametrize("sub_centers", [1, 2])
    def test_the_sum_over_rivals_is_that_of_all_on_average(self, sub_centers: int, temperature: float) -> None:
        layer = CosineHead(D, 61, 4.0, sub_centers=sub_centers, sample_rate=0.3).double()
        x, target = features(3, D), torch.tensor([0, 5, 60])
        loss = lossfit.CrossEntropyLoss(reduction="none", temperature=temperature)
        with torch.no_grad():
            # exp(loss) - 1 is the rivals' sum over the target's exponential.
            sums = torch.stack([layer.loss(x, target, loss).expm1().sum() for _ in range(500)])
            true = layer.eval().loss(x, target, loss).expm1().sum()
        assert (sums.mean() - true).abs() < 4 * sums.std() / math.sqrt(len(sums))
        assert sums.std() / math.sqrt(len(sums)) < 0.05 * true

    def test_all_drawn_are_all(self) -> None:
        x, target = features(), labels()
        layer = head(ArcMargin(0.3), sub_centers=3, sample_rate=1 - 1e-9)
        losses = layer.loss(x, target), layer.eval().loss(x, target)
        assert_close(*losses)
        found, expected = (torch.autograd.grad(value, layer.weight)[0] for value in losses)
        assert found.is_sparse
        assert_close(found.to_dense(), expected)


class _Loss(nn.Module):
    def __init__(self, head: nn.Module, loss: lossfit.Loss, target: Tensor) -> None:
        super().__init__()
        self.head, self.loss, self.target = head, loss, target

    def forward(self, x: Tensor) -> Tensor:
        return self.head.loss(x, self.target, self.loss)


class TestOtherLibraries:
    """What they compute, as their sources have it, in plain operations."""

    def scores(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.normalize(x) @ F.normalize(weight).T

    def test_pml_arcface(self) -> None:
        layer, x, y = head(ArcMargin(math.radians(28.6), "pml"), scale=64.0), features(), labels()
        x[0] = -layer.weight[y[0]].detach()  # past pi - m
        x[0, 0] += 0.01
        z = self.scores(x, layer.weight)
        angle = torch.acos(z.gather(1, y[:, None]).clamp(-1, 1))
        m = math.radians(28.6)
        own = torch.where(angle <= math.pi - m, torch.cos(angle + m), torch.cos(angle) - m * math.sin(m))
        expected = F.cross_entropy(64 * z.scatter(1, y[:, None], own), y)
        assert_close(layer.loss(x, y), expected)
        assert_close(
            torch.autograd.grad(layer.loss(x, y), layer.weight)[0], torch.autograd.grad(expected, layer.weight)[0]
        )

    def test_pml_sphereface(self) -> None:
        layer, x, y = head(AngularMargin(4), scale="norm"), features(), labels()
        z = self.scores(x, layer.weight)
        c = z.gather(1, y[:, None])
        k = (torch.acos(c) / (math.pi / 4)).floor()
        own = (-1) ** k * (8 * c**4 - 8 * c**2 + 1) - 2 * k
        expected = F.cross_entropy(z.scatter(1, y[:, None], own) * x.norm(dim=1, keepdim=True), y)
        assert_close(layer.loss(x, y), expected)
        assert_close(
            torch.autograd.grad(layer.loss(x, y), layer.weight)[0], torch.autograd.grad(expected, layer.weight)[0]
        )

    def test_insightface_arcface(self) -> None:
        layer, x, y = head(ArcMargin(0.5, "insightface"), scale=64.0), features(), labels()
        z = self.scores(x, layer.weight)
        c = z.gather(1, y[:, None])
        straight = c + (torch.cos(torch.acos(c) + 0.5) - c).detach()
        expected = F.cross_entropy(64 * z.scatter(1, y[:, None], straight), y)
        assert_close(layer.loss(x, y), expected)
        assert_close(
            torch.autograd.grad(layer.loss(x, y), layer.weight)[0], torch.autograd.grad(expected, layer.weight)[0]
        )

    def test_cosface(self) -> None:
        layer, x, y = head(AdditiveMargin(0.4), scale=64.0), features(), labels()
        z = self.scores(x, layer.weight)
        expected = F.cross_entropy(64 * (z - 0.4 * F.one_hot(y, C)), y)
        assert_close(layer.loss(x, y), expected)


class TestPoles:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_gradients_are_finite(self, sign: float, dtype: torch.dtype) -> None:
        y = labels()
        for margin in MARGINS:
            for layer in (head(margin, scale=64.0), LinearHead(D, C, margin=margin)):
                layer = layer.to(dtype)
                x = (sign * layer.weight[y]).detach().requires_grad_()
                value = layer.loss(x, y)
                assert value.isfinite()
                for grad in torch.autograd.grad(value, (x, layer.weight)):
                    assert grad.isfinite().all()
                    assert grad.abs().max() < 1e3

    def test_zero_features(self) -> None:
        y = labels()
        for margin in MARGINS:
            for layer in (
                head(margin),
                head(margin, scale="norm"),
                head(margin, sub_centers=2),
                LinearHead(D, C, margin=margin).double(),
            ):
                x = features()
                x[2] = 0
                x.requires_grad_()
                value = layer.loss(x, y, lossfit.CrossEntropyLoss(reduction="none"))
                assert value.isfinite().all()
                for grad in torch.autograd.grad(value.sum(), (x, layer.weight)):
                    assert grad.isfinite().all()
        assert head()(torch.zeros(1, D)).abs().max() == 0


class TestTypes:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("margin", [None, ArcMargin(0.5)])
    def test_half_precision_features_leave_the_weights_as_they_are(
        self, dtype: torch.dtype, margin: lossfit.Margin | None
    ) -> None:
        x, y = features(dtype=torch.float32).to(dtype).requires_grad_(), labels()
        for layer in (CosineHead(D, C, 8.0, margin), LinearHead(D, C, margin=margin)):
            value = layer.loss(x, y)
            (grad,) = torch.autograd.grad(value, x)
            assert layer.weight.dtype == value.dtype == torch.float32
            assert grad.dtype == dtype
            assert_close(value, layer.loss(x.float(), y))

    @pytest.mark.parametrize("margin", [None, ArcMargin(0.5)])
    def test_autocast(self, margin: lossfit.Margin | None) -> None:
        x, y = features(64, 32, dtype=torch.float32), torch.randint(C, (64,))
        for layer in (CosineHead(32, C, 8.0, margin), LinearHead(32, C, margin=margin)):
            exact = torch.autograd.grad(layer.loss(x, y), layer.weight)[0]
            with torch.autocast("cpu", torch.bfloat16):
                value = layer.loss(x, y)
            found = torch.autograd.grad(value, layer.weight)[0]
            assert value.dtype == found.dtype == torch.float32
            assert_close(value, layer.loss(x, y), rtol=0.01, atol=0.01)
            assert (found - exact).norm() < 0.02 * exact.norm()
            assert not torch.equal(found, exact)

    def test_shapes_without_numbers(self) -> None:
        x = torch.empty(N, D, device="meta")
        for layer in (CosineHead(D, C), LinearHead(D, C)):
            assert layer.to("meta")(x).shape == (N, C)

    def test_float64_features(self) -> None:
        assert CosineHead(D, C)(features()).dtype == torch.float64
        assert LinearHead(D, C, margin=ArcMargin())(features()).dtype == torch.float64

    @pytest.mark.parametrize("make", [CosineHead, LinearHead])
    def test_ignored_rows_hold_anything(self, make: type[nn.Module]) -> None:
        for margin in MARGINS[:3]:
            layer, x, y = make(D, C, margin=margin).double(), features(), labels()
            kept = torch.autograd.grad(layer.loss(x[1:], y[1:]), layer.weight)[0]
            x[0], y[0] = math.nan, -100
            value = layer.loss(x.requires_grad_(), y)
            to_x, to_w = torch.autograd.grad(value, (x, layer.weight))
            assert_close(to_w, kept)
            assert to_x[0].abs().max() == 0
            assert layer.loss(x, torch.full_like(y, -100)).item() == 0

    def test_empty_batches(self) -> None:
        for layer in (head(ArcMargin()), LinearHead(D, C, margin=ArcMargin()).double()):
            value = layer.loss(features(0, D), torch.zeros(0, dtype=torch.int64))
            assert value.item() == 0
            assert torch.autograd.grad(value, layer.weight)[0].abs().max() == 0

    def test_inputs_stay_as_they_are(self) -> None:
        layer, x, y = head(ArcMargin()), features(), labels()
        before = x.clone(), y.clone(), layer.weight.detach().clone()
        with torch.no_grad():
            layer.loss(x, y)
        layer.loss(x, y).backward()
        assert all(torch.equal(a, b) for a, b in zip((x, y, layer.weight), before, strict=True))

    @pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch does it
    @pytest.mark.parametrize("margin", [None, ArcMargin(0.5), AngularMargin(3, annealing=2.0)])
    def test_compiled_is_eager(self, margin: lossfit.Margin | None) -> None:
        torch._dynamo.reset()
        layer, x, y = head(margin), features().requires_grad_(), labels()
        y[0] = -100
        loss = lossfit.FocalLoss()
        compiled = torch.compile(lambda x: layer.loss(x, y, loss), fullgraph=True, backend="aot_eager")(x)
        assert_close(compiled, layer.loss(x, y, loss))
        for a, b in zip(
            torch.autograd.grad(compiled, (x, layer.weight)),
            torch.autograd.grad(layer.loss(x, y, loss), (x, layer.weight)),
            strict=True,
        ):
            assert_close(a, b)

    def test_copies_and_states(self) -> None:
        x, y = features(), labels()
        layer = head(AngularMargin(2), scale=9.0, learn_scale=True, sub_centers=2)
        again = head(AngularMargin(2), scale=3.0, learn_scale=True, sub_centers=2)
        again.load_state_dict(layer.state_dict())
        for other in (again, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(other.loss(x, y), layer.loss(x, y))
        plain = nn.Linear(D, C)
        linear = LinearHead(D, C)
        linear.load_state_dict(plain.state_dict())
        assert torch.equal(linear(x.float()), plain(x.float()))


class TestScale:
    def test_learnt_with_a_minimum(self) -> None:
        layer = head(ArcMargin(0.2), scale=4.0, learn_scale=True, min_scale=2.0)
        assert layer.scale.item() == pytest.approx(4)
        x, y = features(), labels()
        assert_close(layer.loss(x, y), _same(layer, 4.0).loss(x, y))
        optimizer = torch.optim.SGD([layer.raw_scale], lr=50.0)
        for _ in range(30):  # a loss that only wants a small scale
            optimizer.zero_grad()
            layer(x).square().sum().backward()
            optimizer.step()
        assert 2 <= layer.scale.item() < 2.001

    def test_a_learnt_scale_has_the_gradient_of_the_scale(self) -> None:
        layer, x, y = head(ArcMargin(0.2), scale=4.0, learn_scale=True), features(), labels()
        h = 1e-5
        slope = (_same(layer, 4 + h).loss(x, y) - _same(layer, 4 - h).loss(x, y)) / (2 * h)
        (grad,) = torch.autograd.grad(layer.loss(x, y), layer.raw_scale)
        assert grad.item() == pytest.approx(slope.item() * -math.expm1(-3.0), rel=1e-5)

    @pytest.mark.parametrize(
        ("classes", "probability", "expected"),
        [
            (2, 0.9, 1.10),
            (10, 0.9, 3.96),
            (10, 0.99, 6.11),
            (1000, 0.9, 9.10),
            (1000, 0.99, 11.49),
            (100_000, 0.99, 16.11),
        ],
    )
    def test_known_bounds(self, classes: int, probability: float, expected: float) -> None:
        assert lossfit.normface_scale(classes, probability) == pytest.approx(expected, abs=0.006)

    @pytest.mark.parametrize(
        "margin", [None, AdditiveMargin(0.35), ArcMargin(0.5), AngularMargin(4), CombinedMargin(1, 0.3, 0.2)], ids=str
    )
    @pytest.mark.parametrize("probability", [0.3, 0.9, 0.999])
    def test_the_bound_is_attained_on_a_simplex(self, margin: lossfit.Margin | None, probability: float) -> None:
        corners = torch.eye(C, dtype=torch.float64) - 1 / C
        layer = CosineHead(C, C, "auto", margin, probability=probability).double()
        with torch.no_grad():
            layer.weight.copy_(corners)
        loss = layer.loss(3 * corners, torch.arange(C))
        # A cosine of 1 - 1e-16 is an angle of 1e-8, which an added angle sees.
        rel = 1e-8 if isinstance(margin, ArcMargin | CombinedMargin) else 1e-12
        assert math.exp(-loss.item()) == pytest.approx(probability, rel=rel)

    def test_no_weights_do_better_than_the_bound(self) -> None:
        scale = lossfit.normface_scale(C, 0.9)
        layer = CosineHead(8, C, scale).double()
        x = nn.Parameter(features(C, 8))
        optimizer = torch.optim.LBFGS([x, layer.weight], max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = layer.loss(x, torch.arange(C))
            loss.backward()
            return loss

        optimizer.step(closure)
        best = math.exp(-layer.loss(x, torch.arange(C)).item())
        assert best <= 0.9 + 1e-12
        assert best == pytest.approx(0.9, abs=1e-6)

    def test_the_bound_against_mpmath(self) -> None:
        for classes, p in ((3, 1 - 1e-15), (10**6, 0.5), (2, 0.5000001)):
            with mp.workdps(40):
                c, q = mp.mpf(classes), mp.mpf(p)
                expected = float((c - 1) / c * mp.log((c - 1) * q / (1 - q)))
            assert lossfit.normface_scale(classes, p) == pytest.approx(expected, rel=1e-9)


def _same(layer: CosineHead, scale: float) -> CosineHead:
    other = head(layer.margin, scale=scale)
    with torch.no_grad():
        other.weight.copy_(layer.weight)
    return other


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: CosineHead(D, C, 0.0), ValueError, "`scale` to be positive and finite, but got 0"),
        (lambda: CosineHead(D, C, -1.0), ValueError, "`scale` to be positive and finite, but got -1"),
        (lambda: CosineHead(D, C, math.nan), ValueError, "`scale` to be positive and finite, but got nan"),
        (lambda: CosineHead(D, C, "normed"), ValueError, "`scale` to be one of 'auto', 'norm'.*Did you mean 'norm'"),
        (lambda: CosineHead(D, C, None), TypeError, "`scale` to be a number, 'auto' or 'norm', but got NoneType"),
        (lambda: CosineHead(D, C, "auto", probability=1 / C), ValueError, r"`probability` in \(1/6, 1\), above chance"),
        (lambda: CosineHead(D, C, "auto", probability=1.0), ValueError, r"`probability` in \(1/6, 1\).*but got 1.0"),
        (lambda: CosineHead(D, 1, "auto"), ValueError, "`num_classes` of at least 2, but got 1"),
        (lambda: CosineHead(D, C, "auto", AdditiveMargin(1.5)), ValueError, "`margin` to leave the target a lead"),
        (lambda: CosineHead(D, C, "norm", learn_scale=True), ValueError, "`learn_scale` with a number or 'auto'"),
        (lambda: CosineHead(D, C, 2.0, learn_scale=True, min_scale=2.0), ValueError, r"`min_scale` in \[0, 2\)"),
        (
            lambda: CosineHead(D, C, sub_centers=0),
            ValueError,
            "`sub_centers` to be an integer of at least 1, but got 0",
        ),
        (lambda: CosineHead(0, C), ValueError, "`in_features` of at least 1, but got 0"),
        (lambda: LinearHead(D, 2.0), TypeError, "`num_classes` to be an integer, but got float"),
        (lambda: LinearHead(D, C, margin=0.5), TypeError, "`margin` to be a margin of lossfit or None, but got float"),
        (lambda: head()(features(N, 3)), ValueError, r"`x` of shape \(..., 4\), but got \(5, 3\)"),
        (lambda: head()([[1.0]]), TypeError, "`x` to be a torch.Tensor, but got list"),
        (lambda: head()(labels()), TypeError, "`x` to hold floating-point features, but got torch.int64"),
        (lambda: head().loss(features(D), labels()), ValueError, r"`target` of shape \(\).*but got \(5,\)"),
        (lambda: head().scores(features(D), labels()), ValueError, r"`x` of shape \(N, 4\), but got \(4,\)"),
        (lambda: head().loss(None, labels()), TypeError, "`x` to be a torch.Tensor, but got NoneType"),
        (
            lambda: head(sample_rate=0.5).loss(features(), features(N, C)),
            TypeError,
            "`target` to hold class indices.*but got torch.float64",
        ),
        (lambda: head(sample_rate=0.5).loss(features(), None), TypeError, "`target` to hold class indices.*NoneType"),
        (
            lambda: head(sample_rate=0.5).loss(
                features(), labels(), lossfit.CrossEntropyLoss(temperature=torch.tensor(2.0))
            ),
            ValueError,
            "`loss` with a number as `temperature` where `sample_rate` is below 1",
        ),
        (lambda: head().loss(features(), labels()[:3]), ValueError, r"`target` of shape \(5,\).*but got \(3,\)"),
        (lambda: head(ArcMargin()).loss(features(), labels() + 1), IndexError, r"class indices in \[0, 6\).*but got 6"),
        (lambda: head().loss(features(), labels(), nn.CrossEntropyLoss()), TypeError, "a single-label loss of lossfit"),
    ],
)
def test_bad_input(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
