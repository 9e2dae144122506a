"""Rows of extreme scores: every loss of the gap against its formula in longer numbers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lossfit
from attacks.tally import Tally

_BATCH, _WIDEST = 500, 12
_TYPES = {torch.float16: 2e-5, torch.bfloat16: 2e-5, torch.float32: 2e-5, torch.float64: 1e-11}
Numbers = Any  # NumPy's long doubles


def _softplus(x: Numbers) -> Numbers:
    return np.where(x > 0, x, 0) + np.log1p(np.exp(-np.abs(x)))


def _sigmoid(x: Numbers) -> Numbers:
    return np.exp(-_softplus(-x))


# Each loss, and its formula of the target's log-odds d.
LOSSES: list[tuple[lossfit.SingleLabelLoss, Callable[[Numbers], Numbers]]] = [
    (lossfit.CrossEntropyLoss(), lambda d: _softplus(-d)),
    (lossfit.ExpectedAccuracyLoss(), lambda d: _sigmoid(-d)),
    (
        lossfit.GammaCrossEntropyLoss(0.5),
        lambda d: np.log1p(_sigmoid(-d) / (1 + _sigmoid(d))) / 0.5,
    ),
    (lossfit.GeneralizedCrossEntropyLoss(0.5), lambda d: -np.expm1(-0.5 * _softplus(-d)) / 0.5),
    (lossfit.SymmetricCrossEntropyLoss(0.5, 1.0, -4.0), lambda d: 0.5 * _softplus(-d) + 4 * _sigmoid(-d)),
    (lossfit.SymmetricCrossEntropyLoss(0.0, 1.0, -4.0), lambda d: 4 * _sigmoid(-d)),
    (lossfit.SquaredLoss(), lambda d: _sigmoid(-d) ** 2),
    (lossfit.ExponentialLoss(), lambda d: np.exp(-_sigmoid(d))),
    (lossfit.FocalLoss(2.0), lambda d: _sigmoid(-d) ** 2 * _softplus(-d)),
]


def run(count: int, seed: int) -> Tally:
    """At least ``count`` rows, in batches that take each loss, type and way of calling in turn."""
    tally, begun, rng = Tally(), time.monotonic(), np.random.default_rng(seed)
    turn = 0
    while tally.tried < count:
        loss, formula = LOSSES[turn % len(LOSSES)]
        for dtype in _TYPES:
            scores, target = _rows(rng, dtype)
            expected = formula(_log_odds(scores, target))
            for way in ("scores", "scores of positions", "features") if turn % 3 == 0 else ("scores",):
                _compare(tally, loss, way, scores, target, expected, f"seed {seed}, turn {turn}")
        turn += 1
    tally.seconds = time.monotonic() - begun
    return tally


def _rows(rng: np.random.Generator, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    classes = int(rng.integers(2, _WIDEST))
    largest = {torch.float16: 3.5, torch.bfloat16: 30, torch.float32: 30, torch.float64: 200}[dtype]
    size = 10 ** rng.uniform(-6, largest, (_BATCH, 1)) * (rng.random((_BATCH, 1)) < 0.5)
    spread = 10 ** rng.uniform(-4, 3, (_BATCH, 1))
    scores = torch.from_numpy(size + spread * rng.standard_normal((_BATCH, classes))).to(dtype)
    target = torch.from_numpy(rng.integers(0, classes, _BATCH))
    excluded = torch.from_numpy(rng.random((_BATCH, classes)) < 0.05)
    excluded[excluded.all(1)] = False
    return scores.masked_fill(excluded, -torch.inf), target


def _log_odds(scores: Tensor, target: Tensor) -> Numbers:
    z, at = scores.double().numpy().astype(np.longdouble), target.numpy()[:, None]
    own = np.take_along_axis(z, at, 1)
    np.put_along_axis(z, at, -np.inf, 1)
    top = z.max(1, keepdims=True)
    alone = np.isneginf(top)
    rest = np.log(np.exp(z - np.where(alone, 0, top)).sum(1, keepdims=True) + np.where(alone, 1, 0))
    return np.where(alone, np.inf, own - top - rest)[:, 0]


def _compare(
    tally: Tally,
    loss: lossfit.SingleLabelLoss,
    way: str,
    scores: Tensor,
    target: Tensor,
    expected: Numbers,
    where: str,
) -> None:
    keep = torch.ones(len(target), dtype=torch.bool)
    loss.reduction = "none"
    z = scores.clone().requires_grad_()
    if way == "features":  # products with zeros leave no infinity
        keep = scores.isfinite().all(1)
        z = scores[keep].requires_grad_()
        value = loss.linear(z, torch.eye(z.shape[1], dtype=z.dtype), target[keep], backend="chunked")
    elif way == "scores":
        value = loss(z, target)
    else:
        value = loss(z.unsqueeze(2), target.unsqueeze(1)).squeeze(1)
    value.sum().backward()
    assert z.grad is not None
    found, right = value.detach().double().numpy(), expected[keep.numpy()].astype(np.float64)
    single = scores.dtype != torch.float64
    least, largest = (1e-37, 3.4e38) if single else (1e-300, 1.7e308)
    right = np.where(right > largest, np.inf, right)
    with np.errstate(invalid="ignore"):
        near = np.abs(found - right) <= least + _TYPES[scores.dtype] * np.abs(right)
    fine = (found == right) | near
    fine &= z.grad.isfinite().all(1).numpy()
    kind = f"{loss.name}, {str(scores.dtype).removeprefix('torch.')}, {way}"
    tally.add(kind, count=int(fine.sum()))
    for i in np.flatnonzero(~fine):
        row, at = z.detach()[i].tolist(), int(target[keep][i])
        tally.add(kind, f"{where}: {row}, target {at}: {found[i]:.9g} in place of {right[i]:.9g}")
