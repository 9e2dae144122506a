"""Heads: the last layer of a classifier, with a margin on the target's score while it trains."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lossfit import inputs
from lossfit.cosines import autocast, common_dtype, cosines, norm
from lossfit.losses.likelihood import CrossEntropyLoss
from lossfit.losses.single import SingleLabelLoss
from lossfit.margins import Margin

Scale = float | Literal["auto", "norm"]


class _Head(nn.Module):
    """What heads share: ``loss``, with a margin on the target's score."""

    num_classes: int
    margin: Margin | None

    def _start(self, in_features: int, num_classes: int, margin: Margin | None) -> None:
        for name, value in (("in_features", in_features), ("num_classes", num_classes)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"Expected `{name}` to be an integer, but got {type(value).__name__}.")
            if value < 1:
                raise ValueError(f"Expected `{name}` of at least 1, but got {value}.")
        if margin is not None and not isinstance(margin, Margin):
            raise TypeError(f"Expected `margin` to be a margin of lossfit or None, but got {type(margin).__name__}.")
        if margin is not None:
            margin.check_classes(num_classes)

    def loss(
        self,
        x: Tensor,
        target: Tensor,
        loss: SingleLabelLoss | None = None,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch, with the margin.

        Args:
            x: features (N, D).
            target: class indices (N,); without a margin also probabilities (N, C).
            loss: any single-label loss; by default cross-entropy.
            sample_weight: a weight for each row (N,).
            denominator: what reduction="mean" divides the sum by, in place of the sum of weights.

        Rows whose target is the loss's ``ignore_index`` may hold anything.
        """
        loss = _CROSS_ENTROPY if loss is None else loss
        if not isinstance(loss, SingleLabelLoss):
            raise TypeError(f"Expected `loss` to be a single-label loss of lossfit, but got {type(loss).__name__}.")
        scores = self.scores(x, target, ignore_index=loss.ignore_index)
        value: Tensor = loss(scores, target, sample_weight=sample_weight, denominator=denominator)
        return value

    def scores(self, x: Tensor, target: Tensor, *, ignore_index: int = -100) -> Tensor:
        """The scores that the loss sees (N, C): those of ``head(x)``, with the margin in the target's column."""
        x = self._features(x)
        if x.ndim != 2:
            raise ValueError(f"Expected `x` of shape (N, {x.shape[-1]}), but got {tuple(x.shape)}.")
        like = x.detach()[:, :1].expand(-1, self.num_classes)
        batch = inputs.read(like, target, ignore_index, probabilities=self.margin is None)
        if batch.valid is not None:  # what ignored rows hold would meet a gradient of 0 in the weight's
            x = x.masked_fill(~batch.valid.unsqueeze(1), 0.0)
        if self.margin is None:
            scores: Tensor = self(x)
            return scores
        return self._with_margin(x, batch.target, self.margin)

    def _with_margin(self, x: Tensor, target: Tensor, margin: Margin) -> Tensor:
        raise NotImplementedError

    def _features(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            raise TypeError(f"Expected `x` to be a torch.Tensor, but got {type(x).__name__}.")
        if not x.is_floating_point():
            raise TypeError(f"Expected `x` to hold floating-point features, but got {x.dtype}.")
        width = self.get_parameter("weight").shape[1]
        if not x.ndim or x.shape[-1] != width:
            raise ValueError(f"Expected `x` of shape (..., {width}), but got {tuple(x.shape)}.")
        return x


class LinearHead(_Head):
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

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, num_classes={self.num_classes}, bias={self.bias is not None}"


class CosineHead(_Head):
    r"""Scaled cosines, :math:`z_c = s \cos\theta_c`, with a margin on the target's: NormFace and all that follow it.

    ``head(x)`` are the scaled cosines without a margin. In ``head.loss`` the target's score is
    :math:`s\, t(\cos\theta_y)`, with t the margin:

    - NormFace: ``CosineHead(D, C)``; its scale may be learnt.
    - AM-Softmax, CosFace: ``CosineHead(D, C, margin=AdditiveMargin(0.35))``.
    - ArcFace: ``CosineHead(D, C, margin=ArcMargin(0.5))``.
    - SphereFace: ``CosineHead(D, C, scale="norm", margin=AngularMargin(4.0))``.

    Weights keep their type, and the cosines are of float32 or better whatever the features are. Under autocast the
    matrix product alone is of lower precision. Features and weights shorter than 1e-12 count as zero: their cosines
    are 0, and they get no gradient.

    Args:
        in_features: D.
        num_classes: C.
        scale: s, above 0; "norm" for the length of the feature; or "auto" for :func:`normface_scale`, the least
            that lets the target reach ``probability``, the margin included.
        margin: a :class:`Margin`, or None. ``head.margin.step()`` advances its schedules.
        sub_centers: weights of each class. Its cosine is that of the nearest one ("sub-center ArcFace").
        learn_scale: whether s is learnt, from ``scale`` on, as :math:`s_{\min} + \mathrm{softplus}(\text{raw\_scale})`.
        min_scale: the least learnt scale.
        probability: what scale="auto" is to reach, in (1 / C, 1).

    Attributes:
        weight: (C, D), or with sub-centres (C * K, D), those of a class side by side.
        raw_scale: the parameter behind a learnt scale.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what was expected and what came.

    Differentiable twice in eager mode, and works under ``torch.compile``, ``torch.func`` and autocast.

    Source: F. Wang et al., "NormFace: L2 Hypersphere Embedding for Face Verification", 2017, section 3; J. Deng et al.,
    "Sub-center ArcFace", 2020, section 3.2.

    Example:
        >>> head = lossfit.CosineHead(8, 3, scale=16.0, margin=lossfit.ArcMargin(0.5))
        >>> x, y = torch.randn(5, 8), torch.tensor([0, 1, 2, 0, 1])
        >>> bool((head(x).abs() <= 16.001).all()), bool(head.loss(x, y) > 0)
        (True, True)
    """

    raw_scale: Tensor | None

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        scale: Scale = 64.0,
        margin: Margin | None = None,
        sub_centers: int = 1,
        *,
        learn_scale: bool = False,
        min_scale: float = 1.0,
        probability: float = 0.9,
    ) -> None:
        super().__init__()
        self._start(in_features, num_classes, margin)
        if isinstance(sub_centers, bool) or not isinstance(sub_centers, int) or sub_centers < 1:
            raise ValueError(f"Expected `sub_centers` to be an integer of at least 1, but got {sub_centers!r}.")
        self.in_features, self.num_classes, self.sub_centers = in_features, num_classes, sub_centers
        self.margin = margin
        self.weight = nn.Parameter(torch.empty(num_classes * sub_centers, in_features))
        start = _start_scale(scale, num_classes, probability, margin)
        self.min_scale = min_scale
        self.register_parameter("raw_scale", None)
        if learn_scale:
            if isinstance(start, str):
                raise ValueError(f"Expected `learn_scale` with a number or 'auto' as `scale`, but got {scale!r}.")
            if not 0 <= min_scale < start:
                raise ValueError(f"Expected `min_scale` in [0, {start:g}), below the scale, but got {min_scale}.")
            above = start - min_scale
            self.raw_scale = nn.Parameter(torch.tensor(above + math.log(-math.expm1(-above))))
        self._scale = start
        self.reset_parameters()

    @property
    def scale(self) -> float | str | Tensor:
        """S: a number, "norm", or as a tensor if it is learnt."""
        if self.raw_scale is None:
            return self._scale
        return self.min_scale + functional.softplus(self.raw_scale)

    def reset_parameters(self) -> None:
        """Draw the weights anew: all directions alike, lengths about 1."""
        nn.init.normal_(self.weight, std=1 / math.sqrt(self.in_features))

    def forward(self, x: Tensor) -> Tensor:
        """The scaled cosines (..., C) of features (..., D), without a margin."""
        x = self._features(x)
        return self._scaled(self.cosines(x), x)

    def cosines(self, x: Tensor) -> Tensor:
        """The cosines (..., C) between features (..., D) and the classes' weights."""
        x = self._features(x)
        cosine = cosines(x.reshape(-1, self.in_features), self.weight)
        if self.sub_centers > 1:
            cosine = cosine.unflatten(1, (self.num_classes, self.sub_centers)).amax(2)
        return cosine.view(*x.shape[:-1], self.num_classes)

    def _scaled(self, cosine: Tensor, x: Tensor) -> Tensor:
        scale = self.scale
        if isinstance(scale, str):
            return cosine * norm(x.to(cosine.dtype)).unsqueeze(-1)
        return cosine * scale

    def _with_margin(self, x: Tensor, target: Tensor, margin: Margin) -> Tensor:
        cosine = self.cosines(x)
        at = target.unsqueeze(1)
        score = margin(cosine.gather(1, at).squeeze(1), target)
        return self._scaled(cosine.scatter(1, at, score.to(cosine.dtype).unsqueeze(1)), x)

    def extra_repr(self) -> str:
        scale = self.scale
        scale = scale.item() if isinstance(scale, Tensor) else scale
        parts = [f"in_features={self.in_features}", f"num_classes={self.num_classes}", f"scale={scale!r}"]
        parts += [] if self.sub_centers == 1 else [f"sub_centers={self.sub_centers}"]
        parts += [] if self.raw_scale is None else ["learn_scale=True", f"min_scale={self.min_scale}"]
        return ", ".join(parts)


def normface_scale(num_classes: int, probability: float = 0.9, margin: Margin | None = None) -> float:
    r"""The least scale at which scaled cosines can give every row's target a probability P.

    .. math:: s = \log\frac{(C - 1) P}{1 - P} \Big/ \Big(a + \frac1{C - 1}\Big),

    with a the target's score at :math:`\theta = 0`, 1 without a margin. The best there is are features on their class's
    weight and weights at the corners of a regular simplex, all cosines between them :math:`-1 / (C - 1)`; that needs
    :math:`D \geq C - 1` features.

    Args:
        num_classes: C, at least 2.
        probability: P, in (1 / C, 1).
        margin: the margin that the target's probability is meant with.

    Raises:
        ValueError: C or P is out of range, or no scale is enough, since the margin leaves the target's best score at
            :math:`-1 / (C - 1)` or below.

    Source: F. Wang et al., "NormFace: L2 Hypersphere Embedding for Face Verification", 2017, proposition 2.

    Example:
        >>> round(lossfit.normface_scale(1000, 0.99), 2)
        11.49
    """
    if num_classes < 2:
        raise ValueError(f"Expected `num_classes` of at least 2, but got {num_classes}.")
    if not 1 / num_classes < probability < 1:
        raise ValueError(
            f"Expected `probability` in (1/{num_classes}, 1), above chance for {num_classes} classes, "
            f"but got {probability}."
        )
    lead = (1.0 if margin is None else margin.best()) + 1 / (num_classes - 1)
    if lead <= 0:
        raise ValueError(f"Expected `margin` to leave the target a lead at an angle of 0, but it is {lead:g}.")
    return (math.log(num_classes - 1) + math.log(probability) - math.log1p(-probability)) / lead


def _start_scale(scale: Scale, classes: int, probability: float, margin: Margin | None) -> float | str:
    if isinstance(scale, str):
        inputs.check_choice("scale", scale, ("auto", "norm"))
        return scale if scale == "norm" else normface_scale(classes, probability, margin)
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise TypeError(f"Expected `scale` to be a number, 'auto' or 'norm', but got {type(scale).__name__}.")
    if not 0 < scale < math.inf:
        raise ValueError(f"Expected `scale` to be positive and finite, but got {scale}.")
    return float(scale)


_CROSS_ENTROPY = CrossEntropyLoss()
