"""The cards of hyper-parameters."""

import math

import pytest
import torch

from lossfit.core.hyper import Hyper


@pytest.mark.parametrize(
    ("card", "shown"),
    [
        (Hyper("a"), "(-inf, inf)"),
        (Hyper("a", 0.0, 1.0), "[0, 1]"),
        (Hyper("a", 0.0), "[0, inf)"),
        (Hyper("a", 0.0, open_low=True), "(0, inf)"),
        (Hyper("a", high=-0.5), "(-inf, -0.5]"),
    ],
)
def test_the_range_is_shown_as_an_interval(card: Hyper, shown: str) -> None:
    assert card.range == shown


@pytest.mark.parametrize("value", [0, 0.0, 1, 1.0, 0.3, torch.tensor(0.3), torch.tensor([0.0, 1.0])])
def test_ends_are_included(value: object) -> None:
    Hyper("a", 0.0, 1.0).check("a", value)


@pytest.mark.parametrize(
    ("card", "value", "found"),
    [
        (Hyper("a", 0.0, 1.0), 1.0001, "1.0001"),
        (Hyper("a", 0.0, 1.0), -1, "-1"),
        (Hyper("a", 0.0, 1.0), math.nan, "nan"),
        (Hyper("a"), math.nan, "nan"),
        (Hyper("a", 0.0, open_low=True), 0.0, "0"),
        (Hyper("a", 0.0, 1.0), torch.tensor([0.5, 2.0, -1.0]), "values from -1 to 2"),
        (Hyper("a", 0.0, 1.0), torch.tensor([0.5, math.nan]), "nan"),
        (Hyper("a", 0.0, 1.0), torch.tensor(3.0), "3"),
        (Hyper("a", 0.0, 1.0), torch.tensor([]), "an empty tensor"),
    ],
)
def test_outside_it_raises(card: Hyper, value: object, found: str) -> None:
    with pytest.raises(ValueError, match=r"Expected `rate` in .*, but got ") as error:
        card.check("rate", value)
    assert str(error.value).endswith(f"{card.range}, but got {found}.")


@pytest.mark.parametrize("value", ["0.5", None, True, [0.5], 1j])
def test_other_types_raise(value: object) -> None:
    kind = type(value).__name__
    with pytest.raises(TypeError, match=f"`rate` to be a number, a torch.Tensor or a function .*, but got {kind}"):
        Hyper("a").check("rate", value)
