"""Prediction sets that hold the label with a probability that is promised."""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from torch import Tensor, nn

from lossfit.calibration import rows
from lossfit.core.checks import check_choice, check_tensor
from lossfit.gaps import gap

Score = Literal["lac", "aps"]
SCORES = ("lac", "aps")


def conformal_threshold(logits: Tensor, labels: Tensor, alpha: float, score: Score = "lac") -> Tensor:
    r"""The score up to which classes belong to a prediction set that misses the label with probability alpha at most.

    The score of a class is high where the class is unlikely. The threshold is the
    :math:`\lceil (n + 1)(1 - \alpha) \rceil`-th smallest score of the n labels. For a new row, drawn like these, the
    label's score is not above it with probability in :math:`[1 - \alpha, 1 - \alpha + \frac{1}{n + 1}]` (the upper end
    if scores do not tie); the probability is over these rows and the new one.

    Args:
        logits: (N, C) or (N, C, d1, ...), of rows which did not train the model; -inf for classes that are masked out.
        labels: class indices (N,) or (N, d1, ...); rows of label -100 are left out.
        alpha: the share of new rows whose label may be missed, in (0, 1).
        score: "lac", :math:`1 - p_c`: the smallest sets on average. "aps": the probabilities of all classes down to c,
            c included, without a random draw: sets that are larger on hard rows.

    Returns:
        The threshold, in float64; infinite where :math:`(n + 1) \alpha < 1`: so few rows promise nothing, and the sets
        hold every class.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what was expected and what came.

    Source: A. Angelopoulos and S. Bates, "A Gentle Introduction to Conformal Prediction", 2021, sections 1 and 2.1;
    "lac": M. Sadinle et al., "Least Ambiguous Set-Valued Classifiers", 2019; "aps": Y. Romano et al.,
    "Classification with Valid and Adaptive Coverage", 2020.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
        >>> lossfit.calibration.conformal_threshold(logits, torch.tensor([0, 1, 1]), alpha=0.5)
        tensor(0.1192, dtype=torch.float64)
    """
    _check_alpha(alpha)
    check_choice("score", score, SCORES)
    z, y = rows.read("logits", logits, labels, masked=True)
    n = len(z)
    # (n + 1) alpha may be a whole number that rounding left just below itself.
    rank = n + 1 - math.floor((n + 1) * alpha + 1e-9)
    if rank > n:
        return z.new_tensor(math.inf)
    own_scores = scores(z, score).gather(1, y.unsqueeze(1)).squeeze(1)
    return own_scores.kthvalue(rank).values


class ConformalClassifier(nn.Module):
    """Prediction sets, with the threshold of :func:`conformal_threshold`.

    A set may be empty, where no class is as likely as labels usually are. Before ``fit`` it holds every class.

    Args:
        alpha: the share of new rows whose label may be missed, in (0, 1).
        score: "lac" or "aps", as for :func:`conformal_threshold`.

    Raises:
        ValueError: ``alpha`` or ``score`` is something else.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
        >>> conformal = lossfit.calibration.ConformalClassifier(alpha=0.5).fit(logits, torch.tensor([0, 1, 1]))
        >>> conformal(torch.tensor([[5.0, 0.0], [0.5, 0.0]]))
        tensor([[ True, False],
                [False, False]])
    """

    threshold: Tensor

    def __init__(self, alpha: float, score: Score = "lac") -> None:
        super().__init__()
        _check_alpha(alpha)
        check_choice("score", score, SCORES)
        self.alpha = alpha
        self.score: Score = score
        self.register_buffer("threshold", torch.tensor(math.inf, dtype=torch.float64))

    def extra_repr(self) -> str:
        return f"alpha={self.alpha:g}, score={self.score!r}, threshold={self.threshold.item():g}"

    def fit(self, logits: Tensor, labels: Tensor) -> Self:
        """Find the threshold on rows which did not train the model; arguments and errors as there."""
        self.threshold.copy_(conformal_threshold(logits, labels, self.alpha, self.score))
        return self

    def forward(self, logits: Tensor) -> Tensor:
        """Whether each class belongs to the set of its row, as booleans of the shape of ``logits``, (N, C, ...)."""
        check_tensor("logits", logits)
        if not logits.is_floating_point():
            raise TypeError(f"Expected `logits` to be floating point, but got {logits.dtype}.")
        if logits.ndim < 2:
            raise ValueError(f"Expected `logits` of shape (N, C) or (N, C, d1, ...), but got {tuple(logits.shape)}.")
        z = logits.detach().double().movedim(1, -1)
        in_set = scores(z.reshape(-1, z.shape[-1]), self.score) <= self.threshold.double()
        return in_set.view(z.shape).movedim(-1, 1)


def scores(z: Tensor, score: Score) -> Tensor:
    """The score of every class, (N, C)."""
    if score == "lac":
        return torch.sigmoid(-gap.all_log_odds(z, "soft"))
    p, order = z.softmax(1).sort(dim=1, descending=True, stable=True)
    return torch.empty_like(p).scatter(1, order, p.cumsum(1))


def _check_alpha(alpha: float) -> None:
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 1:
        raise ValueError(f"Expected `alpha` to be a number in (0, 1), but got {alpha!r}.")
