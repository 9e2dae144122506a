"""What a class takes is seen, and what it does not take is named."""

import inspect

import pytest
import torch

import lossfit


def test_the_signature_has_the_keywords_of_the_family_with_their_defaults() -> None:
    taken = inspect.signature(lossfit.FocalLoss).parameters
    assert list(taken) == [
        "gamma",
        "weight",
        "ignore_index",
        "reduction",
        "label_smoothing",
        "smooth_over",
        "temperature",
        "class_prior",
    ]
    assert taken["gamma"].default == 2.0
    assert taken["ignore_index"].default == -100
    assert taken["ignore_index"].annotation == "int"
    for name in lossfit.available_losses():
        kinds = {p.kind for p in inspect.signature(lossfit.registry.get(name)).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds, name


@pytest.mark.parametrize(
    ("cls", "keyword", "near"),
    [
        (lossfit.FocalLoss, "alpha", "weight"),
        (lossfit.FocalLoss, "gama", "gamma"),
        (lossfit.CrossEntropyLoss, "class_weights", "weight"),
        (lossfit.BCELoss, "pos_wieght", "pos_weight"),
        (lossfit.FBetaLoss, "averge", "average"),
        (lossfit.NTXentLoss, "tau", "temperature"),
        (lossfit.ArcMargin, "beyon", "beyond"),
    ],
)
def test_another_keyword_names_the_class_and_the_nearest(cls: type, keyword: str, near: str) -> None:
    message = rf"{cls.__name__} got an unexpected keyword argument '{keyword}'.*Did you mean '{near}'\?"
    with pytest.raises(TypeError, match=message):
        cls(**{keyword: 1.0})


def test_of_a_head() -> None:
    with pytest.raises(TypeError, match=r"CosineHead got an unexpected keyword argument 's'.*Did you mean 'scale'"):
        lossfit.CosineHead(3, 4, s=30.0)


class Tempered(lossfit.FocalLoss):
    def __init__(self, start: float, **common: object) -> None:
        super().__init__(**common, temperature=start)


def test_a_subclass_takes_what_its_bases_take() -> None:
    assert Tempered(2.0, gamma=1.0).temperature == 2.0
    with pytest.raises(TypeError, match=r"Tempered got an unexpected keyword argument 'star'.*Did you mean 'start'"):
        Tempered(star=2.0)


def test_a_representation_shows_what_differs_from_the_defaults() -> None:
    per_class = torch.ones(3)
    loss = lossfit.CrossEntropyLoss(per_class, class_prior=per_class, ignore_index=2, temperature=2.0, reduction="sum")
    assert repr(loss) == (
        "CrossEntropyLoss(temperature=2.0, weight=(3,), ignore_index=2, class_prior=(3,), reduction='sum')"
    )
    assert repr(lossfit.HingeLoss(gap="soft", squared=True)) == "HingeLoss(margin=1.0, gap='soft', squared=True)"
    assert repr(lossfit.HingeLoss(gap="soft")) == "HingeLoss(margin=1.0, gap='soft')"
    assert repr(lossfit.ExactLoss(log=True)) == "ExactLoss(sigma=1.0, log=True)"
    assert "form='scaled'" in repr(lossfit.PolyLoss([1.0], form="scaled"))
    assert repr(lossfit.FocalBCELoss(alpha=None)) == "FocalBCELoss(gamma=2.0, alpha=None)"
    assert repr(lossfit.ReinforceLoss(baseline="mean")) == "ReinforceLoss(baseline='mean')"
    assert "similarity='dot'" in repr(lossfit.InfoNCELoss(similarity="dot"))
    assert repr(lossfit.CosineHead(4, 3, sub_centers=2, scale=8.0)) == (
        "CosineHead(in_features=4, num_classes=3, sub_centers=2, scale=8.0)"
    )
    assert repr(lossfit.LinearHead(4, 3, bias=False)) == "LinearHead(in_features=4, num_classes=3, bias=False)"
    assert repr(lossfit.Monitor(lossfit.FocalLoss(), bins=5)) == "Monitor(loss=FocalLoss(gamma=2.0), bins=5)"
    assert repr(lossfit.BCELoss(pos_weight=3.0)) == "BCELoss(pos_weight=(1,))"


def test_the_directory_of_the_package_is_what_is_public() -> None:
    assert set(dir(lossfit)) == {*lossfit.__all__, "__version__"}
