"""One right class among many."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
import torch
from scipy.sparse import csr_matrix
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight, column_or_1d, validate_data
from torch import Tensor

from lossfit.integrations.sklearn import checks, held_out
from lossfit.integrations.sklearn.base import Estimator, _takes_parts
from lossfit.integrations.sklearn.network import logits
from lossfit.losses.base import Loss
from lossfit.losses.metric.base import MetricLoss
from lossfit.losses.single_label.base import SingleLabelLoss


class LossfitClassifier(Estimator):
    r"""A linear model, or a network with hidden layers, trained with a loss of this library.

    It minimises :math:`\sum_i w_i \ell_i / \sum_i w_i + \frac\alpha2 \|W\|^2`, where :math:`w_i` are the weights of
    rows and classes and W the matrices of all layers, without biases. With cross-entropy and ``standardize=False``
    that is scikit-learn's ``LogisticRegression`` with :math:`C = 1 / (\alpha \sum_i w_i)`. Two classes share one
    score.

    Args:
        loss: the name of a single-label loss or of a loss of a metric in the registry, such as "cross_entropy",
            "focal", "exact" or "f_beta"; or such a loss, which is copied.
        loss_params: what the loss of that name is made with, such as ``{"gamma": 0.3}``.
        hidden_layer_sizes: units of each hidden layer; none for a linear model.
        activation: after each hidden layer: "relu", "tanh", "logistic" or "gelu".
        alpha: strength of the L2 penalty, at least 0.
        standardize: whether features are brought to mean 0 and deviation 1 first; the penalty is on the weights of
            features so standardised.
        class_weight: weights of the classes, {class: weight}; "balanced" weights them inversely to their frequency.
        solver: "full_batch", L-BFGS on all rows, exact and without chance in a linear model; "mini_batch", Adam;
            "auto" is the former for up to 10,000 rows. Losses with schedules or a designed gradient need mini-batches.
        max_iter: iterations of L-BFGS, by default 1000, or passes of mini-batches over the rows, by default 200.
        tol: L-BFGS ends where no entry of the gradient is above it, by default 1e-9 for a linear model and 1e-4 with
            hidden layers. Mini-batches end when the objective has not fallen by more than it, by default 1e-4, for
            ``n_iter_no_change`` passes.
        learning_rate: of Adam.
        batch_size: rows of a mini-batch.
        early_stopping: whether to stop when the loss of held-out rows has not fallen by more than 1e-4 for
            ``n_iter_no_change`` iterations, and to keep the weights that were best on them.
        validation_fraction: the share of rows held out, in (0, 1), where ``early_stopping`` or ``calibrate`` asks for
            it; in proportion to the classes.
        n_iter_no_change: the patience in iterations or passes.
        calibrate: whether ``predict_proba`` divides the scores by a temperature that is fitted on the held-out rows,
            each of which counts once there. The predicted class stays.
        random_state: of hidden layers' first weights, mini-batches and held-out rows.

    Without ``calibrate`` the probabilities are those that the loss trains: the softmax of the scores, and for EXACT
    its Gaussian probabilities.

    Attributes:
        classes_: the classes, sorted.
        network_: the ``torch.nn.Module`` from features to scores, in float64.
        coef_, intercept_: of a linear model, for features as they come.
        loss_, solver_: the loss and the solver used.
        n_iter_, loss_curve_, validation_curve_: iterations, the objective after each, and the loss of held-out rows.
        scaling_: the temperature scaling, or None.
        n_features_in_, feature_names_in_: as in every estimator of scikit-learn.

    Raises:
        TypeError, ValueError: when it is fitted, naming the argument, what was expected and what came.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from lossfit.integrations.sklearn import LossfitClassifier
        >>> x, y = load_iris(return_X_y=True)
        >>> classifier = LossfitClassifier(loss="gamma_cross_entropy", loss_params={"gamma": 0.3}, alpha=0.01)
        >>> round(classifier.fit(x, y).score(x, y), 3)
        0.953
    """

    _kinds = (SingleLabelLoss, MetricLoss)

    def __init__(
        self,
        loss: str | Loss = "gamma_cross_entropy",
        *,
        loss_params: dict[str, Any] | None = None,
        hidden_layer_sizes: tuple[int, ...] | int = (),
        activation: str = "relu",
        alpha: float = 1e-4,
        standardize: bool = True,
        class_weight: dict[Any, float] | Literal["balanced"] | None = None,
        solver: str = "auto",
        max_iter: int | None = None,
        tol: float | None = None,
        learning_rate: float = 1e-2,
        batch_size: int = 128,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        calibrate: bool = False,
        random_state: Any = None,
    ) -> None:
        self.loss = loss
        self.loss_params = loss_params
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.alpha = alpha
        self.standardize = standardize
        self.class_weight = class_weight
        self.solver = solver
        self.max_iter = max_iter
        self.tol = tol
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.calibrate = calibrate
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on features (N, F), which may be sparse, and classes (N,), numbers or strings.

        Rows of weight 0 are left out. A class that has no others stays one of ``classes_``, as in scikit-learn, and is
        trained to be improbable.
        """
        X, y, weight, self.classes_ = self._read(X, y, sample_weight)
        present = np.unique(y)
        checks.two_classes(present)
        index = np.searchsorted(self.classes_, y)
        of_class = np.ones(len(self.classes_))
        given = self.class_weight
        if isinstance(given, dict):  # which scikit-learn refuses with classes that no row has
            strange = [name for name in given if name not in self.classes_]
            given = {name: v for name, v in given.items() if name in present or name in strange}
        of_class[np.searchsorted(self.classes_, present)] = compute_class_weight(
            given, classes=present, y=y, sample_weight=weight
        )
        checks.class_weights(of_class)
        held = self._train(X, index, weight, self._outputs(), class_weight=of_class[index], stratify=index)
        self.scaling_ = None
        if self.calibrate and held is not None:
            with torch.no_grad():
                self.scaling_ = held_out.temperature(logits(self.network_.scores(held.x)), held.y)
        return self

    @available_if(_takes_parts)
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train by one pass of mini-batches over these rows, on top of what was learnt before.

        The means and deviations that features are standardised by are those of all rows so far. A class weight
        "balanced" needs all rows at once, and held-out rows too.

        Args:
            X, y, sample_weight: as in :meth:`fit`.
            classes: all classes that will come; needed in the first call.
        """
        first = not hasattr(self, "network_")
        if first and classes is None:
            raise ValueError("Expected `classes` in the first call of partial_fit, but got None.")
        X, y, weight, _ = self._read(X, y, sample_weight, reset=first)
        if first:
            self.classes_ = np.unique(column_or_1d(classes))
            checks.two_classes(self.classes_)
            self.scaling_ = None
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(f"Expected `classes` to be those of the first call, {self.classes_}, but got {classes}.")
        new = np.setdiff1d(y, self.classes_)
        if len(new):
            raise ValueError(f"Expected `y` to hold some of the classes {self.classes_}, but got {new} too.")
        index = np.searchsorted(self.classes_, y)
        of_class = compute_class_weight(self.class_weight, classes=self.classes_, y=self.classes_)
        checks.class_weights(of_class)
        return self._continue(X, index, weight, self._outputs(), of_class[index])

    def _read(
        self, X: Any, y: Any, sample_weight: Any, reset: bool = True
    ) -> tuple[np.ndarray | csr_matrix, np.ndarray, np.ndarray, np.ndarray]:
        """Checked features, classes and weights of the rows whose weight is not 0, and the classes of all rows."""
        if y is not None and type_of_target(y, input_name="y") == "multilabel-indicator":
            raise ValueError(
                "Expected `y` to hold one class for each row, but got several labels; y should be a 1d array. "
                "LossfitMultiLabelClassifier takes several."
            )
        X, y = validate_data(self, X, y, reset=reset, dtype=np.float64, accept_sparse="csr")
        check_classification_targets(y)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        rows = weight > 0
        y = np.asarray(y)
        return X[rows], y[rows], weight[rows], np.unique(y)

    def _outputs(self) -> int:
        return 1 if len(self.classes_) == 2 else len(self.classes_)

    def _logits(self, scores: Tensor) -> Tensor:
        return logits(scores)

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores (N, C), or (N,) of the second of two classes."""
        scores = self._scores(X).numpy()
        return scores.ravel() if scores.shape[1] == 1 else scores

    def predict(self, X: Any) -> np.ndarray:
        """The class with the highest score (N,)."""
        at = logits(self._scores(X)).argmax(1).numpy()
        found: np.ndarray = self.classes_[at]
        return found

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (N, C) of the classes in the order of ``classes_``."""
        z = logits(self._scores(X))
        with torch.no_grad():
            if self.scaling_ is not None:
                z = self.scaling_(z)
            elif isinstance(self.loss_, SingleLabelLoss):
                return self.loss_.probabilities(z).numpy()
            return z.softmax(1).numpy()

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithms of :meth:`predict_proba`."""
        with np.errstate(divide="ignore"):
            log_p: np.ndarray = np.log(self.predict_proba(X))
        return log_p
