"""The whole verdict: the claims hold their level, the direction of the metric is kept, and failures are told apart."""

import numpy as np
import pytest

from lossfit.compare.verdict.judge import Verdict, judge
from lossfit.compare.verdict.prior import Known, Prior
from lossfit.compare.verdict.variance import Layout, Passes

N, R, J = 400, 2, 4
NAMES = ["cross_entropy", "cross_entropy+tuned_prior", "focal", "poly"]


def passes(rng: np.random.Generator, gain: list[float]) -> tuple[Passes, Layout]:
    """Hits of rows that are hard for every model or not, with a gain of each candidate."""
    hard = rng.normal(size=N)
    own = rng.normal(scale=0.5, size=(len(gain), 1, 1, N)) + rng.normal(scale=0.7, size=(len(gain), R, J, N))
    hits = (hard + own < 0.5 + 3 * np.array(gain).reshape(-1, 1, 1, 1)).astype(float)
    values = hits.mean(3)
    folds = np.stack([rng.permutation(N) % 5 for _ in range(R)])
    return Passes(NAMES[: len(gain)], values, values.mean(2), hits - values[..., None]), Layout(folds, 20)


def verdict(p: Passes, layout: Layout, prior: Prior | None = None, *, higher: bool = True) -> Verdict:
    return judge(
        p,
        layout,
        "accuracy",
        prior or Prior(),
        reference=NAMES[0],
        free=NAMES[1] if len(p.names) > 1 else None,
        higher=higher,
    )


def test_a_large_gain_is_claimed_and_a_large_loss_is_called_worse() -> None:
    found = verdict(*passes(np.random.default_rng(0), [0, 0, 0.2, -0.2]))
    assert found.advised.name == "focal"
    assert found.claim == "better_than_free"
    assert [c.over_reference.side for c in found.candidates] == ["undecided", "undecided", "better", "worse"]
    assert found.advised.probability_best > 0.99
    for c in found.candidates:
        assert c.estimate.low < c.estimate.mean < c.estimate.high


def test_what_is_free_may_be_all_of_the_gain() -> None:
    found = verdict(*passes(np.random.default_rng(1), [0, 0.2, 0.2, 0.0]))
    focal = found.candidates[2]
    assert focal.over_reference.side == "better"
    assert focal.over_free.side == "undecided"
    assert found.claim == "better_than_reference"


def test_less_may_be_better() -> None:
    p, layout = passes(np.random.default_rng(2), [0, 0, 0.2, -0.2])
    up = verdict(p, layout)
    errors = p._replace(values=1 - p.values, validation=1 - p.validation, influence=-p.influence)
    down = verdict(errors, layout, higher=False)
    assert down.advised.name == up.advised.name
    for a, b in zip(up.candidates, down.candidates, strict=True):
        assert b.over_reference.mean == pytest.approx(a.over_reference.mean)
        assert b.estimate.mean == pytest.approx(1 - a.estimate.mean)
        assert b.estimate.low == pytest.approx(1 - a.estimate.high)


def test_the_prior_moves_the_choice_but_no_claim() -> None:
    p, layout = passes(np.random.default_rng(3), [0, 0, 0.0, 0.0])
    known = {name: Known(0.0, 1.0) for name in NAMES} | {"poly": Known(3.0, 0.01)}
    flat, informed = verdict(p, layout), verdict(p, layout, Prior({"accuracy": known}))
    assert informed.advised.name == "poly"
    assert informed.claim == "none"
    for a, b in zip(flat.candidates, informed.candidates, strict=True):
        assert a.over_reference == b.over_reference
        assert a.over_free == b.over_free


def test_failures() -> None:
    p, layout = passes(np.random.default_rng(4), [0, 0, 0.2, 0.0])
    p.values[2, 0, 1] = np.nan
    found = verdict(p, layout)
    assert found.advised.name != "focal"
    assert np.isnan(found.candidates[2].over_reference.mean)
    assert found.candidates[2].probability_best == 0
    p.values[1] = np.nan
    assert verdict(p, layout).free == "cross_entropy"
    p.values[0] = np.nan
    with pytest.raises(ValueError, match="reference 'cross_entropy' to have a value"):
        verdict(p, layout)


def test_one_candidate_is_advised_without_a_claim() -> None:
    found = verdict(*passes(np.random.default_rng(5), [0]))
    assert found.advised.name == "cross_entropy"
    assert found.claim == "none"
    assert found.advised.probability_best == 1


def test_false_claims_are_rare_among_equal_candidates() -> None:
    false = sum(
        any(
            c.over_reference.side != "undecided"
            for c in verdict(*passes(np.random.default_rng(i), [0.0] * 4)).candidates
        )
        for i in range(80)
    )
    assert false <= 10  # 5% of 80, and three standard errors
