"""Losses for many classes that look at a few of them: noise-contrastive estimation and sampled softmax."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lossfit.core import class_shards
from lossfit.core.autograd import readable
from lossfit.core.batch import read_batch
from lossfit.core.checks import check_index, check_per_class, check_tensor
from lossfit.core.hyper import Hyper, HyperValue
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.reduce import Reduction, weigh
from lossfit.losses.base import Loss
from lossfit.losses.nested import OuterLoss, without_classes
from lossfit.losses.single_label.base import SingleLabelLoss
from lossfit.losses.single_label.link import softplus


def sample_rivals(
    target: Tensor, num_classes: int, num_samples: int, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    r"""Classes for :class:`SampledSoftmaxLoss`: all targets of a batch, and others drawn evenly without replacement.

    With P different targets, :math:`m` = ``num_samples`` - P classes are drawn from the C - P that are left, each with
    probability :math:`q = m / (C - P)`. The targets are certain to be there: their log q is 0.

    Args:
        target: class indices of any shape; negative ones are left out.
        num_classes: C.
        num_samples: how many classes in all; above the number of different targets, unless these are all classes.
        generator: of the target's device, for the draw.

    Returns:
        Class indices (S,) and their log q (S,), with S the smaller one of ``num_samples`` and C.

    Raises:
        ValueError: ``num_samples`` leaves no rival to draw.
        IndexError: a target is not below ``num_classes``.

    Example:
        >>> samples, log_q = lossfit.sample_rivals(torch.tensor([7, 2, 7]), num_classes=10, num_samples=6)
        >>> samples[:2], log_q.exp()
        (tensor([2, 7]), tensor([1.0000, 1.0000, 0.5000, 0.5000, 0.5000, 0.5000]))
    """
    kept = target.unique().long()
    kept = kept[kept >= 0]
    if len(kept) and int(kept[-1]) >= num_classes:
        raise IndexError(f"Expected `target` to hold class indices below {num_classes}, but got {int(kept[-1])}.")
    others = num_classes - len(kept)
    drawn = min(max(num_samples - len(kept), 0), others)
    if drawn < min(others, 1):
        raise ValueError(
            f"Expected `num_samples` of at least {len(kept) + 1}, one above the number of different targets, "
            f"but got {num_samples}."
        )
    left = torch.ones(num_classes, dtype=torch.bool, device=target.device)
    left[kept] = False
    chosen = torch.randperm(others, generator=generator, device=target.device)[:drawn]
    log_q = torch.zeros(len(kept) + drawn, device=target.device)
    log_q[len(kept) :] = math.log(drawn / others) if others else 0.0
    return torch.cat([kept, left.nonzero().squeeze(1)[chosen]]), log_q


class SampledSoftmaxLoss(OuterLoss):
    r"""Sampled softmax, :math:`-\log \frac{e^{z_y}}{e^{z_y} + \sum_k e^{z_k - \log q_k}}` over sampled rivals k.

    :math:`q_k` is the probability that k is among the samples, or the expected number of times it is, where they are
    drawn with replacement. So the expected sum over the samples is the sum over all rivals. The loss itself is below
    that of the full softmax on average, by less the more samples there are. A sample that is the row's own target (an
    accidental hit) is no rival and left out.

    ``loss(input, rivals, log_q, hits)`` takes scores. :meth:`linear` takes the output layer and finds the hits. Samples
    come from :func:`sample_rivals` or from you.

    Args:
        loss: a single-label loss for the target against the corrected rivals; None for cross-entropy. Its reduction is
            not used. A copy is kept that shares its tensors.
        ignore_index: rows of :meth:`linear` with this target get loss 0, no gradient, and do not count in the mean.
        reduction: "mean", "sum" or "none".

    Raises:
        TypeError, ValueError, IndexError: naming the argument.

    Source: S. Jean et al., "On Using Very Large Target Vocabulary for Neural Machine Translation", 2015, section 3;
    Y. Bengio and J.-S. Senecal, "Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language
    Model", 2008, section 3.

    Example:
        >>> loss = lossfit.SampledSoftmaxLoss()
        >>> x, weight, target = torch.ones(2, 3), torch.eye(100, 3), torch.tensor([0, 7])
        >>> loss.linear(x, weight, target, *lossfit.sample_rivals(target, 100, 100))
        tensor(4.1554)
        >>> torch.nn.functional.cross_entropy(x @ weight.T, target)
        tensor(4.1554)
    """

    family = "contrastive"
    formula = "-log(exp(z_y) / (exp(z_y) + sum_k exp(z_k - log q_k))) over sampled rivals k"
    source = "S. Jean et al., On Using Very Large Target Vocabulary for Neural Machine Translation, 2015, section 3"

    def __init__(
        self, loss: SingleLabelLoss | None = None, *, ignore_index: int = -100, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(reduction=reduction)
        self.loss = without_classes(loss)
        smoothing: object = getattr(self.loss, "label_smoothing")  # noqa: B009
        if "label_smoothing" in self.loss._schedules or isinstance(smoothing, Tensor) or smoothing != 0:
            raise ValueError("Expected `loss` without `label_smoothing`, which needs the scores of all classes.")
        self.ignore_index = check_index("ignore_index", ignore_index)

    def forward(
        self,
        input: Tensor,
        rivals: Tensor,
        log_q: Tensor,
        hits: Tensor | None = None,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            input: the scores of the targets (N,).
            rivals: the scores of the samples (N, S).
            log_q: the logarithms of the samples' expected counts, (S,) or (N, S).
            hits: which samples are the row's own target (N, S), as a bool; None for none.
            sample_weight: a weight for each row (N,).
            denominator: what reduction="mean" divides the sum by, in place of the sum of weights.
        """
        _check_scores(input, "rivals", rivals)
        _check_logarithms("log_q", log_q, rivals.shape)
        if hits is not None:
            if not isinstance(hits, Tensor) or hits.dtype != torch.bool:
                raise TypeError(f"Expected `hits` to be a bool tensor, but got {_kind(hits)}.")
            if hits.shape != rivals.shape:
                raise ValueError(f"Expected `hits` of shape {tuple(rivals.shape)}, but got {tuple(hits.shape)}.")
        return self._reduced(input, rivals, log_q, hits, None, sample_weight, denominator)

    def linear(
        self,
        x: Tensor,
        weight: Tensor,
        target: Tensor,
        samples: Tensor,
        log_q: Tensor,
        bias: Tensor | None = None,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
    ) -> Tensor:
        """The loss of a linear output layer, of which only the rows of targets and samples are multiplied.

        Args:
            x: features (N, D).
            weight: of all classes (C, D).
            target: class indices (N,).
            samples: class indices (S,), one draw for the batch.
            log_q: the logarithms of the samples' expected counts (S,).
            bias: of all classes (C,).
            sample_weight, denominator: as in the call.
        """
        safe, valid = _check_head(x, weight, target, samples, bias, self.ignore_index)
        _check_logarithms("log_q", log_q, samples.shape)
        own, rivals = _head(x, weight, safe, valid, samples, bias)
        hits = samples == safe.unsqueeze(1)
        return self._reduced(own, rivals, log_q, hits, valid, sample_weight, denominator)

    def _reduced(
        self,
        own: Tensor,
        rivals: Tensor,
        log_q: Tensor,
        hits: Tensor | None,
        valid: Tensor | None,
        sample_weight: Tensor | None,
        denominator: float | Tensor | None,
    ) -> Tensor:
        dtype = accumulation_dtype(own)
        weighing = weigh(
            own.shape, dtype, self.reduction, valid=valid, sample_weight=sample_weight, denominator=denominator
        )
        temperature = self.loss._hyper(
            "temperature", own.shape, dtype
        )  # the correction is divided by it with the scores
        if isinstance(temperature, Tensor) and temperature.ndim:
            temperature = temperature.unsqueeze(1)
        own, rivals = own.to(dtype).unsqueeze(1), rivals.to(dtype)
        level = own.detach().clamp(torch.finfo(dtype).min, torch.finfo(dtype).max)
        # Relative to the target first, so that a common offset of the scores costs the correction no digits.
        corrected = (rivals - level) - temperature * log_q.to(dtype)
        if hits is not None:
            corrected = corrected.masked_fill(hits, -torch.inf)
        scores = torch.cat([own - level, corrected], 1)
        return weighing.reduce(self.loss(weighing.blank(scores), own.new_zeros(len(own), dtype=torch.int64)))


class NCELoss(Loss):
    r"""Noise-contrastive estimation: tell the target from k samples of a known noise distribution q.

    :math:`\mathrm{softplus}(-\Delta_y) + \sum_{j=1}^k \mathrm{softplus}(\Delta_j)` with
    :math:`\Delta_u = s_u - \log Z - \log(k q_u)`. With s the logarithm of a probability (or of a density) that need not
    be normalised, the optimum is the logarithm of the data's, normalised by itself. In contrast to
    :class:`SampledSoftmaxLoss` a noise sample may be the target.

    ``loss(input, noise, log_q, noise_log_q)`` takes scores, :meth:`linear` the output layer.

    Args:
        log_z: log Z, the logarithm of the normaliser: 0 where the scores find it themselves, or trainable if it is a
            parameter.
        ignore_index: rows of :meth:`linear` with this target get loss 0, no gradient, and do not count in the mean.
        reduction: "mean", "sum" or "none".

    Raises:
        TypeError, ValueError, IndexError: naming the argument.

    Source: M. U. Gutmann and A. Hyvarinen, "Noise-Contrastive Estimation of Unnormalized Statistical Models, with
    Applications to Natural Image Statistics", 2012, section 2.

    Example:
        >>> loss = lossfit.NCELoss()
        >>> log_q = torch.tensor(0.5).log()
        >>> loss(torch.zeros(1), torch.zeros(1, 2), log_q.expand(1), log_q.expand(2))
        tensor(2.0794)
    """

    family = "contrastive"
    formula = "softplus(-D_y) + sum_j softplus(D_j), D_u = s_u - log Z - log(k q_u), over k noise samples j"
    source = (
        "M. U. Gutmann and A. Hyvarinen, Noise-Contrastive Estimation of Unnormalized Statistical Models, "
        "2012, section 2"
    )
    hypers = {"log_z": Hyper("logarithm of the normaliser of the scores")}

    def __init__(self, log_z: HyperValue = 0.0, *, ignore_index: int = -100, reduction: Reduction = "mean") -> None:
        super().__init__({"log_z": log_z}, reduction=reduction)
        self.ignore_index = check_index("ignore_index", ignore_index)

    def forward(
        self,
        input: Tensor,
        noise: Tensor,
        log_q: Tensor,
        noise_log_q: Tensor,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            input: the scores of the targets (N,).
            noise: the scores of the noise samples (N, k).
            log_q: the logarithms of the targets' noise probabilities (N,).
            noise_log_q: those of the noise samples, (k,) or (N, k).
            sample_weight: a weight for each row (N,).
            denominator: what reduction="mean" divides the sum by, in place of the sum of weights.
        """
        _check_scores(input, "noise", noise)
        _check_logarithms("log_q", log_q, input.shape)
        _check_logarithms("noise_log_q", noise_log_q, noise.shape)
        return self._reduced(input, noise, log_q, noise_log_q, None, sample_weight, denominator)

    def linear(
        self,
        x: Tensor,
        weight: Tensor,
        target: Tensor,
        samples: Tensor,
        log_q: Tensor,
        bias: Tensor | None = None,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
    ) -> Tensor:
        """The loss of a linear output layer, of which only the rows of targets and samples are multiplied.

        Args:
            x: features (N, D).
            weight: of all classes (C, D).
            target: class indices (N,).
            samples: class indices (k,) drawn from the noise, with replacement, one draw for the batch.
            log_q: the logarithms of the noise probabilities of all classes (C,).
            bias: of all classes (C,).
            sample_weight, denominator: as in the call.
        """
        safe, valid = _check_head(x, weight, target, samples, bias, self.ignore_index)
        _check_logarithms("log_q", log_q, weight.shape[:1])
        own, noise = _head(x, weight, safe, valid, samples, bias)
        return self._reduced(own, noise, log_q[safe], log_q[samples], valid, sample_weight, denominator)

    def _reduced(
        self,
        own: Tensor,
        noise: Tensor,
        log_q: Tensor,
        noise_log_q: Tensor,
        valid: Tensor | None,
        sample_weight: Tensor | None,
        denominator: float | Tensor | None,
    ) -> Tensor:
        dtype = accumulation_dtype(own)
        weighing = weigh(
            own.shape, dtype, self.reduction, valid=valid, sample_weight=sample_weight, denominator=denominator
        )
        log_z = self._hyper("log_z", own.shape, dtype)
        shift = torch.as_tensor(log_z, dtype=dtype, device=own.device) + math.log(noise.shape[1])
        own, noise = weighing.blank(own), weighing.blank(noise)
        right = own.to(dtype) - log_q.to(dtype) - shift
        wrong = noise.to(dtype) - noise_log_q.to(dtype) - (shift.unsqueeze(1) if shift.ndim else shift)
        return weighing.reduce(softplus(-right) + softplus(wrong).sum(1))


def _head(
    x: Tensor, weight: Tensor, target: Tensor, valid: Tensor | None, samples: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The scores of the targets (N,) and of the samples (N, S)."""
    dtype = accumulation_dtype(x)
    x = x.to(dtype)
    if valid is not None:
        x = x.masked_fill(~valid.unsqueeze(1), 0.0)
    with torch.autocast(x.device.type, enabled=False):
        own = (x * weight[target].to(dtype)).sum(1)
        others = x @ weight[samples].to(dtype).t()
    if bias is None:
        return own, others
    return own + bias[target].to(dtype), others + bias[samples].to(dtype)


def _check_head(
    x: Tensor, weight: Tensor, target: Tensor, samples: Tensor, bias: Tensor | None, ignore_index: int
) -> tuple[Tensor, Tensor | None]:
    """The targets, 0 where they are ignored, and which are not."""
    class_shards.refuse(x=x, weight=weight, target=target, samples=samples, bias=bias)
    for name, value in (("x", x), ("weight", weight)):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise TypeError(f"Expected `{name}` to be a floating-point tensor, but got {_kind(value)}.")
        if value.ndim != 2:
            raise ValueError(f"Expected `{name}` of 2 dimensions, but got {tuple(value.shape)}.")
    if x.shape[1] != weight.shape[1]:
        raise ValueError(f"Expected `weight` of shape (C, {x.shape[1]}), but got {tuple(weight.shape)}.")
    for name, value in (("target", target), ("samples", samples)):
        if not isinstance(value, Tensor) or value.is_floating_point() or value.dtype == torch.bool:
            raise TypeError(f"Expected `{name}` to be a tensor of class indices, but got {_kind(value)}.")
        if value.ndim != 1:
            raise ValueError(f"Expected `{name}` of 1 dimension, but got {tuple(value.shape)}.")
    if len(target) != len(x):
        raise ValueError(f"Expected `target` of shape ({len(x)},), but got {tuple(target.shape)}.")
    if len(samples) == 0:
        raise ValueError("Expected `samples` to hold at least one class, but got none.")
    check_per_class("bias", bias, len(weight))
    if readable(samples) and (samples.min() < 0 or samples.max() >= len(weight)):
        raise IndexError(
            f"Expected `samples` in [0, {len(weight)}), "
            f"but got values from {int(samples.min())} to {int(samples.max())}."
        )
    like = x.new_empty(1).expand(len(x), len(weight))
    targets = read_batch(like, target, ignore_index, probabilities=False).targets
    return targets.target, targets.valid


def _check_scores(input: Tensor, name: str, others: Tensor) -> None:
    for called, value, dimensions in (("input", input, 1), (name, others, 2)):
        check_tensor(called, value)
        if not value.is_floating_point():
            raise TypeError(f"Expected `{called}` to hold floating-point scores, but got {value.dtype}.")
        if value.ndim != dimensions:
            shape = "(N,)" if dimensions == 1 else "(N, S)"
            raise ValueError(f"Expected `{called}` of shape {shape}, but got {tuple(value.shape)}.")
    if len(others) != len(input) or others.shape[1] == 0:
        raise ValueError(
            f"Expected `{name}` of shape ({len(input)}, S) with S at least 1, but got {tuple(others.shape)}."
        )


def _check_logarithms(name: str, value: Tensor, shape: torch.Size) -> None:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise TypeError(f"Expected `{name}` to be a tensor of logarithms, but got {_kind(value)}.")
    if value.shape not in (shape, shape[-1:]):
        shapes = " or ".join(str(tuple(s)) for s in dict.fromkeys((shape[-1:], shape)))
        raise ValueError(f"Expected `{name}` of shape {shapes}, but got {tuple(value.shape)}.")
    if readable(value) and not bool(value.isfinite().all()):
        raise ValueError(f"Expected `{name}` to be finite, but got values from {value.min()} to {value.max()}.")


def _kind(value: object) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
