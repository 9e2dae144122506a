"""The choice by empirical Bayes, longhand, at its limits, and against populations that are drawn from the prior."""

import math

import numpy as np
import pytest

from lossfit.compare.verdict.choice import posterior
from lossfit.compare.verdict.prior import FLAT, Known
from lossfit.compare.verdict.variance import Differences


def gains(mean: list[float], v: list[float], validation: list[float] | None = None) -> Differences:
    zero = np.zeros(len(mean))
    row, between = 0.75 * np.array(v), 0.25 * np.array(v)
    return Differences(np.array(mean), np.array(validation or mean), row, between, zero, np.zeros((len(mean), 3)))


def test_the_posterior_longhand() -> None:
    found = posterior(
        gains([0.0, 0.02, -0.5], [0.0, 1e-4, 4e-4], [0.0, 0.04, -0.5]), [Known(0, 1), Known(1, 2), Known(-1, 4)]
    )
    w = 2 / (2 + 1)
    assert found.mean == pytest.approx([0.0, 1 + w * (3 - 1), -1 + 0.5 * (-10 + 1)])
    assert found.variance == pytest.approx([0.0, w * 1, 0.5 * 4])
    assert found.best == 1
    assert found.probability_best.sum() == pytest.approx(1.0)


def test_limits_of_the_prior() -> None:
    d = gains([0.0, 0.02], [0.0, 1e-4])
    flat = posterior(d, [FLAT, FLAT])
    assert flat.mean == pytest.approx([0.0, 2.0])
    assert flat.variance == pytest.approx([0.0, 1.0])
    assert posterior(d, [FLAT, Known(-1.0, 1e-9)]).mean == pytest.approx([0.0, -1.0], abs=1e-6)
    mixed = posterior(gains([0.0, 0.02, 0.02], [0.0, 1e-4, 1e-4]), [FLAT, FLAT, Known(0.0, 1.0)])
    assert mixed.mean == pytest.approx([0.0, 2.0, 1.0])


def test_the_chance_of_two_is_that_of_the_normal_distribution() -> None:
    found = posterior(gains([0.0, 0.01], [0.0, 1e-4]), [FLAT, FLAT])
    assert found.probability_best[1] == pytest.approx((1 + math.erf(1 / 2**0.5)) / 2, abs=0.02)
    assert (posterior(gains([0.0, 0.01], [0.0, 1e-4]), [FLAT, FLAT]).probability_best == found.probability_best).all()


def test_twins_share_and_a_failed_candidate_is_never_best() -> None:
    found = posterior(gains([0.0, 0.0, math.nan], [0.0, 0.0, math.nan]), [FLAT] * 3)
    assert found.probability_best.tolist() == [0.5, 0.5, 0.0]
    assert found.best == 0
    assert found.mean[2] == -math.inf


def test_the_chance_is_calibrated_and_the_choice_beats_both_the_data_and_the_prior() -> None:
    """Populations whose true gains are drawn from the prior, measured with an error."""
    rng = np.random.default_rng(0)
    known = [Known(0, 1), Known(0.5, 1), Known(-0.5, 2), Known(0, 0.5), Known(0.2, 1.5)]
    mu, tau = (np.array([getattr(k, n) for k in known]) for n in ("mean", "variance"))
    stated, hit, regret = [], [], []
    for i in range(600):
        true = rng.normal(mu, np.sqrt(tau))
        true[0] = 0
        v = rng.uniform(0.5, 4, 5)
        v[0] = 0
        z = rng.normal(true, np.sqrt(v))
        found = posterior(gains((z / 100).tolist(), (v / 1e4).tolist()), known, seed=i)
        stated.append(found.probability_best)
        hit.append(np.arange(5) == true.argmax())
        regret.append([true.max() - true[c] for c in (found.best, int(z.argmax()), int(mu.argmax()))])
    p, best = np.concatenate(stated), np.concatenate(hit)
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1.0)):
        inside = (p >= low) & (p < high)
        assert best[inside].mean() == pytest.approx(p[inside].mean(), abs=0.07)
    chosen, by_data, by_prior = np.mean(regret, 0)
    assert chosen < by_data
    assert chosen < by_prior
