"""What takes part, and the settings each loss is tried with."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lossfit import registry
from lossfit.compare.candidates import sampling
from lossfit.compare.scoring import confusion_metrics
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
        tuned: what is done to its models after training, by their validation rows: "prior", "temperature",
            "thresholds", or "" for nothing. It needs no more trainings.
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

POSTHOC = {
    "single_label": {
        "balanced_accuracy": "prior",
        "macro_f1": "prior",
        "log_loss": "temperature",
        "brier": "temperature",
        "calibration_error": "temperature",
        "classwise_calibration_error": "temperature",
        "adaptive_calibration_error": "temperature",
        **dict.fromkeys(confusion_metrics.METRICS, "prior"),
    },
    "multi_label": {"macro_f1": "thresholds", "micro_f1": "thresholds", "sample_f1": "thresholds"},
}
"""What is done to models after training, by the metric that it helps: it costs no training."""
ENDINGS = {"prior": "+tuned_prior", "temperature": "+temperature", "thresholds": "+tuned_thresholds"}

QUICK = ("label_smoothing", "class_weights", "logit_adjustment", "focal", "gamma_cross_entropy", "poly")
"""Besides the reference and the loss of the metric, for an answer in a minute."""


def tuned(candidate: Candidate, metric: str, family: str = "single_label") -> Candidate | None:
    """The candidate with the step after training that helps a metric, if there is one."""
    step = POSTHOC[family].get(metric)
    return None if step is None else replace(candidate, name=candidate.name + ENDINGS[step], tuned=step)


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
    return {**found, **{candidate.name: candidate for candidate in OWN.values()}} if single else found


def candidate(name: str, family: str | None = None) -> Candidate:
    """The candidate of this name, of one family or of any, with or without a step after training.

    Raises:
        KeyError: there is none.
    """
    known = candidates(family) if family is not None else {**candidates("multi_label"), **candidates()}
    for step, ending in ENDINGS.items():
        if name.endswith(ending):
            return replace(known[name.removesuffix(ending)], name=name, tuned=step)
    return known[name]


def make_loss(candidate: Candidate, **settings: Any) -> Loss:
    """A candidate's loss, without the weights and priors that some candidates add."""
    return registry.make(candidate.loss, **settings)


def choose(names: str, metric: str = "accuracy", family: str = "single_label") -> list[Candidate]:
    """The losses named in "all", "quick" or "focal,poly"; cross-entropy is always the first, or its like in the family.

    The loss of another metric than the one asked for takes part only if it is named. A name may end in the step that
    helps the metric, which every loss is measured with anyway.

    Raises:
        ValueError: a name is unknown; the nearest one is suggested.
    """
    known = candidates(family)
    always = known[KINDS[family].reference]
    of_others = [candidate.name for of, candidate in OWN.items() if of != metric]
    if names == "all":
        return [always, *(c for c in known.values() if c is not always and c.name not in of_others)]
    if names == "quick":
        wanted = [name for name in known if name in QUICK or (metric in OWN and name == OWN[metric].name)]
        wanted = wanted if family == "single_label" else [name for name in known if name not in of_others]
    else:
        wanted = [name.strip() for name in names.split(",") if name.strip()]
        ending = ENDINGS.get(POSTHOC[family].get(metric, ""), "")
        wanted = [name.removesuffix(ending) if name not in known else name for name in wanted]
        for name in wanted:
            check_choice("--losses", name, known)
    return [known[name] for name in dict.fromkeys([always.name, *wanted])]


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
