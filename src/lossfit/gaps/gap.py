"""The primitive: class scores to the target's score, its rivals' score, and what else one pass can tell.

Every single-label loss of the library is a function of the gap ``target - rivals``. What touches all C classes is
here and nowhere else, worked through in blocks of rows that fit the cache. Between forward and backward only the
scores themselves and numbers per row are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lossfit import kernels
from lossfit.core.autograd import call
from lossfit.core.batch import Batch, read_batch
from lossfit.core.checks import check_choice, check_per_class
from lossfit.core.numerics import LOWEST, accumulation_dtype
from lossfit.gaps.autograd_functions import Forward
from lossfit.gaps.blocks import finite, per_class
from lossfit.gaps.sharded import Sharded
from lossfit.gaps.types import KINDS, Gap, GapFields, Kind


def gap(
    input: Tensor,
    target: Tensor,
    kind: Kind = "soft",
    *,
    mean: bool = False,
    hit: bool = False,
    entropy: bool = False,
    mean_weight: Tensor | None = None,
    ignore_index: int = -100,
    backend: kernels.Backend = "auto",
) -> Gap:
    r"""Target score and rival score of every row.

    With scores :math:`z` and target class :math:`y`, ``target`` is :math:`t = z_y` and ``rivals`` is

    - ``kind="soft"``: :math:`r = \log\sum_{k \neq y} e^{z_k}`. Then :math:`d = t - r` is the log-odds of the target:
      :math:`\log p_y = -\mathrm{softplus}(-d)` and :math:`1 - p_y = \mathrm{sigmoid}(-d)`, without cancellation,
      and :math:`\mathrm{logsumexp}(z) = \mathrm{logaddexp}(t, r)`.
    - ``kind="hard"``: :math:`r = \max_{k \neq y} z_k`; rivals that tie share the gradient.

    The target is left out before the maximum is taken, so a row with the target far ahead keeps its rivals' digits.

    Args:
        input: scores (N, C), (N, C, d1, ...) or (C,), of any floating-point type.
        target: class indices in [0, C) or ``ignore_index``, of shape (N,), (N, d1, ...) or ().
        kind: "soft" or "hard".
        mean: also return the mean score of the row, :math:`\frac1C \sum_k z_k`.
        hit: also return whether the target has the largest score (the first one, if scores tie), as a bool.
        entropy: also return the entropy of softmax(z) in nats.
        mean_weight: weights (C,) for ``mean``: :math:`\frac1C \sum_k w_k z_k`. They get no gradient.
        ignore_index: rows with this target get 0 everywhere and no gradient.
        backend: "triton" for the kernels, "torch" for plain PyTorch; "auto" leaves it to
            :func:`lossfit.kernels.using`.

    Returns:
        A :class:`Gap`; float64 for float64 input, else float32. Where all rivals are -inf, or there is none, ``rivals``
        is the lowest number of the type, halved (to rounding).

    Raises:
        TypeError: ``input`` is not floating point, or ``target`` is not of an integer type.
        ValueError: the shapes do not fit, ``kind`` or ``backend`` is unknown, or the kernels cannot run on the device.
        ImportError: ``backend`` is "triton", which is not installed.
        IndexError: a target is out of range; the error names its position.

    Differentiable twice in eager mode, and works under ``torch.compile``, ``torch.func`` and autocast.

    Example:
        >>> z = torch.tensor([[2.0, 0.0, 0.0]])
        >>> g = gap(z, torch.tensor([0]))
        >>> torch.sigmoid(g.log_odds), z.softmax(1)[:, 0]
        (tensor([0.7870]), tensor([0.7870]))
    """
    check_choice("kind", kind, KINDS)
    batch = read_batch(input, target, ignore_index, probabilities=False)
    check_per_class("mean_weight", mean_weight, batch.classes)
    with kernels.using(kernels.current() if backend == "auto" else backend):
        found = gap_rows(batch, kind, mean=mean, hit=hit, entropy=entropy, mean_weight=mean_weight)
    if batch.unbatched:
        found = Gap._make(None if v is None else v.squeeze(0) for v in found)
    return found


def gap_rows(
    batch: Batch,
    kind: Kind,
    *,
    mean: bool = False,
    hit: bool = False,
    entropy: bool = False,
    mean_weight: Tensor | None = None,
) -> Gap:
    """:func:`gap` for a batch that has been checked."""
    scores, target, valid = batch.input, batch.target, batch.valid
    shape = target.shape
    if scores.ndim > 3:
        scores, target = scores.flatten(2), target.flatten(1)
        valid = None if valid is None else valid.flatten(1)
    if mean_weight is not None:
        mean_weight = batch.local(mean_weight)
    find: Callable[..., Any] = _traced(scores) if torch.compiler.is_compiling() else _blocked
    if batch.shard is not None:
        find = partial(call, Sharded, batch.shard)
    if entropy and kind == "hard":  # the entropy needs the soft rivals: a second pass
        found = find(scores, target, valid, mean_weight, True, mean, hit, False)
        found = (*found[:4], find(scores, target, valid, None, False, False, False, True)[4])
    else:
        found = find(scores, target, valid, mean_weight, kind == "hard", mean, hit, entropy)
    if len(shape) > 2:
        found = tuple(None if v is None else v.view(shape) for v in found)
    return Gap(*found)


def _blocked(*arguments: Any) -> GapFields:
    found: GapFields = call(Forward, *arguments, None)
    return found


def all_log_odds(batch: Batch, kind: Kind) -> Tensor:
    """The gap of every class as if it were the target, (N, C, d1, ...), for soft targets.

    Starting from the gap of the arg max, p_c and 1 - p_c of every other class keep their digits.
    """
    scores = batch.input.to(accumulation_dtype(batch.input))
    batch = Batch(scores, batch.top(), shard=batch.shard)
    best = gap_rows(batch, kind)
    target, lead = batch.shared(best.target).unsqueeze(1), batch.shared(best.log_odds).unsqueeze(1)
    is_top = batch.is_own()
    if kind == "hard":
        return torch.where(is_top, lead, scores - target)
    # At most log(1/2) for every class but the top one, whose place is kept harmless for the gradient.
    log_p = torch.where(is_top, -1.0, scores - target + logsigmoid(lead))
    return torch.where(is_top, lead, log_p - torch.log1p(-log_p.exp()))


def _traced(scores: Tensor) -> Callable[..., GapFields]:
    """What a compiler is shown: plain operations, or the kernels where they are asked for."""
    if not kernels.chosen(scores):
        return _traceable
    from lossfit.kernels import launch

    return launch.forward


def _traceable(
    scores: Tensor,
    target: Tensor,
    valid: Tensor | None,
    weight: Tensor | None,
    hard: bool,
    mean: bool,
    hit: bool,
    entropy: bool,
) -> GapFields:
    """The same in plain operations, for ``torch.compile`` and ``torch.export`` to differentiate and fuse."""
    z = scores.to(accumulation_dtype(scores))
    if valid is not None:
        z = z.masked_fill(~valid.unsqueeze(1), 0.0)
    at = target.unsqueeze(1)
    own = z.gather(1, at).squeeze(1)
    others = z.scatter(1, at, LOWEST[z.dtype])
    rivals = others.amax(1) if hard else others.logsumexp(1)
    mean_score = is_hit = row_entropy = None
    if mean:
        mean_score = (z if weight is None else z * per_class(weight, z)).sum(1) / z.shape[1]
    if hit:
        is_hit = z.argmax(1) == target
    if entropy:
        log_p = finite(z - torch.logaddexp(own, rivals).unsqueeze(1))
        row_entropy = -(log_p.exp() * log_p).sum(1)
    found = (own, rivals, mean_score, is_hit, row_entropy)
    if valid is None:
        return found
    return tuple(None if v is None else v.masked_fill(~valid, 0) for v in found)
