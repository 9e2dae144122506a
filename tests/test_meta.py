"""Gradients of a validation loss with respect to the hyper-parameters of the training loss."""

import copy
import itertools
import re
import runpy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lossfit
from lossfit.meta import HyperGradient

# By loss: its hyper-parameters, as arguments and by the names of its parameters, away from any edge.
LEARNT = {
    "gamma_cross_entropy": [("gamma", 0.3)],
    "focal": [("gamma", 1.7)],
    "generalized_cross_entropy": [("q", 0.4)],
    "symmetric_cross_entropy": [("alpha", 0.5), ("beta", 0.8)],
    "logistic_margin": [("margin", 0.7)],
    "exponential_margin": [("scale", 0.6)],
    "smooth_accuracy": [("beta", 1.2)],
}


def rows(count: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 5, dtype=torch.float64), torch.randint(3, (count,))


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def parameter(value: float | list[float]) -> nn.Parameter:
    return nn.Parameter(torch.tensor(value, dtype=torch.float64))


def longhand(
    model: nn.Module, loss: lossfit.Loss, rate: float, train: list[tuple[Tensor, ...]], validation: tuple[Tensor, ...]
) -> float:
    """Train a copy with PyTorch's optimiser and measure it."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), rate)
    for x, y in train:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        return nn.functional.cross_entropy(model(validation[0]), validation[1]).item()


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", LEARNT)
def test_against_finite_differences(name: str, steps: int) -> None:
    model, train, validation = network(), [rows(7) for _ in range(steps)], rows(9)
    loss = lossfit.make(name, **{key: parameter(value) for key, value in LEARNT[name]})
    value, gradient = HyperGradient(model, loss, 0.5).gradient(train[0] if steps == 1 else train, validation)
    numbers = dict(LEARNT[name])
    assert value.item() == pytest.approx(longhand(model, lossfit.make(name, **numbers), 0.5, train, validation))
    assert set(gradient) == set(numbers)
    for key, number in numbers.items():
        up, down = (
            longhand(model, lossfit.make(name, **{**numbers, key: number + move}), 0.5, train, validation)
            for move in (1e-5, -1e-5)
        )
        assert gradient[key].item() == pytest.approx((up - down) / 2e-5, rel=1e-6, abs=1e-10)
        assert abs(gradient[key]) > 1e-6


@pytest.mark.parametrize("form", ["paper", "scaled"])
def test_poly_coefficients(form: str) -> None:
    model, train, validation = network(), rows(7), rows(9)
    numbers = [0.5, -0.2, 1.0]
    loss = lossfit.PolyLoss([parameter(number) for number in numbers], form=form)
    gradient = HyperGradient(model, loss, 0.5).gradient(train, validation)[1]
    for j in range(3):
        each = [
            longhand(
                model,
                lossfit.PolyLoss([n + move * (i == j) for i, n in enumerate(numbers)], form=form),
                0.5,
                [train],
                validation,
            )
            for move in (1e-5, -1e-5)
        ]
        assert gradient[f"coefficient_{j + 1}"].item() == pytest.approx((each[0] - each[1]) / 2e-5, rel=1e-6)


def test_a_weight_for_each_row_of_any_module() -> None:
    """For a small step a row's gradient is minus the product of its own and the validation's slopes."""

    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.row = parameter([1.0] * 7)

        def forward(self, input: Tensor, target: Tensor) -> Tensor:
            return (self.row * nn.functional.cross_entropy(input, target, reduction="none")).mean()

    model, (x, y), validation = network(), rows(7), rows(9)
    gradient = HyperGradient(model, Weighted(), 1e-7).gradient((x, y), validation)[1]["row"]
    target = nn.functional.cross_entropy(model(validation[0]), validation[1])
    wanted = torch.cat([g.flatten() for g in torch.autograd.grad(target, model.parameters())])
    for i in range(7):
        row = nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        own = torch.cat([g.flatten() for g in torch.autograd.grad(row, model.parameters())])
        assert gradient[i].item() == pytest.approx(-1e-7 / 7 * (own @ wanted).item(), rel=1e-4)


def test_the_model_stays_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    model[0].weight.requires_grad_(False)
    model[2].weight.grad = torch.ones(3, 4, dtype=torch.float64)
    before, parameters = copy.deepcopy(model.state_dict()), list(model.parameters())
    loss = lossfit.FocalLoss(parameter(1.0))
    learner = HyperGradient(model, loss, 0.3)
    learner.step(rows(7), rows(9))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(new is old for new, old in zip(model.parameters(), parameters, strict=True))
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True, True, True]
    assert torch.equal(model[2].weight.grad, torch.ones(3, 4, dtype=torch.float64))
    assert model[0].bias.grad is None
    assert loss.gamma.grad is None
    assert loss.gamma != 1.0


def test_frozen_weights_take_no_trial_step() -> None:
    model, train, validation = network(), rows(7), rows(9)
    model[0].requires_grad_(False)
    frozen = HyperGradient(model, lossfit.FocalLoss(parameter(1.0)), 0.3).gradient(train, validation)
    last = HyperGradient(model[2], lossfit.FocalLoss(parameter(1.0)), 0.3)
    x, x_validation = (model[:2](part[0]).detach() for part in (train, validation))
    alone = last.gradient((x, train[1]), (x_validation, validation[1]))
    torch.testing.assert_close(frozen, alone)


def test_steps_lower_the_validation_loss() -> None:
    """With labels of the training rows flipped, the loss learns to give way to them."""
    torch.manual_seed(1)
    x = torch.randn(300, 5, dtype=torch.float64)
    y = (x[:, 0] > 0).long()
    noisy = torch.where(torch.rand(200) < 0.4, 1 - y[:200], y[:200])
    model = nn.Linear(5, 2).double()
    loss = lossfit.GammaCrossEntropyLoss(parameter(0.5))
    learner = HyperGradient(model, loss, 1.0, torch.optim.Adam(loss.parameters(), 0.05))
    values = [learner.step((x[:200], noisy), (x[200:], y[200:])).item() for _ in range(30)]
    assert values[-1] < values[0]
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(values))


@pytest.mark.parametrize(
    ("make", "low", "high"),
    [
        (lambda p: lossfit.GammaCrossEntropyLoss(gamma=p), 0.0, 1.0),
        (lambda p: lossfit.CrossEntropyLoss(temperature=p), 2.0**-52, None),
        (lambda p: lossfit.FocalLoss(gamma=p), 0.0, None),
    ],
)
def test_hyper_parameters_stay_in_their_ranges(make: object, low: float, high: float | None) -> None:
    model, train, validation, found = network(), rows(7), rows(9), []
    for sign in (1, -1):
        hyper = parameter(0.5)
        learner = HyperGradient(
            model,
            make(hyper),
            0.1,
            torch.optim.SGD([hyper], 1e9),
            validation_loss=lambda z, y, sign=sign: sign * nn.functional.cross_entropy(z, y),
        )
        learner.step(train, validation)
        found.append(hyper.item())
    assert min(found) == low
    assert max(found) > 1e3 if high is None else max(found) == high


def test_ranges_hold_inside_another_module() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.scale = lossfit.GammaCrossEntropyLoss(parameter(0.5)), parameter(1.0)

        def forward(self, input: Tensor, target: Tensor) -> Tensor:
            return self.scale * self.inner(input, target)

    loss = Twice()
    HyperGradient(network(), loss, 0.1, torch.optim.SGD(loss.parameters(), 1e9)).step(rows(7), rows(9))
    assert loss.inner.gamma.item() in (0.0, 1.0)
    assert abs(loss.scale) > 10


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (
            lambda m: HyperGradient(m, lossfit.FocalLoss(2.0), 0.1),
            ValueError,
            "`loss` to have a hyper-parameter that is an nn.Parameter, but it has none",
        ),
        (lambda m: HyperGradient(m, nn.functional.cross_entropy, 0.1), TypeError, "`loss` to be .* but got function"),
        (lambda m: HyperGradient(3, lossfit.FocalLoss(parameter(2.0)), 0.1), TypeError, "`model` .* but got int"),
        (
            lambda m: HyperGradient(m, lossfit.FocalLoss(parameter(2.0)), 0.0),
            ValueError,
            r"`learning_rate` in \(0, inf\), but got 0",
        ),
        (
            lambda m: HyperGradient(m, lossfit.FocalLoss(parameter(2.0)), 0.1).step([], rows(3)),
            TypeError,
            r"`train` to hold tensors, an input and a target, but got \[\]",
        ),
        (
            lambda m: HyperGradient(m, lossfit.FocalLoss(parameter(2.0)), 0.1).step(rows(3), rows(3)[:1]),
            TypeError,
            "`validation` to hold tensors, an input and a target",
        ),
        (
            lambda m: HyperGradient(m, lossfit.ExactLoss(parameter(2.0)), 0.1).step(rows(3), rows(3)),
            NotImplementedError,
            "ExactLoss has no second derivative",
        ),
    ],
)
def test_bad_arguments_are_named(make: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make(network())


def test_the_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[1] / "examples" / "learn_the_loss.py"
    example = runpy.run_path(str(path))
    for name, value in (("SEEDS", 1), ("STEPS", 20)):
        monkeypatch.setitem(example["main"].__globals__, name, value)
    example["main"]()
    printed = capsys.readouterr().out
    for name in example["LOSSES"]:
        assert len(re.findall(rf"^seed 0  {name} .*%", printed, re.M)) == 1
        assert len(re.findall(rf"^{name} .*%", printed, re.M)) == 1
    assert "gamma = 0." in printed
    assert "gamma = 0.00" not in printed
