"""Many small models trained as one, against one model trained longhand; and what is chosen for each fold."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn
from torch import Tensor, nn

from lossfit.compare.candidates import candidates
from lossfit.compare.candidates.candidates import Setting
from lossfit.compare.scoring import metrics, posthoc
from lossfit.compare.training import train
from lossfit.compare.training.block import _batches
from lossfit.compare.training.models import Stacked
from lossfit.compare.training.objective import log_probabilities
from lossfit.compare.training.optimizer import AdamW
from lossfit.compare.training.records import Records
from lossfit.compare.training.task import Task
from trainings import CLASSES, FEATURES, ROWS, agree, changed, setting, task

STEPS, EVERY = 24, 3


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


def trained(whole: Task) -> Records:
    return train.train(whole)[whole.recipe.metrics[0]]


def settings_of(records: Records, loss: str) -> list[dict[str, Any]]:
    return [r for r in records.settings if r["loss"] == loss]


class Longhand:
    """All trainings of a task in plain PyTorch: the probabilities of every row that each leaves out, by checkpoint."""

    def __init__(self, whole: Task) -> None:
        self.whole = whole
        self.p: dict[tuple[int, int], list[np.ndarray]] = {}
        self.rows = [np.concatenate(held) for held in whole.rows.held_out]
        for m in range(len(whole.rows.pairs)):
            for t in range(len(whole.recipe.settings)):
                self.p[m, t] = list(self.trained(m, t))

    def trained(self, m: int, t: int) -> Iterator[np.ndarray]:
        """The training loop as one writes it."""
        recipe, rows = self.whole
        generator = torch.Generator().manual_seed(rows.seeds[m])
        model = initial(self.whole, m, t, generator)
        own = recipe.settings[t]
        x, held, _ = (torch.from_numpy(part) for part in rows.matrices[m])
        y = torch.from_numpy(rows.trained[rows.train[m]])
        counts = 1.0 * torch.bincount(y, minlength=CLASSES)
        function = loss_function(recipe.candidate.name, own, counts)
        prior = own.get("prior_power", 0.0) * (counts / counts.sum()).log()
        groups = [
            {"params": [p for n, p in model.named_parameters() if "weight" in n], "weight_decay": own["weight_decay"]},
            {"params": [p for n, p in model.named_parameters() if "bias" in n], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=own["learning_rate"])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / STEPS)
        step = 0
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
                if step % EVERY == 0:
                    with torch.no_grad():
                        yield model(held).double().softmax(1).numpy()

    def pooled(self, k: int, t: int, checkpoint: int) -> tuple[np.ndarray, np.ndarray]:
        """Of all rows outside of fold k, by the models that leave it out: probabilities and the labels to choose by."""
        p, y = [], []
        for m, pair in enumerate(self.whole.rows.pairs):
            if k in pair:
                other = self.whole.rows.held_out[m][1 - pair.index(k)]
                p.append(self.p[m, t][checkpoint][np.isin(self.rows[m], other)])
                y.append(self.whole.rows.chosen[other])
        return np.concatenate(p), np.concatenate(y)

    def value(self, k: int, t: int, checkpoint: int) -> float:
        p, y = self.pooled(k, t, checkpoint)
        return float(sklearn.log_loss(y, p, labels=range(CLASSES)))

    def best(self, k: int, t: int) -> tuple[float, int]:
        """The value and number of the best checkpoint."""
        return min((self.value(k, t, c), c) for c in range(STEPS // EVERY))

    def chosen(self, k: int) -> tuple[int, int]:
        """The setting and its checkpoint."""
        t = min(range(len(self.whole.recipe.settings)), key=lambda t: self.best(k, t)[0])
        return t, self.best(k, t)[1]

    def out_of_fold(self, j: int) -> np.ndarray:
        """Probabilities of all rows in pass j."""
        rows = self.whole.rows
        found = np.full((ROWS, CLASSES), np.nan)
        for k in range(rows.count):
            other = (k + j + 1) % rows.count
            m = rows.pairs.index((min(k, other), max(k, other)))
            t, c = self.chosen(k)
            own = rows.held_out[m][rows.pairs[m].index(k)]
            found[own] = self.p[m, t][c][np.isin(self.rows[m], own)]
        return found


def initial(whole: Task, m: int, t: int, generator: torch.Generator) -> nn.Sequential:
    """A module with the weights that the task's models start from."""
    width, recipe = whole.rows.matrices[m][0].shape[1], whole.recipe
    start = Stacked(width, CLASSES, len(recipe.settings), recipe.model.hidden, [generator])
    return module(start.parameters, recipe.model.hidden, 0, t)


def module(parameters: list[Tensor], hidden: int, s: int, t: int) -> nn.Sequential:
    first, bias, *rest = (p.detach().clone() for p in parameters)
    layers: list[nn.Module] = [nn.Linear(first.shape[1], first.shape[3])]
    if rest:
        layers += [nn.ReLU(), nn.Linear(hidden, CLASSES)]
        layers[2].load_state_dict({"weight": rest[0][s, t].T, "bias": rest[1][s, 0, t]})
    layers[0].load_state_dict({"weight": first[s, :, t].T, "bias": bias[s, 0, t]})
    return nn.Sequential(*layers)


def loss_function(name: str, own: Setting, counts: Tensor) -> nn.Module:
    if name == "class_weights":
        return nn.CrossEntropyLoss(weight=(counts.sum() / (CLASSES * counts)) ** own["weight_power"])
    return nn.CrossEntropyLoss(label_smoothing=own.get("label_smoothing", 0.0))


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(
    ("name", "hidden"), [("cross_entropy", 0), ("cross_entropy", 6), ("class_weights", 6), ("logit_adjustment", 6)]
)
def test_everything_is_as_in_a_longhand_loop(name: str, hidden: int) -> None:
    whole = task(name, hidden=hidden, count=4)
    records, longhand = trained(whole), Longhand(whole)
    own = settings_of(records, name)
    assert [(r["fold"], r["trial"]) for r in own] == [(k, t) for k in range(4) for t in range(3)]
    for record in own:
        k, t = record["fold"], record["trial"]
        value, checkpoint = longhand.best(k, t)
        assert record["validation"] == pytest.approx(value, rel=1e-6)
        assert record["best_step"] == EVERY * (checkpoint + 1)
        assert record["curve_steps"] == list(range(EVERY, STEPS + 1, EVERY))
        assert record["curve_values"] == pytest.approx([longhand.value(k, t, c) for c in range(8)], rel=1e-6)
        p, y = longhand.pooled(k, t, 7)
        right = p[np.arange(len(y)), y]
        ranks = [round(q * (len(y) - 1)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)]
        assert record["curve_gaps"][7] == pytest.approx(np.sort(np.log(right / (1 - right)))[ranks], rel=1e-5)
        assert record["chosen"] == (longhand.chosen(k)[0] == t)
        assert (record["failed"], record["pruned"], record["stopped"], record["steps"]) == (False, False, False, STEPS)
        assert record["params"] == whole.recipe.candidate.describe(whole.recipe.settings[t])
    passes = [r for r in records.passes if r["loss"] == name]
    assert [r["pass"] for r in passes] == [0, 1, 2]
    y = whole.rows.labels
    for record in passes:
        p = longhand.out_of_fold(record["pass"])
        assert record["validation"] == pytest.approx(
            np.mean([longhand.best(k, longhand.chosen(k)[0])[0] for k in range(4)])
        )
        assert record["test_log_loss"] == pytest.approx(sklearn.log_loss(y, p), rel=1e-6)
        assert record["test_accuracy"] == pytest.approx(sklearn.accuracy_score(y, p.argmax(1)))
        assert record["test_macro_f1"] == pytest.approx(sklearn.f1_score(y, p.argmax(1), average="macro"))
        assert record["predicted"].tolist() == p.argmax(1).tolist()
        loss = -np.log(p[np.arange(ROWS), y])
        assert record["influence_log_loss"] == pytest.approx(loss - loss.mean(), rel=1e-4, abs=1e-6)
        hit = (p.argmax(1) == y) - sklearn.accuracy_score(y, p.argmax(1))
        assert record["influence_accuracy"] == pytest.approx(hit, abs=1e-6)


@pytest.mark.usefixtures("_double")
def test_the_step_after_training_is_fitted_on_the_pooled_rows() -> None:
    whole = task(hidden=6, count=4)
    records, longhand = trained(whole), Longhand(whole)
    name = "cross_entropy+temperature"
    scores = np.full((ROWS, CLASSES), np.nan)
    for k in range(4):
        values, fitted = [], []
        for t in range(3):
            p, y = longhand.pooled(k, t, longhand.best(k, t)[1])
            log_p = torch.from_numpy(p).log()[None]
            temperature = posthoc.temperatures(log_p, torch.from_numpy(y)[None]).item()
            own = (log_p / temperature).log_softmax(2)[0].exp().numpy()
            values.append(sklearn.log_loss(y, own, labels=range(CLASSES)))
            fitted.append(temperature)
        of_fold = [r for r in settings_of(records, name) if r["fold"] == k]
        assert [r["validation"] for r in of_fold] == pytest.approx(values, rel=1e-6)
        assert [r["step"] for r in of_fold] == [[pytest.approx(v, rel=1e-6)] for v in fitted]
        t = int(np.argmin(values))
        assert [r["chosen"] for r in of_fold] == [i == t for i in range(3)]
        other = (k + 1) % 4
        m = whole.rows.pairs.index((min(k, other), max(k, other)))
        rows = whole.rows.held_out[m][whole.rows.pairs[m].index(k)]
        p = longhand.p[m, t][longhand.best(k, t)[1]][np.isin(longhand.rows[m], rows)]
        scores[rows] = (torch.from_numpy(p).log() / fitted[t]).softmax(1).numpy()
    first = next(r for r in records.passes if r["loss"] == name)
    assert first["test_log_loss"] == pytest.approx(sklearn.log_loss(whole.rows.labels, scores), rel=1e-6)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("hidden", [0, 6])
@pytest.mark.parametrize("name", candidates.candidates())
def test_settings_do_not_know_of_each_other(name: str, hidden: int) -> None:
    whole = task(name, hidden=hidden, count=3)
    found = settings_of(trained(whole), name)
    for t in (0, 2) if hidden else (1,):
        alone = settings_of(trained(changed(whole, settings=[whole.recipe.settings[t]])), name)
        for record, expected in zip([r for r in found if r["trial"] == t], alone, strict=True):
            agree(record, expected, leave=("trial", "chosen"))


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("size", [(1, 3), (2, 3), (1, 1), (6, 2)])
@pytest.mark.parametrize("limits", [{}, {"rungs": (2, 4), "patience": 2}])
def test_blocks_of_any_size_give_the_same(size: tuple[int, int], limits: dict[str, Any]) -> None:
    whole = changed(task("focal", hidden=6, count=4), **limits)
    (expected,) = train._together(whole, (6, 3), lambda share: None).values()
    (found,) = train._together(whole, size, lambda share: None).values()
    for a, b in zip(found.settings + found.passes, expected.settings + expected.passes, strict=True):
        agree(a, b, rel=1e-9)


@pytest.mark.usefixtures("_double")
def test_scores_are_looked_at_in_parts_where_they_are_many() -> None:
    whole = changed(task("focal", hidden=6, count=4), rungs=(2, 4), patience=2)
    found, expected = trained(changed(whole, scores=1)), trained(whole)
    for a, b in zip(found.settings + found.passes, expected.settings + expected.passes, strict=True):
        agree(a, b, rel=1e-9)


@pytest.mark.usefixtures("_double")
def test_folds_of_different_sizes_are_trained_together() -> None:
    whole = task(count=3)
    cut = [own[: len(own) - 7 * m] for m, own in enumerate(whole.rows.train)]
    matrices = [(x[: len(own)], held, test) for own, (x, held, test) in zip(cut, whole.rows.matrices, strict=True)]
    whole = changed(whole, train=cut, matrices=matrices)
    longhand = Longhand(whole)
    for record in settings_of(trained(whole), "cross_entropy"):
        assert record["validation"] == pytest.approx(longhand.best(record["fold"], record["trial"])[0], rel=1e-6)


@pytest.mark.usefixtures("_double")
def test_nothing_is_chosen_for_a_fold_by_its_own_rows() -> None:
    whole = changed(task("focal", hidden=6, count=4, metric="macro_f1"), rungs=(2, 4), patience=2)
    own = whole.rows.held_out[0][0]
    turned, true = whole.rows.chosen.copy(), whole.rows.labels.copy()
    turned[own], true[own] = (turned[own] + 1) % CLASSES, (true[own] + 1) % CLASSES
    found, other = trained(whole), trained(changed(whole, chosen=turned, labels=true))
    fold = whole.rows.pairs[0][0]
    for a, b in zip(found.settings, other.settings, strict=True):
        if a["fold"] == fold:
            agree(a, b, rel=1e-9)
    assert [r["validation"] for r in found.settings] != [r["validation"] for r in other.settings]
    assert [r["test_accuracy"] for r in found.passes] != [r["test_accuracy"] for r in other.passes]


def test_given_rows_are_tested_by_every_model() -> None:
    plain = task("focal", hidden=6, count=3, metric="accuracy")
    given = np.arange(20)
    extra = np.random.default_rng(0).normal(size=(20, FEATURES)).astype(np.float32)
    whole = changed(plain, test=given, matrices=[(x, held, extra) for x, held, _ in plain.rows.matrices])
    (use,) = whole.rows.uses
    rows = np.concatenate([piece.rows for piece in use.validation])
    assert np.bincount(rows, minlength=ROWS).tolist() == [2] * ROWS  # of three folds each is left out twice
    records = trained(whole)
    assert {r["fold"] for r in records.settings} == {0}
    assert [r["pass"] for r in records.passes] == [0, 1, 2]
    assert all(r["influence_accuracy"].shape == r["predicted"].shape == (20,) for r in records.passes)
    assert len({tuple(r["predicted"].tolist()) for r in records.passes}) > 1


def test_the_best_checkpoint_may_be_an_early_one() -> None:
    settings = [setting(rate, decay) for rate in (10.0, 1.0, 0.1, 0.005) for decay in (0.0, 3.0)]
    steps = {r["best_step"] for r in trained(task(settings=settings)).settings}
    assert steps <= set(range(3, 25, 3))
    assert len(steps) > 2


def test_the_earlier_checkpoint_is_kept_on_a_tie() -> None:
    whole = task(metric="accuracy", noise=0.0, settings=[setting()])
    apart = 50 * np.eye(CLASSES, FEATURES, dtype=np.float32)
    rows = whole.rows
    far = [
        (apart[rows.labels[own]], apart[rows.labels[np.concatenate(held)]], apart[:0])
        for own, held in zip(rows.train, rows.held_out, strict=True)
    ]
    records = trained(changed(whole, matrices=far))
    assert all((r["validation"], r["best_step"]) == (1.0, 3) for r in records.settings)
    assert all(r["test_accuracy"] == 1.0 for r in records.passes)


def test_the_same_seed_gives_the_same_records_and_another_does_not() -> None:
    whole = task("gamma_cross_entropy", hidden=6, count=3)
    found = trained(whole).settings
    assert trained(whole).settings == found
    assert trained(changed(whole, seeds=[7, 8, 9])).settings != found


def test_all_settings_of_a_training_start_from_the_same_weights() -> None:
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
    for s in range(2):
        for t in range(4):
            torch.testing.assert_close(found[s, :, t], module(model.parameters, hidden, s, t)(x[s]))


@pytest.mark.parametrize("hidden", [0, 6])
@pytest.mark.parametrize(
    ("name", "rate"),
    [
        pytest.param(name, rate, marks=[pytest.mark.slow] * (name == "exact" and rate != math.inf))
        for name in ["cross_entropy", "exact", "smooth_accuracy", "class_weights", "focal", "for_macro_f1"]
        for rate in (1e30, math.inf, math.nan)
    ],
)
def test_a_model_that_diverges_does_not_disturb_the_others(name: str, hidden: int, rate: float) -> None:
    sane = task(name, hidden=hidden, count=3)
    wild = [dict(s) for s in sane.recipe.settings]
    wild[1] = {**wild[1], "learning_rate": rate, "weight_decay": 10.0}
    expected, found = trained(sane), trained(changed(sane, settings=wild))
    for a, b in zip(settings_of(found, name), settings_of(expected, name), strict=True):
        if a["trial"] == 1:
            assert a["failed"]
            assert a["best_step"] == 0
            assert not a["chosen"]
        else:
            agree(a, b, rel=1e-3, leave=("chosen",))
    assert all(math.isfinite(r["test_log_loss"]) for r in found.passes)


@pytest.mark.parametrize("metric", metrics.METRICS)
@pytest.mark.parametrize("name", ["focal", "exact"])
def test_a_loss_without_a_finite_checkpoint_has_failed(name: str, metric: str) -> None:
    whole = task(name, metric=metric, count=3)
    records = trained(changed(whole, settings=[{**s, "learning_rate": math.inf} for s in whole.recipe.settings]))
    assert all(r["failed"] and r["best_step"] == 0 and not r["chosen"] for r in records.settings)
    assert records.passes == []


@pytest.mark.parametrize("metric", ["accuracy", "log_loss"])
def test_a_model_that_diverges_late_keeps_its_last_good_checkpoint(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = task(metric=metric, settings=[setting()] * 2, hidden=6, count=3)
    original, calls = AdamW.step, []

    def step(self: AdamW, grads: list[Tensor]) -> None:
        original(self, grads)
        calls.append(0)
        if len(calls) == 15:
            self.model.parameters[2].data[:, 1] = math.nan

    monkeypatch.setattr(AdamW, "step", step)
    found = trained(whole).settings
    for healthy, broken in zip(found[::2], found[1::2], strict=True):
        assert (healthy["trial"], broken["trial"]) == (0, 1)
        assert 3 <= broken["best_step"] <= 12
        assert np.isfinite(broken["curve_values"]).tolist() == np.isfinite(broken["curve_gaps"]).all(1).tolist()
        assert np.isnan(broken["curve_values"]).tolist() == [False] * 4 + [True] * 4
        assert not broken["failed"]
        assert math.isfinite(broken["validation"])
        assert healthy["best_step"] >= broken["best_step"]


def test_progress_goes_from_nothing_to_all() -> None:
    shares: list[float] = []
    train.train(task(count=3), shares.append)
    assert shares == pytest.approx([*((step + 1) / STEPS for step in range(STEPS)), 1])


@pytest.mark.parametrize(("rows", "steps", "epochs", "expected"), [(96, 5, 1, 5), (96, 5, 4, 12), (20, 3, 10, 10)])
def test_there_are_as_many_steps_as_promised(rows: int, steps: int, epochs: int, expected: int) -> None:
    """A number of steps, or passes over the rows in whole batches, whichever is more."""
    whole = task(settings=[setting()], count=5)
    assert len(whole.rows.train[0]) >= 96
    cut = [own[:rows] for own in whole.rows.train]
    matrices = [(x[:rows], held, test) for x, held, test in whole.rows.matrices]
    shares: list[float] = []
    train.train(changed(whole, train=cut, matrices=matrices, steps=steps, epochs=epochs), shares.append)
    assert len(shares) == expected + 1


def test_batches_go_through_all_rows() -> None:
    found = _batches(torch.Generator().manual_seed(1), 12, 4)
    passes = [torch.cat([next(found) for _ in range(3)]) for _ in range(2)]
    for rows in passes:
        assert (rows.sort().values == torch.arange(12)).all()
    assert not (passes[0] == passes[1]).all()


def test_probabilities_are_those_that_the_loss_trains() -> None:
    recipe = task("exact", [setting(sigma=0.5), setting(sigma=2.0)]).recipe
    z = torch.randn(1, 9, 2, CLASSES, dtype=torch.float64)
    found = log_probabilities(recipe, z).exp()
    for t, sigma in enumerate((0.5, 2.0)):
        noisy = z[0, :, t] + sigma * torch.randn(100_000, 9, CLASSES, dtype=torch.float64)
        drawn = nn.functional.one_hot(noisy.argmax(2), CLASSES).double().mean(0)
        assert found[t].numpy() == pytest.approx(drawn.numpy(), abs=0.01)
    plain = log_probabilities(task("focal", [setting(gamma=1.0)] * 2).recipe, z)
    torch.testing.assert_close(plain[1], z[0, :, 1].log_softmax(1))


@pytest.mark.usefixtures("_double")
def test_several_metrics_from_one_training() -> None:
    whole = task("focal", count=3)
    both = train.train(changed(whole, metrics=("accuracy", "log_loss"), rungs=(2, 4), patience=1))
    for metric, records in both.items():
        expected = trained(changed(whole, metrics=(metric,)))
        for a, b in zip(records.settings + records.passes, expected.settings + expected.passes, strict=True):
            agree(a, b, rel=1e-9)


@pytest.mark.usefixtures("_double")
def test_a_training_on_all_rows_ends_after_so_many_steps() -> None:
    whole = task(hidden=6, settings=[setting()], count=3)
    rows = whole.rows
    x, held_out, _ = rows.matrices[0]
    state = train.train_whole(whole.recipe, x, rows.trained[rows.train[0]], None, rows.seeds[0], (12, STEPS))
    network = whole.recipe.model.module()
    network.load_state_dict(state)
    with torch.no_grad():
        found = network(torch.from_numpy(held_out)).softmax(1).numpy()
    assert found == pytest.approx(Longhand(whole).p[0, 0][12 // EVERY - 1], rel=1e-9)
