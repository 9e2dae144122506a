"""What the report's views of the classes are drawn from: counts on the test rows, of the training that is chosen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MOST_CLASSES = 30
"""Up to as many classes, all confusions are kept; above, only the most frequent ones of each split."""
MOST_PAIRS = 100

NAMES = ("class_hits", "class_predicted", "class_rows", "confused_actual", "confused_predicted", "confused_rows")

Columns = dict[str, list[list[float] | list[int]]]


def of_classes(predicted: Tensor, labels: Tensor, weight: Tensor | None) -> Columns:
    """Hits, predictions and rows of each class, or their weight, where any number of classes may be right.

    Args:
        predicted, labels: which classes are predicted and right, (M, N, C).
        weight: what the rows count (M, N).
    """
    out: Columns = {name: [] for name in NAMES[:3]}
    for m in range(len(predicted)):
        each = torch.ones(labels.shape[1]) if weight is None else weight[m]
        for name, of in (
            ("class_hits", predicted[m] & labels[m]),
            ("class_predicted", predicted[m]),
            ("class_rows", labels[m]),
        ):
            out[name].append(_numbers(of.double().T @ each.double(), weight))
    return out


def of_confusions(log_p: Tensor, target: Tensor, weight: Tensor | None) -> Columns:
    """The same where one class is right, and which class was taken for which.

    ``confused_actual``, ``confused_predicted`` and ``confused_rows`` are of one length: a pair of different classes and
    how many rows it has, or their weight. Pairs without rows are left out, and above 30 classes all but the 100 most
    frequent of the split.

    Args:
        log_p: scores (M, N, C).
        target: the right classes (M, N).
        weight: as in :func:`of_classes`.
    """
    out: Columns = {name: [] for name in NAMES}
    classes = log_p.shape[2]
    for m in range(len(log_p)):
        predicted = log_p[m].argmax(1)
        each = None if weight is None else weight[m].double()
        pairs, inverse = torch.unique(target[m] * classes + predicted, return_inverse=True)
        rows = torch.bincount(inverse, each, len(pairs)).double()
        actual, said = pairs // classes, pairs % classes
        hit = actual == said
        zero = torch.zeros(classes, dtype=torch.float64)
        out["class_hits"].append(_numbers(zero.index_add(0, actual[hit], rows[hit]), weight))
        out["class_predicted"].append(_numbers(zero.index_add(0, said, rows), weight))
        out["class_rows"].append(_numbers(zero.index_add(0, actual, rows), weight))
        wrong = (~hit & (rows > 0)).nonzero()[:, 0]
        if classes > MOST_CLASSES:
            wrong = wrong[rows[wrong].argsort(descending=True, stable=True)[:MOST_PAIRS]]
        out["confused_actual"].append(actual[wrong].tolist())
        out["confused_predicted"].append(said[wrong].tolist())
        out["confused_rows"].append(_numbers(rows[wrong], weight))
    return out


def thin(records: list[dict[str, Any]], *, higher: bool) -> list[dict[str, Any]]:
    """The records with the counts of the chosen trainings alone: for each loss and split the one that
    :func:`lossfit.compare.verdict.summary.chosen` takes.

    Args:
        records: those of all settings of a split.
        higher: whether more of ``validation`` is better.
    """
    best: dict[tuple[str, int], tuple[bool, float]] = {}
    kept: dict[tuple[str, int], int] = {}
    for i, record in enumerate(records):
        own = record["loss"], record["split"]
        rank = record["pruned"], -record["validation"] if higher else record["validation"]
        if not record["failed"] and (own not in best or rank < best[own]):
            best[own], kept[own] = rank, i
    wanted = set(kept.values())
    return [
        record if i in wanted else {name: None if name in NAMES else value for name, value in record.items()}
        for i, record in enumerate(records)
    ]


def _numbers(values: Tensor, weight: Tensor | None) -> list[float] | list[int]:
    found: list[float] | list[int] = values.tolist() if weight is not None else values.long().tolist()
    return found
