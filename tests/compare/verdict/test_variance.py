"""The parts of the variance of a difference, longhand and by simulation."""

import numpy as np
import pytest

from lossfit.compare.verdict.variance import Layout, Passes, differences

L, R, K, N = 3, 2, 5, 60


def folds(rng: np.random.Generator, rows: int = N, repeats: int = R) -> np.ndarray:
    return np.stack([rng.permutation(rows) % K for _ in range(repeats)])


def passes(rng: np.random.Generator, rows: int = N, repeats: int = R) -> Passes:
    values, influence = rng.normal(size=(L, repeats, K - 1)), rng.normal(size=(L, repeats, K - 1, rows))
    influence -= influence.mean(3, keepdims=True)
    return Passes(["a", "b", "c"], values, rng.normal(size=(L, repeats)), influence)


def longhand(p: Passes, c: int, base: int, layout: Layout) -> list[float]:
    """Mean, validation, V_row, V_b, V_w as the specification has them, unit by unit."""
    n = layout.folds.shape[1]
    groups = np.arange(n) if layout.groups is None else layout.groups
    ids = sorted(set(groups.tolist()))
    row = 0.0
    for g in ids:
        of = [
            sum(p.influence[c, r, j, i] - p.influence[base, r, j, i] for i in np.flatnonzero(groups == g))
            for r in range(R)
            for j in range(K - 1)
        ]
        row += (sum(of) / len(of)) ** 2
    row *= len(ids) / (len(ids) - 1) / n**2
    between, within = [], []
    for r in range(R):
        for k in range(K):
            members = np.flatnonzero(layout.folds[r] == k)
            d = p.influence[c, r][:, members] - p.influence[base, r][:, members]
            delta = d.mean(1)
            between.append(np.var(delta + p.values[c, r] - p.values[base, r], ddof=1))
            inside = sorted(set(groups[members].tolist()))
            total = 0.0
            for g in inside:
                own = groups[members] == g
                total += np.var(d[:, own].sum(1) - own.sum() * delta, ddof=1)
            within.append(total * len(inside) / (len(inside) - 1) / len(members) ** 2)
    return [
        p.values[c].mean() - p.values[base].mean(),
        p.validation[c].mean() - p.validation[base].mean(),
        row,
        float(np.mean(between)) / layout.models,
        float(np.mean(within)) / layout.models,
    ]


@pytest.mark.parametrize("grouped", [False, True])
def test_the_parts_longhand(grouped: bool) -> None:
    rng = np.random.default_rng(0)
    of_groups = rng.integers(0, 20, N) if grouped else None
    drawn = folds(rng) if of_groups is None else np.stack([rng.permutation(20) % K for _ in range(R)])[:, of_groups]
    layout, p = Layout(drawn, 20, of_groups), passes(rng)
    found = differences(p, 1, layout)
    for c in (0, 2):
        parts = [found.mean[c], found.validation[c], found.v_row[c], found.v_b[c], found.v_w[c]]
        assert parts == pytest.approx(longhand(p, c, 1, layout), rel=1e-5)
    assert [part[1] for part in found[:5]] == [0.0] * 5
    assert (found.v_t == np.maximum(found.v_b - found.v_w, 0)).all()


def test_a_raced_candidate_is_compared_in_the_repeats_it_took_part_in() -> None:
    rng = np.random.default_rng(1)
    p, drawn = passes(rng), folds(rng)
    p.values[2, 1] = np.nan
    p.influence[2, 1] = np.nan
    first = Passes(p.names, p.values[:, :1], p.validation[:, :1], p.influence[:, :1])
    found, alone = differences(p, 0, Layout(drawn, 20)), differences(first, 0, Layout(drawn[:1], 10))
    for whole, part in zip(found[:5], alone[:5], strict=True):
        assert whole[2] == pytest.approx(part[2], rel=1e-12)
    assert np.isfinite(found.mean).all()


def test_a_failed_candidate_has_no_difference() -> None:
    rng = np.random.default_rng(2)
    p = passes(rng)
    p.values[0, 0, 1] = np.nan
    found = differences(p, 1, Layout(folds(rng), 20))
    assert all(np.isnan(part[0]) for part in found[:5])
    assert not found.units[0].any()
    assert all(np.isnan(part).all() for part in differences(p, 0, Layout(folds(rng), 20))[:5])


def test_one_pass_tells_no_variance() -> None:
    rng = np.random.default_rng(3)
    p = Passes(["a"], np.zeros((1, 1, 1)), np.zeros((1, 1)), np.zeros((1, 1, 1, 9)))
    with pytest.raises(ValueError, match="at least 2 passes to a repeat, but got 1"):
        differences(p, 0, Layout(rng.integers(0, 3, (1, 9)), 3))


def test_given_test_rows_have_one_fold_and_a_pass_for_every_model() -> None:
    """The variance between trainings is that of the mean of independent models."""
    rng = np.random.default_rng(5)
    models, rows = 10, 80
    value, hits = rng.normal(size=models), rng.normal(size=(models, rows))
    hits -= hits.mean(1, keepdims=True)
    p = Passes(
        ["x", "base"],
        np.stack([value, np.zeros(models)])[:, None],
        np.zeros((2, 1)),
        np.stack([hits, np.zeros_like(hits)])[:, None],
    )
    found = differences(p, 1, Layout(np.zeros((1, rows), dtype=int), models))
    assert found.v_b[0] == pytest.approx(value.var(ddof=1) / models, rel=1e-12)
    assert found.v_row[0] == pytest.approx((hits.mean(0) ** 2).sum() / rows / (rows - 1), rel=1e-12)


def test_the_variance_of_simulated_trainings_is_found() -> None:
    """Trainings that add a normal number to a fold, rows that add one to all trainings, and one of their own."""
    rng = np.random.default_rng(4)
    rows, trainings, own, repeats = 500, 0.05, 0.8, 200
    found, means = [], []
    for _ in range(repeats):
        drawn = folds(rng, rows, 1)
        hit = rng.normal(size=rows) + own * rng.normal(size=(4, rows))
        shift = trainings * rng.normal(size=(4, K))
        value = hit + np.take_along_axis(shift, np.repeat(drawn, 4, 0), 1)
        mean = value.mean(1)
        p = Passes(
            ["x", "base"],
            np.stack([mean, np.zeros(4)])[:, None],
            np.zeros((2, 1)),
            np.stack([value - mean[:, None], np.zeros_like(value)])[:, None],
        )
        d = differences(p, 1, Layout(drawn, 20))  # 20 independent trainings here
        found.append([d.v_row[0], d.v_b[0], d.v_w[0]])
        means.append(d.mean[0])
    row, between, within = np.mean(found, 0)
    assert between - within == pytest.approx(trainings**2 / 20, rel=0.1)
    assert within == pytest.approx(own**2 / 100 / 20, rel=0.05)
    assert np.var(means) == pytest.approx(row + between - within, rel=0.3)
