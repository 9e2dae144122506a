"""Losses of sampled sequences: a reward or a cost instead of a right answer."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lossfit.core import masks
from lossfit.core.checks import check_choice, check_constant, check_tensor
from lossfit.core.hyper import Hyper, HyperValue
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.reduce import Reduction, weigh
from lossfit.losses.base import Loss

Baseline = Literal["none", "mean", "leave_one_out", "self_critical"]


class ReinforceLoss(Loss):
    r"""REINFORCE: a loss whose gradient is, on average, that of minus the expected reward.

    For M sequences :math:`y_1, \ldots, y_M` sampled from the model for each row,

    .. math:: -\frac1M \sum_m (R_m - b_m) \log P(y_m)

    with the rewards :math:`R_m` of any metric, which need no derivative. The value itself says little; watch the mean
    reward. ``loss(log_prob, reward)`` takes log-probabilities and rewards (B, M); the model's gradient comes through
    ``log_prob`` alone.

    Args:
        baseline: what is taken off a reward to lower the variance. "none": 0. "leave_one_out": the mean reward of the
            other samples (W. Kool, H. van Hoof and M. Welling, "Buy 4 REINFORCE Samples, Get a Baseline for Free!",
            2019); unbiased. "mean": the mean reward of all samples, :math:`1 - 1/M` times the gradient of
            "leave_one_out". "self_critical": the reward of the model's greedy sequence, (B,), the third argument of the
            call (S. Rennie et al., "Self-Critical Sequence Training for Image Captioning", 2017, section 3); unbiased.
        reduction: "mean", "sum" or "none". Rows are the sources (B,).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came: a reward that is not finite, fewer
            than two samples for a baseline of samples, a greedy reward that is missing or not used.

    Source: R. J. Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning",
    1992, section 4.

    Example:
        >>> log_prob = torch.tensor([[-1.0, -2.0]], requires_grad=True)
        >>> loss = lossfit.ReinforceLoss(baseline="leave_one_out")
        >>> loss(log_prob, torch.tensor([[0.9, 0.5]])).backward()
        >>> log_prob.grad
        tensor([[-0.2000,  0.2000]])
    """

    family = "sequence"
    formula = "-mean_m (R_m - b_m) log P(y_m), y_m sampled"
    source = (
        "R. J. Williams, Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning, "
        "1992, section 4"
    )

    def __init__(self, baseline: Baseline = "leave_one_out", *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        check_choice("baseline", baseline, ("none", "mean", "leave_one_out", "self_critical"))
        self.baseline: Baseline = baseline

    def forward(
        self,
        log_prob: Tensor,
        reward: Tensor,
        greedy_reward: Tensor | None = None,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            log_prob: the log-probability of each sampled sequence (B, M), with its gradient.
            reward: the reward of each (B, M).
            greedy_reward: for baseline="self_critical", the reward of the greedy sequence of each row (B,).
            sample_weight: a weight for each row (B,).
            denominator: what reduction="mean" divides the sum by, in place of the sum of weights.
        """
        log_prob = _log_probabilities(log_prob)
        weighing = weigh(
            log_prob.shape[:1], log_prob.dtype, self.reduction, sample_weight=sample_weight, denominator=denominator
        )
        log_prob = weighing.blank(log_prob)
        check_constant(reward=reward, greedy_reward=greedy_reward)
        reward = _numbers("reward", reward, log_prob.shape).to(log_prob.dtype)
        advantage = reward - self._baseline(reward, greedy_reward)
        rows = -(advantage * log_prob).mean(1)
        return weighing.reduce(rows)

    def _baseline(self, reward: Tensor, greedy_reward: Tensor | None) -> float | Tensor:
        samples = reward.shape[1]
        if (greedy_reward is not None) != (self.baseline == "self_critical"):
            came = "None" if greedy_reward is None else "one"
            raise ValueError(
                f"Expected `greedy_reward` with baseline='self_critical' and only then, but got {came} with "
                f"baseline={self.baseline!r}."
            )
        if greedy_reward is not None:
            return _numbers("greedy_reward", greedy_reward, reward.shape[:1]).to(reward.dtype).unsqueeze(1)
        if self.baseline == "none":
            return 0.0
        if samples < 2:
            raise ValueError(
                f"Expected `log_prob` of at least 2 samples a row with baseline={self.baseline!r}, but got {samples}."
            )
        mean = reward.mean(1, keepdim=True)
        if self.baseline == "mean":
            return mean
        return mean + (mean - reward) / (samples - 1)


class MinimumRiskLoss(Loss):
    r"""Minimum risk: the expected cost over listed sequences, whose probabilities are made to sum to 1.

    .. math:: \sum_m q_m c_m, \quad q_m = \frac{P(y_m)^\alpha}{\sum_n P(y_n)^\alpha}

    ``loss(log_prob, cost)`` takes log-probabilities and costs (B, M) of distinct sequences, found by beam search or
    sampled with the repeated ones taken out; where rows have fewer, a ``mask`` (B, M), or their numbers (B,). If the
    list holds every sequence and alpha is 1, the loss is the expected cost itself.

    Args:
        alpha: the sharpness, above 0. Long sequences need a small one, else a single one has all the weight; the paper
            takes 0.005 for sentences.
        reduction: "mean", "sum" or "none". Rows are the sources (B,).

    Range: from the smallest to the largest cost of the row.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came: a cost that is not finite, a mask
            that leaves nothing in a row.

    Source: S. Shen et al., "Minimum Risk Training for Neural Machine Translation", 2016, section 3.

    Example:
        >>> loss = lossfit.MinimumRiskLoss(alpha=1.0)
        >>> loss(torch.tensor([[0.5, 0.25]]).log(), torch.tensor([[0.0, 1.0]]))
        tensor(0.3333)
    """

    family = "sequence"
    formula = "sum_m q_m c_m, q_m = P(y_m)^alpha / sum_n P(y_n)^alpha"
    source = "S. Shen et al., Minimum Risk Training for Neural Machine Translation, 2016, section 3"
    hypers = {
        "alpha": Hyper("sharpness of the distribution over the list", 0.0, search=(5e-3, 0.05, 0.2, 1.0), open_low=True)
    }

    def __init__(self, alpha: HyperValue = 1.0, *, reduction: Reduction = "mean") -> None:
        super().__init__({"alpha": alpha}, reduction=reduction)

    def forward(
        self,
        log_prob: Tensor,
        cost: Tensor,
        mask: Tensor | None = None,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            log_prob: the log-probability of each sequence (B, M), with its gradient.
            cost: the cost of each (B, M), such as 1 minus a metric.
            mask: boolean (B, M), or how many of each row count (B,). What stands outside may hold anything.
            sample_weight: a weight for each row (B,).
            denominator: what reduction="mean" divides the sum by, in place of the sum of weights.
        """
        log_prob = _log_probabilities(log_prob)
        weighing = weigh(
            log_prob.shape[:1], log_prob.dtype, self.reduction, sample_weight=sample_weight, denominator=denominator
        )
        log_prob = weighing.blank(log_prob)
        valid = masks.positions(mask, *log_prob.shape)
        cost = _numbers("cost", cost, log_prob.shape, valid).to(log_prob.dtype)
        alpha = self._hyper("alpha", log_prob.shape[:1], log_prob.dtype)
        sharp = log_prob * (alpha.unsqueeze(1) if isinstance(alpha, Tensor) and alpha.ndim else alpha)
        lowest = torch.finfo(log_prob.dtype).min
        sharp = sharp.clamp(min=lowest / 2)
        if valid is not None:
            left = valid.sum(1)
            masks.refuse(left == 0, left, "Expected `mask` to leave at least one sequence in every row")
            sharp = sharp.masked_fill(~valid, lowest)
            cost = cost.masked_fill(~valid, 0.0)
        rows = (sharp.softmax(1) * cost).sum(1)
        return weighing.reduce(rows)


def _log_probabilities(log_prob: Tensor) -> Tensor:
    check_tensor("log_prob", log_prob)
    if not log_prob.is_floating_point():
        raise TypeError(f"Expected `log_prob` to hold floating-point numbers, but got {log_prob.dtype}.")
    if log_prob.ndim != 2 or log_prob.shape[1] == 0:
        raise ValueError(
            f"Expected `log_prob` of shape (B, M), with at least one sequence a row, but got {tuple(log_prob.shape)}."
        )
    return log_prob.to(accumulation_dtype(log_prob))


def _numbers(name: str, value: Tensor, shape: torch.Size, valid: Tensor | None = None) -> Tensor:
    """Finite numbers."""
    check_tensor(name, value)
    if value.shape != shape:
        raise ValueError(f"Expected `{name}` of shape {tuple(shape)}, but got {tuple(value.shape)}.")
    wrong = ~value.isfinite()
    masks.refuse(wrong if valid is None else wrong & valid, value, f"Expected `{name}` to be finite")
    return value
