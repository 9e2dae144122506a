"""Heads: the last layer of a classifier, with a margin on the target's score while it trains."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from lossfit.core import class_shards
from lossfit.core.autograd import transformed
from lossfit.core.batch import read_batch
from lossfit.core.checks import check_choice, check_tensor
from lossfit.core.cosines import autocast, common_dtype, norm
from lossfit.core.hyper import Number
from lossfit.core.keywords import Keywords
from lossfit.heads.margins import Margin
from lossfit.linear import budget, features
from lossfit.linear.features import BACKENDS, Backend, Rows
from lossfit.losses.single_label import from_features
from lossfit.losses.single_label.base import SingleLabelLoss
from lossfit.losses.single_label.cross_entropy import CrossEntropyLoss
from lossfit.losses.single_label.from_features import Margined

_Cosine = Callable[[Tensor, dict[str, Number]], Tensor]
_Back = Callable[[Tensor, dict[str, Number]], Tensor]


class Head(Keywords, nn.Module):
    """What heads share: ``loss``, with a margin on the target's score."""

    num_classes: int
    margin: Margin | None
    __call__: Callable[..., Tensor]

    def _start(self, in_features: int, num_classes: int, margin: Margin | None) -> None:
        for name, value in (("in_features", in_features), ("num_classes", num_classes)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"Expected `{name}` to be an integer, but got {type(value).__name__}.")
            if value < 1:
                raise ValueError(f"Expected `{name}` of at least 1, but got {value}.")
        if margin is not None and not isinstance(margin, Margin):
            raise TypeError(f"Expected `margin` to be a margin of lossfit or None, but got {type(margin).__name__}.")
        if margin is not None:
            margin._check_classes(num_classes)

    def loss(
        self,
        x: Tensor,
        target: Tensor,
        loss: SingleLabelLoss | None = None,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
        backend: Backend = "auto",
    ) -> Tensor:
        """The loss of a batch, with the margin.

        Args:
            x: features (..., D).
            target: class indices (...); without a margin also probabilities (..., C).
            loss: any single-label loss; by default cross-entropy.
            sample_weight: a weight for each row (...), or for each sample, (N,).
            denominator: what reduction="mean" divides the sum by, in place of the sum of weights.
            backend: "dense" makes the matrix of scores; "chunked" works on some rows at a time, as
                :meth:`SingleLabelLoss.linear` does; "auto" is dense where the scores fit one chunk.

        Rows whose target is the loss's ``ignore_index`` may hold anything.
        """
        loss = _CROSS_ENTROPY if loss is None else loss
        if not isinstance(loss, SingleLabelLoss):
            raise TypeError(f"Expected `loss` to be a single-label loss of lossfit, but got {type(loss).__name__}.")
        check_choice("backend", backend, BACKENDS)
        if not self._is_spread:  # else all ranks are asked first
            x = self._features(x)
        if self._is_dense(x, backend):
            scores = self.scores(x, target, ignore_index=loss.ignore_index)
            value: Tensor = loss(scores, target, sample_weight=sample_weight, denominator=denominator)
            return value
        x, target = loss._without_weightless(x, target, sample_weight)
        rows, margin = self._fused(x, target, loss, partial(loss._agreed, sample_weight, denominator, backend=backend))
        result = from_features.evaluate(loss, rows, from_features.Options(backend), sample_weight, denominator, margin)
        assert isinstance(result, Tensor)
        return result

    @property
    def _is_spread(self) -> bool:
        """Whether the classes are spread over ranks."""
        return class_shards.is_sharded(self.get_parameter("weight"))

    def _is_dense(self, x: Tensor, backend: Backend) -> bool:
        weight = self.get_parameter("weight")
        if self._is_spread or x.ndim != 2:
            return False
        small = budget.fits_one_chunk(len(x), len(weight), common_dtype(x, weight), x.device)
        return backend == "dense" or (backend == "auto" and (small or transformed()))

    def _fused(
        self, x: Tensor, target: Tensor, loss: SingleLabelLoss, agreed: Callable[[], dict[str, Any]]
    ) -> tuple[Rows, Margined | None]:
        """The rows of the last layer, and the margin on the targets' scores."""
        raise NotImplementedError

    def _margined(self, cosine: _Cosine, back: _Back, numbers: dict[str, Number]) -> Margined | None:
        """The margin on scores that ``cosine(scores, numbers)`` takes to cosines, and ``back`` to scores again."""
        margin = self.margin
        if margin is None:
            return None
        tensors = {**dict(margin.named_parameters()), **dict(margin.named_buffers())}
        own = {name: value for name, value in tensors.items() if value.is_floating_point()}

        def score(scores: Tensor, target: Tensor, numbers: dict[str, Number]) -> Tensor:
            ours = {name: numbers[f"margin.{name}"] for name in own}
            score: Tensor = functional_call(margin, ours, (cosine(scores, numbers), target))  # type: ignore[arg-type]
            return back(score, numbers)

        named: dict[str, Number] = {f"margin.{name}": value for name, value in own.items()}
        return Margined(score, numbers | named, frozenset(named))

    def scores(self, x: Tensor, target: Tensor, *, ignore_index: int = -100) -> Tensor:
        """The scores that the loss sees (N, C): those of ``head(x)``, with the margin in the target's column."""
        x = self._rows(x)
        like = x.detach()[:, :1].expand(-1, self.num_classes)
        targets = read_batch(like, target, ignore_index, probabilities=self.margin is None).targets
        x = targets.blank(x)  # the numbers of ignored rows would meet a gradient of 0 in the weight's
        if self.margin is None:
            scores: Tensor = self(x)
            return scores
        return self._with_margin(x, targets.target, self.margin)

    def _with_margin(self, x: Tensor, target: Tensor, margin: Margin) -> Tensor:
        raise NotImplementedError

    def _rows(self, x: Tensor) -> Tensor:
        x = self._features(x)
        if x.ndim != 2:
            raise ValueError(f"Expected `x` of shape (N, {x.shape[-1]}), but got {tuple(x.shape)}.")
        return x

    def _features(self, x: Tensor) -> Tensor:
        check_tensor("x", x)
        if not x.is_floating_point():
            raise TypeError(f"Expected `x` to hold floating-point features, but got {x.dtype}.")
        width = self.get_parameter("weight").shape[1]
        if not x.ndim or x.shape[-1] != width:
            raise ValueError(f"Expected `x` of shape (..., {width}), but got {tuple(x.shape)}.")
        return x


class LinearHead(Head):
    r"""A linear layer, :math:`z_c = w_c \cdot x + b_c`, with a margin on the target's angle.

    With a margin the target's score is :math:`\lVert w_y \rVert \lVert x \rVert\, t(\cos\theta_y) + b_y` in
    ``head.loss``; with :class:`AngularMargin` that is L-Softmax. ``head(x)`` has no margin.

    Weights keep their type. Half-precision features meet weights of float32 in float32. A feature or weight of zero
    has a cosine of 0, and no gradient through its angle.

    Args:
        in_features: D.
        num_classes: C.
        bias: whether to add one.
        margin: a :class:`Margin`, or None. ``head.margin.step()`` advances its schedules.

    Attributes:
        weight, bias: as in ``nn.Linear``, of which the head also takes the state dict.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what was expected and what came.

    Source: W. Liu et al., "Large-Margin Softmax Loss for Convolutional Neural Networks", 2016, section 3.2.

    Example:
        >>> head = lossfit.LinearHead(8, 3, bias=False, margin=lossfit.AngularMargin(m=2))
        >>> x, y = torch.randn(5, 8), torch.tensor([0, 1, 2, 0, 1])
        >>> head(x).shape, head.loss(x, y, lossfit.FocalLoss()).shape
        (torch.Size([5, 3]), torch.Size([]))
    """

    bias: Tensor | None

    def __init__(self, in_features: int, num_classes: int, bias: bool = True, margin: Margin | None = None) -> None:
        super().__init__()
        self._start(in_features, num_classes, margin)
        self.in_features, self.num_classes = in_features, num_classes
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        self.register_parameter("bias", nn.Parameter(torch.empty(num_classes)) if bias else None)
        self.margin = margin
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and biases anew, as ``nn.Linear`` does."""
        bound = 1 / math.sqrt(self.in_features)
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """The scores (..., C) of features (..., D), without a margin."""
        return self._linear(self._features(x), self.bias)

    def _linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if x.dtype == self.weight.dtype or autocast(x.device.type):
            return functional.linear(x, self.weight, bias)
        kind = torch.promote_types(x.dtype, self.weight.dtype)
        return functional.linear(x.to(kind), self.weight.to(kind), None if bias is None else bias.to(kind))

    def _with_margin(self, x: Tensor, target: Tensor, margin: Margin) -> Tensor:
        kind = common_dtype(x, self.weight)
        z = self._linear(x, None).to(kind)
        size = norm(x.to(kind)) * norm(self.weight[target].to(kind))
        at = target.unsqueeze(1)
        there = size > 0
        cosine = torch.where(there, z.gather(1, at).squeeze(1), 0.0) / torch.where(there, size, 1.0)
        z = z.scatter(1, at, (size * margin(cosine, target).to(kind)).unsqueeze(1))
        return z if self.bias is None else z + self.bias

    def _fused(
        self, x: Tensor, target: Tensor, loss: SingleLabelLoss, agreed: Callable[[], dict[str, Any]]
    ) -> tuple[Rows, Margined | None]:
        kind, soft = torch.promote_types(x.dtype, self.weight.dtype), self.margin is None
        weight, bias = self.weight.to(kind), None if self.bias is None else self.bias.to(kind)
        rows = features.read(x.to(kind), weight, target, bias, loss.ignore_index, probabilities=soft, agreed=agreed)
        if self.margin is None:
            return rows, None
        if rows.targets.shard is not None:
            raise ValueError("Expected `margin` None where the weight is spread over ranks; CosineHead takes both.")
        kind, target = common_dtype(x, self.weight), rows.targets.target
        numbers: dict[str, Number] = {
            "size": norm(rows.take(x).to(kind)) * norm(self.weight[target].to(kind)),
            "bias": 0.0 if self.bias is None else self.bias[target].to(kind),
        }

        def cosine(own: Tensor, numbers: dict[str, Number]) -> Tensor:
            size = torch.as_tensor(numbers["size"])
            there = size > 0
            return torch.where(there, own.to(kind) - numbers["bias"], 0.0) / torch.where(there, size, 1.0)

        def back(score: Tensor, numbers: dict[str, Number]) -> Tensor:
            return score * numbers["size"] + numbers["bias"]

        return rows, self._margined(cosine, back, numbers)

    def extra_repr(self) -> str:
        return ", ".join([*self._changed("bias"), *(["bias=False"] if self.bias is None else [])])


_CROSS_ENTROPY = CrossEntropyLoss()
