"""The gap of features and weights as operators that a compiler can place, chunk by chunk inside of them.

Since the compiler sees what comes after the gap, and it alone, the backward operator makes the scores again: four
products in all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lossfit.core.row_stats import RowInputs, RowStats, Upstream
from lossfit.gaps.fields import to_gap
from lossfit.kernels import launch
from lossfit.kernels.launch import Scoring, Six
from lossfit.linear.budget import allot
from lossfit.linear.job import Job
from lossfit.linear.products import Layer, Products, product_dtype
from lossfit.linear.triton_chunk import scoring


def results(job: Job, layer: Layer) -> tuple[Tensor, ...]:
    """The results of all rows."""
    form, targets = job.form, job.targets
    assert form is not None
    dtype = product_dtype(layer.x, layer.weight)
    x, weight, bias = (None if v is None else v.to(dtype) for v in layer[:3])
    how = scoring(form, job.numbers, targets, layer.x)
    rows = RowInputs(targets.target, targets.valid, weight=form.mean_weight)
    given = *rows[:2], rows.weight, how.divisor, how.shift
    fields = _forward(x, weight, bias, *given, how.cap, *form.wanted, job.plan.memory)
    there = (True, True, True, *form.wanted[1:])
    stats = RowStats(*(v if want else None for v, want in zip(fields, there, strict=True)))  # type: ignore[arg-type]
    gap = to_gap(stats, rows, len(layer.weight), how.divisor, how.shift)
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Statistics that are not wanted come back empty."""
    products, chunks = _products(x, weight, bias, valid, memory, None)
    rows, wanted = RowInputs(target, valid, weight=mean_weight), (hard, mean, hit, entropy)
    chunked = []
    for at in chunks:
        z = products.scores(products.rows(at))
        by = None if divisor is None else divisor[at]
        chunked.append(launch._forward(z, *rows.cut(at), *wanted, cap, by, shift))
        products.release(products.last)
    first, second, third, fourth, fifth, sixth = (torch.cat(column) for column in zip(*chunked, strict=True))
    return first, second, third, fourth, fifth, sixth


@_forward.register_fake
def _(x: Tensor, *given: Any) -> Six:
    *_, mean, hit, entropy, _ = given
    return launch._stats_like(x, mean, hit, entropy)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Six) -> None:
    *tensors, ctx.cap, ctx.hard, ctx.mean, _, ctx.entropy, ctx.memory = inputs
    _, top, log_sum, _, _, among = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, top, log_sum, among if ctx.entropy else None)


def _differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    own, _, log_sum, mean, _, among = grads
    upstream = own, log_sum, mean if ctx.mean else None, among if ctx.entropy else None
    needed = list(ctx.needs_input_grad[:3])
    grads = _backward(*ctx.saved_tensors, *upstream, ctx.cap, ctx.hard, ctx.memory, needed)
    return (*(v if need else None for v, need in zip(grads, needed, strict=True)), *(None,) * 11)


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
    top: Tensor,
    log_sum: Tensor,
    among: Tensor | None,
    g_own: Tensor | None,
    g_log_sum: Tensor | None,
    g_mean: Tensor | None,
    g_among: Tensor | None,
    cap: float,
    hard: bool,
    memory: int | None,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias; those that are not needed come back empty."""
    if all(g is None for g in (g_own, g_log_sum, g_mean, g_among)):
        to_x, to_weight, to_bias = _like(x, weight, bias, needed)
        return to_x.zero_(), to_weight.zero_(), to_bias.zero_()
    products, chunks = _products(x, weight, bias, valid, memory, needed)
    rows, stats = RowInputs(target, valid, weight=mean_weight), RowStats(top, top, log_sum, among=among)
    upstream = Upstream(*products.scale_upstream([g_own, g_log_sum, g_mean, g_among]))
    for at in chunks:
        features = products.rows(at)
        z = products.scores(features)
        how = Scoring(cap, None if divisor is None else divisor[at], shift)
        launch.backward(z, rows.cut(at), stats.cut(at), upstream.cut(at), hard, z, how)
        products.accumulate_grads(at, features, z, z)
        products.release(products.last)
    grads = products.finish(None)
    to_x, to_weight, to_bias = (
        x.new_empty(0) if v is None else v.zero_() if not len(x) else v for v in (*grads, None)[:3]
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
