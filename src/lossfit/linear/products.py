"""The products of a last layer, some rows at a time: scores from features and weights, and the way back."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed

from lossfit.core.autograd import readable
from lossfit.core.class_shards import Shard
from lossfit.core.cosines import autocast_dtype, inverse_norm

# Numbers at a time of the weight's gradient, where it is added up in another type than its products come in. Many more
# at a time take longer and leave the C library with memory that it keeps (measured).
_ADDED = 1 << 20


class Layer(NamedTuple):
    """A last layer: the scores (N, C) are ``x @ weight.T + bias``, ``x`` (N, D), ``weight`` (C, D), ``bias`` (C,).

    With ``unit`` the rows of the weight count with length 1, and no bias is trainable. With ``centers`` above 1 a class
    has so many rows of the weight side by side, and its score is the largest of theirs.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor | None = None
    unit: bool = False
    centers: int = 1

    def scores(self, shard: Shard | None) -> Tensor:
        """All of them, by operations that autograd knows."""
        x = self.x if shard is None else shard.broadcast_with_grad_sum(self.x)
        if self.unit:
            kind = torch.promote_types(x.dtype, torch.float32)
            z = torch.nn.functional.linear(x, self.weight.to(x.dtype)).to(kind) * inverse_norm(self.weight.to(kind))
            z = z if self.bias is None else z + self.bias
        else:
            z = torch.nn.functional.linear(x, self.weight, self.bias)
        return z if self.centers == 1 else z.unflatten(1, (-1, self.centers)).amax(2)


class Products:
    """The products of a layer, a chunk at a time, and the gradients that they add up to.

    The weight's gradient is summed up in float32 or better, unless ``exact`` is False: then in the type of the
    products, rounded once a chunk.
    """

    def __init__(
        self,
        layer: Layer,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        shard: Shard | None,
        valid: Tensor | None,
        needed: Any,
        exact: bool,
    ) -> None:
        self.layer, self.shard, self.valid = layer._replace(x=x, weight=weight, bias=bias), shard, valid
        self.needed = (False, False, False) if needed is None else needed[:3]
        self.accumulated = torch.promote_types(x.dtype, torch.float32)
        self.dtype = product_dtype(x, weight)
        self.x, self.weight = x.detach().to(self.dtype), weight.detach().to(self.dtype)
        self.bias = None if bias is None else bias.detach().to(self.dtype)
        self.inverse = inverse_norm(weight.detach().to(self.accumulated)) if layer.unit else None
        self.peak: Tensor | None = None
        self.numbers: list[Tensor | None] = []
        self.to_x = self.x.new_empty(self.x.shape) if self.needed[0] else None
        self.to_weight: Tensor | None = None
        self.summed = self.accumulated if exact else self.dtype
        self.to_bias = self.accumulator(len(weight)) if self.needed[2] else None
        self.along = self.accumulator(len(weight)) if layer.unit and self.needed[1] else None
        self.buffers: list[Tensor] = []
        self.under_way: list[Any] = []

    def accumulator(self, *shape: int) -> Tensor:
        return self.x.new_zeros(shape, dtype=self.accumulated)

    def scale_upstream(self, upstream: list[Tensor | None]) -> list[Tensor | None]:
        """Divide by the largest one, so that half precision has all its digits where they are needed.

        By the next power of two, which costs no digit when it is multiplied again.
        """
        if self.dtype.itemsize > 2 or not len(self.x):
            return upstream
        peaks = torch.stack([u.detach().abs().amax().float() for u in upstream if u is not None])
        largest = peaks.amax().clamp(min=torch.finfo(torch.float32).tiny, max=2.0**126)
        self.peak = torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent)
        return [None if u is None else u.float() / self.peak for u in upstream]

    def rows(self, at: slice) -> Tensor:
        """Features, 0 where a row does not count: whatever it holds, 0 times it must be 0."""
        if self.valid is None:
            return self.x[at]
        return self.x[at].masked_fill(~self.valid[at].unsqueeze(1), 0.0)

    def scores(self, x: Tensor) -> Tensor:
        """The scores of some rows, in a buffer that is used again as soon as :meth:`release` has it back."""
        rows, classes = len(x), len(self.weight)
        buffer = self.buffers.pop() if self.buffers else x.new_empty(0)
        if buffer.numel() < rows * classes:
            buffer = x.new_empty(rows * classes)
        out = buffer[: rows * classes].view(rows, classes)
        if self.bias is None or self.inverse is not None:
            torch.mm(x, self.weight.t(), out=out)
        else:
            torch.addmm(self.bias, x, self.weight.t(), out=out)
        self.last = buffer
        if self.inverse is not None:
            out = out.to(self.accumulated).mul_(self.inverse)
            out = out if self.bias is None else out.add_(self.bias)
        if self.layer.centers == 1:
            return out
        self.every = out.unflatten(1, (-1, self.layer.centers))
        best, self.nearest = self.every.max(2, keepdim=True)
        nearest: Tensor = best.squeeze(2)
        return nearest

    def release(self, buffer: Tensor) -> None:
        self.buffers.append(buffer)

    def accumulate_grads(self, at: slice, x: Tensor, z: Tensor, dz: Tensor) -> None:
        """Add the gradients that those of some rows' scores make."""
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
            self._reduce(self.to_x[at])
        if self.needed[1]:
            self._pull_weight(x, dz)

    def _reduce(self, part: Tensor) -> None:
        """Start to add up over the ranks what only they together know; the next products need not wait."""
        if self.shard is not None and self.shard.group is not None:
            self.under_way.append(distributed.all_reduce(part, group=self.shard.group, async_op=True))

    def wait(self) -> None:
        """Until what is under way between the ranks is there."""
        for work in self.under_way:
            work.wait()
        self.under_way.clear()

    def _pull_weight(self, x: Tensor, dz: Tensor) -> None:
        if self.to_weight is None and self.dtype != self.summed:
            self.to_weight = self.weight.new_zeros(self.weight.shape, dtype=self.summed)
        if self.to_weight is None:
            self.to_weight = dz.t() @ x
        elif self.dtype == self.summed:
            self.to_weight.addmm_(dz.t(), x)
        elif dz.is_cuda:  # the product itself adds, in float32
            torch.addmm(self.to_weight, dz.t(), x, out_dtype=self.summed, out=self.to_weight)
        else:
            # A CPU's products in half precision are rounded: no matter for one chunk, but an error more for several.
            kind = self.dtype if len(x) == len(self.x) else self.summed
            x = x.to(kind)
            height = max(1, _ADDED // self.weight.shape[1])
            for top in range(0, len(self.weight), height):
                some = slice(top, top + height)
                if kind == self.summed:
                    self.to_weight[some].addmm_(dz[:, some].to(kind).t(), x)
                else:
                    self.to_weight[some] += dz[:, some].t() @ x

    def finish(self, grad: Tensor | None) -> list[Tensor | None]:
        """The gradients of x, weight, bias and the numbers, times ``grad``."""
        factor = grad
        if self.peak is not None:
            factor = self.peak if grad is None else grad * self.peak
        if factor is not None and readable(factor) and factor.item() == 1:
            factor = None
        x, weight, bias = self.layer[:3]
        to_x = None if self.to_x is None else _scaled(self.to_x, factor).to(x.dtype)
        if self.to_weight is not None and self.along is not None and self.inverse is not None:
            back = self.along * self.inverse.square()
            self.to_weight.addcmul_(back.unsqueeze(1), weight.detach().to(self.accumulated), value=-1)
        to_weight = None if self.to_weight is None else _scaled(self.to_weight, factor).to(weight.dtype)
        to_bias = None if self.to_bias is None or bias is None else _scaled(self.to_bias, factor).to(bias.dtype)
        return [to_x, to_weight, to_bias, *(None if n is None else _scaled(n, factor) for n in self.numbers)]


def product_dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    """The type that scores come in."""
    return autocast_dtype(x) or torch.promote_types(x.dtype, weight.dtype)


def _scaled(value: Tensor, factor: Tensor | None) -> Tensor:
    return value if factor is None else value.mul_(factor)
