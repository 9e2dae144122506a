"""What a class takes is seen, and what it does not take is named."""

import inspect

import pytest

import lossfit


def test_the_signature_has_the_keywords_of_the_family_with_their_defaults() -> None:
    taken = inspect.signature(lossfit.FocalLoss).parameters
    assert list(taken) == [
        "gamma",
        "weight",
        "ignore_index",
        "reduction",
        "label_smoothing",
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
