"""The primitive: class scores to the target's score, its rivals' score, and what else one pass can tell.

Every single-label loss of the library is a function of the gap ``target - rivals``. What touches all C classes is
here and nowhere else, worked through in blocks of rows that fit the cache. Between forward and backward only the
scores themselves and numbers per row are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import logsigmoid

from lossfit import inputs, kernels, shards
from lossfit.autograd import batched, call, fold, transformed
from lossfit.shards import Shard

Kind = Literal["soft", "hard"]
KINDS = ("soft", "hard")

# Scores worked on at a time, in bytes. Larger blocks leave the cache, smaller ones pay more per call (measured).
_BLOCK_BYTES = 2 << 20

# exp2 takes a third of the time of exp on a CPU (measured), and its argument comes from one fused multiply-add.
_LOG2_E = math.log2(math.e)
# Stands for -inf where differences must stay defined: the score of no rival, and the place of the target among them.
# A power of two, so that its multiple by _LOG2_E is exact.
_LOWEST = {torch.float32: -(2.0**127), torch.float64: -(2.0**1023)}
# Below this, a rounding error of the multiply-add grows to a factor of its own; such rivals are masked ones.
_DEEP = {torch.float32: -1e7, torch.float64: -1e16}
# Beyond this, rounding errors of the multiply-add may overflow, and it is done in two steps.
_FAR = 1e4


class Gap(NamedTuple):
    """What :func:`gap` returns: numbers per row, each of shape (N, d1, ...) and of float32 or better.

    ``mean``, ``hit`` and ``entropy`` are None unless asked for.
    """

    target: Tensor
    rivals: Tensor
    mean: Tensor | None = None
    hit: Tensor | None = None
    entropy: Tensor | None = None

    @property
    def log_odds(self) -> Tensor:
        """The gap ``target - rivals``; for the soft gap log(p / (1 - p)), the log-odds of the target."""
        return self.target - self.rivals


class Fields(NamedTuple):
    """What of the gap a loss is made of, as :func:`gap` takes it."""

    kind: Kind
    mean: bool = False
    mean_weight: Tensor | None = None


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
    inputs.check_choice("kind", kind, KINDS)
    batch = inputs.read(input, target, ignore_index, probabilities=False)
    inputs.check_per_class("mean_weight", mean_weight, batch.classes)
    with kernels.using(kernels.current() if backend == "auto" else backend):
        found = rows(batch, kind, mean=mean, hit=hit, entropy=entropy, mean_weight=mean_weight)
    if batch.unbatched:
        found = Gap._make(None if v is None else v.squeeze(0) for v in found)
    return found


def rows(
    batch: inputs.Batch,
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


def _blocked(*arguments: Any) -> Rows:
    found: Rows = call(Forward, *arguments, None)
    return found


def all_log_odds(batch: inputs.Batch, kind: Kind) -> Tensor:
    """The gap of every class as if it were the target, (N, C, d1, ...), for soft targets.

    Starting from the gap of the arg max, p_c and 1 - p_c of every other class keep their digits.
    """
    scores = batch.input.to(accumulation_dtype(batch.input))
    batch = inputs.Batch(scores, batch.top(), shard=batch.shard)
    best = rows(batch, kind)
    target, lead = batch.shared(best.target).unsqueeze(1), batch.shared(best.log_odds).unsqueeze(1)
    is_top = batch.is_own()
    if kind == "hard":
        return torch.where(is_top, lead, scores - target)
    # At most log(1/2) for every class but the top one, whose place is kept harmless for the gradient.
    log_p = torch.where(is_top, -1.0, scores - target + logsigmoid(lead))
    return torch.where(is_top, lead, log_p - torch.log1p(-log_p.exp()))


def accumulation_dtype(scores: Tensor) -> torch.dtype:
    """float64 for float64 scores, else float32."""
    return torch.float64 if scores.dtype == torch.float64 else torch.float32


Rows = tuple[Tensor | None, ...]


class Forward(Function):
    """(scores, target, valid, weight, hard, mean?, hit?, entropy?, here) -> the fields of Gap.

    ``here`` marks the rows whose target is among these columns, where that is not all of them: see :class:`Sharded`.
    """

    @staticmethod
    def forward(
        scores: Tensor,
        target: Tensor,
        valid: Tensor | None,
        weight: Tensor | None,
        hard: bool,
        mean: bool,
        hit: bool,
        entropy: bool,
        here: Tensor | None,
    ) -> Rows:
        if kernels.chosen(scores):
            from lossfit.kernels import launch

            return launch.forward(scores, target, valid, weight, hard, mean, hit, entropy, here)
        blocks = _blocks(scores)
        if blocks is None:
            return _forward_block(scores, target, valid, weight, hard, mean, hit, entropy, here)
        dtype = accumulation_dtype(scores)
        wanted = (dtype, dtype, dtype if mean else None, torch.bool if hit else None, dtype if entropy else None)
        out = tuple(None if kind is None else scores.new_empty(target.shape, dtype=kind) for kind in wanted)
        buffer = scores.new_empty(scores[blocks[0][0]].numel(), dtype=dtype)  # the first block is the largest
        for at_scores, at_rows in blocks:
            some, there = (None if v is None else v[at_rows] for v in (valid, here))
            part, own = scores[at_scores], target[at_rows]
            found = _forward_block(part, own, some, weight, hard, mean, hit, entropy, there, buffer)
            for whole, piece in zip(out, found, strict=True):
                if whole is not None and piece is not None:
                    whole[at_rows] = piece
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Rows) -> None:
        scores, target, valid, weight, ctx.hard, *_ = inputs
        ctx.backend = kernels.current()
        own, rivals, _, hit, entropy = output
        if hit is not None:
            ctx.mark_non_differentiable(hit)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(scores, target, valid, weight, own, rivals, entropy)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Rows:
        upstream = (*grads[:3], grads[4])
        again = torch.is_grad_enabled() or transformed()
        back: Any = partial(call, Backward) if again else Backward.forward
        back = kernels.keeping(ctx.backend, back)
        grad: Any
        if batched(*upstream):  # it is linear in each of them
            one = torch.ones_like(ctx.saved_tensors[4])
            each = [(g, [one if u is g else None for u in upstream]) for g in upstream if g is not None]
            grad = sum(g.unsqueeze(1) * back(*ctx.saved_tensors, *ones, ctx.hard, None) for g, ones in each)
        else:
            grad = back(*ctx.saved_tensors, *upstream, ctx.hard, None)
        return (grad, *(None,) * 8)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Rows, tuple[int | None, ...]]:
        if in_dims[3] is not None:
            raise NotImplementedError("Expected `mean_weight` to be the same for all samples under vmap.")
        found = Forward.apply(*fold(info.batch_size, in_dims, arguments, per_class=(3,)))
        out = tuple(None if v is None else v.unflatten(0, (info.batch_size, -1)) for v in found)
        return out, tuple(None if v is None else 0 for v in out)


class Sharded(Function):
    """:class:`Forward` where the classes are spread over ranks: (shard, and its arguments) -> the fields of Gap.

    Forward there are two collectives of numbers per row, three with ``hit``. Backward there is none, since what
    comes after is the same on all ranks; for the hard gap one, which counts ties.
    """

    @staticmethod
    def forward(
        ctx: Any,
        shard: Shard,
        scores: Tensor,
        target: Tensor,
        valid: Tensor | None,
        weight: Tensor | None,
        hard: bool,
        mean: bool,
        hit: bool,
        entropy: bool,
    ) -> Rows:
        dtype = accumulation_dtype(scores)
        at, here = shard.locate(target)
        if scores.shape[1]:
            found = Forward.forward(scores, at, valid, weight, hard, mean, False, entropy, here)
            own, rivals, mean_score, _, among = found
            mean_score = None if mean_score is None else mean_score * (scores.shape[1] / shard.total)
        else:
            own = mean_score = among = scores.new_zeros(target.shape, dtype=dtype)
            rivals = torch.full_like(own, _LOWEST[dtype])
        assert own is not None
        assert rivals is not None
        top = shard.max(rivals)
        behind = rivals - top
        parts = [own, rivals * 0 if hard else behind.exp()]  # so that what is no number stays none
        parts += [mean_score] if mean and mean_score is not None else []
        parts += [behind.exp() * (among - behind)] if entropy and among is not None else []
        total = shards.reduce_(torch.stack(parts), shard.group)
        own, rivals = total[0], top + (total[1] if hard else total[1].log())
        mean_score, row_entropy = (total[2] if mean else None), None
        if entropy:
            row_entropy = _entropy(own - rivals, total[-1] / total[1] + total[1].log())
        is_hit = _beats_all(scores, shard, target, own) if hit else None
        if valid is not None:
            masked = (own, rivals, mean_score, is_hit, row_entropy)
            own, rivals, mean_score, is_hit, row_entropy = (
                None if v is None else v.masked_fill(~valid, 0) for v in masked
            )
        if is_hit is not None:
            ctx.mark_non_differentiable(is_hit)
        ctx.set_materialize_grads(False)
        ctx.shard, ctx.hard, ctx.backend = shard, hard, kernels.current()
        ctx.save_for_backward(scores, at, here, valid, weight, own, rivals, row_entropy)
        return own, rivals, mean_score, is_hit, row_entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise NotImplementedError("There is no second derivative where classes are spread over ranks.")
        scores, at, here, valid, weight, own, rivals, entropy = ctx.saved_tensors
        shard: Shard = ctx.shard
        g_target, g_rivals, g_mean, g_entropy = (*grads[:3], grads[4])
        none = (None,) * 7
        if ctx.hard and g_rivals is not None:
            ties = _ties(scores, rivals, at, here)
            g_rivals = g_rivals * (ties / shards.reduce_(ties.clone(), shard.group).clamp(min=1))
        if not scores.shape[1]:
            return None, torch.zeros_like(scores), *none
        if g_mean is not None:
            g_mean = g_mean * (scores.shape[1] / shard.total)
        upstream = g_target, g_rivals, g_mean, g_entropy
        back = kernels.keeping(ctx.backend, Backward.forward)
        grad = back(scores, at, valid, weight, own, rivals, entropy, *upstream, ctx.hard, here)
        return None, grad, *none


def _beats_all(scores: Tensor, shard: Shard, target: Tensor, own: Tensor) -> Tensor:
    """Whether no class of any rank has a larger score than the target, or the same and stands before it."""
    beaten = torch.zeros_like(own)
    if scores.shape[1]:
        best, first = scores.max(1)  # the target itself does no harm
        best = best.to(own.dtype)
        beaten = ((best > own) | ((best == own) & (shard.classes(first) < target))).to(own.dtype)
    return shard.max(beaten) == 0


def _ties(scores: Tensor, rivals: Tensor, at: Tensor, here: Tensor) -> Tensor:
    """How many rivals among these columns reach the maximum."""
    if not scores.shape[1]:
        return torch.zeros_like(rivals)
    tie = (scores.to(rivals.dtype) == rivals.unsqueeze(1)).to(rivals.dtype)
    own = tie.gather(1, at.unsqueeze(1)).squeeze(1)
    return tie.sum(1) - own.masked_fill(~here, 0.0)


class Backward(Function):
    """The gradient with respect to the scores, itself differentiable.

    With q the rivals' shares (exp(z - r), or 1 / #ties for the hard gap), p = softmax(z) and l = log p:
    dz_k = g_target [k = y] + g_rivals q_k [k != y] + g_mean w_k / C - g_entropy p_k (l_k + H).
    """

    @staticmethod
    def forward(
        scores: Tensor,
        target: Tensor,
        valid: Tensor | None,
        weight: Tensor | None,
        own: Tensor,
        rivals: Tensor,
        entropy: Tensor | None,
        g_target: Tensor | None,
        g_rivals: Tensor | None,
        g_mean: Tensor | None,
        g_entropy: Tensor | None,
        hard: bool,
        here: Tensor | None,
    ) -> Tensor:
        per_row = (target, valid, own, rivals, entropy, g_target, g_rivals, g_mean, g_entropy, here)
        if kernels.chosen(scores):
            from lossfit.kernels import launch

            return launch.backward(scores, target, valid, weight, *per_row[2:-1], hard, here)
        blocks = _blocks(scores)
        if blocks is None:
            return _backward_block(scores, weight, hard, None, *per_row)
        out = torch.empty_like(scores)
        for at_scores, at_rows in blocks:
            part: Any = (None if v is None else v[at_rows] for v in per_row)
            _backward_block(scores[at_scores], weight, hard, out[at_scores], *part)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.hard, _ = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> Rows:
        """Plain torch operations, so that autograd goes on from here. ``v`` is (N, C, ...)."""
        if v is None:
            return (None,) * 13
        scores, target, valid, weight, own, rivals, entropy, *upstream = ctx.saved_tensors
        g_target, g_rivals, g_mean, g_entropy = upstream
        at = target.unsqueeze(1)
        z, v = scores.to(own.dtype), v.to(own.dtype)
        if valid is not None:
            z, v = z.masked_fill(~valid.unsqueeze(1), 0.0), v.masked_fill(~valid.unsqueeze(1), 0.0)
        r = rivals.unsqueeze(1)
        to_scores, to_own, to_rivals, to_entropy = [], None, [], None
        to_upstream: list[Tensor | None] = [None] * 4
        if g_target is not None:
            to_upstream[0] = v.gather(1, at).squeeze(1)
        if g_rivals is not None:
            share = _hard_shares(z, r, at) if ctx.hard else (z - r).scatter(1, at, -torch.inf).exp()
            to_upstream[1] = (share * v).sum(1)
            if not ctx.hard:
                to_scores.append(g_rivals.unsqueeze(1) * share * v)
                to_rivals.append(-g_rivals * to_upstream[1])
        if g_mean is not None:
            to_upstream[2] = (v if weight is None else v * per_class(weight, v)).sum(1) / scores.shape[1]
        if g_entropy is not None:
            log_p = _finite(z - torch.logaddexp(own, rivals).unsqueeze(1))
            pv = log_p.exp() * v
            slope = pv * (log_p + entropy.unsqueeze(1))
            to_upstream[3] = -slope.sum(1)
            to_entropy = -g_entropy * pv.sum(1)
            direct = -g_entropy.unsqueeze(1) * (slope + pv)
            to_scores.append(direct)
            to_lse = -direct.sum(1)
            to_own = to_lse * torch.sigmoid(own - rivals)
            to_rivals.append(to_lse * torch.sigmoid(rivals - own))
        grad_scores = sum(to_scores[1:], to_scores[0]).to(scores.dtype) if to_scores else None
        grad_rivals = sum(to_rivals[1:], to_rivals[0]) if to_rivals else None
        return (grad_scores, None, None, None, to_own, grad_rivals, to_entropy, *to_upstream, None, None)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Tensor, int]:
        out = Backward.apply(*fold(info.batch_size, in_dims, arguments, per_class=(3,)))
        return out.unflatten(0, (info.batch_size, -1)), 0


def _forward_block(
    scores: Tensor,
    target: Tensor,
    valid: Tensor | None,
    weight: Tensor | None,
    hard: bool,
    mean: bool,
    hit: bool,
    entropy: bool,
    here: Tensor | None = None,
    buffer: Tensor | None = None,
) -> Rows:
    dtype = accumulation_dtype(scores)
    at = target.unsqueeze(1)
    at_own = scores.gather(1, at)
    if at_own.dtype != dtype:
        at_own = at_own.to(dtype)
    own = at_own.squeeze(1)
    if buffer is None:
        work = scores if scores.dtype == dtype else scores.to(dtype)
    else:
        work = buffer[: scores.numel()].view(scores.shape).copy_(scores)
    mean_score = is_hit = row_entropy = None
    if mean:
        mean_score = (work if weight is None else work * per_class(weight, work)).sum(1) / scores.shape[1]
    hidden: Any = _LOWEST[dtype]
    if here is not None:  # elsewhere no column is left out
        hidden = at_own.masked_fill(here.unsqueeze(1), hidden)
        own = own.masked_fill(~here, 0.0)
    work = work.scatter(1, at, hidden) if work is scores else work.scatter_(1, at, hidden)
    if hit:
        top, first = work.max(1, keepdim=True)
        is_hit = ((at_own > top) | ((at_own == top) & (at < first))).squeeze(1)
    else:
        top = work.amax(1, keepdim=True)
    if here is not None:  # where all columns of a rank are -inf
        top = _finite(top)
    if hard:
        rivals = top.squeeze(1)
    else:
        shift = top * -_LOG2_E
        torch.add(shift, work, alpha=_LOG2_E, out=work)
        surprise = _finite(work.clamp_(max=0)) if entropy else None
        # The top rival's 1 is in it: the bounds are for scores so large that their rounding errors overflow here.
        total = work.exp2_().sum(1, keepdim=True).clamp_(1e-6, 1e30)
        rivals = (total - 1).log1p_().sub_(shift, alpha=1 / _LOG2_E).squeeze(1)
        if surprise is not None:
            among = (torch.log1p(total - 1) - surprise.mul_(work).sum(1, keepdim=True) / (_LOG2_E * total)).squeeze(1)
            row_entropy = _entropy(own - rivals, among) if here is None else among
    found = (own, rivals, mean_score, is_hit, row_entropy)
    if valid is None:
        return found
    return tuple(None if v is None else v.masked_fill(~valid, 0) for v in found)


def _entropy(lead: Tensor, among: Tensor) -> Tensor:
    """H = p (-log p) + (1 - p) (-log(1 - p) + the entropy among the rivals)."""
    return torch.sigmoid(-lead) * (among - _finite(logsigmoid(-lead))) - torch.sigmoid(lead) * _finite(logsigmoid(lead))


def _backward_block(
    scores: Tensor,
    weight: Tensor | None,
    hard: bool,
    out: Tensor | None,
    target: Tensor,
    valid: Tensor | None,
    own: Tensor,
    rivals: Tensor,
    entropy: Tensor | None,
    g_target: Tensor | None,
    g_rivals: Tensor | None,
    g_mean: Tensor | None,
    g_entropy: Tensor | None,
    here: Tensor | None = None,
) -> Tensor:
    """The gradient of a block: written to ``out``, of the scores' dtype, or returned as a new tensor."""
    dtype = own.dtype
    at = target.unsqueeze(1)
    in_place = out is not None and out.dtype == dtype
    if g_rivals is None:
        grad = torch.zeros_like(scores, dtype=dtype)
    else:
        r = rivals.unsqueeze(1)
        if hard:
            grad = _hard_shares(scores.to(dtype), r, at, here)
        else:
            grad = _soft_shares(scores, r.clamp(min=_DEEP[dtype]), out if in_place else None)
        grad.mul_(g_rivals.unsqueeze(1))
    to_own: Any = 0.0 if g_target is None else g_target.unsqueeze(1)
    if here is not None:
        to_own = torch.where(here.unsqueeze(1), to_own, grad.gather(1, at))
    grad.scatter_(1, at, to_own)
    if g_mean is not None:
        share = (g_mean / scores.shape[1]).unsqueeze(1)
        grad.add_(share if weight is None else share * per_class(weight, grad))
    if g_entropy is not None and entropy is not None:
        log_p = _finite(scores - torch.logaddexp(own, rivals).unsqueeze(1))
        grad.sub_(log_p.exp().mul_(log_p.add_(entropy.unsqueeze(1))).mul_(g_entropy.unsqueeze(1)))
    if valid is not None:
        grad.masked_fill_(~valid.unsqueeze(1), 0.0)
    if out is None:
        return grad if grad.dtype == scores.dtype else grad.to(scores.dtype)
    return out if in_place and grad is out else out.copy_(grad)


def _soft_shares(scores: Tensor, rivals: Tensor, out: Tensor | None) -> Tensor:
    """exp(scores - rivals), for the rivals; the target's place may hold anything."""
    near = rivals.device.type == "cpu" and (not rivals.numel() or rivals.abs().amax().item() < _FAR)
    if near:
        return torch.add(rivals.mul_(-_LOG2_E), scores, alpha=_LOG2_E, out=out).exp2_()
    return torch.sub(scores, rivals, out=out).clamp_(max=0).mul_(_LOG2_E).exp2_()


def _traced(scores: Tensor) -> Callable[..., Rows]:
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
) -> Rows:
    """The same in plain operations, for ``torch.compile`` and ``torch.export`` to differentiate and fuse."""
    z = scores.to(accumulation_dtype(scores))
    if valid is not None:
        z = z.masked_fill(~valid.unsqueeze(1), 0.0)
    at = target.unsqueeze(1)
    own = z.gather(1, at).squeeze(1)
    others = z.scatter(1, at, _LOWEST[z.dtype])
    rivals = others.amax(1) if hard else others.logsumexp(1)
    mean_score = is_hit = row_entropy = None
    if mean:
        mean_score = (z if weight is None else z * per_class(weight, z)).sum(1) / z.shape[1]
    if hit:
        is_hit = z.argmax(1) == target
    if entropy:
        log_p = _finite(z - torch.logaddexp(own, rivals).unsqueeze(1))
        row_entropy = -(log_p.exp() * log_p).sum(1)
    found = (own, rivals, mean_score, is_hit, row_entropy)
    if valid is None:
        return found
    return tuple(None if v is None else v.masked_fill(~valid, 0) for v in found)


Cut = tuple[slice, ...]


def _blocks(scores: Tensor) -> list[tuple[Cut, Cut]] | None:
    """Index pairs (into the scores, into the rows) that cut the work into blocks; None if one block holds it all."""
    size = _BLOCK_BYTES // accumulation_dtype(scores).itemsize
    if scores.numel() <= size:
        return None
    rows, classes, columns = (*scores.shape, 1)[:3]
    width = min(columns, max(1, size // classes))
    height = max(1, size // (classes * width))
    down = [slice(top, top + height) for top in range(0, rows, height)]
    if scores.ndim == 2:
        return [((d,), (d,)) for d in down]
    across = [slice(left, left + width) for left in range(0, columns, width)]
    return [((d, slice(None), a), (d, a)) for d in down for a in across]


def _finite(x: Tensor) -> Tensor:
    return x.clamp(min=_LOWEST[x.dtype])


def _hard_shares(z: Tensor, r: Tensor, at: Tensor, here: Tensor | None = None) -> Tensor:
    """The rivals that reach the maximum share it evenly."""
    tie = (z == r).to(z.dtype)
    tie.scatter_(1, at, 0.0 if here is None else tie.gather(1, at).masked_fill_(here.unsqueeze(1), 0.0))
    return tie / tie.sum(1, keepdim=True).clamp(min=1.0)


def per_class(weight: Tensor, like: Tensor) -> Tensor:
    """Weights (C,) shaped to multiply scores (N, C, ...)."""
    return weight.to(like.dtype).view(1, -1, *(1,) * (like.ndim - 2))
