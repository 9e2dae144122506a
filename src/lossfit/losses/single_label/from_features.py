"""A single-label loss together with the last layer that makes its scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, overload

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lossfit.core.autograd import readable
from lossfit.core.batch import Targets
from lossfit.core.checks import check_choice, check_number
from lossfit.core.class_weights import log_prior
from lossfit.core.hyper import Number
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.reduce import Weighing, as_row
from lossfit.core.row_stats import Wanted
from lossfit.gaps.gap import gap_rows
from lossfit.gaps.types import Fields, Gap
from lossfit.linear import chunked
from lossfit.linear.features import BACKENDS, Backend, Rows, read
from lossfit.linear.job import GapProgram, Job
from lossfit.losses.single_label.settings import Settings

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


class FromFeatures:
    """The part of a single-label loss that works on features and weights in the place of scores.

    The methods that have only a type here are those of the loss.
    """

    ignore_index: int
    weight: Tensor | None
    class_prior: Tensor | None

    _no_other_grads: ClassVar[bool] = False
    """Whether a gradient goes to nothing but the scores and the hyper-parameters."""

    _settings: Callable[[torch.Size, torch.dtype, int], Settings]
    _check_classes: Callable[[int], None]
    _weighing: Callable[[Targets, torch.dtype, Settings, Tensor | None, float | Tensor | None], Weighing]
    _class_weight: Callable[[Targets, torch.dtype], Tensor | None]
    _without_weightless: Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
    _agreed: Callable[..., dict[str, Any]]
    _adjusted: Callable[[Tensor, Targets, Settings], tuple[Tensor, Tensor | None]]
    _each: Callable[[Tensor, Targets, Settings], Tensor]
    _fields: Callable[[Targets, Settings], Fields | None]
    _of_gap: Callable[[Gap, Targets, Settings], Tensor]

    @overload
    def linear(  # type: ignore[overload-overlap]
        self,
        x: Tensor,
        weight: Tensor,
        target: Tensor,
        bias: Tensor | None = None,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
        backend: Backend = "auto",
        shift: int = 0,
        softcap: float | None = None,
        z_loss: float = 0.0,
        extras: tuple[()] = (),
        memory: int | None = None,
    ) -> Tensor: ...

    @overload
    def linear(
        self,
        x: Tensor,
        weight: Tensor,
        target: Tensor,
        bias: Tensor | None = None,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
        backend: Backend = "auto",
        shift: int = 0,
        softcap: float | None = None,
        z_loss: float = 0.0,
        extras: Sequence[Extra],
        memory: int | None = None,
    ) -> Result: ...

    def linear(
        self,
        x: Tensor,
        weight: Tensor,
        target: Tensor,
        bias: Tensor | None = None,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
        backend: Backend = "auto",
        shift: int = 0,
        softcap: float | None = None,
        z_loss: float = 0.0,
        extras: Sequence[Extra] = (),
        memory: int | None = None,
    ) -> Tensor | Result:
        r"""The loss of the scores :math:`x W^\top + b`, which are never there as a whole.

        Rows are worked on in chunks. Where the losses are summed up, the gradients are made on the way (three matrix
        products in all); for reduction="none" the backward pass makes the scores again (four), so that any later
        weighting is right. The gradient of the weight is summed up in float32, unless ``memory`` has no room for that
        sum. A second backward pass works; a second derivative makes the whole matrix of scores. Rows with
        ``ignore_index`` are left out of the products, but for "triton": there the host never waits, and they are
        multiplied as zeros. Under ``torch.compile`` the chunks are a graph break, but for "triton" where the loss is a
        function of the gap: then they are operators, with four products. In half precision the product rounds the
        scores, so the best rivals of a hard gap may tie where they are apart without rounding; rivals that tie share
        the gradient.

        Args:
            x: features (..., D).
            weight: of the classes (C, D). A DTensor sharded over the classes works across its ranks, which must all
                have the same rows.
            target: class indices (...), or probabilities (..., C).
            bias: of the classes (C,).
            sample_weight: a weight for each row (...), or for each sample, (N,).
            denominator: what reduction="mean" divides the sum by, in place of the sum of weights.
            backend: "chunked"; "triton", whose kernels take each chunk from its scores to their gradient; "dense" (the
                scores are made); or "auto": triton for CUDA tensors where Triton is installed, else dense where the
                scores fit one chunk, else chunked.
            shift: the target of a position is that of so many positions later; 1 for causal language models, with x
                (..., T, D) and target (..., T). Results have the T - shift positions that have a target.
            softcap: c; the scores become :math:`c \tanh(z / c)`.
            z_loss: a; each row's loss gets :math:`a\, \mathrm{logsumexp}(z)^2` before it is weighted.
            extras: of "log_prob", "hit", "entropy" and "lse" those to return too, from the same pass.
            memory: bytes for the scores of a chunk and, in half precision, the float32 sum of the weight's gradient.
                Where that sum takes more than half of them, bfloat16 is rounded once a chunk instead. By default 64 MiB
                of scores (8 MiB in half precision, beside the sum); on a GPU 896 MiB in all.

        Returns:
            The loss; with ``extras`` a :class:`Result` of loss and extras.

        Raises:
            TypeError, ValueError, IndexError: naming the argument, what was expected and what came.

        Example:
            >>> loss = lossfit.GammaCrossEntropyLoss(gamma=0.1)
            >>> x, weight = torch.ones(2, 3), torch.eye(3)
            >>> loss.linear(x, weight, torch.tensor([0, 1])), loss(x @ weight.T, torch.tensor([0, 1]))
            (tensor(1.0181), tensor(1.0181))
        """
        x, target = self._without_weightless(x, target, sample_weight)
        options = Options(backend, softcap, z_loss, extras, memory)
        agreed = partial(self._agreed, sample_weight, denominator, options=options)
        rows = read(x, weight, target, bias, self.ignore_index, shift=shift, backend=backend, agreed=agreed)
        if shift and isinstance(sample_weight, Tensor) and sample_weight.shape == target.shape:
            sample_weight = sample_weight[..., shift:]
        return evaluate(self, rows, options, sample_weight, denominator)


def evaluate(
    loss: FromFeatures,
    rows: Rows,
    options: Options,
    sample_weight: Tensor | None,
    denominator: float | Tensor | None,
    margin: Margined | None = None,
) -> Tensor | Result:
    """The loss of rows of features."""
    targets, x = rows.targets, rows.layer.x
    options.check(targets.probabilities)
    loss._check_classes(targets.classes)
    shape = rows.shape or torch.Size([1])
    if not rows.shape:
        sample_weight = as_row(sample_weight)
    dtype = accumulation_dtype(x)
    settings = loss._settings(shape, dtype, targets.classes)
    weighing = loss._weighing(rows.every, dtype, settings, sample_weight, denominator)
    weighing = weighing.flat(shape.numel(), rows.kept)
    numbers = settings.map(rows.cut).named()
    if margin is not None:  # under names of their own, since a loss may have a number of the same name
        numbers |= {f"margin.{n}": v for n, v in margin.numbers.items()}

    def results(z: Tensor, at: slice, numbers: dict[str, Number]) -> tuple[Tensor, ...]:
        return _results(loss, _capped(z, options.softcap), targets.cut(at), settings.renewed(numbers), options)

    def of_gap(gap: Gap, at: slice, numbers: dict[str, Number]) -> tuple[Tensor, ...]:
        part, renewed = targets.cut(at), settings.renewed(numbers)
        return _completed(loss, loss._of_gap(gap, part, renewed), gap, part, renewed, options)

    def margined(own: Tensor, at: slice, numbers: dict[str, Number]) -> Tensor:
        assert margin is not None
        named = {n: targets.broadcast(numbers[f"margin.{n}"]) for n in margin.numbers}
        return margin.function(own, targets.target[at], named)

    held = (loss.weight, loss.class_prior, targets.target)  # mostly without a gradient
    trainable = any(value is not None and value.requires_grad for value in held)
    job = Job(
        results,
        targets,
        numbers,
        whole=frozenset() if margin is None else frozenset(f"margin.{n}" for n in margin.whole),
        margin=None if margin is None else margined,
        weighing=None if weighing.reduction == "none" else weighing,
        graded=(True, *(False for _ in options.extras)),
        no_other_grads=loss._no_other_grads and not trainable,
        form=None if trainable else _form(of_gap, loss, targets, settings, options, dtype),
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


def _results(
    loss: FromFeatures, logits: Tensor, targets: Targets, settings: Settings, options: Options
) -> tuple[Tensor, ...]:
    """The losses of rows, and the extras."""
    scores, origin = loss._adjusted(logits, targets, settings)
    if not options.extras and not options.z_loss:
        return (loss._each(scores, targets, settings),)
    fields, classes = loss._fields(targets, settings), targets
    if targets.probabilities:  # the log-sum-exp and the entropy are the same whatever the target is
        first = targets.target.new_zeros(targets.rows, dtype=torch.int64)
        classes = targets._replace(target=first, probabilities=False)
    if fields is not None and fields.kind == "hard":
        fields = None
    hit, entropy = "hit" in options.extras, "entropy" in options.extras
    mean = Fields("soft") if fields is None else fields
    gap = gap_rows(scores, classes, "soft", mean=mean.mean, hit=hit, entropy=entropy, mean_weight=mean.mean_weight)
    losses = loss._each(scores, targets, settings) if fields is None else loss._of_gap(gap, targets, settings)
    if origin is not None:
        gap = gap._replace(target=gap.target + origin, rivals=gap.rivals + origin)
    return _completed(loss, losses, gap, targets, settings, options)


def _form(
    of_gap: Callable[[Gap, slice, dict[str, Number]], tuple[Tensor, ...]],
    loss: FromFeatures,
    targets: Targets,
    settings: Settings,
    options: Options,
    dtype: torch.dtype,
) -> GapProgram | None:
    """How the results are made of the gap alone; None where more of the scores is needed."""
    fields, temperature = loss._fields(targets, settings), settings.temperature
    if fields is None or (isinstance(temperature, Tensor) and temperature.requires_grad):
        return None
    hit, entropy = "hit" in options.extras, "entropy" in options.extras
    hard = fields.kind == "hard"
    if hard and (options.extras or options.z_loss or targets.shard is not None):
        return None
    if hit and targets.shard is not None:
        return None
    shift = None if loss.class_prior is None else log_prior(loss.class_prior).to(dtype)
    wanted = Wanted(hard, fields.mean, hit, entropy)
    return GapProgram(of_gap, wanted, fields.mean_weight, options.softcap or 0.0, shift)


def _completed(
    loss: FromFeatures, losses: Tensor, gap: Gap, targets: Targets, settings: Settings, options: Options
) -> tuple[Tensor, ...]:
    """The losses of rows, and what a soft gap tells besides."""
    if not options.extras and not options.z_loss:
        return (losses,)
    lse = torch.logaddexp(gap.target, gap.rivals)
    if options.z_loss:
        penalty = options.z_loss * lse.square()
        # Where labels are smoothed, the losses have the class weights in them already.
        weight = loss._class_weight(targets, lse.dtype) if settings.is_smooth else None
        losses = losses + (penalty if weight is None else weight * penalty)
    extras = (_extra(name, gap, lse) for name in options.extras)
    if targets.valid is not None:
        counts = targets.valid
        extras = (v.masked_fill(~counts, 0) for v in extras)
    return losses, *extras


def _extra(name: Extra, gap: Gap, lse: Tensor) -> Tensor:
    every = {"log_prob": logsigmoid(gap.log_odds), "hit": gap.hit, "entropy": gap.entropy, "lse": lse}
    value = every[name]
    assert value is not None
    return value.detach()
