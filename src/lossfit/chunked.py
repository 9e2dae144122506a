"""Rows whose scores are a product of features and weights, worked on in chunks, so that no matrix of scores is whole.

Per chunk: scores from the product, rows' losses from the scores, the gradient of the scores by autograd over the chunk
alone, and two more products that take it to features and weights. Where the rows are summed up, all of that happens in
the forward pass, and the backward pass only multiplies what it finds (three matrix products). Where they are not, what
comes after must be known first, and the backward pass makes the scores again (four).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from lossfit import shards
from lossfit.autograd import differentiated_again, readable
from lossfit.cosines import autocast_dtype, inverse_norm
from lossfit.inputs import Batch
from lossfit.reduce import Weighing
from lossfit.shards import Shard

Number = float | Tensor
Pulled = list[Tensor | None]

# The scores of a chunk, in bytes: the products stay near their peak, and memory small (measured). In half precision
# less, since the weight's gradient in float32 is there besides.
_CHUNK_BYTES = 64 << 20
_HALF_CHUNK_BYTES = 16 << 20
# Classes at a time where the gradient of the weight is added up in another type than its products come in.
_ADDED = 8192
# Fewer rows than this make products slow, whatever a row takes.
_LEAST_ROWS = 64


class Layer(NamedTuple):
    """A last layer: the scores (N, C) are ``x @ weight.T + bias``, ``x`` (N, D), ``weight`` (C, D), ``bias`` (C,).

    With ``unit`` the rows of the weight count with length 1, and no bias is learnt. With ``centers`` above 1 a class
    has so many rows of the weight side by side, and its score is the largest of theirs.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor | None = None
    unit: bool = False
    centers: int = 1

    def scores(self, shard: Shard | None) -> Tensor:
        """All of them, by operations that autograd knows."""
        x = self.x if shard is None else shard.shared(self.x)
        if self.unit:
            kind = torch.promote_types(x.dtype, torch.float32)
            z = torch.nn.functional.linear(x, self.weight.to(x.dtype)).to(kind) * inverse_norm(self.weight.to(kind))
            z = z if self.bias is None else z + self.bias
        else:
            z = torch.nn.functional.linear(x, self.weight, self.bias)
        return z if self.centers == 1 else z.unflatten(1, (-1, self.centers)).amax(2)


class Job(NamedTuple):
    """What is made of the scores.

    Attributes:
        rows: from the scores of a chunk (n, C), the chunk's place and the numbers to results per row, each (n,).
        batch: the targets of all rows, and the shard; its input is not looked at.
        numbers: by name; tensors of no dimension, of shape (N,) with one entry per row, or any shape if ``whole``.
        whole: the names of those that are never cut.
        margin: from the targets' own scores (n,), the chunk's place and the numbers to the scores that take their
            place; None to leave them.
        weighing: how the first result becomes a number; None to return it per row.
        graded: which of the results get a gradient.
        closed: whether ``rows`` is known to hold nothing else that gets a gradient.
    """

    rows: Callable[[Tensor, slice, dict[str, Number]], tuple[Tensor, ...]]
    batch: Batch
    numbers: dict[str, Number]
    whole: frozenset[str] = frozenset()
    margin: Callable[[Tensor, slice, dict[str, Number]], Tensor] | None = None
    weighing: Weighing | None = None
    graded: tuple[bool, ...] = (True,)
    closed: bool = False

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.numbers.items() if isinstance(value, Tensor)}

    def part(self, at: slice) -> Batch:
        return self.batch._replace(target=self.batch.target[at])

    def cut(self, name: str, value: Tensor, at: slice) -> Tensor:
        return value[at] if value.ndim and name not in self.whole else value


def run(job: Job, layer: Layer, *, chunked: bool) -> tuple[Tensor, ...]:
    """The results, the first of them reduced where there is a weighing."""
    if not chunked:
        found = _whole(job, layer)
        return found if job.weighing is None else (job.weighing.reduce(found[0]), *found[1:])
    if torch.compiler.is_compiling():  # not as a decorator, which would load the compiler with this module
        results: tuple[Tensor, ...] = torch.compiler.disable(_run_chunked)(job, layer)
        return results
    return _run_chunked(job, layer)


def _run_chunked(job: Job, layer: Layer) -> tuple[Tensor, ...]:
    if job.weighing is not None and job.weighing.is_learnt:
        found = _run_chunked(job._replace(weighing=None), layer)
        return job.weighing.reduce(found[0]), *found[1:]
    graded = torch.is_grad_enabled()
    tensors = (*layer[:3], *job.tensors.values(), *(_hidden(job, layer) if graded and not job.closed else ()))
    results: tuple[Tensor, ...] = _Chunked.apply(job, layer, graded, *tensors)
    return results


def _hidden(job: Job, layer: Layer) -> list[Tensor]:
    """Tensors with a gradient that are not among the numbers, as a user's function may hold, found with one row."""
    if not len(layer.x):
        return []
    z = layer.x.new_zeros(1, len(layer.weight) // layer.centers)
    with torch.enable_grad():
        cut = {n: job.cut(n, v.detach(), slice(0, 1)) for n, v in job.tensors.items()}
        found = job.rows(z.requires_grad_(), slice(0, 1), {**job.numbers, **cut})
    ahead, seen, leaves = [f.grad_fn for f in found], set(), {}
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and leaf is not z:
            leaves[id(leaf)] = leaf
        ahead += [next_node for next_node, _ in node.next_functions]
    return list(leaves.values())


def fits_one_chunk(rows: int, columns: int, dtype: torch.dtype) -> bool:
    """Whether there is nothing to cut."""
    return rows <= _height(columns, dtype)


def _height(columns: int, dtype: torch.dtype) -> int:
    size = _CHUNK_BYTES if dtype.itemsize > 2 else min(_CHUNK_BYTES, _HALF_CHUNK_BYTES)
    return max(_LEAST_ROWS, size // (max(columns, 1) * dtype.itemsize))


def _whole(job: Job, layer: Layer) -> tuple[Tensor, ...]:
    z, everything = layer.scores(job.batch.shard), slice(None)
    if job.margin is not None:
        place = job.batch._replace(input=z).place()
        new = job.margin(place.take(z).squeeze(1), everything, job.numbers)
        z = place.put_(z.clone(), new.to(z.dtype).unsqueeze(1))
    return job.rows(z, everything, job.numbers)


class _Chunked(Function):
    """(job, layer, grad?, x, weight, bias, *tensors of the numbers) -> the results."""

    @staticmethod
    def forward(ctx: Any, job: Job, layer: Layer, graded: bool, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        ctx.job, ctx.layer, ctx.ahead = job, layer, None
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        if job.weighing is None or not graded or not any(ctx.needs_input_grad):
            found = _pass(job, layer, tensors, None, None)[0]
        else:
            one = torch.ones((), dtype=torch.promote_types(layer.x.dtype, torch.float32), device=layer.x.device)
            upstream = job.weighing.spread(one, len(layer.x)).expand(len(layer.x))
            found, ctx.ahead = _pass(job, layer, tensors, ctx.needs_input_grad[3:], [upstream])
        ctx.mark_non_differentiable(*(f for f, graded in zip(found, job.graded, strict=True) if not graded))
        return found if job.weighing is None else (job.weighing.reduce(found[0]), *found[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        job: Job = ctx.job
        tensors, needed = ctx.saved_tensors, ctx.needs_input_grad[3:]
        none = (None,) * 3
        if all(g is None for g in grads):
            return *none, *(None for _ in needed)
        if differentiated_again(*grads):
            return *none, *_differentiable(job, ctx.layer, tensors, needed, grads)
        if job.weighing is None:
            return *none, *_pass(job, ctx.layer, tensors, needed, list(grads))[1].finish(None)
        ahead, ctx.ahead = ctx.ahead, None
        (grad, *_) = grads
        assert grad is not None
        if ahead is None:  # a second backward pass
            upstream = job.weighing.spread(torch.ones_like(grad), len(tensors[0])).expand(len(tensors[0]))
            ahead = _pass(job, ctx.layer, tensors, needed, [upstream])[1]
        return *none, *ahead.finish(grad)


def _differentiable(
    job: Job, layer: Layer, tensors: Any, needed: Any, grads: tuple[Tensor | None, ...]
) -> Iterator[Tensor | None]:
    """The gradients with a graph of their own, for which the whole matrix of scores is made."""
    if job.batch.shard is not None:
        raise NotImplementedError("There is no second derivative where classes are spread over ranks.")
    with torch.enable_grad():
        count = 3 + len(job.tensors)
        again: list[Any] = [
            t if t is None else t.view_as(t) for t in tensors[:count]
        ]  # one may be a function of another
        x, weight, bias, *numbers = again
        again += tensors[count:]
        job = job._replace(numbers={**job.numbers, **dict(zip(job.tensors, numbers, strict=True))})
        found = run(job, layer._replace(x=x, weight=weight, bias=bias), chunked=False)
    wanted = [t for t, need in zip(again, needed, strict=True) if need]
    pairs = [(f, g) for f, g in zip(found, grads, strict=True) if g is not None]
    results = torch.autograd.grad(
        [f for f, _ in pairs], wanted, [g for _, g in pairs], create_graph=torch.is_grad_enabled(), allow_unused=True
    )
    each = iter(results)
    return (next(each) if need else None for need in needed)


def _pass(
    job: Job, layer: Layer, tensors: Any, needed: Any, upstream: list[Tensor | None] | None
) -> tuple[tuple[Tensor, ...], _Gradients]:
    """Go through the chunks: the results, and with ``upstream``, the gradients of results, also the gradients."""
    x, weight, bias, *values = tensors
    values, hidden = values[: len(job.tensors)], values[len(job.tensors) :]
    gradients = _Gradients(layer, x, weight, bias, job.batch.shard, needed if upstream is not None else None)
    if upstream is not None:
        upstream = gradients.normalised(upstream)
    totals: dict[str, Tensor] = {}
    unnamed: list[Tensor | None] = [None] * len(hidden)
    found: list[tuple[Tensor, ...]] = []
    device = x.device.type
    most = _height(gradients.widest, gradients.dtype)
    height = max(1, -(-len(x) // max(1, -(-len(x) // most))))  # chunks of the same size
    named = dict(zip(job.tensors, values, strict=True))
    learnt = {n for n, need in zip(named, needed[3:] if upstream is not None else (), strict=False) if need}
    with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else torch.no_grad():
        for top in range(0, len(x), height) or [0]:
            at = slice(top, min(top + height, len(x)))
            z = gradients.scores(at)
            cut = {n: job.cut(n, v.detach(), at).requires_grad_(n in learnt) for n, v in named.items()}
            chunk = _Chunk(job, at, z, cut, hidden)
            with torch.set_grad_enabled(upstream is not None):
                found.append(chunk.results())
            if upstream is None:
                continue
            some = [None if u is None else u[at] for u in upstream]
            dz, by_number, by_hidden = chunk.pull(found[-1], some)
            unnamed = [a if b is None else b if a is None else a + b for a, b in zip(unnamed, by_hidden, strict=True)]
            for name, value in by_number.items():
                _add(totals, name, value, named[name], None if value.shape == named[name].shape else at)
            found[-1] = tuple(f.detach() for f in found[-1])
            gradients.pull(at, z, dz)
            del chunk, z, dz  # before the next chunk's are made
    gradients.buffer = x.new_empty(0)
    gradients.numbers = [*(totals.get(n) for n in named), *unnamed]
    return tuple(torch.cat(column) for column in zip(*found, strict=True)), gradients


def _add(totals: dict[str, Tensor], name: str, value: Tensor, like: Tensor, at: slice | None) -> None:
    if name not in totals:
        totals[name] = torch.zeros_like(like)
    (totals[name] if at is None else totals[name][at]).add_(value)


class _Chunk:
    """Results of a chunk's scores, and their gradients."""

    def __init__(self, job: Job, at: slice, z: Tensor, numbers: dict[str, Tensor], hidden: list[Tensor]) -> None:
        self.job, self.at, self.z, self.hidden = job, at, z, hidden
        self.numbers: dict[str, Number] = {**job.numbers, **numbers}
        self.learnt = {name: value for name, value in numbers.items() if value.requires_grad}
        self.place = job.part(at).place()

    def results(self) -> tuple[Tensor, ...]:
        """With the margin's scores in the place of the targets' own, which :meth:`pull` puts back."""
        graded = torch.is_grad_enabled()
        if self.job.margin is not None:
            self.own = self.place.take(self.z).squeeze(1).requires_grad_(graded)
            self.new = self.job.margin(self.own, self.at, self.numbers)
            self._put(self.new)
        self.leaf = self.z.detach().requires_grad_(graded)
        return self.job.rows(self.leaf, self.at, self.numbers)

    def _put(self, value: Tensor) -> None:
        self.place.put_(self.z, value.detach().to(self.z.dtype).unsqueeze(1))

    def pull(
        self, found: tuple[Tensor, ...], upstream: list[Tensor | None]
    ) -> tuple[Tensor, dict[str, Tensor], Pulled]:
        """The gradients of the scores, of the numbers by name, and of hidden tensors."""
        pairs = [(f, u) for f, u in zip(found, upstream, strict=False) if u is not None and f.requires_grad]
        if not pairs:
            return torch.zeros_like(self.z), {}, [None] * len(self.hidden)
        dz, by_number, by_hidden = self._grad([f for f, _ in pairs], self.leaf, [u.to(f.dtype) for f, u in pairs])
        if self.job.margin is None:
            return dz, by_number, by_hidden
        to_new = self.place.take(dz).squeeze(1).to(self.new.dtype)
        to_own, further, _ = self._grad([self.new], self.own, [to_new])
        self.place.put_(dz, to_own.to(dz.dtype).unsqueeze(1))
        self._put(self.own)
        for name, value in further.items():
            by_number[name] = by_number[name] + value if name in by_number else value
        return dz, by_number, by_hidden

    def _grad(self, of: list[Tensor], by: Tensor, upstream: list[Tensor]) -> tuple[Tensor, dict[str, Tensor], Pulled]:
        wanted = [by, *self.learnt.values(), *self.hidden]
        # What hidden tensors are made of is the same for all chunks.
        grads = torch.autograd.grad(of, wanted, upstream, allow_unused=True, retain_graph=bool(self.hidden))
        first = torch.zeros_like(by) if grads[0] is None else grads[0]
        count = 1 + len(self.learnt)
        named = {n: g for n, g in zip(self.learnt, grads[1:count], strict=True) if g is not None}
        return first, named, list(grads[count:])


class _Gradients:
    """The products of a layer, a chunk at a time, and the gradients that they add up to."""

    def __init__(
        self, layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None, shard: Shard | None, needed: Any
    ) -> None:
        self.layer, self.shard = layer._replace(x=x, weight=weight, bias=bias), shard
        self.needed = (False, False, False) if needed is None else needed[:3]
        self.accumulated = torch.promote_types(x.dtype, torch.float32)
        self.dtype = autocast_dtype(x) or torch.promote_types(x.dtype, weight.dtype)
        self.x, self.weight = x.detach().to(self.dtype), weight.detach().to(self.dtype)
        self.bias = None if bias is None else bias.detach().to(self.dtype)
        self.inverse = inverse_norm(weight.detach().to(self.accumulated)) if layer.unit else None
        self.widest = len(weight) if shard is None else shard.widest * layer.centers
        self.peak: Tensor | None = None
        self.numbers: list[Tensor | None] = []
        self.to_x = torch.empty_like(self.x) if self.needed[0] else None
        self.to_weight: Tensor | None = None
        self.to_bias = self.accumulator(len(weight)) if self.needed[2] else None
        self.along = self.accumulator(len(weight)) if layer.unit and self.needed[1] else None
        self.buffer = x.new_empty(0)

    def accumulator(self, *shape: int) -> Tensor:
        return self.x.new_zeros(shape, dtype=self.accumulated)

    def normalised(self, upstream: list[Tensor | None]) -> list[Tensor | None]:
        """Divide by the largest one, so that half precision has all its digits where they are needed."""
        if self.dtype.itemsize > 2 or not len(self.x):
            return upstream
        peaks = torch.stack([u.detach().abs().amax().float() for u in upstream if u is not None])
        self.peak = peaks.amax().clamp(min=torch.finfo(torch.float32).tiny)
        return [None if u is None else u.float() / self.peak for u in upstream]

    def scores(self, at: slice) -> Tensor:
        rows = at.stop - at.start
        if self.buffer.numel() < rows * len(self.weight):
            self.buffer = self.x.new_empty(rows * len(self.weight))
        out = self.buffer[: rows * len(self.weight)].view(rows, -1) if rows else self.x.new_empty(0, len(self.weight))
        if self.bias is None or self.inverse is not None:
            torch.mm(self.x[at], self.weight.t(), out=out)
        else:
            torch.addmm(self.bias, self.x[at], self.weight.t(), out=out)
        if self.inverse is not None:
            out = out.to(self.accumulated).mul_(self.inverse)
            out = out if self.bias is None else out.add_(self.bias)
        if self.layer.centers == 1:
            return out
        self.every = out.unflatten(1, (-1, self.layer.centers))
        best, self.nearest = self.every.max(2, keepdim=True)
        nearest: Tensor = best.squeeze(2)
        return nearest

    def pull(self, at: slice, z: Tensor, dz: Tensor) -> None:
        if self.layer.centers > 1:
            z = self.every.flatten(1)
            dz = torch.zeros_like(self.every).scatter_(2, self.nearest, dz.unsqueeze(2)).flatten(1)
        if self.along is not None:
            self.along += (dz * (z if self.bias is None else z - self.bias)).sum(0)
        if self.to_bias is not None:
            self.to_bias += dz.sum(0, dtype=self.accumulated)
        if self.inverse is not None:
            dz = dz * self.inverse
        dz = dz.to(self.dtype)
        if self.to_x is not None:
            torch.mm(dz, self.weight, out=self.to_x[at])
        if not self.needed[1]:
            return
        if self.dtype == self.accumulated:
            if self.to_weight is None:
                self.to_weight = dz.t() @ self.x[at]
            else:
                self.to_weight.addmm_(dz.t(), self.x[at])
            return
        if self.to_weight is None:
            self.to_weight = self.accumulator(*self.weight.shape)
        for first in range(0, len(self.weight), _ADDED):
            some = slice(first, first + _ADDED)
            self.to_weight[some] += dz[:, some].t() @ self.x[at]

    def finish(self, grad: Tensor | None) -> list[Tensor | None]:
        """The gradients of x, weight, bias and the numbers, times ``grad``."""
        factor = grad
        if self.peak is not None:
            factor = self.peak if grad is None else grad * self.peak
        if factor is not None and readable(factor) and factor.item() == 1:
            factor = None
        x, weight, bias = self.layer[:3]
        to_x = self.to_x
        if to_x is not None:
            if self.shard is not None:
                shards.reduce_(to_x, self.shard.group)
            to_x = _scaled(to_x, factor).to(x.dtype)
        if self.to_weight is not None and self.along is not None and self.inverse is not None:
            back = self.along * self.inverse.square()
            self.to_weight.addcmul_(back.unsqueeze(1), weight.detach().to(self.accumulated), value=-1)
        to_weight = None if self.to_weight is None else _scaled(self.to_weight, factor).to(weight.dtype)
        to_bias = None if self.to_bias is None or bias is None else _scaled(self.to_bias, factor).to(bias.dtype)
        return [to_x, to_weight, to_bias, *(None if n is None else _scaled(n, factor) for n in self.numbers)]


def _scaled(value: Tensor, factor: Tensor | None) -> Tensor:
    return value if factor is None else value.mul_(factor)
