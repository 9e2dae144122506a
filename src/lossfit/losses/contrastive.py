"""Contrastive losses: a row of similarities, with the row's partner as the target and the others as its rivals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from lossfit.core import row_gather
from lossfit.core.autograd import call, without_autocast
from lossfit.core.checks import check_choice, check_tensor
from lossfit.core.hyper import Hyper, HyperValue
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.reduce import Reduction, weigh
from lossfit.core.row_gather import Gather, Ranks
from lossfit.losses.nested import OuterLoss, without_classes
from lossfit.losses.single_label.base import SingleLabelLoss, without_places

Similarity = Literal["cosine", "dot"]
SIMILARITIES = ("cosine", "dot")

_TEMPERATURE = Hyper(
    "what the similarities are divided by", 0.0, search=(0.05, 0.07, 0.1, 0.2, 0.5, 1.0), open_low=True
)


class ContrastiveLoss(OuterLoss):
    r"""What the contrastive losses share.

    Each row's similarities to its target and to its rivals are the scores of a single-label loss; cross-entropy gives
    the usual contrastive losses, and any other :class:`SingleLabelLoss` may take its place.

    Args:
        temperature: what the similarities are divided by; above 0. It may be trainable: pass an ``nn.Parameter``. Only
            its first value is checked: keep it above 0 while it is trainable.
        similarity: "cosine", of which a zero vector has 0 with everything and gets no gradient; or "dot".
        loss: the single-label loss; None for cross-entropy. Its reduction is not used. A copy is kept that shares its
            tensors.
        gather: True to take rivals from all ranks of the default process group of ``torch.distributed``, or the
            group. Ranks may have different numbers of rows, also none, and all of them must call the loss, and its
            backward pass. Each rank returns the loss of its own rows. The "mean" is scaled so that its average over
            the ranks is the loss of one process with all rows; so are the gradients, which DistributedDataParallel
            averages. With "sum" and "none", and with a ``denominator``, the one process's is the sum over the ranks.
            Collectives: one for the numbers of rows, one for the features, one for labels, one for the mean, and one
            in the backward pass. Differentiable once, and not under ``torch.compile(fullgraph=True)``.
        reduction: "mean", "sum" or "none".

    Half-precision input is computed in float32, also under autocast, and so is the result. An empty batch has loss 0.
    """

    family = "contrastive"
    hypers = {"temperature": _TEMPERATURE}

    def __init__(
        self,
        temperature: HyperValue = 0.1,
        *,
        similarity: Similarity = "cosine",
        loss: SingleLabelLoss | None = None,
        gather: Gather = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__({"temperature": temperature}, reduction=reduction)
        check_choice("similarity", similarity, SIMILARITIES)
        row_gather.check_gather(gather)
        self.similarity: Similarity = similarity
        self.loss = without_classes(loss)
        self.gather: Gather = gather

    def _exchange_sizes(
        self,
        input: Tensor,
        sample_weight: Tensor | None,
        denominator: float | Tensor | None,
        check: Callable[[], None],
    ) -> Ranks:
        """How many rows each rank has; what one rank alone has wrong is raised on all of them."""

        def rows() -> int:
            check()
            self._hyper("temperature", input.shape[:1])
            weigh(input.shape[:1], torch.float32, "sum", sample_weight=sample_weight)
            return len(input)

        def shared() -> dict[str, Any]:
            temperature = self.temperature
            per_row = isinstance(temperature, Tensor) and temperature.ndim > 0
            return {
                "input": f"{input.dtype} of width {input.shape[1]}",
                "temperature": "one of each row" if per_row else temperature,
                "denominator": "none" if denominator is None else "one",
                "loss": without_places(f"{type(self).__name__}({self.extra_repr()}), {self.loss}"),
            }

        device = input.device if isinstance(input, Tensor) else torch.device("cpu")
        ranks = row_gather.exchange_sizes(self.gather, device, rows, shared)
        if ranks.total == 1:
            raise ValueError(
                "Expected `input` of at least 2 rows, since the rivals of a row are the others, but got 1."
            )
        return ranks

    def _features(self, *values: Tensor) -> tuple[Tensor, ...]:
        dtypes = [accumulation_dtype(v) for v in values]
        dtype = torch.float64 if torch.float64 in dtypes else torch.float32
        exact = [v.to(dtype) for v in values]
        return tuple(call(_Direction, v)[0] for v in exact) if self.similarity == "cosine" else tuple(exact)

    def _scores(self, anchors: Tensor, pool: Tensor, temperature: float | Tensor) -> Tensor:
        """Similarities (n, N) of anchors (n, D) to all of the pool (N, D), divided by the temperature."""
        if isinstance(temperature, Tensor) and temperature.ndim:
            temperature = temperature.unsqueeze(1)
        with without_autocast(anchors):
            return (anchors / temperature).to(anchors.dtype) @ pool.t()

    def _reduced(
        self,
        rows: Tensor,
        met: Ranks,
        valid: Tensor | None,
        sample_weight: Tensor | None,
        denominator: float | Tensor | None,
    ) -> Tensor:
        shape, dtype = rows.shape, rows.dtype
        if self.reduction == "mean" and denominator is None and len(met.sizes) > 1:
            ones = torch.ones_like(rows, requires_grad=False)
            mass = met.sum(weigh(shape, dtype, "sum", valid=valid, sample_weight=sample_weight).reduce(ones))
            denominator = torch.where(mass == 0, 1, mass) / len(met.sizes)
        weighing = weigh(
            shape, dtype, self.reduction, valid=valid, sample_weight=sample_weight, denominator=denominator
        )
        return weighing.reduce(rows)


class InfoNCELoss(ContrastiveLoss):
    r"""InfoNCE on two views, :math:`-\log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}}`.

    :math:`s_{ij} = \mathrm{sim}(a_i, b_j) / T`: each row of the first view is to find its own among the rows of the
    second. ``loss(input, other)`` takes the two views, (N, D) each.

    Args:
        temperature: T, above 0; a number, a schedule or a tensor, trainable if it is a parameter, as in CLIP.
        symmetric: also let the second view find the first; a row's loss is the mean of both, as in CLIP.
        similarity, loss, gather, reduction: see :class:`ContrastiveLoss`.

    Raises:
        TypeError, ValueError: naming the argument; also for a batch of one row, which has no rivals.

    Source: A. van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018, section 2.3;
    the symmetric form: A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
    2021, section 2.3.

    Example:
        >>> loss = lossfit.InfoNCELoss(temperature=0.5, symmetric=True)
        >>> loss(torch.eye(3), torch.eye(3))
        tensor(0.2395)
    """

    formula = "-log(exp(s_ii) / sum_j exp(s_ij)), s_ij = sim(a_i, b_j) / T"
    source = "A. van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018, section 2.3"

    def __init__(
        self,
        temperature: HyperValue = 0.1,
        symmetric: bool = False,
        *,
        similarity: Similarity = "cosine",
        loss: SingleLabelLoss | None = None,
        gather: Gather = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(temperature, similarity=similarity, loss=loss, gather=gather, reduction=reduction)
        self.symmetric = symmetric

    def forward(
        self,
        input: Tensor,
        other: Tensor,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            input: the first view (N, D).
            other: the second view (N, D).
            sample_weight: a weight for each row (N,).
            denominator: what reduction="mean" divides the sum by, in place of the sum of weights.
        """
        met = self._exchange_sizes(input, sample_weight, denominator, lambda: _check_views(input, other))
        first, second = self._features(input, other)
        temperature = self._hyper("temperature", first.shape[:1], first.dtype)
        target = met.start + torch.arange(len(first), device=first.device)
        if met.total == 0:
            rows = (first + second).sum(1)
        elif self.symmetric:
            firsts, seconds = met.gather(first, second)
            rows = (
                self._found(first, seconds, temperature, target) + self._found(second, firsts, temperature, target)
            ) / 2
        else:
            (seconds,) = met.gather(second)
            rows = self._found(first, seconds, temperature, target)
        return self._reduced(rows, met, None, sample_weight, denominator)

    def _found(self, anchors: Tensor, pool: Tensor, temperature: float | Tensor, target: Tensor) -> Tensor:
        """The losses of anchors (n, D) that are to find their targets in the pool (N, D), which is a last layer."""
        if isinstance(temperature, Tensor) and temperature.ndim:
            temperature = temperature.unsqueeze(1)
        with without_autocast(anchors):
            return self.loss.linear((anchors / temperature).to(anchors.dtype), pool, target)


class NTXentLoss(ContrastiveLoss):
    r"""NT-Xent of SimCLR: each of the 2N rows of two views is to find its partner among the 2N - 1 others.

    :math:`\ell_i = -\log \frac{e^{s_{ij}}}{\sum_{k \neq i} e^{s_{ik}}}` with j the partner of i; the loss of a pair is
    the mean of its two rows. ``loss(input, other)`` takes the two views, (N, D) each.

    Args:
        temperature: T, above 0; a number, a schedule or a tensor, trainable if it is a parameter.
        similarity, loss, gather, reduction: see :class:`ContrastiveLoss`.

    Raises:
        TypeError, ValueError: naming the argument; also for a batch of one pair, which has no rivals.

    Source: T. Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020, section 2.1.

    Example:
        >>> loss = lossfit.NTXentLoss(temperature=0.5)
        >>> loss(torch.eye(3), torch.eye(3))
        tensor(0.4327)
    """

    formula = "-log(exp(s_ij) / sum_{k != i} exp(s_ik)), i and j the two views of a row"
    source = "T. Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020, section 2.1"

    def forward(
        self,
        input: Tensor,
        other: Tensor,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            input: the first view (N, D).
            other: the second view (N, D).
            sample_weight: a weight for each pair (N,).
            denominator: what reduction="mean" divides the sum by, in place of the sum of weights.
        """
        met = self._exchange_sizes(input, sample_weight, denominator, lambda: _check_views(input, other))
        first, second = self._features(input, other)
        temperature = self._hyper("temperature", first.shape[:1], first.dtype)
        if met.total == 0:
            rows = (first + second).sum(1)
        else:
            anchors = torch.cat([first, second])
            pool = anchors if len(met.sizes) == 1 else torch.cat(met.gather(first, second))
            if isinstance(temperature, Tensor) and temperature.ndim:
                temperature = torch.cat([temperature, temperature])
            own = met.start + torch.arange(len(first), device=first.device)
            own, target = torch.cat([own, own + met.total]), torch.cat([own + met.total, own])
            scores = call(_Others, self._scores(anchors, pool, temperature), own)[0]
            rows = self.loss(scores, target - (target > own).long()).view(2, -1).mean(0)
        return self._reduced(rows, met, None, sample_weight, denominator)


class SupConLoss(ContrastiveLoss):
    r"""Supervised contrastive loss: each row is to find all other rows of its label.

    :math:`\frac{1}{|P_i|} \sum_{p \in P_i} -\log \frac{e^{s_{ip}}}{\sum_{k \neq i} e^{s_{ik}}}`, where P_i are the
    other rows with the label of row i. The mean over them is outside of the logarithm: the form "out" of the paper.
    Rows whose label no other row has get loss 0 and do not count in the mean; they are rivals still.
    ``loss(input, target)`` takes features (N, D) and labels (N,); concatenate views, and repeat their labels.

    Args:
        temperature: T, above 0; a number, a schedule or a tensor, trainable if it is a parameter. The paper's own code
            multiplies the loss by T / 0.07 besides.
        similarity, loss, gather, reduction: see :class:`ContrastiveLoss`. The loss gets the labels as probabilities
            1 / abs(P_i).

    Raises:
        TypeError, ValueError: naming the argument; also for a batch of one row, which has no rivals.

    Source: P. Khosla et al., "Supervised Contrastive Learning", 2020, equation 2.

    Example:
        >>> loss = lossfit.SupConLoss(temperature=0.5)
        >>> loss(torch.eye(3), torch.tensor([0, 0, 1]))
        tensor(0.6931)
    """

    formula = "mean over p in P_i of -log(exp(s_ip) / sum_{k != i} exp(s_ik)), P_i the others with the label of i"
    source = "P. Khosla et al., Supervised Contrastive Learning, 2020, equation 2"

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
            input: features (N, D).
            target: labels (N,), any integers.
            sample_weight: a weight for each row (N,).
            denominator: what reduction="mean" divides the sum by, in place of the sum of weights.
        """
        met = self._exchange_sizes(input, sample_weight, denominator, lambda: _check_labels(target, input))
        (features,) = self._features(input)
        temperature = self._hyper("temperature", features.shape[:1], features.dtype)
        if met.total == 0:
            return self._reduced(features.sum(1), met, None, sample_weight, denominator)
        (pool,) = met.gather(features)
        labels = target.long().unsqueeze(1)
        (everyone,) = met.gather(labels)
        own = met.start + torch.arange(len(features), device=features.device)
        scores, before = call(_Others, self._scores(features, pool, temperature), own)
        positive = torch.where(before, labels == everyone[:-1].t(), labels == everyone[1:].t())
        count = positive.sum(1)
        share = positive.to(scores.dtype) / count.clamp(min=1).unsqueeze(1)
        rows = self.loss(scores, share)
        return self._reduced(rows, met, count > 0, sample_weight, denominator)


def _check_features(name: str, value: Tensor) -> None:
    check_tensor(name, value)
    if not value.is_floating_point():
        raise TypeError(f"Expected `{name}` to hold floating-point features, but got {value.dtype}.")
    if value.ndim != 2 or value.shape[1] == 0:
        raise ValueError(f"Expected `{name}` of shape (N, D) with D at least 1, but got {tuple(value.shape)}.")


def _check_views(input: Tensor, other: Tensor) -> None:
    _check_features("input", input)
    _check_features("other", other)
    if input.shape != other.shape:
        raise ValueError(
            f"Expected `other` of the shape of `input`, {tuple(input.shape)}, but got {tuple(other.shape)}."
        )


def _check_labels(target: Tensor, input: Tensor) -> None:
    _check_features("input", input)
    check_tensor("target", target)
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"Expected `target` to hold integer labels, but got {target.dtype}.")
    if target.shape != input.shape[:1]:
        raise ValueError(
            f"Expected `target` of shape {tuple(input.shape[:1])} for `input` of shape {tuple(input.shape)}, "
            f"but got {tuple(target.shape)}."
        )


class _Direction(Function):
    """x / |x| of every row (N, D), and |x|, for any length from the smallest number to the largest.

    A zero row has direction 0 and, so that it gets no gradient, length inf.
    """

    has_plain_forward = generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        # Divided by the largest entry first: squares would overflow or vanish.
        peak = x.abs().amax(1, keepdim=True)
        zero = peak == 0
        scaled = x / peak.masked_fill(zero, 1.0)
        relative = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
        length = (relative * peak).clamp(min=torch.finfo(x.dtype).tiny).masked_fill(zero, torch.inf)
        return scaled / relative.masked_fill(zero, 1.0), length

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, to_direction: Tensor | None, to_length: Tensor | None) -> Tensor | None:
        direction, length = ctx.saved_tensors
        grad = None if to_length is None else to_length * direction
        if to_direction is not None:
            along = (direction * to_direction).sum(1, keepdim=True)
            across = (to_direction - direction * along) / length
            grad = across if grad is None else grad + across
        return grad


class _Others(Function):
    """(scores (n, N), own (n,)) -> the scores without each row's own column (n, N - 1), and which stand before it."""

    has_plain_forward = generate_vmap_rule = True

    @staticmethod
    def forward(scores: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        before = torch.arange(scores.shape[1] - 1, device=own.device) < own.unsqueeze(1)
        return torch.where(before, scores[:, :-1], scores[:, 1:]), before

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, None]:
        if grad is None:
            return None, None
        (before,) = ctx.saved_tensors
        left, right = grad.masked_fill(~before, 0.0), grad.masked_fill(before, 0.0)
        return functional.pad(left, (0, 1)) + functional.pad(right, (1, 0)), None
