"""The monitor, against longhand sums, quantiles of a Beta distribution, and autograd."""

import json
import math
import pickle

import numpy as np
import pytest
import torch
from scipy.stats import beta
from torch import Tensor

import lossfit
from helpers import build, case_id, every_case
from lossfit.monitor import Monitor

N, C = 60, 5


def batch(scale: float = 3.0) -> tuple[Tensor, Tensor]:
    return scale * torch.randn(N, C, dtype=torch.float64), torch.randint(C, (N,))


def of(p: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of two classes whose targets have these probabilities."""
    d = torch.logit(p.double())
    return torch.stack([torch.zeros_like(d), d], 1), torch.ones(len(p), dtype=torch.int64)


def seen(*batches: tuple[Tensor, Tensor], **settings: object) -> Monitor:
    monitor = Monitor(**settings)
    for z, y in batches:
        monitor.update(z, y)
    return monitor


def assert_same(one: Monitor, other: Monitor) -> None:
    torch.testing.assert_close(one.sums, other.sums, rtol=1e-12, atol=1e-13)


def test_against_longhand() -> None:
    z, y = batch()
    found = seen((z, y), bins=4).summary()
    p = z.softmax(1).gather(1, y[:, None]).squeeze(1).numpy()
    assert found["rows"] == N
    assert found["accuracy"] == pytest.approx((z.argmax(1) == y).double().mean().item())
    assert found["expected_error"] == pytest.approx((1 - p).mean())
    assert found["variance"] == pytest.approx(p.var())
    assert found["cross_entropy"] == pytest.approx(-np.log(p).mean())
    assert found["second_order"] == pytest.approx(((1 - p) ** 2).mean() / 2)
    assert found["second_order"] == pytest.approx((found["variance"] + found["expected_error"] ** 2) / 2)
    assert found["bound"] == pytest.approx(((1 - p) ** 2 / (2 * p)).mean())
    assert 0 < found["excess"] <= found["bound"]
    assert found["bins"] == [0, 0.25, 0.5, 0.75, 1]
    for b in range(4):
        inside = (p >= b / 4) & (p < (b + 1) / 4)
        assert found["row_share"][b] == pytest.approx(inside.mean())
        assert found["gradient_share"][b] == pytest.approx((1 - p)[inside].sum() / (1 - p).sum())
    assert all(share > 0 for share in found["gradient_share"])


def test_late_in_training() -> None:
    """With p of a Beta(20, 1): E[-log p] = 1/20, E[1 - p] = 1/21, E[(1 - p)^2] = 2 / (21 * 22)."""
    p = torch.tensor(beta(20, 1).ppf((np.arange(200_000) + 0.5) / 200_000))
    monitor = seen(of(p))
    found = monitor.summary()
    assert found["cross_entropy"] == pytest.approx(1 / 20, rel=1e-4)
    assert found["expected_error"] == pytest.approx(1 / 21, rel=1e-4)
    assert found["second_order"] == pytest.approx(1 / (21 * 22), rel=1e-4)
    assert monitor.is_expected_accuracy(0.05)  # 1 - 20 / 21 = 0.0476
    assert not monitor.is_expected_accuracy(0.045)


def test_the_bound_holds_where_the_article_has_a_smaller_one() -> None:
    """At p = 0.9 the excess is 0.00536: above (1 - p)^2 / 2 = 0.005, below (1 - p)^2 / (2 p) = 0.00556."""
    found = seen(of(torch.tensor([0.9], dtype=torch.float64))).summary()
    assert found["excess"] == pytest.approx(0.00536052, abs=1e-8)
    assert found["second_order"] == pytest.approx(0.005)
    assert found["bound"] == pytest.approx(0.005 / 0.9)


def test_a_few_rows_that_are_wrong_keep_it_cross_entropy() -> None:
    p = torch.full((1000,), 0.999)
    assert seen(of(p)).is_expected_accuracy()
    p[:5] = 1e-9
    assert not seen(of(p)).is_expected_accuracy()


def test_far_ahead_and_far_behind() -> None:
    z = torch.tensor([[900.0, 0.0], [0.0, 60.0]], dtype=torch.float64)
    found = seen((z, torch.tensor([0, 0]))).summary()
    assert found["cross_entropy"] == pytest.approx(30)
    assert found["bound"] == pytest.approx(math.exp(60) / 4)
    assert found["gradient_share"] == [1] + [0] * 9
    assert seen((z[:1], torch.tensor([0]))).is_expected_accuracy()
    assert seen((-900 * torch.eye(2), torch.tensor([0, 1]))).summary()["bound"] == math.inf


@pytest.mark.parametrize("case", every_case(), ids=case_id)
def test_the_pull_is_the_slope_in_the_gap(case: tuple[str, dict[str, object]]) -> None:
    """For two classes, where every loss is a function of the difference of the logits."""
    name, settings = case
    loss = build(name, **settings, reduction="mean")
    d = torch.tensor([-2.3, -0.4, 0.3, 1.7], dtype=torch.float64, requires_grad=True)
    z, y = torch.stack([d, torch.zeros_like(d)], 1), torch.zeros(4, dtype=torch.int64)
    found = seen((z, y), loss=loss, bins=1000).summary()["gradient_share"]
    assert loss.reduction == "mean"
    (slope,) = torch.autograd.grad(build(name, **settings, reduction="none")(z, y).sum(), d)
    pull = slope.abs() / slope.abs().sum()
    at = (torch.sigmoid(d) * 1000).long()
    assert [found[i] for i in at] == pytest.approx(pull.tolist(), rel=1e-6)


def test_of_cross_entropy_the_pull_is_the_default() -> None:
    z, y = batch()
    assert_same(seen((z, y)), seen((z, y), loss=lossfit.CrossEntropyLoss()))
    shares = seen((z, y), loss=lossfit.ExpectedAccuracyLoss()).summary()["gradient_share"]
    assert shares[0] < seen((z, y)).summary()["gradient_share"][0] / 2


def test_parts_merge() -> None:
    z, y = batch()
    whole = seen((z, y))
    assert_same(seen((z[:7], y[:7]), (z[7:], y[7:])), whole)
    one = seen((z[:7], y[:7]))
    one.merge(seen((z[7:], y[7:])))
    assert_same(one, whole)
    one.reset()
    assert_same(one, Monitor())
    assert_same(pickle.loads(pickle.dumps(whole)), whole)
    with pytest.raises(ValueError, match="a monitor of 10 bins, but got one of 4"):
        one.merge(Monitor(bins=4))


@pytest.mark.parametrize("loss", [None, lossfit.FocalLoss(), lossfit.FocalLoss(ignore_index=3)])
def test_ignored_rows_may_hold_anything(loss: lossfit.FocalLoss | None) -> None:
    z, y = batch()
    if loss is not None and loss.ignore_index == 3:
        y = y.where(y != 3, 0)
    more = torch.cat([z, torch.full((3, C), math.nan)])
    assert_same(seen((more, torch.cat([y, torch.full((3,), -1)])), loss=loss, ignore_index=-1), seen((z, y), loss=loss))


def test_dense_unbatched_and_half() -> None:
    z, y = batch()
    assert_same(seen((z.view(4, 3, 5, C).movedim(-1, 1), y.view(4, 3, 5))), seen((z, y)))
    assert_same(seen((z[0], y[0])), seen((z[:1], y[:1])))
    half = seen((z.bfloat16(), y), loss=lossfit.FocalLoss())
    torch.testing.assert_close(
        half.sums, seen((z.bfloat16().float(), y), loss=lossfit.FocalLoss()).sums, rtol=1e-5, atol=1e-5
    )


def test_nothing_is_changed_and_no_graph_is_kept() -> None:
    z, y = batch()
    before = z.clone()
    monitor = seen((z.requires_grad_(), y), loss=lossfit.FocalLoss())
    assert torch.equal(z.detach(), before)
    assert z.grad is None
    assert not monitor.sums.requires_grad


def test_without_rows() -> None:
    monitor = Monitor()
    monitor.update(torch.zeros(0, C), torch.zeros(0).long())
    found = monitor.summary()
    assert found["rows"] == 0
    assert math.isnan(found["cross_entropy"])
    assert not monitor.is_expected_accuracy()
    assert "nan" in monitor.table()
    assert monitor.chart().to_dict()["data"]["values"][0]["of"] == "gradient"


def test_table_and_chart() -> None:
    monitor = seen(batch(), bins=4)
    found = monitor.summary()
    assert json.loads(json.dumps(found)) == found
    lines = monitor.table().splitlines()
    assert lines[2].split() == ["expected", "error", f"{found['expected_error']:.4g}"]
    assert lines[-1].split() == [
        *("0.75", "to", "1.00"),
        f"{found['row_share'][-1]:.1%}",
        f"{found['gradient_share'][-1]:.1%}",
    ]
    values = monitor.chart().to_dict()["data"]["values"]
    assert [v["share"] for v in values if v["of"] == "gradient"] == found["gradient_share"]
    assert [v["share"] for v in values if v["of"] == "rows"] == found["row_share"]


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (lambda: Monitor(torch.nn.CrossEntropyLoss()), TypeError, "`loss` to be a single-label loss, but got CrossE"),
        (lambda: Monitor(bins=0), ValueError, "`bins` to be an integer of at least 1, but got 0"),
        (lambda: Monitor().is_expected_accuracy(0.0), ValueError, r"`tolerance` in \(0, 1\), but got 0.0"),
        (lambda: Monitor().update(torch.zeros(2, 3), torch.tensor([0, 3])), IndexError, r"in \[0, 3\)"),
        (lambda: Monitor().update(torch.zeros(2, 3), torch.zeros(2, 3)), TypeError, "`target` to hold integer"),
        (lambda: Monitor().update([1.0], torch.zeros(2)), TypeError, "`input` to be a torch.Tensor, but got list"),
    ],
)
def test_bad_input(make: object, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        make()
