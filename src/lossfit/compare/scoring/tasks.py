"""What a comparison is of: one right class per row, or any number of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from lossfit.compare.scoring import confusion_metrics, metrics, multilabel_metrics, ranking_metrics
from lossfit.compare.scoring.metrics import Metric


@dataclass(frozen=True)
class Kind:
    """What differs between the kinds.

    Attributes:
        family: of the losses that take part.
        metrics: what is always measured.
        on_request: what is measured besides, if it is asked for.
        metric: the one that counts if the user does not say.
        reference: the loss that the others are compared to.
    """

    family: str
    metrics: dict[str, Metric]
    metric: str
    reference: str
    on_request: dict[str, Metric] = field(default_factory=dict)

    def choices(self) -> dict[str, Metric]:
        """Every metric that may be asked for."""
        return self.metrics | self.on_request

    def measured(self, *asked: str) -> dict[str, Metric]:
        """What is measured if these metrics are asked for."""
        return self.metrics | {name: self.choices()[name] for name in asked}


SINGLE_LABEL = Kind(
    "single_label",
    metrics.METRICS,
    "accuracy",
    "cross_entropy",
    ranking_metrics.METRICS | confusion_metrics.METRICS | metrics.ON_REQUEST,
)
MULTI_LABEL = Kind("multi_label", multilabel_metrics.METRICS, "micro_f1", "bce", multilabel_metrics.ON_REQUEST)
KINDS = {kind.family: kind for kind in (SINGLE_LABEL, MULTI_LABEL)}

CARDS = MULTI_LABEL.choices() | SINGLE_LABEL.choices()
"""Every metric, for its title, unit and direction, in which the kinds agree."""

ALIASES = {
    "roc_auc": "auc",
    "auroc": "auc",
    "pr_auc": "average_precision",
    "ap": "average_precision",
    "mcc": "matthews",
    "cohen_kappa": "kappa",
    "qwk": "quadratic_kappa",
    "nll": "log_loss",
    "ece": "calibration_error",
    "gmean": "geometric_mean",
    "f1_macro": "macro_f1",
    "f1_micro": "micro_f1",
    "f1_weighted": "weighted_f1",
    "map": "mean_average_precision",
    "lrap": "ranking_precision",
}
"""Other names by which metrics are asked for."""
