"""What the report's views of the classes are drawn from: counts on the test rows, of the training that is chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST_CLASSES = 30
"""Up to as many classes, all confusions are kept; above, only the most frequent ones of each split."""
MOST_PAIRS = 100

Columns = dict[str, list[list[float] | list[int] | None]]


def of_classes(predicted: Tensor, labels: Tensor, weight: Tensor | None, models: list[int]) -> Columns:
    """Hits, predictions and rows of each class, or their weight, where any number of classes may be right.

    Args:
        predicted, labels: which classes are predicted and right, (M, N, C).
        weight: what the rows count (M, N).
        models: whose counts are wanted; the others have None.
    """
    out = _empty(("class_hits", "class_predicted", "class_rows"), len(predicted))
    for m in models:
        each = torch.ones(labels.shape[1]) if weight is None else weight[m]
        for name, of in (
            ("class_hits", predicted[m] & labels[m]),
            ("class_predicted", predicted[m]),
            ("class_rows", labels[m]),
        ):
            out[name][m] = _numbers(of.double().T @ each.double(), weight)
    return out


def of_confusions(log_p: Tensor, target: Tensor, weight: Tensor | None, models: list[int]) -> Columns:
    """The same where one class is right, and which class was taken for which.

    ``confused_actual``, ``confused_predicted`` and ``confused_rows`` are of one length: a pair of different classes and
    how many rows it has, or their weight. Pairs without rows are left out, and above 30 classes all but the 100 most
    frequent of the split.

    Args:
        log_p: scores (M, N, C).
        target: the right classes (M, N).
        weight, models: as in :func:`of_classes`.
    """
    names = ("class_hits", "class_predicted", "class_rows", "confused_actual", "confused_predicted", "confused_rows")
    out = _empty(names, len(log_p))
    classes = log_p.shape[2]
    for m in models:
        predicted = log_p[m].argmax(1)
        each = None if weight is None else weight[m].double()
        pairs, inverse = torch.unique(target[m] * classes + predicted, return_inverse=True)
        rows = torch.bincount(inverse, each, len(pairs)).double()
        actual, said = pairs // classes, pairs % classes
        hit = actual == said
        zero = torch.zeros(classes, dtype=torch.float64)
        out["class_hits"][m] = _numbers(zero.index_add(0, actual[hit], rows[hit]), weight)
        out["class_predicted"][m] = _numbers(zero.index_add(0, said, rows), weight)
        out["class_rows"][m] = _numbers(zero.index_add(0, actual, rows), weight)
        wrong = (~hit & (rows > 0)).nonzero()[:, 0]
        if classes > MOST_CLASSES:
            wrong = wrong[rows[wrong].argsort(descending=True, stable=True)[:MOST_PAIRS]]
        out["confused_actual"][m], out["confused_predicted"][m] = actual[wrong].tolist(), said[wrong].tolist()
        out["confused_rows"][m] = _numbers(rows[wrong], weight)
    return out


def chosen(values: Tensor, pruned: Tensor) -> list[int]:
    """For each split the number of its model that :func:`lossfit.compare.summary.chosen` takes: the best on the
    validation rows, the first if they tie, and a pruned one only where all others failed.

    Args:
        values: higher is better, -inf is failed (S, T).
        pruned: which were given up (S, T).
    """
    trials = values.shape[1]
    open_ones = values.masked_fill(pruned, -torch.inf)
    ranked = torch.where(open_ones.amax(1, keepdim=True) == -torch.inf, values, open_ones)
    # NumPy's argmax takes the first of equal ones.
    return [s * trials + int(t) for s, t in enumerate(np.argmax(ranked.numpy(), 1))]


def _empty(names: tuple[str, ...], count: int) -> dict[str, Any]:
    return {name: [None] * count for name in names}


def _numbers(values: Tensor, weight: Tensor | None) -> list[float] | list[int]:
    found: list[float] | list[int] = values.tolist() if weight is not None else values.long().tolist()
    return found
