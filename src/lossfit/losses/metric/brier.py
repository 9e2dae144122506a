"""The Brier score."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lossfit.core.batch import Targets
from lossfit.gaps import gap
from lossfit.losses.metric.base import MetricLoss


class BrierLoss(MetricLoss):
    r"""The Brier score, the mean over rows of the squared distance of the probabilities to the one-hot target.

    .. math:: (1 - p_y)^2 + \sum_{c \neq y} p_c^2

    It is smooth and an expectation over rows as it is, so nothing is steepened.

    Args:
        ignore_index, reduction: see :class:`MetricLoss`.

    Range: [0, 2].

    Example:
        >>> loss = lossfit.BrierLoss()
        >>> loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.0681)
    """

    formula = "(1 - p)^2 + sum over the other classes of p_c^2"
    source = "G. W. Brier, Verification of Forecasts Expressed in Terms of Probability, 1950"

    def __init__(self, *, ignore_index: int = -100, reduction: Literal["mean"] = "mean") -> None:
        super().__init__(ignore_index=ignore_index, reduction=reduction)

    def _terms(self, scores: Tensor, target: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        classes = scores.shape[-1]
        flat, right = scores.reshape(-1, classes), Targets(target.reshape(-1), classes)
        error = torch.sigmoid(-gap.gap_rows(flat, right, "soft").log_odds).view(target.shape)
        others = scores.to(error.dtype).softmax(-1).scatter(-1, target.unsqueeze(-1), 0.0)
        score = (share * (error.square() + others.square().sum(-1))).sum(-1)
        return score, torch.zeros_like(score)

    @staticmethod
    def _metric(shortfall: Tensor) -> Tensor:
        return shortfall
