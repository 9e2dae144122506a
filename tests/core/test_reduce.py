"""Rows to a number."""

import pytest
import torch
from torch.testing import assert_close

from lossfit.core.reduce import weigh

ROWS = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=torch.float64)
VALID = torch.tensor([[True, False], [True, True], [False, True]])
CLASS = torch.tensor([[0.5, 2.0], [1.0, 3.0], [4.0, 0.25]], dtype=torch.float64)
SAMPLE = torch.tensor([2.0, 0.0, 1.5], dtype=torch.float64)


def longhand(reduction: str, valid: bool, by_class: bool, by_sample: bool, denominator: float | None) -> object:
    rows, mass, total = [], 0.0, 0.0
    for i in range(3):
        for j in range(2):
            weight = (CLASS[i, j].item() if by_class else 1.0) * (SAMPLE[i].item() if by_sample else 1.0)
            weight *= VALID[i, j].item() if valid else 1
            rows.append(weight * ROWS[i, j].item())
            mass, total = mass + weight, total + rows[-1]
    if reduction == "none":
        return rows
    return total if reduction == "sum" else total / (denominator or mass)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("valid", [False, True])
@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("by_sample", [False, True])
@pytest.mark.parametrize("denominator", [None, 2.5])
def test_reduce_and_its_gradient(
    reduction: str, valid: bool, by_class: bool, by_sample: bool, denominator: float | None
) -> None:
    if denominator is not None and reduction != "mean":
        pytest.skip("a denominator is for means")
    weighing = weigh(
        ROWS.shape,
        torch.float64,
        reduction,
        valid=VALID if valid else None,
        class_weight=CLASS if by_class else None,
        sample_weight=SAMPLE if by_sample else None,
        denominator=denominator,
    )
    rows = ROWS.clone().requires_grad_()
    found = weighing.reduce(rows)
    expected = longhand(reduction, valid, by_class, by_sample, denominator)
    assert found.flatten().tolist() == pytest.approx(expected if reduction == "none" else [expected], rel=1e-14)
    up = torch.rand(found.shape, dtype=torch.float64)
    grad = torch.autograd.grad(found, rows, up)[0]
    assert_close(weighing.spread(up, rows.numel()).expand(ROWS.shape), grad, rtol=1e-14, atol=0)


def test_ignored_rows_may_hold_anything() -> None:
    rows = ROWS.clone()
    rows[0, 1] = torch.nan
    rows[2, 0] = torch.inf
    weighing = weigh(ROWS.shape, torch.float64, "mean", valid=VALID, sample_weight=SAMPLE)
    expected = weigh(ROWS.shape, torch.float64, "mean", valid=VALID, sample_weight=SAMPLE).reduce(ROWS)
    assert weighing.reduce(rows) == expected


def test_rows_that_contain_their_class_weights_are_divided_by_them_only() -> None:
    weighing = weigh(ROWS.shape, torch.float64, "mean", class_weight=CLASS, sample_weight=SAMPLE, weighted=True)
    mass = (CLASS * SAMPLE[:, None]).sum()
    assert_close(weighing.reduce(CLASS * ROWS), (CLASS * SAMPLE[:, None] * ROWS).sum() / mass)


@pytest.mark.parametrize(
    "nothing",
    [{"valid": torch.zeros(3, 2, dtype=torch.bool)}, {"sample_weight": torch.zeros(3)}, {"class_weight": 0 * CLASS}],
    ids=["ignored", "sample weights of 0", "class weights of 0"],
)
def test_a_mean_over_nothing_is_0(nothing: dict[str, torch.Tensor]) -> None:
    rows = ROWS.clone().requires_grad_()
    found = weigh(ROWS.shape, torch.float64, "mean", **nothing).reduce(rows)
    assert found.item() == 0
    assert not torch.autograd.grad(found, rows)[0].any()


def test_a_mean_over_no_rows_is_0() -> None:
    shape = torch.Size((0, 2))
    for options in ({}, {"sample_weight": torch.ones(0)}, {"valid": torch.ones(0, 2, dtype=torch.bool)}):
        assert weigh(shape, torch.float32, "mean", **options).reduce(torch.zeros(shape)).item() == 0


def test_weights_take_the_type_of_the_rows() -> None:
    weighing = weigh(ROWS.shape, torch.float64, "mean", sample_weight=torch.tensor([1, 2, 3]))
    assert weighing.reduce(ROWS).dtype == torch.float64
    assert weighing.reduce(ROWS).item() == pytest.approx((1 * 3 + 2 * 7 + 3 * 11) / (2 * 6), rel=1e-15)


def test_errors() -> None:
    with pytest.raises(ValueError, match="`denominator` only with reduction='mean', but got reduction='none'"):
        weigh(ROWS.shape, torch.float64, "none", denominator=2.0)
    with pytest.raises(ValueError, match="`denominator` to be positive and finite, but got -1"):
        weigh(ROWS.shape, torch.float64, "mean", denominator=-1)
    with pytest.raises(ValueError, match="`denominator` to be positive and finite, but got nan"):
        weigh(ROWS.shape, torch.float64, "mean", denominator=float("nan"))
    with pytest.raises(ValueError, match=r"`sample_weight` of shape \(3, 2\), one weight per row, but got \(2,\)"):
        weigh(ROWS.shape, torch.float64, "sum", sample_weight=torch.ones(2))
    with pytest.raises(TypeError, match=r"`sample_weight` to be a torch.Tensor, but got float"):
        weigh(ROWS.shape, torch.float64, "sum", sample_weight=2.0)
