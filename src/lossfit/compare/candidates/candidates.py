"""What takes part, and the settings each loss is tried with."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lossfit import registry
from lossfit.compare.candidates import sampling
from lossfit.compare.scoring.tasks import KINDS
from lossfit.core.checks import check_choice
from lossfit.losses.base import Loss

Setting = dict[str, float]
"""learning_rate, weight_decay, and a value for each of the candidate's hyper-parameters."""


@dataclass(frozen=True)
class Candidate:
    """A loss that takes part.

    Attributes:
        name: of the candidate; for a plain loss its name in the registry.
        loss: the loss's name in the registry.
        search: the hyper-parameters tried, with the values worth trying. Besides those of the loss there are
            ``weight_power`` (class weights, inverse to the class frequency to this power) and ``prior_power`` (logit
            adjustment by the class frequency to this power).
        tuned: "" for a training of its own. Else what is done after training to the reference's models, by their
            validation rows: "prior", "temperature" or "thresholds". It is free: it needs no more trainings.
    """

    name: str
    loss: str
    search: dict[str, tuple[float, ...]] = field(default_factory=dict)
    tuned: str = ""

    def describe(self, setting: Setting) -> dict[str, float]:
        """The hyper-parameters in a setting, those of the optimiser left out."""
        return {name: setting[name] for name in self.search}

    def code(self, setting: Setting, metric: str = "accuracy") -> list[str]:
        """The lines of Python that make this loss for one's own training loop.

        Args:
            setting: of the hyper-parameters.
            metric: what a prior is tuned for.
        """
        own = self.describe(setting)
        arguments = [f"{k}={v:g}" for k, v in own.items() if not k.endswith("_power")]
        lines = ["import lossfit", ""]
        if "weight_power" in own:
            lines.append("counts = torch.bincount(train_labels)")
            weight = f"lossfit.inverse_frequency_weight(counts, power={own['weight_power']:g})"
            arguments.append(f"weight={weight}")
        if "prior_power" in own:
            lines.append("counts = torch.bincount(train_labels)")
            arguments.append(f"class_prior=counts ** {own['prior_power']:g}")
        lines.append(f"loss_function = lossfit.{registry.get(self.loss).__name__}({', '.join(arguments)})")
        if "bincount" in lines[2]:
            lines.insert(1, "import torch")
        usual = "nn.CrossEntropyLoss" if registry.get(self.loss).family != "multi_label" else "nn.BCEWithLogitsLoss"
        lines.append(f"loss = loss_function(logits, labels)  # where {usual} stood")
        if self.tuned == "temperature":
            lines += [
                "# after training",
                "from lossfit.compare.scoring.posthoc import TemperatureTuning",
                "tuned = TemperatureTuning().fit(validation_logits, validation_labels)",
                "p = tuned(logits).softmax(1)",
            ]
        elif self.tuned == "prior":
            lines += [
                "# after training",
                "from lossfit.compare.scoring.posthoc import PriorTuning",
                f'tuned = PriorTuning("{metric}").fit(validation_logits, validation_labels)',
                "predicted = tuned(logits).argmax(1)",
            ]
        elif self.tuned == "thresholds":
            lines += [
                "# after training",
                "from lossfit.compare.scoring.posthoc import ThresholdTuning",
                f'tuned = ThresholdTuning("{metric}").fit(validation_logits, validation_labels)',
                "predicted = tuned(logits) > 0",
            ]
        return lines


BASELINES = (
    Candidate("cross_entropy", "cross_entropy"),
    Candidate("label_smoothing", "cross_entropy", {"label_smoothing": (0.02, 0.05, 0.1, 0.2, 0.3)}),
    Candidate("class_weights", "cross_entropy", {"weight_power": (0.25, 0.5, 0.75, 1.0)}),
    Candidate("logit_adjustment", "cross_entropy", {"prior_power": (0.25, 0.5, 1.0, 1.5)}),
)

_STEEP = (0.0, 0.03, 0.1, 0.3, 1.0)
OWN = {
    "balanced_accuracy": Candidate("for_balanced_accuracy", "balanced_accuracy", {"steep": _STEEP}),
    "macro_f1": Candidate("for_macro_f1", "f_beta", {"steep": _STEEP}),
    "brier": Candidate("for_brier", "brier"),
}
"""The losses of metrics that no other candidate is the loss of."""

_PRIOR = Candidate("cross_entropy+tuned_prior", "cross_entropy", tuned="prior")
_TEMPERATURE = Candidate("cross_entropy+temperature", "cross_entropy", tuned="temperature")
_THRESHOLDS = Candidate("bce+tuned_thresholds", "bce", tuned="thresholds")
FREE = {
    "single_label": {
        "balanced_accuracy": _PRIOR,
        "macro_f1": _PRIOR,
        "log_loss": _TEMPERATURE,
        "brier": _TEMPERATURE,
        "calibration_error": _TEMPERATURE,
    },
    "multi_label": {"macro_f1": _THRESHOLDS, "micro_f1": _THRESHOLDS, "sample_f1": _THRESHOLDS},
}
"""What anyone would do to the reference's models before changing the loss, by the metric that it helps."""


def candidates(family: str = "single_label") -> dict[str, Candidate]:
    """All that can take part.

    Every loss of the family that needs no function of yours; where one class is right, cross-entropy's usual remedies
    and the losses of metrics too.
    """
    single = family == "single_label"
    found = {candidate.name: candidate for candidate in BASELINES} if single else {}
    for name in registry.available_losses(family):
        cls = registry.get(name)
        needed = [p for p in inspect.signature(cls).parameters.values() if p.default is p.empty and p.kind < 2]
        if name not in found and not needed:
            found[name] = Candidate(name, name, {h: card.search for h, card in cls.hypers.items() if card.search})
    added = [*OWN.values(), _PRIOR, _TEMPERATURE] if single else [_THRESHOLDS]
    return {**found, **{candidate.name: candidate for candidate in added}}


def candidate(name: str) -> Candidate:
    """The candidate of this name, of any family."""
    return {**candidates("multi_label"), **candidates()}[name]


def make_loss(candidate: Candidate, **settings: Any) -> Loss:
    """A candidate's loss, without the weights and priors that some candidates add."""
    return registry.make(candidate.loss, **settings)


def choose(names: str, metric: str = "accuracy", family: str = "single_label") -> list[Candidate]:
    """The candidates named in "all" or "focal,poly"; cross-entropy is always the first, or its like in the family.

    What is free for the metric comes next, always. The loss of another metric than the one asked for, or what is free
    for another, takes part only if it is named.

    Raises:
        ValueError: a name is unknown; the nearest one is suggested.
    """
    known = candidates(family)
    always = [known[KINDS[family].reference]]
    if metric in FREE[family]:
        always.append(FREE[family][metric])
    if names == "all":
        others = [candidate for of, candidate in OWN.items() if of != metric] + [_PRIOR, _TEMPERATURE, _THRESHOLDS]
        return [*always, *(c for c in known.values() if c not in [*always, *others])]
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        check_choice("--losses", name, known)
    return [known[name] for name in dict.fromkeys([*(c.name for c in always), *wanted])]


def settings(candidate: Candidate, trials: int, seed: int) -> list[Setting]:
    """The settings a candidate is tried with: as many for each, with the same learning rates and weight decays.

    These two spread evenly over their (logarithmic) ranges. The values of a hyper-parameter are gone through evenly
    too, in an order of its own.
    """
    pairs = sampling.spread(trials, seed)
    columns = {name: np.array([pair[name] for pair in pairs]) for name in sampling.RANGES}
    rng = np.random.default_rng(seed)
    for name, values in candidate.search.items():
        if trials < len(values):
            index = np.linspace(0, len(values) - 1, trials).round().astype(int)
        else:
            index = np.resize(np.arange(len(values)), trials)
        columns[name] = np.array(values)[rng.permutation(index)]
    return [{name: float(column[t]) for name, column in columns.items()} for t in range(trials)]
