"""Recall, precision and F1 of each class, with what each row does to them, from predictions out of the folds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse

MEASURES = ("f1", "recall", "precision")


class Counted(NamedTuple):
    """What was counted in P passes over N rows of C classes.

    Attributes:
        hits, predicted, actual: rows of each class that were predicted as such, were predicted as it, and are of it, or
            their weight (P, C).
        values: each measure by pass (P, C); 0 for the precision and F1 of a class that is never predicted, NaN where no
            row has the class.
        influence: of each row on the mean of each measure over the passes, a sparse matrix (N, C).
    """

    hits: np.ndarray
    predicted: np.ndarray
    actual: np.ndarray
    values: dict[str, np.ndarray]
    influence: dict[str, sparse.csr_array]


def one_hot(labels: np.ndarray, classes: int) -> sparse.csr_array:
    """Labels (N,), or which classes are right (N, C), as a sparse matrix of 0 and 1 (N, C)."""
    if labels.ndim == 2:
        return sparse.csr_array(labels.astype(float))
    rows = np.arange(len(labels))
    return sparse.csr_array((np.ones(len(labels)), (rows, labels)), (len(labels), classes))


def count(actual: sparse.csr_array, predicted: list[sparse.csr_array], weight: np.ndarray | None = None) -> Counted:
    """Count passes.

    Args:
        actual: which classes are right (N, C).
        predicted: of each pass, which are predicted (N, C).
        weight: what the rows count (N,), if they do not count the same.
    """
    n, classes = actual.shape
    each = np.ones(n) if weight is None else weight
    weigh = sparse.diags_array(each)
    of_class = each @ actual
    tables = [np.zeros((len(predicted), classes)) for _ in range(2)]
    values = {name: np.zeros((len(predicted), classes)) for name in MEASURES}
    influence = {name: sparse.csr_array((n, classes)) for name in MEASURES}
    for p, own in enumerate(predicted):
        both = sparse.csr_array(actual.multiply(own))
        hits, told = each @ both, each @ own
        tables[0][p], tables[1][p] = hits, told
        parts = {"recall": (1, actual, of_class), "precision": (1, own, told), "f1": (2, actual + own, of_class + told)}
        for name, (factor, counted, below) in parts.items():
            inverse = np.divide(factor, below, out=np.zeros(classes), where=below > 0)
            values[name][p] = np.where(of_class > 0, hits * inverse, np.nan)
            change = _columns(both, inverse) - _columns(counted, hits * inverse**2 / factor)
            influence[name] = influence[name] + weigh @ change * (n / len(predicted))
    return Counted(tables[0], tables[1], np.tile(of_class, (len(predicted), 1)), values, influence)


def _columns(matrix: sparse.csr_array, factors: np.ndarray) -> sparse.csr_array:
    return sparse.csr_array(matrix @ sparse.diags_array(factors))


class ClassDifferences(NamedTuple):
    """Of one measure, by class: the mean, and its standard error."""

    mean: np.ndarray
    error: np.ndarray


def difference(own: Counted, base: Counted, measure: str, groups: np.ndarray | None = None) -> ClassDifferences:
    r"""Own minus base, of the same passes.

    The error is :math:`\sqrt{V_{row} + V_t}`: what other rows would change, by the influence of these (the groups' sums
    where rows come in groups), and what other trainings would, by the variance between passes, of which two share a
    training.
    """
    change = own.influence[measure] - base.influence[measure]
    n = change.shape[0]
    if groups is not None:
        unit = np.unique(groups, return_inverse=True)[1]
        change = one_hot(unit, int(unit.max()) + 1).T.tocsr() @ change
    units = change.shape[0]
    rows = np.asarray(change.power(2).sum(0)).ravel() / n**2 * units / max(units - 1, 1)
    each = own.values[measure] - base.values[measure]
    trainings = 2 * each.var(0, ddof=1) / len(each) if len(each) > 1 else np.zeros(each.shape[1])
    return ClassDifferences(each.mean(0), np.sqrt(rows + trainings))
