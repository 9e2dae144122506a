"""The statistics of rows by the kernels, and their gradient: see lossfit.gaps.autograd_functions."""

from __future__ import annotations

import torch
from torch import Tensor

from lossfit.core.row_stats import RowInputs, RowStats, Upstream, Wanted
from lossfit.native import library


def row_stats(scores: Tensor, rows: RowInputs, wanted: Wanted) -> RowStats:
    """The statistics of rows of scores (N, C) or (N, C, S) that the kernels serve, whose targets are all here."""
    shape = rows.target.shape
    own, top, log_sum = (scores.new_empty(shape, dtype=torch.float32) for _ in range(3))
    mean = torch.empty_like(own) if wanted.mean else None
    hit = scores.new_empty(shape, dtype=torch.bool) if wanted.hit else None
    among = torch.empty_like(own) if wanted.entropy else None
    stats = own, top, log_sum, mean, among, hit, None, None, None, None
    _run(library.GAP, scores, None, rows, wanted.hard, stats)
    return RowStats(own, top, log_sum, mean, hit, among)


def scores_grad(scores: Tensor, rows: RowInputs, upstream: Upstream, hard: bool) -> Tensor:
    """The gradient with respect to the scores."""
    gradient = torch.empty_like(scores, memory_format=torch.contiguous_format)
    each = (None if g is None else g.to(torch.float32).contiguous() for g in upstream)
    _run(library.GAP_GRADIENT, scores, gradient, rows, hard, (*(None,) * 6, *each))
    return gradient


def _run(
    operation: int,
    scores: Tensor,
    gradient: Tensor | None,
    rows: RowInputs,
    hard: bool,
    stats: tuple[Tensor | None, ...],
) -> None:
    weight = None if rows.weight is None else rows.weight.to(torch.float32).contiguous()
    valid = None if rows.valid is None else rows.valid.contiguous()
    status = library.run(
        operation,
        scores,
        rows.target.contiguous(),
        None,
        gradient,
        library.settings(valid=valid, hard=hard, stats=stats, mean_weight=weight),
    )
    library.check(status)
