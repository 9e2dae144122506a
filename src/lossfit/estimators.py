r"""Sampled estimates of expected accuracy, to compare with the exact forms.

Each function takes scores (N, C), (N, C, d1, ...) or (C,) and class indices, and returns for every row an estimate of
the chance to miss, from ``samples`` draws: of :math:`1 - p` with p the softmax, which is what
:class:`lossfit.ExpectedAccuracyLoss` computes, or of EXACT's :math:`1 - P`. Its backward pass gives an estimate of the
gradient.

=====================  =========================  ==================
estimator              value                      gradient
=====================  =========================  ==================
score_function         unbiased, p (1 - p) / M    unbiased
monte_carlo            unbiased, p (1 - p) / M    unbiased
straight_through       unbiased, p (1 - p) / M    biased
gumbel_softmax         biased, less variance      that of its value
=====================  =========================  ==================

The variance of M draws is :math:`p (1 - p) / M`; the exact forms have none and cost one pass over the classes. All but
``score_function`` hold M times the scores in memory. Ignored rows are 0 and get no gradient. Half-precision scores are
computed in float32.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lossfit.core import class_shards
from lossfit.core.batch import read_batch
from lossfit.core.checks import check_choice
from lossfit.core.hyper import Hyper
from lossfit.core.numerics import accumulation_dtype

Baseline = Literal["none", "leave_one_out"]
Noise = Literal["gumbel", "gaussian"]
_TEMPERATURE = Hyper("what noisy scores are divided by", 0.0, open_low=True)
_SIGMA = Hyper("scale of the noise", 0.0, open_low=True)
# Stands for -inf, whose differences are not defined.
_OUT_OF_SIGHT = -1e30


class _Rows(NamedTuple):
    """Scores (rows, C) in float32 or better, targets (rows,), and what leads back to the caller's shape."""

    scores: Tensor
    target: Tensor
    valid: Tensor | None
    shape: tuple[int, ...]

    def finish(self, estimate: Tensor) -> Tensor:
        if self.valid is not None:
            estimate = estimate.masked_fill(~self.valid, 0.0)
        return estimate.view(self.shape)


def _read(input: Tensor, target: Tensor, samples: int, ignore_index: int, baseline: str = "none") -> _Rows:
    class_shards.refuse(input=input, target=target)
    scores, targets, _ = read_batch(input, target, ignore_index, probabilities=False)
    if isinstance(samples, bool) or not isinstance(samples, int):
        raise TypeError(f"Expected `samples` to be a whole number, but got {type(samples).__name__}.")
    check_choice("baseline", baseline, ("none", "leave_one_out"))
    least = 1 if baseline == "none" else 2
    if samples < least:
        raise ValueError(f"Expected `samples` of at least {least} with baseline={baseline!r}, but got {samples}.")
    scores = scores.movedim(1, -1).flatten(0, -2)
    valid = None if targets.valid is None else targets.valid.flatten()
    if valid is not None:
        scores = scores.masked_fill(~valid.unsqueeze(1), 0.0)
    return _Rows(scores.to(accumulation_dtype(scores)), targets.target.flatten(), valid, tuple(target.shape))


def _by_score(missed: Tensor, log_density: Tensor, baseline: str) -> Tensor:
    """The mean of draws (M, rows), with the gradient E[missed * grad log density]."""
    pull = missed
    if baseline == "leave_one_out":
        pull = missed - (missed.sum(0) - missed) / (len(missed) - 1)
    surrogate = (pull * log_density).mean(0)
    return missed.mean(0) + (surrogate - surrogate.detach())


def _exponential(scores: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:
    """Draws (M, rows, C); minus their logarithm is Gumbel noise, finite."""
    draws = scores.new_empty(samples, *scores.shape).exponential_(generator=generator)
    return draws.clamp_(min=torch.finfo(draws.dtype).tiny)


def score_function(
    input: Tensor,
    target: Tensor,
    samples: int = 1,
    *,
    baseline: Baseline = "none",
    ignore_index: int = -100,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Draw classes :math:`c_m` from the softmax: :math:`\frac1M \sum_m [c_m \neq y]`.

    The gradient is :math:`\frac1M \sum_m ([c_m \neq y] - b_m) \nabla \log p(c_m)` (REINFORCE). It is unbiased, since b
    does not depend on the draw that it is taken from.

    Args:
        input: scores (N, C), (N, C, d1, ...) or (C,).
        target: class indices (N,), (N, d1, ...) or ().
        samples: M, at least 1.
        baseline: "none" for b = 0, or "leave_one_out" for the mean of the other draws, of which there must be one.
        ignore_index: the target of rows that are left out.
        generator: what to draw with, on the device of the scores.

    Returns:
        Estimates of 1 - p, of the shape of ``target``.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what was expected and what came.

    Source: R. J. Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning",
    1992, section 4.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> z = torch.tensor([[2.0, 0.0, 0.0]])  # 1 - p is 0.2130
        >>> score_function(z, torch.tensor([0]), 10_000, generator=generator).round(decimals=2)
        tensor([0.2100])
    """
    rows = _read(input, target, samples, ignore_index, baseline)
    log_p = rows.scores.log_softmax(1)
    p = log_p.detach().exp()
    drawn = torch.multinomial(p, samples, replacement=True, generator=generator)
    missed = (drawn != rows.target.unsqueeze(1)).to(log_p.dtype)
    return rows.finish(_by_score(missed.T, log_p.gather(1, drawn).T, baseline))


def monte_carlo(
    input: Tensor,
    target: Tensor,
    samples: int = 1,
    *,
    noise: Noise = "gumbel",
    sigma: float | Tensor = 1.0,
    baseline: Baseline = "none",
    ignore_index: int = -100,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Add noise to the scores and see who wins: :math:`\frac1M \sum_m [\arg\max_k (z_k / \sigma + e_{mk}) \neq y]`.

    With Gumbel noise its mean is 1 - p, p the softmax of :math:`z / \sigma`; with Gaussian noise it is EXACT's 1 - P.
    The gradient is that of the noisy scores' log density, weighed by :math:`[\ldots] - b_m`; it reaches sigma too.

    Args:
        input: scores (N, C), (N, C, d1, ...) or (C,).
        target: class indices (N,), (N, d1, ...) or ().
        samples: M, at least 1.
        noise: "gumbel" or "gaussian".
        sigma: the scale of the noise, above 0: a number, or a tensor with one entry.
        baseline, ignore_index, generator: see :func:`score_function`.

    Returns:
        Estimates of 1 - p or 1 - P, of the shape of ``target``.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what was expected and what came.

    Source: I. Karpukhin, S. Dereka and S. Kolesnikov, "EXACT: How to Train Your Accuracy", 2022, section 3.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> z = torch.tensor([[2.0, 0.0, 0.0]])  # EXACT is 0.1342
        >>> monte_carlo(z, torch.tensor([0]), 10_000, noise="gaussian", generator=generator).round(decimals=2)
        tensor([0.1300])
    """
    rows = _read(input, target, samples, ignore_index, baseline)
    check_choice("noise", noise, ("gumbel", "gaussian"))
    _SIGMA.check("sigma", sigma)
    if isinstance(sigma, Tensor) and sigma.numel() != 1:
        raise ValueError(f"Expected `sigma` to have one entry, but got shape {tuple(sigma.shape)}.")
    place = rows.scores.clamp(min=_OUT_OF_SIGHT) / sigma
    if noise == "gumbel":
        e = -_exponential(place.detach(), samples, generator).log()
    else:
        e = torch.empty((samples, *place.shape), dtype=place.dtype, device=place.device).normal_(generator=generator)
    noisy = place.detach() + e
    missed = (noisy.argmax(2) != rows.target).to(e.dtype)
    # The density is that of the noisy scores, which stay where they are while their place moves.
    e = e + (place.detach() - place)
    log_density = -e - torch.exp(-e) if noise == "gumbel" else -0.5 * e.square()
    return rows.finish(_by_score(missed, log_density.sum(2), baseline))


def gumbel_softmax(
    input: Tensor,
    target: Tensor,
    samples: int = 1,
    *,
    temperature: float = 1.0,
    ignore_index: int = -100,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Soften the draws: :math:`1 - \frac1M \sum_m \mathrm{softmax}((z + g_m) / \tau)_y`, g Gumbel noise.

    It may be differentiated, which draws may not. The bias vanishes as :math:`\tau \to 0`, where the variance of the
    gradient grows without bound.

    Args:
        input: scores (N, C), (N, C, d1, ...) or (C,).
        target: class indices (N,), (N, d1, ...) or ().
        samples: M, at least 1.
        temperature: tau, above 0.
        ignore_index, generator: see :func:`score_function`.

    Returns:
        Estimates of 1 - p, of the shape of ``target``.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what was expected and what came.

    Source: E. Jang, S. Gu and B. Poole, "Categorical Reparameterization with Gumbel-Softmax", 2017, section 2.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> z = torch.tensor([[2.0, 0.0, 0.0]])  # 1 - p is 0.2130
        >>> gumbel_softmax(z, torch.tensor([0]), 10_000, generator=generator).round(decimals=2)
        tensor([0.3400])
    """
    rows = _read(input, target, samples, ignore_index)
    return rows.finish(1 - _soft_draws(rows, samples, temperature, generator)[0].mean(0))


def straight_through(
    input: Tensor,
    target: Tensor,
    samples: int = 1,
    *,
    temperature: float = 1.0,
    ignore_index: int = -100,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""The value of the draws with the gradient of :func:`gumbel_softmax`, as if the two were one.

    The value is without bias, the gradient is not.

    Args:
        input: scores (N, C), (N, C, d1, ...) or (C,).
        target: class indices (N,), (N, d1, ...) or ().
        samples: M, at least 1.
        temperature: tau, above 0.
        ignore_index, generator: see :func:`score_function`.

    Returns:
        Estimates of 1 - p, of the shape of ``target``.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what was expected and what came.

    Source: E. Jang, S. Gu and B. Poole, "Categorical Reparameterization with Gumbel-Softmax", 2017, section 2.2.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> z = torch.tensor([[2.0, 0.0, 0.0]])  # 1 - p is 0.2130
        >>> straight_through(z, torch.tensor([0]), 10_000, generator=generator).round(decimals=2)
        tensor([0.2200])
    """
    rows = _read(input, target, samples, ignore_index)
    soft, won = _soft_draws(rows, samples, temperature, generator)
    return rows.finish((1 - won.to(soft.dtype) - (soft - soft.detach())).mean(0))


def _soft_draws(
    rows: _Rows, samples: int, temperature: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """The target's share of each softened draw, and whether it won the draw: (M, rows) each."""
    _TEMPERATURE.check("temperature", temperature)
    noisy = rows.scores - _exponential(rows.scores.detach(), samples, generator).log()
    at = rows.target.expand(samples, -1).unsqueeze(2)
    share = (noisy / temperature).softmax(2).gather(2, at).squeeze(2)
    return share, noisy.argmax(2) == rows.target
