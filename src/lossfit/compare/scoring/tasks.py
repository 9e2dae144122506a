"""What a comparison is of: one right class per row, or any number of them."""

from __future__ import annotations

from dataclasses import dataclass

from lossfit.compare.scoring import metrics, multilabel_metrics
from lossfit.compare.scoring.metrics import Metric


@dataclass(frozen=True)
class Kind:
    """What differs between the kinds.

    Attributes:
        family: of the losses that take part.
        metrics: what is measured.
        metric: the one that counts if the user does not say.
        reference: the loss that the others are compared to.
    """

    family: str
    metrics: dict[str, Metric]
    metric: str
    reference: str


SINGLE_LABEL = Kind("single_label", metrics.METRICS, "accuracy", "cross_entropy")
MULTI_LABEL = Kind("multi_label", multilabel_metrics.METRICS, "micro_f1", "bce")
KINDS = {kind.family: kind for kind in (SINGLE_LABEL, MULTI_LABEL)}

CARDS = {**MULTI_LABEL.metrics, **SINGLE_LABEL.metrics}
"""Every metric, for its title, unit and direction, in which the kinds agree."""
