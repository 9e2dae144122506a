"""Many small models trained as one, against one model trained longhand."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss
from torch import Tensor, nn

from lossfit.compare.candidates import candidates
from lossfit.compare.candidates.candidates import Setting
from lossfit.compare.scoring import metrics
from lossfit.compare.training import train
from lossfit.compare.training.models import Stacked
from lossfit.compare.training.objective import log_probabilities
from lossfit.compare.training.optimizer import AdamW
from lossfit.compare.training.task import Task
from trainings import CLASSES, FEATURES, ROWS, agree, changed, setting, task

STEPS = 24


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """So that sums have one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def _double() -> Iterator[None]:
    """Sums in another order then differ too little to change what a training comes to."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def alone(whole: Task, s: int, t: int) -> dict[str, Any]:
    """The record of one of a task's models, trained by itself."""
    one = changed(
        whole,
        settings=[whole.recipe.settings[t]],
        splits=[whole.rows.splits[s]],
        matrices=[whole.rows.matrices[s]],
        seeds=[whole.rows.seeds[s]],
    )
    return train.train(one)[0]


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("hidden", [0, 6])
@pytest.mark.parametrize("name", candidates.candidates())
def test_models_at_once_equal_one_by_one(name: str, hidden: int) -> None:
    whole = task(name, count=2, hidden=hidden)
    records = train.train(whole)
    assert [(r["split"], r["trial"]) for r in records] == [(s, t) for s in range(2) for t in range(3)]
    for record in records:
        agree(record, alone(whole, record["split"], record["trial"]), leave=("split", "trial"))
        assert record["loss"] == name
        assert record["params"] == whole.recipe.candidate.describe(whole.recipe.settings[record["trial"]])
        assert not record["failed"]
    # A hinge without margin does not leave equal scores, so two linear models may be the same.
    assert len({r["test_log_loss"] for r in records}) >= len(records) - (name == "hinge")


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(
    ("features", "trials", "hidden"),
    [(4, 4, 4), (1, 3, 4), (1, 1, 4), (3, 1, 3), (1, 1, 1), (2, 2, 1), (1, 3, 0), (3, 3, 0)],
)
def test_sizes_that_are_the_same_are_not_mistaken(features: int, trials: int, hidden: int) -> None:
    settings = [setting(0.01 * (t + 1), 3.0 / (t + 1)) for t in range(trials)]
    whole = task(settings=settings, hidden=hidden, features=features)
    for t, record in enumerate(train.train(whole)):
        agree(record, longhand(whole, 0, t).record())


class Longhand:
    """A model in plain PyTorch: its final weights, and those of its best checkpoint."""

    def __init__(self, model: nn.Sequential, whole: Task, s: int, t: int) -> None:
        self.model, self.whole, self.s, self.t = model, whole, s, t
        self.split, self.x = whole.rows.splits[s], whole.rows.matrices[s]
        self.value, self.best_step = math.inf, 0
        self.steps: list[int] = []
        self.values: list[float] = []
        self.gaps: list[list[float]] = []
        self.best: dict[str, Tensor] = {}

    def probabilities(self, part: int) -> np.ndarray:
        with torch.no_grad():
            return self.model(torch.from_numpy(self.x[part])).double().softmax(1).numpy()

    def check(self, step: int) -> None:
        p, y = self.probabilities(1), self.split.seen[self.split.validation]
        value = log_loss(y, p, labels=range(CLASSES))
        right = p[np.arange(len(y)), y]
        ranks = [round(q * (len(y) - 1)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)]
        self.steps.append(step)
        self.values.append(value)
        self.gaps.append(np.sort(np.log(right / (1 - right)))[ranks].tolist())
        if value < self.value:
            self.value, self.best_step = value, step
            self.best = {name: p.clone() for name, p in self.model.state_dict().items()}

    def record(self) -> dict[str, Any]:
        own = self.whole.recipe.settings[self.t]
        self.model.load_state_dict(self.best)
        p, y = self.probabilities(2), self.whole.rows.labels[self.split.test]
        log_p, target = torch.from_numpy(p).log()[None], torch.from_numpy(y)[None]
        curves = metrics.reliability(log_p, target)
        table = confusion_matrix(y, p.argmax(1), labels=range(CLASSES))
        wrong = [(a, b) for a in range(CLASSES) for b in range(CLASSES) if a != b and table[a, b]]
        found = {
            "loss": self.whole.recipe.candidate.name,
            "split": self.s,
            "trial": self.t,
            "params": self.whole.recipe.candidate.describe(own),
            "learning_rate": own["learning_rate"],
            "weight_decay": own["weight_decay"],
            "failed": False,
            "best_step": self.best_step,
            "steps": STEPS,
            "pruned": False,
            "stopped": False,
            "validation": self.value,
            **{f"test_{name}": metric.function(log_p, target).item() for name, metric in metrics.METRICS.items()},
            **dict(zip(("bin_rows", "bin_confidence", "bin_hits"), (c[0].tolist() for c in curves), strict=True)),
            "risks": metrics.risk_coverage(log_p, target)[0].tolist(),
            "class_hits": table.diagonal().tolist(),
            "class_predicted": table.sum(0).tolist(),
            "class_rows": table.sum(1).tolist(),
            "confused_actual": [a for a, _ in wrong],
            "confused_predicted": [b for _, b in wrong],
            "confused_rows": [int(table[pair]) for pair in wrong],
            "curve_steps": self.steps,
            "curve_values": self.values,
            "curve_gaps": self.gaps,
        }
        assert found["test_log_loss"] == pytest.approx(log_loss(y, p, labels=range(CLASSES)))
        assert found["test_accuracy"] == pytest.approx(accuracy_score(y, p.argmax(1)))
        return found


def initial(whole: Task, s: int, t: int, generator: torch.Generator) -> nn.Sequential:
    """A module with the weights that the task's models start from."""
    start = Stacked(
        whole.rows.matrices[s][0].shape[1], CLASSES, len(whole.recipe.settings), whole.recipe.model.hidden, [generator]
    )
    return module(start.parameters, whole, 0, t)


def module(parameters: list[Tensor], whole: Task, s: int, t: int) -> nn.Sequential:
    first, bias, *rest = (p.detach().clone() for p in parameters)
    layers: list[nn.Module] = [nn.Linear(first.shape[1], first.shape[3])]
    if rest:
        layers += [nn.ReLU(), nn.Linear(whole.recipe.model.hidden, CLASSES)]
        layers[2].load_state_dict({"weight": rest[0][s, t].T, "bias": rest[1][s, 0, t]})
    layers[0].load_state_dict({"weight": first[s, :, t].T, "bias": bias[s, 0, t]})
    return nn.Sequential(*layers)


def loss_function(name: str, own: Setting, counts: Tensor) -> nn.Module:
    if name == "class_weights":
        return nn.CrossEntropyLoss(weight=(counts.sum() / (CLASSES * counts)) ** own["weight_power"])
    return nn.CrossEntropyLoss(label_smoothing=own.get("label_smoothing", 0.0))


def longhand(whole: Task, s: int, t: int) -> Longhand:
    """The training loop as one writes it."""
    generator = torch.Generator().manual_seed(whole.rows.seeds[s])
    model = initial(whole, s, t, generator)
    own, split = whole.recipe.settings[t], whole.rows.splits[s]
    x, y = torch.from_numpy(whole.rows.matrices[s][0]), torch.from_numpy(split.seen[split.train])
    counts = 1.0 * torch.bincount(y, minlength=CLASSES)
    function = loss_function(whole.recipe.candidate.name, own, counts)
    prior = own.get("prior_power", 0.0) * (counts / counts.sum()).log()
    groups = [
        {"params": [p for n, p in model.named_parameters() if "weight" in n], "weight_decay": own["weight_decay"]},
        {"params": [p for n, p in model.named_parameters() if "bias" in n], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=own["learning_rate"])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / STEPS)
    found, step = Longhand(model, whole, s, t), 0
    while step < STEPS:
        order = torch.randperm(len(x), generator=generator)
        for at in order.split(32):
            if len(at) < 32 or step == STEPS:
                continue
            optimizer.zero_grad()
            function(model(x[at]) + prior, y[at]).backward()
            optimizer.step()
            schedule.step()
            step += 1
            if step % (STEPS // 8) == 0:
                found.check(step)
    return found


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("hidden", [0, 6])
@pytest.mark.parametrize("name", ["cross_entropy", "label_smoothing", "class_weights", "logit_adjustment"])
def test_a_model_is_that_of_a_longhand_loop(name: str, hidden: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    original = train.all_records

    def keeping(best: Any, *rest: Any) -> list[dict[str, Any]]:
        kept[:] = [best.state, best.model.state]
        return original(best, *rest)

    monkeypatch.setattr(train, "all_records", keeping)
    whole = task(name, count=2, hidden=hidden)
    records = train.train(whole)
    for m, record in enumerate(records):
        s, t = divmod(m, 3)
        expected = longhand(whole, s, t)
        final = {name: p.clone() for name, p in expected.model.state_dict().items()}
        agree(record, expected.record())
        for parameters, reference in zip(kept, (expected.best, final), strict=True):
            for key, value in module(parameters, whole, s, t).state_dict().items():
                torch.testing.assert_close(value, reference[key], rtol=1e-5, atol=1e-6)


def test_the_best_checkpoint_may_be_an_early_one() -> None:
    settings = [setting(rate, decay) for rate in (10.0, 1.0, 0.1, 0.005) for decay in (0.0, 3.0)]
    records = train.train(task(settings=settings, count=4))
    steps = {r["best_step"] for r in records}
    assert steps <= set(range(3, 25, 3))
    assert len(steps) > 2


@pytest.mark.parametrize("metric", metrics.METRICS)
def test_the_checkpoint_is_the_best_by_the_metric(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every checkpoint's value is seen by counting the metric's calls on the validation rows."""
    seen: list[Tensor] = []
    plain = metrics.METRICS[metric]

    def noting(log_p: Tensor, target: Tensor) -> Tensor:
        seen.append(plain.function(log_p, target))
        return seen[-1]

    monkeypatch.setitem(metrics.METRICS, metric, plain._replace(function=noting))
    settings = [setting(1.0), setting(0.002), setting(0.05)]
    records = train.train(task("focal", [{**s, "gamma": 2.0} for s in settings], metric=metric, count=2))
    *checkpoints, test = (v.tolist() for v in seen)
    assert len(checkpoints) == 8
    for m, record in enumerate(records):
        values = [c[m] for c in checkpoints]
        best = max(values) if plain.higher else min(values)
        assert record["validation"] == best
        assert record["best_step"] == 3 * (values.index(best) + 1)
        assert record["curve_steps"] == list(range(3, 25, 3))
        assert record["curve_values"] == values
        assert record[f"test_{metric}"] == test[m]


def test_the_earlier_checkpoint_is_kept_on_a_tie() -> None:
    whole = task(metric="accuracy", noise=0.0)
    split = whole.rows.splits[0]
    apart = 50 * np.eye(CLASSES, FEATURES, dtype=np.float32)
    far = tuple(apart[whole.rows.labels[rows]] for rows in (split.train, split.validation, split.test))
    for record in train.train(changed(whole, matrices=[far], settings=[setting()])):
        assert (record["validation"], record["test_accuracy"], record["best_step"]) == (1.0, 1.0, 3)


def test_what_is_tested_on_is_the_true_label() -> None:
    whole = task(noise=0.0, metric="accuracy", settings=[setting()])
    wrong = [replace(s, seen=np.where(np.isin(np.arange(ROWS), s.test), 0, s.seen)) for s in whole.rows.splits]
    assert train.train(changed(whole, splits=wrong)) == train.train(whole)
    turned = [replace(s, seen=(s.seen + 1) % CLASSES) for s in whole.rows.splits]
    found, plain = train.train(changed(whole, splits=turned))[0], train.train(whole)[0]
    assert plain["test_accuracy"] > 0.7
    assert found["validation"] > 0.7
    assert found["test_accuracy"] < 0.3


def test_the_same_seed_gives_the_same_records_and_another_does_not() -> None:
    whole = task("gamma_cross_entropy", count=2, hidden=6)
    found = train.train(whole)
    assert train.train(whole) == found
    assert train.train(changed(whole, seeds=[7, 8])) != found


def test_all_settings_of_a_split_start_from_the_same_weights() -> None:
    model = Stacked(4, 3, 5, 6, [torch.Generator().manual_seed(s) for s in (1, 2)])
    first, _, last, _ = model.parameters
    assert (first == first[:, :, :1]).all()
    assert (last == last[:, :1]).all()
    assert not (first[0] == first[1]).any()
    again = Stacked(4, 3, 1, 6, [torch.Generator().manual_seed(2)]).parameters
    assert (again[0][0, :, 0] == first[1, :, 0]).all()
    assert (again[2][0, 0] == last[1, 0]).all()


@pytest.mark.parametrize("hidden", [0, 6])
def test_stacked_models_are_modules_side_by_side(hidden: int) -> None:
    model = Stacked(FEATURES, CLASSES, 4, hidden, [torch.Generator().manual_seed(s) for s in (1, 2)])
    model.parameters = [torch.randn(p.shape) for p in model.parameters]
    x = torch.randn(2, 7, FEATURES)
    found = model(x)
    assert found.shape == (2, 7, 4, CLASSES)
    whole = task(hidden=hidden)
    for s in range(2):
        for t in range(4):
            torch.testing.assert_close(found[s, :, t], module(model.parameters, whole, s, t)(x[s]))


@pytest.mark.parametrize("rate", [1e30, math.inf, math.nan])
@pytest.mark.parametrize("hidden", [0, 6])
@pytest.mark.parametrize(
    "name", ["cross_entropy", "exact", "smooth_accuracy", "class_weights", "focal", "for_macro_f1"]
)
def test_a_model_that_diverges_does_not_disturb_the_others(name: str, hidden: int, rate: float) -> None:
    sane = task(name, count=2, hidden=hidden)
    wild = [dict(s) for s in sane.recipe.settings]
    wild[1] = {**wild[1], "learning_rate": rate, "weight_decay": 10.0}
    expected, found = train.train(sane), train.train(changed(sane, settings=wild))
    for a, b in zip(found, expected, strict=True):
        if a["trial"] == 1:
            assert a["failed"]
            assert a["best_step"] == 0
            assert math.isfinite(a["test_log_loss"])
        else:
            agree(a, b, rel=1e-3)


@pytest.mark.parametrize("metric", metrics.METRICS)
@pytest.mark.parametrize("name", ["focal", "exact"])
def test_a_model_without_a_finite_checkpoint_has_failed(name: str, metric: str) -> None:
    whole = task(name, metric=metric)
    records = train.train(changed(whole, settings=[{**s, "learning_rate": math.inf} for s in whole.recipe.settings]))
    assert all(r["failed"] and r["best_step"] == 0 for r in records)
    assert all(math.isfinite(r[f"test_{key}"]) for r in records for key in metrics.METRICS)


@pytest.mark.parametrize("metric", ["accuracy", "log_loss"])
def test_a_model_that_diverges_late_keeps_its_last_good_checkpoint(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = task(metric=metric, settings=[setting()] * 2, hidden=6)
    original, calls = AdamW.step, []

    def step(self: AdamW, grads: list[Tensor]) -> None:
        original(self, grads)
        calls.append(0)
        if len(calls) == 15:
            self.model.parameters[2].data[:, 1] = math.nan

    monkeypatch.setattr(AdamW, "step", step)
    healthy, broken = train.train(whole)
    assert 3 <= broken["best_step"] <= 12
    assert np.isfinite(broken["curve_values"]).tolist() == np.isfinite(broken["curve_gaps"]).all(1).tolist()
    assert np.isnan(broken["curve_values"]).tolist() == [False] * 4 + [True] * 4
    assert not broken["failed"]
    assert math.isfinite(broken["test_log_loss"])
    monkeypatch.undo()
    assert healthy["best_step"] >= broken["best_step"]


def test_progress_goes_from_nothing_to_all() -> None:
    shares: list[float] = []
    train.train(task(), shares.append)
    assert shares == pytest.approx([*((step + 1) / STEPS for step in range(STEPS)), 1])


@pytest.mark.parametrize(("rows", "steps", "epochs", "expected"), [(96, 5, 1, 5), (96, 5, 4, 12), (20, 3, 10, 10)])
def test_there_are_as_many_steps_as_promised(rows: int, steps: int, epochs: int, expected: int) -> None:
    """A number of steps, or passes over the data in whole batches, whichever is more."""
    whole = task(settings=[setting()])
    cut = [replace(s, train=s.train[:rows]) for s in whole.rows.splits]
    matrices = [(x[:rows], validation, test) for x, validation, test in whole.rows.matrices]
    shares: list[float] = []
    train.train(changed(whole, splits=cut, matrices=matrices, steps=steps, epochs=epochs), shares.append)
    assert len(shares) == expected + 1


def test_batches_go_through_all_rows_of_each_split() -> None:
    generators = [torch.Generator().manual_seed(s) for s in (1, 2)]
    found = train._batches(generators, 12, 4)
    passes = [torch.cat([next(found) for _ in range(3)], 1) for _ in range(2)]
    for rows in passes:
        assert (rows.sort(1).values == torch.arange(12)).all()
    assert not (passes[0] == passes[1]).all()
    assert not (passes[0][0] == passes[0][1]).all()


def test_probabilities_are_those_that_the_loss_trains() -> None:
    whole = task("exact", [setting(sigma=0.5), setting(sigma=2.0)])
    z = torch.randn(1, 9, 2, CLASSES, dtype=torch.float64)
    found = log_probabilities(whole.recipe, z).exp()
    for t, sigma in enumerate((0.5, 2.0)):
        noisy = z[0, :, t] + sigma * torch.randn(100_000, 9, CLASSES, dtype=torch.float64)
        drawn = nn.functional.one_hot(noisy.argmax(2), CLASSES).double().mean(0)
        assert found[t].numpy() == pytest.approx(drawn.numpy(), abs=0.01)
    plain = log_probabilities(task("focal", [setting(gamma=1.0)] * 2).recipe, z)
    torch.testing.assert_close(plain[1], z[0, :, 1].log_softmax(1))


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("metric", ["macro_f1", "log_loss"])
def test_what_is_free_is_measured_of_the_same_models(metric: str) -> None:
    plain = task(count=2, metric=metric)
    free = candidates.FREE["single_label"][metric]
    records = train.train(changed(plain, free=[free]))
    trained, tuned = records[:6], records[6:]
    for found, expected in zip(trained, train.train(plain), strict=True):
        agree(found, expected, rel=1e-9)
    assert [r["loss"] for r in tuned] == [free.name] * 6
    for record, of in zip(tuned, trained, strict=True):
        for key in ("split", "trial", "learning_rate", "weight_decay", "best_step", "failed"):
            assert record[key] == of[key]
        # Tuned on these rows: temperature 1 and power 0 are among what is tried.
        gain = (record["validation"] - of["validation"]) * (1 if metrics.METRICS[metric].higher else -1)
        assert gain >= -1e-2
        if metric == "log_loss":
            assert record["test_accuracy"] == of["test_accuracy"]
    assert any(record[f"test_{metric}"] != of[f"test_{metric}"] for record, of in zip(tuned, trained, strict=True))


def test_a_failed_training_is_failed_when_tuned_too() -> None:
    found = train.train(
        changed(task(settings=[setting(rate=1e30)]), free=[candidates.FREE["single_label"]["log_loss"]])
    )
    assert [r["failed"] for r in found] == [True, True]


@pytest.mark.usefixtures("_double")
def test_several_metrics_from_one_training() -> None:
    both = train.train_for(task("focal", count=2), ["accuracy", "log_loss"])
    for metric, records in both.items():
        for found, expected in zip(records, train.train(task("focal", count=2, metric=metric)), strict=True):
            agree(found, expected, rel=1e-9)
