"""A row that weighs nothing counts for nothing, whatever it holds: 0 times infinity is no number."""

import math

import pytest
import torch
from torch import Tensor

import lossfit
from families import EXAMPLES
from helpers import build, case_id
from lossfit.core.reduce import weigh

N, C, D = 5, 4, 3
JUNK = (math.nan, math.inf, -math.inf)
# The features of a row of these are rivals of the other rows.
APART = [name for name in EXAMPLES if name not in ("info_nce", "nt_xent", "sup_con")]
# One for each way from scores to rows: fused, by autograd, over all rivals, by an integral.
PATHS = [
    ("cross_entropy", {}),
    ("poly", {"coefficients": [0.7, 0.2], "form": "scaled"}),
    ("sum_hinge", {}),
    ("hinge", {"squared": True}),
    ("exact", {"log": True, "sigma": 1.5}),
]
CASES = pytest.mark.parametrize("case", PATHS, ids=case_id)


def gradients(value: Tensor, *of: Tensor) -> list[Tensor]:
    return [value.detach(), *torch.autograd.grad(value.sum(), of)]


def close(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def weights(size: int, absent: int) -> Tensor:
    return (torch.rand(size, dtype=torch.float64) + 0.5).index_fill(0, torch.tensor(absent), 0.0)


def batch(kind: str) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """What the loss is made with, what it is called with besides scores, and the targets; row 2 weighs nothing."""
    target = torch.tensor([0, 1, 3, 2, 1])
    if kind == "class":
        return {"weight": weights(C, 3)}, {}, target
    if kind == "soft":
        target = torch.rand(N, C, dtype=torch.float64)
    return {}, {"sample_weight": weights(N, 2)}, target


@CASES
@pytest.mark.parametrize("kind", ["sample", "soft", "class"])
def test_of_one_right_class(case: tuple[str, dict[str, object]], kind: str) -> None:
    made, called, target = batch(kind)
    loss = build(case[0], reduction="none", **case[1], **made)
    z = torch.randn(N, C, dtype=torch.float64)
    expected = gradients(loss(plain := z.clone().requires_grad_(), target, **called), plain)
    for junk in JUNK:
        holds = z.index_fill(0, torch.tensor(2), junk).requires_grad_()
        close(gradients(loss(holds, target, **called), holds), expected)
        positions = holds.detach().view(1, N, C).movedim(2, 1).requires_grad_()
        shaped = {k: v.view(1, N) for k, v in called.items()}
        rows = target.view(1, N, C).movedim(2, 1) if kind == "soft" else target.view(1, N)
        found = gradients(loss(positions, rows, **shaped), positions)
        close(found, [expected[0].view(found[0].shape), expected[1].t().unsqueeze(0)])


@CASES
@pytest.mark.parametrize("kind", ["sample", "soft", "class"])
@pytest.mark.parametrize("backend", ["dense", "chunked"])
def test_of_features(case: tuple[str, dict[str, object]], kind: str, backend: str) -> None:
    made, called, target = batch(kind)
    loss, head = build(case[0], **case[1], **made), lossfit.CosineHead(D, C, 4.0).double()
    x, weight = torch.randn(N, D, dtype=torch.float64), torch.randn(C, D, dtype=torch.float64).requires_grad_()
    expected = gradients(loss.linear(x, weight, target, **called, backend=backend), weight)
    with_head = gradients(head.loss(x, target, loss, **called, backend=backend), head.weight)
    for junk in JUNK[:2]:
        holds = x.index_fill(0, torch.tensor(2), junk)
        close(gradients(loss.linear(holds, weight, target, **called, backend=backend), weight), expected)
        if kind == "sample":
            close(gradients(head.loss(holds, target, loss, **called, backend="chunked"), head.weight), with_head)


@pytest.mark.parametrize("name", APART)
def test_of_other_families(name: str) -> None:
    scores, *rest = EXAMPLES[name]()
    loss, weight = lossfit.make(name), weights(len(scores), 1)
    expected = gradients(loss(plain := scores.clone().requires_grad_(), *rest, sample_weight=weight), plain)
    for junk in JUNK:
        holds = scores.index_fill(0, torch.tensor(1), junk).requires_grad_()
        close(gradients(loss(holds, *rest, sample_weight=weight), holds), expected)


@pytest.mark.parametrize("name", ["bce", "focal_bce", "asymmetric"])
@pytest.mark.parametrize("soft", [False, True])
def test_of_a_label_whose_class_weighs_nothing(name: str, soft: bool) -> None:
    z, target = torch.randn(N, C, dtype=torch.float64), torch.rand(N, C, dtype=torch.float64)
    target = target if soft else target.round()
    loss = lossfit.make(name, weight=weights(C, 1))
    expected = gradients(loss(plain := z.clone().requires_grad_(), target), plain)
    for junk in JUNK:
        holds = z.index_fill(1, torch.tensor(1), junk).requires_grad_()
        close(gradients(loss(holds, target), holds), expected)


@pytest.mark.parametrize("backend", ["dense", "chunked"])
def test_of_features_with_labels_and_with_a_teacher(backend: str) -> None:
    x, weight = torch.randn(N, D, dtype=torch.float64), torch.randn(C, D, dtype=torch.float64).requires_grad_()
    labels, y = torch.rand(N, C, dtype=torch.float64).round(), torch.tensor([0, 1, 3, 2, 1])
    teacher, s = (torch.randn(N, D).double(), torch.randn(C, D).double()), weights(N, 2)

    def values(x: Tensor) -> Tensor:
        several = lossfit.BCELoss().linear(x, weight, labels, sample_weight=s, backend=backend)
        taught = lossfit.DistillationLoss().linear(x, weight, *teacher, y, sample_weight=s, backend=backend)
        return torch.stack([several, taught])

    close(gradients(values(x.index_fill(0, torch.tensor(2), math.nan)), weight), gradients(values(x), weight))


@pytest.mark.parametrize("normalise", ["token", "sequence"])
def test_of_tokens(normalise: str) -> None:
    z, y = torch.randn(2, 3, C, dtype=torch.float64), torch.randint(C, (2, 3))
    loss = lossfit.TokenLoss(normalise=normalise)
    for s, at in ((weights(6, 4).view(2, 3), (1, 1)), (weights(2, 0), (0,))):
        expected = gradients(loss(plain := z.clone().requires_grad_(), y, sample_weight=s), plain)
        holds = z.clone()
        holds[at] = math.nan
        close(gradients(loss(holds.requires_grad_(), y, sample_weight=s), holds), expected)


def test_a_weight_with_a_gradient_gets_it_also_where_it_is_0() -> None:
    z, y, s = torch.randn(N, C, dtype=torch.float64), torch.tensor([0, 1, 3, 2, 1]), weights(N, 2).requires_grad_()
    rows = lossfit.FocalLoss(reduction="none")(z, y)
    (found,) = torch.autograd.grad(lossfit.FocalLoss(reduction="sum")(z, y, sample_weight=s), s)
    torch.testing.assert_close(found, rows)
    z[2] = math.nan
    assert lossfit.FocalLoss()(z, y, sample_weight=s).isfinite()


def test_where_the_host_may_not_look_they_are_found_all_the_same() -> None:
    z, y, s = torch.randn(N, C), torch.tensor([0, 1, 3, 2, 1]), weights(N, 2).float()
    expected = lossfit.CrossEntropyLoss()(z, y, sample_weight=s)
    z[2] = math.nan
    compiled = torch.compile(lossfit.CrossEntropyLoss(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(z, y, sample_weight=s), expected)
    found = torch.func.vmap(lambda z, s: lossfit.CrossEntropyLoss()(z, y, sample_weight=s))(z[None], s[None])
    torch.testing.assert_close(found[0], expected)


class TestDenominators:
    def test_a_tensor_of_0_gives_0(self) -> None:
        z, y = torch.randn(N, C, requires_grad=True), torch.full((N,), -100)
        for denominator in (torch.tensor(0), torch.tensor(0.0), torch.tensor([0])):
            value = lossfit.CrossEntropyLoss()(z, y, denominator=denominator)
            assert value.shape == ()
            assert value == 0
            assert not torch.autograd.grad(value, z)[0].any()
            for other in (
                lossfit.TokenLoss()(z[None].detach(), y[None], denominator=denominator),
                lossfit.CrossEntropyLoss().linear(z.detach(), torch.eye(C), y, denominator=denominator),
                lossfit.BCELoss()(z.detach(), torch.full((N, C), -100.0), denominator=denominator),
            ):
                assert other == 0

    def test_one_of_one_dimension_gives_a_number(self) -> None:
        z, y = torch.randn(N, C), torch.tensor([0, 1, 3, 2, 1])
        found = lossfit.CrossEntropyLoss()(z, y, denominator=torch.tensor([7]))
        torch.testing.assert_close(found, torch.nn.functional.cross_entropy(z, y) * N / 7)

    @pytest.mark.parametrize("wrong", [-1.0, math.nan])
    def test_others_are_refused(self, wrong: float) -> None:
        with pytest.raises(ValueError, match=f"`denominator` of at least 0, but got {wrong}"):
            weigh(torch.Size([2]), torch.float32, "mean", denominator=torch.tensor(wrong))
        with pytest.raises(ValueError, match="`denominator` to be positive"):
            weigh(torch.Size([2]), torch.float32, "mean", denominator=wrong)
        with pytest.raises(ValueError, match=r"`denominator` to be one number, but got shape \(2,\)"):
            weigh(torch.Size([2]), torch.float32, "mean", denominator=torch.ones(2))
