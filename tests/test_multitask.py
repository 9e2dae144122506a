"""Losses of several tasks together."""

import copy
import math
import pickle
import sys

import pytest
import torch

import lossfit
from lossfit.multitask import aggregate


class TestUncertaintyWeighting:
    def test_regression_is_the_gaussian_likelihood(self) -> None:
        torch.manual_seed(0)
        found, wanted = torch.randn(50, dtype=torch.float64), torch.randn(50, dtype=torch.float64)
        total = lossfit.UncertaintyWeighting(1, "regression").double()
        total.log_variance.data.fill_(0.7)
        variance = torch.full((50,), math.exp(0.7), dtype=torch.float64)
        expected = torch.nn.GaussianNLLLoss()(found, wanted, variance)
        torch.testing.assert_close(total([((found - wanted) ** 2).mean()]), expected, rtol=1e-13, atol=0)

    def test_classification_is_the_formula_of_the_paper(self) -> None:
        total = lossfit.UncertaintyWeighting(2).double()
        total.log_variance.data.copy_(torch.tensor([0.5, -1.0]))
        sigma = [math.exp(0.25), math.exp(-0.5)]
        expected = 0.9 / sigma[0] ** 2 + math.log(sigma[0]) + 0.2 / sigma[1] ** 2 + math.log(sigma[1])
        assert total(torch.tensor([0.9, 0.2], dtype=torch.float64)).item() == pytest.approx(expected, rel=1e-14)
        assert total.weights.tolist() == pytest.approx([sigma[0] ** -2, sigma[1] ** -2], rel=1e-14)

    def test_the_variances_are_learnt(self) -> None:
        """To 2 L for classification and L for regression."""
        total = lossfit.UncertaintyWeighting(3, ["classification", "regression", "classification"]).double()
        losses = torch.tensor([0.3, 5.0, 2.0], dtype=torch.float64)
        optimizer = torch.optim.LBFGS(total.parameters(), max_iter=100, tolerance_grad=1e-12, tolerance_change=1e-14)

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            value = total(losses)
            value.backward()
            return value

        optimizer.step(closure)
        assert total.log_variance.exp().tolist() == pytest.approx([0.6, 5.0, 4.0], rel=1e-6)

    def test_gradients(self) -> None:
        total = lossfit.UncertaintyWeighting(2, ["regression", "classification"]).double()
        losses = torch.tensor([0.3, 5.0], dtype=torch.float64, requires_grad=True)
        s = torch.tensor([0.4, -2.0], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda s, losses: torch.func.functional_call(total, {"log_variance": s}, losses), (s, losses)
        )

    def test_weights_of_a_network_are_balanced(self) -> None:
        """Two tasks on one body, one loss 1,000 times the other: both are learnt."""
        torch.manual_seed(0)
        x = torch.randn(256, 6)
        y, r = (x[:, 0] > 0).long(), 30 * x[:, 1] + 3 * torch.randn(256)
        body, total = torch.nn.Linear(6, 3), lossfit.UncertaintyWeighting(2, ["classification", "regression"])
        optimizer = torch.optim.Adam([*body.parameters(), *total.parameters()], 0.05)
        for _ in range(300):
            optimizer.zero_grad()
            z = body(x)
            total([lossfit.CrossEntropyLoss()(z[:, :2], y), ((30 * z[:, 2] - r) ** 2).mean()]).backward()
            optimizer.step()
        z = body(x)
        assert (z[:, :2].argmax(1) == y).float().mean() > 0.95
        assert ((30 * z[:, 2] - r) ** 2).mean() < 15
        assert total.weights[0] > 10 * total.weights[1]

    def test_half_precision_is_weighed_in_float32(self) -> None:
        total = lossfit.UncertaintyWeighting(2)
        value = total(torch.tensor([300.0, 0.5], dtype=torch.bfloat16))
        assert value.dtype == torch.float32
        assert value.item() == 300.5
        assert total([torch.tensor(300.0, dtype=torch.bfloat16), torch.tensor(0.1)]).item() == pytest.approx(300.1)

    def test_copies_state_and_print(self) -> None:
        total = lossfit.UncertaintyWeighting(2, ["regression", "classification"])
        total.log_variance.data.copy_(torch.tensor([0.5, -1.0]))
        again = lossfit.UncertaintyWeighting(2, ["regression", "classification"])
        again.load_state_dict(total.state_dict())
        losses = torch.tensor([0.5, 2.0])
        for twin in (again, copy.deepcopy(total), pickle.loads(pickle.dumps(total))):
            assert torch.equal(twin(losses), total(losses))
        assert repr(total) == "UncertaintyWeighting(2, kinds=('regression', 'classification'))"
        assert list(total.state_dict()) == ["log_variance"]

    def test_it_compiles(self) -> None:
        total = lossfit.UncertaintyWeighting(2)
        losses = torch.tensor([0.5, 2.0])
        compiled = torch.compile(total, backend="eager", fullgraph=True)
        assert torch.equal(compiled(losses), total(losses))

    @pytest.mark.parametrize(
        ("make", "error", "match"),
        [
            (lambda: lossfit.UncertaintyWeighting(0), ValueError, "`num_tasks` of at least 1, but got 0"),
            (lambda: lossfit.UncertaintyWeighting(2.0), TypeError, "`num_tasks` to be a whole number, but got float"),
            (
                lambda: lossfit.UncertaintyWeighting(3, ["regression"]),
                ValueError,
                "`kinds` to be one, or one for each of 3 tasks, but got 1",
            ),
            (
                lambda: lossfit.UncertaintyWeighting(1, "regresion"),
                ValueError,
                "`kinds` to be one of .* Did you mean 'regression'",
            ),
            (
                lambda: lossfit.UncertaintyWeighting(2)([torch.tensor(1.0)]),
                ValueError,
                "`losses` to hold 2, one for each task, but got 1",
            ),
            (
                lambda: lossfit.UncertaintyWeighting(2)([torch.tensor(1.0), torch.ones(3)]),
                ValueError,
                r"`losses` to hold one number for each task.*\(3,\)",
            ),
            (lambda: lossfit.UncertaintyWeighting(1)([1.0]), ValueError, "`losses` to hold .* but got .*float"),
            (lambda: lossfit.UncertaintyWeighting(2)(torch.ones(2, 2)), ValueError, r"`losses` .*\(2,\), \(2,\)"),
        ],
    )
    def test_bad_arguments_are_named(self, make: object, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            make()


def two_losses(w: torch.Tensor) -> list[torch.Tensor]:
    """With gradients (2, 0) and (-1, 1): the second points against the first."""
    return [2 * w[0], w[1] - w[0]]


class TestAggregate:
    def test_without_the_extra_it_says_which(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torchjd.autojac", None)
        w = torch.zeros(2, requires_grad=True)
        with pytest.raises(ImportError, match=r"pip install 'lossfit\[multitask\]'"):
            aggregate(two_losses(w), [w])

    def test_the_mean_is_the_gradient_of_the_mean(self) -> None:
        pytest.importorskip("torchjd")
        torch.manual_seed(0)
        model, frozen = torch.nn.Linear(4, 3), torch.nn.Parameter(torch.ones(2), requires_grad=False)
        x, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 1])
        for name in lossfit.available_losses("single_label"):
            if name == "sensitivity":
                continue
            z = model(x)
            losses = [lossfit.CrossEntropyLoss()(z, y), lossfit.make(name)(z, y)]
            expected = torch.autograd.grad(sum(losses) / 2, model.parameters(), retain_graph=True)
            model.zero_grad()
            aggregate(losses, [*model.parameters(), frozen], "Mean")
            for parameter, grad in zip(model.parameters(), expected, strict=True):
                torch.testing.assert_close(parameter.grad, grad)
        assert frozen.grad is None

    def test_gradients_that_point_against_each_other(self) -> None:
        """MGDA's is the shortest vector between (2, 0) and (-1, 1): (0.2, 0.6)."""
        torchjd = pytest.importorskip("torchjd.aggregation")
        w = torch.zeros(2, requires_grad=True)
        aggregate(two_losses(w), iter([w]), torchjd.MGDA(epsilon=1e-9, max_iters=1000))
        torch.testing.assert_close(w.grad, torch.tensor([0.2, 0.6]), rtol=1e-3, atol=1e-3)

    def test_the_default_lowers_every_loss(self) -> None:
        """UPGrad: each gradient projected where none is hurt, here (1, 1) and (0, 1), then their mean."""
        pytest.importorskip("torchjd")
        pytest.importorskip("qpsolvers")
        w = torch.zeros(2, requires_grad=True)
        aggregate(torch.stack(two_losses(w)), [w])
        torch.testing.assert_close(w.grad, torch.tensor([0.5, 1.0]), rtol=1e-3, atol=1e-3)
        before = w.grad.clone()
        aggregate(two_losses(w), [w])
        torch.testing.assert_close(w.grad, 2 * before)

    @pytest.mark.parametrize(
        ("aggregator", "error", "match"),
        [
            ("UpGrad", ValueError, "`aggregator` to be one of .*'UPGrad', but got 'UpGrad'"),
            ("CAGrad", ValueError, "`aggregator` to be one of "),
            ("PCD", ValueError, "`aggregator` to be one of "),
            ("UPGradWeighting", ValueError, "`aggregator` to be one of "),
            (3, TypeError, "`aggregator` to be a name or an object of TorchJD, but got int"),
        ],
    )
    def test_unknown_aggregators(self, aggregator: object, error: type[Exception], match: str) -> None:
        pytest.importorskip("torchjd")
        w = torch.zeros(2, requires_grad=True)
        with pytest.raises(error, match=match):
            aggregate(two_losses(w), [w], aggregator)

    def test_nothing_to_aggregate(self) -> None:
        w = torch.zeros(2, requires_grad=True)
        with pytest.raises(ValueError, match="`losses` to hold at least one, but got none"):
            aggregate([], [w])
        with pytest.raises(ValueError, match="`parameters` to hold one that requires a gradient, but got none"):
            aggregate(two_losses(w), [w.detach()])
