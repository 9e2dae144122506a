"""What every single-label loss shares: scores -> gap -> link -> reduce, and the keywords of nn.CrossEntropyLoss."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, TypedDict, overload

import torch
from torch import Tensor

from lossfit.core import class_shards, scores
from lossfit.core.batch import Batch, read_batch
from lossfit.core.checks import check_index, check_per_class
from lossfit.core.class_weights import check_positive
from lossfit.core.hyper import Hyper, HyperValue
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.reduce import Reduction, Weighing, as_row, weigh
from lossfit.gaps.blocks import per_class
from lossfit.gaps.types import Fields, Gap
from lossfit.linear import features
from lossfit.linear.features import Backend
from lossfit.losses.base import Loss
from lossfit.losses.single_label import from_features
from lossfit.losses.single_label.from_features import Extra, Result

Settings = dict[str, float | Tensor]
"""Hyper-parameters by name: numbers, or tensors of no dimension or of the shape of the rows."""


class Common(TypedDict, total=False):
    """The keywords that every single-label loss takes; :class:`SingleLabelLoss` explains them."""

    weight: Tensor | None
    ignore_index: int
    reduction: Reduction
    label_smoothing: HyperValue
    temperature: HyperValue
    class_prior: Tensor | None


class SingleLabelLoss(Loss):
    r"""A loss for one right class among C, called as ``nn.CrossEntropyLoss`` is.

    ``loss(input, target)`` takes logits of shape (N, C), (N, C, d1, ...) or (C,), and as target class indices
    (N,), (N, d1, ...) or (), or probabilities of the shape of the input.

    Args:
        weight: a weight for each class (C,). It is a buffer: it moves with ``.to()`` and is in the state dict.
        ignore_index: rows with this target get loss 0, no gradient, and do not count in the mean.
        reduction: "mean", "sum" or "none". The mean is over :math:`\sum_i w_{y_i}` for class indices and over the
            number of rows for probabilities, as in PyTorch; an empty mean is 0, where PyTorch has NaN.
        label_smoothing: :math:`\epsilon`; the target becomes :math:`(1 - \epsilon)\,\mathrm{onehot} + \epsilon / C`.
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

    closed: ClassVar[bool] = False
    """Whether a gradient goes to nothing but the scores and the hyper-parameters."""

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
        self.ignore_index = check_index("ignore_index", ignore_index)

    def _shown_settings(self) -> list[str]:
        return self._changed_settings()

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
        agreed = partial(self._agreed, sample_weight, denominator)
        batch = read_batch(input, target, self.ignore_index, agreed=agreed)
        self.check_classes(batch.classes)
        settings = self.settings(batch.rows)
        if batch.unbatched:
            sample_weight = as_row(sample_weight)
        weighing = self.weighing(batch, settings, sample_weight, denominator)
        if weighing.valid is not batch.valid:
            batch = batch.counting(weighing.valid)
        loss = self.reduced(batch, settings, weighing)
        return loss.squeeze(0) if batch.unbatched and self.reduction == "none" else loss

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
        function of the gap: then they are operators, with four products.

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
        x, target = self.without_weightless(x, target, sample_weight)
        options = from_features.Options(backend, softcap, z_loss, extras, memory)
        agreed = partial(self._agreed, sample_weight, denominator, options=options)
        rows = features.read(x, weight, target, bias, self.ignore_index, shift=shift, backend=backend, agreed=agreed)
        if shift and isinstance(sample_weight, Tensor) and sample_weight.shape == target.shape:
            sample_weight = sample_weight[..., shift:]
        return from_features.evaluate(self, rows, options, sample_weight, denominator)

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

    def without_weightless(self, x: Tensor, target: Tensor, sample_weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Features and targets, where rows that weigh nothing are ignored ones."""
        smoothing: object = self.label_smoothing
        weight = None if isinstance(smoothing, Tensor) or smoothing else self.weight
        return from_features.without_weightless(x, target, sample_weight, self.ignore_index, weight)

    def check_classes(self, classes: int) -> None:
        """Raise unless there is a weight and a prior for each of the classes."""
        check_per_class("weight", self.weight, classes)
        check_per_class("class_prior", self.class_prior, classes)

    def weighing(
        self, batch: Batch, settings: Settings, sample_weight: Tensor | None, denominator: float | Tensor | None
    ) -> Weighing:
        """How the losses of the rows become one number."""
        return weigh(
            batch.rows,
            accumulation_dtype(batch.input),
            self.reduction,
            valid=batch.valid,
            class_weight=self.class_weight(batch),
            sample_weight=sample_weight,
            denominator=denominator,
            weighted=is_smooth(settings),
        )

    def reduced(self, batch: Batch, settings: Settings, weighing: Weighing) -> Tensor:
        """The loss of a batch."""
        return weighing.reduce(self.each(self.adjusted(batch, settings), settings))

    def adjusted(self, batch: Batch, settings: Settings) -> Batch:
        """Logits to scores."""
        temperature = settings["temperature"]
        if not isinstance(temperature, Tensor) and temperature == 1 and self.class_prior is None:
            return batch
        adjusted, origin = scores.adjust(batch.input, temperature, self.class_prior, batch.shard)
        return batch._replace(input=adjusted, origin=origin)

    def each(self, batch: Batch, settings: Settings) -> Tensor:
        """The loss of every row (N, d1, ...); with soft or smoothed targets the class weights are in it."""
        smooth = is_smooth(settings)
        if batch.probabilities:
            return self.soft_rows(self._smoothed(batch, settings) if smooth else batch, settings)
        return self.smooth_rows(batch, settings) if smooth else self.rows(batch, settings)

    def probabilities(self, input: Tensor) -> Tensor:
        """The probabilities that the loss trains, of the shape of the logits (N, C) or (N, C, d1, ...).

        They are softmax(input / temperature); ``class_prior`` is for training only.
        """
        return scores.adjust(input, self._hyper("temperature", input.shape[:1] + input.shape[2:]))[0].softmax(1)

    def fields(self, batch: Batch, settings: Settings) -> Fields | None:
        """What of the gap of class indices :meth:`each` is made of; None where it looks at the scores themselves."""
        return None

    def of_fields(self, found: Gap, batch: Batch, settings: Settings) -> Tensor:
        """:meth:`each` of a gap that has these fields."""
        raise NotImplementedError

    def from_gap(self, found: Gap, batch: Batch, settings: Settings) -> Tensor:
        """:meth:`each` where the soft gap of class indices is known."""
        return self.each(batch, settings)

    def rows(self, batch: Batch, settings: Settings) -> Tensor:
        """The loss of every row (N, d1, ...) with class indices as targets, before any weight."""
        raise NotImplementedError

    def all_rows(self, batch: Batch, settings: Settings) -> Tensor:
        """The loss of every row were each class the target, (N, C, d1, ...)."""
        # Converted once: the gradients of the classes add up here, not in half precision.
        batch = batch._replace(input=batch.input.to(accumulation_dtype(batch.input)))
        index = torch.zeros(batch.rows, dtype=torch.int64, device=batch.input.device)
        columns = [self.rows(batch._replace(target=index + c), settings) for c in range(batch.classes)]
        every: Tensor = batch.shared(torch.stack(columns, 1))
        return every if batch.shard is None else every.narrow(1, batch.shard.start, batch.shard.count)

    def soft_rows(self, batch: Batch, settings: Settings) -> Tensor:
        """The loss of every row with probabilities as targets, class weights included."""
        losses = self.all_rows(batch, settings)
        share = batch.target.to(losses.dtype)
        if self.weight is not None:
            share = share * per_class(batch.local(self.weight), losses)
        return expectation(batch, share, losses)

    def smooth_rows(self, batch: Batch, settings: Settings) -> Tensor:
        """The loss of every row with smoothed class indices as targets, class weights included."""
        scores, smoothing = batch.input, settings["label_smoothing"]
        if batch.valid is not None:
            scores = scores.masked_fill(~batch.valid.unsqueeze(1), 0.0)
        losses = self.all_rows(batch._replace(input=scores), settings)
        own, class_weight = batch.own(losses), self.class_weight(batch)
        if class_weight is None or self.weight is None:
            return (1 - smoothing) * own + smoothing * batch.sum(losses) / batch.classes
        weighted = _times(losses, per_class(batch.local(self.weight), losses))
        return (1 - smoothing) * _times(own, class_weight) + smoothing * batch.sum(weighted) / batch.classes

    def weighted(self, batch: Batch, settings: Settings) -> Tensor:
        """The loss of every row of scores before temperature and prior, times the weight of its class."""
        losses, weight = self.each(self.adjusted(batch, settings), settings), self.class_weight(batch)
        return losses if weight is None or is_smooth(settings) else _times(losses, weight)

    def weight_within(self, batch: Batch, settings: Settings) -> Tensor | None:
        """The weights of the targets, where :meth:`each` has them in it."""
        return self.class_weight(batch) if is_smooth(settings) else None

    def class_weight(self, batch: Batch) -> Tensor | None:
        """The weights of the targets (N, d1, ...)."""
        if self.weight is None or batch.probabilities:
            return None
        return self.weight.to(accumulation_dtype(batch.input))[batch.target]

    def _smoothed(self, batch: Batch, settings: Settings) -> Batch:
        share = batch.shared(settings["label_smoothing"])
        if isinstance(share, Tensor) and share.ndim:
            share = share.unsqueeze(1)
        target = batch.target.to(accumulation_dtype(batch.input))
        return batch._replace(target=(1 - share) * target + share / batch.classes)


def without_places(text: str) -> str:
    """A representation without where functions lie in the memory, which is different on each rank."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def is_smooth(settings: Settings) -> bool:
    """Whether labels are smoothed."""
    smoothing = settings["label_smoothing"]
    return isinstance(smoothing, Tensor) or smoothing > 0


def _times(losses: Tensor, weight: Tensor) -> Tensor:
    """What weighs nothing is 0, also where the loss is infinite."""
    return losses.masked_fill((weight == 0) & ~losses.isfinite(), 0.0) * weight


def expectation(batch: Batch, share: Tensor, losses: Tensor) -> Tensor:
    """Sum of share * loss over the classes, where no share of an infinite loss is 0."""
    absent = share == 0
    if share.requires_grad:  # then a share of 0 has a gradient too: the loss, if it is finite
        absent = absent & losses.isinf()
    return batch.sum(share * losses.masked_fill(absent, 0.0))
