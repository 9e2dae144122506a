"""Numbers per class: weights, counts and priors, computed in float64 whatever type they come in."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lossfit.core.autograd import has_numbers


def inverse_frequency_weight(counts: Tensor, power: float = 1.0) -> Tensor:
    r"""Class weights :math:`(N / (C n_c))^{power}` from the number of rows of each class.

    ``power=1`` is the "balanced" weighting of scikit-learn, ``power=0.5`` a common compromise, ``power=0`` none.

    Args:
        counts: rows of each class (C,), all positive.
        power: how far to go, usually in [0, 1].

    Returns:
        Weights (C,), for the ``weight`` of a loss.

    Raises:
        ValueError: a count is not positive.

    Example:
        >>> inverse_frequency_weight(torch.tensor([90, 10]))
        tensor([0.5556, 5.0000])
    """
    counts = check_positive("counts", counts)
    exact = widened(counts)
    return _rounded((exact.sum() / (len(exact) * exact)) ** power, counts)


def class_balanced_weight(counts: Tensor, beta: float = 0.999) -> Tensor:
    r"""Class weights from the effective number of rows, :math:`(1 - \beta) / (1 - \beta^{n_c})`.

    Args:
        counts: rows of each class (C,), all positive.
        beta: in [0, 1). 0 gives equal weights; towards 1 they approach :math:`1 / n_c`.

    Returns:
        Weights (C,), scaled to sum to C.

    Raises:
        ValueError: a count is not positive, or ``beta`` is out of range.

    Source: Y. Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", 2019, section 4.

    Example:
        >>> class_balanced_weight(torch.tensor([90, 10]), beta=0.9)
        tensor([0.7889, 1.2111])
    """
    counts = check_positive("counts", counts)
    if not 0 <= beta < 1:
        raise ValueError(f"Expected `beta` in [0, 1), but got {beta}.")
    exact = widened(counts)
    weight = -1.0 / torch.expm1(exact * math.log(beta)) if beta else torch.ones_like(exact)
    return _rounded(weight * len(exact) / weight.sum(), counts)


def log_prior(class_prior: Tensor) -> Tensor:
    """The logarithms of the classes' probabilities, from probabilities or counts of any type."""
    return widened(class_prior).log().log_softmax(0)  # the sum itself may be too large for the type


def widened(per_class: Tensor) -> Tensor:
    """In float64, or float32 on a device that has no float64."""
    return per_class.to(torch.float32 if per_class.device.type == "mps" else torch.float64)


def _rounded(weight: Tensor, counts: Tensor) -> Tensor:
    """In the type of the counts, but float32 or wider."""
    kind = counts.dtype if counts.is_floating_point() else torch.get_default_dtype()
    return weight.to(torch.promote_types(kind, torch.float32))


def check_positive(name: str, value: Tensor) -> Tensor:
    value = torch.as_tensor(value)
    wrong = value.ndim != 1 or (has_numbers(value) and not bool(((value > 0) & value.isfinite()).all()))
    if wrong:
        shown = value.tolist() if has_numbers(value) else f"shape {tuple(value.shape)}"
        raise ValueError(f"Expected `{name}` to be a vector of positive, finite numbers, but got {shown}.")
    return value
