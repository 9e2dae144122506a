"""Sampled estimates of expected accuracy against the exact forms: variance, bias, enumeration."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

import lossfit
from lossfit.estimators import gumbel_softmax, monte_carlo, score_function, straight_through

Z = torch.tensor([0.4, -0.3, 1.1, 0.2], dtype=torch.float64)
TARGET = 0


def gaussian(*args: object, **settings: object) -> Tensor:
    return monte_carlo(*args, noise="gaussian", **settings)


EACH = [score_function, monte_carlo, gaussian, gumbel_softmax, straight_through]
UNBIASED_VALUE = [score_function, monte_carlo, gaussian, straight_through]
UNBIASED_GRADIENT = [score_function, monte_carlo, gaussian]


def miss(estimator: Callable[..., Tensor], z: Tensor = Z, sigma: float = 1.0) -> float:
    """What the estimator estimates: one minus the softmax, or minus EXACT's integral, by scipy."""
    lead = [(z[TARGET] - other).item() / sigma for k, other in enumerate(z) if k != TARGET]
    if estimator is gaussian:
        found = integrate.quad(lambda x: stats.norm.pdf(x) * math.prod(stats.norm.cdf([x + d for d in lead])), -9, 9)
        return 1 - found[0]
    return 1 - 1 / (1 + sum(math.exp(-d) for d in lead))


def exact_gradient(estimator: Callable[..., Tensor]) -> Tensor:
    """By central differences of the above."""
    step = 1e-5
    each = [(miss(estimator, Z + move) - miss(estimator, Z - move)) / (2 * step) for move in step * torch.eye(4)]
    return torch.tensor(each, dtype=torch.float64)


def draw(estimator: Callable[..., Tensor], rows: int, samples: int, **settings: object) -> tuple[Tensor, Tensor]:
    """Values (rows,) and gradients (rows, C) of equal rows, each estimated by itself."""
    generator = torch.Generator().manual_seed(5)
    z = Z.expand(rows, -1).clone().requires_grad_()
    values = estimator(z, torch.full((rows,), TARGET), samples, generator=generator, **settings)
    values.sum().backward()
    return values.detach(), z.grad


def standard_errors(draws: Tensor, expected: Tensor | float) -> Tensor:
    """How far the mean of draws is from what is expected, in its standard errors."""
    return (draws.mean(0) - expected).abs() / (draws.std(0) / math.sqrt(len(draws)))


@pytest.mark.parametrize("samples", [1, 7])
@pytest.mark.parametrize("estimator", UNBIASED_VALUE)
def test_the_variance_is_p_times_1_minus_p_by_the_number_of_draws(
    estimator: Callable[..., Tensor], samples: int
) -> None:
    values, _ = draw(estimator, 40_000, samples)
    q = miss(estimator)
    assert standard_errors(values, q) < 4
    wanted = q * (1 - q) / samples
    spread = (values - q) ** 2
    assert standard_errors(spread, wanted) < 4
    assert spread.mean().item() == pytest.approx(wanted, rel=0.03)


@pytest.mark.parametrize("settings", [{}, {"baseline": "leave_one_out"}])
@pytest.mark.parametrize("estimator", UNBIASED_GRADIENT)
def test_gradients_without_bias(estimator: Callable[..., Tensor], settings: dict[str, str]) -> None:
    _, gradients = draw(estimator, 60_000, 3, **settings)
    assert (standard_errors(gradients, exact_gradient(estimator)) < 4).all()
    assert (gradients.std(0) / math.sqrt(60_000) < 0.01).all()


@pytest.mark.parametrize(("samples", "baseline"), [(1, "none"), (2, "none"), (2, "leave_one_out")])
def test_score_function_by_enumeration(monkeypatch: pytest.MonkeyPatch, samples: int, baseline: str) -> None:
    """Over all draws, weighed by their chance, value and gradient are those of 1 - p to rounding."""
    p = Z.softmax(0)
    value, gradient = torch.zeros((), dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    for classes in itertools.product(range(4), repeat=samples):
        monkeypatch.setattr(torch, "multinomial", lambda *_, c=classes, **__: torch.tensor([c]))
        z = Z[None].clone().requires_grad_()
        found = score_function(z, torch.tensor([TARGET]), samples, baseline=baseline)
        found.sum().backward()
        chance = p[list(classes)].prod()
        value += chance * found.item()
        gradient += chance * z.grad[0]
    assert value.item() == pytest.approx(miss(score_function), rel=1e-14)
    onehot = torch.eye(4, dtype=torch.float64)[TARGET]
    torch.testing.assert_close(gradient, -p[TARGET] * (onehot - p), rtol=1e-13, atol=1e-15)


def test_the_baseline_lowers_the_variance() -> None:
    """Where most draws miss."""
    plain = draw(score_function, 20_000, 4)[1].var(0).sum()
    centred = draw(score_function, 20_000, 4, baseline="leave_one_out")[1].var(0).sum()
    assert centred < 0.7 * plain


def test_knowing_the_class_alone_lowers_the_variance() -> None:
    """The score of the class is the mean of the noise's, given who won."""
    assert draw(score_function, 20_000, 2)[1].var(0).sum() < 0.7 * draw(monte_carlo, 20_000, 2)[1].var(0).sum()


def test_straight_through_is_biased_in_its_gradient() -> None:
    gradient = exact_gradient(straight_through)
    _, found = draw(straight_through, 40_000, 1)
    assert standard_errors(found, gradient)[TARGET] > 20
    assert abs(found.mean(0)[TARGET] / gradient[TARGET] - 1) > 0.1
    _, soft = draw(gumbel_softmax, 40_000, 1)
    assert torch.equal(found, soft)


def test_gumbel_softmax_trades_bias_for_variance() -> None:
    q = miss(gumbel_softmax)
    bias, spread = [], []
    for temperature in (2.0, 0.5, 0.05):
        values, gradients = draw(gumbel_softmax, 40_000, 1, temperature=temperature)
        bias.append(abs(values.mean().item() - q))
        spread.append(gradients.var(0).sum().item())
    assert bias[0] > 2 * bias[1] > 10 * bias[2]
    assert bias[2] < 0.01
    assert spread[0] < spread[1] < spread[2]


def test_the_gradient_of_gumbel_softmax_is_that_of_its_value() -> None:
    z = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 3, -100, 1, 2])

    def value(z: Tensor) -> Tensor:
        return gumbel_softmax(z, y, 3, temperature=0.7, generator=torch.Generator().manual_seed(2))

    assert torch.autograd.gradcheck(value, z)


def test_the_scale_of_the_noise_gets_a_gradient() -> None:
    z = torch.tensor([2.0, 0.0, 0.3, -0.5], dtype=torch.float64)
    rows, sigma = 60_000, torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    generator = torch.Generator().manual_seed(1)
    value = gaussian(z.expand(rows, -1), torch.full((rows,), TARGET), 2, sigma=sigma, generator=generator).mean()
    expected = (miss(gaussian, z, 1.7001) - miss(gaussian, z, 1.6999)) / 0.0002
    assert expected > 0.15
    assert torch.autograd.grad(value, sigma)[0].item() == pytest.approx(expected, abs=0.01)


def test_the_exact_losses_are_what_is_estimated() -> None:
    y = torch.tensor([TARGET])
    assert lossfit.ExpectedAccuracyLoss()(Z[None], y).item() == pytest.approx(miss(score_function), rel=1e-12)
    assert lossfit.ExactLoss()(Z[None], y).item() == pytest.approx(miss(gaussian), rel=1e-7)


@pytest.mark.parametrize("estimator", EACH)
class TestEveryEstimator:
    def test_the_same_generator_draws_the_same(self, estimator: Callable[..., Tensor]) -> None:
        first, second = draw(estimator, 10, 3), draw(estimator, 10, 3)
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])
        assert first[0].unique().numel() > 1

    def test_shapes_and_ignored_rows(self, estimator: Callable[..., Tensor]) -> None:
        z, y = torch.randn(2, 3, 5), torch.randint(3, (2, 5))
        y[1, 4] = 7
        z[1, :, 4] = math.nan
        before = z.clone()
        z.requires_grad_()
        values = estimator(z, y, 4, ignore_index=7)
        assert values.shape == (2, 5)
        assert values[1, 4] == 0
        values.sum().backward()
        assert z.grad.isfinite().all()
        assert (z.grad[1, :, 4] == 0).all()
        assert torch.equal(z.detach().nan_to_num(), before.nan_to_num())
        assert estimator(torch.randn(3), torch.tensor(1)).shape == ()

    def test_each_position_gets_its_own_scores(self, estimator: Callable[..., Tensor]) -> None:
        """Targets so far ahead, or behind, that no draw changes anything."""
        y = torch.randint(3, (4, 5))
        ahead = torch.randint(2, (4, 5)).bool()
        z = 400.0 * torch.nn.functional.one_hot(y, 3).movedim(-1, 1) * torch.where(ahead, 1, -1).unsqueeze(1)
        torch.testing.assert_close(estimator(z, y, 2), 1 - ahead.float(), rtol=0, atol=1e-6)

    def test_no_rows(self, estimator: Callable[..., Tensor]) -> None:
        z = torch.zeros(0, 3, requires_grad=True)
        values = estimator(z, torch.zeros(0, dtype=torch.int64), 2)
        values.sum().backward()
        assert values.shape == (0,)
        assert z.grad.shape == (0, 3)

    def test_half_precision_is_computed_in_float32(self, estimator: Callable[..., Tensor]) -> None:
        z = torch.randn(6, 4).bfloat16().requires_grad_()
        y = torch.randint(4, (6,))
        values = estimator(z, y, 3, generator=torch.Generator().manual_seed(1))
        full = estimator(z.detach().float(), y, 3, generator=torch.Generator().manual_seed(1))
        assert values.dtype == torch.float32
        assert torch.equal(values, full)
        values.sum().backward()
        assert z.grad.dtype == torch.bfloat16

    def test_classes_ruled_out(self, estimator: Callable[..., Tensor]) -> None:
        z = torch.tensor([[0.3, -math.inf, 0.1]], requires_grad=True)
        value = estimator(z, torch.tensor([0]), 50)
        value.sum().backward()
        assert 0 < value < 1
        assert z.grad.isfinite().all()
        assert z.grad[0, 0] != 0

    @pytest.mark.parametrize(
        ("settings", "error", "match"),
        [
            ({"samples": 0}, ValueError, "`samples` of at least 1 .*, but got 0"),
            ({"samples": 2.0}, TypeError, "`samples` to be a whole number, but got float"),
            ({"target": torch.tensor([0, 4])}, IndexError, "`target` to hold class indices"),
            ({"target": torch.ones(2, 4)}, TypeError, "`target` to hold integer class indices"),
            ({"input": torch.ones(2, 4).long()}, TypeError, "`input`"),
        ],
    )
    def test_bad_arguments_are_named(
        self, estimator: Callable[..., Tensor], settings: dict[str, object], error: type[Exception], match: str
    ) -> None:
        with pytest.raises(error, match=match):
            estimator(**{"input": torch.zeros(2, 4), "target": torch.tensor([0, 1]), **settings})


@pytest.mark.parametrize(
    ("estimator", "settings", "error", "match"),
    [
        (score_function, {"baseline": "mean"}, ValueError, "`baseline` to be one of"),
        (score_function, {"baseline": "leave_one_out"}, ValueError, "`samples` of at least 2 with baseline"),
        (monte_carlo, {"noise": "laplace"}, ValueError, "`noise` to be one of"),
        (monte_carlo, {"sigma": 0.0}, ValueError, r"`sigma` in \(0, inf\), but got 0"),
        (monte_carlo, {"sigma": torch.ones(2)}, ValueError, r"`sigma` to have one entry, but got shape \(2,\)"),
        (gumbel_softmax, {"temperature": -1.0}, ValueError, r"`temperature` in \(0, inf\), but got -1"),
        (straight_through, {"temperature": 0.0}, ValueError, r"`temperature` in \(0, inf\), but got 0"),
    ],
)
def test_bad_settings_are_named(
    estimator: Callable[..., Tensor], settings: dict[str, object], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        estimator(torch.zeros(2, 4), torch.tensor([0, 1]), **settings)
