"""Schedules, by themselves and as hyper-parameters of every loss."""

import copy
import inspect
import math
import pickle
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lossfit
from families import EXAMPLES, REQUIRED
from helpers import REQUIRED as SINGLE_LABEL_REQUIRED
from lossfit.schedules import Cosine, Exponential, FromMeanProbability, LambdaAnnealing, Linear, Piecewise

EACH = [
    Linear(0.2, 0.9, 10, warmup=3),
    Cosine(4.0, 1.0, 7),
    Exponential(8.0, 0.5, 4, warmup=1),
    Piecewise([0.0, 1.0], [5]),
    LambdaAnnealing(),
]


def ids(value: object) -> str:
    return type(value).__name__


class TestValues:
    def test_linear(self) -> None:
        schedule = Linear(1.0, 3.0, 4, warmup=2)
        assert [schedule(step) for step in range(9)] == [1, 1, 1, 1.5, 2, 2.5, 3, 3, 3]

    def test_cosine(self) -> None:
        schedule = Cosine(0.0, 1.0, 4, warmup=1)
        half = math.sqrt(0.5)
        expected = [0, 0, (1 - half) / 2, 0.5, (1 + half) / 2, 1, 1]
        assert [schedule(step) for step in range(7)] == pytest.approx(expected, abs=1e-15)

    def test_exponential(self) -> None:
        schedule = Exponential(8.0, 0.5, 4, warmup=1)
        assert [schedule(step) for step in range(7)] == pytest.approx([8, 8, 4, 2, 1, 0.5, 0.5], rel=1e-15)
        assert Exponential(1e-200, 1e200, 2)(1) == pytest.approx(1.0, rel=1e-12)

    def test_piecewise(self) -> None:
        schedule = Piecewise([0.0, 0.3, 0.1], [2, 3])
        assert [schedule(step) for step in range(5)] == [0.0, 0.0, 0.3, 0.1, 0.1]
        assert Piecewise([7.0], [])(100) == 7.0

    def test_lambda_annealing(self) -> None:
        schedule = LambdaAnnealing(base=100.0, gamma=0.5, power=2.0, least=3.0)
        assert [schedule(step) for step in (0, 2, 8, 10, 10**9)] == [100.0, 25.0, 4.0, 3.0, 3.0]
        assert LambdaAnnealing(gamma=0.0)(10**6) == 1000.0

    @given(
        st.floats(-1e300, 1e300), st.floats(-1e300, 1e300), st.integers(1, 10**6), st.integers(0, 99), st.integers(0)
    )
    def test_ends_are_exact_and_nothing_lies_beyond(
        self, start: float, end: float, steps: int, warmup: int, step: int
    ) -> None:
        for kind in (Linear, Cosine):
            schedule = kind(start, end, steps, warmup)
            assert schedule(0) == schedule(warmup) == start
            assert schedule(warmup + steps) == schedule(warmup + 2 * steps) == end
            low, high = sorted((start, end))
            slack = 1e-15 * max(abs(low), abs(high))
            assert low - slack <= schedule(step) <= high + slack

    @pytest.mark.parametrize("schedule", EACH, ids=ids)
    def test_they_compare_print_and_pickle(self, schedule: object) -> None:
        again = pickle.loads(pickle.dumps(schedule))
        assert again == schedule
        assert [again(step) for step in range(20)] == [schedule(step) for step in range(20)]
        assert eval(repr(schedule)) == schedule
        assert repr(schedule) in repr(lossfit.PolyLoss(schedule))

    def test_another_kind_is_another(self) -> None:
        assert Linear(0.0, 1.0, 5) != Cosine(0.0, 1.0, 5)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Linear("0", 1.0, 5), TypeError, "`start` to be a number, but got str"),
        (lambda: Linear(0.0, math.inf, 5), ValueError, "`end` to be finite, but got inf"),
        (lambda: Linear(0.0, 1.0, 0), ValueError, "`steps` of at least 1, but got 0"),
        (lambda: Linear(0.0, 1.0, 2.5), TypeError, "`steps` to be a whole number of steps, but got float"),
        (lambda: Linear(0.0, 1.0, True), TypeError, "`steps` to be a whole number of steps, but got bool"),
        (lambda: Cosine(0.0, 1.0, 5, warmup=-1), ValueError, "`warmup` of at least 0, but got -1"),
        (lambda: Cosine(math.nan, 1.0, 5), ValueError, "`start` to be finite, but got nan"),
        (lambda: Exponential(0.0, 1.0, 5), ValueError, "`start` above 0, but got 0"),
        (lambda: Exponential(1.0, -1.0, 5), ValueError, "`end` above 0, but got -1"),
        (lambda: Piecewise([1.0], [5]), ValueError, "one more of `values` than of `changes`, but got 1 and 1"),
        (lambda: Piecewise([1.0, 2.0, 3.0], [5, 5]), ValueError, r"`changes` to rise, but got \[5, 5\]"),
        (lambda: Piecewise([1.0, 2.0], [0]), ValueError, "`changes` of at least 1, but got 0"),
        (lambda: Piecewise([1.0, None], [3]), TypeError, "`values` to be a number, but got NoneType"),
        (lambda: Piecewise(1.0, [3]), TypeError, "`values` to be a sequence of numbers, but got float"),
        (lambda: LambdaAnnealing(base=0.0), ValueError, "`base` above 0, but got 0"),
        (lambda: LambdaAnnealing(gamma=-0.1), ValueError, "`gamma` of at least 0, but got -0.1"),
        (lambda: LambdaAnnealing(power=-1), ValueError, "`power` of at least 0, but got -1"),
        (lambda: LambdaAnnealing(base=1.0), ValueError, r"`least` in \[0, base = 1.0\], but got 5.0"),
        (lambda: FromMeanProbability(0.9, 0.5), ValueError, "`low` < `high` <= 1, but got 0.9 and 0.5"),
        (lambda: FromMeanProbability(0.5, 1.5), ValueError, "`low` < `high` <= 1, but got 0.5 and 1.5"),
        (lambda: FromMeanProbability(momentum=1.0), ValueError, r"`momentum` in \[0, 1\), but got 1.0"),
        (lambda: FromMeanProbability(end=None), TypeError, "`end` to be a number, but got NoneType"),
        (
            lambda: FromMeanProbability().update(0.5),
            TypeError,
            "`p` to be a floating-point torch.Tensor, but got float",
        ),
        (lambda: FromMeanProbability().update(torch.tensor([1])), TypeError, "`p` .* but got torch.int64"),
        (lambda: FromMeanProbability().update(torch.tensor([0.5, 1.5])), ValueError, r"`p` in \[0, 1\], .* 0.5 to 1.5"),
        (lambda: FromMeanProbability().watch(torch.nn.Identity()), TypeError, "single-label loss, but got Identity"),
        (
            lambda: FromMeanProbability().watch(FromMeanProbability().watch(lossfit.CrossEntropyLoss())),
            ValueError,
            "`loss` to be watched by one schedule",
        ),
    ],
)
def test_bad_arguments_are_named(make: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()


def scheduled() -> list[tuple[str, str]]:
    """Every loss of every family with each of its hyper-parameters that has a number as its default."""
    found = []
    for name in lossfit.available_losses():
        cls = lossfit.registry.get(name)
        parameters = inspect.signature(cls).parameters
        for hyper in cls.hypers:
            default = parameters[hyper].default
            if isinstance(default, float) or (name == "poly" and hyper == "coefficients"):
                found.append((name, hyper))
    return found


def batch(name: str) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(3)
    if name in EXAMPLES:
        return EXAMPLES[name]()
    return torch.randn(5, 4, dtype=torch.float64), torch.randint(4, (5,))


@pytest.mark.parametrize(("name", "hyper"), scheduled())
class TestEveryLoss:
    """A schedule gives at every step what the loss with that number gives."""

    def build(self, name: str, **settings: object) -> lossfit.Loss:
        return lossfit.make(name, **{**REQUIRED.get(name, {}), **SINGLE_LABEL_REQUIRED.get(name, {}), **settings})

    def ends(self, name: str, hyper: str) -> tuple[float, float]:
        cls = lossfit.registry.get(name)
        if len(cls.hypers[hyper].search) >= 2:
            return cls.hypers[hyper].search[0], cls.hypers[hyper].search[-1]
        default = inspect.signature(cls).parameters[hyper].default
        return default, default + 0.05

    def test_it_is_the_loss_with_the_number_of_each_step(self, name: str, hyper: str) -> None:
        start, end = self.ends(name, hyper)
        loss = self.build(name, **{hyper: Linear(start, end, 4, warmup=1)})
        for step in range(7):
            number = start + (end - start) * min(max(step - 1, 0), 4) / 4
            expected = self.build(name, **{hyper: number})(*batch(name))
            torch.testing.assert_close(loss(*batch(name)), expected, rtol=1e-12, atol=1e-12)
            loss.step()

    def test_the_step_is_in_the_state(self, name: str, hyper: str) -> None:
        start, end = self.ends(name, hyper)
        schedule = Cosine(start, end, 10)
        loss = self.build(name, **{hyper: schedule})
        loss.step(to=6)
        again = self.build(name, **{hyper: schedule})
        again.load_state_dict(loss.state_dict())
        assert torch.equal(again(*batch(name)), loss(*batch(name)))
        assert torch.equal(pickle.loads(pickle.dumps(loss))(*batch(name)), loss(*batch(name)))


@pytest.mark.parametrize("hyper", ["temperature", "label_smoothing"])
def test_shared_numbers_take_schedules(hyper: str) -> None:
    z, y = batch("cross_entropy")
    loss = lossfit.CrossEntropyLoss(**{hyper: Linear(0.2, 0.6, 4)})
    loss.step(to=2)
    divisor, smoothing = (0.4, 0.0) if hyper == "temperature" else (1.0, 0.4)
    expected = torch.nn.functional.cross_entropy(z / divisor, y, label_smoothing=smoothing)
    torch.testing.assert_close(loss(z, y), expected)


@pytest.mark.parametrize(
    ("kind", "hyper", "schedule"),
    [
        (lossfit.AngularMargin, "annealing", LambdaAnnealing()),
        (lossfit.AngularMargin, "m", Linear(1.0, 4.0, 100)),
        (lossfit.AdditiveMargin, "m", Piecewise([0.0, 0.35], [60])),
        (lossfit.ArcMargin, "m", Cosine(0.0, 0.5, 100, warmup=10)),
        (lossfit.CombinedMargin, "m3", Exponential(0.01, 0.2, 100)),
    ],
)
def test_margins_take_schedules(kind: type[lossfit.Margin], hyper: str, schedule: Callable[[int], float]) -> None:
    margin, cosine = kind(**{hyper: schedule}), torch.linspace(-1, 1, 9, dtype=torch.float64)
    found = []
    for step in (0, 30, 70, 1000):
        margin.step(to=step)
        found.append(margin(cosine))
        torch.testing.assert_close(found[-1], kind(**{hyper: schedule(step)})(cosine), rtol=1e-12, atol=1e-12)
    assert not torch.equal(found[0], found[-1])


class TestFromMeanProbability:
    def test_the_value_follows_the_mean(self) -> None:
        schedule = FromMeanProbability(0.4, 0.8, start=2.0, end=-1.0, momentum=0.5)
        assert math.isnan(schedule.mean)
        assert schedule(0) == 2.0
        found = []
        for p in (0.3, 0.5, 0.6, 1.0, 1.0):
            schedule.update(torch.tensor([p]))
            found.append(schedule(0))
        means, total, count = [], 0.0, 0.0
        for p in (0.3, 0.5, 0.6, 1.0, 1.0):
            total, count = 0.5 * total + p, 0.5 * count + 1
            means.append(total / count)
        expected = [2 - 3 * min(max((mean - 0.4) / 0.4, 0), 1) for mean in means]
        assert found == pytest.approx(expected, rel=1e-6)
        assert found[0] > found[1] > found[2] > found[3] > found[4] == -1.0

    def test_the_mean_is_over_rows(self) -> None:
        schedule = FromMeanProbability(momentum=0.5)
        schedule.update(torch.tensor([0.1, 0.2, 0.3]))
        schedule.update(torch.tensor([[0.9]], dtype=torch.float64))
        schedule.update(torch.tensor([]))
        assert schedule.mean == pytest.approx((0.5 * 0.6 + 0.9) / 2.5, rel=1e-6)

    def test_watching_a_loss(self) -> None:
        gamma = FromMeanProbability(0.2, 0.6, momentum=0.0)
        loss = gamma.watch(lossfit.GammaCrossEntropyLoss(gamma=gamma, temperature=2.0))
        z, y = torch.randn(6, 4), torch.tensor([0, 3, -100, 1, 2, 2])
        z[2] = math.nan
        value = loss(z, y)
        assert torch.equal(value, lossfit.GammaCrossEntropyLoss(gamma=0.0, temperature=2.0)(z, y))
        kept = y >= 0
        p = (z[kept] / 2).softmax(1)[torch.arange(5), y[kept]].mean().item()
        assert gamma.mean == pytest.approx(p, rel=1e-6)
        loss.step()
        assert loss.gamma == pytest.approx(min(max((p - 0.2) / 0.4, 0), 1), rel=1e-5)
        assert 0 < loss.gamma < 1

    def test_probabilities_as_targets_and_keywords(self) -> None:
        gamma = FromMeanProbability()
        loss = gamma.watch(lossfit.GammaCrossEntropyLoss(gamma=gamma))
        z, q = torch.randn(6, 4, 2), torch.rand(6, 4, 2).softmax(1)
        loss(target=q, input=z)
        assert gamma.mean == pytest.approx((q * z.softmax(1)).sum(1).mean().item(), rel=1e-6)

    def test_evaluation_is_not_watched(self) -> None:
        gamma = FromMeanProbability()
        loss = gamma.watch(lossfit.GammaCrossEntropyLoss(gamma=gamma)).eval()
        loss(torch.randn(3, 4), torch.tensor([0, 1, 2]))
        assert math.isnan(gamma.mean)

    def test_transformations_are_not_watched(self) -> None:
        gamma = FromMeanProbability()
        loss = gamma.watch(lossfit.GammaCrossEntropyLoss(gamma=gamma))
        z, y = torch.randn(3, 4), torch.tensor([0, 1, 2])
        expected = torch.func.grad(lossfit.GammaCrossEntropyLoss(gamma=0.0))(z, y)
        assert torch.equal(torch.func.grad(loss)(z, y), expected)
        assert math.isnan(gamma.mean)

    def test_it_compiles(self) -> None:
        gamma, plain = FromMeanProbability(), FromMeanProbability()
        compiled = torch.compile(gamma.watch(lossfit.GammaCrossEntropyLoss(gamma=gamma)), backend="eager")
        loss = plain.watch(lossfit.GammaCrossEntropyLoss(gamma=plain))
        z, y = torch.randn(3, 4), torch.tensor([0, 1, 2])
        torch.testing.assert_close(compiled(z, y), loss(z, y))
        assert gamma.mean == pytest.approx(plain.mean, rel=1e-6)

    def test_a_row_of_nan_does_not_stay(self) -> None:
        gamma = FromMeanProbability()
        loss = gamma.watch(lossfit.GammaCrossEntropyLoss(gamma=gamma))
        loss(torch.tensor([[math.nan, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]))
        assert gamma.mean == 0.5

    def test_training_goes_over_to_expected_accuracy(self) -> None:
        """On rows that a linear model can tell apart; twice the same."""

        def train() -> list[float]:
            torch.manual_seed(0)
            x = torch.randn(64, 5)
            y = (x @ torch.randn(5, 3)).argmax(1)
            model, gamma = torch.nn.Linear(5, 3), FromMeanProbability(momentum=0.8)
            loss = gamma.watch(lossfit.GammaCrossEntropyLoss(gamma=gamma))
            optimizer = torch.optim.SGD(model.parameters(), 3.0)
            values = []
            for _ in range(60):
                optimizer.zero_grad()
                loss(model(x), y).backward()
                optimizer.step()
                loss.step()
                values.append(loss.gamma)
            return values

        values = train()
        assert values[0] == 0.0
        assert values[-1] > 0.8
        assert values == train()

    def test_the_mean_is_in_the_state_of_the_loss(self) -> None:
        def make() -> lossfit.Loss:
            gamma = FromMeanProbability(0.0, 1.0)
            return gamma.watch(lossfit.GammaCrossEntropyLoss(gamma=gamma))

        loss, z, y = make(), torch.randn(6, 4), torch.tensor([0, 3, 1, 1, 2, 2])
        loss(z, y)
        loss.step()
        again = make()
        again.load_state_dict(loss.state_dict())
        assert 0 < again.gamma == loss.gamma
        copied = copy.deepcopy(loss)
        unpickled = pickle.loads(pickle.dumps(loss))
        for twin in (again, copied, unpickled):
            before = loss.mean_probability.mean
            twin(3 * z, y)
            twin.step()
            assert twin.gamma == pytest.approx(twin.mean_probability.mean)
            assert loss.mean_probability.mean == before != twin.mean_probability.mean
