"""The estimators under scikit-learn's own checks, on real data, and against its logistic regression."""

import functools
import importlib
import io
import pickle
import sys
import warnings

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import torch
from scipy.optimize import check_grad
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, label_ranking_average_precision_score, log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_sample_weight_equivalence_on_dense_data, parametrize_with_checks
from torch.nn.utils import parameters_to_vector

import lossfit
from lossfit.integrations.sklearn import LossfitClassifier, LossfitMultiLabelClassifier, expected_failed_checks

CHECKED = [
    LossfitClassifier(),
    LossfitClassifier(solver="mini_batch", tol=0.1, learning_rate=0.05),
    LossfitClassifier(early_stopping=True, calibrate=True, validation_fraction=0.3),
    LossfitMultiLabelClassifier(),
    LossfitMultiLabelClassifier(threshold="macro_f1", validation_fraction=0.3),
]


@pytest.mark.filterwarnings("ignore:.*did not converge", "ignore:invalid value encountered in cast:RuntimeWarning")
@parametrize_with_checks(CHECKED, expected_failed_checks=expected_failed_checks)
def test_scikit_learn_checks(estimator: object, check: functools.partial) -> None:
    check(estimator)


@pytest.mark.filterwarnings("ignore:.*did not converge")
def test_what_is_declared_to_fail_does() -> None:
    with pytest.raises(AssertionError, match="not equivalent"):
        check_sample_weight_equivalence_on_dense_data("", LossfitClassifier(solver="mini_batch", batch_size=4))
    assert expected_failed_checks(LossfitClassifier("sensitivity", loss_params={"sensitivity": np.ones_like}))
    assert not expected_failed_checks(LossfitMultiLabelClassifier())


@pytest.mark.filterwarnings("ignore:.*did not converge")
@pytest.mark.parametrize("settings", [{"loss": "hinge"}, {"loss": "smooth_accuracy"}, {"hidden_layer_sizes": (16,)}])
def test_a_weight_of_2_is_two_rows_also_where_there_is_more_than_one_way_down(settings: dict[str, object]) -> None:
    x, y = load_iris(return_X_y=True)
    weight = np.random.RandomState(0).randint(0, 3, len(y))
    order = np.random.RandomState(1).permutation(weight.sum())
    twice, labels = x.repeat(weight, 0)[order], y.repeat(weight)[order]
    one = LossfitClassifier(**settings, random_state=0, max_iter=150).fit(x, y, sample_weight=weight)
    two = LossfitClassifier(**settings, random_state=0, max_iter=150).fit(twice, labels)
    np.testing.assert_array_equal(one.predict_proba(x), two.predict_proba(x))


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x / 16, y


@pytest.fixture(scope="module")
def cancer() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(x), y


@pytest.fixture(scope="module")
def labelled() -> tuple[np.ndarray, np.ndarray]:
    return make_multilabel_classification(600, 15, n_classes=5, random_state=0)


def cross_entropy(**settings: object) -> LossfitClassifier:
    return LossfitClassifier("cross_entropy", standardize=False, **settings)


class TestAgainstLogisticRegression:
    @pytest.mark.parametrize("data", ["digits", "cancer"])
    @pytest.mark.parametrize("class_weight", [None, "balanced", {0: 3.0, 1: 0.5}])
    def test_same_coefficients(self, data: str, class_weight: object, request: pytest.FixtureRequest) -> None:
        x, y = request.getfixturevalue(data)
        weight = np.random.default_rng(0).integers(0, 3, len(y)).astype(float)
        ours = cross_entropy(alpha=1e-2, class_weight=class_weight).fit(x, y, sample_weight=weight)
        if class_weight == "balanced":
            class_weight = dict(enumerate(weight.sum() / (len(np.unique(y)) * np.bincount(y, weight))))
        of_row = weight * np.array([(class_weight or {}).get(c, 1.0) for c in y])
        c = 1 / (1e-2 * of_row.sum())
        theirs = LogisticRegression(C=c, tol=1e-9, max_iter=5000).fit(x, y, sample_weight=of_row)
        assert ours.coef_.shape == theirs.coef_.shape
        np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-4)
        # Intercepts of all classes are defined up to a constant.
        np.testing.assert_allclose(
            ours.decision_function(x) - ours.decision_function(x).mean(-1, keepdims=True),
            theirs.decision_function(x) - theirs.decision_function(x).mean(-1, keepdims=True),
            atol=1e-4,
        )
        np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-4)
        assert (ours.predict(x) == theirs.predict(x)).all()

    def test_standardised_is_a_pipeline(self, digits: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = digits
        theirs = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (1e-2 * len(y)), tol=1e-9, max_iter=5000))
        ours = LossfitClassifier("cross_entropy", alpha=1e-2).fit(x, y)
        np.testing.assert_allclose(ours.predict_proba(x), theirs.fit(x, y).predict_proba(x), atol=1e-6)
        scores = x @ ours.coef_.T + ours.intercept_
        np.testing.assert_allclose(scores, ours.decision_function(x), atol=1e-9)

    def test_bce_is_one_against_the_rest(self, labelled: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = labelled
        ours = LossfitMultiLabelClassifier("bce", alpha=1e-2, standardize=False).fit(x, y)
        # The loss of a row is the mean over its 5 labels.
        one = LogisticRegression(C=1 / (5 * 1e-2 * len(y)), tol=1e-9, max_iter=5000)
        theirs = OneVsRestClassifier(one).fit(x, y)
        np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-5)
        np.testing.assert_allclose(ours.coef_, np.concatenate([e.coef_ for e in theirs.estimators_]), atol=1e-4)
        assert (ours.predict(x) == theirs.predict(x)).all()


class TestTraining:
    @pytest.mark.parametrize("loss", lossfit.available_losses("single_label") + lossfit.available_losses("metric"))
    @pytest.mark.parametrize("solver", ["auto", "mini_batch"])
    def test_every_loss_learns(self, loss: str, solver: str, cancer: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = cancer[0][::4], np.where(cancer[1][::4], "benign", "malignant")
        settings = {"sensitivity": {"sensitivity": torch.ones_like}, "top_k_accuracy": {"k": 1}}.get(loss)
        steps = {"learning_rate": 0.05, "max_iter": 40} if solver == "mini_batch" or loss == "sensitivity" else {}
        classifier = LossfitClassifier(loss, loss_params=settings, alpha=1e-2, solver=solver, random_state=0, **steps)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier.fit(x, y)
        assert classifier.solver_ == ("mini_batch" if loss == "sensitivity" else solver.replace("auto", "full_batch"))
        assert classifier.score(x, y) > 0.93
        p = classifier.predict_proba(x)
        assert ((p >= 0) & (p <= 1)).all()
        np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
        assert (classifier.classes_[p.argmax(1)] == classifier.predict(x)).all()
        np.testing.assert_allclose(np.exp(classifier.predict_log_proba(x)), p)

    @pytest.mark.parametrize("loss", lossfit.available_losses("multi_label"))
    def test_every_multi_label_loss_learns(self, loss: str, labelled: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = labelled
        classifier = LossfitMultiLabelClassifier(loss, alpha=1e-2).fit(x[:400], y[:400])
        precision = label_ranking_average_precision_score(y[400:], classifier.decision_function(x[400:]))
        assert precision > 0.8

    def test_the_full_batch_ends_at_a_minimum(self, digits: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = digits[0][:300], digits[1][:300]
        classifier = LossfitClassifier(standardize=False, alpha=1e-3).fit(x, y)
        at = parameters_to_vector(classifier.network_.parameters()).detach().numpy()

        def objective(vector: np.ndarray) -> float:
            """Longhand, in numpy."""
            weight, bias = vector[:640].reshape(10, 64), vector[640:]
            z = x @ weight.T + bias
            p = np.exp(z - z.max(1, keepdims=True))
            p = (p / p.sum(1, keepdims=True))[np.arange(len(y)), y]
            return (-np.log(0.1 + 0.9 * p) / 0.9).mean() + 1e-3 / 2 * (weight**2).sum()

        assert check_grad(objective, lambda _: np.zeros_like(at), at) < 1e-5
        assert classifier.loss_curve_[-1] == pytest.approx(objective(at), rel=1e-12)

    def test_mini_batches_come_near_the_minimum(self, digits: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = digits
        weight = np.random.default_rng(0).integers(0, 4, len(y)).astype(float)
        classifier = LossfitClassifier(alpha=1e-2, class_weight={3: 5.0}, random_state=0)
        exact = classifier.fit(x, y, weight).predict_proba(x)
        near = clone(classifier).set_params(solver="mini_batch", tol=1e-5).fit(x, y, weight).predict_proba(x)
        without = clone(classifier).set_params(solver="mini_batch", tol=1e-5, class_weight=None).fit(x, y)
        assert abs(near - exact).mean() < 0.003
        assert abs(without.predict_proba(x) - exact).mean() > 0.005

    def test_class_weights_of_the_loss_in_mini_batches(self, cancer: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = cancer
        loss = lossfit.CrossEntropyLoss(weight=torch.tensor([30.0, 10.0]))
        exact = LossfitClassifier(loss, alpha=0.1).fit(x, y).predict_proba(x)
        near = LossfitClassifier(loss, alpha=0.1, solver="mini_batch", random_state=0).fit(x, y).predict_proba(x)
        assert abs(near - exact).mean() < 0.01

    def test_a_noise_robust_loss_on_noisy_labels(self, digits: tuple[np.ndarray, np.ndarray]) -> None:
        x, x_test, y, y_test = train_test_split(*digits, random_state=0)
        rng = np.random.default_rng(0)
        noisy = np.where(rng.random(len(y)) < 0.4, rng.integers(0, 10, len(y)), y)
        scores = {
            loss: LossfitClassifier(loss, alpha=1e-3).fit(x, noisy).score(x_test, y_test)
            for loss in ("cross_entropy", "expected_accuracy")
        }
        assert scores["expected_accuracy"] > scores["cross_entropy"] + 0.03

    def test_hidden_layers(self, digits: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = digits
        classifier = LossfitClassifier(hidden_layer_sizes=(32, 16), activation="tanh", alpha=1e-2, random_state=0)
        shapes = [tuple(p.shape) for p in classifier.fit(x[::3], y[::3]).network_.parameters()]
        assert shapes == [(32, 64), (32,), (16, 32), (16,), (10, 16), (10,)]
        assert classifier.score(x, y) > 0.9
        with pytest.raises(AttributeError, match="hidden layers has no coefficients"):
            _ = classifier.coef_
        network = classifier.network_(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(network, classifier.decision_function(x))
        longhand = LossfitClassifier(hidden_layer_sizes=7, random_state=0).fit(x[:200], y[:200])
        parts = [p.detach().numpy() for p in longhand.network_.parameters()]
        deviation = x[:200].std(0)
        z = (x - x[:200].mean(0)) / np.where(deviation > 0, deviation, 1)
        by_hand = np.maximum(z @ parts[0].T + parts[1], 0) @ parts[2].T + parts[3]
        np.testing.assert_allclose(longhand.decision_function(x), by_hand, atol=1e-9)

    @pytest.mark.parametrize("solver", ["full_batch", "mini_batch"])
    def test_random_state_is_exact(self, solver: str, digits: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = digits[0][:200], digits[1][:200]
        before = torch.random.get_rng_state()

        def weights(seed: int) -> np.ndarray:
            settings = {"hidden_layer_sizes": 5, "early_stopping": True, "batch_size": 32, "max_iter": 15, "tol": 0.5}
            classifier = LossfitClassifier(solver=solver, random_state=seed, **settings)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                classifier.fit(x, y)
            return parameters_to_vector(classifier.network_.parameters()).detach().numpy()

        assert (weights(1) == weights(1)).all()
        assert (weights(1) != weights(2)).any()
        assert (torch.random.get_rng_state() == before).all()

    @pytest.mark.parametrize("solver", ["full_batch", "mini_batch"])
    def test_early_stopping_keeps_the_best(self, solver: str, digits: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = digits
        rng = np.random.default_rng(0)
        noisy = np.where(rng.random(len(y)) < 0.5, rng.integers(0, 10, len(y)), y)
        settings = {"hidden_layer_sizes": 32, "solver": solver, "random_state": 0, "alpha": 0.0}
        stopped = LossfitClassifier(early_stopping=True, validation_fraction=0.3, **settings).fit(x, noisy)
        curve = stopped.validation_curve_
        assert len(curve) == stopped.n_iter_ == len(stopped.loss_curve_)
        assert len(curve) - 1 - int(np.argmin(curve)) <= 10
        assert min(curve) < curve[-1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            trained_on = LossfitClassifier(**settings, max_iter=3 * stopped.n_iter_, tol=0.0).fit(x, noisy)
        assert stopped.score(x, y) > trained_on.score(x, y)

    def test_schedules_advance_with_mini_batches(self, cancer: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = cancer
        loss = lossfit.GammaCrossEntropyLoss(gamma=lossfit.schedules.Linear(0.0, 1.0, steps=10))
        classifier = LossfitClassifier(loss, max_iter=2, batch_size=100, tol=10.0, n_iter_no_change=1)
        classifier.fit(x, y)
        assert classifier.solver_ == "mini_batch"
        assert classifier.loss_._step == 6 * classifier.n_iter_
        assert loss._step == 0

    def test_zero_weight_is_no_row(self, cancer: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = cancer
        weight = (np.arange(len(y)) % 3 > 0).astype(float)
        for classifier in (LossfitClassifier(), LossfitClassifier(solver="mini_batch", random_state=0, tol=0.1)):
            weighted = clone(classifier).fit(x, y, weight).decision_function(x)
            removed = classifier.fit(x[weight > 0], y[weight > 0]).decision_function(x)
            np.testing.assert_allclose(weighted, removed, rtol=1e-7)


class TestPartialFit:
    def test_it_learns_in_parts(self, digits: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = digits
        order = np.random.default_rng(0).permutation(len(y))
        classifier = LossfitClassifier(random_state=0)
        for _ in range(5):
            for at in np.array_split(order, 6):
                classifier.partial_fit(x[at], y[at], classes=range(10), sample_weight=1 + y[at] % 2)
        assert classifier.score(x, y) > 0.95
        assert classifier.n_iter_ == 30
        mean = np.average(x, axis=0, weights=1 + y % 2)
        np.testing.assert_allclose(classifier.network_.mean, mean, atol=1e-9)

    def test_it_goes_on_after_pickling_and_fit(self, digits: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = digits
        first = LossfitClassifier(random_state=0).partial_fit(x, y, classes=np.arange(10))
        copy = pickle.loads(pickle.dumps(first))
        for classifier in (first, copy):
            classifier.partial_fit(x, y).partial_fit(x, y)
        assert (first.decision_function(x) == copy.decision_function(x)).all()
        fitted = LossfitClassifier(random_state=0, alpha=1e-2).fit(x, y)
        before = fitted.loss_curve_[-1]
        assert fitted.partial_fit(x, y).loss_curve_[-1] < before + 0.1

    def test_multi_label(self, labelled: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = labelled
        classifier = LossfitMultiLabelClassifier(random_state=0)
        for _ in range(20):
            classifier.partial_fit(x, y)
        assert f1_score(y, classifier.predict(x), average="micro") > 0.69
        with pytest.raises(ValueError, match="as in the first call, with 5 labels, but got shape"):
            classifier.partial_fit(x, y[:, :3])

    def test_what_it_refuses(self, cancer: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = cancer
        with pytest.raises(ValueError, match="Expected `classes` in the first call"):
            LossfitClassifier().partial_fit(x, y)
        classifier = LossfitClassifier().partial_fit(x, y, classes=[0, 1])
        with pytest.raises(ValueError, match=r"hold some of the classes \[0 1\], but got \[2\] too"):
            classifier.partial_fit(x, y + 1)
        with pytest.raises(ValueError, match="those of the first call"):
            classifier.partial_fit(x, y, classes=[0, 2])
        for settings in ({"solver": "full_batch"}, {"calibrate": True}, {"class_weight": "balanced"}):
            assert not hasattr(LossfitClassifier(**settings), "partial_fit")


class TestData:
    def test_tables_and_strings(self) -> None:
        x, y = load_iris(return_X_y=True, as_frame=True)
        names = np.array(["setosa", "versicolor", "virginica"])[y]
        arrays = LossfitClassifier().fit(x.to_numpy(), names)
        for table, target in ((x, pd.Series(names)), (pl.DataFrame(x.to_dict("list")), pl.Series(names))):
            fitted = LossfitClassifier().fit(table, target)
            assert fitted.feature_names_in_.tolist() == list(x.columns)
            assert (fitted.predict(table) == arrays.predict(x.to_numpy())).all()
            assert fitted.predict(table)[0] == "setosa"
            with pytest.raises(ValueError, match="feature names should match"):
                fitted.predict(table[list(x.columns)[::-1]])
            with pytest.raises(ValueError, match=r"4 features|feature names should match"):
                fitted.predict(table[list(x.columns)[:3]])

    def test_categories_booleans_and_tables_of_labels(self, labelled: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = labelled
        plain = LossfitMultiLabelClassifier().fit(x, y).predict(x)
        for table in (pd.DataFrame(y), y.astype(bool), y.tolist(), pl.DataFrame(y)):
            assert (LossfitMultiLabelClassifier().fit(x, table).predict(x) == plain).all()
        classes = LossfitClassifier().fit(x, pd.Categorical(np.where(y[:, 0], "b", "a"))).classes_
        assert classes.tolist() == ["a", "b"]
        assert LossfitClassifier().fit(x, y[:, 0] > 0).predict(x).dtype == bool

    def test_inputs_are_left_alone(self, cancer: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = (part.copy() for part in cancer)
        weight = np.arange(len(y)) % 3.0
        for part in (x, y, weight):
            part.setflags(write=False)
        for settings in ({}, {"standardize": False}, {"solver": "mini_batch", "tol": 0.1, "random_state": 0}):
            LossfitClassifier(**settings).fit(x, y, sample_weight=weight).predict_proba(x)


class TestMultiLabel:
    def test_tuned_thresholds_are_the_best_on_held_out_rows(self) -> None:
        from lossfit.integrations.sklearn.held_out import thresholds

        rng = np.random.default_rng(0)
        scores, weight = rng.integers(-4, 5, (40, 3)).astype(float), rng.integers(1, 4, 40).astype(float)
        labels = (scores + 3 * rng.normal(size=scores.shape) > 1).astype(float)
        labels[:, 2] = 0
        parts = torch.from_numpy(scores), torch.from_numpy(labels), torch.from_numpy(weight)

        def f1(cut: np.ndarray, average: str) -> float:
            found = f1_score(labels, scores > cut, average=average, sample_weight=weight, zero_division=0)
            return float(found)

        macro, micro = thresholds(*parts, "macro_f1"), thresholds(*parts, "micro_f1")
        assert macro[2] == 0
        for label in (0, 1):
            tried = [np.where(np.arange(3) == label, cut, macro) for cut in np.arange(-5, 5) + 0.5]
            assert f1(macro, "macro") == pytest.approx(max(f1(cut, "macro") for cut in tried))
        assert len(set(micro)) == 1
        assert f1(micro, "micro") == pytest.approx(max(f1(np.full(3, c), "micro") for c in np.arange(-5, 5) + 0.5))

    def test_tuning_lifts_the_metric(self) -> None:
        x, y = make_multilabel_classification(2000, 20, n_classes=8, n_labels=1, random_state=1)
        settings = {"alpha": 1e-2, "validation_fraction": 0.4, "random_state": 0}
        scores = {}
        for threshold in (0.0, "macro_f1", "micro_f1"):
            classifier = LossfitMultiLabelClassifier("bce", threshold=threshold, **settings).fit(x[:1000], y[:1000])
            found = classifier.predict(x[1000:])
            scores[threshold] = [f1_score(y[1000:], found, average=a, zero_division=0) for a in ("macro", "micro")]
            above = classifier.decision_function(x) > 0
            assert (above == classifier.predict(x)).all()
        assert scores["macro_f1"][0] > scores[0.0][0] + 0.02
        assert scores["micro_f1"][1] > scores[0.0][1] + 0.02

    def test_a_fixed_threshold(self, labelled: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = labelled
        base = LossfitMultiLabelClassifier().fit(x, y)
        strict = LossfitMultiLabelClassifier(threshold=1.5).fit(x, y)
        assert (strict.predict(x) == (base.decision_function(x) > 1.5)).all()

    def test_classes_one_against_the_rest(self, digits: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = digits
        classifier = LossfitMultiLabelClassifier("bce", alpha=1e-2).fit(x[::2], y[::2])
        assert classifier.score(x[1::2], y[1::2]) > 0.9
        p = classifier.predict_proba(x)
        np.testing.assert_allclose(p.sum(1), 1)
        two = LossfitMultiLabelClassifier("zlpr").fit(x[y < 2], np.where(y[y < 2], "one", "nought"))
        assert two.predict(x[y < 2]).tolist() == ["one" if v else "nought" for v in y[y < 2]]
        assert two.coef_.shape == (1, 64)


class TestCalibration:
    def test_probabilities_become_calibrated(self) -> None:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(3000, 5))
        y = (rng.random(3000) < 1 / (1 + np.exp(-x @ np.array([1, -1, 0.5, 0, 0])))).astype(int)
        losses = {}
        for calibrate in (False, True):
            classifier = LossfitClassifier(
                "expected_accuracy", calibrate=calibrate, validation_fraction=0.3, random_state=0
            ).fit(x[:1500], y[:1500])
            losses[calibrate] = log_loss(y[1500:], classifier.predict_proba(x[1500:]))
        best = log_loss(y[1500:], cross_entropy().fit(x[:1500], y[:1500]).predict_proba(x[1500:]))
        assert losses[False] > best + 0.1
        assert losses[True] < best + 0.05
        assert (classifier.predict(x) == classifier.predict_proba(x).argmax(1)).all()

    def test_the_temperature_is_of_held_out_rows(self, digits: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = digits
        classifier = LossfitClassifier(calibrate=True, validation_fraction=0.25, random_state=3, alpha=1e-3).fit(x, y)
        kept, held = train_test_split(
            np.arange(len(y)), test_size=0.25, stratify=y, random_state=np.random.RandomState(3)
        )
        plain = LossfitClassifier(alpha=1e-3).fit(x[np.sort(kept)], y[np.sort(kept)])
        np.testing.assert_allclose(plain.decision_function(x), classifier.decision_function(x), atol=1e-6)
        z = plain.decision_function(x[held])
        tried = [log_loss(y[held], torch.from_numpy(z / t).softmax(1).numpy()) for t in np.arange(0.5, 5, 0.01)]
        assert classifier.scaling_.temperature.item() == pytest.approx(
            np.arange(0.5, 5, 0.01)[np.argmin(tried)], abs=0.02
        )

    def test_multi_label(self, labelled: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = labelled
        found = {}
        for calibrate in (False, True):
            settings = {"loss_params": {"gamma": 3.0}, "validation_fraction": 0.3, "random_state": 0}
            classifier = LossfitMultiLabelClassifier("focal_bce", calibrate=calibrate, **settings)
            p = classifier.fit(x[:400], y[:400]).predict_proba(x[400:])
            found[calibrate] = log_loss(y[400:].ravel(), p.ravel())
        assert found[True] < found[False]


class TestTools:
    def test_grid_search_over_losses(self, cancer: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = cancer
        grid = [
            {"classifier__loss": ["gamma_cross_entropy"], "classifier__loss_params": [{"gamma": 0.1}, {"gamma": 0.5}]},
            {"classifier__loss": ["f_beta", lossfit.FocalLoss(gamma=2.0)], "classifier__alpha": [1e-2]},
        ]
        pipeline = make_pipeline(StandardScaler(), LossfitClassifier())
        pipeline.steps[1] = ("classifier", pipeline.steps[1][1])
        search = GridSearchCV(pipeline, grid, scoring="f1_macro", cv=2, error_score="raise").fit(x, y)
        assert len(search.cv_results_["params"]) == 4
        assert search.best_score_ > 0.95

    def test_cross_validation_in_two_processes(self, cancer: tuple[np.ndarray, np.ndarray]) -> None:
        classifier = LossfitClassifier(lossfit.ExpectedAccuracyLoss(), alpha=1e-2)
        alone = cross_val_score(classifier, *cancer, cv=3)
        assert (cross_val_score(classifier, *cancer, cv=3, n_jobs=2) == alone).all()

    @pytest.mark.parametrize("settings", [{"calibrate": True}, {"loss": lossfit.ExactLoss(sigma=2.0)}])
    def test_pickle_and_joblib(self, settings: dict[str, object], cancer: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = cancer
        classifier = LossfitClassifier(**settings, alpha=1e-2, random_state=0).fit(x, y)
        buffer = io.BytesIO()
        joblib.dump(classifier, buffer)
        buffer.seek(0)
        for copy in (pickle.loads(pickle.dumps(classifier)), joblib.load(buffer)):
            assert (copy.predict_proba(x) == classifier.predict_proba(x)).all()

    def test_clone_keeps_the_loss_and_fit_leaves_it(self, cancer: tuple[np.ndarray, np.ndarray]) -> None:
        loss = lossfit.FocalLoss(gamma=1.0, reduction="sum")
        classifier = LossfitClassifier(loss)
        copy = clone(classifier)
        assert copy.loss is not loss
        assert copy.loss.gamma == 1.0
        classifier.fit(*cancer)
        assert classifier.loss is loss
        assert loss.reduction == "sum"

    def test_loss_params_take_arrays(self, cancer: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = cancer
        weighted = LossfitClassifier(loss_params={"weight": np.array([2.0, 1.0])}, alpha=1e-2).fit(x, y)
        named = LossfitClassifier(class_weight={0: 2.0, 1: 1.0}, alpha=1e-2).fit(x, y)
        np.testing.assert_allclose(weighted.coef_, named.coef_, atol=1e-6)


BAD = [
    ({"loss": "focall"}, ValueError, "Expected `loss` to be one of .* but got 'focall'. Did you mean 'focal'"),
    ({"loss": "zlpr"}, ValueError, "Expected `loss` to be one of .* but got 'zlpr'"),
    ({"loss": torch.nn.CrossEntropyLoss()}, TypeError, "Expected `loss` to be a SingleLabelLoss or a MetricLoss"),
    ({"loss": lossfit.ZLPRLoss()}, TypeError, "or the name of one, but got ZLPRLoss"),
    ({"loss_params": {"gama": 0.1}}, ValueError, "`loss_params of gamma_cross_entropy`.*Did you mean 'gamma'"),
    ({"loss_params": {"gamma": 2.0}}, ValueError, r"Expected `gamma` in \[0, 1\], but got 2"),
    ({"loss_params": [("gamma", 1)]}, TypeError, "`loss_params` to be a dictionary, but got list"),
    ({"loss": "sensitivity"}, ValueError, "Expected `loss_params` with 'sensitivity', which sensitivity cannot"),
    ({"loss": lossfit.FocalLoss(), "loss_params": {"gamma": 1.0}}, ValueError, "`loss_params` only with a loss given"),
    ({"hidden_layer_sizes": (8, 0)}, ValueError, "`hidden_layer_sizes` to hold integers of at least 1"),
    ({"hidden_layer_sizes": 2.5}, ValueError, "one for each layer, but got 2.5"),
    ({"activation": "rely"}, ValueError, "Expected `activation` .* Did you mean 'relu'"),
    ({"solver": "lbfgs"}, ValueError, "Expected `solver` to be one of 'auto'"),
    ({"alpha": -1}, ValueError, r"Expected `alpha` in \[0, inf\), but got -1"),
    ({"alpha": "1"}, TypeError, "Expected `alpha`"),
    ({"tol": float("nan")}, ValueError, "Expected `tol`"),
    ({"learning_rate": 0.0}, ValueError, r"Expected `learning_rate` in \(0, inf\), but got 0"),
    ({"validation_fraction": 1.0}, ValueError, r"Expected `validation_fraction` in \(0, 1\), but got 1"),
    ({"batch_size": 0}, ValueError, "Expected `batch_size` of at least 1, but got 0"),
    ({"max_iter": 2.5}, TypeError, "Expected `max_iter` to be an integer, but got 2.5"),
    ({"calibrate": "temperature"}, TypeError, "Expected `calibrate` to be True or False"),
    ({"solver": "full_batch", "loss_params": {"floor": 0.1}}, ValueError, "its gradient is not that of its value"),
    ({"class_weight": "even"}, ValueError, "class_weight"),
    ({"class_weight": {0: -1.0}}, ValueError, r"Expected `class_weight` of at least 0, .* but got \[-1.0, 1.0\]"),
    ({"class_weight": {1: float("nan")}}, ValueError, "Expected `class_weight` of at least 0"),
    ({"class_weight": {0: 0.0, 1: 0.0}}, ValueError, "Expected `class_weight` of at least 0, and some above it"),
]


class TestBadInput:
    @pytest.mark.parametrize(("settings", "error", "message"), BAD)
    def test_settings(self, settings: dict, error: type, message: str, cancer: tuple[np.ndarray, np.ndarray]) -> None:
        with pytest.raises(error, match=message):
            LossfitClassifier(**settings).fit(*cancer)

    def test_a_schedule_needs_mini_batches(self, cancer: tuple[np.ndarray, np.ndarray]) -> None:
        loss = lossfit.FocalLoss(gamma=lossfit.schedules.Linear(0.0, 1.0, steps=3))
        with pytest.raises(ValueError, match=r"to be 'mini_batch' for FocalLoss.* change with the step"):
            LossfitClassifier(loss, solver="full_batch").fit(*cancer)

    def test_data(self, cancer: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = cancer
        for classifier in (LossfitClassifier(), LossfitMultiLabelClassifier()):
            with pytest.raises(ValueError, match="at least two classes, but got one class only"):
                classifier.fit(x, np.full(len(x), "a"))
            with pytest.raises(ValueError, match="at least one non-zero number"):
                classifier.fit(x, y, sample_weight=np.zeros(len(x)))
            with pytest.raises(ValueError, match="Negative values"):
                classifier.fit(x, y, sample_weight=np.full(len(x), -1.0))
            with pytest.raises(NotFittedError):
                classifier.predict(x)
        only_ones = np.where(y == 1, 1.0, 0.0)
        with pytest.raises(ValueError, match=r"but got one class only: \[1\]"):
            LossfitClassifier().fit(x, y, sample_weight=only_ones)
        with pytest.raises(ValueError, match="LossfitMultiLabelClassifier takes several"):
            LossfitClassifier().fit(x, np.stack([y, 1 - y], 1))
        with pytest.raises(ValueError, match="X has 3 features, but LossfitClassifier is expecting 30"):
            LossfitClassifier().fit(x, y).predict(x[:, :3])
        with pytest.raises(ValueError, match=r"enough rows of each class to hold out 0.1 of 569 rows"):
            LossfitClassifier(calibrate=True).fit(x, np.append(y[:-1], 7))

    def test_labels(self, labelled: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = labelled
        with pytest.raises(ValueError, match=r"hold 0 and 1, but got \[0, 2\]"):
            LossfitMultiLabelClassifier().fit(x, 2 * y)
        with pytest.raises(ValueError, match=r"Expected `threshold` .* Did you mean 'macro_f1'"):
            LossfitMultiLabelClassifier(threshold="macro").fit(x, y)
        with pytest.raises(TypeError, match="Expected `threshold`"):
            LossfitMultiLabelClassifier(threshold=None).fit(x, y)
        with pytest.raises(ValueError, match="Expected `loss` to be one of 'zlpr'"):
            LossfitMultiLabelClassifier("focal").fit(x, y)

    @pytest.mark.parametrize("solver", ["full_batch", "mini_batch"])
    def test_no_convergence_is_told(self, solver: str, cancer: tuple[np.ndarray, np.ndarray]) -> None:
        with pytest.warns(ConvergenceWarning, match="did not converge.* Raise `max_iter`"):
            LossfitClassifier(solver=solver, max_iter=2).fit(*cancer)

    def test_divergence_is_told(self) -> None:
        x, y = np.full((4, 1), 1e308), [0, 1, 1, 1]
        with pytest.warns(ConvergenceWarning, match="the loss or a weight is not finite after"):
            fitted = cross_entropy(solver="mini_batch", learning_rate=100.0, random_state=0).fit(x, y)
        assert np.isfinite(fitted.coef_).all()

    def test_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sklearn", None)
        monkeypatch.delitem(sys.modules, "lossfit.integrations.sklearn")
        with pytest.raises(ImportError, match=r"needs an extra: pip install 'lossfit\[sklearn\]'"):
            importlib.import_module("lossfit.integrations.sklearn")


WORDS = ["red blue", "blue green", "red red", "green blue blue", "yellow red", "green yellow", "blue", "red green"] * 6
COLOURS = np.array([("warm" if "red" in words else "cold") for words in WORDS])


@pytest.mark.filterwarnings("ignore:LossfitClassifier did not converge")
@pytest.mark.parametrize(
    "settings", [{}, {"standardize": True}, {"hidden_layer_sizes": (4,)}, {"solver": "mini_batch"}]
)
def test_a_pipeline_of_tfidf_is_never_made_dense(settings: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"standardize": False, "alpha": 0.01, "tol": 1e-6, "random_state": 0, **settings}
    monkeypatch.setattr(scipy.sparse.csr_matrix, "toarray", None)
    found = make_pipeline(TfidfVectorizer(), LossfitClassifier("cross_entropy", **settings)).fit(WORDS, COLOURS)
    assert found.score(WORDS, COLOURS) == 1.0
    assert found.predict_proba(WORDS).shape == (len(WORDS), 2)


@pytest.mark.parametrize("standardize", [False, True])
def test_sparse_features_are_trained_on_like_dense_ones(standardize: bool) -> None:
    x = TfidfVectorizer().fit_transform(WORDS)
    alpha = 0.01
    sparse = LossfitClassifier("cross_entropy", standardize=standardize, alpha=alpha).fit(x, COLOURS)
    spread = StandardScaler(with_mean=False).fit(x).scale_ if standardize else np.ones(x.shape[1])
    dense = LogisticRegression(C=1 / (alpha * len(WORDS)), tol=1e-10, max_iter=1000).fit(x.toarray() / spread, COLOURS)
    np.testing.assert_allclose(sparse.coef_ * spread, dense.coef_, rtol=1e-5)
    np.testing.assert_allclose(sparse.intercept_, dense.intercept_, rtol=1e-5)
    np.testing.assert_allclose(sparse.predict_proba(x), sparse.predict_proba(x.toarray()), rtol=1e-12)


def test_labels_of_sparse_features() -> None:
    x, y = make_multilabel_classification(n_classes=3, random_state=0)
    dense = LossfitMultiLabelClassifier("bce", standardize=False, alpha=0.01).fit(x, y)
    sparse = LossfitMultiLabelClassifier("bce", standardize=False, alpha=0.01).fit(scipy.sparse.csr_array(x), y)
    np.testing.assert_allclose(sparse.coef_, dense.coef_, rtol=1e-5)


@pytest.mark.parametrize("kind", [LossfitClassifier, LossfitMultiLabelClassifier])
def test_a_class_of_which_all_rows_have_weight_0_stays_a_class(kind: type) -> None:
    x, y = load_iris(return_X_y=True)
    weight = (y != 2).astype(float)
    found = kind(alpha=0.01).fit(x, y, weight)
    assert found.classes_.tolist() == [0, 1, 2]
    p = found.predict_proba(x)
    assert p.shape == (len(x), 3)
    assert p[:, 2].max() < 1e-3
    assert (found.predict(x[y != 2]) == y[y != 2]).all()


def test_balanced_classes_where_one_has_no_weight() -> None:
    x, y = load_iris(return_X_y=True)
    found = LossfitClassifier("cross_entropy", class_weight="balanced", alpha=0.01).fit(x, y, (y != 2).astype(float))
    two = LossfitClassifier("cross_entropy", class_weight="balanced", alpha=0.01).fit(x[y != 2], y[y != 2])
    np.testing.assert_allclose(found.predict_proba(x[y != 2])[:, :2], two.predict_proba(x[y != 2]), atol=0.05)
    with pytest.raises(ValueError, match="at least two classes, but got one class only"):
        LossfitClassifier().fit(x, y, (y == 2).astype(float))
