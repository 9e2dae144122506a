"""Margins, against mpmath and against the formulas of their papers and of other libraries, written out."""

import copy
import math
import pickle

import mpmath as mp
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

import lossfit
from lossfit import AdditiveMargin, AngularMargin, ArcMargin, CombinedMargin

FACTORS = [1, 1.35, 1.5, 2, 2.5, 3, 3.999, 4, 4.0001, 7.3]
MONOTONE = [
    AdditiveMargin(0.35),
    *(ArcMargin(m) for m in (0.0, 0.5, 1.7, math.pi)),
    *(AngularMargin(m) for m in FACTORS),
    AngularMargin(4, annealing=5.0),
    CombinedMargin(1.35, 0.4, 0.2),
    CombinedMargin(0.9, 0.3, -0.1),
    CombinedMargin(2.3, -0.6, 0.0),
]
EXACT_GRADIENT = [*MONOTONE, ArcMargin(0.5, "pml")]


def cosines(angles: Tensor) -> Tensor:
    return torch.cos(angles.double())


def psi(phi: mp.mpf) -> mp.mpf:
    k = mp.floor(phi / mp.pi)
    return (-1) ** int(k) * mp.cos(phi) - 2 * k


def scalar(margin: lossfit.Margin, cosine: float) -> float:
    return margin(torch.tensor([cosine], dtype=torch.float64)).item()


class TestValues:
    # The cosine as a float64 is what the reference starts from: its angle is rounded already.
    COSINES = [*torch.cos(torch.linspace(0, math.pi, 101, dtype=torch.float64)).tolist(), 1 - 1e-9, 1e-9 - 1, 1e-300]

    @pytest.mark.parametrize("m", FACTORS)
    def test_a_factor_on_the_angle(self, m: float) -> None:
        for c in self.COSINES:
            with mp.workdps(40):
                expected = float(psi(mp.mpf(m) * mp.acos(mp.mpf(c))))
            assert scalar(AngularMargin(m), c) == pytest.approx(expected, rel=1e-14, abs=1e-14 * m)

    def test_annealing_blends_with_the_cosine(self) -> None:
        for c in self.COSINES:
            with mp.workdps(40):
                expected = float((5 * mp.mpf(c) + psi(4 * mp.acos(mp.mpf(c)))) / 6)
            assert scalar(AngularMargin(4, annealing=5.0), c) == pytest.approx(expected, rel=1e-14, abs=1e-14)

    def test_all_three_margins(self) -> None:
        for c in self.COSINES:
            with mp.workdps(40):
                expected = float(psi(mp.mpf(1.35) * mp.acos(mp.mpf(c)) - mp.mpf(0.4)) - mp.mpf(0.2))
            assert scalar(CombinedMargin(1.35, -0.4, 0.2), c) == pytest.approx(expected, rel=1e-14, abs=1e-14)

    @pytest.mark.parametrize("m", [0.0, 0.1, 0.5, 2.0, math.pi])
    def test_an_angle_added(self, m: float) -> None:
        for c in self.COSINES:
            with mp.workdps(40):
                theta = mp.acos(mp.mpf(c))
                within = theta + mp.mpf(m) <= mp.pi
                expected = float(mp.cos(theta + mp.mpf(m)) if within else -2 - mp.cos(theta + mp.mpf(m)))
            assert scalar(ArcMargin(m), c) == pytest.approx(expected, rel=1e-14, abs=1e-14)

    def test_a_cosine_less(self) -> None:
        assert AdditiveMargin(0.25)(torch.tensor([0.5, -1.0])).tolist() == [0.25, -1.25]

    @pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
    def test_whole_factors_are_chebyshev_polynomials(self, m: int) -> None:
        c = cosines(torch.linspace(0.001, 3.14, 97))
        k = torch.floor(m * torch.acos(c) / math.pi)
        expected = (-1) ** k * torch.special.chebyshev_polynomial_t(c, m) - 2 * k
        assert_close(AngularMargin(m)(c), expected, rtol=0, atol=1e-12)

    def test_margins_that_are_none(self) -> None:
        c = cosines(torch.linspace(0, math.pi, 50))
        for margin in (AdditiveMargin(0.0), ArcMargin(0.0), AngularMargin(1), CombinedMargin(), ArcMargin(0.0, "pml")):
            assert_close(margin(c), c, rtol=0, atol=1e-15)

    def test_one_margin_of_the_three(self) -> None:
        c = cosines(torch.linspace(0, math.pi, 50))
        assert torch.equal(CombinedMargin(m1=2.5)(c), AngularMargin(2.5)(c))
        assert torch.equal(CombinedMargin(m2=0.5)(c), ArcMargin(0.5)(c))
        assert_close(CombinedMargin(m3=0.2)(c), AdditiveMargin(0.2)(c), rtol=0, atol=1e-15)

    @pytest.mark.parametrize("margin", MONOTONE, ids=str)
    def test_it_falls_over_all_angles(self, margin: lossfit.Margin) -> None:
        score = margin(cosines(torch.linspace(0, math.pi, 20001)))
        assert (score.diff() < 1e-14).all()
        assert (score[:-100] > score[100:]).all()

    @given(m1=st.floats(0.05, 8), m2=st.floats(-math.pi, math.pi), m3=st.floats(-2, 2))
    @settings(max_examples=60, deadline=None)
    def test_any_three_margins_fall(self, m1: float, m2: float, m3: float) -> None:
        score = CombinedMargin(m1, m2, m3)(cosines(torch.linspace(0, math.pi, 500)))
        assert (score.diff() < 1e-13).all()

    @pytest.mark.parametrize("m", [m for m in FACTORS if m > 1])
    def test_no_jump_in_value_or_slope_where_pieces_meet(self, m: float) -> None:
        h = 1e-7
        for k in range(1, math.ceil(m)):
            at = torch.tensor([k * math.pi / m - h, k * math.pi / m + h], dtype=torch.float64, requires_grad=True)
            score = AngularMargin(m)(torch.cos(at))
            (slope,) = torch.autograd.grad(score.sum(), at)
            assert abs(score[0] - score[1]).item() < 1e-12
            assert abs(slope[0] - slope[1]).item() < 3 * m * m * h

    def test_the_annealed_score_is_at_most_the_cosine(self) -> None:
        c = cosines(torch.linspace(0, math.pi, 301))
        for m in FACTORS:
            assert (AngularMargin(m, annealing=0.7)(c) <= c + 1e-14).all()

    def test_cosines_beyond_one_count_as_one(self) -> None:
        c = torch.tensor([1.0, -1.0])
        for margin in (ArcMargin(0.5), AngularMargin(2.5)):
            assert_close(margin(c * (1 + 1e-6)), margin(c), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_computed_in_float32(self, dtype: torch.dtype) -> None:
        c = torch.linspace(-1, 1, 11).to(dtype)
        for margin in (AdditiveMargin(), ArcMargin(), AngularMargin()):
            assert margin(c).dtype == torch.float32
            assert torch.equal(margin(c), margin(c.float()))

    def test_float32_follows_float64(self) -> None:
        c = torch.linspace(-1, 1, 1001)
        for margin in MONOTONE:
            assert_close(margin(c).double(), margin(c.double()), rtol=0, atol=6e-6)


class TestConventions:
    """Other libraries' formulas, as their sources have them."""

    THETA = torch.linspace(0.01, 3.13, 313, dtype=torch.float64)

    def test_pml(self) -> None:
        theta, m = self.THETA, math.radians(28.6)
        expected = torch.where(theta <= math.pi - m, torch.cos(theta + m), torch.cos(theta) - m * math.sin(m))
        assert_close(ArcMargin(m, "pml")(torch.cos(theta)), expected, rtol=0, atol=1e-14)

    def test_pml_jumps_as_documented(self) -> None:
        m, h = 0.5, 1e-9
        before, after = ArcMargin(m, "pml")(torch.cos(math.pi - m + torch.tensor([-h, h], dtype=torch.float64)))
        assert (after - before).item() == pytest.approx(1 - math.cos(m) - m * math.sin(m), abs=1e-8)

    def test_insightface_trains_the_cosine(self) -> None:
        c = torch.cos(self.THETA).requires_grad_()
        score = ArcMargin(0.5, "insightface")(c)
        assert_close(score, torch.cos(self.THETA + 0.5), rtol=0, atol=1e-14)
        assert torch.equal(torch.autograd.grad(score.sum(), c)[0], torch.ones_like(c))

    def test_they_agree_where_nothing_is_beyond(self) -> None:
        c = torch.cos(torch.linspace(0.01, math.pi - 0.51, 100, dtype=torch.float64))
        assert torch.equal(ArcMargin(0.5, "pml")(c), ArcMargin(0.5)(c))
        assert torch.equal(ArcMargin(0.5, "insightface")(c), ArcMargin(0.5)(c))


class TestGradients:
    @pytest.mark.parametrize("margin", EXACT_GRADIENT, ids=str)
    def test_first_and_second_derivative(self, margin: lossfit.Margin) -> None:
        # Away from where pieces meet: the second derivative jumps there.
        c = cosines(torch.tensor([0.05, 0.4, 1.1, 1.9, 2.4, 2.9])).requires_grad_()
        assert torch.autograd.gradcheck(margin, c, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(margin, c, atol=1e-4)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("margin", [*EXACT_GRADIENT, ArcMargin(0.5, "insightface")], ids=str)
    def test_finite_at_the_poles(self, margin: lossfit.Margin, dtype: torch.dtype) -> None:
        c = torch.tensor([1, -1, 1 + 1e-6, -1 - 1e-6], dtype=dtype, requires_grad=True)
        (slope,) = torch.autograd.grad(margin(c).sum(), c, create_graph=True)
        assert slope.isfinite().all()
        assert (slope >= 0).all()
        if slope.requires_grad:
            assert torch.autograd.grad(slope.sum(), c)[0].isfinite().all()

    @pytest.mark.parametrize("m", FACTORS)
    def test_the_slope_at_an_angle_of_zero_is_the_factor_squared(self, m: float) -> None:
        for dtype, rel in ((torch.float64, 1e-14), (torch.float32, 2e-5)):
            c = torch.ones(1, dtype=dtype, requires_grad=True)
            (slope,) = torch.autograd.grad(AngularMargin(m)(c), c)
            assert slope.item() == pytest.approx(m * m, rel=rel)

    @pytest.mark.parametrize("m", [2, 3, 4])
    def test_the_slope_of_a_whole_factor_against_mpmath(self, m: int) -> None:
        for value in (1 - 1e-12, 1 - 1e-6, 0.999, 0.3, -0.2, -0.999, 1e-12 - 1):
            c = torch.tensor([value], dtype=torch.float64, requires_grad=True)
            (slope,) = torch.autograd.grad(AngularMargin(m)(c), c)
            with mp.workdps(40):
                k = int(mp.floor(m * mp.acos(mp.mpf(value)) / mp.pi))
                expected = float((-1) ** k * m * mp.chebyu(m - 1, mp.mpf(value)))
            assert slope.item() == pytest.approx(expected, rel=1e-8)

    @pytest.mark.parametrize(
        ("make", "numbers"),
        [
            (lambda m: AdditiveMargin(m), [0.3]),
            (lambda m: ArcMargin(m), [0.5]),
            (lambda m: ArcMargin(m, "pml"), [0.5]),
            (lambda m: ArcMargin(m, "insightface"), [0.5]),
            (lambda m, a: AngularMargin(m, a), [2.5, 3.0]),
            (lambda a, b, c: CombinedMargin(a, b, c), [1.3, 0.4, 0.1]),
        ],
        ids=["additive", "arc", "pml", "insightface", "angular", "combined"],
    )
    def test_in_the_hyper_parameters(self, make: object, numbers: list[float]) -> None:
        c, y = cosines(torch.tensor([0.3, 1.1, 2.0, 2.9])), torch.tensor([0, 1, 1, 0])
        single = [torch.tensor(n, dtype=torch.float64, requires_grad=True) for n in numbers]
        per_class = [torch.tensor([n, n + 0.1], dtype=torch.float64, requires_grad=True) for n in numbers]
        assert torch.autograd.gradcheck(lambda *n: make(*n)(c), single)
        assert torch.autograd.gradcheck(lambda *n: make(*n)(c, y), per_class)

    def test_transformations_of_functions(self) -> None:
        c = cosines(torch.rand(3, 4) * 3)
        margin = CombinedMargin(1.4, 0.2, 0.1)
        each = torch.func.vmap(torch.func.grad(lambda c: margin(c).sum()))(c)
        (whole,) = torch.autograd.grad(margin(c.requires_grad_()).sum(), c)
        assert_close(each, whole)


class TestHyperParameters:
    def test_one_for_each_class(self) -> None:
        c, y = torch.tensor([0.5, 0.5, 0.1]), torch.tensor([2, 0, 1])
        m = torch.tensor([0.1, 0.2, 0.4])
        assert_close(AdditiveMargin(m)(c, y), c - m[y])
        assert_close(ArcMargin(m)(c, y)[0], ArcMargin(0.4)(c[:1])[0])
        with pytest.raises(ValueError, match="`target`, the classes of the rows, since `m` has one entry per class"):
            AdditiveMargin(m)(c)

    def test_the_best_score(self) -> None:
        assert AdditiveMargin(0.35)._best() == pytest.approx(0.65)
        assert ArcMargin(0.5)._best() == pytest.approx(math.cos(0.5))
        assert AngularMargin(3, annealing=2.0)._best() == 1
        assert CombinedMargin(2.0, 0.3, 0.1)._best() == pytest.approx(math.cos(0.3) - 0.1)
        assert AdditiveMargin(torch.tensor([0.1, 0.4]))._best() == pytest.approx(0.6)

    def test_schedules(self) -> None:
        margin = AngularMargin(4, annealing=lambda step: max(5.0, 1000 / (1 + 0.12 * step)))
        c = torch.tensor([0.3], dtype=torch.float64)
        for step in (0, 1, 2):
            weight = 1000 / (1 + 0.12 * step)
            assert scalar(margin, 0.3) == pytest.approx((weight * 0.3 + AngularMargin(4)(c).item()) / (1 + weight))
            margin.step()
        margin.step(to=10**6)
        assert margin.annealing == 5
        again = AngularMargin(4, annealing=lambda step: max(5.0, 1000 / (1 + 0.12 * step)))
        again.load_state_dict(margin.state_dict())
        assert again.annealing == 5
        again.step()
        assert int(again.steps) == 10**6 + 1

    def test_a_schedule_is_checked(self) -> None:
        margin = AngularMargin(m=lambda step: 2.0 - step)
        with pytest.raises(ValueError, match=r"`m at step 2` in \[1, inf\), but got 0"):
            margin.step(to=2)

    def test_parameters_and_copies(self) -> None:
        margin = ArcMargin(torch.nn.Parameter(torch.tensor(0.4)))
        assert [name for name, _ in margin.named_parameters()] == ["m"]
        c = torch.linspace(-1, 1, 7)
        for other in (copy.deepcopy(margin), pickle.loads(pickle.dumps(margin))):
            assert torch.equal(other(c), margin(c))
        assert repr(ArcMargin(0.5, "pml")) == "ArcMargin(m=0.5, beyond='pml')"
        assert repr(AdditiveMargin(torch.ones(3))) == "AdditiveMargin(m=(3,))"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AngularMargin(0.5), ValueError, r"`m` in \[1, inf\), but got 0.5"),
        (lambda: AngularMargin(math.inf), ValueError, r"`m` in \[1, inf\), but got inf"),
        (lambda: AngularMargin(math.nan), ValueError, r"`m` in \[1, inf\), but got nan"),
        (lambda: AngularMargin(2, annealing=-1.0), ValueError, r"`annealing` in \[0, inf\), but got -1"),
        (lambda: ArcMargin(-0.1), ValueError, r"`m` in \[0, 3.14159\], but got -0.1"),
        (lambda: ArcMargin(28.6), ValueError, r"`m` in \[0, 3.14159\], but got 28.6"),
        (lambda: ArcMargin(0.5, beyond="clip"), ValueError, r"`beyond` to be one of 'continue', 'pml', 'insightface'"),
        (lambda: AdditiveMargin(3.0), ValueError, r"`m` in \[-2, 2\], but got 3"),
        (lambda: AdditiveMargin("0.3"), TypeError, "`m` to be a number, a torch.Tensor or a function of the step"),
        (lambda: AdditiveMargin(torch.tensor([0.1, math.nan])), ValueError, "`m`"),
        (
            lambda: AdditiveMargin(torch.zeros(2, 3)),
            ValueError,
            r"`m` to be a number or of shape \(C,\), but got \(2, 3",
        ),
        (lambda: CombinedMargin(m1=0.0), ValueError, r"`m1` in \(0, inf\), but got 0"),
        (lambda: CombinedMargin(m2=4.0), ValueError, r"`m2` in \[-3.14159, 3.14159\]"),
        (lambda: CombinedMargin(m3=-2.5), ValueError, r"`m3` in \[-2, 2\]"),
        (lambda: ArcMargin()([1.0]), TypeError, "`cosine` to be a floating-point tensor, but got list"),
        (
            lambda: ArcMargin()(torch.tensor([1])),
            TypeError,
            "`cosine` to be a floating-point tensor, but got torch.int64",
        ),
    ],
)
def test_bad_input(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
