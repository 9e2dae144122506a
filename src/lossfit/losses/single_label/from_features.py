"""A single-label loss together with the last layer that makes its scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lossfit.core.autograd import readable
from lossfit.core.batch import Batch
from lossfit.core.checks import check_choice, check_number
from lossfit.core.class_weights import log_prior
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.reduce import as_row
from lossfit.core.row_stats import Wanted
from lossfit.gaps import gap
from lossfit.gaps.types import Gap
from lossfit.linear import chunked
from lossfit.linear.features import BACKENDS, Backend, Rows
from lossfit.linear.job import GapProgram, Job, Number

if TYPE_CHECKING:
    from lossfit.losses.single_label.base import Settings, SingleLabelLoss

Extra = Literal["log_prob", "hit", "entropy", "lse"]
EXTRAS = ("log_prob", "hit", "entropy", "lse")


class Result(NamedTuple):
    """A loss, and what else was asked for: numbers per row, without a gradient, 0 where a row is ignored.

    Attributes:
        loss: the loss.
        log_prob: the logarithm of the target's probability.
        hit: whether the target has the largest score.
        entropy: of the probabilities, in nats.
        lse: the log-sum-exp of the scores.
    """

    loss: Tensor
    log_prob: Tensor | None = None
    hit: Tensor | None = None
    entropy: Tensor | None = None
    lse: Tensor | None = None


class Options(NamedTuple):
    """How scores become losses, beside the loss."""

    backend: Backend = "auto"
    softcap: float | None = None
    z_loss: float = 0.0
    extras: Sequence[Extra] = ()
    memory: int | None = None

    def check(self, probabilities: bool) -> None:
        check_choice("backend", self.backend, BACKENDS)
        if not isinstance(self.extras, list | tuple):
            raise TypeError(f"Expected `extras` to be a tuple or list of names, but got {self.extras!r}.")
        for name in self.extras:
            check_choice("extras", name, EXTRAS)
            if probabilities and name in ("log_prob", "hit"):
                raise ValueError(f"Expected `extras` without {name!r} where targets are probabilities.")
        if self.softcap is not None and not 0 < check_number("softcap", self.softcap) < math.inf:
            raise ValueError(f"Expected `softcap` to be positive and finite, but got {self.softcap}.")
        if not 0 <= check_number("z_loss", self.z_loss) < math.inf:
            raise ValueError(f"Expected `z_loss` of at least 0 and finite, but got {self.z_loss}.")


class Margined(NamedTuple):
    """A margin: a function of the targets' own scores and of numbers, by name; ``whole`` ones are never cut."""

    function: Callable[[Tensor, Tensor, dict[str, Number]], Tensor]
    numbers: dict[str, Number]
    whole: frozenset[str] = frozenset()


def evaluate(
    loss: SingleLabelLoss,
    rows: Rows,
    options: Options,
    sample_weight: Tensor | None,
    denominator: float | Tensor | None,
    margin: Margined | None = None,
) -> Tensor | Result:
    """The loss of rows of features."""
    batch = rows.batch
    options.check(batch.probabilities)
    loss.check_classes(batch.classes if batch.shard is not None else rows.whole.classes)
    shape = rows.shape or torch.Size([1])
    if not rows.shape:
        sample_weight = as_row(sample_weight)
    settings = loss.settings(shape)
    weighing = loss.weighing(rows.whole, settings, sample_weight, denominator)
    weighing = weighing.flat(shape.numel(), rows.kept)
    numbers = {n: rows.cut(v) if isinstance(v, Tensor) and v.ndim else v for n, v in settings.items()}
    names = list(numbers)
    if margin is not None:  # under names of their own, since a loss may have a number of the same name
        numbers |= {f"margin.{n}": v for n, v in margin.numbers.items()}

    def results(z: Tensor, at: slice, numbers: dict[str, Number]) -> tuple[Tensor, ...]:
        part = batch.part(at)._replace(input=_capped(z, options.softcap))
        return _results(loss, part, {n: numbers[n] for n in names}, options)

    def of_gap(found: Gap, at: slice, numbers: dict[str, Number]) -> tuple[Tensor, ...]:
        part = batch.part(at)
        settings = {n: numbers[n] for n in names}
        return _completed(loss, loss.of_fields(found, part, settings), found, part, settings, options)

    def margined(own: Tensor, at: slice, numbers: dict[str, Number]) -> Tensor:
        assert margin is not None
        shared = {n: numbers[f"margin.{n}"] for n in margin.numbers}
        if batch.shard is not None:
            shared = {n: batch.shard.shared(v) if isinstance(v, Tensor) else v for n, v in shared.items()}
        return margin.function(own, batch.target[at], shared)

    held = (loss.weight, loss.class_prior, batch.target)  # mostly without a gradient
    learnt = any(value is not None and value.requires_grad for value in held)
    job = Job(
        results,
        batch,
        numbers,
        whole=frozenset() if margin is None else frozenset(f"margin.{n}" for n in margin.whole),
        margin=None if margin is None else margined,
        weighing=None if weighing.reduction == "none" else weighing,
        graded=(True, *(False for _ in options.extras)),
        closed=loss.closed and not learnt,
        form=None if learnt else _form(of_gap, loss, batch, numbers, options),
        plan=rows.plan(options.backend, options.memory),
    )
    value, *extras = chunked.run(job, rows.layer)
    if weighing.reduction == "none":
        value = rows.spread(weighing.reduce(value))
    if not options.extras:
        return value
    return Result(value, **dict(zip(options.extras, map(rows.spread, extras), strict=True)))


def without_weightless(
    x: Tensor, target: Tensor, sample_weight: Tensor | None, ignore_index: int, class_weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Rows that weigh nothing become ignored ones, since their loss may be infinite. Nothing is checked."""
    if not isinstance(x, Tensor) or not isinstance(target, Tensor) or not x.ndim:
        return x, target
    rows, soft = x.shape[:-1], target.is_floating_point()
    absent = []
    if isinstance(sample_weight, Tensor) and not sample_weight.requires_grad:
        if sample_weight.shape == rows:
            absent.append(sample_weight == 0)
        elif sample_weight.shape == rows[:1]:
            absent.append((sample_weight == 0).view(-1, *(1,) * (len(rows) - 1)).expand(rows))
    if class_weight is not None and not class_weight.requires_grad and target.dtype == torch.int64:
        absent.append((class_weight == 0)[target.clamp(0, len(class_weight) - 1)])
    for weightless in absent:
        if readable(weightless) and not weightless.any():
            continue
        if soft:
            x = x.masked_fill(weightless.unsqueeze(-1), 0.0)
        elif weightless.shape == target.shape:
            target = target.masked_fill(weightless, ignore_index)
    return x, target


def _capped(z: Tensor, cap: float | None) -> Tensor:
    return z if cap is None else torch.tanh(z.to(accumulation_dtype(z)) / cap) * cap


def _results(loss: SingleLabelLoss, batch: Batch, settings: Settings, options: Options) -> tuple[Tensor, ...]:
    """The losses of rows, and the extras."""
    batch = loss.adjusted(batch, settings)
    if not options.extras and not options.z_loss:
        return (loss.each(batch, settings),)
    hard = batch
    if batch.probabilities:  # the log-sum-exp and the entropy are the same whatever the target is
        first = batch.target.new_zeros(batch.rows, dtype=torch.int64)  # any class: what is asked for knows no target
        hard = batch._replace(target=first, probabilities=False)
    found = gap.gap_rows(hard, "soft", hit="hit" in options.extras, entropy="entropy" in options.extras)
    if batch.origin is not None:
        found = found._replace(target=found.target + batch.origin, rivals=found.rivals + batch.origin)
    return _completed(loss, loss.from_gap(found, batch, settings), found, batch, settings, options)


def _form(
    of_gap: Callable[[Gap, slice, dict[str, Number]], tuple[Tensor, ...]],
    loss: SingleLabelLoss,
    batch: Batch,
    numbers: dict[str, Number],
    options: Options,
) -> GapProgram | None:
    """How the results are made of the gap alone; None where more of the scores is needed."""
    fields, temperature = loss.fields(batch, numbers), numbers["temperature"]
    if fields is None or (isinstance(temperature, Tensor) and temperature.requires_grad):
        return None
    hit, entropy = "hit" in options.extras, "entropy" in options.extras
    hard = fields.kind == "hard"
    if hard and (options.extras or options.z_loss or batch.shard is not None):
        return None
    if hit and batch.shard is not None:
        return None
    prior = loss.class_prior
    shift = None if prior is None else log_prior(prior).to(accumulation_dtype(batch.input))
    wanted = Wanted(hard, fields.mean, hit, entropy)
    return GapProgram(of_gap, wanted, fields.mean_weight, options.softcap or 0.0, shift)


def _completed(
    loss: SingleLabelLoss,
    losses: Tensor,
    found: Gap,
    batch: Batch,
    settings: Settings,
    options: Options,
) -> tuple[Tensor, ...]:
    """The losses of rows, and what a soft gap tells besides."""
    if not options.extras and not options.z_loss:
        return (losses,)
    lse = torch.logaddexp(found.target, found.rivals)
    if options.z_loss:
        penalty = options.z_loss * lse.square()
        weight = loss.weight_within(batch, settings)
        losses = losses + (penalty if weight is None else weight * penalty)
    extras = (_extra(name, found, lse) for name in options.extras)
    if batch.valid is not None:
        counts = batch.valid
        extras = (v.masked_fill(~counts, 0) for v in extras)
    return losses, *extras


def _extra(name: Extra, found: Gap, lse: Tensor) -> Tensor:
    every = {"log_prob": logsigmoid(found.log_odds), "hit": found.hit, "entropy": found.entropy, "lse": lse}
    value = every[name]
    assert value is not None
    return value.detach()
