"""The primitive: class scores to the target's score, its rivals' score, and what else one pass can tell.

Every single-label loss of the library is a function of the gap, the lead of the target over its rivals. What touches
all C classes is here and nowhere else, worked through in blocks of rows that fit the cache. Each row is taken relative
to its top rival, so a common offset of its scores costs no digits. Between forward and backward only the scores
themselves and numbers per row are kept.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lossfit import kernels
from lossfit.core.autograd import call, forward_mode
from lossfit.core.batch import Targets, read_batch, top_class
from lossfit.core.checks import check_choice, check_constant, check_per_class
from lossfit.core.class_shards import Shard
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.row_stats import RowInputs, RowStats, Wanted, finite
from lossfit.gaps.autograd_functions import Forward
from lossfit.gaps.blocks import per_class
from lossfit.gaps.fields import to_gap
from lossfit.gaps.sharded import Sharded
from lossfit.gaps.types import KINDS, Gap, Kind


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
    ``log_odds`` and ``over_mean`` are made of differences of scores: they have all their digits at any common offset of
    the scores, where ``target - rivals`` loses some.

    Args:
        input: scores (N, C), (N, C, d1, ...) or (C,), of any floating-point type.
        target: class indices in [0, C) or ``ignore_index``, of shape (N,), (N, d1, ...) or ().
        kind: "soft" or "hard".
        mean: also return the mean score of the row, :math:`\frac1C \sum_k z_k`, as ``mean``, and the mean lead of the
            target, :math:`\frac1C \sum_k (z_y - z_k)`, as ``over_mean``.
        hit: also return whether the target has the largest score (the first one, if scores tie), as a bool.
        entropy: also return the entropy of softmax(z) in nats.
        mean_weight: weights (C,) for the two: :math:`\frac1C \sum_k w_k z_k` and
            :math:`\frac1C \sum_k w_k (z_y - z_k)`, constants.
        ignore_index: rows with this target get 0 everywhere and no gradient.
        backend: "triton" for the kernels, "native" for those of a CPU, "torch" for plain PyTorch; "auto" leaves it to
            :func:`lossfit.kernels.using`.

    Returns:
        A :class:`Gap`; float64 for float64 input, else float32. Where all rivals are -inf, or there is none, ``rivals``
        is the lowest number of the type.

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
    scores, targets, unbatched = read_batch(input, target, ignore_index, probabilities=False)
    check_per_class("mean_weight", mean_weight, targets.classes)
    check_constant(mean_weight=mean_weight)
    with kernels.using(kernels.current() if backend == "auto" else backend):
        result = gap_rows(scores, targets, kind, mean=mean, hit=hit, entropy=entropy, mean_weight=mean_weight)
    if unbatched:
        result = Gap._make(None if v is None else v.squeeze(0) for v in result)
    return result


def gap_rows(
    scores: Tensor,
    targets: Targets,
    kind: Kind,
    *,
    mean: bool = False,
    hit: bool = False,
    entropy: bool = False,
    mean_weight: Tensor | None = None,
) -> Gap:
    """:func:`gap` for scores (N, C, d1, ...) and class indices that have been checked."""
    target, valid = targets.target, targets.valid
    shape = target.shape
    if scores.ndim > 3:
        scores, target = scores.flatten(2), target.flatten(1)
        valid = None if valid is None else valid.flatten(1)
    two_passes = entropy and kind == "hard"  # the entropy needs the soft rivals
    if two_passes:  # whose gradients add up here, not in half precision
        scores = scores.to(accumulation_dtype(scores))
    rows = RowInputs(target, valid, weight=mean_weight)
    wanted = Wanted(kind == "hard", mean, hit, entropy and kind == "soft")
    result = to_gap(_stats(scores, rows, wanted, targets.shard), rows, targets.classes)
    if two_passes:
        soft = to_gap(_stats(scores, rows, Wanted(entropy=True), targets.shard), rows, targets.classes)
        result = result._replace(entropy=soft.entropy)
    if len(shape) > 2:
        result = Gap._make(None if v is None else v.view(shape) for v in result)
    return result


def _stats(scores: Tensor, rows: RowInputs, wanted: Wanted, shard: Shard | None) -> RowStats:
    if shard is not None:
        return RowStats(*call(Sharded, shard, scores, rows.target, rows.valid, rows.weight, *wanted))
    if not (torch.compiler.is_compiling() or forward_mode()):
        return RowStats(*call(Forward, scores, *rows, *wanted))
    if forward_mode() or not kernels.chosen(scores):
        return _traceable(scores, rows, wanted)
    from lossfit.kernels import launch

    return launch.forward(scores, rows, wanted)


def all_log_odds(scores: Tensor, kind: Kind, shard: Shard | None = None) -> Tensor:
    """The gap of every class as if it were the target, (N, C, d1, ...), for soft targets.

    Starting from the gap of the arg max, p_c and 1 - p_c of every other class keep their digits.
    """
    scores = scores.to(accumulation_dtype(scores))
    classes = scores.shape[1] if shard is None else shard.total
    targets = Targets(top_class(scores, shard), classes, shard=shard)
    best = gap_rows(scores, targets, kind)
    target, lead = (targets.broadcast(v).unsqueeze(1) for v in (best.target, best.log_odds))
    is_top = targets.is_own(scores)
    if kind == "hard":
        return torch.where(is_top, lead, scores - target)
    # At most log(1/2) for every class but the top one, whose place is kept harmless for the gradient.
    log_p = torch.where(is_top, -1.0, scores - target + logsigmoid(lead))
    return torch.where(is_top, lead, log_p - torch.log1p(-log_p.exp()))


def _traceable(scores: Tensor, rows: RowInputs, wanted: Wanted) -> RowStats:
    """The same in plain operations, for ``torch.compile``, ``torch.export`` and forward mode to differentiate."""
    z = scores.to(accumulation_dtype(scores))
    if rows.valid is not None:
        z = z.masked_fill(~rows.valid.unsqueeze(1), 0.0)
    at = rows.target.unsqueeze(1)
    own, others = z.gather(1, at), z.scatter(1, at, -torch.inf)
    top = finite(others.detach().amax(1, keepdim=True))
    mean = is_hit = among = None
    if wanted.mean:
        behind = (z - finite(own.detach())).scatter(1, at, 0.0)
        behind = behind if rows.weight is None else behind * per_class(rows.weight, behind)
        mean = behind.sum(1) / z.shape[1]
    if wanted.hit:
        is_hit = z.argmax(1) == rows.target
    if wanted.hard:
        log_sum = (finite(others.amax(1, keepdim=True)) - top).squeeze(1)
    else:
        behind = others - top
        total = behind.exp().sum(1).clamp(min=torch.finfo(z.dtype).tiny)
        log_sum = total.log()
        if wanted.entropy:
            among = log_sum - (behind.exp() * finite(behind)).sum(1) / total
    return RowStats(own.squeeze(1), top.squeeze(1), log_sum, mean, is_hit, among).masked(rows.valid)
