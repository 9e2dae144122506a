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

from lossfit import inputs, kernels
from lossfit.autograd import batched, call, fold, transformed

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
    inputs.check_per_class("mean_weight", mean_weight, batch.input.shape[1])
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
    find = _traced(scores) if torch.compiler.is_compiling() else partial(call, Forward)
    if entropy and kind == "hard":  # the entropy needs the soft rivals: a second pass
        found = find(scores, target, valid, mean_weight, True, mean, hit, False)
        found = (*found[:4], find(scores, target, valid, None, False, False, False, True)[4])
    else:
        found = find(scores, target, valid, mean_weight, kind == "hard", mean, hit, entropy)
    if len(shape) > 2:
        found = tuple(None if v is None else v.view(shape) for v in found)
    return Gap(*found)


def all_log_odds(scores: Tensor, kind: Kind) -> Tensor:
    """The gap of every class as if it were the target, (N, C, d1, ...), for soft targets.

    Starting from the gap of the arg max, p_c and 1 - p_c of every other class keep their digits.
    """
    scores = scores.to(accumulation_dtype(scores))
    top = scores.argmax(1, keepdim=True)
    best = rows(inputs.Batch(scores, top.squeeze(1)), kind)
    target, lead = best.target.unsqueeze(1), best.log_odds.unsqueeze(1)
    is_top = torch.zeros_like(scores, dtype=torch.bool).scatter(1, top, True)
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
    """(scores, target, valid, weight, hard, mean?, hit?, entropy?) -> the fields of Gap."""

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
    ) -> Rows:
        if kernels.chosen(scores):
            from lossfit.kernels import launch

            return launch.forward(scores, target, valid, weight, hard, mean, hit, entropy)
        blocks = _blocks(scores)
        if blocks is None:
            return _forward_block(scores, target, valid, weight, hard, mean, hit, entropy)
        dtype = accumulation_dtype(scores)
        wanted = (dtype, dtype, dtype if mean else None, torch.bool if hit else None, dtype if entropy else None)
        out = tuple(None if kind is None else scores.new_empty(target.shape, dtype=kind) for kind in wanted)
        buffer = scores.new_empty(scores[blocks[0][0]].numel(), dtype=dtype)  # the first block is the largest
        for at_scores, at_rows in blocks:
            some = None if valid is None else valid[at_rows]
            found = _forward_block(scores[at_scores], target[at_rows], some, weight, hard, mean, hit, entropy, buffer)
            for whole, part in zip(out, found, strict=True):
                if whole is not None and part is not None:
                    whole[at_rows] = part
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
            grad = sum(g.unsqueeze(1) * back(*ctx.saved_tensors, *ones, ctx.hard) for g, ones in each)
        else:
            grad = back(*ctx.saved_tensors, *upstream, ctx.hard)
        return (grad, *(None,) * 7)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Rows, tuple[int | None, ...]]:
        if in_dims[3] is not None:
            raise NotImplementedError("Expected `mean_weight` to be the same for all samples under vmap.")
        found = Forward.apply(*fold(info.batch_size, in_dims, arguments, per_class=(3,)))
        out = tuple(None if v is None else v.unflatten(0, (info.batch_size, -1)) for v in found)
        return out, tuple(None if v is None else 0 for v in out)


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
    ) -> Tensor:
        per_row = (target, valid, own, rivals, entropy, g_target, g_rivals, g_mean, g_entropy)
        if kernels.chosen(scores):
            from lossfit.kernels import launch

            return launch.backward(scores, target, valid, weight, *per_row[2:], hard)
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
        *tensors, ctx.hard = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> Rows:
        """Plain torch operations, so that autograd goes on from here. ``v`` is (N, C, ...)."""
        if v is None:
            return (None,) * 12
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
        return (grad_scores, None, None, None, to_own, grad_rivals, to_entropy, *to_upstream, None)

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
    work = work.scatter(1, at, _LOWEST[dtype]) if work is scores else work.scatter_(1, at, _LOWEST[dtype])
    if hit:
        top, first = work.max(1, keepdim=True)
        is_hit = ((at_own > top) | ((at_own == top) & (at < first))).squeeze(1)
    else:
        top = work.amax(1, keepdim=True)
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
            # H = p (-log p) + (1 - p) (-log(1 - p) + the entropy among the rivals)
            among = (torch.log1p(total - 1) - surprise.mul_(work).sum(1, keepdim=True) / (_LOG2_E * total)).squeeze(1)
            lead = own - rivals
            p, q = torch.sigmoid(lead), torch.sigmoid(-lead)
            row_entropy = q * (among - logsigmoid(-lead)) - p * logsigmoid(lead)
    found = (own, rivals, mean_score, is_hit, row_entropy)
    if valid is None:
        return found
    return tuple(None if v is None else v.masked_fill(~valid, 0) for v in found)


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
            grad = _hard_shares(scores.to(dtype), r, at)
        else:
            grad = _soft_shares(scores, r.clamp(min=_DEEP[dtype]), out if in_place else None)
        grad.mul_(g_rivals.unsqueeze(1))
    grad.scatter_(1, at, 0.0) if g_target is None else grad.scatter_(1, at, g_target.unsqueeze(1))
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


def _hard_shares(z: Tensor, r: Tensor, at: Tensor) -> Tensor:
    """The rivals that reach the maximum share it evenly."""
    tie = (z == r).to(z.dtype).scatter_(1, at, 0.0)
    return tie / tie.sum(1, keepdim=True).clamp(min=1.0)


def per_class(weight: Tensor, like: Tensor) -> Tensor:
    """Weights (C,) shaped to multiply scores (N, C, ...)."""
    return weight.to(like.dtype).view(1, -1, *(1,) * (like.ndim - 2))
