"""Rows that count more or less, in the metrics and in training."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn

from lossfit.compare.candidates import candidates
from lossfit.compare.scoring import metrics, multilabel_metrics
from lossfit.compare.training import train
from lossfit.compare.training.models import Architecture
from lossfit.compare.training.objective import Objective
from lossfit.compare.training.task import Recipe, Task
from trainings import SHORT, dealt

M, N, C = 3, 120, 4
TIMES = torch.randint(0, 4, (M, N), generator=torch.Generator().manual_seed(0))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    log_p = (2 * torch.randn(M, N, C, dtype=torch.float64, generator=generator)).log_softmax(2)
    return log_p, torch.randint(C, (M, N), generator=generator)


def repeated(values: torch.Tensor, m: int) -> torch.Tensor:
    """Rows of model m, each as often as its weight says."""
    return values[m : m + 1].repeat_interleave(TIMES[m], 1)


@pytest.mark.parametrize("name", [name for name in metrics.METRICS if name != "aurc"])
def test_a_row_of_weight_w_counts_as_w_rows(name: str) -> None:
    function = metrics.METRICS[name].function
    log_p, y = batch()
    found = function(log_p, y, TIMES.double() / 7)
    expected = [function(repeated(log_p, m), repeated(y, m)).item() for m in range(M)]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)
    assert found.tolist() != pytest.approx(function(log_p, y).tolist(), rel=1e-3)


def test_the_area_of_the_risks_is_the_weighted_mean_of_the_risks() -> None:
    log_p, y = batch()
    weight = torch.rand(M, N, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for m, found in enumerate(metrics.aurc(log_p, y, weight).tolist()):
        ranked = sorted(range(N), key=lambda i: -log_p[m, i].max().item())
        area = wrong = total = 0.0
        for i in ranked:
            w = weight[m, i].item()
            total += w
            wrong += w * (int(log_p[m, i].argmax()) != int(y[m, i]))
            area += w * wrong / total
        assert found == pytest.approx(area / total, rel=1e-12)
    ones = torch.ones(M, N)
    assert metrics.aurc(log_p, y, ones).tolist() == pytest.approx(metrics.aurc(log_p, y).tolist(), rel=1e-12)


def test_curves_of_weighted_rows() -> None:
    log_p, y = batch()
    hundred = log_p[:, :100], y[:, :100]  # of which every coverage is a number of rows
    found = metrics.risk_coverage(*hundred, torch.full((M, 100), 0.3))
    assert found.flatten().tolist() == pytest.approx(metrics.risk_coverage(*hundred).flatten().tolist(), rel=1e-12)
    sharp = metrics.risk_coverage(log_p, y, TIMES)
    for m in range(M):
        ranked = repeated(log_p, m)[0].max(1).values.argsort(descending=True, stable=True)
        wrong = (repeated(log_p, m)[0].argmax(1) != repeated(y, m)[0]).double()[ranked]
        assert sharp[m, -1].item() == pytest.approx(wrong.mean().item(), rel=1e-12)
    bins = metrics.reliability(log_p, y, TIMES)
    for m in range(M):
        expected = metrics.reliability(repeated(log_p, m), repeated(y, m))
        for a, b in zip(bins, expected, strict=True):
            assert a[m].tolist() == pytest.approx(b[0].tolist(), rel=1e-12)


@pytest.mark.parametrize("name", multilabel_metrics.METRICS)
def test_metrics_of_any_number_of_right_classes(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(M, N, C, dtype=torch.float64, generator=generator)
    labels = torch.rand(M, N, C, generator=generator) < 0.4
    function = multilabel_metrics.METRICS[name].function
    expected = [function(repeated(scores, m), repeated(labels, m)).item() for m in range(M)]
    assert function(scores, labels, TIMES).tolist() == pytest.approx(expected, rel=1e-12)


def test_metrics_are_those_of_scikit_learn() -> None:
    log_p, y = batch()
    weight = torch.rand(M, N, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    for m in range(M):
        p, t, w = log_p[m].exp().numpy(), y[m].numpy(), weight[m].numpy()
        expected = {
            "accuracy": sklearn.accuracy_score(t, p.argmax(1), sample_weight=w),
            "balanced_accuracy": sklearn.balanced_accuracy_score(t, p.argmax(1), sample_weight=w),
            "macro_f1": sklearn.f1_score(t, p.argmax(1), average="macro", sample_weight=w),
            "log_loss": sklearn.log_loss(t, p, sample_weight=w, labels=range(C)),
        }
        for name, value in expected.items():
            found = metrics.METRICS[name].function(log_p, y, weight)[m].item()
            assert found == pytest.approx(value, rel=1e-10), name


@pytest.mark.parametrize("name", metrics.METRICS)
def test_rows_without_any_weight(name: str) -> None:
    found = metrics.METRICS[name].function(*batch(), torch.zeros(M, N))
    assert found.tolist() == [0.0] * M


def test_weights_of_splits_go_to_their_models() -> None:
    log_p, y = batch()
    weight = TIMES[:1].double()
    metric = metrics.METRICS["accuracy"]
    found = metric.weighted(weight).function(log_p, y)
    assert found.tolist() == metrics.accuracy(log_p, y, weight.expand(M, -1)).tolist()
    assert metric.weighted(None) is metric
    assert metrics.by_model(torch.tensor([[1.0], [2.0]]), 6).flatten().tolist() == [1, 1, 1, 2, 2, 2]


ROWS = 150


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def task(name: str, weight: np.ndarray | None, flipped: np.ndarray | None = None, many: bool = False) -> Task:
    """Rows of three classes; those in ``flipped`` have labels turned to the next class."""
    rng = np.random.default_rng(3)
    labels = rng.permutation(np.repeat(np.arange(3), 50))
    x = (rng.normal(size=(3, 5))[labels] + rng.normal(size=(ROWS, 5))).astype(np.float32)
    right = rng.random((ROWS, 3)) < 0.4
    seen = None
    if flipped is not None:
        seen = right ^ flipped[:, None] if many else (labels + flipped) % 3
    candidate = candidates.candidates("multi_label" if many else "single_label")[name]
    settings, metric = candidates.settings(candidate, 2, 0), "micro_f1" if many else "log_loss"
    return Task(
        Recipe(candidate, settings, 3, Architecture("mlp", 5, 3, 4), (metric,), SHORT),
        replace(dealt(x, right if many else labels, 3, seen), weight=weight),
    )


def numbers(whole: Task) -> list[float]:
    (metric,) = whole.recipe.metrics
    found = train.train(whole)[metric]
    tested = [r[key] for r in found.passes for key in r if key.startswith("test_")]
    return [*(r["validation"] for r in found.settings), *tested]


NAMES = [(name, False) for name in candidates.candidates()] + [
    (name, True) for name in candidates.candidates("multi_label")
]


@pytest.mark.parametrize(("name", "many"), NAMES)
def test_equal_weights_change_nothing(name: str, many: bool) -> None:
    plain = numbers(task(name, None, many=many))
    assert numbers(task(name, np.ones(ROWS), many=many)) == pytest.approx(plain, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(("name", "many"), NAMES)
def test_rows_without_weight_are_not_learnt_from(name: str, many: bool) -> None:
    out = np.random.default_rng(5).random(ROWS) < 0.4
    weight = np.where(out, 0.0, 1 / np.mean(~out))
    turned = numbers(task(name, weight, out, many))
    # EXACT's integral is cut into steps by all rows of a batch.
    assert turned == pytest.approx(numbers(task(name, weight, np.zeros(ROWS, dtype=bool), many)), rel=1e-5)
    assert turned != pytest.approx(numbers(task(name, np.ones(ROWS), out, many)), rel=1e-3)


@pytest.mark.parametrize("name", ["cross_entropy", "class_weights", "logit_adjustment", "focal", "for_macro_f1"])
def test_the_objective_longhand(name: str) -> None:
    weight = np.random.default_rng(6).random(ROWS) + 0.1
    whole = task(name, weight)
    of_rows = torch.from_numpy(np.stack([weight[own] for own in whole.rows.train])).float()
    y = torch.from_numpy(np.stack([whole.rows.trained[own] for own in whole.rows.train]))
    objective = Objective(whole.recipe, y, 30, of_rows)
    z = torch.randn(3, 30, 2, 3, generator=torch.Generator().manual_seed(0))
    found = objective(z, y[:, :30], of_rows[:, :30]).item()
    expected = 0.0
    for s in range(3):
        w, t = of_rows[s, :30], y[s, :30]
        counts = torch.stack([of_rows[s][y[s] == c].sum() for c in range(3)])
        for m, setting in enumerate(whole.recipe.settings):
            own = whole.recipe.candidate.describe(setting)
            class_weight = (counts.sum() / (3 * counts)) ** own.pop("weight_power", 0.0)
            scores = z[s, :, m] + own.pop("prior_power", 0.0) * (counts / counts.sum()).log()
            loss = candidates.make_loss(whole.recipe.candidate, **own)
            if name == "for_macro_f1":
                expected += loss(scores, t, sample_weight=w).item()
                continue
            rows = torch.stack([loss(scores[i : i + 1], t[i : i + 1]) for i in range(30)]) * w * class_weight[t]
            total = (w * class_weight[t]).sum() if name == "class_weights" else 30 * of_rows[s].mean()
            expected += (rows.sum() / total).item()
    assert found == pytest.approx(expected, rel=1e-5)
