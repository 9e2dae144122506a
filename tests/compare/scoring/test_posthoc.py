"""What is free: temperature and prior, for many models at once, against one at a time by brute force."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import balanced_accuracy_score, f1_score

from lossfit.compare.scoring.metrics import METRICS
from lossfit.compare.scoring.posthoc import (
    POWERS,
    THRESHOLDS,
    PriorTuning,
    TemperatureTuning,
    ThresholdTuning,
    fit,
    prior_offsets,
    temperatures,
    threshold_offsets,
)
from lossfit.compare.scoring.tasks import MULTI_LABEL


def rows(models: int, count: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that overrate the common classes, and labels."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.arange(classes, 0, -1).double() ** 2
    y = shares.multinomial(models * count, replacement=True, generator=generator).view(models, count)
    z = 2 * torch.nn.functional.one_hot(y, classes) + 1.5 * torch.randn(models, count, classes, generator=generator)
    return (z + (shares / shares.sum()).log()).log_softmax(2), y


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_prior_is_the_best_on_the_validation_rows(metric: str, classes: int) -> None:
    score = {
        "balanced_accuracy": balanced_accuracy_score,
        "macro_f1": lambda y, p: f1_score(y, p, labels=range(classes), average="macro", zero_division=0),
    }[metric]
    log_p, y = rows(5, 120, classes)
    offsets = prior_offsets(log_p, y, metric).numpy()
    for m in range(5):
        z, labels = log_p[m].numpy(), y[m].numpy()
        frequency = np.bincount(labels, minlength=classes) / len(labels)
        direction = np.array([0.0, 1.0]) if classes == 2 else -np.log(frequency)
        values = [score(labels, (z + t * direction).argmax(1)) for t in (THRESHOLDS if classes == 2 else POWERS)]
        assert score(labels, (z + offsets[m]).argmax(1)) == pytest.approx(max(values))
        assert max(values) > score(labels, z.argmax(1))


def test_the_prior_changes_nothing_where_nothing_is_gained() -> None:
    y = torch.arange(3).repeat(10)
    z = 4 * torch.nn.functional.one_hot(y, 3).float()
    assert PriorTuning("macro_f1").fit(z, y).offset.abs().max() == 0


def test_a_class_without_validation_rows_stays_finite() -> None:
    z, y = torch.randn(20, 3), torch.arange(20) % 2
    assert PriorTuning("balanced_accuracy").fit(z, y)(z).isfinite().all()


def test_a_metric_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"`metric` to be one of 'accuracy', .*, but got 'f3'"):
        PriorTuning("f3")


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_has_the_lowest_smoothed_log_loss(scale: float) -> None:
    log_p, y = rows(4, 150, 3, seed=1)
    log_p = (scale * log_p).log_softmax(2)
    found = temperatures(log_p, y)
    smooth = 1 / 152
    for m in range(4):
        target = (1 - smooth) * torch.nn.functional.one_hot(y[m], 3) + smooth / 3

        def loss(log_t: float, z: torch.Tensor = log_p[m], target: torch.Tensor = target) -> float:
            return -float((target * (z * np.exp(-log_t)).log_softmax(1)).sum(1).mean())

        best = minimize_scalar(loss, bounds=(-2.3, 2.3), method="bounded").x
        assert np.log(found[m].item()) == pytest.approx(best, abs=np.log(10) / 40 + 1e-6)


def test_a_few_rows_that_are_all_right_do_not_bring_the_temperature_to_0() -> None:
    y = torch.arange(3).repeat(4)
    z = 3 * torch.nn.functional.one_hot(y, 3).float()
    assert 0.2 < TemperatureTuning().fit(z, y).temperature < 1.5


@pytest.mark.parametrize("kind", ["prior", "temperature"])
def test_all_models_at_once_are_each_by_itself(kind: str) -> None:
    log_p, y = rows(4, 90, 3, seed=2)
    other, _ = rows(4, 40, 3, seed=3)
    found = fit(kind, log_p, y, "macro_f1")(other)
    assert found.exp().sum(2).numpy() == pytest.approx(1)
    for m in range(4):
        single = PriorTuning("macro_f1") if kind == "prior" else TemperatureTuning()
        expected = single.fit(log_p[m], y[m])(other[m]).log_softmax(1)
        torch.testing.assert_close(found[m], expected)


def test_it_helps_on_other_rows() -> None:
    log_p, y = rows(6, 400, 4, seed=4)
    other, target = rows(6, 2000, 4, seed=5)
    metric = METRICS["balanced_accuracy"].function
    gain = metric(fit("prior", log_p, y, "balanced_accuracy")(other), target) - metric(other, target)
    assert (gain > 0.02).all()
    over, over_other = (3 * log_p).log_softmax(2), (3 * other).log_softmax(2)
    metric = METRICS["log_loss"].function
    gain = metric(over_other, target) - metric(fit("temperature", over, y, "log_loss")(over_other), target)
    assert (gain > 0.05).all()


def labelled(models: int, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of three classes, and which of them are right: of the second and third few."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.rand(models, count, 3, generator=generator) < torch.tensor([0.5, 0.2, 0.05])
    return 1.5 * y - torch.tensor([0.5, 1.5, 3.0]) + torch.randn(y.shape, generator=generator), y


@pytest.mark.parametrize(
    ("metric", "average"), [("macro_f1", "macro"), ("micro_f1", "micro"), ("sample_f1", "samples")]
)
def test_thresholds_are_the_best_on_the_validation_rows(metric: str, average: str) -> None:
    def score(labels: np.ndarray, predicted: np.ndarray, average: str = average) -> float:
        return f1_score(labels, predicted, average=average, zero_division=0)

    scores, y = labelled(4, 150)
    offsets = threshold_offsets(scores, y, metric).numpy()
    for m in range(4):
        z, labels = scores[m].numpy(), y[m].numpy()
        found = score(labels, z + offsets[m] > 0)
        assert found > score(labels, z > 0)
        if metric == "macro_f1":
            each = [max(score(labels[:, [c]], z[:, [c]] + t > 0, "binary") for t in THRESHOLDS) for c in range(3)]
            assert found == pytest.approx(np.mean(each))
            assert len(set(offsets[m].tolist())) > 1
        else:
            assert found == pytest.approx(max(score(labels, z + t > 0) for t in THRESHOLDS))
            assert len(set(offsets[m].tolist())) == 1


def test_thresholds_of_rows_that_count_twice_are_those_of_rows_that_are_there_twice() -> None:
    scores, y = labelled(2, 60)
    weight = torch.ones(1, 60)
    weight[:, ::3] = 2
    twice = [torch.cat([rows, rows[:, ::3]], 1) for rows in (scores, y)]
    for metric in ("macro_f1", "micro_f1"):
        assert torch.equal(threshold_offsets(scores, y, metric, weight), threshold_offsets(*twice, metric))


def test_thresholds_help_on_other_rows_and_change_nothing_where_nothing_is_gained() -> None:
    (scores, y), (other, target) = labelled(5, 500), labelled(5, 3000, seed=1)
    macro_f1 = MULTI_LABEL.metrics["macro_f1"].function
    assert (macro_f1(fit("thresholds", scores, y, "macro_f1")(other), target) > macro_f1(other, target) + 0.02).all()
    single = ThresholdTuning("macro_f1").fit(scores[0], y[0].int())
    torch.testing.assert_close(single(other[0]), fit("thresholds", scores[:1], y[:1], "macro_f1")(other[:1])[0])
    assert ThresholdTuning("micro_f1").fit(4.0 * y[0] - 2, y[0]).offset.abs().max() == 0


def test_thresholds_of_a_metric_with_one_right_class() -> None:
    with pytest.raises(ValueError, match=r"`metric` to be one of 'micro_f1', .*, but got 'accuracy'"):
        ThresholdTuning("accuracy")
