"""Losses of the order: positives before negatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from lossfit.core.autograd import call, is_abstract, readable, transformed
from lossfit.core.checks import check_choice, check_constant, check_tensor
from lossfit.core.hyper import Hyper, HyperValue
from lossfit.core.numerics import accumulation_dtype
from lossfit.losses.base import Loss
from lossfit.losses.ranking.pair_sums import SURROGATES, Points, over_pairs, potential

Surrogate = Literal["logistic", "squared_hinge", "square", "hinge", "sigmoid"]
Reduced = Literal["mean", "sum"]

_AVERAGE_PRECISION = "average_precision"
# Larger scores, which only float64 can hold, count as this one: their squares and sums stay finite.
_LARGEST = 1e150


class Rows(NamedTuple):
    """A checked batch (N,), in float64; ``double`` says whether it came so."""

    scores: Tensor
    positive: Tensor
    weight: Tensor
    double: bool


class RankingLoss(Loss):
    """A loss of scores (N,) and 0/1 targets (N,) that looks at the order of all rows together.

    Args:
        hypers: the values of the hyper-parameters.
        reduction: "mean" or "sum"; there is no loss of a single row.
    """

    family = "ranking"

    def __init__(self, hypers: dict[str, HyperValue], *, reduction: Reduced) -> None:
        check_choice("reduction", reduction, ("mean", "sum"))
        super().__init__(hypers, reduction=reduction)

    def forward(self, input: Tensor, target: Tensor, *, sample_weight: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            input: scores (N,) or (N, 1), the higher the more positive; or logits (N, 2) of two classes, whose
                difference is the score of class 1.
            target: 0 or 1 for each row, (N,) or (N, 1), of any type.
            sample_weight: a weight of at least 0 for each row (N,), without a gradient.
        """
        input, target = _one_score(input), _one_column(target)
        _check(input, target, sample_weight)
        scores = input.double()
        weight = torch.ones_like(scores) if sample_weight is None else sample_weight.double()
        if sample_weight is not None:
            scores = scores.masked_fill(weight == 0, 0.0)
        if not (readable(scores) and math.isfinite(scores.detach().sum().item())):  # quick, but the sum may overflow
            _require("input", scores, scores.isfinite(), "finite scores")
        rows = Rows(scores, target == 1, weight, input.dtype == torch.float64)
        return self._ranked(rows).to(accumulation_dtype(input))

    def _ranked(self, rows: Rows) -> Tensor:
        """The loss of a checked batch in float64."""
        raise NotImplementedError


class AUCLoss(RankingLoss):
    r"""A surrogate of 1 - AUC over all pairs of a positive and a negative.

    .. math:: \frac{1}{\sum_i w_i \sum_j w_j} \sum_{i: y_i = 1} \sum_{j: y_j = 0} w_i w_j\, \ell(m - (s_i - s_j))

    with :math:`\ell(v)` of the surrogate: "logistic" :math:`\log(1 + e^v)`, "squared_hinge" :math:`\max(0, v)^2`,
    "square" :math:`v^2`, "hinge" :math:`\max(0, v)`, "sigmoid" :math:`1 / (1 + e^{-v})`. The squares and hinges are
    summed exactly, the other two to 1e-9 relative (each entry of the gradient too), in O(N log N) time and O(N) memory.
    All is computed in float64, but for the pairs of small batches of float32, which are taken one by one in float32.

    Without a positive or without a negative there is no pair: the loss is 0, and so is the gradient. At the kink
    of the hinge the slope is 0.

    Args:
        surrogate: "logistic", "squared_hinge", "square", "hinge" or "sigmoid". Only the sigmoid is bounded, as AUC is;
            the others are convex.
        margin: m, the lead that a positive must have, at least 0: a number, a schedule or a tensor of one number. By
            default 1 for the square and the hinges and 0 for the other two.
        reduction: "mean" over the pairs, or "sum".

    Shapes: scores (N,), targets 0 or 1 (N,), ``sample_weight`` (N,). Range: [0, inf); [0, 1] for the sigmoid.

    Raises:
        TypeError, ValueError: naming the argument: another shape, a target other than 0 and 1, scores that are not
            finite, a negative weight.

    There is no second derivative.

    Source: W. Gao and Z.-H. Zhou, "On the Consistency of AUC Pairwise Optimization", 2015, section 2.

    Example:
        >>> loss = lossfit.AUCLoss()
        >>> loss(torch.tensor([2.0, 0.5, 1.0, -1.0]), torch.tensor([1, 1, 0, 0]))
        tensor(0.3843)
    """

    formula = "mean of l(m - (s_i - s_j)) over positives i and negatives j"
    source = "W. Gao and Z.-H. Zhou, On the Consistency of AUC Pairwise Optimization, 2015, section 2"
    hypers = {"margin": Hyper("lead that a positive must have", 0.0, search=(0.5, 1.0, 2.0))}

    def __init__(
        self,
        surrogate: Surrogate = "logistic",
        *,
        margin: HyperValue | None = None,
        reduction: Reduced = "mean",
    ) -> None:
        super().__init__({"margin": _margin(surrogate, margin)}, reduction=reduction)
        self.surrogate: Surrogate = surrogate

    def _ranked(self, rows: Rows) -> Tensor:
        return self._over_pairs(rows, 0.0, 1.0)

    def _over_pairs(self, rows: Rows, low: float, high: float) -> Tensor:
        """The loss over the pairs with negatives in a range of false-positive rates."""
        margin = self._hyper("margin", torch.Size())
        if isinstance(margin, Tensor) or margin != 0:
            rows = rows._replace(scores=torch.where(rows.positive, rows.scores, rows.scores + margin))
        return _loss(rows, self.surrogate, low, high, self.reduction == "sum")


def _margin(surrogate: str, margin: HyperValue | None) -> HyperValue:
    check_choice("surrogate", surrogate, SURROGATES)
    if margin is not None:
        return margin
    return 0.0 if surrogate in ("logistic", "sigmoid") else 1.0


class PartialAUCLoss(AUCLoss):
    r"""A surrogate of 1 - partial AUC: the positives against the highest negatives.

    The negatives, from the highest score down, take up the false-positive rates from 0 to 1 in equal shares (in
    proportion to ``sample_weight``). Each counts with the part of its share that lies in [``low``, ``high``], equal
    scores alike; the loss is the mean over the pairs with these weights, with the surrogates of :class:`AUCLoss`. Were
    the surrogate the 0-1 loss, it would be 1 - A / (``high`` - ``low``), with A the area under the ROC curve between
    the two rates. [0, 1] gives :class:`AUCLoss`.

    The choice of negatives has no derivative: the gradient is that of the loss over the negatives chosen.

    Args:
        surrogate: see :class:`AUCLoss`.
        low, high: the range of false-positive rates, 0 <= low < high <= 1: numbers or schedules.
        margin: see :class:`AUCLoss`. It moves all negatives alike and does not change their choice.
        reduction: "mean" over the pairs, or "sum" with the weights.

    Raises:
        TypeError, ValueError: as :class:`AUCLoss`; or the range is empty.

    Source: H. Narasimhan and S. Agarwal, "Support Vector Algorithms for Optimizing the Partial Area under the ROC
    Curve", 2017, section 2.

    Example:
        >>> loss = lossfit.PartialAUCLoss(high=0.5)  # of two negatives, the higher one
        >>> loss(torch.tensor([2.0, 0.5, 1.0, -1.0]), torch.tensor([1, 1, 0, 0]))
        tensor(0.6437)
    """

    formula = "mean of l(m - (s_i - s_j)) over positives i and the negatives j that are highest, low to high of them"
    source = (
        "H. Narasimhan and S. Agarwal, Support Vector Algorithms for Optimizing the Partial Area under the ROC Curve, "
        "2017, section 2"
    )
    hypers = {
        "low": Hyper("least false-positive rate", 0.0, 1.0),
        "high": Hyper("largest false-positive rate", 0.0, 1.0, search=(0.1, 0.3), open_low=True),
        **AUCLoss.hypers,
    }

    low: float
    high: float

    def __init__(
        self,
        surrogate: Surrogate = "logistic",
        *,
        low: float | Callable[[int], float] = 0.0,
        high: float | Callable[[int], float] = 0.1,
        margin: HyperValue | None = None,
        reduction: Reduced = "mean",
    ) -> None:
        for name, value in (("low", low), ("high", high)):
            if isinstance(value, Tensor):
                raise TypeError(f"Expected `{name}` to be a number or a function of the step, but got a torch.Tensor.")
        hypers = {"low": low, "high": high, "margin": _margin(surrogate, margin)}
        RankingLoss.__init__(self, hypers, reduction=reduction)
        self.surrogate = surrogate
        self._range()

    def _range(self) -> tuple[float, float]:
        if not self.low < self.high:
            raise ValueError(f"Expected `low` below `high`, but got {self.low:g} and {self.high:g}.")
        return float(self.low), float(self.high)

    def _ranked(self, rows: Rows) -> Tensor:
        return self._over_pairs(rows, *self._range())


class AveragePrecisionLoss(RankingLoss):
    r"""1 - smooth average precision.

    .. math:: 1 - \frac{1}{\sum_i w_i} \sum_{i: y_i = 1} w_i \frac{w_i + \sum_{j \neq i, y_j = 1} w_j \sigma_{ji}}
        {w_i + \sum_{j \neq i} w_j \sigma_{ji}}, \quad \sigma_{ji} = \mathrm{sigmoid}((s_j - s_i) / \tau)

    Each fraction is the precision at the rank of a positive, with "j is above i" made smooth; without weights it is
    the source's. As tau falls it tends to average precision (for scores without ties). It is computed in O(N log N)
    time and O(N) memory, to 1e-8 relative; the gradient to 1e-8 of its largest entry.

    Without a positive the loss is 0, and so is the gradient; without a negative likewise.

    Args:
        temperature: tau, above 0, in units of the scores: a number, a schedule or a tensor of one number. The source
            has 0.01 for cosines.
        reduction: "mean" over the positives, or "sum".

    Shapes: scores (N,), targets 0 or 1 (N,), ``sample_weight`` (N,). Range: [0, 1]. There is no second derivative.

    Raises:
        TypeError, ValueError: naming the argument: another shape, a target other than 0 and 1, scores that are not
            finite, a negative weight.

    Source: A. Brown, W. Xie, V. Kalogeiton and A. Zisserman, "Smooth-AP: Smoothing the Path Towards Large-Scale Image
    Retrieval", 2020, section 4.

    Example:
        >>> loss = lossfit.AveragePrecisionLoss(temperature=0.01)
        >>> loss(torch.tensor([2.0, 0.5, 1.0, -1.0]), torch.tensor([1, 1, 0, 0]))  # precisions 1/1 and 2/3
        tensor(0.1667)
    """

    formula = (
        "1 - mean over positives i of (1 + sum_{positive j} h_ji) / (1 + sum_j h_ji), h_ji = sigmoid((s_j - s_i) / tau)"
    )
    source = (
        "A. Brown, W. Xie, V. Kalogeiton and A. Zisserman, Smooth-AP: Smoothing the Path Towards Large-Scale Image "
        "Retrieval, 2020, section 4"
    )
    hypers = {"temperature": Hyper("width of the step, in units of the scores", 0.0, search=(0.1, 1.0), open_low=True)}

    def __init__(self, temperature: HyperValue = 1.0, *, reduction: Reduced = "mean") -> None:
        super().__init__({"temperature": temperature}, reduction=reduction)

    def _ranked(self, rows: Rows) -> Tensor:
        rows = rows._replace(scores=rows.scores / self._hyper("temperature", torch.Size()))
        return _loss(rows, _AVERAGE_PRECISION, 0.0, 1.0, self.reduction == "sum")


def _one_score(input: Tensor) -> Tensor:
    if isinstance(input, Tensor) and input.ndim == 2 and input.shape[1] == 2 and input.is_floating_point():
        return input[:, 1].to(accumulation_dtype(input)) - input[:, 0]
    return _one_column(input)


def _one_column(value: Tensor) -> Tensor:
    return value.squeeze(1) if isinstance(value, Tensor) and value.ndim == 2 and value.shape[1] == 1 else value


def _check(input: Tensor, target: Tensor, sample_weight: Tensor | None) -> None:
    for name, value in (("input", input), ("target", target), ("sample_weight", sample_weight)):
        if name != "sample_weight" or value is not None:
            check_tensor(name, value)
    if not input.is_floating_point():
        raise TypeError(
            f"Expected `input` to hold floating-point scores, but got {input.dtype}. Convert it with input.float()."
        )
    if input.ndim != 1:
        raise ValueError(f"Expected `input` of shape (N,), (N, 1) or (N, 2), but got {tuple(input.shape)}.")
    for name, value in (("target", target), ("sample_weight", sample_weight)):
        if value is not None and value.shape != input.shape:
            raise ValueError(f"Expected `{name}` of shape {tuple(input.shape)}, but got {tuple(value.shape)}.")
    check_constant(target=target, sample_weight=sample_weight)
    _require("target", target, (target == 0) | (target == 1), "0 or 1 for each row")
    if sample_weight is not None:
        finite = (sample_weight >= 0) & (sample_weight < math.inf)
        _require("sample_weight", sample_weight, finite, "finite weights of at least 0")


def _require(name: str, value: Tensor, fine: Tensor, expected: str) -> None:
    message = f"Expected `{name}` to hold {expected}"
    if not readable(value):
        if value.device.type != "meta" and not transformed():
            torch._assert_async(fine.all(), f"{message}.")
    elif not fine.all():
        at = int((~fine).nonzero()[0])
        wrong = int((~fine).sum())
        raise ValueError(f"{message}, but got {value[at].item()} at position {at} ({wrong} of {len(value)}).")


def _loss(rows: Rows, kind: str, low: float, high: float, summed: bool) -> Tensor:
    wanted = transformed() or (torch.is_grad_enabled() and rows.scores.requires_grad)
    loss: Tensor = call(_Ranked, *rows, kind, low, high, summed, wanted)[0]
    return loss


class _Ranked(Function):
    """Scores to the loss and its slopes by the scores, which are kept for the backward pass."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor]:
        sums: tuple[Tensor, Tensor] = (
            _opaque if torch.compiler.is_compiling() or is_abstract(arguments[0]) else _measure
        )(*arguments)
        return sums

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[0], output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        scores, slopes = ctx.saved_tensors
        if grad is None:
            return (None,) * 9
        once = not torch.is_grad_enabled() and not transformed()
        return grad * slopes if once else call(_Scaled, grad, scores, slopes), *(None,) * 8

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[tuple[Tensor, Tensor], int]:
        batches = [
            [v if dim is None else v.select(dim, i) for v, dim in zip(arguments, in_dims, strict=True)]
            for i in range(info.batch_size)
        ]
        values, slopes = zip(*(_Ranked.apply(*batch) for batch in batches), strict=True)
        return (torch.stack(values), torch.stack(slopes)), 0


class _Scaled(Function):
    """The slopes times the gradient of the loss; with the scores, so that a second derivative is refused, not wrong."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, scores: Tensor, slopes: Tensor) -> Tensor:
        return grad * slopes

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:
        raise NotImplementedError("Ranking losses have no second derivative.")


def _measure(
    scores: Tensor,
    positive: Tensor,
    weight: Tensor,
    double: bool,
    kind: str,
    low: float,
    high: float,
    summed: bool,
    wanted: bool,
) -> tuple[Tensor, Tensor]:
    """The loss and, if wanted, its slopes by the scores."""
    counts = weight > 0
    up, down = (positive & counts).nonzero().squeeze(1), (~positive & counts).nonzero().squeeze(1)
    slopes = torch.zeros_like(scores)
    scores = scores.clamp(-_LARGEST, _LARGEST)
    if not len(up) or not len(down):
        return scores.new_zeros(()), slopes
    x, y, w, v = scores[up], scores[down], weight[up], weight[down]
    if kind == _AVERAGE_PRECISION:
        total, by_x, by_y = _average_precision(x, w, y, v, wanted)
        mass = w.sum()
    else:
        if low > 0 or high < 1:
            v = _highest(y, v, low, high)
            chosen = v > 0
            down, y, v = down[chosen], y[chosen], v[chosen]
        sums = over_pairs(SURROGATES[kind], x, w, y, v, wanted=wanted, double=double)
        total, by_x, by_y = sums.value, -sums.by_x, sums.by_y
        mass = w.sum() * v.sum()
    if wanted:
        slopes[up], slopes[down] = by_x, by_y
    return (total, slopes) if summed else (total / mass, slopes / mass)


def _highest(negatives: Tensor, weight: Tensor, low: float, high: float) -> Tensor:
    """The weights of the negatives as far as they lie between two false-positive rates."""
    scores, member = torch.unique(negatives, return_inverse=True)
    mass = torch.bincount(member, weight, minlength=len(scores))
    end = mass.flip(0).cumsum(0)
    end = end / end[-1]
    start = torch.cat([end.new_zeros(1), end[:-1]])
    share = (end.clamp(max=high) - start.clamp(min=low)).clamp(min=0) / (end - start)
    return weight * share.flip(0)[member]


def _average_precision(x: Tensor, w: Tensor, y: Tensor, v: Tensor, wanted: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The sum over positives of the share of negatives among the rows above, and its slopes."""
    kernels = ("sigmoid", "bell") if wanted else ("sigmoid",)
    up, down = Points(x), Points(y)
    hits, *hit_slope = potential(kernels, up, w, up)
    misses, *miss_slope = potential(kernels, down, v, up)
    hits = hits + w / 2  # a row is level with itself
    rank = hits + misses
    total = w @ (misses / rank)
    if not wanted:
        return total, x, y
    by_hit, by_miss = w * misses / rank**2, w * hits / rank**2
    (lifted,) = potential(("bell",), up, by_hit, up)
    (passed,) = potential(("bell",), up, by_miss, down)
    return total, by_hit * hit_slope[0] - w * lifted - by_miss * miss_slope[0], v * passed


_opaque = torch.library.custom_op(
    "lossfit::ranked",
    _measure,
    mutates_args=(),
    schema="(Tensor scores, Tensor positive, Tensor weight, bool double, str kind, float low, float high, bool summed, "
    "bool wanted) -> (Tensor, Tensor)",
)


@_opaque.register_fake
def _(scores: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return scores.new_empty(()), torch.empty_like(scores)
