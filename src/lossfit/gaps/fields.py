"""From the statistics of rows to their gap."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lossfit.core.row_stats import RowInputs, RowStats, finite
from lossfit.gaps.types import Gap


def to_gap(
    stats: RowStats, rows: RowInputs, classes: int, divisor: Tensor | None = None, shift: Tensor | None = None
) -> Gap:
    """The gap of rows, from statistics over all of their classes.

    Args:
        rows: what they were made with; the targets are classes, and the weights those of all classes.
        divisor, shift: where ``own`` and ``top`` are logits, the numbers (N,) and (C,) that make scores of them.
    """
    own, top, log_sum, mean, hit, among = stats
    lead = own - top
    if divisor is not None:
        lead, own, top = lead / divisor, own / divisor, top / divisor
    if shift is not None:
        extra = shift.to(own.dtype)[rows.target]
        extra = extra if rows.valid is None else extra.masked_fill(~rows.valid, 0.0)
        lead, own = lead + extra, own + extra
    log_odds = lead - log_sum
    mean_score = over_mean = row_entropy = None
    if mean is not None:
        rest = mean_share(rows, classes, own.dtype)
        level = own.clamp(min=torch.finfo(own.dtype).min)
        over_mean = rest * (level - level.detach()) - mean
        if rows.weight is None:
            mean_score = own - over_mean
        else:
            mean_score = rows.weight.to(own.dtype).sum() / classes * own - over_mean
    if among is not None:
        row_entropy = entropy_of_row(log_odds, among)
        row_entropy = row_entropy if rows.valid is None else row_entropy.masked_fill(~rows.valid, 0.0)
    return Gap(own, top + log_sum, log_odds, mean_score, over_mean, hit, row_entropy)


def mean_share(rows: RowInputs, classes: int, dtype: torch.dtype) -> float | Tensor:
    """The share of the rivals in the mean, sum_{k != y} w_k / C over the columns of the weights."""
    if rows.weight is None:
        return (classes - 1) / classes if rows.here is None else 1 - rows.here.to(dtype) / classes
    weight = rows.weight.to(dtype)
    own = weight[rows.target]
    own = own if rows.here is None else own.where(rows.here, 0.0)
    return (weight.sum() - own) / classes


def entropy_of_row(log_odds: Tensor, among: Tensor) -> Tensor:
    """H = p (-log p) + (1 - p) (-log(1 - p) + the entropy among the rivals)."""
    miss = torch.sigmoid(-log_odds) * (among - finite(logsigmoid(-log_odds)))
    return miss - torch.sigmoid(log_odds) * finite(logsigmoid(log_odds))
