"""What takes part, and its settings."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import lossfit
from lossfit import registry
from lossfit.compare.candidates import candidates, sampling
from lossfit.compare.candidates.candidates import Candidate
from lossfit.compare.plan import Plan
from lossfit.compare.scoring.metrics import METRICS
from lossfit.compare.training.models import Architecture
from lossfit.compare.training.objective import Objective
from lossfit.compare.training.task import Recipe

CANDIDATES = candidates.candidates()
SEARCHED = [name for name, candidate in CANDIDATES.items() if candidate.search]


def test_who_takes_part() -> None:
    names = list(CANDIDATES)
    assert names[:4] == ["cross_entropy", "label_smoothing", "class_weights", "logit_adjustment"]
    of_metrics = ["for_balanced_accuracy", "for_macro_f1", "for_brier"]
    assert names[-3:] == of_metrics
    assert set(names[4:-3]) == set(lossfit.available_losses("single_label")) - {"cross_entropy", "sensitivity"}
    assert all(name == candidate.name for name, candidate in CANDIDATES.items())
    assert not CANDIDATES["cross_entropy"].search


@pytest.mark.parametrize("trials", [1, 3, 8, 20])
def test_all_have_the_same_learning_rates_and_weight_decays(trials: int) -> None:
    expected = [(s["learning_rate"], s["weight_decay"]) for s in candidates.settings(CANDIDATES["focal"], trials, 5)]
    assert len(set(expected)) == trials
    for candidate in CANDIDATES.values():
        found = candidates.settings(candidate, trials, 5)
        assert [(s["learning_rate"], s["weight_decay"]) for s in found] == expected
        assert all(s.keys() == {"learning_rate", "weight_decay", *candidate.search} for s in found)
        assert found == candidates.settings(candidate, trials, 5)
    assert candidates.settings(CANDIDATES["focal"], trials, 6) != candidates.settings(CANDIDATES["focal"], trials, 5)


@pytest.mark.parametrize("seed", range(5))
def test_rates_and_decays_cover_their_ranges_evenly(seed: int) -> None:
    found = candidates.settings(CANDIDATES["cross_entropy"], 16, seed)
    for name, (low, high) in sampling.RANGES.items():
        values = np.array([s[name] for s in found])
        assert values.min() >= low
        assert values.max() <= high
        at = (np.log(values) - np.log(low)) / (np.log(high) - np.log(low))
        quarters = np.bincount((4 * at).astype(int), minlength=4)
        assert quarters.min() >= 3, name


@pytest.mark.parametrize("name", SEARCHED)
@pytest.mark.parametrize("trials", [1, 2, 3, 4, 8, 13])
def test_values_are_those_worth_trying_and_evenly_so(name: str, trials: int) -> None:
    candidate = CANDIDATES[name]
    for seed in range(3):
        found = candidates.settings(candidate, trials, seed)
        for hyper, values in candidate.search.items():
            counts = Counter(s[hyper] for s in found)
            assert counts.keys() <= set(values)
            assert len(counts) == min(trials, len(values))
            assert max(counts.values()) - min(counts.values()) <= 1
            if 1 < trials < len(values):  # the ends are among them
                assert {values[0], values[-1]} <= counts.keys()


def test_values_are_in_an_order_of_their_own() -> None:
    orders = {tuple(s["gamma"] for s in candidates.settings(CANDIDATES["focal"], 6, seed)) for seed in range(10)}
    assert len(orders) > 5


@pytest.mark.parametrize("name", SEARCHED)
def test_values_worth_trying_are_in_the_range_of_the_loss(name: str) -> None:
    candidate = CANDIDATES[name]
    for hyper, values in candidate.search.items():
        assert list(values) == sorted(set(values))
        if not hyper.endswith("_power"):
            for value in values:
                lossfit.make(candidate.loss, **{hyper: value})


def test_describe_leaves_the_optimiser_out() -> None:
    setting = candidates.settings(CANDIDATES["focal"], 1, 0)[0]
    assert CANDIDATES["focal"].describe(setting) == {"gamma": setting["gamma"]}
    assert CANDIDATES["cross_entropy"].describe(setting) == {}


def test_choose_puts_cross_entropy_first() -> None:
    assert [c.name for c in candidates.choose("all")] == list(CANDIDATES)[:-3]
    assert [c.name for c in candidates.choose("poly, focal,poly ,,")] == ["cross_entropy", "poly", "focal"]
    assert [c.name for c in candidates.choose("focal,cross_entropy,focal")] == ["cross_entropy", "focal"]
    assert [c.name for c in candidates.choose("")] == ["cross_entropy"]


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_s_own_loss_takes_part(metric: str) -> None:
    found = [c.name for c in candidates.choose("all", metric) if c.name.startswith("for_")]
    assert found == ([f"for_{metric}"] if metric in ("balanced_accuracy", "macro_f1", "brier") else [])
    named = candidates.choose("for_macro_f1", metric)[-1]
    assert named.code({"steep": 0.1})[-2] == "loss_function = lossfit.FBetaLoss(steep=0.1)"
    for name in found:
        assert repr(candidates.make_loss(CANDIDATES[name])) == repr(lossfit.for_metric(metric))


@pytest.mark.parametrize(
    ("given", "nearest"), [("focel", "focal"), ("poly,labelsmoothing", "label_smoothing"), ("hings", "hinge")]
)
def test_unknown_names_suggest_the_nearest(given: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=rf"`--losses` to be one of .*, but got '.*'. Did you mean '{nearest}'\?"):
        candidates.choose(given)


def test_a_loss_that_needs_a_function_takes_no_part() -> None:
    with pytest.raises(ValueError, match=r"`--losses` to be one of 'cross_entropy', .*, but got 'sensitivity'"):
        candidates.choose("sensitivity")


def shown(candidate: Candidate, setting: candidates.Setting, **names: torch.Tensor) -> torch.Tensor:
    """The loss by the lines that the user is shown."""
    scope: dict[str, object] = dict(names)
    exec("\n".join(candidate.code(setting)), scope)
    loss = scope["loss"]
    assert isinstance(loss, torch.Tensor)
    return loss


STEPS = {
    "accuracy": "",
    "balanced_accuracy": "prior",
    "macro_f1": "prior",
    "log_loss": "temperature",
    "brier": "temperature",
    "calibration_error": "temperature",
    "aurc": "",
}


@pytest.mark.parametrize("metric", METRICS)
def test_every_loss_takes_part_with_the_step_that_helps_the_metric(metric: str) -> None:
    plan = Plan("yeast", losses="focal,exact", metric=metric)
    ending = candidates.ENDINGS.get(STEPS[metric], "")
    names = [c.name for c in plan.candidates]
    plain = ["cross_entropy", "focal", "exact"]
    assert names == [name for loss in plain for name in ([loss, loss + ending] if ending else [loss])]
    assert [c.name for c in plan.trained] == plain
    assert (None if plan.free is None else plan.free.name) == (f"cross_entropy{ending}" if ending else None)
    for candidate in plan.candidates:
        assert candidate.tuned == (STEPS[metric] if "+" in candidate.name else "")
        assert candidates.candidate(candidate.name) == candidate


def test_a_loss_may_be_named_with_its_step() -> None:
    assert [c.name for c in candidates.choose("focal+temperature,focal", "log_loss")] == ["cross_entropy", "focal"]
    with pytest.raises(ValueError, match=r"but got 'focal\+temperature'"):
        candidates.choose("focal+temperature", "accuracy")


def test_steps_of_several_labels() -> None:
    bce = candidates.candidates("multi_label")["bce"]
    assert candidates.tuned(bce, "macro_f1", "multi_label").name == "bce+tuned_thresholds"  # type: ignore[union-attr]
    assert candidates.tuned(bce, "hamming_loss", "multi_label") is None


@pytest.mark.parametrize("metric", METRICS)
def test_a_quick_comparison_has_the_reference_first_and_the_metric_s_own_loss(metric: str) -> None:
    names = [c.name for c in candidates.choose("quick", metric)]
    own = [f"for_{metric}"] if metric in candidates.OWN else []
    assert names == ["cross_entropy", *(n for n in CANDIDATES if n in candidates.QUICK), *own]


@pytest.mark.parametrize(("metric", "name"), [("macro_f1", "tuned_prior"), ("log_loss", "temperature")])
def test_the_code_of_steps_runs(metric: str, name: str) -> None:
    labels = torch.arange(3).repeat(20)
    logits = torch.randn(60, 3, requires_grad=True)
    scope: dict[str, object] = {"validation_logits": logits, "validation_labels": labels}
    scope |= {"logits": logits, "labels": labels}
    exec("\n".join(candidates.candidate(f"cross_entropy+{name}").code({}, metric)), scope)
    assert_close(scope["loss"], torch.nn.functional.cross_entropy(logits, labels))
    if name == "tuned_prior":
        assert scope["predicted"].shape == (60,)
        assert scope["tuned"].metric == "macro_f1"
    else:
        assert_close(scope["p"].sum(1), torch.ones(60))


def test_the_code_of_tuned_thresholds_runs() -> None:
    logits, labels = torch.randn(30, 3), torch.randint(0, 2, (30, 3)).float()
    scope: dict[str, object] = {"validation_logits": logits, "validation_labels": labels}
    scope |= {"logits": logits, "labels": labels}
    exec("\n".join(candidates.candidate("bce+tuned_thresholds").code({}, "macro_f1")), scope)
    assert scope["tuned"].metric == "macro_f1"
    assert scope["predicted"].shape == (30, 3)
    assert_close(scope["loss"], torch.nn.functional.binary_cross_entropy_with_logits(logits, labels))


@pytest.mark.parametrize("name", list(CANDIDATES))
def test_the_code_shown_is_the_loss_trained(name: str) -> None:
    candidate, (splits, rows, batch, classes) = CANDIDATES[name], (2, 60, 11, 4)
    settings = candidates.settings(candidate, 5, 3)
    shares = torch.tensor([[0.6, 0.2, 0.1, 0.1], [0.1, 0.1, 0.3, 0.5]])
    train_labels = torch.cat([torch.arange(classes).expand(splits, -1), shares.multinomial(rows, replacement=True)], 1)
    labels = torch.stack([train_labels[s, torch.randperm(rows)[:batch]] for s in range(splits)])
    model = Architecture("linear", 1, classes)
    recipe = Recipe(candidate, settings, classes, model, ("accuracy",))
    z = torch.randn(splits, batch, len(settings), classes, requires_grad=True)
    found = Objective(recipe, train_labels, batch)(z, labels)
    each = [
        shown(candidate, setting, logits=z[s, :, t], labels=labels[s], train_labels=train_labels[s])
        for s in range(splits)
        for t, setting in enumerate(settings)
    ]
    expected = torch.stack(each).sum()
    assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert_close(*(torch.autograd.grad(loss, z)[0] for loss in (found, expected)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", SEARCHED)
def test_the_code_says_what_is_imported_and_set(name: str) -> None:
    candidate = CANDIDATES[name]
    for setting in candidates.settings(candidate, 8, 0):
        lines = candidate.code(setting)
        assert lines[0] == "import lossfit"
        assert ("import torch" in lines) == any("torch." in line for line in lines)
        assert registry.get(candidate.loss).__name__ in lines[-2]
        for hyper in candidate.search:
            assert f"{setting[hyper]:g}" in "\n".join(lines)
