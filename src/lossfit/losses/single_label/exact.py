"""Expected accuracy under Gaussian noise."""

from __future__ import annotations

from typing import Literal, Unpack

import torch
from torch import Tensor

from lossfit.core.batch import Targets
from lossfit.core.hyper import Hyper, HyperValue, Number
from lossfit.core.reduce import LogMeanWeighing, Weighing
from lossfit.gaps.gaussian import exact_rows
from lossfit.losses.single_label.base import Common, SingleLabelLoss
from lossfit.losses.single_label.settings import Settings
from lossfit.native.single_label import Term


class ExactLoss(SingleLabelLoss):
    r"""EXACT: one minus the probability that the target wins under Gaussian noise.

    .. math:: 1 - P, \quad P = P(\arg\max_k (z_k / \sigma + e_k) = y), \quad e \sim N(0, I)

    The probability is an integral in one dimension, computed with its gradient without sampling: in float64 to 1e-8 in
    P and 1e-6 relative in log P; in float32 to 5e-6 relative in log P, and the gradient to 2e-5 of its largest entry,
    for up to 100,000 classes. Time and memory are linear in the number of classes. With two classes it is the probit
    :math:`\Phi((z_y - z_k) / (\sigma \sqrt 2))`.

    Args:
        sigma: the scale of the noise, above 0: a number, a schedule, or a tensor for each row, such as the output of a
            head of the network. It gets a gradient if it requires one.
        log: True: the loss of a row is :math:`-\log P`. "mean": the loss of a batch is :math:`-\log \bar P` of the
            (weighted) mean of P over its rows, the authors' second objective, with reduction="mean" and class indices.
        common: see :class:`SingleLabelLoss`.

    Range: [0, 1], or [0, inf) with ``log``. Sensitivity in P: 1, or 1 / P. There is no second derivative.

    Source: I. Karpukhin, S. Dereka and S. Kolesnikov, "EXACT: How to Train Your Accuracy", 2022, section 3. The
    integral replaces the authors' sampling.

    Example:
        >>> loss = lossfit.ExactLoss()
        >>> loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.1342)
    """

    formula = "1 - P(argmax_k (z_k / sigma + N(0, 1)) = y), or -log P"
    sensitivity = "1 in P, or 1 / P"
    source = "I. Karpukhin, S. Dereka and S. Kolesnikov, EXACT: How to Train Your Accuracy, 2022, section 3"
    _no_other_grads = True
    hypers = {"sigma": Hyper("scale of the noise", 0.0, search=(0.5, 1.0, 2.0, 4.0), open_low=True)}

    def __init__(
        self, sigma: HyperValue = 1.0, *, log: bool | Literal["mean"] = False, **common: Unpack[Common]
    ) -> None:
        super().__init__({"sigma": sigma}, **common)
        if not isinstance(log, bool) and log != "mean":
            raise ValueError(f"Expected `log` to be False, True or 'mean', but got {log!r}.")
        if log == "mean" and self.reduction != "mean":
            raise ValueError(f"Expected `reduction` 'mean' with log='mean', but got {self.reduction!r}.")
        self.log = log

    def _native_term(self, own: dict[str, Number]) -> Term | None:
        if self.log == "mean":
            return None
        return Term("exact_log" if self.log else "exact", (own["sigma"],))

    def _weighing(
        self,
        targets: Targets,
        dtype: torch.dtype,
        settings: Settings,
        sample_weight: Tensor | None,
        denominator: float | Tensor | None,
    ) -> Weighing:
        weighing = super()._weighing(targets, dtype, settings, sample_weight, denominator)
        if self.log != "mean" or self.reduction == "none":
            return weighing
        if targets.probabilities or settings.is_smooth:
            raise ValueError("Expected `target` to hold class indices, without label smoothing, with log='mean'.")
        return LogMeanWeighing(weighing.reduction, weighing.valid, weighing.factor, weighing.divisor)

    def _rows(self, scores: Tensor, targets: Targets, settings: Settings) -> Tensor:
        sigma = settings.own["sigma"]
        if isinstance(sigma, Tensor):
            sigma = sigma.expand(targets.rows).reshape(-1)
        flat = targets.blank(scores).movedim(1, -1).flatten(0, -2)
        rows: Tensor = exact_rows(flat, targets.target.reshape(-1), sigma, bool(self.log), targets.shard)
        return rows.view(targets.rows)

    def probabilities(self, input: Tensor) -> Tensor:
        """P of every class, of the shape of the logits (N, C) or (N, C, d1, ...)."""
        nats = ExactLoss(self.sigma, log=True, reduction="none", temperature=self.temperature)
        rows = input.shape[:1] + input.shape[2:]
        each = [nats(input, input.new_full(rows, c, dtype=torch.int64)) for c in range(input.shape[1])]
        return torch.stack(each, 1).neg().exp()
