"""Who is measured: lossfit, plain PyTorch, compiled PyTorch, and other libraries where they import."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import lossfit
from gpu_parts.contest import Contender
from gpu_parts.device import Device
from gpu_parts.problems import Loss, Problem
from lossfit import kernels


def on_kernels(loss: Loss) -> Loss:
    """With Triton or not at all: no result is plain PyTorch's under another name."""

    def run(*arguments: Any, **named: Any) -> Tensor:
        with kernels.using("triton"):
            return loss(*arguments, **named)

    return run


def fused(loss: lossfit.SingleLabelLoss, **options: Any) -> Loss:
    """From features and weights."""
    return lambda x, weight, target: loss.linear(x, weight, target, backend="triton", **options)


def compiled(device: Device, function: Loss) -> Callable[[], Loss]:
    """For each shape on its own; in a smoke run traced only."""

    def make() -> Loss:
        if device.smoke:
            return torch.compile(function, backend="eager")
        return torch.compile(function, dynamic=False)

    return make


def plain_linear(x: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(x @ weight.T, target)


def products(problem: Problem) -> None:
    """The product forward and the two backward, of a gradient that is there already, into memory that is there."""
    x, weight = problem.source
    if not problem.scratch:
        grad = (x @ weight.T).softmax(1)
        grad[torch.arange(len(x), device=x.device), problem.target] -= 1
        to = {"scores": torch.empty_like(grad), "x": torch.empty_like(x), "weight": torch.empty_like(weight)}
        problem.scratch = {"grad": grad, **to}
    s = problem.scratch
    torch.mm(x, weight.T, out=s["scores"])
    torch.mm(s["grad"], weight, out=s["x"])
    torch.mm(s["grad"].T, x, out=s["weight"])


def liger_dense() -> Loss:
    return _attribute("liger_kernel.transformers", "LigerCrossEntropyLoss")()


def liger_linear() -> Loss:
    loss = _attribute("liger_kernel.transformers", "LigerFusedLinearCrossEntropyLoss")()
    return lambda x, weight, target: loss(weight, x, target)


def quack_dense() -> Loss:
    return _attribute("quack.cross_entropy", "cross_entropy")


def cce_linear() -> Loss:
    return _attribute("cut_cross_entropy", "linear_cross_entropy")


def torch_linear() -> Loss:
    if not hasattr(F, "linear_cross_entropy"):
        raise ImportError("this PyTorch has no F.linear_cross_entropy")
    options = torch.nn.LinearCrossEntropyOptions()
    return lambda x, weight, target: F.linear_cross_entropy(x, weight, target, options=options)


def _attribute(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def dense(device: Device, *, others: bool = True) -> list[Contender]:
    loss = lossfit.CrossEntropyLoss()
    found = [
        Contender("lossfit", lambda: on_kernels(loss)),
        Contender("plain", lambda: F.cross_entropy),
        Contender("liger", liger_dense),
        Contender("quack", quack_dense),
    ]
    if others:
        # A function of our own: what is compiled twice would share its cache.
        found += [
            Contender("torch.compile", compiled(device, lambda z, y: F.cross_entropy(z, y))),
            Contender("lossfit, compiled", compiled(device, lambda z, y: loss(z, y))),
        ]
    return found


def linear(device: Device, *, others: bool = True) -> list[Contender]:
    loss = lossfit.CrossEntropyLoss()
    found = [
        Contender("lossfit", lambda: fused(loss)),
        Contender("plain", lambda: plain_linear),
        Contender("liger", liger_linear),
        Contender("cce", cce_linear),
    ]
    if others:
        found += [
            Contender("three products", lambda: plain_linear, alone=products),
            Contender("torch.compile", compiled(device, lambda x, w, y: plain_linear(x, w, y))),
            Contender("torch", torch_linear),
            Contender("lossfit, 4 GiB", lambda: fused(loss, memory=4 << 30)),
            Contender("lossfit, chunked", lambda: lambda x, w, y: loss.linear(x, w, y, backend="chunked")),
        ]
    return found
