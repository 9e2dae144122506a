"""Ranking losses against sums over all pairs, and against scikit-learn's metrics."""

import math
import pickle
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor
from torch.testing import assert_close

import lossfit
from lossfit.core.limits import limited

SURROGATES = ["logistic", "squared_hinge", "square", "hinge", "sigmoid"]
LOSSES = [lossfit.AUCLoss, lossfit.PartialAUCLoss, lossfit.AveragePrecisionLoss]
EXACT = {"square", "hinge", "squared_hinge"}

# Surrogates of v = m - (s_i - s_j), and their slopes.
FORMULAS = {
    "logistic": (lambda v: np.logaddexp(0, v), expit),
    "squared_hinge": (lambda v: np.maximum(v, 0) ** 2, lambda v: 2 * np.maximum(v, 0)),
    "square": (lambda v: v**2, lambda v: 2 * v),
    "hinge": (lambda v: np.maximum(v, 0), lambda v: (v > 0).astype(float)),
    "sigmoid": (expit, lambda v: expit(v) * expit(-v)),
}


def longhand(surrogate: str, s: Tensor, y: Tensor, margin: float, w: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The mean over all pairs and its gradient, from the matrix of pairs."""
    z, up = s.detach().numpy(), y.numpy().astype(bool)
    w = np.ones(len(z)) if w is None else w.numpy()
    value, slope = FORMULAS[surrogate]
    v = margin - (z[up][:, None] - z[~up][None, :])
    both = w[up][:, None] * w[~up][None, :]
    gradient = np.zeros(len(z))
    gradient[up] = -(both * slope(v)).sum(1) / both.sum()
    gradient[~up] = (both * slope(v)).sum(0) / both.sum()
    return torch.tensor((both * value(v)).sum() / both.sum()), torch.from_numpy(gradient)


def margin_of(surrogate: str) -> float:
    return 1.0 if surrogate in EXACT else 0.0


def found(loss: torch.nn.Module, s: Tensor, *rest: Tensor, **named: Tensor) -> tuple[Tensor, Tensor]:
    s = s.detach().clone().requires_grad_()
    value = loss(s, *rest, **named)
    return value.detach(), torch.autograd.grad(value, s)[0]


def batch(n: int, share: float = 0.25) -> tuple[Tensor, Tensor]:
    return torch.randn(n, dtype=torch.float64), (torch.arange(n) < math.ceil(share * n)).long()[torch.randperm(n)]


@pytest.fixture
def always_fast() -> Iterator[None]:
    """No pair is looked at alone, however few there are."""
    with limited(few_pairs=0, few_double_pairs=0):
        yield


def situation(name: str) -> tuple[Tensor, Tensor]:
    """Scores and targets that are hard to sum."""
    s, y = batch(3000)
    kind, _, number = name.partition(" ")
    if kind == "scale":
        s *= float(number)
    elif kind == "apart":
        s += float(number) * y
    elif kind == "outliers":
        s[:6] = torch.tensor([1e8, -1e8, 1e8, -1e8, 3e7, -2e8], dtype=s.dtype)
        y[:6] = torch.tensor([0, 0, 1, 1, 1, 0])
    elif kind == "ties":
        s = (3 * s).round()
    elif kind == "one":
        y.fill_(1 - int(number))[17] = int(number)
    elif kind == "few":
        s, y = batch(int(number), 0.5)
    return s, y


SITUATIONS = [
    *(f"scale {scale:g}" for scale in (0.01, 1, 30, 1e4)),
    *(f"apart {shift:g}" for shift in (30, 200, -100)),
    "outliers",
    "ties",
    "one 1",
    "one 0",
    "few 2",
    "few 40",
]


@pytest.mark.parametrize("surrogate", SURROGATES)
class TestAUC:
    """Every surrogate."""

    @pytest.mark.usefixtures("always_fast")
    @pytest.mark.parametrize("name", SITUATIONS)
    def test_value_and_gradient_are_those_of_the_pairs(self, surrogate: str, name: str) -> None:
        s, y = situation(name)
        value, gradient = found(lossfit.AUCLoss(surrogate), s, y)
        expected, slopes = longhand(surrogate, s, y, margin_of(surrogate))
        if surrogate in EXACT:
            assert_close(value, expected, rtol=1e-12, atol=0)
            assert_close(gradient, slopes, rtol=1e-12, atol=1e-12 * slopes.abs().max().item())
        else:
            assert_close(value, expected, rtol=1e-10, atol=0)
            assert_close(gradient, slopes, rtol=1e-9, atol=1e-300)

    @pytest.mark.usefixtures("always_fast")
    def test_weights_count_pairs(self, surrogate: str) -> None:
        s, y = batch(400)
        w = torch.rand(400, dtype=torch.float64)
        w[::7] = 0
        value, gradient = found(lossfit.AUCLoss(surrogate, margin=0.5), s, y, sample_weight=w)
        expected, slopes = longhand(surrogate, s, y, 0.5, w)
        assert_close(value, expected, rtol=1e-10, atol=0)
        assert_close(gradient, slopes, rtol=1e-9, atol=1e-16)
        assert not gradient[::7].any()

    def test_the_pairs_of_a_small_batch_give_the_same(self, surrogate: str) -> None:
        s, y = batch(200)
        value, gradient = found(lossfit.AUCLoss(surrogate), s, y)
        expected, slopes = longhand(surrogate, s, y, margin_of(surrogate))
        assert_close(value, expected, rtol=1e-13, atol=0)
        assert_close(gradient, slopes, rtol=1e-12, atol=1e-17)

    @pytest.mark.parametrize("rows", [100, 600, 3000])
    def test_single_precision_loses_no_more_than_its_rounding(self, surrogate: str, rows: int) -> None:
        s, y = batch(rows)
        s = (100 * s).float()
        value, gradient = found(lossfit.AUCLoss(surrogate), s, y)
        expected, slopes = longhand(surrogate, s.double(), y, margin_of(surrogate))
        assert_close(value, expected.float(), rtol=3e-7, atol=0)
        assert_close(gradient, slopes.float(), rtol=1e-6, atol=1e-6 * slopes.abs().max().item())

    def test_the_sum_is_over_the_pairs(self, surrogate: str) -> None:
        s, y = batch(50)
        value, gradient = found(lossfit.AUCLoss(surrogate, reduction="sum"), s, y)
        mean, slopes = found(lossfit.AUCLoss(surrogate), s, y)
        number = y.sum() * (1 - y).sum()
        assert_close(value, mean * number)
        assert_close(gradient, slopes * number)

    def test_the_margin_gets_a_gradient(self, surrogate: str) -> None:
        s, y = batch(40)
        margin = torch.tensor(0.7, dtype=torch.float64)

        def loss(m: Tensor) -> Tensor:
            return lossfit.AUCLoss(surrogate, margin=m)(s, y)

        assert torch.autograd.gradcheck(loss, margin.clone().requires_grad_())
        assert_close(loss(margin), longhand(surrogate, s, y, 0.7)[0])

    @pytest.mark.usefixtures("always_fast")
    @settings(max_examples=25, deadline=None)
    @given(data=st.data())
    def test_order_of_rows_and_origin_of_scores_do_not_matter(self, surrogate: str, data: st.DataObject) -> None:
        number = st.floats(-60, 60, allow_subnormal=False)
        rows = data.draw(st.lists(st.tuples(number, st.booleans()), min_size=2, max_size=30))
        s = torch.tensor([row[0] for row in rows], dtype=torch.float64)
        y = torch.tensor([row[1] for row in rows])
        loss = lossfit.AUCLoss(surrogate)
        value, gradient = found(loss, s, y)
        order = torch.tensor(data.draw(st.permutations(range(len(rows)))))
        again, there = found(loss, s[order], y[order])
        assert_close(again, value, rtol=1e-12, atol=1e-15)
        assert_close(there, gradient[order], rtol=1e-11, atol=1e-15)
        shifted = found(loss, s + data.draw(st.floats(-1e3, 1e3)), y)[0]
        assert_close(shifted, value, rtol=1e-8, atol=1e-10)

    def test_half_precision_is_summed_in_double(self, surrogate: str) -> None:
        s, y = batch(2000)
        half = s.to(torch.bfloat16)
        value, gradient = found(lossfit.AUCLoss(surrogate), half, y)
        expected, slopes = found(lossfit.AUCLoss(surrogate), half.double(), y)
        assert value == expected.float()
        assert torch.equal(gradient, slopes.bfloat16())

    @pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch does it
    def test_compiles_as_one_graph(self, surrogate: str) -> None:
        s, y = batch(30)
        loss = lossfit.AUCLoss(surrogate)
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        assert_close(found(compiled, s, y), found(loss, s, y), rtol=0, atol=0)

    def test_transforms(self, surrogate: str) -> None:
        s, y = torch.randn(3, 40, dtype=torch.float64), batch(40)[1]
        loss = lossfit.AUCLoss(surrogate)
        each = torch.func.vmap(torch.func.grad(lambda z: loss(z, y)))(s)
        assert torch.equal(each, torch.stack([found(loss, row, y)[1] for row in s]))
        values = torch.func.vmap(loss, in_dims=(0, None))(s, y)
        assert torch.equal(values, torch.stack([loss(row, y) for row in s]))


def test_the_margin_is_one_where_a_lead_is_asked_for() -> None:
    assert [lossfit.AUCLoss(surrogate).margin for surrogate in SURROGATES] == [0.0, 1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("weighted", [False, True])
def test_the_sharp_sigmoid_is_auc(weighted: bool) -> None:
    s, y = batch(500)
    s = (4 * (s + y)).round()  # with ties, which count half
    w = torch.rand(500, dtype=torch.float64) if weighted else None
    found = lossfit.AUCLoss("sigmoid")(1e3 * s, y, sample_weight=w)
    assert found.item() == pytest.approx(1 - roc_auc_score(y, s, sample_weight=w), rel=1e-12)


class TestPartialAUC:
    """Which negatives count."""

    @pytest.mark.parametrize("surrogate", SURROGATES)
    def test_all_false_positive_rates_are_auc(self, surrogate: str) -> None:
        s, y = batch(100)
        partial = lossfit.PartialAUCLoss(surrogate, low=0.0, high=1.0)
        assert torch.equal(partial(s, y), lossfit.AUCLoss(surrogate)(s, y))

    @pytest.mark.parametrize("high", [0.03, 0.1, 0.777, 1.0])
    def test_the_sharp_sigmoid_is_the_area_up_to_a_rate(self, high: float) -> None:
        s, y = batch(500)
        found = lossfit.PartialAUCLoss("sigmoid", high=high)(1e9 * (s + y), y).item()
        least, most = high**2 / 2, high
        standard = roc_auc_score(y, s + y, max_fpr=high) if high < 1 else roc_auc_score(y, s + y)
        area = least + (2 * standard - 1) * (most - least)  # scikit-learn's is standardised by McClish's rule
        expected = 1 - area / high if high < 1 else 1 - standard
        assert found == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize("surrogate", SURROGATES)
    def test_a_range_cuts_through_negatives(self, surrogate: str) -> None:
        s = torch.tensor([1.2, -0.4, 3.0, 2.0, 1.0, 0.0, -1.0], dtype=torch.float64)
        y = torch.tensor([1, 1, 0, 0, 0, 0, 0])
        # Of five negatives, 0.3 to 0.7 is the lower half of the second, the third, the upper half of the fourth.
        w = torch.tensor([1, 1, 0, 0.5, 1, 0.5, 0], dtype=torch.float64)
        loss = lossfit.PartialAUCLoss(surrogate, low=0.3, high=0.7)
        value, gradient = found(loss, s, y)
        expected, slopes = longhand(surrogate, s, y, margin_of(surrogate), w)
        assert_close(value, expected, rtol=1e-12, atol=0)
        assert_close(gradient, slopes, rtol=1e-11, atol=1e-16)

    def test_weights_are_shares_of_the_rate(self) -> None:
        s, y = batch(60)
        times = torch.randint(1, 4, (60,))
        loss = lossfit.PartialAUCLoss("hinge", low=0.1, high=0.35)
        repeated = loss(s.repeat_interleave(times), y.repeat_interleave(times))
        assert_close(loss(s, y, sample_weight=times), repeated, rtol=1e-12, atol=0)

    def test_equal_scores_count_alike(self) -> None:
        s = torch.tensor([0.5, 2.0, 1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
        y = torch.tensor([1, 0, 0, 0, 0, 0])
        gradient = found(lossfit.PartialAUCLoss(high=0.4), s, y)[1]
        assert_close(gradient[2:5], gradient[2].expand(3), rtol=0, atol=0)
        assert gradient[2] > 0
        assert gradient[5] == 0

    def test_the_range_may_follow_the_step(self) -> None:
        s, y = batch(80)
        loss = lossfit.PartialAUCLoss(low=lambda step: 0.1 * step, high=lambda step: 1 / (1 + step))
        assert loss(s, y) == lossfit.AUCLoss()(s, y)
        loss.step()
        assert loss(s, y) == lossfit.PartialAUCLoss(low=0.1, high=0.5)(s, y)
        loss.step(to=5)
        with pytest.raises(ValueError, match=r"`low` below `high`, but got 0.5 and 0.166667"):
            loss(s, y)

    def test_an_empty_range_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"Expected `low` below `high`, but got 0.5 and 0.5"):
            lossfit.PartialAUCLoss(low=0.5, high=0.5)
        with pytest.raises(ValueError, match=r"Expected `high` in \(0, 1\], but got 1.5"):
            lossfit.PartialAUCLoss(high=1.5)
        with pytest.raises(TypeError, match="Expected `low` to be a number or a function of the step"):
            lossfit.PartialAUCLoss(low=torch.tensor(0.1))


class TestAveragePrecision:
    """Against the matrix of pairs, differentiated by autograd, and the metric."""

    @staticmethod
    def longhand(s: Tensor, y: Tensor, w: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        s = s.detach().clone().requires_grad_()
        up = y.bool()
        above = w * torch.sigmoid((s - s[up].unsqueeze(1)) / temperature)
        own = torch.nn.functional.one_hot(up.nonzero().squeeze(1), len(s)).bool()
        above = torch.where(own, w, above)
        precision = above[:, up].sum(1) / above.sum(1)
        value = 1 - (w[up] * precision).sum() / w[up].sum()
        return value.detach(), torch.autograd.grad(value, s)[0]

    @pytest.mark.usefixtures("always_fast")
    @pytest.mark.parametrize("temperature", [0.001, 0.05, 1.0, 20.0])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_value_and_gradient(self, temperature: float, weighted: bool) -> None:
        s, y = batch(1000)
        w = torch.rand(1000, dtype=torch.float64) + 0.1 if weighted else torch.ones_like(s)
        loss = lossfit.AveragePrecisionLoss(temperature)
        value, gradient = found(loss, s, y, sample_weight=w if weighted else None)
        expected, slopes = self.longhand(s, y, w, temperature)
        assert_close(value, expected, rtol=1e-8, atol=0)
        assert_close(gradient, slopes, rtol=0, atol=1e-8 * slopes.abs().max().item())

    @pytest.mark.parametrize("weighted", [False, True])
    def test_it_tends_to_average_precision(self, weighted: bool) -> None:
        s, y = batch(700)
        s = s + y
        w = torch.rand(700, dtype=torch.float64) if weighted else None
        exact = 1 - average_precision_score(y, s, sample_weight=w)
        away = [
            abs(lossfit.AveragePrecisionLoss(t)(s, y, sample_weight=w).item() - exact) for t in (1.0, 0.1, 0.01, 1e-8)
        ]
        assert away == sorted(away, reverse=True)
        assert away[-1] < 1e-12

    def test_the_temperature_gets_a_gradient(self) -> None:
        s, y = batch(40)
        temperature = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda t: lossfit.AveragePrecisionLoss(t)(s, y), temperature)

    def test_the_sum_is_over_the_positives(self) -> None:
        s, y = batch(40)
        summed = lossfit.AveragePrecisionLoss(reduction="sum")(s, y)
        assert_close(summed, y.sum() * lossfit.AveragePrecisionLoss()(s, y))

    def test_a_row_of_weight_zero_far_above_is_left_out(self) -> None:
        s = torch.tensor([2000.0, 1.0, 0.0], dtype=torch.float64)
        y, w = torch.tensor([1, 0, 1]), torch.tensor([0.0, 1.0, 1.0])
        value, gradient = found(lossfit.AveragePrecisionLoss(), s, y, sample_weight=w)
        expected, slopes = found(lossfit.AveragePrecisionLoss(), s[1:], y[1:])
        assert torch.equal(value, expected)
        assert gradient.tolist() == [0.0, *slopes.tolist()]


@pytest.mark.parametrize("cls", LOSSES)
class TestAll:
    """What the three have in common."""

    @pytest.mark.parametrize("targets", [[0, 0, 0], [1, 1, 1], []], ids=["no positive", "no negative", "empty"])
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    def test_without_pairs_the_loss_and_gradient_are_zero(
        self, cls: type[lossfit.Loss], targets: list[int], reduction: str
    ) -> None:
        s = torch.randn(len(targets))
        value, gradient = found(cls(reduction=reduction), s, torch.tensor(targets, dtype=torch.int64))
        assert value == 0
        assert torch.equal(gradient, torch.zeros_like(s))

    def test_weights_of_zero_leave_no_pair(self, cls: type[lossfit.Loss]) -> None:
        s, y = batch(6)
        value, gradient = found(cls(), s, y, sample_weight=(1 - y).double())
        assert value == 0
        assert not gradient.any()

    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32, torch.float64])
    def test_targets_of_any_type(self, cls: type[lossfit.Loss], dtype: torch.dtype) -> None:
        s, y = batch(20)
        assert torch.equal(cls()(s, y.to(dtype)), cls()(s, y))

    def test_without_gradient_the_value_is_the_same(self, cls: type[lossfit.Loss]) -> None:
        s, y = batch(2000)
        with torch.no_grad():
            value = cls()(s.requires_grad_(), y)
        assert torch.equal(value, cls()(s, y))

    @pytest.mark.parametrize("scale", [1e17, 1e38, 1e150, 1e308])
    def test_any_finite_scores_have_a_finite_loss(self, cls: type[lossfit.Loss], scale: float) -> None:
        s, y = batch(2000)
        s = s.clamp(-1, 1) * scale
        settings = [{}] if cls is lossfit.AveragePrecisionLoss else [{"surrogate": name} for name in SURROGATES]
        for setting in settings:
            value, gradient = found(cls(**setting), s, y)
            assert value.isfinite()
            assert gradient.isfinite().all()

    @pytest.mark.parametrize("rows", [50, 2000])
    def test_large_scores_are_never_nan_in_float32(self, cls: type[lossfit.Loss], rows: int) -> None:
        s, y = batch(rows)
        settings = [{}] if cls is lossfit.AveragePrecisionLoss else [{"surrogate": name} for name in SURROGATES]
        for setting in settings:
            value, gradient = found(cls(**setting), (s.clamp(-1, 1) * 1e20).float(), y)
            assert not value.isnan()
            assert gradient.isfinite().all()

    def test_there_is_no_second_derivative(self, cls: type[lossfit.Loss]) -> None:
        s, y = batch(20)
        s.requires_grad_()
        first = torch.autograd.grad(cls()(s, y), s, create_graph=True)[0]
        with pytest.raises(NotImplementedError, match="Ranking losses have no second derivative"):
            first.sum().backward()

    def test_pickles(self, cls: type[lossfit.Loss]) -> None:
        s, y = batch(20)
        loss = cls(reduction="sum")
        again = pickle.loads(pickle.dumps(loss))
        assert torch.equal(again(s, y), loss(s, y))
        assert repr(again) == repr(loss)

    @pytest.mark.parametrize(
        ("name", "value", "error", "match"),
        [
            ("input", [0.1, 0.2, 0.3], TypeError, "`input` to be a torch.Tensor, but got list"),
            ("input", torch.tensor([1, 2, 3]), TypeError, r"`input` to hold floating-point scores, .* torch.int64"),
            ("input", torch.rand(3, 3), ValueError, r"`input` of shape \(N,\), \(N, 1\) or \(N, 2\), but got \(3, 3\)"),
            (
                "input",
                torch.tensor([0.1, math.nan, math.nan]),
                ValueError,
                r"`input` to hold finite scores, but got nan at position 1 \(2 of 3\)",
            ),
            ("input", torch.tensor([0.1, 0.2, math.inf]), ValueError, "finite scores, but got inf at position 2"),
            ("target", None, TypeError, "`target` to be a torch.Tensor, but got NoneType"),
            ("target", torch.tensor([0, 1]), ValueError, r"`target` of shape \(3,\), but got \(2,\)"),
            ("target", torch.tensor([0, 1, 2]), ValueError, "`target` to hold 0 or 1 for each row, but got 2 at pos"),
            ("target", torch.tensor([0, -1, 1]), ValueError, "but got -1 at position 1"),
            ("target", torch.tensor([0.5, 1, 0]), ValueError, "0 or 1 for each row, but got 0.5 at position 0"),
            ("target", torch.tensor([0, 1, math.nan]), ValueError, "0 or 1 for each row, but got nan at position 2"),
            ("sample_weight", 2.0, TypeError, "`sample_weight` to be a torch.Tensor, but got float"),
            ("sample_weight", torch.ones(4), ValueError, r"`sample_weight` of shape \(3,\), but got \(4,\)"),
            (
                "sample_weight",
                torch.tensor([1.0, -1.0, 1.0]),
                ValueError,
                "`sample_weight` to hold finite weights of at least 0, but got -1.0 at position 1",
            ),
            ("sample_weight", torch.tensor([1.0, math.nan, 1.0]), ValueError, "at least 0, but got nan at position 1"),
            ("sample_weight", torch.ones(3, requires_grad=True), ValueError, "`sample_weight` without a gradient"),
        ],
    )
    def test_bad_input(
        self, cls: type[lossfit.Loss], name: str, value: object, error: type[Exception], match: str
    ) -> None:
        call = {"input": torch.rand(3), "target": torch.tensor([0, 1, 1]), name: value}
        with pytest.raises(error, match=match):
            cls()(**call)

    def test_rows_have_no_loss_alone(self, cls: type[lossfit.Loss]) -> None:
        with pytest.raises(ValueError, match="Expected `reduction` to be one of 'mean', 'sum', but got 'none'"):
            cls(reduction="none")


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match=r"Expected `surrogate` to be one of .*, but got 'squared_hing'. Did you mean"):
        lossfit.AUCLoss("squared_hing")
    with pytest.raises(ValueError, match=r"Expected `margin` in \[0, inf\), but got -1"):
        lossfit.AUCLoss("hinge", margin=-1.0)
    with pytest.raises(ValueError, match=r"Expected `margin` to broadcast to the rows \(\), but got \(3,\)"):
        lossfit.AUCLoss("hinge", margin=torch.ones(3))(torch.rand(3), torch.tensor([0, 1, 1]))
    with pytest.raises(ValueError, match=r"Expected `temperature` in \(0, inf\), but got 0"):
        lossfit.AveragePrecisionLoss(temperature=0.0)


@pytest.mark.parametrize("name", ["auc", "partial_auc", "average_precision"])
def test_scores_of_a_last_layer_of_one_or_two_columns(name: str) -> None:
    scores, target = torch.randn(9, dtype=torch.float64), torch.tensor([0, 1, 0, 0, 1, 0, 1, 0, 0])
    loss, other = lossfit.make(name), torch.randn(9, dtype=torch.float64)
    expected = loss(scores, target)
    torch.testing.assert_close(loss(scores.view(9, 1), target.view(9, 1)), expected)
    torch.testing.assert_close(loss(torch.stack([other, other + scores], 1), target), expected)
    assert torch.autograd.gradcheck(lambda z: loss(z, target), torch.randn(9, 2).double().requires_grad_())
