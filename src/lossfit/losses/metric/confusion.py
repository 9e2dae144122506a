"""Metrics of the confusion table: balanced accuracy, F-beta, Matthews' correlation, Cohen's kappa."""

from __future__ import annotations

from typing import Literal, Unpack

import torch
from torch import Tensor

from lossfit.core.checks import check_choice
from lossfit.core.hyper import Hyper, HyperValue
from lossfit.losses.metric.base import Common, ConfusionLoss, Rows

_RECIPE = "Jianlin Su, How to Train Your Accuracy?, 2022, section A new perspective"


class BalancedAccuracyLoss(ConfusionLoss):
    r"""Loss of the balanced accuracy, the mean recall of the classes.

    Smooth, :math:`M = \frac1C \sum_c \frac1{n_c} \sum_{i: y_i = c} p_i`. Steepened it is cross-entropy with the weight
    :math:`1 / (C n_c)` for the :math:`n_c` rows of class c. Classes that do not occur in the batch do not count.

    Args:
        common: see :class:`MetricLoss`.

    Range: [0, inf), with ``steep=False`` [0, 1].

    Example:
        >>> loss = lossfit.BalancedAccuracyLoss()
        >>> logits, labels = torch.tensor([[2.0, 0.0], [2.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 0, 1])
        >>> loss(logits, labels), loss.smooth(logits, labels)
        (tensor(0.7201), tensor(0.5749))
    """

    formula = "mean over classes of the mean of -log p over their rows"
    source = (
        f"{_RECIPE}; K. H. Brodersen et al., The Balanced Accuracy and Its Posterior Distribution, 2010, section II"
    )
    needs_spread = False

    def __init__(self, **common: Unpack[Common]) -> None:
        super().__init__(**common)

    def _measure(self, rows: Rows) -> tuple[Tensor, Tensor]:
        cost = rows.error * rows.of_target(_over_present(rows, rows.inverse))
        return rows.mean(cost), cost


class FBetaLoss(ConfusionLoss):
    r"""Loss of F-beta, the weighted harmonic mean of precision and recall.

    Smooth, with the sums of probabilities TP, FP and FN of a class,

    .. math:: 1 - F = \frac{\beta^2 FN + FP}{(1 + \beta^2) TP + \beta^2 FN + FP}.

    Steepened, an error of a row of class a in favour of class b is raised at the cost
    :math:`(\beta^2 / n_a + 1 / n_b) / (1 + \beta^2)` that it has in first order. The loss never rises when a row's
    target gains score.

    Args:
        beta: how many times as important recall is as precision, above 0; 1 gives F1.
        average: "macro": the mean over the classes that occur in the batch. "micro": TP, FP and FN are added up over
            all classes; with one right class per row that is the accuracy, for any beta, and the loss cross-entropy.
        common: see :class:`MetricLoss`.

    Range: [0, inf), with ``steep=False`` [0, 1].

    Example:
        >>> loss = lossfit.FBetaLoss(beta=2.0)
        >>> logits, labels = torch.tensor([[2.0, 0.0], [2.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 0, 1])
        >>> loss(logits, labels), loss.smooth(logits, labels)
        (tensor(0.6977), tensor(0.5689))
    """

    formula = "1 - F, with F of sums of probabilities, + first-order costs of -log p - (1 - p)"
    source = f"{_RECIPE}; C. J. van Rijsbergen, Information Retrieval, 1979, chapter 7"
    hypers = {"beta": Hyper("importance of recall against precision", 0.0, open_low=True)}

    def __init__(
        self, beta: HyperValue = 1.0, *, average: Literal["macro", "micro"] = "macro", **common: Unpack[Common]
    ) -> None:
        check_choice("average", average, ("macro", "micro"))
        super().__init__({"beta": beta}, **common)
        self.average = average

    def _measure(self, rows: Rows) -> tuple[Tensor, Tensor]:
        if self.average == "micro":
            return rows.mean(rows.error), rows.error
        assert rows.spread is not None
        square = self._hyper("beta", torch.Size()) ** 2
        misses, alarms = rows.misses, rows.alarms
        total = (1 + square) * (rows.shares - misses) + square * misses + alarms
        short = (square * misses + alarms) / torch.where(rows.present, total, 1.0)
        price = _over_present(rows, rows.inverse) / (1 + square)
        cost = square * rows.error * rows.of_target(price) + (rows.spread @ price.unsqueeze(-1)).squeeze(-1)
        return _over_present(rows, short).sum(-1), cost


class MatthewsLoss(ConfusionLoss):
    r"""Loss of Matthews' correlation coefficient, for any number of classes.

    Smooth, with the shares :math:`n` of the classes, :math:`s` of the predictions by sums of probabilities, and
    :math:`a` the expected accuracy,

    .. math:: M = \frac{a - n \cdot s}{\sqrt{(1 - n \cdot n)(1 - s \cdot s)}}.

    :math:`M` is 0, with no gradient, for a batch of one class, and where all predictions are one class. Like kappa,
    the metric compares with chance, which the predictions change: while it is low, a target that gains score may lower
    it.

    Args:
        common: see :class:`MetricLoss`.

    Range: [0, inf), with ``steep=False`` [0, 2].

    Example:
        >>> loss = lossfit.MatthewsLoss()
        >>> logits, labels = torch.tensor([[2.0, 0.0], [2.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 0, 1])
        >>> loss(logits, labels), loss.smooth(logits, labels)
        (tensor(1.2599), tensor(0.1883))
    """

    formula = "1 - correlation, of sums of probabilities, + first-order costs of -log p - (1 - p)"
    source = (
        f"{_RECIPE}; J. Gorodkin, Comparing Two K-Category Assignments by a K-Category Correlation, 2004, section 2"
    )

    def __init__(self, **common: Unpack[Common]) -> None:
        super().__init__(**common)

    def _measure(self, rows: Rows) -> tuple[Tensor, Tensor]:
        shares, misses = rows.shares, rows.misses
        gain = rows.alarms - misses
        predicted = shares + gain
        wrong, lean = misses.sum(-1), (shares * gain).sum(-1)
        true_spread = (shares * (1 - shares)).sum(-1)
        spread = (predicted * (1 - predicted)).sum(-1)
        varied = rows.present.sum(-1) > 1
        defined = varied & ~(spread <= torch.finfo(spread.dtype).eps)
        scale = (torch.where(defined, spread, 1.0) * torch.where(defined, true_spread, 1.0)).sqrt()
        above = true_spread - wrong - lean
        # Near 1, from a difference of squares whose leading terms are gone: 1 - M keeps its digits.
        near = 2 * true_spread * wrong - true_spread * gain.square().sum(-1) - (wrong + lean).square()
        right = above > 0
        short = torch.where(right, near / (scale * torch.where(right, scale + above, 1.0)), 1 - above / scale)
        rate = torch.where(varied, 1 / torch.where(varied, true_spread, 1.0), 0.0)
        return torch.where(defined, short, 1.0), rows.error * rate.unsqueeze(-1)


class CohenKappaLoss(ConfusionLoss):
    r"""Loss of Cohen's kappa, plain or weighted.

    Smooth, :math:`1 - M` is the expected disagreement of targets and predictions, in units of the disagreement there
    would be by chance,

    .. math:: 1 - M = \frac{\sum_i \sum_b p_{ib} W_{y_i b} / N}{\sum_{ab} n_a W_{ab} s_b},

    with the shares :math:`n` of the classes and :math:`s` of the predictions. :math:`M` is 0, with no gradient, for a
    batch of one class.

    Args:
        weights: how much it is to predict b for a. None: 1. "linear": abs(a - b). "quadratic": (a - b)^2. The last two
            are for classes in an order, such as grades.
        common: see :class:`MetricLoss`.

    Range: [0, inf).

    Example:
        >>> loss = lossfit.CohenKappaLoss("quadratic")
        >>> logits, labels = torch.tensor([[2.0, 0.0], [2.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 0, 1])
        >>> loss(logits, labels), loss.smooth(logits, labels)
        (tensor(1.2775), tensor(0.1708))
    """

    formula = "1 - kappa, of sums of probabilities, + first-order costs of -log p - (1 - p)"
    source = f"{_RECIPE}; J. Cohen, Weighted Kappa, 1968"

    def __init__(self, weights: Literal["linear", "quadratic"] | None = None, **common: Unpack[Common]) -> None:
        if weights is not None:
            check_choice("weights", weights, ("linear", "quadratic"))
        super().__init__(**common)
        self.weights = weights

    def _measure(self, rows: Rows) -> tuple[Tensor, Tensor]:
        shares = rows.shares
        predicted = shares - rows.misses + rows.alarms
        if self.weights is None:
            distance, apart = rows.error, 1 - shares
        else:
            assert rows.spread is not None
            at = torch.arange(shares.shape[-1], dtype=shares.dtype, device=shares.device)
            table = (at - at.unsqueeze(1)).abs() ** (1 if self.weights == "linear" else 2)
            distance, apart = (rows.spread * table[rows.target]).sum(-1), shares @ table
        varied = rows.present.sum(-1) > 1
        by_chance, first = (torch.where(varied, (s * apart).sum(-1), 1.0) for s in (predicted, shares))
        cost = torch.where(varied, 1 / first, 0.0).unsqueeze(-1) * distance
        return torch.where(varied, rows.mean(distance) / by_chance, 1.0), cost


def _over_present(rows: Rows, values: Tensor) -> Tensor:
    """Numbers per class, divided by how many classes occur; 0 for the others."""
    count = rows.present.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(rows.present, values, 0.0) / count
