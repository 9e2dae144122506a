"""Every link against mpmath: values, gradients in the gap, derivatives in the hyper-parameters."""

import math
from collections.abc import Callable

import mpmath as mp
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

import lossfit
from helpers import build, weak_sensitivity

# Formulas are written as in the papers, which cancels and is 0 / 0 at the limits; this many digits allow it.
DIGITS = 400
NEAR = 1e-40
TINY = {dtype: torch.finfo(dtype).tiny for dtype in (torch.float32, torch.float64)}

Formula = Callable[..., mp.mpf]


def digits(numbers: list[float]) -> int:
    return 650 if any(0 < abs(v) < 1e-100 for v in numbers) else DIGITS


def p_of(d: mp.mpf) -> mp.mpf:
    return 1 / (1 + mp.exp(-d))


def ce_of(d: mp.mpf) -> mp.mpf:
    return mp.log(1 + mp.exp(-d))


def gamma_ce(d: mp.mpf, gamma: mp.mpf) -> mp.mpf:
    gamma = 1 - mp.mpf(NEAR) if gamma == 1 else gamma
    return -mp.log(gamma + (1 - gamma) * p_of(d)) / (1 - gamma)


def gce(d: mp.mpf, q: mp.mpf) -> mp.mpf:
    q = mp.mpf(NEAR) if q == 0 else q
    return (1 - p_of(d) ** q) / q


def poly(d: mp.mpf, *coefficients: mp.mpf) -> mp.mpf:
    return ce_of(d) + sum(c * (1 - p_of(d)) ** j for j, c in enumerate(coefficients, 1))


def scaled_poly(d: mp.mpf, *coefficients: mp.mpf) -> mp.mpf:
    return poly(d, *coefficients) + sum(coefficients) * ce_of(d)


def hinge(d: mp.mpf, margin: mp.mpf) -> mp.mpf:
    return max(mp.mpf(0), margin - d)


FORMULAS: dict[str, Formula] = {
    "cross_entropy": ce_of,
    "expected_accuracy": lambda d: 1 - p_of(d),
    "gamma_cross_entropy": gamma_ce,
    "focal": lambda d, gamma: (1 - p_of(d)) ** gamma * ce_of(d),
    "poly": poly,
    "poly scaled": scaled_poly,
    "generalized_cross_entropy": gce,
    "symmetric_cross_entropy": lambda d, alpha, beta, a: alpha * ce_of(d) - beta * a * (1 - p_of(d)),
    "squared": lambda d: (1 - p_of(d)) ** 2,
    "exponential": lambda d: mp.exp(-p_of(d)),
    "logistic_margin": lambda d, margin: ce_of(d - margin),
    "exponential_margin": lambda d, scale: mp.exp(-scale * d),
    "hinge": hinge,
    "hinge squared": lambda d, margin: hinge(d, margin) ** 2,
    "smooth_accuracy": lambda d, beta: p_of(-beta * d),
}
# What a link takes beside the numbers that are tested.
FIXED = {"gamma_cross_entropy": {"floor": 0.0}}
OPTIONS = {"poly scaled": {"form": "scaled"}, "hinge squared": {"squared": True}}
GAMMAS = [0.0, 1e-300, 1e-12, 1e-7, 0.1, 0.5, 1 - 1e-9, 1 - 1e-15, 1.0]
NUMBERS = {
    "gamma_cross_entropy": [{"gamma": gamma} for gamma in GAMMAS],
    "focal": [{"gamma": gamma} for gamma in (0.0, 0.5, 1.0, 2.0, 5.0)],
    "poly": [{}, {"coefficient_1": 1.0}, {"coefficient_1": -0.9}, {"coefficient_1": 2.0, "coefficient_2": -0.5}],
    "poly scaled": [{"coefficient_1": 0.7, "coefficient_2": 1.5}],
    "generalized_cross_entropy": [{"q": q} for q in (0.0, 1e-300, 1e-7, 0.3, 0.7, 1.0)],
    "symmetric_cross_entropy": [
        {"alpha": 0.1, "beta": 1.0, "log_zero": -4.0},
        {"alpha": 2.0, "beta": 0.5, "log_zero": -7.0},
    ],
    "logistic_margin": [{"margin": m} for m in (0.0, 1.0, -2.5)],
    "exponential_margin": [{"scale": s} for s in (0.5, 1.0)],
    "hinge": [{"margin": m} for m in (1.0, -0.3)],
    "hinge squared": [{"margin": 1.5}],
    "smooth_accuracy": [{"beta": b} for b in (0.5, 1.0, 3.0, 20.0)],
}
CASES = [(kind, numbers) for kind in FORMULAS for numbers in NUMBERS.get(kind, [{}])]
IDS = ["-".join([kind, *(f"{v!r}" for v in numbers.values())]) for kind, numbers in CASES]

SMALL = [1e-8, 1e-3, 0.1, 0.9, 2.0, 7.0, 15.0, 20.5, 36.0, 45.0]
GRID = sorted({0.0, *SMALL, *(-d for d in SMALL), *(140.0 * i for i in range(-5, 6)), -355.0, 355.0, -699.7, 699.7})
GRID_32 = [d for d in GRID if abs(d) <= 80] + [-80.0, 80.0]


def make(kind: str, numbers: dict[str, float]) -> lossfit.LinkLoss:
    name = kind.split()[0]
    settings = {"coefficients": list(numbers.values())} if name == "poly" else numbers
    return build(name, **settings, **OPTIONS.get(kind, {}))


def scale_of(kind: str, d: mp.mpf, exact: mp.mpf, numbers: list[mp.mpf]) -> mp.mpf:
    """What the error is relative to: the number itself, or for a polynomial that may cancel, the sum of its terms."""
    if not kind.startswith("poly"):
        return abs(exact)
    return max(abs(exact), FORMULAS[kind](d, *(abs(c) for c in numbers)) if numbers else mp.mpf(0))


def check(found: torch.Tensor, exact: list[mp.mpf], scale: list[mp.mpf], rtol: float) -> None:
    tiny, largest = TINY[found.dtype], torch.finfo(found.dtype).max
    for value, truth, size in zip(found.tolist(), exact, scale, strict=True):
        if abs(truth) > largest:
            continue
        if abs(truth) < tiny:
            assert abs(value) < 2 * tiny
        else:
            error = float(abs(value - truth) / size)
            assert error <= rtol, (value, float(truth))


def check_link(kind: str, numbers: dict[str, float], dtype: torch.dtype, rtol: float) -> None:
    loss, formula, fixed = make(kind, numbers), FORMULAS[kind], FIXED.get(kind, {})
    d = torch.tensor(GRID if dtype == torch.float64 else GRID_32, dtype=dtype, requires_grad=True)
    tensors = {k: torch.full_like(d, v).detach().requires_grad_() for k, v in numbers.items()}
    # In single precision 1e-300 is 0, and the tensor means something else than the number.
    same = all(t[0].item() == numbers[k] for k, t in tensors.items())
    for settings in [tensors] if same else [tensors, numbers]:
        at = [mp.mpf(v if isinstance(v, float) else v[0].item()) for v in settings.values()]
        with mp.workdps(digits(at)):
            gaps = [mp.mpf(v) for v in d.tolist()]
            exact = [formula(x, *at) for x in gaps]
            slopes = [mp.diff(lambda x, at=at: formula(x, *at), x) for x in gaps]
            scale = [scale_of(kind, x, e, at) for x, e in zip(gaps, exact, strict=True)]
            # The terms of a polynomial's slope are of the size of its terms times 1 - p.
            spread = [
                max(abs(s), size * (1 - p_of(x)) if kind.startswith("poly") else 0)
                for x, s, size in zip(gaps, slopes, scale, strict=True)
            ]
            for given in [settings, numbers] if same else [settings]:
                value = loss._losses(d, {**given, **fixed})
                assert value.dtype == dtype
                check(value, exact, scale, rtol)
                by_d, *by_numbers = torch.autograd.grad(value.sum(), (d, *given.values()) if given is tensors else d)
                check(by_d, slopes, spread, rtol)
                for i, found in enumerate(by_numbers):
                    by_number = [_by_number(kind, formula, x, at, i) for x in gaps]
                    check(found, by_number, [abs(s) for s in by_number], rtol)


def _by_number(kind: str, formula: Formula, d: mp.mpf, at: list[mp.mpf], i: int) -> mp.mpf:
    at = list(at)
    if kind == "gamma_cross_entropy" and at[0] == 1:
        at[0] -= mp.mpf(NEAR)
    if kind == "generalized_cross_entropy" and at[0] == 0:
        at[0] += mp.mpf(NEAR)
    return mp.diff(lambda v: formula(d, *at[:i], v, *at[i + 1 :]), at[i])


@pytest.mark.parametrize(("kind", "numbers"), CASES, ids=IDS)
def test_double_precision_to_1e_12(kind: str, numbers: dict[str, float]) -> None:
    check_link(kind, numbers, torch.float64, 1e-12)


@pytest.mark.parametrize(("kind", "numbers"), CASES, ids=IDS)
def test_single_precision_to_1e_5(kind: str, numbers: dict[str, float]) -> None:
    check_link(kind, numbers, torch.float32, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "numbers"), CASES, ids=IDS)
def test_everything_is_finite_far_out(kind: str, numbers: dict[str, float], dtype: torch.dtype) -> None:
    if kind == "exponential_margin":
        pytest.skip("it overflows, as documented")
    ends = [0.0, 50.0, 88.0, 100.0, 355.0, 700.0, 745.0, 1e3, 1e4]
    d = torch.tensor([*ends, *(-x for x in ends)], dtype=dtype, requires_grad=True)
    settings = {k: torch.full_like(d, v).detach().requires_grad_() for k, v in numbers.items()}
    value = make(kind, numbers)._losses(d, {**settings, **FIXED.get(kind, {})})
    assert value.isfinite().all()
    for by in torch.autograd.grad(value.sum(), (d, *settings.values())):
        assert by.isfinite().all()


@pytest.mark.parametrize(("kind", "numbers"), CASES, ids=IDS)
def test_gradients_of_both_orders(kind: str, numbers: dict[str, float]) -> None:
    loss = make(kind, numbers)
    d = torch.tensor([-4.3, -1.7, -0.6, 0.3, 0.8, 2.9], dtype=torch.float64, requires_grad=True)
    inner = {k: min(max(v, 0.05), 0.95) if k in ("gamma", "q") else v for k, v in numbers.items()}
    settings = [torch.full_like(d, v).detach().requires_grad_() for v in inner.values()]

    def link(d: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return loss._losses(d, {**dict(zip(numbers, values, strict=True)), **FIXED.get(kind, {})})

    assert gradcheck(link, (d, *settings))
    assert gradgradcheck(link, (d, *settings))
    assert gradgradcheck(lambda d: loss._losses(d, {**numbers, **FIXED.get(kind, {})}), d)


@pytest.mark.parametrize(
    ("kind", "key", "values"),
    [
        ("gamma_cross_entropy", "gamma", [0.0, 1e-300, 1e-100, 1e-20]),
        ("gamma_cross_entropy", "gamma", [1 - 1e-12, 1 - 1e-15, 1.0]),
        ("generalized_cross_entropy", "q", [0.0, 1e-300, 1e-100, 1e-17]),
        ("generalized_cross_entropy", "q", [1 - 1e-15, 1.0]),
        ("focal", "gamma", [0.0, 1e-300, 1e-17]),
    ],
)
def test_no_jump_at_the_limits(kind: str, key: str, values: list[float]) -> None:
    d = torch.linspace(-30, 30, 121, dtype=torch.float64)
    tensors = [torch.tensor(v, dtype=torch.float64) for v in values]
    found = [make(kind, {key: 0.5})._losses(d, {key: v, **FIXED.get(kind, {})}) for v in (*values, *tensors)]
    # The change in the hyper-parameter times a bound of the slope in it.
    allowed = {"gamma_cross_entropy": 1e-20 * math.exp(30) if values[0] == 0 else 1e-12, "focal": 1e-14}.get(
        kind, 1e-13
    )
    for one in found:
        torch.testing.assert_close(one, found[0], rtol=allowed + 1e-13, atol=0)


def half(p: torch.Tensor) -> torch.Tensor:
    return 0.5 + 0 * p


def one_over(p: torch.Tensor) -> torch.Tensor:
    return 1 / p


class TestDesignedGradients:
    """Losses whose gradient was designed and is not the derivative of their value."""

    d = torch.tensor([-699.0, -30.0, -2.0, 0.0, 1.5, 30.0, 699.0], dtype=torch.float64)

    def value_and_gradient(self, loss: lossfit.LinkLoss, **settings: float) -> tuple[torch.Tensor, torch.Tensor]:
        d = self.d.clone().requires_grad_()
        value = loss._losses(d, settings)
        return value.detach(), torch.autograd.grad(value.sum(), d)[0]

    def exact(self, formula: Formula) -> torch.Tensor:
        with mp.workdps(DIGITS):
            return torch.tensor([float(formula(mp.mpf(x))) for x in self.d.tolist()], dtype=torch.float64)

    def test_a_sensitivity_of_1_over_p_is_cross_entropy(self) -> None:
        value, grad = self.value_and_gradient(lossfit.SensitivityLoss(one_over))
        torch.testing.assert_close(value, self.exact(ce_of), rtol=1e-12, atol=0)
        torch.testing.assert_close(grad, self.exact(lambda d: p_of(d) - 1), rtol=1e-12, atol=0)

    def test_a_sensitivity_of_1_over_p_is_finite_where_p_underflows(self) -> None:
        for dtype in (torch.float32, torch.float64):
            d = torch.tensor([-1e4, 1e4], dtype=dtype, requires_grad=True)
            value = lossfit.SensitivityLoss(one_over)._losses(d, {})
            assert value.isfinite().all()
            assert torch.autograd.grad(value.sum(), d)[0].tolist() == [-1, 0]

    def test_the_gradient_is_the_sensitivity_times_that_of_p(self) -> None:
        _, grad = self.value_and_gradient(lossfit.SensitivityLoss(weak_sensitivity))
        expected = self.exact(lambda d: -p_of(d) * (1 - p_of(d)) / (mp.mpf(0.2) + mp.mpf(0.8) * p_of(d)))
        torch.testing.assert_close(grad, expected, rtol=1e-12, atol=0)

    def test_a_weight_is_taken_as_it_is(self) -> None:
        value, grad = self.value_and_gradient(lossfit.SensitivityLoss(half, of="weight"))
        torch.testing.assert_close(value, self.exact(lambda d: ce_of(d) / 2), rtol=1e-12, atol=0)
        torch.testing.assert_close(grad, self.exact(lambda d: (p_of(d) - 1) / 2), rtol=1e-12, atol=0)

    @pytest.mark.parametrize("gamma", [0.0, 1e-7, 0.1, 0.5, 1.0])
    @pytest.mark.parametrize("floor", [1e-300, 0.01, 0.3, 1.0])
    def test_a_floor_bounds_the_weight_of_cross_entropy(self, gamma: float, floor: float) -> None:
        loss = lossfit.GammaCrossEntropyLoss(gamma, floor)
        value, grad = self.value_and_gradient(loss, gamma=gamma, floor=floor)

        def weight(d: mp.mpf) -> mp.mpf:
            p = p_of(d)
            return max(mp.mpf(floor), p / (mp.mpf(gamma) + (1 - mp.mpf(gamma)) * p))

        torch.testing.assert_close(value, self.exact(lambda d: weight(d) * ce_of(d)), rtol=1e-12, atol=0)
        torch.testing.assert_close(grad, self.exact(lambda d: weight(d) * (p_of(d) - 1)), rtol=1e-12, atol=0)

    def test_towards_a_floor_of_0_the_gradient_is_that_of_the_closed_form(self) -> None:
        _, floored = self.value_and_gradient(lossfit.GammaCrossEntropyLoss(0.2, 1e-308), gamma=0.2, floor=1e-308)
        _, closed = self.value_and_gradient(lossfit.GammaCrossEntropyLoss(0.2), gamma=0.2, floor=0.0)
        torch.testing.assert_close(floored, closed, rtol=1e-13, atol=0)
        torch.testing.assert_close(closed, self.exact(lambda d: mp.diff(lambda x: gamma_ce(x, mp.mpf(0.2)), d)))

    def test_a_gamma_that_learns_cannot_have_a_floor(self) -> None:
        gamma = torch.tensor(0.3, requires_grad=True)
        loss = lossfit.GammaCrossEntropyLoss(gamma, floor=0.1)
        with pytest.raises(ValueError, match="`gamma` without a gradient where `floor` is above 0"):
            loss(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))


STEEP = {"smooth_accuracy": 20.0, "focal": 6.0}


@pytest.mark.parametrize(("kind", "numbers"), CASES, ids=IDS)
def test_two_classes_end_to_end(kind: str, numbers: dict[str, float]) -> None:
    loss, formula = make(kind, numbers), FORMULAS[kind]
    loss.reduction = "none"
    gaps = [-300.0, -40.0, -3.0, -0.2, 0.7, 4.0, 40.0, 300.0]
    for target in (0, 1):
        scores = [[d, 0.0] if target == 0 else [0.0, d] for d in gaps]
        z = torch.tensor(scores, dtype=torch.float64, requires_grad=True)
        rows = loss(z, torch.full((len(gaps),), target))
        grad = torch.autograd.grad(rows.sum(), z)[0]
        at = [mp.mpf(v) for v in numbers.values()]
        with mp.workdps(digits(at)):
            exact = [formula(mp.mpf(d), *at) for d in gaps]
            slope = [mp.diff(lambda d, at=at: formula(d, *at), mp.mpf(d)) for d in gaps]
            rtol = 1e-12 * STEEP.get(kind, 1.0)
            scale = [scale_of(kind, mp.mpf(d), e, at) for d, e in zip(gaps, exact, strict=True)]
            check(rows, exact, scale, rtol)
            check(grad[:, target], slope, scale if kind.startswith("poly") else [abs(s) for s in slope], rtol)
            check(grad[:, 1 - target], [-s for s in slope], [*map(abs, slope)] if kind[:4] != "poly" else scale, rtol)


class TestOwnLink:
    """LinkLoss with the user's function."""

    def test_is_the_function_of_the_gap(self) -> None:
        z = torch.tensor([[1.0, 2.0, 0.5], [3.0, 0.0, 1.0]], dtype=torch.float64)
        loss = lossfit.LinkLoss(lambda d: d**3, gap="hard", reduction="none")
        assert loss(z, torch.tensor([0, 0])).tolist() == [-1.0, 8.0]

    def test_softplus_of_the_soft_gap_is_cross_entropy(self) -> None:
        z, y = torch.randn(6, 4, dtype=torch.float64, requires_grad=True), torch.randint(4, (6,))
        loss = lossfit.LinkLoss(lambda d: functional.softplus(-d))(z, y)
        expected = functional.cross_entropy(z, y)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(torch.autograd.grad(loss, z)[0], torch.autograd.grad(expected, z)[0])

    def test_a_module_as_link_is_trained_along(self) -> None:
        class Slope(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.slope = torch.nn.Parameter(torch.tensor(2.0))

            def forward(self, d: torch.Tensor) -> torch.Tensor:
                return functional.softplus(-self.slope * d)

        loss = lossfit.LinkLoss(Slope())
        assert [name for name, _ in loss.named_parameters()] == ["link.slope"]
        z = torch.tensor([[1.0, 0.0]])
        loss(z, torch.tensor([0])).backward()
        assert loss.link.slope.grad.item() == pytest.approx(-1 / (1 + math.exp(2)), rel=1e-6)

    def test_soft_targets_and_smoothing(self) -> None:
        z = torch.randn(5, 3, dtype=torch.float64)
        q = torch.rand(5, 3, dtype=torch.float64)
        found = lossfit.LinkLoss(lambda d: functional.softplus(-d), reduction="none", label_smoothing=0.2)(z, q)
        expected = functional.cross_entropy(z, q, reduction="none", label_smoothing=0.2)
        torch.testing.assert_close(found, expected)

    def test_errors(self) -> None:
        with pytest.raises(TypeError, match="`link` to be a function of the gap, but got int"):
            lossfit.LinkLoss(3)
        with pytest.raises(ValueError, match=r"`gap` to be one of 'soft', 'hard', but got 'sofd'\. Did you mean"):
            lossfit.LinkLoss(torch.relu, gap="sofd")
