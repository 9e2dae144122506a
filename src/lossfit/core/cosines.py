"""Lengths of rows, and the cosines between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from lossfit.core.autograd import batched, call, readable, transformed

TINY = 1e-12
"""Vectors shorter than this count as zero: their cosines are 0, and so are the gradients."""


def cosines(x: Tensor, weight: Tensor) -> Tensor:
    """The cosines (N, C) between rows of ``x`` (N, D) and of ``weight`` (C, D), in float32 or better.

    Rows shorter than 1e-12 have cosines of 0 and get no gradient. Under autocast the product is taken in its type.
    """
    kind = common_dtype(x, weight)
    product = kind if kind == torch.float64 else autocast_dtype(x) or kind
    if torch.compiler.is_compiling():
        return _cosines(x, weight, kind, product)
    cosine: Tensor = call(_Cosines, x, weight, kind, product)
    return cosine


def _cosines(x: Tensor, weight: Tensor, kind: torch.dtype, product: torch.dtype) -> Tensor:
    x, weight = x.to(kind), weight.to(kind)
    unit = x * inverse_norm(x).unsqueeze(1)
    return functional.linear(unit.to(product), weight.to(product)).to(kind) * inverse_norm(weight)


class _Cosines(Function):
    """(x, weight, kind, product) -> cosines.

    The weight is not normalised but the columns of the product are, which takes one pass over (N, C) where a copy of
    the weight and its gradient would take several over (C, D).
    """

    has_plain_forward = generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, kind: torch.dtype, product: torch.dtype) -> Tensor:
        return _cosines(x, weight, kind, product)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, ctx.kind, ctx.product = inputs
        ctx.save_for_backward(x, weight, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, cosine = ctx.saved_tensors
        kind, product = ctx.kind, ctx.product
        to_x = to_weight = None
        rows, columns = x.to(kind), weight.to(kind)
        inverse_x, inverse_w = inverse_norm(rows).unsqueeze(1), inverse_norm(columns).unsqueeze(1)
        if torch.is_grad_enabled():  # the output saved is no function of the inputs to autograd
            cosine = _cosines(x, weight, kind, product)
        along = grad * cosine
        scaled = (grad * inverse_w.T).to(product)
        unit = rows * inverse_x
        if ctx.needs_input_grad[0]:
            pulled = (scaled @ columns.to(product)).to(kind)
            to_x = ((pulled - along.sum(1, keepdim=True) * unit) * inverse_x).to(x.dtype)
        if ctx.needs_input_grad[1]:
            pulled = (scaled.T @ unit.to(product)).to(kind)
            back = along.sum(0).unsqueeze(1) * inverse_w.square()
            if transformed() or batched(grad):
                to_weight = (pulled - back * columns).to(weight.dtype)
            else:  # in place, since a fresh buffer of the weight's size costs more than the arithmetic
                to_weight = pulled.addcmul_(back, columns, value=-1).to(weight.dtype)
        return to_x, to_weight, None, None


def inverse_norm(rows: Tensor) -> Tensor:
    """1 / length of the last dimension; 0 for rows that count as zero, with a gradient of 0."""
    length = _length(rows)
    there = length > TINY
    return torch.where(there, torch.where(there, length, 1.0).reciprocal(), 0.0)


def norm(rows: Tensor) -> Tensor:
    """The length of the last dimension; 0 for rows that count as zero, with a gradient of 0."""
    length = _length(rows)
    return torch.where(length > TINY, length, 0.0)


def _length(rows: Tensor) -> Tensor:
    """The length of the last dimension, also where the squares are too large for the type."""
    length: Tensor = torch.linalg.vector_norm(rows, dim=-1)
    if readable(length) and not bool(length.isinf().any()):
        return length
    scale = 2.0**-64 if rows.dtype != torch.float64 else 2.0**-512
    return torch.where(length.isinf(), torch.linalg.vector_norm(rows * scale, dim=-1) / scale, length)


def common_dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    """The type to compute in: float32 or better."""
    return torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)


def autocast(device: str) -> bool:
    # The compiler of PyTorch 2.11 cannot trace the question whether there is autocast.
    there = device in ("cpu", "cuda") or torch.amp.is_autocast_available(device)
    return there and torch.is_autocast_enabled(device)


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The type of matrix products under autocast; None without it, and for float64."""
    device = x.device.type
    if x.dtype == torch.float64 or not autocast(device):
        return None
    return torch.get_autocast_dtype(device)
