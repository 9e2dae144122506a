"""What every single-label loss shares: scores -> gap -> link -> reduce, and the keywords of nn.CrossEntropyLoss."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, ClassVar, Literal, TypedDict

import torch
from torch import Tensor

from lossfit import kernels
from lossfit.core import class_shards
from lossfit.core.batch import Targets, read_batch
from lossfit.core.checks import check_choice, check_index, check_per_class
from lossfit.core.class_weights import check_positive
from lossfit.core.hyper import Hyper, HyperValue, Number
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.reduce import Reduction, Weighing, as_row, weigh
from lossfit.core.scores import adjust
from lossfit.gaps.blocks import per_class
from lossfit.gaps.gap import gap_rows
from lossfit.gaps.types import Fields, Gap
from lossfit.losses.base import Loss
from lossfit.losses.single_label import from_features
from lossfit.losses.single_label.from_features import FromFeatures
from lossfit.losses.single_label.settings import Settings
from lossfit.native import single_label as native


class Common(TypedDict, total=False):
    """The keywords that every single-label loss takes; :class:`SingleLabelLoss` explains them."""

    weight: Tensor | None
    ignore_index: int
    reduction: Reduction
    label_smoothing: HyperValue
    smooth_over: Literal["all", "others"]
    temperature: HyperValue
    class_prior: Tensor | None


class SingleLabelLoss(FromFeatures, Loss):
    r"""A loss for one right class among C, called as ``nn.CrossEntropyLoss`` is.

    ``loss(input, target)`` takes logits of shape (N, C), (N, C, d1, ...) or (C,), and as target class indices
    (N,), (N, d1, ...) or (), or probabilities of the shape of the input.

    Args:
        weight: a weight for each class (C,). It is a buffer: it moves with ``.to()`` and is in the state dict.
        ignore_index: rows with this target get loss 0, no gradient, and do not count in the mean.
        reduction: "mean", "sum" or "none". The mean is over :math:`\sum_i w_{y_i}` for class indices and over the
            number of rows for probabilities, as in PyTorch; an empty mean is 0, where PyTorch has NaN.
        label_smoothing: :math:`\epsilon`; the target becomes :math:`(1 - \epsilon)\,\mathrm{onehot} + \epsilon / C`.
        smooth_over: the classes that share :math:`\epsilon`: "all", as in PyTorch, or "others": the target keeps
            :math:`1 - \epsilon`, and every other class gets :math:`\epsilon / (C - 1)`.
        temperature: what the logits are divided by.
        class_prior: counts or probabilities of the classes (C,). Their logarithm is added to the logits while
            training ("logit adjustment", A. Menon et al., "Long-Tail Learning via Logit Adjustment", 2021, section 4),
            so that the logits without it predict for balanced classes. A buffer.

    Tensors among the hyper-parameters (those of the loss, ``label_smoothing`` and ``temperature``) broadcast to the
    rows. In a formula p is the target's probability and d the gap.

    For a soft target q the loss of a row is :math:`\sum_c q_c w_c \ell_c`, with :math:`\ell_c` the loss were c the
    target. Half-precision input is computed in float32, and so is the result.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what was expected and what came.
    """

    family = "single_label"
    common_hypers: ClassVar[dict[str, tuple[Hyper, float]]] = {
        "label_smoothing": (Hyper("share of the target spread over all classes", 0.0, 1.0), 0.0),
        "temperature": (Hyper("what the logits are divided by", 0.0, open_low=True), 1.0),
    }

    weight: Tensor | None
    class_prior: Tensor | None

    def __init__(
        self,
        hypers: dict[str, HyperValue] | None = None,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        label_smoothing: HyperValue = 0.0,
        smooth_over: Literal["all", "others"] = "all",
        temperature: HyperValue = 1.0,
        class_prior: Tensor | None = None,
    ) -> None:
        super().__init__(
            {**(hypers or {}), "label_smoothing": label_smoothing, "temperature": temperature}, reduction=reduction
        )
        self._keep_per_class("weight", weight)
        self._keep_per_class("class_prior", class_prior)
        if class_prior is not None:
            check_positive("class_prior", class_prior)
        check_choice("smooth_over", smooth_over, ("all", "others"))
        self.smooth_over = smooth_over
        self.ignore_index = check_index("ignore_index", ignore_index)

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            input: logits (N, C), (N, C, d1, ...) or (C,).
            target: class indices (N,), (N, d1, ...) or (); or probabilities of the shape of ``input``.
            sample_weight: a weight for each row, or for each sample (N,).
            denominator: what reduction="mean" divides the sum by, in place of the sum of weights.
        """
        value = self._native(input, target, sample_weight, denominator)
        return self._composed(input, target, sample_weight, denominator) if value is None else value

    def _native(
        self, input: Tensor, target: Tensor, sample_weight: Tensor | None, denominator: float | Tensor | None
    ) -> Tensor | None:
        """The loss in one call of the native kernels, where they have it."""
        if not isinstance(input, Tensor) or input.ndim < 2 or not kernels.is_native(input):
            return None
        shape = input.shape[:1] + input.shape[2:]
        packed: native.Packed | None = self.__dict__.get("_packed")
        if packed is None or sample_weight is not None or denominator is not None or not packed.is_current:
            packed = self._pack(input, shape, sample_weight, denominator)
            if packed is None:
                return None
        numbers = packed.hypers

        def again(scores: Tensor) -> Tensor:
            return self._composed(scores, target, sample_weight, denominator, numbers)

        return native.loss(input, target, shape, packed, self.reduction, again)

    def _pack(
        self, input: Tensor, shape: torch.Size, sample_weight: Tensor | None, denominator: float | Tensor | None
    ) -> native.Packed | None:
        """What the native kernels are told, kept where the next batch needs the same; None where they cannot serve."""
        classes, dtype = input.shape[1], accumulation_dtype(input)
        numbers = self._numbers(shape, dtype)
        settings = self._settings(shape, dtype, classes, numbers)
        term = self._native_term(settings.own)
        if term is None:
            return None
        weights = native.Weights(
            self.ignore_index,
            self.reduction,
            settings.label_smoothing,
            settings.temperature,
            self.weight,
            self.class_prior,
            sample_weight,
            denominator,
        )
        packed = native.pack(shape, classes, numbers, term, weights)
        # What is smoothed over the others depends on how many classes there are.
        if packed is not None and packed.is_shared and self.smooth_over == "all":
            self.__dict__["_packed"] = packed
        return packed

    def _native_term(self, own: dict[str, Number]) -> native.Term | None:
        """What the native kernels know the loss of a row as; None where they do not."""
        return None

    def _composed(
        self,
        input: Tensor,
        target: Tensor,
        sample_weight: Tensor | None,
        denominator: float | Tensor | None,
        numbers: dict[str, Number] | None = None,
    ) -> Tensor:
        """The loss step by step: scores to gap, to link, to the result."""
        agreed = partial(self._agreed, sample_weight, denominator)
        scores, targets, unbatched = read_batch(input, target, self.ignore_index, agreed=agreed)
        self._check_classes(targets.classes)
        dtype = accumulation_dtype(scores)
        settings = self._settings(targets.rows, dtype, targets.classes, numbers)
        if unbatched:
            sample_weight = as_row(sample_weight)
        weighing = self._weighing(targets, dtype, settings, sample_weight, denominator)
        scores, targets = targets.counting(scores, weighing.valid)
        loss = self._reduced(scores, targets, settings, weighing)
        return loss.squeeze(0) if unbatched and self.reduction == "none" else loss

    def probabilities(self, input: Tensor) -> Tensor:
        """The probabilities that the loss trains, of the shape of the logits (N, C) or (N, C, d1, ...).

        They are softmax(input / temperature); ``class_prior`` is for training only.
        """
        return adjust(input, self._hyper("temperature", input.shape[:1] + input.shape[2:]))[0].softmax(1)

    def _settings(
        self, rows: torch.Size, dtype: torch.dtype, classes: int, numbers: dict[str, Number] | None = None
    ) -> Settings:
        """The hyper-parameters for rows of this shape in this type; ``numbers`` are those of an earlier call."""
        own = self._numbers(rows, dtype) if numbers is None else dict(numbers)
        temperature, smoothing = own.pop("temperature"), own.pop("label_smoothing")
        if self.smooth_over == "others" and classes > 1:  # the target's own part of a larger share makes up for it
            smoothing = smoothing * (classes / (classes - 1))
        return Settings(own, temperature, smoothing)

    def _agreed(self, sample_weight: Tensor | None, denominator: float | Tensor | None, **more: Any) -> dict[str, Any]:
        """What ranks that share the classes must all have, beside features and targets."""
        class_shards.refuse(sample_weight=sample_weight)
        return {
            "sample_weight": sample_weight,
            "denominator": denominator,
            **{name: getattr(self, name) for name in self._hypers},
            "weight of the loss": self.weight,
            "class_prior": self.class_prior,
            "ignore_index": self.ignore_index,
            "reduction": self.reduction,
            "loss": without_places(f"{type(self).__name__}({self.extra_repr()})"),
            **more,
        }

    def _without_weightless(self, x: Tensor, target: Tensor, sample_weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Features and targets, where rows that weigh nothing are ignored ones."""
        smoothing: object = self.label_smoothing
        weight = None if isinstance(smoothing, Tensor) or smoothing else self.weight
        return from_features.without_weightless(x, target, sample_weight, self.ignore_index, weight)

    def _check_classes(self, classes: int) -> None:
        """Raise unless there is a weight and a prior for each of the classes."""
        check_per_class("weight", self.weight, classes)
        check_per_class("class_prior", self.class_prior, classes)

    def _weighing(
        self,
        targets: Targets,
        dtype: torch.dtype,
        settings: Settings,
        sample_weight: Tensor | None,
        denominator: float | Tensor | None,
    ) -> Weighing:
        """How the losses of the rows become one number."""
        return weigh(
            targets.rows,
            dtype,
            self.reduction,
            valid=targets.valid,
            class_weight=self._class_weight(targets, dtype),
            sample_weight=sample_weight,
            denominator=denominator,
            weighted=settings.is_smooth,
        )

    def _class_weight(self, targets: Targets, dtype: torch.dtype) -> Tensor | None:
        """The weights of the targets (N, d1, ...)."""
        if self.weight is None or targets.probabilities:
            return None
        return self.weight.to(dtype)[targets.target]

    # The steps of a batch: logits -> scores -> losses of the rows -> result.

    def _reduced(self, logits: Tensor, targets: Targets, settings: Settings, weighing: Weighing) -> Tensor:
        """The result of a batch."""
        scores, _ = self._adjusted(logits, targets, settings)
        return weighing.reduce(self._each(scores, targets, settings))

    def _adjusted(self, logits: Tensor, targets: Targets, settings: Settings) -> tuple[Tensor, Tensor | None]:
        """Logits to scores, and what has been taken off the scores of each row (N, d1, ...); None for nothing."""
        temperature = settings.temperature
        if not isinstance(temperature, Tensor) and temperature == 1 and self.class_prior is None:
            return logits, None
        return adjust(logits, temperature, self.class_prior, targets.shard)

    def _each(self, scores: Tensor, targets: Targets, settings: Settings) -> Tensor:
        """The loss of every row (N, d1, ...); with soft or smoothed targets the class weights are in it."""
        if targets.probabilities:
            if settings.is_smooth:
                targets = _smoothed(targets, settings.label_smoothing, accumulation_dtype(scores))
            return self._soft_rows(scores, targets, settings)
        fields = self._fields(targets, settings)
        if fields is not None:
            gap = gap_rows(scores, targets, fields.kind, mean=fields.mean, mean_weight=fields.mean_weight)
            return self._of_gap(gap, targets, settings)
        return (self._smooth_rows if settings.is_smooth else self._rows)(scores, targets, settings)

    def _weighted(self, logits: Tensor, targets: Targets, settings: Settings) -> Tensor:
        """The loss of every row, times the weight of its class."""
        scores, _ = self._adjusted(logits, targets, settings)
        losses, weight = self._each(scores, targets, settings), self._class_weight(targets, accumulation_dtype(scores))
        return losses if weight is None or settings.is_smooth else _times(losses, weight)

    # What a loss defines: either _fields and _of_gap, or _rows. The others have a default, which may be slow.

    def _fields(self, targets: Targets, settings: Settings) -> Fields | None:
        """What of the gap the loss of a row is made of; None where it looks at the scores themselves."""
        return None

    def _of_gap(self, gap: Gap, targets: Targets, settings: Settings) -> Tensor:
        """The loss of every row (N, d1, ...) from a gap that has these fields."""
        raise NotImplementedError

    def _rows(self, scores: Tensor, targets: Targets, settings: Settings) -> Tensor:
        """The loss of every row (N, d1, ...) with class indices as targets, before any weight."""
        raise NotImplementedError

    def _all_rows(self, scores: Tensor, targets: Targets, settings: Settings) -> Tensor:
        """The loss of every row were each class the target, (N, C, d1, ...)."""
        # Converted once: the gradients of the classes add up here, not in half precision.
        scores, shard = scores.to(accumulation_dtype(scores)), targets.shard
        index = torch.zeros(targets.rows, dtype=torch.int64, device=scores.device)
        each = (Targets(index + c, targets.classes, shard=shard) for c in range(targets.classes))
        every: Tensor = targets.broadcast(torch.stack([self._rows(scores, t, settings) for t in each], 1))
        return every if shard is None else every.narrow(1, shard.start, shard.count)

    def _soft_rows(self, scores: Tensor, targets: Targets, settings: Settings) -> Tensor:
        """The loss of every row with probabilities as targets, class weights included."""
        losses = self._all_rows(scores, targets, settings)
        share = targets.target.to(losses.dtype)
        if self.weight is not None:
            share = share * per_class(targets.local(self.weight), losses)
        return expectation(targets, share, losses)

    def _smooth_rows(self, scores: Tensor, targets: Targets, settings: Settings) -> Tensor:
        """The loss of every row with smoothed class indices as targets, class weights included."""
        smoothing = settings.label_smoothing
        losses = self._all_rows(targets.blank(scores), targets, settings)
        own, class_weight = targets.own(losses), self._class_weight(targets, losses.dtype)
        if class_weight is None or self.weight is None:
            return (1 - smoothing) * own + smoothing * targets.sum(losses) / targets.classes
        weighted = _times(losses, per_class(targets.local(self.weight), losses))
        return (1 - smoothing) * _times(own, class_weight) + smoothing * targets.sum(weighted) / targets.classes


def without_places(text: str) -> str:
    """A representation without where functions lie in the memory, which is different on each rank."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def expectation(targets: Targets, share: Tensor, losses: Tensor) -> Tensor:
    """Sum of share * loss over the classes, where no share of an infinite loss is 0."""
    absent = share == 0
    if share.requires_grad:  # then a share of 0 has a gradient too: the loss, if it is finite
        absent = absent & losses.isinf()
    return targets.sum(share * losses.masked_fill(absent, 0.0))


def _smoothed(targets: Targets, smoothing: Number, dtype: torch.dtype) -> Targets:
    share = targets.broadcast(smoothing)
    if isinstance(share, Tensor) and share.ndim:
        share = share.unsqueeze(1)
    return targets._replace(target=(1 - share) * targets.target.to(dtype) + share / targets.classes)


def _times(losses: Tensor, weight: Tensor) -> Tensor:
    """Losses times weights, and 0 where the weight is 0, also where the loss is infinite."""
    return losses.masked_fill((weight == 0) & ~losses.isfinite(), 0.0) * weight
