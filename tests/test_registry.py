"""Losses by name, and as functions."""

from collections.abc import Iterator

import pytest
import torch

import lossfit
from forks import Forks
from lossfit import functional, registry
from lossfit.losses.base import REGISTRY


def test_names_are_those_of_the_catalogue() -> None:
    names = lossfit.available_losses()
    assert len(names) == len(set(names))
    assert names[:3] == ["cross_entropy", "expected_accuracy", "gamma_cross_entropy"]
    assert {"focal", "poly", "generalized_cross_entropy", "hinge", "smooth_accuracy", "exact"} < set(names)


def test_the_list_is_the_callers() -> None:
    lossfit.available_losses().clear()
    assert lossfit.available_losses()


def test_make_passes_the_settings_on() -> None:
    loss = lossfit.make("gamma_cross_entropy", gamma=0.25, reduction="sum", weight=torch.ones(3))
    assert isinstance(loss, lossfit.GammaCrossEntropyLoss)
    assert (loss.gamma, loss.reduction, loss.weight.tolist()) == (0.25, "sum", [1, 1, 1])


@pytest.mark.parametrize(("name", "near"), [("focl", "focal"), ("cross-entropy", "cross_entropy"), ("hinges", "hinge")])
def test_an_unknown_name_suggests_the_nearest(name: str, near: str) -> None:
    for function in (lossfit.make, registry.get):
        with pytest.raises(ValueError, match=f"`name` to be one of 'cross_entropy', .*, but got {name!r}") as error:
            function(name)
        assert str(error.value).endswith(f"Did you mean {near!r}?")


def test_a_name_unlike_any_other_suggests_nothing() -> None:
    with pytest.raises(ValueError, match="but got 'xyzzy'") as error:
        lossfit.make("xyzzy")
    assert "Did you mean" not in str(error.value)


@pytest.fixture
def _registered() -> Iterator[None]:
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


@pytest.mark.usefixtures("_registered")
def test_a_loss_of_ones_own_joins_with_its_formula() -> None:
    class CubicGapLoss(lossfit.LinkLoss):
        """The third power of the gap."""

        formula = "-d^3"
        source = "nobody, 2024"

        def __init__(self, **common: object) -> None:
            super().__init__(lambda d: -(d**3), gap="hard", **common)

    assert CubicGapLoss.name == "cubic_gap"
    loss = lossfit.make("cubic_gap", reduction="none")
    assert loss(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).tolist() == [-8]


@pytest.mark.usefixtures("_registered")
def test_a_class_without_a_formula_stays_out() -> None:
    class Helper(lossfit.FocalLoss):
        """No loss of its own."""

    assert registry.get("focal") is lossfit.FocalLoss
    assert Helper not in REGISTRY.values()


def test_names_of_functions() -> None:
    assert functional.twin_name("gamma_cross_entropy") == "gamma_cross_entropy"
    assert functional.twin_name("smooth_accuracy") == "smooth_accuracy"
    assert functional.twin_name("focal") == "focal_loss"
    assert sorted(functional.__all__) == sorted(map(functional.twin_name, lossfit.available_losses()))
    for name in functional.__all__:
        assert getattr(functional, name).__name__ == name


def test_an_unknown_function_lists_those_there_are() -> None:
    with pytest.raises(AttributeError, match=r"has no loss 'focal_los'; there are cross_entropy, .*focal_loss"):
        functional.focal_los  # noqa: B018


def test_functions_take_hyper_parameters_by_position_and_by_name() -> None:
    z, y = torch.randn(5, 3), torch.randint(3, (5,))
    expected = lossfit.FocalLoss(1.5, reduction="sum")(z, y)
    assert torch.equal(functional.focal_loss(z, y, 1.5, reduction="sum"), expected)
    assert torch.equal(functional.focal_loss(z, y, gamma=1.5, reduction="sum"), expected)
    weight = torch.rand(3)
    expected = lossfit.CrossEntropyLoss(weight)(z, y)
    assert torch.equal(functional.cross_entropy(z, y, weight), expected)
    assert torch.equal(functional.cross_entropy(z, y, weight=weight), expected)


def test_importing_lossfit_leaves_the_optional_packages_alone(forks: Forks) -> None:
    optional = "altair, polars, sklearn, scipy, typer, rich, jinja2, pyarrow"
    code = f"import sys, lossfit; print([m for m in '{optional}'.split(', ') if m in sys.modules])"
    done = forks.run(code)
    assert done.stdout.strip() == "[]"
