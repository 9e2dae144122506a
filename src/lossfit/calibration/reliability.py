"""Confidence against accuracy, in bins of the confidence."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lossfit.calibration import rows
from lossfit.calibration.selective import check_pair
from lossfit.core.checks import check_choice

Kind = Literal["equal_width", "equal_mass"]
KINDS = ("equal_width", "equal_mass")
Norm = Literal["l1", "l2", "max"]
NORMS = ("l1", "l2", "max")


class Reliability(NamedTuple):
    """Sums over the rows in each bin of the confidence, (..., bins) each, in float64; a bin without rows holds 0."""

    rows: Tensor
    """Their number."""
    confidence: Tensor
    """The sum of their confidences."""
    hits: Tensor
    """How many of them are right."""

    def error(self, norm: Norm = "l1") -> Tensor:
        """The distances of mean confidence and accuracy in the bins as one number (...); 0 without rows.

        "l1" is their mean over the rows, "l2" the root of their mean square over the rows, "max" the largest.
        """
        check_choice("norm", norm, NORMS)
        distance = (self.confidence - self.hits).abs()
        if norm == "max":
            return (distance / self.rows.clamp(min=1)).amax(-1)
        total = self.rows.sum(-1).clamp(min=1)
        if norm == "l1":
            return distance.sum(-1) / total
        return ((distance.square() / self.rows.clamp(min=1)).sum(-1) / total).sqrt()


def reliability(confidence: Tensor, hits: Tensor, bins: int = 15, kind: Kind = "equal_width") -> Reliability:
    """Rows, confidence and hits in each bin of the confidence.

    Args:
        confidence: (..., N), in [0, 1].
        hits: whether each row is right, (..., N).
        bins: their number.
        kind: "equal_width": bin b of B holds the confidences in (b / B, (b + 1) / B], and the first one 0 too, so that
            1 is in the last. "equal_mass": as many rows in each as ties allow; rows of equal confidence share a bin.

    Raises:
        TypeError, ValueError: not tensors, other shapes, a confidence outside [0, 1], or no bins.

    Example:
        >>> hits = torch.tensor([True, False, True, True])
        >>> found = lossfit.calibration.reliability(torch.tensor([0.6, 0.7, 0.9, 1.0]), hits, bins=2)
        >>> found.rows, found.hits
        (tensor([0., 4.], dtype=torch.float64), tensor([0., 3.], dtype=torch.float64))
    """
    check_choice("kind", kind, KINDS)
    check_pair(confidence, hits)
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise ValueError(f"Expected `bins` to be an integer of at least 1, but got {bins!r}.")
    _check_range("confidence", confidence)
    return binned(confidence, hits, bins, kind)


def binned(
    confidence: Tensor, hits: Tensor, bins: int, kind: Kind = "equal_width", weight: Tensor | None = None
) -> Reliability:
    """:func:`reliability` of what has been checked; a row of ``weight`` w counts as w rows."""
    confidence = confidence.detach().double().contiguous()
    if kind == "equal_width":
        at = (confidence * bins).ceil().long().clamp(1, bins) - 1
    else:
        below = torch.searchsorted(confidence.sort(dim=-1).values, confidence)
        at = below * bins // max(confidence.shape[-1], 1)
    empty = confidence.new_zeros(*confidence.shape[:-1], bins)
    each = torch.ones_like(confidence) if weight is None else weight.double()
    return Reliability(*(empty.scatter_add(-1, at, v) for v in (each, each * confidence, each * hits.double())))


def calibration_error(
    probabilities: Tensor,
    labels: Tensor,
    bins: int = 15,
    kind: Kind = "equal_width",
    norm: Norm = "l1",
    classwise: bool = False,
) -> Tensor:
    r"""Calibration error: how far confidence and accuracy are apart, in bins of the confidence.

    With :math:`n_b` rows in bin b, of mean confidence :math:`\bar c_b` and accuracy :math:`\bar a_b`, "l1" is
    :math:`\sum_b \frac{n_b}{N} |\bar c_b - \bar a_b|`, "l2" the root of the same with squares, "max" the largest
    distance. It is in [0, 1]. On few rows it is above 0 even for true probabilities.

    Args:
        probabilities: (N, C) or (N, C, d1, ...), with rows that sum to 1; for two classes also (N,), those of class 1.
        labels: class indices (N,) or (N, d1, ...); rows of label -100 are left out.
        bins: their number.
        kind: "equal_width" or "equal_mass", as for :func:`reliability`.
        norm: "l1", "l2" or "max".
        classwise: take the probability of each class as the confidence that it is the label, and average the errors of
            the classes; else the confidence is the highest probability, of the class that is predicted.

    Returns:
        A number in float64; 0 without rows.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what was expected and what came; logits are refused.

    Source: M. Pakdaman Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", 2015, section
    on measures; equal mass and classes: J. Nixon et al., "Measuring Calibration in Deep Learning", 2019, section 4.

    Example:
        >>> probabilities = torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.1, 0.9]])
        >>> lossfit.calibration.calibration_error(probabilities, torch.tensor([0, 1, 1]))
        tensor(0.2333, dtype=torch.float64)
    """
    check_choice("kind", kind, KINDS)
    check_choice("norm", norm, NORMS)
    if isinstance(probabilities, Tensor) and probabilities.ndim == 1 and probabilities.is_floating_point():
        _check_range("probabilities", probabilities)
        probabilities = torch.stack([1 - probabilities.double(), probabilities.double()], 1)
    p, y = rows.read("probabilities", probabilities, labels)
    _check_range("probabilities", p)
    totals = p.sum(1)
    # Single precision and rounding in a file leave less than this.
    wrong = (totals - 1).abs() > 0.01
    if wrong.any():
        raise ValueError(
            f"Expected `probabilities` with rows that sum to 1, but {int(wrong.sum())} of {len(p)} rows do not; "
            f"the first of them sums to {totals[wrong][0].item():.4g}."
        )
    if classwise:
        hits = one_hot(y, p.shape[1]) if len(y) else torch.zeros_like(p)
        return reliability(p.mT, hits.mT, bins, kind).error(norm).mean()
    confidence, predicted = p.max(1)
    return reliability(confidence, predicted == y, bins, kind).error(norm)


def _check_range(name: str, value: Tensor) -> None:
    """In [0, 1], but for the rounding of a softmax."""
    wrong = ~((value >= -1e-6) & (value <= 1 + 1e-6))
    if wrong.any():
        raise ValueError(f"Expected `{name}` in [0, 1], but got {value[wrong][0].item():g}.")
