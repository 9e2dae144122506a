"""Scores of a head that are not made: what a model's forward does to them is remembered, until cross-entropy comes."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lossfit.integrations.transformers.checks import on_device
from lossfit.losses.single_label.base import SingleLabelLoss
from lossfit.losses.single_label.from_features import Result

Number = int | float


class Call:
    """One forward pass of a fused model, with labels, in training.

    Attributes:
        loss: what takes the place of cross-entropy.
        name: of the model's class.
        items: what the sum of the losses is divided by; None for the mean over the batch.
        z_loss: see :meth:`SingleLabelLoss.linear`.
        extras: wanted from the pass over the scores.
        live: whether the model's forward still runs.
        result: of the loss.
    """

    def __init__(
        self, loss: SingleLabelLoss, name: str, items: float | Tensor | None, z_loss: float, extras: tuple[Any, ...]
    ) -> None:
        self.loss, self.name, self.items, self.z_loss, self.extras = loss, name, items, z_loss, extras
        self.live = True
        self.result: Result | None = None
        self.target: Tensor | None = None

    def refuse(self, what: str) -> ValueError:
        return ValueError(
            f"Expected `model` to take the scores of its head straight to cross-entropy, but {self.name} {what}. "
            f"Without `fuse`, `compute_loss_func(loss, model)` does the same on the scores."
        )


class _Thread(threading.local):
    call: Call | None = None
    depth = 0


thread = _Thread()
"""The forward pass of a fused model that this thread is in, and how many deep."""


class Scores:
    r"""Scores :math:`z = a (x W^\top + b)`, or capped, :math:`c \tanh z`, as a stand-in for a tensor (..., C).

    Shapes, types and numbers that multiply are taken note of. Anything else makes the scores: an error while the
    model's forward runs, and after it a tensor.
    """

    def __init__(self, call: Call, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        self.call, self.x, self.weight, self.bias = call, x, weight, bias
        self.factor, self.cap = 1.0, None
        device = x.device.type
        self.autocast = torch.is_autocast_enabled(device)
        self.kind = torch.get_autocast_dtype(device) if self.autocast else x.dtype
        self.dtype = self.kind

    factor: float
    cap: float | None

    def _with(self, **changes: Any) -> Scores:
        new = object.__new__(Scores)
        new.__dict__.update(self.__dict__, **changes)
        return new

    @property
    def shape(self) -> torch.Size:
        return torch.Size((*self.x.shape[:-1], len(self.weight)))

    @property
    def device(self) -> torch.device:
        return self.x.device

    @property
    def ndim(self) -> int:
        return self.x.ndim

    def dim(self) -> int:
        return self.x.ndim

    def size(self, dim: int | None = None) -> torch.Size | int:
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        return self.shape[0]

    def float(self) -> Scores:
        return self._with(dtype=torch.float32)

    def contiguous(self) -> Scores:
        return self

    def to(self, *args: Any, **kwargs: Any) -> Any:
        target = torch.empty(0, dtype=self.dtype, device=self.device).to(*args, **kwargs)
        if target.device == self.device and target.is_floating_point():
            return self._with(dtype=target.dtype)
        return self.tensor("moves them").to(*args, **kwargs)

    def view(self, *shape: Any) -> Any:
        sizes = list(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else list(shape)
        known = math.prod(n for n in sizes if n != -1)
        if -1 in sizes and known:
            sizes[sizes.index(-1)] = math.prod(self.shape) // known
        if not sizes or sizes[-1] != len(self.weight):
            return self.tensor("reshapes them").reshape(*shape)
        return self._with(x=self.x.reshape(*sizes[:-1], self.x.shape[-1]))

    reshape = view

    def split(self, size: Any, dim: int = 0) -> Any:
        if dim % self.ndim == self.ndim - 1:
            return self.tensor("splits them").split(size, dim)
        return tuple(self._with(x=part) for part in self.x.split(size, dim))

    def __getitem__(self, index: Any) -> Any:
        parts = list(index) if isinstance(index, tuple) else [index]
        taken = [0 if p is None or p is Ellipsis else p.ndim if _is_mask(p) else 1 for p in parts]
        if any(p is Ellipsis for p in parts):
            at = next(i for i, p in enumerate(parts) if p is Ellipsis)
            parts[at : at + 1] = [slice(None)] * (self.ndim - sum(taken))
            taken = [0 if p is None else p.ndim if _is_mask(p) else 1 for p in parts]
        if sum(taken) >= self.ndim:
            if not (isinstance(parts[-1], slice) and parts[-1] == slice(None)):
                return self.tensor("takes some classes of them")[index]
            parts = parts[:-1]
        return self._with(x=self.x[tuple(parts)])

    def __mul__(self, other: Any) -> Any:
        if not isinstance(other, Number):
            return self.tensor("multiplies them by a tensor") * other
        if self.cap is not None:
            return self._with(cap=self.cap * other)
        return self._with(factor=self.factor * other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        if not isinstance(other, Number):
            return self.tensor("divides them by a tensor") / other
        if self.cap is not None:
            return self._with(cap=self.cap / other)
        return self._with(factor=self.factor / other)

    def tanh(self) -> Any:
        return self.tensor("takes tanh twice").tanh() if self.cap is not None else self._with(cap=1.0)

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Of the classes, some rows at a time."""
        if dim not in (-1, self.ndim - 1) or self.ndim < 2:
            found: Tensor = self.tensor("takes argmax").argmax(dim, keepdim)
            return found
        rows = self.reshape(-1, len(self.weight)).split(256)
        best = torch.cat([part.tensor("takes argmax").argmax(-1) for part in rows])
        return best.view(*self.shape[:-1], *([1] if keepdim else []))

    def tensor(self, doing: str) -> Tensor:
        """The scores themselves, once the model's forward is over."""
        if self.call.live:
            raise self.call.refuse(doing)
        with torch.autocast(self.device.type, dtype=self.kind, enabled=self.autocast):
            z = functional.linear(self.x, self.weight, self.bias)
        z = z if self.factor == 1 else z * self.factor
        return (z if self.cap is None else z.tanh() * self.cap).to(self.dtype)

    def cross_entropy(
        self,
        target: Tensor,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: Number = 0.0,
    ) -> Tensor:
        """The loss in place of cross-entropy, without the scores."""
        call, x, bias = self.call, self.x, self.bias
        if weight is not None or label_smoothing or (size_average, reduce) != (None, None) or reduction == "none":
            raise call.refuse("gives cross-entropy weights, smoothing or a reduction of its own")
        if self.ndim != 2 or target.is_floating_point():
            raise call.refuse(f"takes cross-entropy of scores of shape {tuple(self.shape)}")
        if call.result is not None:
            raise call.refuse("takes more than one cross-entropy of them")
        if type(self.weight) in (Tensor, nn.Parameter) and not self.weight.untyped_storage().size():
            raise ValueError(
                f"Expected the weight of {call.name}'s head to be there after the head's forward, but it was freed: "
                f"let `fully_shard` take the head with the model, not by itself."
            )
        cap = self.cap
        if cap is not None:
            if not math.isclose(cap * self.factor, 1.0, rel_tol=1e-6):
                raise call.refuse("caps them by other numbers than c tanh(z / c)")
        elif self.factor != 1:
            x, bias = x * self.factor, None if bias is None else bias * self.factor
        if ignore_index != -100:
            target = target.masked_fill(target == ignore_index, -100)
        found = on_device(call.loss, x.device).linear(
            x,
            self.weight,
            target,
            bias,
            denominator=1.0 if reduction == "sum" else call.items,
            softcap=cap,
            z_loss=call.z_loss,
            extras=call.extras,
        )
        result = found if isinstance(found, Result) else Result(found)
        call.result, call.target = result, target
        return result.loss

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        first = args[0] if args else kwargs.get("input")
        if isinstance(first, Scores):
            if func is torch.tanh:
                return first.tanh()
            if func is torch.argmax:
                return first.argmax(*args[1:], **kwargs)
            if func is functional.cross_entropy and first.call.live:
                return first.cross_entropy(*args[1:], **{n: v for n, v in kwargs.items() if n != "input"})
        name = f"does `{getattr(func, '__name__', func)}` to them"
        made = [a.tensor(name) if isinstance(a, Scores) else a for a in args]
        return func(*made, **{n: v.tensor(name) if isinstance(v, Scores) else v for n, v in kwargs.items()})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.tensor(f"does `{name}` to them"), name)

    def __add__(self, other: Any) -> Any:
        classes = len(self.weight)
        per_class = isinstance(other, Tensor) and other.shape[-1:] == (classes,) and other.numel() == classes
        if per_class and self.cap is None and self.factor == 1:  # a bias
            other = other.reshape(-1).to(self.weight.dtype)
            return self._with(bias=other if self.bias is None else self.bias + other)
        return self.tensor("adds to them") + other

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self.tensor("subtracts from them") - other

    def __repr__(self) -> str:
        return f"Scores(shape={tuple(self.shape)}, dtype={self.dtype}): not made in training"


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype == torch.bool


def head_forward(self: nn.Linear, input: Tensor) -> Tensor | Scores:
    """The forward of a fused model's head."""
    if thread.call is None:
        return functional.linear(input, self.weight, self.bias)
    return Scores(thread.call, input, self.weight, self.bias)
