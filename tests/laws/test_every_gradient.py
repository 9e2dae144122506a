"""Every tensor that a loss takes with ``requires_grad`` gets the gradient of the value, or is refused by its name."""

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

import lossfit
from families import EXAMPLES
from helpers import build, case_id, number_settings, with_numbers

N, C, D = 5, 4, 3
# One for each way from scores to rows: fused, by autograd, over all rivals, by an integral.
PATHS = [
    ("cross_entropy", {}),
    ("poly", {"coefficients": [0.7, 0.2], "form": "scaled"}),
    ("sum_hinge", {}),
    ("hinge", {"squared": True}),
    ("exact", {"log": True, "sigma": 1.5}),
]
CASES = pytest.mark.parametrize("case", PATHS, ids=case_id)


def positive(*shape: int) -> Tensor:
    return (torch.rand(*shape, dtype=torch.float64) / 2 + 0.25).requires_grad_()


def check(function: Callable[..., Tensor], of: Tensor, case: str = "") -> None:
    """Along one direction of inputs and one of outputs, neither of which is an axis, where each step is an integral."""
    eps = {"eps": 1e-4} if case == "exact" else {}
    assert gradcheck(function, of, **eps, atol=1e-6, rtol=1e-5, fast_mode=case == "exact")


@CASES
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("soft", [False, True])
def test_what_a_loss_of_one_right_class_takes(
    case: tuple[str, dict[str, object]], smoothing: float, soft: bool
) -> None:
    z, y = 2 * torch.randn(N, C, dtype=torch.float64), torch.randint(C, (N,))
    x, w = torch.randn(N, D, dtype=torch.float64), torch.randn(C, D, dtype=torch.float64)
    target = positive(N, C).detach() if soft else y
    common = {"label_smoothing": smoothing}
    for name in ("weight", "class_prior"):
        check(lambda v, name=name: build(case[0], **case[1], **common, **{name: v})(z, target), positive(C), case[0])
        for backend in ("dense", "chunked"):

            def of_features(v: Tensor, name: str = name, backend: str = backend) -> Tensor:
                return build(case[0], **case[1], **common, **{name: v}).linear(x, w, target, backend=backend)

            check(of_features, positive(C), case[0])
    for name, value in {"temperature": positive(N), "label_smoothing": positive(())}.items():
        check(lambda v, name=name: build(case[0], **case[1], **{**common, name: v})(z, target), value, case[0])
    loss = build(case[0], **case[1], **common, weight=positive(C).detach())
    check(lambda s: loss(z, target, sample_weight=s), positive(N), case[0])
    check(lambda d: loss(z, target, denominator=d), positive(()), case[0])
    for name, value in number_settings(*case).items():
        low, high = value - 0.05 * (value >= 1), value + 0.05 * (value < 1)
        numbers = torch.linspace(low + 0.01, high - 0.01, N, dtype=torch.float64).requires_grad_()
        check(lambda v, name=name: with_numbers(*case, {name: v}, **common)(z, target), numbers, case[0])
    if soft:
        check(lambda q: loss(z, q), positive(N, C), case[0])


@pytest.mark.parametrize("name", ["gamma", "floor"])
def test_a_detached_weight_has_no_gradient_to_give(name: str) -> None:
    numbers = {"gamma": 0.3, "floor": 0.2}
    numbers[name] = torch.tensor(numbers[name], requires_grad=True)
    loss = lossfit.GammaCrossEntropyLoss(**numbers)
    with pytest.raises(ValueError, match=f"Expected `{name}` without a gradient"):
        loss(torch.randn(N, C), torch.randint(C, (N,)))


# What has no gradient to give, and is not an input that a user trains, is refused where it requires one.
REFUSED = {
    "auc": {"target", "sample_weight"},
    "partial_auc": {"target", "sample_weight", "low", "high"},
    "average_precision": {"target", "sample_weight"},
    "reinforce": {"reward"},
    "distillation": {"teacher"},
    "top_k_accuracy": {"k"},
    "recall_at_precision": {"precision"},
    "zlpr": {"target"},
    "bce": {"target"},
    "focal_bce": {"target"},
    "asymmetric": {"target", "clip"},
    "multi_way": {"target"},
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_a_loss_of_another_family_is_called_with(name: str) -> None:
    batch = EXAMPLES[name]()
    loss, taken = lossfit.make(name), list(inspect.signature(lossfit.registry.get(name).forward).parameters)[1:]
    tensors = dict(zip(taken, batch, strict=False))
    named: dict[str, Tensor] = {n: v.detach() for n, v in tensors.items() if v.is_floating_point()}
    named |= {"sample_weight": positive(len(batch[0])).detach()} if "sample_weight" in taken else {}
    named |= {"denominator": positive(()).detach()} if "denominator" in taken else {}
    for argument, value in named.items():

        def called(v: Tensor, argument: str = argument) -> Tensor:
            return loss(**{**tensors, argument: v})

        given = value.clone().requires_grad_()
        if argument in REFUSED.get(name, ()):
            with pytest.raises(ValueError, match=f"Expected `{argument}` without a gradient"):
                called(given)
        else:
            check(called, given)


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_a_loss_of_another_family_is_made_with(name: str) -> None:
    cls, batch = lossfit.registry.get(name), EXAMPLES[name]()
    cards = {
        **cls.hypers,
        **({"steep": cls.common_hypers["steep"][0]} if name != "brier" and cls.common_hypers else {}),
    }
    values = {k: torch.tensor(float(getattr(lossfit.make(name), k)), dtype=torch.float64) for k in cards}
    if name in ("bce", "focal_bce", "asymmetric"):
        cards["weight"], values["weight"] = None, positive(batch[0].shape[1]).detach()
    if name == "bce":
        cards["pos_weight"], values["pos_weight"] = None, positive(batch[0].shape[1]).detach()
    for key, card in cards.items():
        if card is not None:
            at = values[key].item()
            values[key] = torch.tensor(min(max(at, card.low + 0.1), card.high - 0.1), dtype=torch.float64)

        def made(v: Tensor, key: str = key) -> Tensor:
            return lossfit.make(name, **{key: v})(*batch)

        given = values[key].clone().requires_grad_()
        if key in REFUSED.get(name, ()):
            with pytest.raises((TypeError, ValueError), match=f"Expected `{key}`"):
                made(given)
        else:
            check(made, given)
