"""What is known of a candidate before the user's rows are seen: its gains on the data sets of ``benchmarks/advice.py``.

Gains are over what is free for the metric, in points (hundredths of the metric), more being better.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

VERSION = 1
WORST = -10.0
"""Gains below are taken as this: how much worse a loss that fails is does not matter."""
LEAST_VARIANCE = 0.001
FILE = "prior.json"

_ALIKE = (
    ("accuracy", "weighted_f1", "micro_f1", "kappa", "matthews", "top_k_accuracy"),
    ("balanced_accuracy", "macro_f1", "geometric_mean", "f1", "jaccard", "quadratic_kappa", "matthews", "kappa"),
    ("log_loss", "brier", "calibration_error", "classwise_calibration_error", "adaptive_calibration_error"),
    ("auc", "average_precision", "aurc", "precision_at_k", "recall_at_precision"),
    ("micro_f1", "macro_f1", "sample_f1", "multilabel_jaccard", "subset_accuracy", "hamming_loss"),
    ("ranking_precision", "ranking_loss", "mean_average_precision", "coverage_error"),
)
"""Metrics that move together: one without a prior borrows from the first of its row that has one."""


class Known(NamedTuple):
    """Of one candidate and metric: the mean of its gain over data sets and the variance, in points and squared points.

    ``borrowed`` is the metric whose median stands in, or "" where the candidate was measured with this metric.
    """

    mean: float
    variance: float
    borrowed: str = ""


FLAT = Known(0.0, math.inf)


@dataclass(frozen=True)
class Prior:
    """By metric and candidate, what was measured; and from where.

    Attributes:
        metrics: by metric and candidate.
        data_sets: the names of the sets.
        date: when it was made.
        command: what makes it.
        note: why it is flat, if the file could not be read; "" else.
    """

    metrics: Mapping[str, Mapping[str, Known]] = field(default_factory=dict)
    data_sets: tuple[str, ...] = ()
    date: str = ""
    command: str = ""
    note: str = ""

    def of(self, metric: str, candidate: str) -> Known:
        """What is known of a candidate; the medians of the nearest metric if it was not measured; flat if none was."""
        if candidate in self.metrics.get(metric, {}):
            return self.metrics[metric][candidate]
        near = nearest(metric, self.metrics)
        if near is None:
            return FLAT
        mean, variance = np.median([(known.mean, known.variance) for known in self.metrics[near].values()], axis=0)
        return Known(float(mean), float(variance), near)

    def to_json(self) -> dict[str, Any]:
        """What :func:`load` reads."""
        return {
            "version": VERSION,
            "date": self.date,
            "command": self.command,
            "data_sets": list(self.data_sets),
            "metrics": {
                metric: {name: {"mean": known.mean, "variance": known.variance} for name, known in of.items()}
                for metric, of in self.metrics.items()
            },
        }


def nearest(metric: str, known: Mapping[str, object]) -> str | None:
    """The metric itself if it is known, else the first known one that moves with it, else the first of all."""
    if metric in known:
        return metric
    alike = (other for row in _ALIKE if metric in row for other in row if other in known)
    return next(alike, next(iter(known), None))


def load(path: Path | None = None) -> Prior:
    """The shipped prior, or one from a file. A file that cannot be used gives a flat prior whose note says why."""
    shipped = resources.files("lossfit.compare.verdict") / FILE
    try:
        text = shipped.read_text("utf-8") if path is None else path.read_text("utf-8")
        return parse(json.loads(text))
    except (OSError, ValueError, RecursionError) as error:
        where = "that lossfit ships" if path is None else str(path)
        return Prior(note=f"The prior {where} cannot be used, so the choice knows these rows alone: {error}")


def parse(content: Any) -> Prior:
    """A prior from what a JSON file holds.

    Raises:
        ValueError: something else stands there than :meth:`Prior.to_json` gives.
    """
    if not isinstance(content, dict):
        raise ValueError(f"Expected an object, but got {type(content).__name__}.")
    if content.get("version") != VERSION:
        raise ValueError(f"Expected `version` {VERSION}, but got {content.get('version')!r}.")
    metrics = content.get("metrics")
    if not isinstance(metrics, dict) or not metrics:
        raise ValueError(f"Expected `metrics` with at least one metric, but got {str(metrics)[:40]}.")
    found: dict[str, dict[str, Known]] = {}
    for metric, candidates in metrics.items():
        if not isinstance(candidates, dict) or not candidates:
            raise ValueError(f"Expected candidates in `metrics.{metric}`, but got {str(candidates)[:40]}.")
        found[metric] = {name: _known(f"metrics.{metric}.{name}", numbers) for name, numbers in candidates.items()}
    sets = content.get("data_sets", [])
    if not isinstance(sets, list) or not all(isinstance(name, str) for name in sets):
        raise ValueError(f"Expected `data_sets` to be a list of names, but got {str(sets)[:40]}.")
    return Prior(found, tuple(sets), str(content.get("date", "")), str(content.get("command", "")))


def _known(where: str, numbers: Any) -> Known:
    if not isinstance(numbers, dict) or not {"mean", "variance"} <= numbers.keys():
        raise ValueError(f"Expected `mean` and `variance` in `{where}`, but got {str(numbers)[:40]}.")
    mean, variance = numbers["mean"], numbers["variance"]
    for value in (mean, variance):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"Expected finite numbers in `{where}`, but got {value!r}.")
    if variance <= 0:
        raise ValueError(f"Expected `variance` above 0 in `{where}`, but got {variance!r}.")
    return Known(float(mean), float(variance))


def estimate(gains: Mapping[str, np.ndarray]) -> dict[str, Known]:
    r"""The prior of one metric, from the gains of its candidates on the two halves of data sets.

    The mean :math:`\mu` is over sets and halves. The variance between sets is the mean over sets of the product of the
    two halves' deviations from :math:`\mu`, whose errors are independent, at least .001; the mean of this and of its
    median over candidates is taken.

    Args:
        gains: by candidate, in points (S, 2), clipped below at -10; NaN where a candidate failed on a half, and then
            the set does not count for it.

    Example:
        >>> import numpy as np
        >>> from lossfit.compare.verdict.prior import estimate
        >>> estimate({"focal": np.array([[1.0, 1.0], [-1.0, -1.0]])})
        {'focal': Known(mean=0.0, variance=1.0, borrowed='')}
    """
    means, own = {}, {}
    for name, both in gains.items():
        there = both[np.isfinite(both).all(1)].clip(min=WORST)
        if len(there):
            means[name] = float(there.mean())
            own[name] = max(LEAST_VARIANCE, float(np.prod(there - means[name], axis=1).mean()))
    middle = float(np.median(list(own.values()))) if own else 0.0
    return {name: Known(means[name], (own[name] + middle) / 2) for name in means}
