"""Any number of right classes."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

import numpy as np
import torch
from scipy.sparse import csr_matrix, issparse
from sklearn.utils import Tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, column_or_1d, validate_data
from torch import Tensor

from lossfit.core.checks import check_choice
from lossfit.integrations.sklearn import checks, held_out
from lossfit.integrations.sklearn.base import Estimator, _takes_parts
from lossfit.losses.base import Loss
from lossfit.losses.multi_label.zlpr import MultiLabelLoss


class LossfitMultiLabelClassifier(Estimator):
    r"""A linear model, or a network with hidden layers, for any number of right classes, the labels of a row.

    A label is predicted where its score is above the threshold. The targets are a matrix (N, L) of 0 and 1. With one
    class for each row (N,) instead, numbers or strings, each class is a label of its own (one against the rest) and
    the one furthest above its threshold is predicted; two classes share one label.

    Args:
        loss: the name of a multi-label loss in the registry, "zlpr", "bce", "focal_bce" or "asymmetric"; or such a
            loss, which is copied.
        threshold: what scores must be above, 0 as the losses have it; or a metric, "macro_f1" or "micro_f1", for
            thresholds that are best for it on held-out rows: one for each label, or one for all.
        calibrate: whether ``predict_proba`` divides the scores by one temperature that is fitted on the held-out rows,
            for all labels together.
        others: see :class:`LossfitClassifier`. Rows are held out without regard to their labels.

    Attributes:
        classes_: the numbers of the labels, or the classes.
        thresholds_: of each label (L,).
        others: see :class:`LossfitClassifier`. There is one score for each label.

    Raises:
        TypeError, ValueError: when it is fitted, naming the argument, what was expected and what came.

    Example:
        >>> from sklearn.datasets import make_multilabel_classification
        >>> from lossfit.integrations.sklearn import LossfitMultiLabelClassifier
        >>> x, y = make_multilabel_classification(n_classes=3, random_state=0)
        >>> LossfitMultiLabelClassifier(alpha=0.01).fit(x, y).predict(x[:2])
        array([[0, 1, 0],
               [0, 1, 0]])
    """

    _kinds = (MultiLabelLoss,)

    def __init__(
        self,
        loss: str | Loss = "zlpr",
        *,
        loss_params: dict[str, Any] | None = None,
        hidden_layer_sizes: tuple[int, ...] | int = (),
        activation: str = "relu",
        alpha: float = 1e-4,
        standardize: bool = True,
        threshold: float | Literal["macro_f1", "micro_f1"] = 0.0,
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
        self.threshold = threshold
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
        """Train on features (N, F), which may be sparse, and labels (N, L) or classes (N,).

        Rows of weight 0 are left out. A class that has no others stays one of ``classes_``.
        """
        X, y, weight, classes = self._read(X, y, sample_weight)
        self._single = y.ndim == 1
        self.classes_ = classes if self._single else np.arange(y.shape[1])
        if self._single:
            checks.two_classes(np.unique(y))
        labels = self._labels(y)
        held = self._train(X, labels, weight, labels.shape[1], stratify=y if self._single else None)
        self.scaling_, self.thresholds_ = None, self._fixed_thresholds(labels.shape[1])
        if held is not None:
            with torch.no_grad():
                scores = self.network_.scores(held.x)
            if self.calibrate:
                self.scaling_ = held_out.temperature(scores, held.y)
            if isinstance(self.threshold, str):
                self.thresholds_ = held_out.thresholds(scores, held.y, held.weight, self.threshold)
        return self

    @available_if(_takes_parts)
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train by one pass of mini-batches over these rows, on top of what was learnt before.

        Args:
            X, y, sample_weight: as in :meth:`fit`.
            classes: for targets (N,), all classes that will come; needed in the first call.
        """
        first = not hasattr(self, "network_")
        X, y, weight, _ = self._read(X, y, sample_weight, reset=first)
        if first:
            self._single = y.ndim == 1
            if self._single and classes is None:
                raise ValueError("Expected `classes` in the first call of partial_fit, but got None.")
            self.classes_ = np.unique(column_or_1d(classes)) if self._single else np.arange(y.shape[1])
        labels = self._labels(y)
        if first:
            self.scaling_, self.thresholds_ = None, self._fixed_thresholds(labels.shape[1])
        return self._continue(X, labels, weight, labels.shape[1])

    def _read(
        self, X: Any, y: Any, sample_weight: Any, reset: bool = True
    ) -> tuple[np.ndarray | csr_matrix, np.ndarray, np.ndarray, np.ndarray]:
        """Checked features, labels (N, L) or classes (N,), and weights, of the rows whose weight is not 0.

        The last are the classes of all rows.
        """
        X, y = validate_data(self, X, y, reset=reset, dtype=np.float64, multi_output=True, accept_sparse="csr")
        check_classification_targets(y)
        y = y.toarray() if issparse(y) else np.asarray(y)
        if y.ndim > 1 and y.shape[1] == 1 and not _is_zero_one(y):
            y = column_or_1d(y, warn=True)
        if y.ndim > 1 and not _is_zero_one(y):
            raise ValueError(f"Expected `y` of shape {y.shape} to hold 0 and 1, but got {np.unique(y)[:10].tolist()}.")
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        rows = weight > 0
        return X[rows], y[rows], weight[rows], np.unique(y)

    def _labels(self, y: np.ndarray) -> np.ndarray:
        """Labels (N, L) of 0 and 1; of two classes, whether it is the second."""
        if y.ndim > 1 or not self._single:
            if self._single or y.ndim == 1 or y.shape[1] != len(self.classes_):
                raise ValueError(
                    f"Expected `y` as in the first call, with {len(self.classes_)} "
                    f"{'classes' if self._single else 'labels'}, but got shape {y.shape}."
                )
            dense: np.ndarray = y.astype(np.float64)
            return dense
        checks.two_classes(self.classes_)
        new = np.setdiff1d(y, self.classes_)
        if len(new):
            raise ValueError(f"Expected `y` to hold some of the classes {self.classes_}, but got {new} too.")
        labels = (y[:, None] == self.classes_).astype(np.float64)
        found: np.ndarray = labels[:, 1:] if len(self.classes_) == 2 else labels
        return found

    def _check_settings(self) -> tuple[int, ...]:
        if isinstance(self.threshold, str):
            check_choice("threshold", self.threshold, held_out.METRICS)
        else:
            checks.number("threshold", self.threshold, -math.inf)
        return super()._check_settings()

    def _holds_out(self) -> bool:
        return super()._holds_out() or isinstance(self.threshold, str)

    def _fixed_thresholds(self, labels: int) -> np.ndarray:
        return np.full(labels, 0.0 if isinstance(self.threshold, str) else float(self.threshold))

    def _logits(self, scores: Tensor) -> Tensor:
        return scores

    def decision_function(self, X: Any) -> np.ndarray:
        """How far scores are above their thresholds (N, L); of two classes, (N,) for the second."""
        scores = self._above(X)
        return scores.ravel() if self._single and scores.shape[1] == 1 else scores

    def predict(self, X: Any) -> np.ndarray:
        """Labels (N, L) of 0 and 1; or classes (N,) if it was fitted on classes."""
        above = self._above(X)
        if not self._single:
            return (above > 0).astype(np.int64)
        at = (above[:, 0] > 0).astype(np.int64) if above.shape[1] == 1 else above.argmax(1)
        found: np.ndarray = self.classes_[at]
        return found

    def _above(self, X: Any) -> np.ndarray:
        above: np.ndarray = self._scores(X).numpy() - self.thresholds_
        return above

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (N, L) that the labels are right, the sigmoid of the scores.

        Only those of "bce" are trained to be probabilities; for those of other losses see ``calibrate``. For classes
        (N, C), and normalised to sum to 1.
        """
        scores = self._scores(X)
        if self.scaling_ is not None:
            scores = scores / self.scaling_.temperature
        p = scores.sigmoid()
        if not self._single:
            return p.numpy()
        if p.shape[1] == 1:
            return torch.cat([(-scores).sigmoid(), p], 1).numpy()
        # By the largest, since all may be too small to be told from 0.
        log_p = torch.nn.functional.logsigmoid(scores)
        return log_p.softmax(1).numpy()

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.classifier_tags.multi_label = True
        return tags


def _is_zero_one(y: np.ndarray) -> bool:
    return bool(np.isin(y, (0, 1)).all())
