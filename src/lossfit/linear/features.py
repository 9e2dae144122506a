"""From features and the weights of a last layer straight to rows, without the matrix of scores between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lossfit import kernels
from lossfit.core import class_shards
from lossfit.core.autograd import is_abstract, transformed
from lossfit.core.batch import Targets, read_batch
from lossfit.core.checks import check_choice, check_tensor
from lossfit.core.class_shards import Shard
from lossfit.core.cosines import autocast_dtype
from lossfit.core.roll_call import RollCall
from lossfit.linear import budget
from lossfit.linear.job import ChunkPlan
from lossfit.linear.products import Layer

Backend = Literal["auto", "dense", "chunked", "triton"]
BACKENDS = ("auto", "dense", "chunked", "triton")


class Rows(NamedTuple):
    """Checked rows of features with their targets, and which of them count.

    Attributes:
        layer: with the features of the rows that count (n, D).
        targets: their targets (n,) or (n, C).
        shape: of all rows.
        every: the targets of all rows.
        kept: which rows count, by their place among all; None for all of them.
    """

    layer: Layer
    targets: Targets
    shape: torch.Size
    every: Targets
    kept: Tensor | None

    def take(self, x: Tensor) -> Tensor:
        """The features (n, D) of the rows that count, from those of all rows (..., D)."""
        flat = x.reshape(-1, x.shape[-1])
        return flat if self.kept is None else flat[self.kept]

    def cut(self, per_row: Tensor) -> Tensor:
        """The numbers (n,) of the rows that count, from those of all rows (...)."""
        flat = per_row.reshape(-1)
        return flat if self.kept is None else flat[self.kept]

    def spread(self, results: Tensor) -> Tensor:
        """Results (n,) in the shape of all rows, 0 for those that do not count."""
        if self.kept is not None:
            results = results.new_zeros(self.shape.numel()).index_put((self.kept,), results)
        return results.view(self.shape)

    def plan(self, backend: Backend, memory: int | None = None) -> ChunkPlan:
        """How the rows are worked on."""
        if memory is not None and (isinstance(memory, bool) or not isinstance(memory, int) or memory < 1):
            raise ValueError(f"Expected `memory` to be a number of bytes of at least 1, or None, but got {memory!r}.")
        triton = takes_kernels(self.layer.x, backend)
        if backend in ("chunked", "triton") and transformed():
            raise ValueError(f"Expected `backend` 'auto' or 'dense' inside of torch.func, but got {backend!r}.")
        some = backend in ("chunked", "triton")
        if backend == "auto":
            wide = len(self.layer.weight) if self.targets.shard is None else self.targets.shard.widest
            dtype = autocast_dtype(self.layer.x) or self.layer.x.dtype
            small = budget.fits_one_chunk(len(self.layer.x), wide, dtype, self.layer.x.device)
            some = not transformed() and (self.targets.shard is not None or not small or triton)
        return ChunkPlan(some, triton, memory)


def read(
    x: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    ignore_index: int,
    *,
    shift: int = 0,
    probabilities: bool = True,
    shard: Shard | None = None,
    centers: int = 1,
    backend: Backend = "chunked",
    agreed: Callable[[], dict[str, Any]] = dict,
) -> Rows:
    """Check features, weights and targets against each other, and leave out the rows that do not count.

    To leave them out the host must know how many there are, which on a GPU it waits for, once. For the kernels it does
    not: they are given all rows. Where classes are spread over ranks, these must have the same features and targets,
    and the same of what ``agreed`` names.
    """
    if class_shards.is_sharded(weight) or (shard is not None and shard.group is not None):
        x, weight, bias, shard = _together(x, weight, target, bias, shard, centers, shift, backend, agreed)
    else:
        _check(x, weight, target, bias, shift, backend)
        class_shards.refuse(x=x, bias=bias)
        if shard is None:
            _check_weight(weight)
        _check_fit(x, weight, bias, len(weight) // centers)
    classes = len(weight) // centers if shard is None else shard.total
    x, target = _shifted(x, target, shift)
    shape = x.shape[:-1]
    soft = target.is_floating_point() and probabilities
    rows_target = target if not soft else target.movedim(-1, 1) if target.ndim > 1 else target
    like = x.detach()[..., :1].expand(*shape, classes)
    like = like.movedim(-1, 1) if len(shape) else like
    _check_target(target, shape, classes, soft)
    every = read_batch(like, rows_target, ignore_index, probabilities=probabilities).targets
    flat, valid = x.reshape(-1, x.shape[-1]), None if every.valid is None else every.valid.reshape(-1)
    chosen = every.target.reshape(-1)
    if soft:
        chosen = target.reshape(-1, classes)
        chosen = chosen if shard is None else chosen[:, shard.start : shard.start + shard.count]
    kept = None
    if valid is not None and not takes_kernels(x, backend):
        if transformed() or torch.compiler.is_compiling() or is_abstract(x):
            flat = flat.masked_fill(~valid.unsqueeze(1), 0.0)
        else:
            kept = valid.nonzero().squeeze(1)
            flat, chosen, valid = flat[kept], chosen[kept], None
    targets = Targets(chosen, classes, valid, soft, shard)
    return Rows(Layer(flat, weight, bias, centers=centers), targets, shape, every, kept)


def read_features(x: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None) -> tuple[Layer, torch.Size]:
    """Check features (..., D) and a layer; also the shape of the rows. What the targets hold is not looked at."""
    _check_types(x, weight, target, bias)
    class_shards.refuse(x=x, weight=weight, target=target)
    _check_weight(weight)
    _check_fit(x, weight, bias, len(weight))
    if x.ndim < 2 or target.shape[:-1] != x.shape[:-1]:
        raise ValueError(
            f"Expected `x` of shape (..., D) and `target` (..., C) or (..., K) with the same rows, "
            f"but got {tuple(x.shape)} and {tuple(target.shape)}."
        )
    return Layer(x.reshape(-1, x.shape[-1]), weight, bias), x.shape[:-1]


def takes_kernels(x: Tensor, backend: Backend) -> bool:
    """Whether rows of features are worked on by the kernels."""
    if backend != "auto":
        return backend == "triton"
    return not transformed() and kernels.auto(x)


def plan(layer: Layer, backend: Backend) -> ChunkPlan:
    """How rows of a layer on one process are worked on."""
    check_choice("backend", backend, BACKENDS)
    if backend == "triton":
        kernels.require(layer.x)
    targets = Targets(layer.x, len(layer.weight), probabilities=True)
    return Rows(layer, targets, layer.x.shape[:1], targets, None).plan(backend)


def _check_types(x: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None) -> None:
    named = {"x": x, "weight": weight, "target": target} | ({} if bias is None else {"bias": bias})
    for name, value in named.items():
        check_tensor(name, value)
        if value.device != x.device:
            raise ValueError(f"Expected `{name}` on the device of `x`, {x.device}, but got {value.device}.")
    if not x.is_floating_point():
        raise TypeError(f"Expected `x` to hold floating-point features, but got {x.dtype}.")
    if autocast_dtype(x) is not None:
        return
    for name in named.keys() & {"weight", "bias"}:
        if named[name].dtype != x.dtype:
            raise TypeError(
                f"Expected `{name}` of the type of `x`, {x.dtype}, but got {named[name].dtype}. "
                f"Convert one of them, or use torch.autocast."
            )


def _check_weight(weight: Tensor) -> None:
    if weight.ndim != 2 or not len(weight):
        raise ValueError(f"Expected `weight` of shape (C, D) with C of at least 1, but got {tuple(weight.shape)}.")


def _check_fit(x: Tensor, weight: Tensor, bias: Tensor | None, classes: int) -> None:
    if not x.ndim or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"Expected `x` of shape (..., {weight.shape[1]}) for `weight` of shape {tuple(weight.shape)}, "
            f"but got {tuple(x.shape)}."
        )
    if bias is not None and bias.shape != (classes,):
        raise ValueError(f"Expected `bias` of shape ({classes},), one entry per class, but got {tuple(bias.shape)}.")


def _check_target(target: Tensor, shape: torch.Size, classes: int, soft: bool) -> None:
    expected = (*shape, classes) if soft else tuple(shape)
    if soft and target.shape == shape != expected:
        raise TypeError(
            f"Expected `target` of shape {tuple(shape)} to hold integer class indices, but got {target.dtype}."
        )
    if tuple(target.shape) != expected:
        also = "" if soft else f", or probabilities of shape {(*shape, classes)}"
        raise ValueError(
            f"Expected `target` of shape {tuple(expected)}{also}, for rows of features of shape {tuple(shape)}, "
            f"but got {tuple(target.shape)}."
        )


def _check_shift(shift: int) -> None:
    if isinstance(shift, bool) or not isinstance(shift, int) or shift < 0:
        raise ValueError(f"Expected `shift` to be a whole number of at least 0, but got {shift!r}.")


def _shifted(x: Tensor, target: Tensor, shift: int) -> tuple[Tensor, Tensor]:
    if shift == 0:
        return x, target
    if x.ndim < 2 or target.shape != x.shape[:-1]:
        raise ValueError(
            f"Expected `x` (..., T, D) and `target` (..., T) of positions where `shift` is not 0, "
            f"but got {tuple(x.shape)} and {tuple(target.shape)}."
        )
    return x[..., : max(x.shape[-2] - shift, 0), :], target[..., shift:]


def _check(x: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None, shift: int, backend: Backend) -> None:
    """What one rank can tell by itself."""
    _check_types(x, weight, target, bias)
    if backend == "triton" and not torch.compiler.is_compiling():
        kernels.require(x)
    if class_shards.is_sharded(target):
        raise ValueError("Expected `target` as a tensor that is the same on all ranks, but got a DTensor.")
    _check_shift(shift)


def _together(
    x: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    shard: Shard | None,
    centers: int,
    shift: int,
    backend: Backend,
    agreed: Callable[[], dict[str, Any]],
) -> tuple[Tensor, Tensor, Tensor | None, Shard]:
    """What is here of features that all ranks have and of weights that are spread over them, and the shard."""
    group = class_shards.group_of(weight) if shard is None or shard.group is None else shard.group
    given_bias = bias
    with RollCall(group, weight.device, "the classes") as call:
        _check(x, weight, target, bias, shift, backend)
        here = weight
        if class_shards.is_sharded(weight):
            here = class_shards.local("weight", weight, 0)
        if class_shards.is_sharded(x):
            raise ValueError("Expected `x` as a tensor with all rows, the same on all ranks, but got a DTensor.")
        if class_shards.is_sharded(bias):
            assert bias is not None
            bias = class_shards.local("bias", bias, 0)
        if shard is None and given_bias is not None and tuple(given_bias.shape) != (len(weight),):
            raise ValueError(f"Expected `bias` of shape ({len(weight)},), but got {tuple(given_bias.shape)}.")
        _check_fit(x, here, None, 0)
        call.same(target=target)
        call.alike(x=x)
        call.same(weight=f"{here.dtype} of width {here.shape[1]}")
        if shard is None:
            call.same(bias=f"a DTensor of {bias.dtype}" if bias is not given_bias and bias is not None else bias)
        call.same(shift=shift, **agreed())
        call.note(len(here), len(weight))
    if shard is not None:
        return x, here, bias, shard
    shard = class_shards.from_counts("weight", group, call.noted)
    if bias is not None and bias is given_bias:
        bias = shard.local(shard.broadcast_with_grad_sum(bias))
    _check_fit(x, here, bias, len(here) // centers)
    return x, here, bias, shard
