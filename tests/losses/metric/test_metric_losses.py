"""Losses of metrics, against scikit-learn's metrics, a longhand table of predictions and its derivatives."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torch import Tensor

import lossfit
from lossfit.losses.metric.base import MetricLoss
from lossfit.losses.metric.brier import BrierLoss
from lossfit.losses.metric.confusion import BalancedAccuracyLoss, CohenKappaLoss, FBetaLoss, MatthewsLoss
from lossfit.losses.metric.for_metric import for_metric
from lossfit.losses.metric.top_k import RecallAtPrecisionLoss, TopKAccuracyLoss

Make = Callable[..., MetricLoss]

TABLE: dict[str, Make] = {
    "balanced_accuracy": BalancedAccuracyLoss,
    "macro_f1": FBetaLoss,
    "macro_f2": lambda **k: FBetaLoss(2.0, **k),
    "micro_f0.5": lambda **k: FBetaLoss(0.5, average="micro", **k),
    "matthews": MatthewsLoss,
    "kappa": CohenKappaLoss,
    "linear_kappa": lambda **k: CohenKappaLoss("linear", **k),
    "quadratic_kappa": lambda **k: CohenKappaLoss("quadratic", **k),
}
ALL: dict[str, Make] = {
    **TABLE,
    "top_1": lambda **k: TopKAccuracyLoss(1, **k),
    "top_2": lambda **k: TopKAccuracyLoss(2, **k),
    "recall_at_precision": lambda **k: RecallAtPrecisionLoss(0.8, **k),
}
CLASSES = 4

# These metrics compare with chance, which changes with the predictions: they grow with every row only if they are high.
LOW_FOR_ORDER = {"kappa": 0.0, "linear_kappa": 0.0, "quadratic_kappa": 0.8, "matthews": 0.8}


def batch(rows: int = 30, scale: float = 1.5, lead: float = 1.0) -> tuple[Tensor, Tensor]:
    """Logits that are right more often than not, and classes of uneven size."""
    target = torch.tensor([0.5, 0.25, 0.15, 0.1]).multinomial(rows, replacement=True)
    target[:CLASSES] = torch.arange(CLASSES)
    scores = scale * torch.randn(rows, CLASSES, dtype=torch.float64)
    scores[torch.arange(rows), target] += lead
    return scores, target


def recall_at(scores: np.ndarray, own: np.ndarray, least: float, weight: np.ndarray | None) -> float:
    precision, recall, _ = sk.precision_recall_curve(own, scores, sample_weight=weight)
    return float(recall[precision >= least - 1e-12].max())


def by_scikit_learn(name: str, z: Tensor, y: Tensor, weight: Tensor | None = None) -> float:
    """The metric itself."""
    scores, true, predicted = z.numpy(), y.numpy(), z.argmax(1).numpy()
    w = None if weight is None else weight.numpy()
    found = {
        "balanced_accuracy": lambda: sk.balanced_accuracy_score(true, predicted, sample_weight=w),
        "macro_f1": lambda: sk.f1_score(true, predicted, labels=np.unique(true), average="macro", sample_weight=w),
        "macro_f2": lambda: sk.fbeta_score(
            true, predicted, beta=2, labels=np.unique(true), average="macro", sample_weight=w
        ),
        "micro_f0.5": lambda: sk.fbeta_score(true, predicted, beta=0.5, average="micro", sample_weight=w),
        "matthews": lambda: sk.matthews_corrcoef(true, predicted, sample_weight=w),
        "kappa": lambda: sk.cohen_kappa_score(true, predicted, sample_weight=w),
        "linear_kappa": lambda: sk.cohen_kappa_score(true, predicted, weights="linear", sample_weight=w),
        "quadratic_kappa": lambda: sk.cohen_kappa_score(true, predicted, weights="quadratic", sample_weight=w),
        "top_1": lambda: sk.top_k_accuracy_score(true, scores, k=1, labels=range(z.shape[1]), sample_weight=w),
        "top_2": lambda: sk.top_k_accuracy_score(true, scores, k=2, labels=range(z.shape[1]), sample_weight=w),
        "recall_at_precision": lambda: np.mean(
            [recall_at(log_odds(scores, c), true == c, 0.8, w) for c in np.unique(true)]
        ),
    }[name]()
    return float(found)


def log_odds(scores: np.ndarray, c: int) -> np.ndarray:
    return scores[:, c] - np.logaddexp.reduce(np.delete(scores, c, 1), axis=1)


def table(p: Tensor, y: Tensor) -> Tensor:
    """How many rows of class a count as predicted as b, row by row."""
    found = torch.zeros(p.shape[1], p.shape[1], dtype=p.dtype)
    for row, a in zip(p, y, strict=True):
        found = found + torch.eye(p.shape[1], dtype=p.dtype)[a].outer(row)
    return found


def of_table(name: str, k: Tensor) -> Tensor:
    """The metrics by their definitions, from a table of counts."""
    tp, n, s, total = k.diagonal(), k.sum(1), k.sum(0), k.sum()
    there = n > 0
    if name == "balanced_accuracy":
        return (tp / n)[there].mean()
    if name == "micro_f0.5":
        return tp.sum() / total
    if name.startswith("macro_f"):
        square = float(name[-1]) ** 2
        precision, recall = tp / s, tp / n
        return ((1 + square) * precision * recall / (square * precision + recall))[there].mean()
    if name == "matthews":
        spread = (total**2 - (s**2).sum()) * (total**2 - (n**2).sum())
        return (tp.sum() * total - (n * s).sum()) / spread.sqrt()
    at = torch.arange(len(n), dtype=k.dtype)
    power = {"linear_kappa": 1, "quadratic_kappa": 2}.get(name, 0)
    cost = 1 - torch.eye(len(n), dtype=k.dtype) if not power else (at - at[:, None]).abs() ** power
    return 1 - (cost * k).sum() / (cost * n.outer(s) / total).sum()


def first_order_costs(name: str, n: Tensor) -> Tensor:
    """What a row of class a that moves to b takes from the metric at the table without errors."""
    perfect = torch.diag(n).requires_grad_()
    slope = torch.autograd.grad(of_table(name, perfect + 0.0), perfect)[0]
    return slope.diagonal().unsqueeze(1) - slope


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_smooth_metric_tends_to_the_metric(name: str, weighted: bool) -> None:
    for lead in (0.0, 1.0, 3.0):
        z, y = batch(lead=lead)
        weight = torch.rand(len(y), dtype=torch.float64) + 0.1 if weighted else None
        for scale, near in ((1e3, 0.02), (1e5, 1e-9)):
            # Ranked by log-odds, rows may change places as scores are scaled up.
            expected = by_scikit_learn(name, scale * z, y, weight)
            smooth = ALL[name]().smooth(scale * z, y, sample_weight=weight).item()
            assert smooth == pytest.approx(expected, abs=near)
        assert abs(ALL[name]().smooth(z, y, sample_weight=weight).item() - expected) > 1e-3


@pytest.mark.parametrize("name", TABLE)
def test_the_loss_is_the_table_s_metric_and_the_first_order_costs_of_the_excess(name: str) -> None:
    for rows in (7, 25):
        z, y = batch(rows)
        z.requires_grad_()
        log_p = z.log_softmax(1)
        p, ce = log_p.exp(), -log_p[torch.arange(rows), y]
        smooth = of_table(name, table(p, y))
        costs = first_order_costs(name, torch.bincount(y, minlength=CLASSES).double())
        rivals = p * (1 - torch.eye(CLASSES, dtype=p.dtype)[y])
        steeper = ce / (1 - p[torch.arange(rows), y]) - 1
        expected = 1 - smooth + (steeper * (rivals * costs[y]).sum(1)).sum()
        loss = TABLE[name]()
        assert loss.smooth(z, y).item() == pytest.approx(smooth.item(), rel=1e-12)
        assert loss(z, y).item() == pytest.approx(expected.item(), rel=1e-12)
        for found, reference in ((loss(z, y), expected), (TABLE[name](steep=False)(z, y), 1 - smooth)):
            grads = [torch.autograd.grad(v, z, retain_graph=True)[0] for v in (found, reference)]
            torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_first_order_equal_where_rows_are_right(name: str) -> None:
    """The steepened and the plain loss, and their gradients, differ by second order in the errors."""
    z, y = batch(lead=40.0, scale=0.5)
    for shift in (8.0, 12.0, 16.0, 20.0):
        right = z - (40 - shift) * torch.eye(CLASSES, dtype=z.dtype)[y]
        right.requires_grad_()
        steep, plain = ALL[name]()(right, y), ALL[name](steep=False)(right, y)
        error = 10 * math.exp(-shift + 2)
        assert plain > 0
        assert steep.item() == pytest.approx(plain.item(), rel=error)
        grads = [torch.autograd.grad(v, right)[0] for v in (steep, plain)]
        torch.testing.assert_close(*grads, rtol=20 * error, atol=1e-20)


@pytest.mark.parametrize("name", ALL)
def test_one_row_that_is_wrong_is_raised_without_end(name: str) -> None:
    z, y = batch(lead=20.0, scale=0.5)
    losses, plain = [], []
    for behind in (50.0, 100.0, 150.0):
        wrong = z.clone()
        wrong[0, y[0]] = z[0, (y[0] + 1) % CLASSES] - behind
        # Two rivals lead, so that it is wrong among two as well.
        wrong[0, (y[0] + 2) % CLASSES] = wrong[0, (y[0] + 1) % CLASSES]
        losses.append(ALL[name]()(wrong, y).item())
        plain.append(ALL[name](steep=False)(wrong, y).item())
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=0.1)
    assert losses[2] > losses[1] + 0.3
    assert plain[2] == pytest.approx(plain[1], abs=1e-6)
    assert plain[2] < 1


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), row=st.integers(0, 19), gain=st.floats(0.01, 5.0))
def test_more_score_for_a_target_is_never_worse(name: str, seed: int, row: int, gain: float) -> None:
    torch.manual_seed(seed)
    z, y = batch(20, lead=4.0 if name in LOW_FOR_ORDER else 1.0)
    better = z.clone()
    better[row, y[row]] += gain
    for steep in (True, False):
        loss = ALL[name](steep=steep)
        if loss.smooth(z, y) > LOW_FOR_ORDER.get(name, -math.inf):
            assert loss(better, y) <= loss(z, y) + 1e-12


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("steep", [True, False])
def test_gradients(name: str, steep: bool) -> None:
    z, y = batch(11)
    weight = torch.rand(11, dtype=torch.float64)
    y[3] = -100
    loss = ALL[name](steep=steep)
    assert torch.autograd.gradcheck(lambda z: loss(z, y, sample_weight=weight), z.requires_grad_())


@pytest.mark.parametrize("name", [*ALL, "brier"])
class TestEveryOne:
    """What holds for each of them."""

    def make(self, name: str, **given: Any) -> MetricLoss:
        return BrierLoss(**given) if name == "brier" else ALL[name](**given)

    def test_a_weight_counts_as_so_many_rows(self, name: str) -> None:
        z, y = batch()
        times = torch.randint(0, 4, y.shape)
        loss = self.make(name)
        again = loss(z.repeat_interleave(times, 0), y.repeat_interleave(times))
        torch.testing.assert_close(loss(z, y, sample_weight=times), again)
        torch.testing.assert_close(loss(z, y, sample_weight=0.01 * times), again)

    def test_ignored_rows_may_hold_anything(self, name: str) -> None:
        z, y = batch()
        loss = self.make(name, ignore_index=-1)
        expected = loss(z, y)
        more = torch.cat([z, torch.tensor([[math.nan] * CLASSES, [math.inf, 0, 0, 1]])]).requires_grad_()
        weight = torch.cat([torch.ones(len(y)), torch.tensor([math.nan, 5.0])])
        found = loss(more, torch.cat([y, torch.tensor([-1, -1])]), sample_weight=weight)
        assert found.item() == pytest.approx(expected.item(), rel=1e-12)
        grad = torch.autograd.grad(found, more)[0]
        assert (grad[-2:] == 0).all()
        assert grad[:-2].isfinite().all()

    def test_nothing_to_learn_from_is_0_without_gradient(self, name: str) -> None:
        loss = self.make(name)
        for rows in (0, 3):
            z = torch.randn(rows, CLASSES, requires_grad=True)
            value = loss(z, torch.full((rows,), -100))
            assert value.item() == 0
            assert (torch.autograd.grad(value, z)[0] == 0).all()
        z = torch.randn(3, CLASSES, requires_grad=True)
        value = loss(z, torch.tensor([0, 1, 2]), sample_weight=torch.zeros(3))
        assert value.item() == 0
        assert (torch.autograd.grad(value, z)[0] == 0).all()

    def test_many_batches_at_once(self, name: str) -> None:
        loss = self.make(name)
        each = [batch(15) for _ in range(6)]
        z, y = torch.stack([b[0] for b in each]).view(2, 3, 15, -1), torch.stack([b[1] for b in each]).view(2, 3, 15)
        expected = torch.stack([loss(*b) for b in each]).view(2, 3)
        torch.testing.assert_close(loss._of_batches(z, y), expected)
        torch.testing.assert_close(torch.vmap(torch.vmap(loss))(z, y), expected)
        weight = torch.rand(2, 3, 15, dtype=torch.float64)
        one = loss(z[1, 2], y[1, 2], sample_weight=weight[1, 2])
        torch.testing.assert_close(loss._of_batches(z, y, weight)[1, 2], one)

    def test_other_shapes_are_rows(self, name: str) -> None:
        loss = self.make(name)
        z, y = batch(24)
        maps = z.view(4, 2, 3, CLASSES).movedim(3, 1)
        torch.testing.assert_close(loss(maps, y.view(4, 2, 3)), loss(z, y))
        per_sample = torch.tensor([1.0, 2.0, 0.0, 3.0])
        torch.testing.assert_close(
            loss(maps, y.view(4, 2, 3), sample_weight=per_sample),
            loss(z, y, sample_weight=per_sample.repeat_interleave(6)),
        )
        torch.testing.assert_close(loss(z[0], y[0]), loss(z[:1], y[:1]))
        torch.testing.assert_close(loss.smooth(z[0], y[0]), loss.smooth(z[:1], y[:1]))

    def test_invariances(self, name: str) -> None:
        loss = self.make(name)
        z, y = batch()
        order = torch.randperm(len(y))
        torch.testing.assert_close(loss(z[order], y[order]), loss(z, y))
        torch.testing.assert_close(loss(z + torch.randn(len(y), 1, dtype=z.dtype), y), loss(z, y))
        if "linear" not in name and "quadratic" not in name:
            classes = torch.randperm(CLASSES)
            torch.testing.assert_close(loss(z[:, classes], classes.argsort()[y]), loss(z, y))

    def test_a_class_that_no_row_has(self, name: str) -> None:
        """Scores of an absent class count as errors of the rows only, and stay finite."""
        z, y = batch()
        y = y.clamp(max=2)
        z.requires_grad_()
        value = self.make(name)(z, y)
        assert value.isfinite()
        assert torch.autograd.grad(value, z)[0].isfinite().all()
        masked = torch.cat([z[:, :3], torch.full((len(y), 1), -math.inf)], 1)
        value = self.make(name)(masked, y)
        if name != "quadratic_kappa" and name != "linear_kappa":
            torch.testing.assert_close(value, self.make(name)(z[:, :3], y))
        assert torch.autograd.grad(value, z)[0].isfinite().all()

    @pytest.mark.parametrize("scale", [0.0, 1e-3, 30.0, 1e3, 1e6])
    def test_float32_is_finite_and_near_float64(self, name: str, scale: float) -> None:
        for only in (None, 0):
            z, y = batch(lead=0.5)
            y = y if only is None else torch.full_like(y, only)
            small = (scale * z).float().requires_grad_()
            value = self.make(name)(small, y)
            assert value.dtype == torch.float32
            assert value.isfinite()
            assert torch.autograd.grad(value, small)[0].isfinite().all()
            assert value.item() == pytest.approx(
                self.make(name)(small.detach().double(), y).item(), rel=2e-5, abs=1e-12
            )

    def test_small_losses_keep_their_digits(self, name: str) -> None:
        z, y = batch(lead=20.0, scale=0.3)
        found, exact = self.make(name)(z.float(), y), self.make(name)(z.float().double(), y)
        assert 0 < exact < 1e-5
        assert found.item() == pytest.approx(exact.item(), rel=2e-5)

    def test_only_the_mean_is_defined(self, name: str) -> None:
        with pytest.raises(ValueError, match=r"Expected `reduction` to be 'mean'.*, but got 'none'"):
            self.make(name, reduction="none")

    def test_bad_input(self, name: str) -> None:
        loss = self.make(name)
        z, y = batch()
        with pytest.raises(TypeError, match="Expected `target` to hold integer class indices of shape"):
            loss(z, z.softmax(1))
        with pytest.raises(IndexError, match=r"Expected `target` to hold class indices in \[0, 4\)"):
            loss(z, y + 4)
        with pytest.raises(ValueError, match=r"Expected `target` of shape \(30,\)"):
            loss(z, y[:5])
        with pytest.raises(ValueError, match=r"Expected `sample_weight` of shape \(30,\)"):
            loss(z, y, sample_weight=torch.ones(3))
        with pytest.raises(ValueError, match=r"Expected `sample_weight` of at least 0, but got -2\."):
            loss(z, y, sample_weight=torch.full((30,), -2.0))
        with pytest.raises(TypeError, match=r"Expected `sample_weight` to be a torch\.Tensor, but got list"):
            loss.smooth(z, y, sample_weight=[1.0] * 30)

    def test_compiled_is_the_same(self, name: str) -> None:
        z, y = batch(12)
        torch._dynamo.reset()  # or there are too many versions of one function
        compiled = torch.compile(self.make(name), backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(z, y), self.make(name)(z, y))


class TestSpecialCases:
    """Where a metric's loss is a known one."""

    def test_micro_f_and_top_1_are_cross_entropy(self) -> None:
        z, y = batch()
        for loss in (FBetaLoss(3.0, average="micro"), TopKAccuracyLoss(1)):
            torch.testing.assert_close(loss(z, y), torch.nn.functional.cross_entropy(z, y))

    def test_balanced_accuracy_is_weighted_cross_entropy(self) -> None:
        z, y = batch()
        weight = 1 / torch.bincount(y).double()
        torch.testing.assert_close(BalancedAccuracyLoss()(z, y), torch.nn.functional.cross_entropy(z, y, weight))

    def test_a_batch_of_one_class_tells_kappa_and_correlation_nothing(self) -> None:
        z = torch.randn(5, 3, requires_grad=True)
        for loss in (MatthewsLoss(), CohenKappaLoss(), CohenKappaLoss("quadratic")):
            value = loss(z, torch.full((5,), 1))
            assert value.item() == 1
            assert loss.smooth(z, torch.full((5,), 1)).item() == 0
            assert (torch.autograd.grad(value, z)[0] == 0).all()

    def test_the_correlation_of_predictions_of_one_class_is_0(self) -> None:
        z = torch.tensor([[1e4, 0.0, 0.0]]).repeat(4, 1).requires_grad_()
        y = torch.tensor([0, 1, 2, 0])
        assert MatthewsLoss().smooth(z, y).item() == 0
        value = MatthewsLoss()(z, y)
        assert value > 1000
        assert torch.autograd.grad(value, z)[0].isfinite().all()

    def test_the_correlation_can_be_minus_1(self) -> None:
        z = 100 * torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
        assert MatthewsLoss().smooth(z, torch.tensor([0, 1])).item() == pytest.approx(-1)

    def test_top_k_leaves_the_best_rivals_alone(self) -> None:
        z = torch.tensor([[2.0, 5.0, 0.0, 1.0]], dtype=torch.float64, requires_grad=True)
        value = TopKAccuracyLoss(2)(z, torch.tensor([0]))
        assert value.item() == pytest.approx(math.log1p(math.exp(-2) + math.exp(-1)))
        grad = torch.autograd.grad(value, z)[0]
        assert grad[0, 1] == 0
        assert grad[0, 0] < 0
        assert (grad[0, 2:] > 0).all()

    def test_two_classes_have_one_recall(self) -> None:
        for seed in range(20):
            torch.manual_seed(seed)
            z = torch.randn(25, 2, dtype=torch.float64)
            y = torch.randint(2, (25,))
            scores = (z[:, 1] - z[:, 0]).numpy()
            for least in (0.3, 0.5, 0.75, 1.0):
                found = RecallAtPrecisionLoss(least).smooth(1e6 * z, y).item()
                assert found == pytest.approx(recall_at(scores, y.numpy(), least, None), abs=1e-6)

    def test_rows_of_equal_scores_come_in_together(self) -> None:
        d = torch.tensor([3.0, 2.0, 2.0, 1.0, 0.0])
        y = torch.tensor([1, 0, 1, 1, 0])
        z = torch.stack([torch.zeros(5), d], 1).requires_grad_()
        # After the rows at 2, precision is 2/3; after the one at 1 it is 3/4.
        kept = RecallAtPrecisionLoss(0.7)(z, y)
        expected = torch.nn.functional.softplus(0.0 - d[[0, 2, 3]]).mean()
        torch.testing.assert_close(kept, expected)
        out = RecallAtPrecisionLoss(0.8)(z, y)
        torch.testing.assert_close(out, torch.nn.functional.softplus(2.0 - d[[0, 2, 3]]).mean())
        grad = torch.autograd.grad(out, z)[0][:, 1]
        assert grad[1] > 0
        assert grad[4] == 0

    def test_a_precision_that_all_rows_have_asks_for_nothing(self) -> None:
        z = torch.randn(6, 2, requires_grad=True)
        value = RecallAtPrecisionLoss(0.5)(z, torch.tensor([1, 1, 1, 1, 1, 0]))
        assert value.item() == 0
        assert (torch.autograd.grad(value, z)[0] == 0).all()

    def test_brier(self) -> None:
        z, y = batch()
        onehot = torch.eye(CLASSES, dtype=z.dtype)[y]
        expected = (z.softmax(1) - onehot).square().sum(1).mean()
        torch.testing.assert_close(BrierLoss()(z, y), expected)
        torch.testing.assert_close(BrierLoss().smooth(z, y), expected)
        assert torch.autograd.gradcheck(lambda z: BrierLoss()(z, y), z.requires_grad_())

    def test_steepness_is_a_mixture_and_may_change(self) -> None:
        z, y = batch()
        plain, steep = FBetaLoss(steep=False)(z, y), FBetaLoss()(z, y)
        torch.testing.assert_close(FBetaLoss(steep=0.3)(z, y), plain + 0.3 * (steep - plain))
        falling = FBetaLoss(steep=lambda step: 1 - step / 10)
        falling.step(to=10)
        torch.testing.assert_close(falling(z, y), plain)
        several = FBetaLoss(steep=torch.tensor([0.0, 0.3, 1.0], dtype=z.dtype))
        found = several._of_batches(z.expand(2, 3, -1, -1), y.expand(2, 3, -1))
        torch.testing.assert_close(found, (plain + several.steep * (steep - plain)).expand(2, 3))
        with pytest.raises(ValueError, match=r"Expected `steep` in \[0, 1\], but got 2\."):
            FBetaLoss(steep=2.0)

    def test_beta_may_be_scheduled_or_learnt(self) -> None:
        z, y = batch()
        scheduled = FBetaLoss(lambda step: 1.0 + step)
        scheduled.step()
        torch.testing.assert_close(scheduled(z, y), FBetaLoss(2.0)(z, y))
        beta = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda b: FBetaLoss(b)(z, y), beta)
        with pytest.raises(ValueError, match=r"Expected `beta` to broadcast to the rows \(\), but got \(2,\)"):
            FBetaLoss(torch.ones(2))(z, y)

    @pytest.mark.parametrize(
        ("make", "error", "told"),
        [
            (lambda: FBetaLoss(0.0), ValueError, r"Expected `beta` in \(0, inf\), but got 0"),
            (lambda: FBetaLoss(average="weighted"), ValueError, r"Expected `average` to be one of 'macro', 'micro'"),
            (lambda: CohenKappaLoss("square"), ValueError, r"Expected `weights` to be one of 'linear', 'quadratic'"),
            (lambda: TopKAccuracyLoss(0), ValueError, r"Expected `k` in \[1, inf\), but got 0"),
            (lambda: TopKAccuracyLoss(2.0), TypeError, r"Expected `k` to be an integer, but got 2\.0"),
            (lambda: TopKAccuracyLoss(True), TypeError, r"Expected `k` to be an integer, but got True"),
            (
                lambda: TopKAccuracyLoss(4)(*batch()),
                ValueError,
                r"Expected `k` below the number of classes.*got 4 for 4",
            ),
            (lambda: RecallAtPrecisionLoss(1.5), ValueError, r"Expected `precision` in \(0, 1\], but got 1\.5"),
            (lambda: RecallAtPrecisionLoss(0.0), ValueError, r"Expected `precision` in \(0, 1\], but got 0"),
        ],
    )
    def test_bad_settings(self, make: Callable[[], object], error: type[Exception], told: str) -> None:
        with pytest.raises(error, match=told):
            make()


class TestForMetric:
    """lossfit.for_metric."""

    @pytest.mark.parametrize(
        ("metric", "given", "expected"),
        [
            ("accuracy", {}, "CrossEntropyLoss()"),
            ("accuracy", {"steep": False}, "ExpectedAccuracyLoss()"),
            ("balanced_accuracy", {}, "BalancedAccuracyLoss()"),
            ("balanced_accuracy", {"steep": False}, "BalancedAccuracyLoss(steep=0.0)"),
            ("macro_f1", {}, "FBetaLoss(beta=1.0)"),
            ("macro_f2", {}, "FBetaLoss(beta=2.0)"),
            ("macro_f1", {"beta": 2.0}, "FBetaLoss(beta=2.0)"),
            ("micro_f0.5", {}, "FBetaLoss(beta=0.5, average='micro')"),
            ("macro_f_beta", {"beta": 3.0}, "FBetaLoss(beta=3.0)"),
            ("micro_f1", {}, "FBetaLoss(beta=1.0, average='micro')"),
            ("matthews", {"ignore_index": 3}, "MatthewsLoss(ignore_index=3)"),
            ("cohen_kappa", {}, "CohenKappaLoss()"),
            ("quadratic_weighted_kappa", {}, "CohenKappaLoss(weights='quadratic')"),
            ("top_k_accuracy", {"k": 3}, "TopKAccuracyLoss(k=3)"),
            ("recall_at_precision", {"precision": 0.8}, "RecallAtPrecisionLoss(precision=0.8)"),
            ("log_loss", {"label_smoothing": 0.1}, "CrossEntropyLoss(label_smoothing=0.1)"),
            ("brier", {}, "BrierLoss()"),
        ],
    )
    def test_the_loss_of_each(self, metric: str, given: dict[str, Any], expected: str) -> None:
        assert repr(for_metric(metric, **given)) == expected

    @pytest.mark.parametrize(
        ("metric", "expected"), [("auc", "AUCLoss"), ("average_precision", "AveragePrecisionLoss")]
    )
    def test_rankings(self, metric: str, expected: str) -> None:
        if not hasattr(lossfit, expected):
            pytest.skip("not there yet")
        assert type(for_metric(metric)) is getattr(lossfit, expected)
        positive = torch.tensor([1, 1, 0, 0])
        apart, mixed = torch.tensor([9.0, 8.0, 1.0, 0.0]), torch.tensor([0.0, 8.0, 1.0, 9.0])
        assert for_metric(metric)(apart, positive) < for_metric(metric)(mixed, positive)

    @pytest.mark.parametrize(
        ("given", "nearest"),
        [
            ("macrof1", "macro_f1"),
            ("balanced_acuracy", "balanced_accuracy"),
            ("cohen_kapa", "cohen_kappa"),
            ("macro_f", "macro_f1"),
        ],
    )
    def test_unknown_names_suggest_the_nearest(self, given: str, nearest: str) -> None:
        with pytest.raises(ValueError, match=rf"Expected `metric` to be one of .*, but got '{given}'. .*'{nearest}'"):
            for_metric(given)


@pytest.fixture(scope="module")
def yeast() -> tuple[Tensor, Tensor]:
    found = pl.read_csv(Path(lossfit.__file__).parent / "compare" / "data" / "bundled" / "yeast.csv")
    x = torch.from_numpy(found.drop("localization").to_numpy().astype(np.float32))
    y = torch.from_numpy(found["localization"].rank("dense").to_numpy().astype(np.int64) - 1)
    return (x - x.mean(0)) / x.std(0).clamp(min=1e-6), y


def trained(loss: torch.nn.Module, x: Tensor, y: Tensor) -> np.ndarray:
    """What a linear model predicts for the rows it was trained on."""
    model = torch.nn.Linear(x.shape[1], int(y.max()) + 1)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    return model(x).argmax(1).numpy()


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
def test_on_yeast_the_metric_s_loss_trains_the_metric(metric: str, yeast: tuple[Tensor, Tensor]) -> None:
    """Classes of 463 down to 5 rows."""
    x, y = yeast
    losses = {
        "smooth": for_metric(metric, steep=False),
        "steep": for_metric(metric),
        "expected_accuracy": lossfit.ExpectedAccuracyLoss(),
        "cross_entropy": lossfit.CrossEntropyLoss(),
    }
    found = {}
    for name, loss in losses.items():
        predicted = trained(loss, x, y)
        f1 = sk.f1_score(y.numpy(), predicted, average="macro", zero_division=0)
        found[name] = f1 if metric == "macro_f1" else sk.balanced_accuracy_score(y.numpy(), predicted)
    assert found["smooth"] > found["expected_accuracy"] + 0.015
    assert found["smooth"] > found["steep"] + 0.015
    assert found["steep"] > found["cross_entropy"]
