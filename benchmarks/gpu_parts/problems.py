"""Batches to work on, and the right answers to them in a higher precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gpu_parts.device import Device

CHUNK = 1 << 28
"""Numbers worked on at a time where the truth is made by rows."""

Loss = Callable[..., Tensor]


class Problem:
    """Scores, or features and weights, with their targets; what a contender spoils is put right before each run."""

    def __init__(self, source: tuple[Tensor, ...], target: Tensor) -> None:
        self.source, self.target = source, target
        self.leaves = tuple(t.clone().requires_grad_() for t in source)
        self.scratch: dict[str, Any] = {}

    @torch.no_grad()
    def refill(self) -> None:
        for leaf, source in zip(self.leaves, self.source, strict=True):
            leaf.copy_(source)
            leaf.grad = None

    def run(self, loss: Loss) -> Tensor:
        """Forward and backward."""
        value = loss(*self.leaves, self.target)
        value.backward()
        return value.detach()

    def gradients(self) -> list[Tensor]:
        found = [leaf.grad for leaf in self.leaves]
        if any(grad is None for grad in found):
            raise RuntimeError("a gradient is missing")
        return [grad for grad in found if grad is not None]

    def gradient_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.source)

    @property
    def shape(self) -> list[int]:
        return [*self.source[0].shape, len(self.source[-1])] if len(self.source) > 1 else [*self.source[0].shape]


def dense(device: Device, shape: tuple[int, int], seed: int = 0, *, led: bool = False) -> Problem:
    """Scores of standard deviation 3; with ``led`` the target has the largest score in every other row."""
    rows, classes = shape
    options: dict[str, Any] = {"device": device.name, "generator": device.generator(seed)}
    scores = torch.randn(rows, classes, dtype=device.dtype, **options).mul_(3)
    target = torch.randint(classes, (rows,), **options)
    if led:
        target[::2] = scores[::2].argmax(1)
    return Problem((scores,), target)


def linear(device: Device, shape: tuple[int, int, int], spread: float, seed: int = 0) -> Problem:
    """Features and weights whose scores have this standard deviation.

    Spread wide, as by a trained model, the targets are drawn from the probabilities, so that most rows are right.
    """
    rows, features, classes = shape
    options: dict[str, Any] = {"device": device.name, "generator": device.generator(seed)}
    x = torch.randn(rows, features, dtype=device.dtype, **options)
    weight = torch.randn(classes, features, dtype=device.dtype, **options).mul_(spread * features**-0.5)
    target = torch.randint(classes, (rows,), **options)
    if spread > 3:
        for at in _slices(rows, classes):
            scores = (x[at] @ weight.T).float()
            noise = torch.rand(scores.shape, **options).clamp_(min=1e-20).log_().neg_().log_()
            target[at] = scores.sub_(noise).argmax(1)
    return Problem((x, weight), target)


class Truth(NamedTuple):
    loss: float
    gradients: list[Tensor] | None
    norms: list[float]


def cross_entropy(problem: Problem, dtype: torch.dtype, *, keep: bool) -> Truth:
    """Mean cross-entropy, its gradients, and their norms, some rows at a time."""
    return _dense_truth(problem, dtype, keep) if len(problem.source) == 1 else _linear_truth(problem, dtype)


def _dense_truth(problem: Problem, dtype: torch.dtype, keep: bool) -> Truth:
    (scores,), total, square, kept = problem.source, 0.0, 0.0, []
    for at in _slices(*scores.shape):
        loss, grad = _rows(scores[at].to(dtype), problem.target[at], len(scores))
        total, square = total + loss, square + grad.double().square().sum().item()
        if keep:
            kept.append(grad)
    return Truth(total, [torch.cat(kept)] if keep else None, [square**0.5])


def _linear_truth(problem: Problem, dtype: torch.dtype) -> Truth:
    x, weight = (t.to(dtype) for t in problem.source)
    total, to_x, to_weight = 0.0, torch.empty_like(x), torch.zeros_like(weight)
    for at in _slices(len(x), len(weight)):
        loss, grad = _rows(x[at] @ weight.T, problem.target[at], len(x))
        total += loss
        to_x[at] = grad @ weight
        to_weight.addmm_(grad.T, x[at])
    return Truth(total, [to_x, to_weight], [t.double().norm().item() for t in (to_x, to_weight)])


def _rows(scores: Tensor, target: Tensor, rows: int) -> tuple[float, Tensor]:
    """The share of some rows in the mean over all, and its gradient."""
    log_p = scores.log_softmax(1)
    loss = F.nll_loss(log_p, target, reduction="sum").item() / rows
    grad = log_p.exp_()
    grad[torch.arange(len(target), device=target.device), target] -= 1
    return loss, grad.div_(rows)


def by_autograd(problem: Problem, loss: Loss) -> Truth:
    """Of any loss, in float64."""
    leaves = [t.double().requires_grad_() for t in problem.source]
    value = loss(*leaves, problem.target)
    grads = list(torch.autograd.grad(value, leaves))
    return Truth(value.item(), grads, [grad.norm().item() for grad in grads])


def errors(value: Tensor, problem: Problem, truth: Truth) -> dict[str, float]:
    """Relative: of the loss, and of every gradient as a norm; without gradients to compare with, of their norms."""
    found = {"loss": abs(float(value) - truth.loss) / max(abs(truth.loss), 1e-30)}
    grads, names = problem.gradients(), ("x", "weight") if len(problem.source) > 1 else ("scores",)
    for i, (name, grad) in enumerate(zip(names, grads, strict=True)):
        if truth.gradients is None:
            norm = grad.norm(dtype=torch.float32).item()
            found[f"norm of the gradient of {name}"] = abs(norm / max(truth.norms[i], 1e-30) - 1)
        else:
            true = truth.gradients[i]
            found[f"gradient of {name}"] = ((grad.to(true.dtype) - true).norm() / true.norm()).item()
    return {name: float(f"{error:.3g}") for name, error in found.items()}


def _slices(rows: int, columns: int) -> Iterator[slice]:
    height = max(1, CHUNK // columns)
    return (slice(i, i + height) for i in range(0, rows, height))
