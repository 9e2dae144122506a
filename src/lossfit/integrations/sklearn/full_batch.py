"""The full-batch solver: L-BFGS of scipy on all rows at once, in float64."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import OptimizeResult, minimize
from scipy.sparse import csr_matrix, issparse
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from lossfit.integrations.sklearn.losses import Rows
from lossfit.integrations.sklearn.network import Network
from lossfit.integrations.sklearn.sparse_rows import row_keys
from lossfit.integrations.sklearn.training import Course, Objective, Watch

MEMORY = 30  # gradients that it remembers; fewer make it slower (measured)
STALLED = 1e-6  # gradients below this may be all rounding, so that no step is found that lowers the objective


def once(
    X: np.ndarray | csr_matrix, y: np.ndarray, at: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where each row of features and target stands first, of the rows ``at``, and the sum of its weights.

    In an order that the rows alone give, so that a row of weight 2 is two rows to the last bit: the path to one of
    several minima, or to where progress ends, may hang on that.
    """
    if issparse(X):
        keys = [key + label.tobytes() for key, label in zip(row_keys(X[at]), np.asarray(y)[at], strict=True)]
        _, first, of = np.unique(np.array(keys, dtype=object), return_index=True, return_inverse=True)
        return at[first], np.bincount(of, weight)
    rows = np.column_stack([X[at], y[at]]) + 0.0  # a zero of either sign is one number
    whole = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()  # 14 times faster than by axis
    _, first, of = np.unique(whole, return_index=True, return_inverse=True)
    return at[first], np.bincount(of, weight)


def minimise(
    network: Network,
    objective: Objective,
    rows: Rows,
    *,
    max_iter: int,
    tol: float,
    watch: Watch | None = None,
) -> Course:
    """Train until no entry of the gradient is above ``tol``, or the held-out loss rises."""
    parameters, course = list(network.parameters()), Course()

    def put(vector: np.ndarray) -> None:
        vector_to_parameters(torch.tensor(vector), parameters)

    def value_and_gradient(vector: np.ndarray) -> tuple[float, np.ndarray]:
        put(vector)
        with torch.enable_grad():
            value = objective(network, rows)
            gradient = torch.autograd.grad(value, parameters)
        return value.item(), parameters_to_vector(gradient).numpy()

    def after_iteration(intermediate_result: OptimizeResult) -> None:
        course.curve.append(float(intermediate_result.fun))
        if watch is not None:
            put(intermediate_result.x)
            if watch.is_over():
                raise StopIteration

    start = parameters_to_vector(parameters).detach().numpy()
    found = minimize(
        value_and_gradient,
        start,
        method="L-BFGS-B",
        jac=True,
        callback=after_iteration,
        options={"maxiter": max_iter, "maxfun": 10 * max_iter, "gtol": tol, "ftol": 0.0, "maxcor": MEMORY, "maxls": 50},
    )
    put(found.x)
    stopped = watch is not None and watch.since >= watch.patience
    steepest = float(np.abs(found.jac).max())
    if not np.isfinite(found.fun):
        course.trouble = f"the loss became {found.fun}"
    elif not stopped and not found.success and not steepest <= STALLED:
        course.trouble = f"after {found.nit} iterations the largest entry of the gradient is {steepest:.1e}"
    if watch is not None:
        watch.restore()
    return course
