"""Losses of sequences: token by token, or through a metric of whole sequences that were sampled or listed."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lossfit.core import masks
from lossfit.core.checks import check_choice, check_tensor
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.reduce import Reduction, weigh
from lossfit.losses.nested import OuterLoss, without_reduction
from lossfit.losses.single_label.base import SingleLabelLoss

Normalise = Literal["token", "sequence"]


class TokenLoss(OuterLoss):
    r"""A single-label loss at every token of a batch of sequences, with a mask.

    ``loss(input, target, mask)`` takes logits (B, T, C), the classes last as language models give them, target classes
    (B, T), and a mask: None, boolean (B, T), or lengths (B,). Tokens outside of the mask and those whose target is the
    ``ignore_index`` of the inner loss get loss 0 and no gradient, whatever they hold.

    Args:
        loss: any single-label loss, cross-entropy by default; its reduction is not used. A copy that shares its tensors
            is kept. Tensors among its hyper-parameters broadcast to the B T tokens in one dimension.
        normalise: what the rows are that are reduced. "token": the tokens, so that long sequences count more.
            "sequence": the sequences, each with the weighted mean of its tokens; those without a token do not count.
        reduction: "mean", "sum" or "none"; "none" gives (B, T) for tokens, (B,) for sequences. The mean over nothing
            is 0, with zero gradient.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what was expected and what came. The position of a class
            out of range is that among the B T tokens in one dimension.

    Source: the mean over sequences of the target's log-probability is that of I. Sutskever, O. Vinyals and Q. V. Le,
    "Sequence to Sequence Learning with Neural Networks", 2014, section 3.2, before each is divided by its length.

    Example:
        >>> loss = lossfit.TokenLoss(lossfit.FocalLoss(2.0))
        >>> logits = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [9.0, 9.0, 9.0]]])
        >>> loss(logits, torch.tensor([[0, 1, 2]]), torch.tensor([2]))
        tensor(0.0550)
    """

    family = "sequence"
    formula = "sum_t w_t l_t / sum_t w_t over the tokens of all sequences, or of each"
    source = (
        "I. Sutskever, O. Vinyals and Q. V. Le, Sequence to Sequence Learning with Neural Networks, 2014, section 3.2"
    )

    def __init__(
        self,
        loss: SingleLabelLoss | None = None,
        *,
        normalise: Normalise = "token",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        check_choice("normalise", normalise, ("token", "sequence"))
        self.loss = without_reduction(loss)
        self.normalise: Normalise = normalise

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        mask: Tensor | None = None,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            input: logits (B, T, C).
            target: class indices (B, T).
            mask: boolean (B, T), or lengths (B,).
            sample_weight: a weight for each token (B, T), or for each sequence (B,).
            denominator: what reduction="mean" divides the sum by, in place of the sum of weights.
        """
        _check_tokens(input, target)
        shape = target.shape
        valid = masks.positions(mask, *shape)
        ignored = self.loss.ignore_index
        target = target if valid is None else target.masked_fill(~valid, ignored)
        counts = weigh(shape, accumulation_dtype(input), "sum", sample_weight=sample_weight).valid
        target = target if counts is None else target.masked_fill(~counts, ignored)
        rows = self.loss(input.flatten(0, 1), target.flatten()).view(shape)
        valid = target != ignored
        class_weight = None
        if self.loss.weight is not None:
            class_weight = self.loss.weight.to(rows.dtype)[target.masked_fill(~valid, 0)]
        if self.normalise == "sequence":
            return self._by_sequence(rows, valid, class_weight, sample_weight, denominator)
        weighing = weigh(
            shape,
            rows.dtype,
            self.reduction,
            valid=valid,
            class_weight=class_weight,
            sample_weight=sample_weight,
            denominator=denominator,
            weighted=True,
        )
        return weighing.reduce(rows)

    def _by_sequence(
        self,
        rows: Tensor,
        valid: Tensor,
        class_weight: Tensor | None,
        sample_weight: Tensor | None,
        denominator: float | Tensor | None,
    ) -> Tensor:
        token_weight = None
        if isinstance(sample_weight, Tensor) and sample_weight.shape == rows.shape:
            token_weight, sample_weight = sample_weight.to(rows.dtype), None
        weights = torch.ones_like(rows) if class_weight is None else class_weight
        if token_weight is not None:
            rows, weights = rows * token_weight, weights * token_weight
        mass = weights.masked_fill(~valid, 0.0).sum(1)
        means = rows.masked_fill(~valid, 0.0).sum(1) / torch.where(mass == 0, 1.0, mass)
        weighing = weigh(
            means.shape,
            means.dtype,
            self.reduction,
            valid=valid.any(1),
            sample_weight=sample_weight,
            denominator=denominator,
        )
        return weighing.reduce(means)


def _check_tokens(input: Tensor, target: Tensor) -> None:
    for name, value in (("input", input), ("target", target)):
        check_tensor(name, value)
    if input.ndim != 3:
        raise ValueError(f"Expected `input` of shape (B, T, C), but got {tuple(input.shape)}.")
    if target.shape != input.shape[:2]:
        raise ValueError(
            f"Expected `target` of shape {tuple(input.shape[:2])} for `input` of shape {tuple(input.shape)}, "
            f"but got {tuple(target.shape)}."
        )
