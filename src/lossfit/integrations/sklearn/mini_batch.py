"""The mini-batch solver: Adam on a few rows at a time."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch

from lossfit.integrations.sklearn.losses import Rows
from lossfit.integrations.sklearn.network import Network
from lossfit.integrations.sklearn.training import Course, Objective, Watch


def one_pass(
    network: Network,
    objective: Objective,
    rows: Rows,
    optimizer: torch.optim.Optimizer,
    *,
    batch_size: int,
    mean_weight: float,
    rng: np.random.RandomState,
) -> float:
    """Every row once, in an order drawn anew; returns the mean of the objective on the way."""
    total = 0.0
    for at in torch.from_numpy(rng.permutation(len(rows.y))).split(batch_size):
        optimizer.zero_grad()
        with torch.enable_grad():
            value = objective(network, Rows(rows.x[at], rows.y[at], rows.weight[at]), len(at) * mean_weight)
            value.backward()
        optimizer.step()
        objective.loss.step()
        total += value.item() * len(at)
    return total / len(rows.y)


def minimise(
    network: Network,
    objective: Objective,
    rows: Rows,
    optimizer: torch.optim.Optimizer,
    *,
    batch_size: int,
    mean_weight: float,
    rng: np.random.RandomState,
    max_iter: int,
    tol: float,
    patience: int,
    watch: Watch | None = None,
) -> Course:
    """Train until the objective, or the held-out loss, has not fallen by more than ``tol`` for some passes."""
    course, mark, since = Course(), math.inf, 0
    finite = copy.deepcopy(network.state_dict())
    for _ in range(max_iter):
        value = one_pass(network, objective, rows, optimizer, batch_size=batch_size, mean_weight=mean_weight, rng=rng)
        course.curve.append(value)
        if not math.isfinite(value) or not all(parameter.isfinite().all() for parameter in network.parameters()):
            network.load_state_dict(finite)
            course.trouble = f"the loss or a weight is not finite after {len(course.curve)} passes"
            break
        finite = copy.deepcopy(network.state_dict())
        if watch is None:
            mark, since = (value, 0) if value < mark - tol else (mark, since + 1)
        if watch.is_over() if watch is not None else since >= patience:
            break
    else:
        course.trouble = f"the loss still fell after {max_iter} passes"
    if watch is not None:
        watch.restore()
    return course
