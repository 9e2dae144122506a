"""Class weights that come from class counts."""

from __future__ import annotations

import torch
from torch import Tensor


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
    return (counts.sum() / (len(counts) * counts)) ** power


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
    if beta == 0:
        return torch.ones_like(counts)
    weight = -1.0 / torch.expm1(counts * torch.log(counts.new_tensor(beta)))
    return weight * len(counts) / weight.sum()


def check_positive(name: str, value: Tensor) -> Tensor:
    value = torch.as_tensor(value)
    value = value if value.is_floating_point() else value.to(torch.get_default_dtype())
    if value.ndim != 1 or not bool((value > 0).all()) or not bool(value.isfinite().all()):
        raise ValueError(f"Expected `{name}` to be a vector of positive, finite numbers, but got {value.tolist()}.")
    return value
