"""Rows whose scores are a product of features and weights, worked on in chunks, so that no matrix of scores is whole.

Per chunk: scores from the product, rows' losses from the scores, the gradient of the scores by autograd over the chunk
alone, and two more products that take it to features and weights. Where the rows are summed up, all of that happens in
the forward pass, and the backward pass only multiplies what it finds (three matrix products). Where they are not, what
comes after must be known first, and the backward pass makes the scores again (four).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from lossfit import kernels
from lossfit.core.autograd import differentiated_again
from lossfit.linear.budget import Budget, allot
from lossfit.linear.chunk import Chunk
from lossfit.linear.job import ChunkPlan, Job, uses_triton
from lossfit.linear.products import Layer, Products, product_dtype


def run(job: Job, layer: Layer) -> tuple[Tensor, ...]:
    """The results, the first of them reduced where there is a weighing."""
    compiling = torch.compiler.is_compiling()
    if compiling and _is_traced(job, layer):
        from lossfit.linear.compiled import results as found_by_operators

        return _reduced(job, found_by_operators(job, layer))
    if not job.plan.chunked:
        return _reduced(job, _whole(job, layer))
    if compiling:  # not as a decorator, which would load the compiler with this module
        results: tuple[Tensor, ...] = torch.compiler.disable(_run_chunked)(job, layer)
        return results
    return _run_chunked(job, layer)


def _reduced(job: Job, results: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return results if job.weighing is None else (job.weighing.reduce(results[0]), *results[1:])


def _is_traced(job: Job, layer: Layer) -> bool:
    """Whether a compiler is shown operators that work on the chunks."""
    plain = job.margin is None and not layer.unit and layer.centers == 1 and job.targets.shard is None
    return job.plan.triton and job.form is not None and plain


def _run_chunked(job: Job, layer: Layer) -> tuple[Tensor, ...]:
    if job.weighing is not None and job.weighing.is_trainable:
        rows, *extras = _run_chunked(job._replace(weighing=None), layer)
        return job.weighing.reduce(rows), *extras
    graded = torch.is_grad_enabled()
    tensors = (*layer[:3], *job.tensors.values(), *(_hidden(job, layer) if graded and not job.no_other_grads else ()))
    results: tuple[Tensor, ...] = _Chunked.apply(job, layer, graded, *tensors)
    return results


def _hidden(job: Job, layer: Layer) -> list[Tensor]:
    """Tensors with a gradient that are not among the numbers, as a user's function may hold, found with one row."""
    if not len(layer.x):
        return []
    z = layer.x.new_zeros(1, len(layer.weight) // layer.centers)
    with torch.enable_grad():
        cut = {n: job.cut(n, v.detach(), slice(0, 1)) for n, v in job.tensors.items()}
        results = job.rows(z.requires_grad_(), slice(0, 1), {**job.numbers, **cut})
    ahead, seen, leaves = [f.grad_fn for f in results], set(), {}
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


def _whole(job: Job, layer: Layer) -> tuple[Tensor, ...]:
    z, everything = layer.scores(job.targets.shard), slice(None)
    if job.margin is not None:
        column = job.targets.column()
        new = job.margin(column.take(z).squeeze(1), everything, job.numbers)
        z = column.put_(z.clone(), new.to(z.dtype).unsqueeze(1))
    return job.rows(z, everything, job.numbers)


class _Chunked(Function):
    """(job, layer, grad?, x, weight, bias, *tensors of the numbers) -> the results."""

    @staticmethod
    def forward(ctx: Any, job: Job, layer: Layer, graded: bool, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        ctx.job, ctx.layer, ctx.ahead = job, layer, None
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        if job.weighing is None or not graded or not any(ctx.needs_input_grad):
            results = _pass(job, layer, tensors, None, None)[0]
        else:
            one = torch.ones((), dtype=torch.promote_types(layer.x.dtype, torch.float32), device=layer.x.device)
            upstream = job.weighing.spread(one, len(layer.x)).expand(len(layer.x))
            results, ctx.ahead = _pass(job, layer, tensors, ctx.needs_input_grad[3:], [upstream])
        ctx.mark_non_differentiable(*(f for f, graded in zip(results, job.graded, strict=True) if not graded))
        return _reduced(job, results)

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
    if job.targets.shard is not None:
        raise NotImplementedError("There is no second derivative where classes are spread over ranks.")
    with torch.enable_grad():
        count = 3 + len(job.tensors)
        again: list[Any] = [
            t if t is None else t.view_as(t) for t in tensors[:count]
        ]  # one may be a function of another
        x, weight, bias, *numbers = again
        again += tensors[count:]
        job = job._replace(
            numbers={**job.numbers, **dict(zip(job.tensors, numbers, strict=True))}, plan=ChunkPlan(False)
        )
        results_again = run(job, layer._replace(x=x, weight=weight, bias=bias))
    wanted = [t for t, need in zip(again, needed, strict=True) if need]
    pairs = [(f, g) for f, g in zip(results_again, grads, strict=True) if g is not None]
    results = torch.autograd.grad(
        [f for f, _ in pairs], wanted, [g for _, g in pairs], create_graph=torch.is_grad_enabled(), allow_unused=True
    )
    each = iter(results)
    return (next(each) if need else None for need in needed)


def _pass(
    job: Job, layer: Layer, tensors: Any, needed: Any, upstream: list[Tensor | None] | None
) -> tuple[tuple[Tensor, ...], Products]:
    """Go through the chunks: the results, and with ``upstream``, the gradients of results, also the gradients."""
    work, device = _Pass(job, layer, tensors, needed, upstream), layer.x.device.type
    with ExitStack() as state:
        state.enter_context(
            torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else torch.no_grad()
        )
        if job.plan.triton:
            state.enter_context(kernels.using("triton"))
        return work.run()


class _Pass:
    """Once through the chunks."""

    def __init__(self, job: Job, layer: Layer, tensors: Any, needed: Any, upstream: list[Tensor | None] | None) -> None:
        x, weight, bias, *values = tensors
        self.job, self.graded = job, upstream is not None
        values, self.hidden = values[: len(job.tensors)], values[len(job.tensors) :]
        self.named = dict(zip(job.tensors, values, strict=True))
        self.trainable = {n for n, need in zip(self.named, needed[3:] if self.graded else (), strict=False) if need}
        shard = job.targets.shard
        # The next chunk's scores are made while the ranks tell each other what they know of one chunk.
        self.ahead = shard is not None and shard.group is not None and uses_triton(job) and layer.centers == 1
        self.budget = _budget(job, layer, x, weight, buffers=1 + self.ahead)
        self.products = Products(
            layer, x, weight, bias, shard, job.targets.valid, needed if self.graded else None, self.budget.exact
        )
        self.upstream = None if upstream is None else self.products.scale_upstream(upstream)
        self.totals: dict[str, Tensor] = {}
        self.unnamed: list[Tensor | None] = [None] * len(self.hidden)
        self.results: list[tuple[Tensor, ...]] = []

    def run(self) -> tuple[tuple[Tensor, ...], Products]:
        rows, height = len(self.products.x), self.budget.height
        started: list[Chunk] = []
        for top in range(0, rows, height) or [0]:
            started.append(self._start(slice(top, min(top + height, rows))))
            if len(started) > self.ahead:
                self._end(started.pop(0))
        if started:
            self._end(started.pop())
        self.products.wait()
        self.products.buffers.clear()
        self.products.numbers = [*(self.totals.get(n) for n in self.named), *self.unnamed]
        return tuple(torch.cat(column) for column in zip(*self.results, strict=True)), self.products

    def _start(self, at: slice) -> Chunk:
        x = self.products.rows(at)
        z = self.products.scores(x)
        cut = {n: self.job.cut(n, v.detach(), at).requires_grad_(n in self.trainable) for n, v in self.named.items()}
        kind: type[Chunk] = Chunk
        if uses_triton(self.job):
            from lossfit.linear.triton_chunk import TritonChunk as kind  # noqa: N813
        chunk = kind(self.job, at, z, cut, self.hidden)
        chunk.x, chunk.buffer, chunk.overwrites = x, self.products.last, self.products.inverse is None
        with torch.set_grad_enabled(self.graded):
            chunk.start()
        return chunk

    def _end(self, chunk: Chunk) -> None:
        with torch.set_grad_enabled(self.graded):
            results = chunk.results()
        self.results.append(tuple(r.detach() for r in results))
        if self.upstream is not None:
            some = [None if u is None else u[chunk.at] for u in self.upstream]
            dz, by_number, by_hidden = chunk.grads(results, some)
            self.unnamed = [
                a if b is None else b if a is None else a + b for a, b in zip(self.unnamed, by_hidden, strict=True)
            ]
            for name, value in by_number.items():
                whole = self.named[name]
                _add(self.totals, name, value, whole, None if value.shape == whole.shape else chunk.at)
            self.products.accumulate_grads(chunk.at, chunk.x, chunk.z, dz)
        self.products.release(chunk.buffer)


def _budget(job: Job, layer: Layer, x: Tensor, weight: Tensor, buffers: int) -> Budget:
    shard = job.targets.shard
    columns = len(weight) if shard is None else shard.widest * layer.centers
    dtype = product_dtype(x, weight)
    return allot(len(x), columns, weight.shape[1], dtype, x.device, job.plan.memory, buffers=buffers)


def _add(totals: dict[str, Tensor], name: str, value: Tensor, like: Tensor, at: slice | None) -> None:
    if name not in totals:
        totals[name] = torch.zeros_like(like)
    (totals[name] if at is None else totals[name][at]).add_(value)
