"""Scaled cosines as the last layer, on one process or with the classes spread over ranks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lossfit.core import class_shards, row_gather
from lossfit.core.checks import check_choice
from lossfit.core.class_shards import Shard
from lossfit.core.cosines import common_dtype, cosines, inverse_norm, norm
from lossfit.core.hyper import Number
from lossfit.heads.linear_head import Head
from lossfit.heads.margins import Margin
from lossfit.linear import features
from lossfit.linear.features import Backend, Rows
from lossfit.losses.sampled import sample_rivals
from lossfit.losses.single_label.base import SingleLabelLoss, without_places
from lossfit.losses.single_label.from_features import Margined
from lossfit.losses.single_label.link import GapLoss

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

Scale = float | Literal["auto", "norm"]


class CosineHead(Head):
    r"""Scaled cosines, :math:`z_c = s \cos\theta_c`, with a margin on the target's: NormFace and all that follow it.

    ``head(x)`` are the scaled cosines without a margin. In ``head.loss`` the target's score is
    :math:`s\, t(\cos\theta_y)`, with t the margin:

    - NormFace: ``CosineHead(D, C)``; its scale may be trainable.
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
        learn_scale: whether s is trainable, :math:`s_{\min} + \mathrm{softplus}(\text{raw\_scale})`, and starts at
            ``scale``.
        min_scale: the least trainable scale.
        probability: what scale="auto" is to reach, in (1 / C, 1).
        mesh: a mesh of one dimension over whose ranks the classes are dealt out, as many to each and the last ones
            fewer. All of them must have the same rows, unless ``gather`` is True. Then ``head.loss`` never makes the
            matrix of scores, and ``head(x)`` gives a DTensor sharded over the classes.
        gather: with ``mesh``, whether ranks have rows of their own, as in data-parallel training. They are gathered,
            and every rank returns the loss of all rows. Features get their gradient times the number of ranks, since
            DistributedDataParallel and FSDP take the average. Losses with reduction="none" are not taken.
        sample_rate: in (0, 1]; below 1 ``head.loss`` in training mode looks, on every rank, at the targets of the
            batch and at some other classes drawn evenly, so many in all that they are this share of the rank's.
            Their scores are corrected by the logarithm of the probability of being drawn. It takes losses on the soft
            gap, without label smoothing, with a number as temperature. The weight's gradient is sparse: of the rows
            that were looked at. SGD without momentum, SparseAdam and Adagrad take it.

    Attributes:
        weight: (C, D), or with sub-centres (C * K, D), those of a class side by side. With ``mesh`` a DTensor; with
            ``sample_rate`` this rank's part, and a DTensor in the state dict.
        raw_scale: the parameter behind a trainable scale.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what was expected and what came.

    Differentiable twice in eager mode, and works under ``torch.compile``, ``torch.func`` and autocast.

    Source: F. Wang et al., "NormFace: L2 Hypersphere Embedding for Face Verification", 2017, section 3; J. Deng et al.,
    "Sub-center ArcFace", 2020, section 3.2; X. An et al., "Killing Two Birds with One Stone: Efficient and Robust
    Training of Face Recognition CNNs by Partial FC", 2022, section 3 (sampled rivals).

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
        mesh: DeviceMesh | None = None,
        gather: bool = False,
        sample_rate: float = 1.0,
    ) -> None:
        super().__init__()
        self._start(in_features, num_classes, margin)
        if isinstance(sub_centers, bool) or not isinstance(sub_centers, int) or sub_centers < 1:
            raise ValueError(f"Expected `sub_centers` to be an integer of at least 1, but got {sub_centers!r}.")
        self.in_features, self.num_classes, self.sub_centers = in_features, num_classes, sub_centers
        self.margin = margin
        self._spread(mesh, gather, sample_rate)
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
        """S: a number, "norm", or as a tensor if it is trainable."""
        if self.raw_scale is None:
            return self._scale
        return self.min_scale + functional.softplus(self.raw_scale)

    def _spread(self, mesh: DeviceMesh | None, gather: bool, sample_rate: float) -> None:
        """Make the weight, and find out which classes are here."""
        if isinstance(sample_rate, bool) or not isinstance(sample_rate, int | float) or not 0 < sample_rate <= 1:
            raise ValueError(f"Expected `sample_rate` in (0, 1], but got {sample_rate!r}.")
        if gather and mesh is None:
            raise ValueError("Expected `gather` only with `mesh`, the ranks to gather from, but got mesh=None.")
        self.mesh, self.gather, self.sample_rate = mesh, gather, float(sample_rate)
        self._shard = Shard(None, 0, self.num_classes, self.num_classes, self.num_classes)
        shape = (self.num_classes * self.sub_centers, self.in_features)
        if mesh is None:
            self.weight = nn.Parameter(torch.empty(shape))
            return
        if mesh.ndim != 1:
            raise ValueError(
                f"Expected `mesh` of one dimension, but got {mesh.ndim}. Of a larger mesh, take the part for the "
                f"classes: mesh['name']."
            )
        self._shard = class_shards.spread_over(mesh, self.num_classes)
        each = -(-shape[0] // mesh.size())
        if each % self.sub_centers:
            raise ValueError(
                f"Expected `num_classes` such that no class's {self.sub_centers} sub-centres are on two ranks, "
                f"but got {self.num_classes} on {mesh.size()} ranks."
            )
        local = torch.empty(self._shard.count * self.sub_centers, self.in_features, device=mesh.device_type)
        self.weight = nn.Parameter(local if self.sample_rate < 1 else self._sharded(local))

    def _sharded(self, local: Tensor) -> Tensor:
        """The weight as a DTensor, of which ``local`` is here."""
        from torch.distributed.tensor import DTensor
        from torch.distributed.tensor import Shard as Along

        assert self.mesh is not None
        shape = torch.Size([self.num_classes * self.sub_centers, self.in_features])
        return DTensor.from_local(local, self.mesh, [Along(0)], run_check=False, shape=shape, stride=(shape[1], 1))

    def _local(self) -> Tensor:
        """The part of the weight that is here."""
        weight: Any = self.weight
        local: Tensor = weight.to_local() if class_shards.is_sharded(weight) else weight
        return local

    def reset_parameters(self) -> None:
        """Draw the weights anew: all directions alike, lengths about 1."""
        generator = None
        with torch.no_grad():
            local = self._local()
            if self.mesh is not None:  # ranks with the same seed shall not draw the same classes
                seed = int(torch.randint(1 << 31, ())) + self.mesh.get_local_rank()
                generator = torch.Generator(local.device).manual_seed(seed)
            local.normal_(std=1 / math.sqrt(self.in_features), generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """The scaled cosines (..., C) of features (..., D), without a margin."""
        x = self._features(x)
        return self._joined(self._scaled(self._columns(x), x))

    def cosines(self, x: Tensor) -> Tensor:
        """The cosines (..., C) between features (..., D) and the classes' weights."""
        return self._joined(self._columns(self._features(x)))

    def _columns(self, x: Tensor) -> Tensor:
        """The cosines to the classes that are here."""
        flat = x.reshape(-1, self.in_features)
        cosine = cosines(flat if self.mesh is None else self._shard.broadcast_with_grad_sum(flat), self._local())
        if self.sub_centers > 1:
            cosine = cosine.unflatten(1, (-1, self.sub_centers)).amax(2)
        return cosine.view(*x.shape[:-1], cosine.shape[1])

    def _joined(self, columns: Tensor) -> Tensor:
        """The columns of this rank's classes as a DTensor of all of them, where there are more ranks."""
        if self.mesh is None:
            return columns
        from torch.distributed.tensor import DTensor
        from torch.distributed.tensor import Shard as Along

        shape = torch.Size([*columns.shape[:-1], self.num_classes])
        stride = torch.empty(shape, device="meta").stride()
        placed = [Along(columns.ndim - 1)]
        return DTensor.from_local(columns.contiguous(), self.mesh, placed, run_check=False, shape=shape, stride=stride)

    def _scaled(self, cosine: Tensor, x: Tensor) -> Tensor:
        scale = self.scale
        by: Number = norm(x.to(cosine.dtype)).unsqueeze(-1) if isinstance(scale, str) else scale
        if self.mesh is not None and isinstance(by, Tensor):
            by = self._shard.broadcast_with_grad_sum(by)
        return cosine * by

    def _with_margin(self, x: Tensor, target: Tensor, margin: Margin) -> Tensor:
        cosine = self._columns(x)
        at = target.unsqueeze(1)
        score = margin(cosine.gather(1, at).squeeze(1), target)
        return self._scaled(cosine.scatter(1, at, score.to(cosine.dtype).unsqueeze(1)), x)

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
        if self.gather:
            if loss is not None and loss.reduction == "none":
                raise ValueError(
                    "Expected `loss` with reduction 'mean' or 'sum' where rows are gathered, but got 'none'."
                )
            x, target, sample_weight = self._gathered(x, target, sample_weight)
        return super().loss(x, target, loss, sample_weight=sample_weight, denominator=denominator, backend=backend)

    loss.__doc__ = Head.loss.__doc__

    def _gathered(
        self, x: Tensor, target: Tensor, sample_weight: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The rows of all ranks, and for the features the sum of the gradients, which are the same on all of them."""

        def rows() -> int:
            self._rows(x)
            for name, value, kind in (("target", target, "class indices"), ("sample_weight", sample_weight, "numbers")):
                if value is None and name == "sample_weight":
                    continue
                fits = isinstance(value, Tensor) and value.shape == x.shape[:1]
                if not fits or (isinstance(value, Tensor) and name == "target" and value.is_floating_point()):
                    shown = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                    raise ValueError(f"Expected `{name}` of {kind} of shape ({len(x)},), but got {shown}.")
            return len(x)

        def shared() -> dict[str, Any]:
            weight = "none" if sample_weight is None else str(sample_weight.dtype)
            return {"x": f"{x.dtype} of width {x.shape[1]}", "sample_weight": weight}

        device = self._local().device
        met = row_gather.exchange_sizes(self._shard.group, device, rows, shared)  # type: ignore[arg-type]
        (every,) = met.gather(x, alike=True)
        (labels,) = met.gather(target.long().unsqueeze(1))
        if sample_weight is not None:
            sample_weight = met.gather(sample_weight.unsqueeze(1), alike=True)[0].squeeze(1)
        return every, labels.squeeze(1), sample_weight

    @property
    def _is_spread(self) -> bool:
        return self.mesh is not None

    def _is_dense(self, x: Tensor, backend: Backend) -> bool:
        if self.mesh is not None or (self.sample_rate < 1 and self.training):
            return False
        return super()._is_dense(x, backend)

    def _fused(
        self, x: Tensor, target: Tensor, loss: SingleLabelLoss, agreed: Callable[[], dict[str, Any]]
    ) -> tuple[Rows, Margined | None]:
        weight, shard = self._local(), None if self.mesh is None else self._shard
        soft, bias = self.margin is None, None
        if self.sample_rate < 1 and self.training:
            weight, bias, shard = self._sampled(target, loss)
            soft = False
        rows = features.read(
            x.to(weight.dtype) if isinstance(x, Tensor) and x.is_floating_point() else x,
            weight,
            target,
            None,
            loss.ignore_index,
            probabilities=soft,
            shard=shard,
            centers=self.sub_centers,
            agreed=lambda: {**agreed(), "scale": self.scale, "margin": without_places(repr(self.margin))},
        )
        kind = common_dtype(x, weight)
        x = rows.take(x).to(kind)
        scale, size = self.scale, norm(x)
        by: Number = size if isinstance(scale, str) else scale
        unit = x * inverse_norm(x).unsqueeze(1)
        scaled = unit * (by.unsqueeze(1) if isinstance(by, Tensor) and by.ndim else by)
        rows = rows._replace(layer=rows.layer._replace(x=scaled, bias=bias, unit=True))

        def cosine(own: Tensor, numbers: dict[str, Number]) -> Tensor:
            by = torch.as_tensor(numbers["scale"], dtype=kind, device=own.device)
            return torch.where(by > 0, own, 0.0) / torch.where(by > 0, by, 1.0)

        def back(score: Tensor, numbers: dict[str, Number]) -> Tensor:
            return score * numbers["scale"]

        return rows, self._margined(cosine, back, {"scale": by})

    def _sampled(self, target: Tensor, loss: SingleLabelLoss) -> tuple[Tensor, Tensor, Shard]:
        """Some of the classes that are here: their weights, what corrects their scores, and which they are."""
        if not (isinstance(loss, GapLoss) and loss.gap == "soft"):
            raise ValueError(f"Expected `loss` on the soft gap where `sample_rate` is below 1, but got {loss}.")
        smoothing: Any = loss.label_smoothing
        if isinstance(smoothing, Tensor) or smoothing > 0:
            raise ValueError("Expected `loss` without `label_smoothing` where `sample_rate` is below 1.")
        temperature: Any = loss.temperature
        if isinstance(temperature, Tensor):
            raise ValueError("Expected `loss` with a number as `temperature` where `sample_rate` is below 1.")
        if not isinstance(target, Tensor) or target.is_floating_point():
            kind = target.dtype if isinstance(target, Tensor) else type(target).__name__
            raise TypeError(f"Expected `target` to hold class indices where `sample_rate` is below 1, but got {kind}.")
        shard = self._shard
        flat = target.reshape(-1)
        there = flat[(flat >= shard.start) & (flat < shard.start + shard.count)] - shard.start
        kept = len(there.unique())
        wanted = max(round(self.sample_rate * shard.count), kept + (kept < shard.count))
        columns, log_q = sample_rivals(there, shard.count, wanted)
        columns, order = columns.sort()
        rows = columns if self.sub_centers == 1 else _with_centers(columns, self.sub_centers)
        weight = functional.embedding(rows, self.weight, sparse=True)
        widest = max(round(self.sample_rate * shard.widest), 1)
        # What corrects the scores is divided by the temperature with them.
        bias = (-temperature * log_q[order]).repeat_interleave(self.sub_centers)
        return weight, bias, replace(shard, columns=columns + shard.start, widest=widest)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        name = prefix + "weight"
        if self.mesh is not None and not class_shards.is_sharded(destination[name]):
            destination[name] = self._sharded(destination[name])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        name = prefix + "weight"
        if (
            name in state_dict
            and not class_shards.is_sharded(self.weight)
            and class_shards.is_sharded(state_dict[name])
        ):
            state_dict[name] = state_dict[name].to_local()
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        scale = self.scale
        scale = scale.item() if isinstance(scale, Tensor) else scale
        parts = [*self._changed("scale", "mesh"), f"scale={scale!r}"]
        parts += [] if self.mesh is None else [f"ranks={self.mesh.size()}"]
        parts += [] if self.raw_scale is None else ["learn_scale=True"]
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
    lead = (1.0 if margin is None else margin._best()) + 1 / (num_classes - 1)
    if lead <= 0:
        raise ValueError(f"Expected `margin` to leave the target a lead at an angle of 0, but it is {lead:g}.")
    return (math.log(num_classes - 1) + math.log(probability) - math.log1p(-probability)) / lead


def _with_centers(columns: Tensor, centers: int) -> Tensor:
    """The rows of the weight that belong to classes."""
    return (columns.unsqueeze(1) * centers + torch.arange(centers, device=columns.device)).reshape(-1)


def _start_scale(scale: Scale, classes: int, probability: float, margin: Margin | None) -> float | str:
    if isinstance(scale, str):
        check_choice("scale", scale, ("auto", "norm"))
        return scale if scale == "norm" else normface_scale(classes, probability, margin)
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise TypeError(f"Expected `scale` to be a number, 'auto' or 'norm', but got {type(scale).__name__}.")
    if not 0 < scale < math.inf:
        raise ValueError(f"Expected `scale` to be positive and finite, but got {scale}.")
    return float(scale)
