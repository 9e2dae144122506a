"""What the estimators share: settings, data, training, and scores."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar, Self

import numpy as np
import torch
from scipy.sparse import csr_matrix, issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from lossfit.core.checks import check_choice
from lossfit.integrations.sklearn import checks, full_batch, held_out, losses, mini_batch
from lossfit.integrations.sklearn.losses import Rows
from lossfit.integrations.sklearn.network import ACTIVATIONS, Network
from lossfit.integrations.sklearn.training import Course, Objective, Watch
from lossfit.losses.base import Loss

SOLVERS = ("auto", "full_batch", "mini_batch")
SMALL = 10_000  # rows that the full-batch solver takes by default


def expected_failed_checks(estimator: Estimator) -> dict[str, str]:
    """The checks of scikit-learn that an estimator may fail by its settings, with the reason.

    The full-batch solver fails none. Pass it as ``expected_failed_checks`` to ``check_estimator`` or
    ``parametrize_with_checks``.

    Example:
        >>> from lossfit.integrations.sklearn import LossfitClassifier, expected_failed_checks
        >>> expected_failed_checks(LossfitClassifier())
        {}
        >>> list(expected_failed_checks(LossfitClassifier(solver="mini_batch")))
        ['check_sample_weight_equivalence_on_dense_data', 'check_sample_weight_equivalence_on_sparse_data']
    """
    found, weights = (
        dict[str, str](),
        [f"check_sample_weight_equivalence_on_{kind}_data" for kind in ("dense", "sparse")],
    )
    loss = losses.find(estimator.loss, estimator.loss_params, estimator._kinds)
    if estimator.solver == "mini_batch" or losses.why_stepwise(loss) is not None:
        found |= dict.fromkeys(weights, "a row of weight 2 is in one batch, two rows may be in two")
    elif estimator._holds_out():
        found |= dict.fromkeys(weights, "a row of weight 2 is held out or not, of two rows one may be")
    if getattr(estimator, "threshold", 0) != 0:
        reason = "the probabilities know nothing of the threshold"
        found |= dict.fromkeys(("check_classifiers_train", "check_classifier_multioutput"), reason)
    return found


def _takes_parts(estimator: Estimator) -> bool:
    """Whether there is a partial_fit, for ``available_if``."""
    balanced = getattr(estimator, "class_weight", None) == "balanced"
    if estimator.solver == "full_batch" or estimator._holds_out() or balanced:
        raise AttributeError(
            "partial_fit goes through mini-batches, holds no rows out and does not know how frequent classes are. "
            "Expected no solver='full_batch', nothing that needs rows held out and no class_weight='balanced', "
            f"but got {estimator!r}."
        )
    return True


class Estimator(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The base of the estimators. Their settings are told in :class:`LossfitClassifier`."""

    _kinds: ClassVar[tuple[type[Loss], ...]]
    """The losses that it takes."""

    loss: str | Loss
    loss_params: dict[str, Any] | None
    hidden_layer_sizes: tuple[int, ...] | int
    activation: str
    alpha: float
    standardize: bool
    solver: str
    max_iter: int | None
    tol: float | None
    learning_rate: float
    batch_size: int
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    calibrate: bool
    random_state: Any

    @property
    def coef_(self) -> np.ndarray:
        """The weights of a linear model for features as they come, (1, F) for two classes and (C, F) for more."""
        return (self._linear().weight / self.network_.scale).detach().numpy()

    @property
    def intercept_(self) -> np.ndarray:
        """What a linear model adds, (1,) or (C,)."""
        layer = self._linear()
        shift = layer.weight @ (self.network_.mean / self.network_.scale)
        return (layer.bias - shift).detach().numpy()

    def _linear(self) -> torch.nn.Linear:
        check_is_fitted(self, "network_")
        if len(self.network_.layers) > 1:
            raise AttributeError("A network with hidden layers has no coefficients; its weights are in `network_`.")
        layer = self.network_.layers[0]
        assert isinstance(layer, torch.nn.Linear)
        return layer

    def _check_settings(self) -> tuple[int, ...]:
        """Raise if a setting is wrong; returns the sizes of the hidden layers."""
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("solver", self.solver, SOLVERS)
        checks.number("alpha", self.alpha, 0.0)
        checks.number("learning_rate", self.learning_rate, 0.0, open_low=True)
        checks.number("validation_fraction", self.validation_fraction, 0.0, 1.0, open_low=True)
        if self.tol is not None:
            checks.number("tol", self.tol, 0.0)
        for name in ("batch_size", "n_iter_no_change", *(() if self.max_iter is None else ("max_iter",))):
            checks.count(name, getattr(self, name))
        for name in ("standardize", "early_stopping", "calibrate"):
            checks.flag(name, getattr(self, name))
        return checks.sizes("hidden_layer_sizes", self.hidden_layer_sizes)

    def _holds_out(self) -> bool:
        return self.early_stopping or self.calibrate

    def _logits(self, scores: Tensor) -> Tensor:
        """Scores to what the loss is called with."""
        raise NotImplementedError

    def _train(
        self,
        X: np.ndarray | csr_matrix,
        y: np.ndarray,
        weight: np.ndarray,
        outputs: int,
        *,
        class_weight: np.ndarray | float = 1.0,
        stratify: np.ndarray | None = None,
    ) -> Rows | None:
        """Train anew; returns the rows that were held out, of which the features are standardised.

        The weights of the rows' classes, unlike those of the rows, are for the loss alone.
        """
        hidden = self._check_settings()
        rng = check_random_state(self.random_state)
        held = None
        if self._holds_out():
            kept, held = held_out.split(X.shape[0], self.validation_fraction, rng, stratify)
        else:
            kept = np.arange(X.shape[0])
        self.loss_ = losses.find(self.loss, self.loss_params, self._kinds)
        self.solver_ = self._choose_solver(len(kept))
        own = weight[kept]
        if self.solver_ == "full_batch":
            kept, own = full_batch.once(X, y, kept, own)
        self._start(X[kept], own, (X.shape[1], *hidden, outputs), rng)
        of_class = np.broadcast_to(class_weight, X.shape[0])
        rows = self._rows(X[kept], y[kept], own * of_class[kept])
        validation = None if held is None else self._rows(X[held], y[held], weight[held] * of_class[held])
        course = self._run(rows, validation, bool(hidden), rng)
        self.loss_curve_, self.n_iter_ = course.curve, max(len(course.curve), 1)
        self.validation_curve_ = course.validation_curve
        if course.trouble:
            warnings.warn(
                f"{type(self).__name__} did not converge: {course.trouble}. Raise `max_iter`, `tol` or `alpha`, or "
                f"lower `learning_rate`.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return validation

    def _start(
        self, X: np.ndarray | csr_matrix, weight: np.ndarray, sizes: tuple[int, ...], rng: np.random.RandomState
    ) -> None:
        self.network_ = Network(sizes, self.activation, rng)
        self._scaler = StandardScaler(with_mean=not issparse(X)) if self.standardize else None
        self._scale(X, weight)
        self._optimizer: torch.optim.Optimizer | None = None
        self._rng = rng

    def _scale(self, X: np.ndarray | csr_matrix, weight: np.ndarray) -> None:
        """Take rows into the means and deviations that features are standardised by."""
        if self._scaler is not None:
            self._scaler.partial_fit(X, sample_weight=weight)
            mean = self._scaler.mean_ if self._scaler.with_mean else np.zeros(X.shape[1])
            self.network_.standardise_by(mean, self._scaler.scale_)

    def _rows(self, X: np.ndarray | csr_matrix, y: np.ndarray, weight: np.ndarray) -> Rows:
        return Rows(self.network_.standardised(X), torch.from_numpy(y), torch.from_numpy(weight))

    def _objective(self) -> Objective:
        return Objective(self.loss_, self._logits, self.alpha)

    def _choose_solver(self, rows: int) -> str:
        reason = losses.why_stepwise(self.loss_)
        if self.solver == "full_batch" and reason is not None:
            raise ValueError(f"Expected `solver` to be 'mini_batch' for {self.loss_!r}, since {reason}.")
        if self.solver != "auto":
            return self.solver
        return "full_batch" if reason is None and rows <= SMALL else "mini_batch"

    def _run(self, rows: Rows, validation: Rows | None, hidden: bool, rng: np.random.RandomState) -> Course:
        full = self.solver_ == "full_batch"
        tol = self.tol if self.tol is not None else 1e-9 if full and not hidden else 1e-4
        max_iter = self.max_iter if self.max_iter is not None else 1000 if full else 200
        objective, watch = self._objective(), None
        if self.early_stopping and validation is not None:
            watch = Watch(objective, self.network_, validation, self.n_iter_no_change)
        if full:
            course = full_batch.minimise(self.network_, objective, rows, max_iter=max_iter, tol=tol, watch=watch)
        else:
            classes = self._logits(self.network_.scores(rows.x[:1])).shape[1]
            course = mini_batch.minimise(
                self.network_,
                objective,
                rows,
                self._adam(),
                batch_size=self.batch_size,
                mean_weight=losses.mean_weight(self.loss_, rows, classes),
                rng=rng,
                max_iter=max_iter,
                tol=tol,
                patience=self.n_iter_no_change,
                watch=watch,
            )
        if watch is not None:
            course.validation_curve = watch.curve
        return course

    def _adam(self) -> torch.optim.Optimizer:
        if self._optimizer is None:
            self._optimizer = torch.optim.Adam(self.network_.parameters(), self.learning_rate)
        return self._optimizer

    def _continue(
        self,
        X: np.ndarray | csr_matrix,
        y: np.ndarray,
        weight: np.ndarray,
        outputs: int,
        class_weight: np.ndarray | float = 1.0,
    ) -> Self:
        """One pass of mini-batches over more rows."""
        hidden = self._check_settings()
        if hasattr(self, "network_"):
            self._scale(X, weight)
        else:
            self.loss_ = losses.find(self.loss, self.loss_params, self._kinds)
            self._start(X, weight, (X.shape[1], *hidden, outputs), check_random_state(self.random_state))
            self.n_iter_, self.loss_curve_, self.validation_curve_, self.solver_ = 0, [], [], "mini_batch"
        value = mini_batch.one_pass(
            self.network_,
            self._objective(),
            self._rows(X, y, weight * class_weight),
            self._adam(),
            batch_size=self.batch_size,
            mean_weight=1.0,
            rng=self._rng,
        )
        if not math.isfinite(value):
            warnings.warn(f"The loss became {value}. Lower `learning_rate`.", ConvergenceWarning, stacklevel=3)
        self.n_iter_ += 1
        self.loss_curve_.append(value)
        return self

    def _scores(self, X: Any) -> Tensor:
        """Scores (N, outputs) of new rows."""
        check_is_fitted(self, "network_")
        X = validate_data(self, X, reset=False, dtype=np.float64, accept_sparse="csr")
        with torch.no_grad():
            return self.network_.scores(self.network_.standardised(X))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
