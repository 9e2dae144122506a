"""How far the measured difference of two candidates may be off: by the rows it was measured on, and by the trainings.

A *pass* tests every row once, out of its fold: in pass j of repeat r, fold k is tested by the model that left out the
folds k and k + j. With K folds and R repeats there are R (K - 1) passes, of R K (K - 1) / 2 models.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """Which rows were tested together.

    Attributes:
        folds: the fold of each row in each repeat (R, N). If the test rows are given, all 0, and there is one repeat:
            then every model is a pass.
        models: how many trainings of a setting the passes of all repeats come from: R K (K - 1) / 2. If the test rows
            are given, as many as there are passes.
        groups: the group of each row (N,), if rows come in groups; a group lies in one fold of each repeat.
    """

    folds: np.ndarray
    models: int
    groups: np.ndarray | None = None


class Passes(NamedTuple):
    """What was measured of L candidates, in the direction of the metric.

    Attributes:
        names: of the candidates.
        values: the metric of each pass (L, R, J). NaN in the repeats that a candidate did not take part in, which are
            the last ones; a candidate that failed has NaN in all.
        validation: the metric on the pooled validation rows, averaged over the folds of each repeat (L, R).
        influence: of each row on the values (L, R, J, N), as
            :func:`lossfit.compare.scoring.influence.influences` has it.
    """

    names: list[str]
    values: np.ndarray
    validation: np.ndarray
    influence: np.ndarray

    def repeats(self) -> np.ndarray:
        """The repeats that each candidate took part in, (L,)."""
        there: np.ndarray = np.isfinite(self.values).all(2).cumprod(1).sum(1)
        return there


class Differences(NamedTuple):
    """Of L candidates to another one. NaN where a candidate, or the other one, failed.

    Attributes:
        mean: the difference of the estimates, over the repeats that the candidate took part in (L,).
        validation: the same of the values on validation rows (L,).
        v_row: the variance that other rows to test on would cause (L,).
        v_b: the variance of the mean over trainings, with what the rows of a fold add to it (L,).
        v_w: what the rows of a fold add to it (L,).
        units: the mean influence of each unit (L, U): of a row, or of a group, summed.
    """

    mean: np.ndarray
    validation: np.ndarray
    v_row: np.ndarray
    v_b: np.ndarray
    v_w: np.ndarray
    units: np.ndarray

    @property
    def v_t(self) -> np.ndarray:
        """The variance that other trainings on the same rows would cause."""
        found: np.ndarray = np.maximum(0.0, self.v_b - self.v_w)
        return found

    def error(self, *, heavy_tails: bool = False) -> np.ndarray:
        r"""The standard error :math:`\sqrt{V_{row} + V_t}` (L,).

        Args:
            heavy_tails: whether single rows may have any influence, as with the log loss; then V_b in place of V_t.
        """
        error: np.ndarray = np.sqrt(self.v_row + (self.v_b if heavy_tails else self.v_t))
        return error


def differences(passes: Passes, base: int | None, layout: Layout) -> Differences:
    r"""Every candidate minus candidate ``base``, with the parts of the variance.

    With the influence difference :math:`D_{rji}` of row i, and :math:`D_i` its mean over the P passes:

    - :math:`V_{row} = \sum_i D_i^2 / (n (n - 1))`;
    - :math:`V_b` = mean over repeats and folds of :math:`var_j(\delta_{rkj}) / M`, with :math:`\delta_{rkj}` the mean
      of D over the rows of fold k, and the difference of the values of pass (r, j) added: D has a mean of 0 in every
      pass, and what its trainings have in common would be lost;
    - :math:`V_w` is the same with :math:`var_j(\delta)` replaced by
      :math:`\sum_{i \in k} var_j(D_{rji} - \delta_{rkj}) / (n_k (n_k - 1))`, its expectation if trainings differ on
      single rows alone.

    Rows of a group are summed first: a group is one unit.

    Args:
        passes: of all candidates.
        base: the number of the candidate that the others are compared to; None for the candidates by themselves.
        layout: of the rows.

    Raises:
        ValueError: there are less than two passes to a repeat, from which no variance is known.
    """
    _, repeats, per_repeat, rows = passes.influence.shape
    if per_repeat < 2:
        raise ValueError(f"Expected at least 2 passes to a repeat, but got {per_repeat}.")
    if layout.groups is None:
        unit, first = None, np.arange(rows)
        size = np.ones(rows)
    else:
        _, first, unit = np.unique(layout.groups, return_index=True, return_inverse=True)
        size = np.bincount(unit).astype(float)
    folds = layout.folds[:, first]
    there = passes.repeats()
    found = np.full((len(passes.names), 5), np.nan)
    units = np.zeros((len(passes.names), len(first)), dtype=np.float32)
    for c in range(len(passes.names)):
        shared = there[c] if base is None else min(there[c], there[base])
        if not shared:
            continue
        value, validation, d = (_minus(array, c, base, shared) for array in passes[1:])
        if unit is not None:
            d = _summed(d, unit, len(first))
        mean = d.mean((0, 1))
        units[c] = mean
        row = (mean**2).sum() / rows**2 * len(first) / max(len(first) - 1, 1)
        models = layout.models * shared / repeats
        between, within = (part / models for part in _by_fold(value, d, size, folds[:shared]))
        found[c] = value.mean(), validation.mean(), row, between, within
    return Differences(*(found[:, i] for i in range(5)), units)  # type: ignore[call-arg]


def _minus(array: np.ndarray, c: int, base: int | None, shared: int) -> np.ndarray:
    own = array[c, :shared].astype(float)
    return own if base is None else own - array[base, :shared]


def _summed(d: np.ndarray, unit: np.ndarray, count: int) -> np.ndarray:
    """Rows (..., N) to units (..., U)."""
    flat = d.reshape(-1, d.shape[-1])
    return np.stack([np.bincount(unit, row, count) for row in flat]).reshape(*d.shape[:-1], count)


def _by_fold(value: np.ndarray, d: np.ndarray, size: np.ndarray, folds: np.ndarray) -> tuple[float, float]:
    """The means over repeats and folds of var_j(delta), and of what single units add to it.

    Args:
        value: differences of the passes (R, J).
        d: influence differences (R, J, U).
        size: rows of each unit (U,).
        folds: of the units (R, U).
    """
    between, within = [], []
    for of_pass, of_repeat, fold in zip(value, d, folds, strict=True):
        rows = np.bincount(fold, size)
        count = np.bincount(fold)
        delta = np.stack([np.bincount(fold, row) for row in of_repeat]) / np.maximum(rows, 1)  # (J, K)
        there = count > 0
        between.append((of_pass[:, None] + delta).var(0, ddof=1)[there].mean())
        left = (of_repeat - delta[:, fold] * size).var(0, ddof=1)
        own = np.bincount(fold, left) / np.maximum(rows, 1) ** 2 * count / np.maximum(count - 1, 1)
        within.append(own[there].mean())
    return float(np.mean(between)), float(np.mean(within))
