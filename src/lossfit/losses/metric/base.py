"""What the losses of metrics share: a metric made smooth, and steepened where it is wrong.

The recipe of Jianlin Su, "How to Train Your Accuracy?", 2022, section "A new perspective": find a smooth approximation
of the metric as an expectation over rows, then raise the wrong side to infinity while the right side stays equal in
first order. For accuracy it leads from 1 - p to -log p, cross-entropy.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple, TypedDict

import torch
from torch import Tensor

from lossfit.core import class_shards
from lossfit.core.autograd import readable
from lossfit.core.batch import Targets, read_batch
from lossfit.core.checks import check_index
from lossfit.core.hyper import Hyper, HyperValue
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.reduce import as_row, weigh
from lossfit.gaps import gap
from lossfit.losses.base import Loss
from lossfit.losses.single_label.link import NEGLIGIBLE, softplus


class Common(TypedDict, total=False):
    """The keywords that every loss of a metric takes; :class:`MetricLoss` explains them."""

    steep: HyperValue
    ignore_index: int
    reduction: Literal["mean"]


class MetricLoss(Loss):
    r"""A loss for a metric of the whole batch, on logits and class indices.

    Where a metric counts rows, its smooth form :math:`M` adds up probabilities: a row of class a with the
    probabilities :math:`p` counts as :math:`p_b` rows of class a that are predicted as b. The loss is :math:`1 - M`,
    steepened

    .. math:: 1 - M + \sum_i c_i \, (-\log p_i - (1 - p_i)),

    with :math:`p_i` the probability of row i's target and :math:`c_i` what a small error in row i costs the metric
    when all else is right. The sum is of second order in the errors, and infinite if any row is held to be impossible.
    For accuracy it makes cross-entropy of 1 - p. With it, rows that are held to be wrong pull hardest; without it, they
    hardly pull, and the loss is the metric more closely.

    ``loss(input, target)`` takes logits (N, C), (N, C, d1, ...) or (C,), and class indices of shape (N,),
    (N, d1, ...) or (). All rows, that is all positions of all samples, make one batch. The loss of a batch depends on
    which classes occur in it, so that batches should be large enough to hold most of them.

    Args:
        steep: what the sum above is multiplied by, in [0, 1]; True is 1, and False is 0: 1 minus the smooth metric. It
            may be a function of the step, such as from 1 to 0, or a tensor.
        ignore_index: rows with this target do not count.
        reduction: "mean" only: the loss of a batch is not a sum over its rows.

    Half-precision input is computed in float32, and so is the result. A batch without rows that count has loss 0.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what was expected and what came.
    """

    family: ClassVar[str] = "metric"
    common_hypers: ClassVar[dict[str, tuple[Hyper, float]]] = {
        "steep": (Hyper("how far wrong rows are raised", 0.0, 1.0), 1.0)
    }

    def __init__(
        self,
        hypers: dict[str, HyperValue] | None = None,
        *,
        steep: HyperValue = True,
        ignore_index: int = -100,
        reduction: Literal["mean"] = "mean",
    ) -> None:
        if reduction != "mean":
            raise ValueError(
                f"Expected `reduction` to be 'mean', since the metric of a batch is one number, but got {reduction!r}."
            )
        steep = float(steep) if isinstance(steep, bool) else steep
        super().__init__({**(hypers or {}), "steep": steep}, reduction=reduction)
        self.ignore_index = check_index("ignore_index", ignore_index)

    def forward(self, input: Tensor, target: Tensor, *, sample_weight: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            input: logits (N, C), (N, C, d1, ...) or (C,).
            target: class indices (N,), (N, d1, ...) or ().
            sample_weight: a weight of at least 0 for each row, or for each sample (N,): how many rows it counts as.
        """
        return self._of_batches(*self._read(input, target, sample_weight))

    def smooth(self, input: Tensor, target: Tensor, *, sample_weight: Tensor | None = None) -> Tensor:
        """The smooth metric of a batch, called as the loss is. It tends to the metric as the logits are scaled up."""
        return self._metric(self._weighed(*self._read(input, target, sample_weight))[0])

    def _of_batches(self, scores: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """The losses of many batches at once: logits (..., N, C), class indices and weights (..., N), to (...).

        The targets are not checked, and none is ignored; a row of weight 0 does not count. A tensor ``steep``
        broadcasts to the batches.
        """
        short, excess = self._weighed(scores, target, weight)
        steep = self._hyper("steep", short.shape, short.dtype)
        return short + steep * excess if isinstance(steep, Tensor) or steep > 0 else short

    def _terms(self, scores: Tensor, target: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """1 minus the smooth metric, and what steepening adds: logits (..., N, C) to (...).

        ``share`` (..., N) is the weight of each row; over the rows they sum to 1, or are all 0.
        """
        raise NotImplementedError

    @staticmethod
    def _metric(shortfall: Tensor) -> Tensor:
        return 1 - shortfall

    def _weighed(self, scores: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if target.shape[-1] == 0:
            nothing = scores.to(accumulation_dtype(scores)).flatten(-2).sum(-1)  # 0, with a gradient
            return nothing, nothing
        if weight is None:
            weight = torch.ones_like(target, dtype=accumulation_dtype(scores))
        total = weight.sum(-1)
        counts = total > 0
        short, excess = self._terms(scores, target, weight / torch.where(counts, total, 1.0).unsqueeze(-1))
        return torch.where(counts, short, 0.0), torch.where(counts, excess, 0.0)

    def _read(self, input: Tensor, target: Tensor, sample_weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Checked logits (R, C), class indices (R,) and weights (R,) of all rows."""
        class_shards.refuse(input=input, target=target)
        scores, targets, unbatched = read_batch(input, target, self.ignore_index, probabilities=False)
        dtype = accumulation_dtype(scores)
        if unbatched:
            sample_weight = as_row(sample_weight)
        weighing = weigh(targets.rows, dtype, "sum", valid=targets.valid, sample_weight=sample_weight)
        if sample_weight is not None and readable(sample_weight) and (sample_weight < 0).any():
            raise ValueError(f"Expected `sample_weight` of at least 0, but got {sample_weight.min().item():g}.")
        weight = torch.ones_like(targets.target, dtype=dtype) if weighing.factor is None else weighing.factor
        scores, weight = weighing.blank(scores), weighing.blank(weight)
        return scores.movedim(1, -1).flatten(0, -2), targets.target.flatten(), weight.flatten()


class Rows(NamedTuple):
    """Rows and their errors. Shares are of the weight of all rows.

    Attributes:
        target: (..., N).
        share: of each row (..., N).
        error: 1 - p of each row (..., N).
        spread: the error by the class predicted instead, 0 at the target (..., N, C); None unless asked for.
        shares: of each class (..., C).
    """

    target: Tensor
    share: Tensor
    error: Tensor
    spread: Tensor | None
    shares: Tensor

    @property
    def present(self) -> Tensor:
        """Whether each class occurs (..., C)."""
        return self.shares > 0

    @property
    def inverse(self) -> Tensor:
        """1 / share of each class, 0 for those that do not occur."""
        return torch.where(self.present, 1 / torch.where(self.present, self.shares, 1.0), 0.0)

    @property
    def misses(self) -> Tensor:
        """The error of the rows of each class (..., C): false negatives."""
        return torch.zeros_like(self.shares).scatter_add(-1, self.target, self.share * self.error)

    @property
    def alarms(self) -> Tensor:
        """The error of other rows in favour of each class (..., C): false positives."""
        assert self.spread is not None
        return (self.share.unsqueeze(-2) @ self.spread).squeeze(-2)

    def of_target(self, values: Tensor) -> Tensor:
        """Numbers per class (..., C) to those of each row's target (..., N)."""
        return values.gather(-1, self.target)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the rows (..., N) -> (...)."""
        return (self.share * values).sum(-1)


class ConfusionLoss(MetricLoss):
    """A loss of a metric that is a function of the table of targets and predictions."""

    needs_spread: ClassVar[bool] = True
    """Whether it matters which class is predicted instead of the target."""

    def _measure(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """1 - M (...), and what the errors of each row cost in first order (..., N), were all other rows right."""
        raise NotImplementedError

    def _terms(self, scores: Tensor, target: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        classes = scores.shape[-1]
        flat, right = scores.reshape(-1, classes), Targets(target.reshape(-1), classes)
        error, excess = errors(gap.gap_rows(flat, right, "soft").log_odds.view(target.shape))
        spread = None
        if self.needs_spread:
            p = scores.to(error.dtype).softmax(-1)
            spread = p.scatter(-1, target.unsqueeze(-1), 0.0)
        shares = share.new_zeros((*target.shape[:-1], classes)).scatter_add(-1, target, share)
        rows = Rows(target, share, error, spread, shares)
        short, cost = self._measure(rows)
        return short, rows.mean(excess * cost)


def errors(d: Tensor) -> tuple[Tensor, Tensor]:
    """1 - p at the gap d, and -log p / (1 - p) - 1: by how much more the steepened error is, in units of the error."""
    error = torch.sigmoid(-d)
    some = error > NEGLIGIBLE
    return error, torch.where(some, softplus(-d) / torch.where(some, error, 1.0) - 1, 0.0)
