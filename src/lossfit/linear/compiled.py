"""The gap of features and weights as operators that a compiler can place, chunk by chunk inside of them.

Since the compiler sees what comes after the gap, and it alone, the backward operator makes the scores again: four
products in all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lossfit.gaps.types import Gap
from lossfit.kernels import launch
from lossfit.kernels.launch import Five, Scoring
from lossfit.linear.budget import allot
from lossfit.linear.job import Job
from lossfit.linear.products import Layer, Products, product_dtype
from lossfit.linear.triton_chunk import multiplied_in_part, scoring


def results(job: Job, layer: Layer) -> tuple[Tensor, ...]:
    """The results of all rows."""
    form, batch = job.form, job.batch
    assert form is not None
    dtype = product_dtype(layer.x, layer.weight)
    x, weight, bias = (None if v is None else v.to(dtype) for v in layer[:3])
    how = scoring(form, job.numbers, batch, layer.x)
    wanted = form.kind == "hard", form.mean, form.hit, form.entropy
    given = batch.target, batch.valid, form.mean_weight, how.divisor, how.shift
    found = _forward(x, weight, bias, *given, how.cap, *wanted, job.plan.memory, job.plan.skip_blocks)
    there = (True, True, *wanted[1:])
    gap = Gap._make(v if want else None for v, want in zip(found, there, strict=True))
    return form.results(gap, slice(None), job.numbers)


@torch.library.custom_op("lossfit::linear_gap_forward", mutates_args=())
def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    valid: Tensor | None,
    mean_weight: Tensor | None,
    divisor: Tensor | None,
    shift: Tensor | None,
    cap: float,
    hard: bool,
    mean: bool,
    hit: bool,
    entropy: bool,
    memory: int | None,
    skip_blocks: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Fields that are not wanted come back empty."""
    products, chunks = _products(x, weight, bias, valid, memory, None)
    found = []
    for at in chunks:
        z = products.scores(products.rows(at))
        y, some, by = _cut(at, target, valid, divisor)
        found.append(launch._forward(z, y, some, None, mean_weight, hard, mean, hit, entropy, cap, by, shift))
        products.release(products.last)
    first, second, third, fourth, fifth = (torch.cat(column) for column in zip(*found, strict=True))
    return first, second, third, fourth, fifth


@_forward.register_fake
def _(x: Tensor, *given: Any) -> Five:
    *_, mean, hit, entropy, _, _ = given
    return launch._rows_like(x, mean, hit, entropy)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Five) -> None:
    *tensors, ctx.cap, ctx.hard, ctx.mean, _, ctx.entropy, ctx.memory, ctx.skip_blocks = inputs
    own, rivals, _, _, entropy = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, own, rivals, entropy if ctx.entropy else None)


def _differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    g_target, g_rivals, g_mean, _, g_entropy = grads
    upstream = g_target, g_rivals, g_mean if ctx.mean else None, g_entropy if ctx.entropy else None
    needed = list(ctx.needs_input_grad[:3])
    settings = ctx.cap, ctx.hard, ctx.memory, ctx.skip_blocks, needed
    found = _backward(*ctx.saved_tensors, *upstream, *settings)
    return (*(v if need else None for v, need in zip(found, needed, strict=True)), *(None,) * 12)


_forward.register_autograd(_differentiate, setup_context=_keep)


@torch.library.custom_op("lossfit::linear_gap_backward", mutates_args=())
def _backward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    valid: Tensor | None,
    mean_weight: Tensor | None,
    divisor: Tensor | None,
    shift: Tensor | None,
    own: Tensor,
    rivals: Tensor,
    entropy: Tensor | None,
    g_target: Tensor | None,
    g_rivals: Tensor | None,
    g_mean: Tensor | None,
    g_entropy: Tensor | None,
    cap: float,
    hard: bool,
    memory: int | None,
    skip_blocks: bool,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias; those that are not needed come back empty."""
    if all(g is None for g in (g_target, g_rivals, g_mean, g_entropy)):
        to_x, to_weight, to_bias = _like(x, weight, bias, needed)
        return to_x.zero_(), to_weight.zero_(), to_bias.zero_()
    products, chunks = _products(x, weight, bias, valid, memory, needed)
    upstream = products.normalised([g_target, g_rivals, g_mean, g_entropy])
    for at in chunks:
        features = products.rows(at)
        z = products.scores(features)
        y, some, by, t, r, h, to_t, to_r, to_m, to_h = _cut(at, target, valid, divisor, own, rivals, entropy, *upstream)
        sparse = multiplied_in_part(z) if skip_blocks else None
        kept, how = None if sparse is None else sparse.kept, Scoring(cap, by, shift)
        launch.backward(z, y, some, mean_weight, t, r, h, to_t, to_r, to_m, to_h, hard, None, z, how, kept)
        products.pull(at, features, z, z, sparse)
        products.release(products.last)
    found = products.finish(None)
    to_x, to_weight, to_bias = (
        x.new_empty(0) if v is None else v.zero_() if not len(x) else v for v in (*found, None)[:3]
    )
    return to_x, to_weight, to_bias


@_backward.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _like(x, weight, bias, given[-1])


def _like(x: Tensor, weight: Tensor, bias: Tensor | None, needed: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    to_x, to_weight, to_bias = (
        x.new_empty(v.shape if need and v is not None else 0) for v, need in zip((x, weight, bias), needed, strict=True)
    )
    return to_x, to_weight, to_bias


def _products(
    x: Tensor, weight: Tensor, bias: Tensor | None, valid: Tensor | None, memory: int | None, needed: Any
) -> tuple[Products, list[slice]]:
    budget = allot(len(x), len(weight), weight.shape[1], x.dtype, x.device, memory)
    products = Products(Layer(x, weight, bias), x, weight, bias, None, valid, needed, budget.exact)
    tops = range(0, len(x), budget.height) or [0]
    return products, [slice(top, min(top + budget.height, len(x))) for top in tops]


def _cut(at: slice, *per_row: Tensor | None) -> list[Any]:
    return [None if v is None else v[at] for v in per_row]
