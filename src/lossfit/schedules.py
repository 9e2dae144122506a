"""Schedules: hyper-parameters that change with the step.

Every hyper-parameter of every loss takes a function of the step; ``loss.step()`` advances it. Those here are objects
that compare, print and pickle. Any function of an integer does as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lossfit.core import scores
from lossfit.core.autograd import transformed
from lossfit.core.batch import read_batch
from lossfit.gaps import gap
from lossfit.losses.single_label.base import SingleLabelLoss


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"Expected `{name}` to be a number, but got {type(value).__name__}.")
    if not math.isfinite(value):
        raise ValueError(f"Expected `{name}` to be finite, but got {value}.")
    return value


def _positive(name: str, value: object) -> None:
    if _number(name, value) <= 0:
        raise ValueError(f"Expected `{name}` above 0, but got {value}.")


def _count(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"Expected `{name}` to be a whole number of steps, but got {type(value).__name__}.")
    if value < least:
        raise ValueError(f"Expected `{name}` of at least {least}, but got {value}.")


def _between(start: float, end: float, share: float) -> float:
    """At either end the other value has no part, not even by rounding."""
    return (1 - share) * start + share * end


@dataclass(frozen=True)
class Linear:
    r"""From ``start`` to ``end`` in a straight line.

    It is ``start`` for ``warmup`` steps, :math:`start + (end - start) t / steps` at step ``warmup + t``, and ``end``
    from step ``warmup + steps`` on.

    Args:
        start, end: the values.
        steps: how many steps the change takes, at least 1.
        warmup: how many steps come before it.

    Raises:
        TypeError, ValueError: an argument is no number, not finite, or out of its range.

    Example:
        >>> loss = lossfit.GammaCrossEntropyLoss(gamma=lossfit.schedules.Linear(0.0, 1.0, steps=100, warmup=50))
        >>> loss.step(to=75)
        >>> loss.gamma
        0.25
    """

    start: float
    end: float
    steps: int
    warmup: int = 0

    def __post_init__(self) -> None:
        _number("start", self.start)
        _number("end", self.end)
        _count("steps", self.steps, 1)
        _count("warmup", self.warmup, 0)

    def __call__(self, step: int) -> float:
        return _between(self.start, self.end, self._share(step))

    def _share(self, step: int) -> float:
        """How much of the change is done."""
        return min(max((step - self.warmup) / self.steps, 0.0), 1.0)


class Cosine(Linear):
    r"""From ``start`` to ``end`` along half a cosine: slow, fast, slow.

    As :class:`Linear`, with the share :math:`(1 - \cos(\pi t / steps)) / 2` in the place of :math:`t / steps`.

    Args:
        start, end: the values.
        steps: how many steps the change takes, at least 1.
        warmup: how many steps come before it.

    Raises:
        TypeError, ValueError: an argument is no number, not finite, or out of its range.

    Source: I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, section 3.

    Example:
        >>> sigma = lossfit.schedules.Cosine(4.0, 1.0, steps=100)
        >>> [round(sigma(step), 2) for step in (0, 25, 50, 100, 200)]
        [4.0, 3.56, 2.5, 1.0, 1.0]
    """

    def _share(self, step: int) -> float:
        return (1 - math.cos(math.pi * super()._share(step))) / 2


class Exponential(Linear):
    r"""From ``start`` to ``end`` by the same factor at every step, :math:`start\,(end / start)^{t / steps}`.

    Args:
        start, end: the values, above 0.
        steps: how many steps the change takes, at least 1.
        warmup: how many steps come before it.

    Raises:
        TypeError, ValueError: an argument is no number, not finite, or out of its range.

    Example:
        >>> temperature = lossfit.schedules.Exponential(10.0, 0.1, steps=100)
        >>> [round(temperature(step), 3) for step in (0, 50, 100)]
        [10.0, 1.0, 0.1]
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive("start", self.start)
        _positive("end", self.end)

    def __call__(self, step: int) -> float:
        share = self._share(step)
        # Powers of each, since their quotient may overflow.
        return float(self.start ** (1 - share) * self.end**share)


@dataclass(frozen=True)
class Piecewise:
    """Constant between steps at which it changes: ``values[i]`` from step ``changes[i - 1]`` on.

    ``Piecewise([0.0, 1.0], [1000])`` is 0 for 1,000 steps and then 1.

    Args:
        values: one more than changes.
        changes: the steps at which the next value begins, above 0 and rising.

    Raises:
        TypeError, ValueError: a value is no finite number, the changes do not rise, or the lengths do not fit.

    Example:
        >>> margin = lossfit.schedules.Piecewise([0.0, 0.2, 0.4], [100, 200])
        >>> [margin(step) for step in (0, 99, 100, 250)]
        [0.0, 0.0, 0.2, 0.4]
    """

    values: Sequence[float]
    changes: Sequence[int]

    def __post_init__(self) -> None:
        for name in ("values", "changes"):
            given = getattr(self, name)
            if not isinstance(given, Sequence) or isinstance(given, str):
                raise TypeError(f"Expected `{name}` to be a sequence of numbers, but got {type(given).__name__}.")
            object.__setattr__(self, name, tuple(given))
        for value in self.values:
            _number("values", value)
        for change in self.changes:
            _count("changes", change, 1)
        if any(left >= right for left, right in zip(self.changes, self.changes[1:], strict=False)):
            raise ValueError(f"Expected `changes` to rise, but got {list(self.changes)}.")
        if len(self.values) != len(self.changes) + 1:
            raise ValueError(
                f"Expected one more of `values` than of `changes`, but got {len(self.values)} and {len(self.changes)}."
            )

    def __call__(self, step: int) -> float:
        return self.values[sum(step >= change for change in self.changes)]


@dataclass(frozen=True)
class LambdaAnnealing:
    r"""SphereFace's annealing, :math:`\max(\lambda_{min},\ base\,(1 + gamma \cdot step)^{-power})`.

    The weight of the plain cosine in the target's score :math:`(\lambda \cos\theta + \psi(\theta)) / (1 + \lambda)`.
    The defaults are those of the authors' network for CASIA-WebFace.

    Args:
        base: the value at step 0, above 0.
        gamma: how fast it falls, at least 0.
        power: of the fall, at least 0.
        least: the smallest value, in [0, base].

    Raises:
        TypeError, ValueError: an argument is no number, not finite, or out of its range.

    Source: the code to W. Liu et al., "SphereFace: Deep Hypersphere Embedding for Face Recognition", 2017 (the layer
    MarginInnerProduct and its settings).

    Example:
        >>> share = lossfit.schedules.LambdaAnnealing()
        >>> [round(share(step), 1) for step in (0, 100, 1000, 10000)]
        [1000.0, 76.9, 8.3, 5.0]
    """

    base: float = 1000.0
    gamma: float = 0.12
    power: float = 1.0
    least: float = 5.0

    def __post_init__(self) -> None:
        _positive("base", self.base)
        for name in ("gamma", "power"):
            if _number(name, getattr(self, name)) < 0:
                raise ValueError(f"Expected `{name}` of at least 0, but got {getattr(self, name)}.")
        if not 0 <= _number("least", self.least) <= self.base:
            raise ValueError(f"Expected `least` in [0, base = {self.base}], but got {self.least}.")

    def __call__(self, step: int) -> float:
        return float(max(self.least, self.base * (1 + self.gamma * step) ** -self.power))


class FromMeanProbability(nn.Module):
    r"""A schedule driven by how sure the model is of its targets: from cross-entropy to expected accuracy.

    With the running mean :math:`\bar p` of the targets' probability the value is

    .. math:: start + (end - start)\,\mathrm{clip}\left(\frac{\bar p - low}{high - low}, 0, 1\right)

    and ``start`` before any probability was seen. As gamma of :class:`lossfit.GammaCrossEntropyLoss` it starts with
    cross-entropy, whose pull is strong while p is small, and goes over to expected accuracy when p is near 1, where the
    two agree to first order.

    Feed it by :meth:`update`, or let :meth:`watch` do so at every call of a loss. The value is read when the loss
    steps; the step itself does not matter. Equal batches give equal values. The mean is a buffer: on the device where
    the schedule is, in its state dict and, once it watches a loss, in the loss's. Each process has its own.

    Args:
        low, high: the mean probabilities between which the value changes, 0 <= low < high <= 1.
        start, end: the values there.
        momentum: what a batch's probabilities still weigh a batch later, in [0, 1). The mean is over rows, without bias
            towards a starting value.

    Raises:
        TypeError, ValueError: an argument is no number, not finite, or out of its range.

    Example:
        >>> gamma = lossfit.schedules.FromMeanProbability(low=0.5, high=0.9)
        >>> loss = gamma.watch(lossfit.GammaCrossEntropyLoss(gamma=gamma))
        >>> value = loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
        >>> loss.step()
        >>> gamma.mean, loss.gamma
        (0.7310..., 0.5776...)
    """

    seen: Tensor

    def __init__(
        self, low: float = 0.5, high: float = 0.9, *, start: float = 0.0, end: float = 1.0, momentum: float = 0.99
    ) -> None:
        super().__init__()
        arguments = {"low": low, "high": high, "start": start, "end": end, "momentum": momentum}
        for name, value in arguments.items():
            _number(name, value)
        if not 0 <= low < high <= 1:
            raise ValueError(f"Expected 0 <= `low` < `high` <= 1, but got {low} and {high}.")
        if not 0 <= momentum < 1:
            raise ValueError(f"Expected `momentum` in [0, 1), but got {momentum}.")
        self.low, self.high, self.start, self.end, self.momentum = low, high, start, end, momentum
        # Sum and number of the probabilities seen, both discounted.
        self.register_buffer("seen", torch.zeros(2))

    @property
    def mean(self) -> float:
        """The running mean of p; NaN before any was seen."""
        total, count = self.seen.tolist()
        return total / count if count else math.nan

    def forward(self, step: int) -> float:
        """The value now."""
        mean = self.mean
        if math.isnan(mean):
            return self.start
        share = min(max((mean - self.low) / (self.high - self.low), 0.0), 1.0)
        return _between(self.start, self.end, share)

    @torch.no_grad()
    def update(self, p: Tensor) -> None:
        """Take the probabilities of a batch's targets, of any shape, into the mean.

        Raises:
            TypeError, ValueError: ``p`` is no floating-point tensor, or (on a CPU) lies outside [0, 1].
        """
        if not isinstance(p, Tensor) or not p.is_floating_point():
            found = p.dtype if isinstance(p, Tensor) else type(p).__name__
            raise TypeError(f"Expected `p` to be a floating-point torch.Tensor, but got {found}.")
        if p.numel() == 0:
            return
        if p.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(((p >= 0) & (p <= 1)).all()):
            raise ValueError(f"Expected `p` in [0, 1], but got values from {p.min():g} to {p.max():g}.")
        self._add(p.float().sum(), torch.tensor(p.numel()))

    def _add(self, total: Tensor, count: Tensor) -> None:
        self.seen.mul_(self.momentum).add_(torch.stack([total.to(self.seen), count.to(self.seen)]))

    def watch(self, loss: SingleLabelLoss) -> SingleLabelLoss:
        r"""Update at every call of a single-label loss in training mode, and live in its state dict.

        p is softmax's at the loss's temperature, and takes one more pass over the scores. With probabilities q as
        targets it is :math:`\sum_c q_c p_c`. Rows that are ignored or NaN do not count; the others count alike.
        Calls inside of ``torch.func`` transformations are not watched.

        Returns:
            The loss.

        Raises:
            TypeError: it is not a single-label loss.
            ValueError: it is watched already.
        """
        if not isinstance(loss, SingleLabelLoss):
            raise TypeError(f"Expected `loss` to be a single-label loss, but got {type(loss).__name__}.")
        if hasattr(loss, "mean_probability"):
            raise ValueError("Expected `loss` to be watched by one schedule, but got one that is watched already.")
        loss.add_module("mean_probability", self)
        loss.register_forward_hook(self._observe, with_kwargs=True)
        loss.register_load_state_dict_post_hook(_refresh)
        return loss

    @torch.no_grad()
    def _observe(self, loss: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], _: Tensor) -> None:
        assert isinstance(loss, SingleLabelLoss)
        if not loss.training or transformed():
            return
        input, target = (*args, *(kwargs[name] for name in ("input", "target")[len(args) :]))
        logits, targets = read_batch(input, target, loss.ignore_index)[:2]
        z, _ = scores.adjust(logits, loss._hyper("temperature", targets.rows))
        if targets.probabilities:
            p = (z.softmax(1) * targets.target).sum(1)
        else:
            p = gap.gap_rows(z, targets, "soft").log_odds.sigmoid()
        counts = ~p.isnan() if targets.valid is None else targets.valid & ~p.isnan()
        self._add(p.masked_fill(~counts, 0.0).sum(), counts.sum())

    def extra_repr(self) -> str:
        return f"low={self.low}, high={self.high}, start={self.start}, end={self.end}, momentum={self.momentum}"


def _refresh(loss: SingleLabelLoss, _: Any) -> None:
    """A loss reads its schedules before the mean is loaded, so it reads them again."""
    if loss._schedules:
        loss.step(to=int(loss.steps))
