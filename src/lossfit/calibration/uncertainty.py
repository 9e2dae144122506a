"""How sure a classifier is of a row: four numbers, from logits."""

from __future__ import annotations

import torch
from torch import Tensor

from lossfit.core.checks import check_tensor
from lossfit.core.numerics import accumulation_dtype
from lossfit.gaps import gap
from lossfit.gaps.types import Gap


def entropy(logits: Tensor) -> Tensor:
    r"""Entropy of the probabilities in nats, :math:`-\sum_c p_c \log p_c`, in [0, log C]; higher is less sure.

    Args:
        logits: (N, C), (N, C, d1, ...) or (C,).

    Returns:
        (N,), (N, d1, ...) or (); float64 for float64 logits, else float32.

    Raises:
        TypeError, ValueError: ``logits`` are not floating point, or have no class.

    Example:
        >>> lossfit.calibration.entropy(torch.tensor([[0.0, 0.0], [9.0, 0.0]]))
        tensor([0.6931, 0.0012])
    """
    nats = _top(logits, entropy=True).entropy
    assert nats is not None
    return nats


def max_probability(logits: Tensor) -> Tensor:
    r"""The highest probability, :math:`\max_c p_c`, in [1 / C, 1]; higher is surer.

    Arguments, shapes and errors are those of :func:`entropy`.

    Example:
        >>> lossfit.calibration.max_probability(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        tensor([0.5000, 0.7311])
    """
    return torch.sigmoid(log_odds(logits))


def log_odds(logits: Tensor) -> Tensor:
    r"""Log-odds of the likeliest class, :math:`\log \frac{p}{1 - p}`; higher is surer.

    It orders rows as :func:`max_probability` does, and still tells them apart where that one rounds to 1.
    Arguments, shapes and errors are those of :func:`entropy`.

    Example:
        >>> logits = torch.tensor([[30.0, 0.0], [40.0, 0.0]])
        >>> lossfit.calibration.log_odds(logits), lossfit.calibration.max_probability(logits)
        (tensor([30., 40.]), tensor([1., 1.]))
    """
    return _top(logits).log_odds


def margin(logits: Tensor) -> Tensor:
    r"""The highest probability less the second highest, in [0, 1]; higher is surer.

    Arguments, shapes and errors are those of :func:`entropy`. There must be two classes.

    Example:
        >>> lossfit.calibration.margin(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        tensor([0.0000, 0.4621])
    """
    top = _top(logits)
    at = 1 if logits.ndim > 1 else 0
    if logits.shape[at] < 2:
        raise ValueError(f"Expected `logits` of at least two classes, but got shape {tuple(logits.shape)}.")
    first, second = logits.to(accumulation_dtype(logits)).topk(2, at).values.unbind(at)
    return torch.sigmoid(top.log_odds) * (0.0 - torch.expm1(second - first))


def _top(logits: Tensor, *, entropy: bool = False) -> Gap:
    """The gap of the likeliest class."""
    check_tensor("logits", logits)
    if not logits.is_floating_point():
        raise TypeError(f"Expected `logits` to be floating point, but got {logits.dtype}.")
    at = 1 if logits.ndim > 1 else 0
    if not logits.ndim or not logits.shape[at]:
        raise ValueError(f"Expected `logits` of shape (N, C), (N, C, d1, ...) or (C,), but got {tuple(logits.shape)}.")
    return gap.gap(logits, logits.argmax(at), entropy=entropy)
