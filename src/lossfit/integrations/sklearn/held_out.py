"""Rows that do not train the weights: chosen, and what is fitted on them afterwards."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import precision_recall_curve
from sklearn.model_selection import train_test_split
from torch import Tensor

from lossfit.calibration import TemperatureScaling

METRICS = ("micro_f1", "macro_f1")


def split(
    rows: int, share: float, rng: np.random.RandomState, stratify: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers to train on, and those held out, in proportion to the classes ``stratify`` if these are given.

    Raises:
        ValueError: there are too few rows.
    """
    try:
        kept, held = train_test_split(np.arange(rows), test_size=share, random_state=rng, stratify=stratify)
    except ValueError as error:
        raise ValueError(f"Expected enough rows of each class to hold out {share:g} of {rows} rows. {error}") from error
    return np.sort(kept), np.sort(held)


def temperature(scores: Tensor, y: Tensor) -> TemperatureScaling:
    """Of logits (N, C) and class indices, or of scores (N, L), each by itself, and labels."""
    if y.ndim == 1:
        return TemperatureScaling().fit(scores, y)
    each = scores.reshape(-1)
    return TemperatureScaling().fit(torch.stack([torch.zeros_like(each), each], 1), y.reshape(-1).long())


def thresholds(scores: Tensor, labels: Tensor, weight: Tensor, metric: str) -> np.ndarray:
    """Where the scores (N, L) must be above, one for each label, for the best F1.

    "macro_f1" has a threshold for each label, and 0 for labels that no row has; "micro_f1" has one for all.
    """
    s, y, w = scores.numpy(), labels.numpy(), weight.numpy()
    if metric == "micro_f1":
        return np.full(s.shape[1], _best(s.ravel(), y.ravel(), np.repeat(w, s.shape[1])))
    return np.array([_best(s[:, label], y[:, label], w) for label in range(s.shape[1])])


def _best(scores: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> float:
    if not labels.any():
        return 0.0
    precision, recall, at = precision_recall_curve(labels, scores, sample_weight=weight)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    best = int(f1[:-1].argmax())
    # Halfway to the next lower score, which is not predicted.
    return float((at[best - 1] + at[best]) / 2 if best else np.nextafter(at[0], -np.inf))
