"""Tools for after training, against scipy, torchmetrics and longhand."""

import copy
import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, logsumexp
from torch import Tensor
from torchmetrics.classification import MulticlassCalibrationError

from lossfit import calibration
from lossfit.calibration import (
    ConformalClassifier,
    MatrixScaling,
    TemperatureScaling,
    VectorScaling,
    calibration_error,
    conformal_threshold,
    reliability,
)

C = 4


def overconfident(rows: int = 400, classes: int = C, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    """Logits `scale` times too large, with a bias and a mixing of the classes, and labels drawn from the true ones."""
    true = 1.5 * torch.randn(rows, classes, dtype=torch.float64)
    y = true.softmax(1).multinomial(1).squeeze(1)
    mix = torch.eye(classes).double() + 0.2 * torch.randn(classes, classes).double()
    return scale * (true @ mix + 0.5 * torch.arange(classes)), y


def log_loss(z: np.ndarray, y: np.ndarray) -> float:
    return float(-log_softmax(z, axis=1)[np.arange(len(y)), y].mean())


class TestScaling:
    """Temperature, vector and matrix scaling."""

    @pytest.mark.parametrize("unit", [1e-6, 1.0, 1e4])
    def test_temperature_is_that_of_scipy(self, unit: float) -> None:
        z, y = overconfident()
        z = z * unit
        expected = minimize_scalar(
            lambda log_t: log_loss(z.numpy() * math.exp(-log_t), y.numpy()),
            bracket=(math.log(unit), math.log(unit) + 1),
            tol=1e-12,
        )
        scaling = TemperatureScaling().fit(z, y)
        assert scaling.log_temperature.item() == pytest.approx(expected.x, abs=1e-6)
        assert scaling.temperature > 0
        torch.testing.assert_close(scaling(z), z / math.exp(expected.x), rtol=1e-6, atol=1e-6)

    def test_vector_is_that_of_scipy(self) -> None:
        z, y = overconfident()
        zn, yn = z.numpy(), y.numpy()

        def objective(v: np.ndarray) -> float:
            return log_loss(zn * v[:C] + v[C:], yn)

        start = np.r_[np.ones(C) / 3, np.zeros(C)]
        expected = minimize(objective, start, method="BFGS", options={"gtol": 1e-9, "xrtol": 1e-12})
        found = VectorScaling(C).fit(z, y)(z)
        assert log_loss(found.numpy(), yn) == pytest.approx(expected.fun, rel=1e-9)
        np.testing.assert_allclose(found.softmax(1), np.exp(log_softmax(zn * expected.x[:C] + expected.x[C:], 1)), 1e-4)

    @pytest.mark.parametrize("ridge", [0.0, 0.05, 2.0])
    def test_matrix_is_that_of_scipy(self, ridge: float) -> None:
        z, y = overconfident()
        zn, yn = z.numpy(), y.numpy()
        off = ~np.eye(C, dtype=bool)

        def objective(v: np.ndarray) -> float:
            w, b = v[: C * C].reshape(C, C), v[C * C :]
            return log_loss(zn @ w.T + b, yn) + ridge * ((w[off] ** 2).sum() / (C * (C - 1)) + (b**2).sum() / C)

        start = np.r_[np.eye(C).ravel() / 3, np.zeros(C)]
        expected = minimize(objective, start, method="BFGS", options={"gtol": 1e-8, "xrtol": 1e-12})
        scaling = MatrixScaling(C, ridge=ridge).fit(z, y)
        found = objective(np.r_[scaling.weight.numpy().ravel(), scaling.bias.numpy()])
        assert found == pytest.approx(expected.fun, rel=1e-8)
        if ridge:
            np.testing.assert_allclose(scaling.weight.numpy().ravel(), expected.x[: C * C], atol=1e-4)

    def test_a_strong_ridge_leaves_the_diagonal(self) -> None:
        z, y = overconfident()
        scaling = MatrixScaling(C, ridge=1e8).fit(z, y)
        off = scaling.weight * (1 - torch.eye(C))
        assert off.abs().max() < 1e-6
        assert scaling.bias.abs().max() < 1e-6
        assert scaling.weight.diagonal().std() > 1e-3

    def test_each_fits_its_rows_better_than_the_one_before(self) -> None:
        z, y = overconfident()
        maps: list[Callable[[Tensor], Tensor]] = [lambda z: z]
        maps += [s.fit(z, y) for s in (TemperatureScaling(), VectorScaling(C), MatrixScaling(C))]
        losses = [log_loss(m(z).numpy(), y.numpy()) for m in maps]
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] < losses[-2] - 1e-3

    @pytest.mark.parametrize("make", [TemperatureScaling, lambda: VectorScaling(C), lambda: MatrixScaling(C, 0.1)])
    class TestEach:
        """What holds for all three."""

        def test_twice_gives_the_same_numbers(self, make: Callable[[], calibration.scaling.Scaling]) -> None:
            z, y = overconfident()
            first, second = make().fit(z, y), make().fit(z, y)
            second.fit(z, y)
            assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))

        def test_it_is_kept(self, make: Callable[[], calibration.scaling.Scaling]) -> None:
            z, y = overconfident()
            fitted = make().fit(z, y)
            loaded = make()
            assert not torch.equal(loaded(z), fitted(z))
            loaded.load_state_dict(fitted.state_dict())
            for other in (loaded, pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
                assert torch.equal(other(z), fitted(z))
            assert repr(fitted) == repr(loaded)

        def test_fit_returns_itself_and_changes_no_input(self, make: Callable[[], calibration.scaling.Scaling]) -> None:
            z, y = overconfident()
            before = z.clone()
            scaling = make()
            assert scaling.fit(z.requires_grad_(), y) is scaling
            assert torch.equal(z.detach(), before)
            assert z.grad is None
            assert scaling(z).requires_grad
            assert not scaling(z.detach()).requires_grad

        def test_it_fits_within_inference_mode(self, make: Callable[[], calibration.scaling.Scaling]) -> None:
            z, y = overconfident()
            expected = make().fit(z, y)(z)
            with torch.inference_mode():
                assert torch.equal(make().fit(z + 0, y)(z), expected)

        def test_dense_predictions_and_ignored_labels(self, make: Callable[[], calibration.scaling.Scaling]) -> None:
            z, y = overconfident(60)
            dense, labels = z.view(5, 3, 4, C).movedim(-1, 1), y.view(5, 3, 4)
            scaling = make().fit(z, y)
            torch.testing.assert_close(make().fit(dense, labels)(dense), scaling(z).view(5, 3, 4, C).movedim(-1, 1))
            torch.testing.assert_close(scaling(z[0]), scaling(z)[0])
            more = torch.cat([z, torch.full((2, C), math.nan)])
            ignored = torch.cat([y, torch.full((2,), -1)])
            assert torch.equal(make().fit(more, ignored, ignore_index=-1)(z), scaling(z))

        def test_half_precision_gives_float32(self, make: Callable[[], calibration.scaling.Scaling]) -> None:
            z, y = overconfident()
            half = z.bfloat16()
            scaling = make().fit(half, y)
            assert scaling(half).dtype == torch.float32
            torch.testing.assert_close(scaling(half).double(), scaling(half.double()), rtol=1e-4, atol=1e-4)

        def test_labels_that_can_be_told_apart_leave_it_finite(
            self, make: Callable[[], calibration.scaling.Scaling]
        ) -> None:
            z = torch.eye(C).repeat(5, 1) * 2
            scaling = make().fit(z, torch.arange(C).repeat(5))
            assert all(p.isfinite().all() for p in scaling.parameters())
            assert log_loss(scaling(z.double()).numpy(), np.tile(np.arange(C), 5)) < 1e-6

        @pytest.mark.parametrize(
            ("z", "y", "error", "told"),
            [
                (torch.zeros(3, C), torch.tensor([0, 1, C]), IndexError, rf"indices in \[0, {C}\) .* but got {C}"),
                (torch.zeros(3, C), torch.tensor([0, 1]), ValueError, r"`labels` of shape \(3,\) .* got \(2,\)"),
                (
                    torch.zeros(3, C),
                    torch.zeros(3),
                    TypeError,
                    "`labels` to hold integer class indices, but got torch.f",
                ),
                (torch.zeros(3, C).long(), torch.zeros(3).long(), TypeError, "`logits` to be floating point"),
                ([[0.0]], torch.zeros(1).long(), TypeError, "`logits` to be a torch.Tensor, but got list"),
                (torch.zeros(2, 1), torch.zeros(2).long(), ValueError, r"C of at least 2, but got \(2, 1\)"),
                (torch.full((2, C), -100.0), torch.tensor([-100, -100]), ValueError, "not ignored, but got none"),
                (
                    torch.full((2, C), math.inf),
                    torch.tensor([0, 1]),
                    ValueError,
                    "finite.*, but got inf at row 0, class 0",
                ),
            ],
        )
        def test_bad_rows(
            self,
            make: Callable[[], calibration.scaling.Scaling],
            z: Tensor,
            y: Tensor,
            error: type[Exception],
            told: str,
        ) -> None:
            with pytest.raises(error, match=told):
                make().fit(z, y)

    @pytest.mark.parametrize(
        ("make", "told"),
        [
            (lambda: TemperatureScaling(0.0), "`temperature` to be a positive, finite number, but got 0.0"),
            (lambda: TemperatureScaling(math.inf), "`temperature` to be a positive"),
            (lambda: VectorScaling(1), "`classes` to be an integer of at least 2, but got 1"),
            (lambda: MatrixScaling(3, ridge=-1.0), r"`ridge` in \[0, inf\), but got -1.0"),
            (lambda: MatrixScaling(3, ridge=math.nan), "`ridge` in"),
            (lambda: VectorScaling(3)(torch.zeros(2, 4)), r"`logits` of 3 classes, but got shape \(2, 4\)"),
            (lambda: MatrixScaling(3).fit(torch.zeros(2, 4), torch.zeros(2).long()), "`logits` of 3 classes"),
        ],
    )
    def test_bad_settings(self, make: Callable[[], object], told: str) -> None:
        with pytest.raises(ValueError, match=told):
            make()


def longhand_set(p: np.ndarray, threshold: float, score: str) -> set[int]:
    ranked = sorted(range(len(p)), key=lambda c: -p[c])
    total, found = 0.0, set()
    for c in ranked:
        total += p[c]
        if (1 - p[c] if score == "lac" else total) <= threshold:
            found.add(c)
    return found


class TestConformal:
    """Thresholds and prediction sets."""

    @pytest.mark.parametrize("score", ["lac", "aps"])
    @pytest.mark.parametrize("alpha", [0.05, 0.2])
    def test_coverage_is_what_is_promised(self, score: str, alpha: float) -> None:
        """Mean coverage over 2,000 calibrations of 60 rows is in [1 - alpha, 1 - alpha + 1 / 61], to sampling error."""
        z, y = overconfident(60 * 2000 + 20_000, scale=2.0)
        test_z, test_y = z[60 * 2000 :], y[60 * 2000 :]
        scores = calibration.conformal.scores(test_z, score).gather(1, test_y[:, None]).squeeze(1).sort().values
        thresholds = torch.stack(
            [conformal_threshold(z[60 * i : 60 * i + 60], y[60 * i : 60 * i + 60], alpha, score) for i in range(2000)]
        )
        covered = torch.searchsorted(scores, thresholds, right=True).double() / len(scores)
        # Beta(k, n + 1 - k) has a standard deviation of at most 0.052 here: 5 standard errors, and the test rows' own.
        slack = 5 * 0.052 / math.sqrt(2000) + 4 * math.sqrt(alpha * (1 - alpha) / len(scores))
        assert 1 - alpha - slack < covered.mean() < 1 - alpha + 1 / 61 + slack

    @pytest.mark.parametrize("score", ["lac", "aps"])
    def test_sets_are_those_of_the_definition(self, score: str) -> None:
        z, y = overconfident(200, scale=1.0)
        conformal = ConformalClassifier(0.1, score).fit(z, y)
        p = z.softmax(1).numpy()
        own = sorted(
            1 - row[t] if score == "lac" else sum(v for v in row if v >= row[t]) for row, t in zip(p, y, strict=True)
        )
        rank = 181  # ceil(201 * 0.9)
        assert conformal.threshold.item() == pytest.approx(own[rank - 1], rel=1e-12)
        new = torch.linspace(0.1, 4, 300, dtype=torch.float64)[:, None] * torch.randn(300, C)
        sets = conformal(new)
        assert sets.dtype == torch.bool
        for row, found in zip(new.softmax(1).numpy(), sets, strict=True):
            assert set(found.nonzero().flatten().tolist()) == longhand_set(row, own[rank - 1], score)
        assert len(set(sets.sum(1).tolist())) > 2

    @pytest.mark.parametrize(
        ("n", "alpha", "rank"), [(9, 0.1, 9), (8, 0.1, None), (19, 0.05, 19), (9, 0.7, 3), (99, 0.07, 93), (4, 0.5, 3)]
    )
    def test_the_rank_is_exact(self, n: int, alpha: float, rank: int | None) -> None:
        """(9 + 1) * (1 - 0.7) is 3.0000000000000004 in floating point."""
        z = torch.stack([torch.arange(n).double(), torch.zeros(n).double()], 1)
        found = conformal_threshold(z, torch.zeros(n).long(), alpha)
        if rank is None:
            assert found == math.inf
        else:
            assert found.item() == pytest.approx(1 / (1 + math.exp(n - rank)))

    def test_few_rows_promise_nothing(self) -> None:
        z, y = overconfident(5)
        assert ConformalClassifier(0.1).fit(z, y)(z).all()
        assert conformal_threshold(torch.zeros(0, 3), torch.zeros(0).long(), 0.1) == math.inf

    def test_it_is_kept(self) -> None:
        z, y = overconfident(50)
        fitted = ConformalClassifier(0.1).fit(z, y)
        loaded = ConformalClassifier(0.1)
        loaded.load_state_dict(fitted.state_dict())
        for other in (loaded, pickle.loads(pickle.dumps(fitted))):
            assert torch.equal(other(z), fitted(z))
        assert not fitted(z).all()
        dense = z[:48].view(4, 12, C).movedim(-1, 1)
        assert torch.equal(fitted(dense).movedim(1, -1).reshape(48, C), fitted(z[:48]))

    @pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan, True])
    def test_bad_alpha(self, alpha: float) -> None:
        with pytest.raises(ValueError, match=r"`alpha` to be a number in \(0, 1\)"):
            ConformalClassifier(alpha)

    def test_bad_score(self) -> None:
        with pytest.raises(ValueError, match="`score` to be one of 'lac', 'aps', but got 'raps'"):
            conformal_threshold(torch.zeros(2, 2), torch.zeros(2).long(), 0.1, "raps")


class TestUncertainty:
    """Entropy, highest probability, log-odds and margin."""

    @pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
    def test_against_longhand(self, scale: float) -> None:
        z = scale * torch.randn(50, 5, dtype=torch.float64)
        p = np.exp(log_softmax(z.numpy(), 1))
        ranked = -np.sort(-z.numpy(), 1)
        np.testing.assert_allclose(calibration.entropy(z), -(p * np.log(p)).sum(1), rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(calibration.max_probability(z), p.max(1), rtol=1e-12)
        np.testing.assert_allclose(calibration.log_odds(z), ranked[:, 0] - logsumexp(ranked[:, 1:], 1), rtol=1e-12)
        np.testing.assert_allclose(
            calibration.margin(z), np.sort(p, 1)[:, -1] - np.sort(p, 1)[:, -2], rtol=1e-9, atol=1e-14
        )

    def test_extremes(self) -> None:
        z = torch.tensor([[800.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, -900.0]], dtype=torch.float64)
        assert calibration.max_probability(z).tolist() == pytest.approx([1, 1 / 3, 1 / 2])
        assert calibration.entropy(z).tolist() == pytest.approx([0, math.log(3), math.log(2)], abs=1e-12)
        assert calibration.margin(z).tolist() == [1, 0, 0]
        assert calibration.log_odds(z)[0] == pytest.approx(800 - math.log(2))

    @pytest.mark.parametrize("name", ["entropy", "max_probability", "log_odds", "margin"])
    def test_shapes_types_and_errors(self, name: str) -> None:
        function = getattr(calibration, name)
        z = torch.randn(3, 5, 2)
        assert function(z).shape == (3, 2)
        torch.testing.assert_close(function(z)[1, 0], function(z[1, :, 0]))
        assert function(z.half()).dtype == torch.float32
        with pytest.raises(TypeError, match="`logits` to be floating point"):
            function(z.long())
        with pytest.raises(TypeError, match=r"`logits` to be a torch\.Tensor, but got float"):
            function(1.0)
        with pytest.raises(ValueError, match="`logits` of"):
            function(torch.zeros(3, 0))

    @pytest.mark.parametrize("name", ["entropy", "max_probability", "log_odds", "margin"])
    def test_gradients(self, name: str) -> None:
        z = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(getattr(calibration, name), z)


class TestRiskCoverage:
    """The curve and its area."""

    def test_against_longhand(self) -> None:
        confidence, hits = torch.rand(3, 40, dtype=torch.float64), torch.rand(3, 40) < 0.7
        found = calibration.risk_coverage(confidence, hits)
        for m in range(3):
            ranked = sorted(range(40), key=lambda i: -confidence[m, i])
            risks = [sum(1 - int(hits[m, i]) for i in ranked[:k]) / k for k in range(1, 41)]
            assert found.risk[m].tolist() == pytest.approx(risks)
            assert found.coverage[m].tolist() == pytest.approx([k / 40 for k in range(1, 41)])
            assert calibration.aurc(confidence, hits)[m].item() == pytest.approx(np.mean(risks))

    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=8), st.randoms())
    def test_ties_are_the_mean_over_all_orders(self, rows: list[tuple[int, bool]], random: object) -> None:
        def curve(rows: list[tuple[int, bool]]) -> Tensor:
            confidence = torch.tensor([float(c) for c, _ in rows])
            return calibration.risk_coverage(confidence, torch.tensor([h for _, h in rows])).risk

        shuffled = rows.copy()
        random.shuffle(shuffled)
        torch.testing.assert_close(curve(rows), curve(shuffled))
        ranked, expected, total = sorted(rows, key=lambda r: -r[0]), [], 0.0
        for k, (confidence, _) in enumerate(ranked, 1):
            tied = [h for c, h in rows if c == confidence]
            total += 1 - sum(tied) / len(tied)
            expected.append(total / k)
        assert curve(rows).tolist() == pytest.approx(expected)

    def test_without_rows(self) -> None:
        assert calibration.aurc(torch.zeros(0), torch.zeros(0).bool()) == 0

    @pytest.mark.parametrize(
        ("confidence", "hits", "error", "told"),
        [
            (torch.rand(3), torch.ones(2), ValueError, r"of one shape \(..., N\), but got \(3,\) and \(2,\)"),
            (torch.ones(2).long(), torch.ones(2), TypeError, "`confidence` to be floating point"),
            (torch.tensor([math.nan, 1.0]), torch.ones(2), ValueError, "`confidence` without NaN, but got 1 of them"),
            (torch.rand(2), torch.tensor([0, 2]), ValueError, r"`hits` in \[0, 1\]"),
            (torch.rand(2), [True, False], TypeError, "`hits` to be a torch.Tensor, but got list"),
        ],
    )
    def test_bad_input(self, confidence: Tensor, hits: Tensor, error: type[Exception], told: str) -> None:
        with pytest.raises(error, match=told):
            calibration.aurc(confidence, hits)


def longhand_error(confidence: list[float], hits: list[bool], bins: int, kind: str, norm: str) -> float:
    """By lists of rows for each bin."""
    n = len(confidence)
    found: list[list[int]] = [[] for _ in range(bins)]
    for i, c in enumerate(confidence):
        if kind == "equal_mass":
            b = sum(other < c for other in confidence) * bins // n
        else:
            b = next(b for b in range(bins) if c * bins <= b + 1)
        found[b].append(i)
    distances = [
        (len(rows) / n, abs(sum(confidence[i] for i in rows) - sum(hits[i] for i in rows)) / len(rows))
        for rows in found
        if rows
    ]
    if norm == "max":
        return max(d for _, d in distances)
    total = sum(share * (d if norm == "l1" else d * d) for share, d in distances)
    return total if norm == "l1" else math.sqrt(total)


class TestCalibrationError:
    """Binned calibration errors."""

    @pytest.mark.parametrize("norm", ["l1", "l2", "max"])
    @pytest.mark.parametrize("kind", ["equal_width", "equal_mass"])
    @pytest.mark.parametrize("classwise", [False, True])
    def test_against_longhand(self, norm: str, kind: str, classwise: bool) -> None:
        z, y = overconfident(150)
        p = z.softmax(1)
        p[:20] = p[0].clone()  # ties
        found = calibration_error(p, y, 12, kind, norm, classwise)
        if classwise:
            each = [longhand_error(p[:, c].tolist(), (y == c).tolist(), 12, kind, norm) for c in range(C)]
            expected = sum(each) / C
        else:
            confidence, predicted = p.max(1)
            expected = longhand_error(confidence.tolist(), (predicted == y).tolist(), 12, kind, norm)
        assert found.item() == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("norm", ["l1", "l2", "max"])
    def test_equal_width_is_that_of_torchmetrics(self, norm: str) -> None:
        z, y = overconfident(997, scale=1.5)
        expected = MulticlassCalibrationError(C, n_bins=15, norm=norm)(z.softmax(1), y)
        assert calibration_error(z.softmax(1), y, norm=norm).item() == pytest.approx(expected.item(), rel=1e-5)

    def test_confidences_of_exactly_1_share_the_last_bin(self) -> None:
        """Where torchmetrics 1.x puts those of exactly 1 in a bin of their own: 0.525 in place of 0.475."""
        p = torch.tensor([[1.0, 0.0], [0.95, 0.05], [1.0, 0.0], [0.95, 0.05]])
        y = torch.tensor([1, 0, 1, 0])
        assert calibration_error(p, y, bins=10).item() == pytest.approx(abs(3.9 / 4 - 0.5))

    def test_edges(self) -> None:
        confidence = torch.tensor([0.0, 1e-300, 0.5, 0.5 + 1e-15, 1.0], dtype=torch.float64)
        assert reliability(confidence, torch.ones(5), bins=2).rows.tolist() == [3, 2]
        for kind in ("equal_width", "equal_mass"):
            found = reliability(torch.tensor([0.0, 1.0, 0.0, 1.0]), torch.tensor([0, 1, 1, 1]), 4, kind)
            assert found.rows.tolist() == ([2, 0, 0, 2] if kind == "equal_width" else [2, 0, 2, 0])
            assert found.hits.sum() == 3
            assert found.error().item() == 0.25
        assert reliability(torch.tensor([1 + 1e-7]), torch.ones(1), 3).rows.tolist() == [0, 0, 1]

    def test_equal_mass_is_equal(self) -> None:
        found = reliability(torch.rand(100).square(), torch.ones(100), 7, "equal_mass")
        assert found.rows.sum() == 100
        assert found.rows.max() - found.rows.min() <= 1

    def test_many_at_once(self) -> None:
        confidence, hits = torch.rand(2, 3, 50), torch.rand(2, 3, 50) < 0.5
        for kind in ("equal_width", "equal_mass"):
            found = reliability(confidence, hits, 5, kind)
            assert found.rows.shape == (2, 3, 5)
            one = reliability(confidence[1, 2], hits[1, 2], 5, kind)
            assert torch.equal(found.error("l2")[1, 2], one.error("l2"))

    def test_rows_that_do_not_count(self) -> None:
        z, y = overconfident(40)
        p, y = z.softmax(1), y.where(torch.arange(40) > 9, -100)
        assert torch.equal(calibration_error(p, y), calibration_error(p[10:], y[10:]))
        for classwise in (False, True):
            empty = calibration_error(torch.zeros(0, 3), torch.zeros(0).long(), classwise=classwise)
            assert empty == 0

    @pytest.mark.parametrize("bins", [0, 2.0, True])
    def test_bad_bins(self, bins: int) -> None:
        with pytest.raises(ValueError, match="`bins` to be an integer of at least 1"):
            calibration_error(torch.tensor([[0.5, 0.5]]), torch.tensor([0]), bins)

    @pytest.mark.parametrize(
        ("p", "told"),
        [
            ([[0.5, 0.6]], "rows that sum to 1, but 1 of 1 rows do not; the first of them sums to 1.1"),
            ([[1.5, -0.5]], r"`probabilities` in \[0, 1\], but got 1.5"),
            ([[math.nan, 1.0]], "`probabilities` to be finite, but got nan"),
        ],
    )
    def test_logits_are_refused(self, p: list[list[float]], told: str) -> None:
        with pytest.raises(ValueError, match=told):
            calibration_error(torch.tensor(p), torch.tensor([0]))

    def test_bad_choices(self) -> None:
        p, y = torch.tensor([[0.5, 0.5]]), torch.tensor([0])
        with pytest.raises(ValueError, match="`kind` to be one of 'equal_width', 'equal_mass'"):
            calibration_error(p, y, kind="adaptive")
        with pytest.raises(ValueError, match="`norm` to be one of 'l1', 'l2', 'max'"):
            calibration_error(p, y, norm="l3")


class TestMaskedClasses:
    """A logit of -inf is a class that is no choice in its row."""

    def rows(self) -> tuple[Tensor, Tensor, Tensor]:
        torch.manual_seed(0)
        z = 3 * torch.randn(120, 4, dtype=torch.float64)
        y = (z / 3 + torch.randn(120, 4, dtype=torch.float64)).argmax(1)
        return z, torch.cat([z, torch.full((120, 1), -math.inf, dtype=torch.float64)], 1), y

    @pytest.mark.parametrize("make", [lambda c: TemperatureScaling(), VectorScaling])
    def test_it_is_as_if_the_class_were_not_there(self, make: Callable[[int], calibration.scaling.Scaling]) -> None:
        z, masked, y = self.rows()
        one, other = make(4).fit(z, y), make(5).fit(masked, y)
        torch.testing.assert_close(other(masked)[:, :4].softmax(1), one(z).softmax(1), rtol=1e-6, atol=1e-8)
        assert (other(masked)[:, 4] == -math.inf).all()

    def test_classes_masked_in_some_rows(self) -> None:
        z, _, y = self.rows()
        out = torch.rand(120, 4) < 0.3
        out.scatter_(1, y.unsqueeze(1), False)
        scaling = TemperatureScaling().fit(z.masked_fill(out, -math.inf), y)
        far = TemperatureScaling().fit(z.masked_fill(out, -1e6), y)  # as good as -inf
        assert scaling.temperature.item() == pytest.approx(far.temperature.item(), rel=1e-5)

    def test_prediction_sets(self) -> None:
        z, masked, y = self.rows()
        for score in ("lac", "aps"):
            one, other = (calibration.ConformalClassifier(0.1, score).fit(x, y) for x in (z, masked))
            assert torch.equal(one.threshold, other.threshold)
            assert torch.equal(other(masked)[:, :4], one(z))

    def test_what_is_refused(self) -> None:
        _, masked, y = self.rows()
        with pytest.raises(ValueError, match="finite, but got -inf at row 0, class 4"):
            MatrixScaling(5).fit(masked, y)
        with pytest.raises(ValueError, match="without -inf for MatrixScaling, which mixes the classes"):
            MatrixScaling(5)(masked)
        with pytest.raises(ValueError, match="above -inf for the label of each row, but got -inf for label 4"):
            TemperatureScaling().fit(masked, torch.full_like(y, 4))


@pytest.mark.parametrize("classwise", [False, True])
def test_probabilities_of_class_1_alone(classwise: bool) -> None:
    p, y = torch.rand(50), torch.randint(2, (50,))
    both = torch.stack([1 - p.double(), p.double()], 1)
    found, expected = (calibration.calibration_error(v, y, classwise=classwise) for v in (p, both))
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match=r"`probabilities` in \[0, 1\], but got 2"):
        calibration.calibration_error(torch.tensor([0.5, 2.0]), torch.tensor([0, 1]))
