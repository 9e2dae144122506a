"""Which rows to answer: the error rate among the rows that a classifier is surest of."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lossfit.core.checks import check_tensor


class RiskCoverage(NamedTuple):
    """The curve of :func:`risk_coverage`, at k = 1 .. N rows answered, (..., N) each."""

    coverage: Tensor
    """k / N."""
    risk: Tensor
    """The error rate among them."""


def risk_coverage(confidence: Tensor, hits: Tensor) -> RiskCoverage:
    """The error rate among the k rows of the highest confidence, for k = 1 .. N.

    Rows of equal confidence are answered in no order: each has their mean error, so the order of the rows does not
    matter.

    Args:
        confidence: (..., N), higher is surer, of any unit: :func:`max_probability`, or minus :func:`entropy`.
        hits: whether each row is right, (..., N), as booleans or numbers in [0, 1].

    Raises:
        TypeError, ValueError: not tensors, other shapes, or a confidence that is NaN.

    Source: Y. Geifman and R. El-Yaniv, "Selective Classification for Deep Neural Networks", 2017, section 2.

    Example:
        >>> hits = torch.tensor([True, False, True, True])
        >>> lossfit.calibration.risk_coverage(torch.tensor([0.9, 0.5, 0.8, 0.6]), hits).risk
        tensor([0.0000, 0.0000, 0.0000, 0.2500], dtype=torch.float64)
    """
    check_pair(confidence, hits)
    risk = risks(confidence, _mean_of_ties(confidence, hits.double()))
    n = risk.shape[-1]
    coverage = torch.arange(1, n + 1, dtype=torch.float64, device=risk.device) / max(n, 1)
    return RiskCoverage(coverage.expand(risk.shape), risk)


def aurc(confidence: Tensor, hits: Tensor) -> Tensor:
    """Area under the risk-coverage curve: its mean over k = 1 .. N, in [0, 1]; lower is better, 0 without rows.

    Arguments and errors are those of :func:`risk_coverage`. Without ranking it is the error rate.

    Source: Y. Geifman et al., "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", 2019, section 2.

    Example:
        >>> hits = torch.tensor([True, False, True, True])
        >>> lossfit.calibration.aurc(torch.tensor([0.9, 0.5, 0.8, 0.6]), hits)
        tensor(0.0625, dtype=torch.float64)
    """
    risk = risk_coverage(confidence, hits).risk
    return risk.sum(-1) / max(risk.shape[-1], 1)


def risks(confidence: Tensor, hits: Tensor) -> Tensor:
    """The error rate among the k most confident rows, k = 1 .. N, (..., N); equal ones in the order of the rows."""
    order = confidence.argsort(dim=-1, descending=True, stable=True)
    wrong = 1 - hits.double().gather(-1, order)
    return wrong.cumsum(-1) / torch.arange(1, wrong.shape[-1] + 1, device=wrong.device)


def weighted_risks(confidence: Tensor, hits: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`risks` where a row of weight w counts as w rows, and the weight of those k rows."""
    order = confidence.argsort(dim=-1, descending=True, stable=True)
    each = weight.double().gather(-1, order)
    total = each.cumsum(-1)
    wrong = (each * (1 - hits.double().gather(-1, order))).cumsum(-1)
    return torch.where(total > 0, wrong / torch.where(total > 0, total, 1.0), 0.0), total


def check_pair(confidence: Tensor, hits: Tensor) -> None:
    check_tensor("confidence", confidence)
    check_tensor("hits", hits)
    if not confidence.is_floating_point():
        raise TypeError(f"Expected `confidence` to be floating point, but got {confidence.dtype}.")
    if not confidence.ndim or confidence.shape != hits.shape:
        raise ValueError(
            f"Expected `confidence` and `hits` of one shape (..., N), "
            f"but got {tuple(confidence.shape)} and {tuple(hits.shape)}."
        )
    if confidence.isnan().any():
        raise ValueError(f"Expected `confidence` without NaN, but got {int(confidence.isnan().sum())} of them.")
    if not ((hits >= 0) & (hits <= 1)).all():
        raise ValueError("Expected `hits` in [0, 1], but got other numbers.")


def _mean_of_ties(confidence: Tensor, hits: Tensor) -> Tensor:
    """The hits, each replaced by the mean of the rows of its confidence."""
    confidence = confidence.contiguous()
    ranked, order = confidence.sort(dim=-1)
    total = torch.nn.functional.pad(hits.gather(-1, order).cumsum(-1), (1, 0))
    first, last = (torch.searchsorted(ranked, confidence, right=right) for right in (False, True))
    return (total.gather(-1, last) - total.gather(-1, first)) / (last - first)
