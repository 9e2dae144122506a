"""Laws for the losses of every family."""

import copy
import inspect
import re

import pytest
import torch
from torch import Tensor

import lossfit
from families import EXAMPLES, REQUIRED
from helpers import REQUIRED as SINGLE_LABEL_REQUIRED

OTHERS = [name for name in lossfit.available_losses() if lossfit.registry.get(name).family != "single_label"]


def build(name: str, **settings: object) -> lossfit.Loss:
    return lossfit.make(name, **{**REQUIRED.get(name, {}), **SINGLE_LABEL_REQUIRED.get(name, {}), **settings})


def example(name: str) -> tuple[Tensor, ...]:
    torch.manual_seed(7)
    scores, *rest = EXAMPLES[name]()
    return (scores.requires_grad_(), *rest)


@pytest.mark.parametrize("name", lossfit.available_losses())
def test_the_card_is_filled_in(name: str) -> None:
    cls = lossfit.registry.get(name)
    assert cls.formula
    assert re.search(r"\d{4}", cls.source)
    assert getattr(lossfit, cls.__name__) is cls
    assert cls.__name__ in lossfit.__all__
    assert cls.__name__.endswith("Loss")
    for key, card in cls.hypers.items():
        assert key in inspect.signature(cls).parameters
        assert card.meaning
        for value in card.search:
            card.check(key, value)
            build(name, **{key: value})


@pytest.mark.parametrize("name", lossfit.available_losses())
def test_the_docstring_has_arguments_and_an_example(name: str) -> None:
    cls = lossfit.registry.get(name)
    assert "Example:" in cls.__doc__
    assert ">>>" in cls.__doc__
    taken = list(inspect.signature(cls.__init__).parameters.values())[1:]
    own = [p.name for p in taken if p.kind is not p.VAR_KEYWORD]
    for argument in own:
        assert re.search(rf"^\s+(\w+, )*{argument}(, \w+)*:", cls.__doc__, re.M), argument


@pytest.mark.parametrize("name", lossfit.__all__)
def test_every_public_name_has_a_docstring(name: str) -> None:
    value = getattr(lossfit, name)
    assert value.__doc__
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__module__.startswith("lossfit.")


def test_families_have_examples() -> None:
    assert sorted(EXAMPLES) == sorted(OTHERS)


@pytest.mark.parametrize("name", OTHERS)
class TestOtherFamilies:
    """Laws for a batch of each loss's own kind."""

    def test_the_gradient_is_that_of_the_value(self, name: str) -> None:
        scores, *rest = example(name)
        loss = build(name)
        if not loss.designed_gradient:
            assert torch.autograd.gradcheck(lambda z: loss(z, *rest), scores)

    def test_the_function_is_the_module(self, name: str) -> None:
        batch = example(name)
        function = getattr(lossfit.functional, lossfit.functional.twin_name(name))
        assert torch.equal(function(*batch, **REQUIRED.get(name, {})), build(name)(*batch))
        assert function.__name__ in lossfit.functional.__all__

    def test_inputs_stay_as_they_are(self, name: str) -> None:
        batch = example(name)
        before = [t.detach().clone() for t in batch]
        build(name)(*batch).backward()
        assert all(torch.equal(t, b) for t, b in zip(batch, before, strict=True))

    def test_half_precision_gives_float32(self, name: str) -> None:
        scores, *rest = example(name)
        half = scores.detach().bfloat16().requires_grad_()
        others = [t.float() if t.is_floating_point() else t for t in rest]
        value, full = build(name)(half, *others), build(name)(half.detach().float(), *others)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, full, rtol=1e-4, atol=1e-5)
        value.backward()
        assert half.grad.dtype == torch.bfloat16
        assert half.grad.isfinite().all()

    def test_a_copy_and_a_state_give_the_same(self, name: str) -> None:
        batch, loss = example(name), build(name)
        copied = copy.deepcopy(loss)
        copied.load_state_dict(loss.state_dict())
        assert torch.equal(copied(*batch), loss(*batch))
        assert repr(copied) == repr(loss)

    def test_float32_is_finite_for_large_scores(self, name: str) -> None:
        scores, *rest = example(name)
        others = [t.float() if t.is_floating_point() else t for t in rest]
        for scale in (1e3, 1e-3, 0.0):
            z = (scores.detach().float() * scale).requires_grad_()
            value = build(name)(z, *others)
            assert value.isfinite()
            assert torch.autograd.grad(value, z)[0].isfinite().all()
