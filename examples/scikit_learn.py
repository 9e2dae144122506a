"""Losses of this library where scikit-learn's estimators are used: a search over losses, and tuned thresholds.

    python examples/scikit_learn.py    # some seconds on one core

The digits of scikit-learn with 40% of the training labels drawn anew: which loss does cross-validation on the noisy
labels choose, and how good is each on clean test labels? Then rows with few of eight labels: what do thresholds tuned
on held-out rows do for macro F1?
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits, make_multilabel_classification
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV, train_test_split

from lossfit.integrations.sklearn import LossfitClassifier, LossfitMultiLabelClassifier

LOSSES = [
    {"loss": ["cross_entropy", "expected_accuracy"]},
    {"loss": ["gamma_cross_entropy"], "loss_params": [{"gamma": 0.1}, {"gamma": 0.5}]},
]
NOISE = 0.4


def noisy_digits(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features and labels to train on, the labels noisy, and to test on."""
    x, x_test, y, y_test = train_test_split(*load_digits(return_X_y=True), test_size=0.5, random_state=seed)
    rng = np.random.default_rng(seed)
    drawn = rng.random(len(y)) < NOISE
    return x, np.where(drawn, rng.integers(0, 10, len(y)), y), x_test, y_test


def search_over_losses() -> dict[str, tuple[float, float]]:
    """Of every loss, its accuracy in cross-validation on noisy labels, and on clean test labels."""
    x, y, x_test, y_test = noisy_digits()
    search = GridSearchCV(LossfitClassifier(alpha=1e-2), LOSSES, cv=3).fit(x, y)
    found = {}
    for settings, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True):
        name = ", ".join([settings["loss"], *(f"{k}={v}" for k, v in settings.get("loss_params", {}).items())])
        found[name] = (score, LossfitClassifier(alpha=1e-2, **settings).fit(x, y).score(x_test, y_test))
    return found


def tuned_thresholds() -> dict[str, float]:
    """Macro F1 on test rows by the threshold."""
    x, y = make_multilabel_classification(4000, 20, n_classes=8, n_labels=1, random_state=1)
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.5, random_state=0)
    found = {}
    for threshold in (0.0, "macro_f1"):
        classifier = LossfitMultiLabelClassifier(threshold=threshold, validation_fraction=0.3, random_state=0)
        predicted = classifier.fit(x, y).predict(x_test)
        found[str(threshold)] = float(f1_score(y_test, predicted, average="macro", zero_division=0))
    return found


def main() -> None:
    print(f"{'loss':34} {'cross-validated, noisy':>22} {'test, clean':>12}")
    for name, (validated, tested) in search_over_losses().items():
        print(f"{name:34} {validated:>22.1%} {tested:>12.1%}")
    print()
    for threshold, score in tuned_thresholds().items():
        print(f"macro F1 with threshold {threshold:9} {score:.1%}")


if __name__ == "__main__":
    main()
