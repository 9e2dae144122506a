"""The prior's file, what stands in for what was not measured, and how it is estimated."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lossfit.compare.candidates import candidates
from lossfit.compare.verdict import prior
from lossfit.compare.verdict.prior import Known, Prior

WHOLE = Prior(
    {
        "accuracy": {"focal": Known(0.2, 0.5), "poly": Known(-0.4, 0.1), "hinge": Known(0.0, 0.3)},
        "log_loss": {"focal": Known(-1.0, 2.0)},
    },
    ("iris", "wine"),
    "2026-11-30",
    "python benchmarks/advice.py",
)


def test_a_file_says_the_same_again(tmp_path: Path) -> None:
    path = tmp_path / "prior.json"
    path.write_text(json.dumps(WHOLE.to_json()), encoding="utf-8")
    assert prior.load(path) == WHOLE


def test_what_was_not_measured_gets_the_median_of_the_nearest_metric() -> None:
    assert WHOLE.of("accuracy", "focal") == Known(0.2, 0.5, "")
    assert WHOLE.of("accuracy", "my_loss") == Known(0.0, 0.3, "accuracy")
    assert WHOLE.of("brier", "focal") == Known(-1.0, 2.0, "log_loss")
    assert WHOLE.of("a metric of mine", "focal") == Known(0.0, 0.3, "accuracy")
    assert Prior().of("accuracy", "focal") == prior.FLAT


GOOD = {"mean": 0.1, "variance": 0.2}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "an object, but got list"),
        ({"version": 2}, "`version` 1, but got 2"),
        ({"version": 1}, "`metrics` with at least one metric"),
        ({"version": 1, "metrics": {"accuracy": []}}, "`metrics.accuracy`"),
        ({"version": 1, "metrics": {"accuracy": {"focal": {"mean": 1}}}}, "`mean` and `variance` in `metrics.accuracy"),
        ({"version": 1, "metrics": {"accuracy": {"focal": GOOD | {"mean": "0"}}}}, "finite numbers"),
        ({"version": 1, "metrics": {"accuracy": {"focal": GOOD | {"mean": math.nan}}}}, "finite numbers"),
        ({"version": 1, "metrics": {"accuracy": {"focal": GOOD | {"variance": True}}}}, "finite numbers"),
        ({"version": 1, "metrics": {"accuracy": {"focal": GOOD | {"variance": 0}}}}, "`variance` above 0"),
        ({"version": 1, "metrics": {"accuracy": {"focal": GOOD}}, "data_sets": "iris"}, "`data_sets` to be a list"),
    ],
)
def test_a_damaged_file_is_said_and_the_prior_is_flat(content: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "prior.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    found = prior.load(path)
    assert words in found.note
    assert str(path) in found.note
    assert found.of("accuracy", "focal") == prior.FLAT


@pytest.mark.parametrize("text", [None, "", "{", "\x00\xff", "[" * 100_000])
def test_a_file_that_is_no_json_is_said(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "prior.json"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    assert "cannot be used" in prior.load(path).note


def test_the_shipped_one_knows_every_loss_but_one() -> None:
    found = prior.load()
    assert not found.note
    assert len(set(found.data_sets)) == len(found.data_sets) > 10
    assert found.command == "python benchmarks/advice.py"
    for metric in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "calibration_error"):
        plain = candidates.choose("all", metric)
        tuned = [candidates.tuned(candidate, metric) for candidate in plain]
        names = {
            candidate.name for candidate in [*plain, *tuned] if candidate is not None and candidate.loss != "exact"
        }
        assert found.metrics[metric].keys() == names
        free = tuned[0] or plain[0]
        assert found.of(metric, free.name).mean == 0.0
        assert found.of(metric, "exact").borrowed == metric


def test_the_estimate_longhand() -> None:
    rng = np.random.default_rng(0)
    gains = {name: rng.normal(scale=3, size=(9, 2)) for name in ("a", "b", "c")}
    gains["a"][0, 0] = -50.0  # counts as -10
    gains["b"][3, 1] = np.nan  # the set does not count
    found = prior.estimate(gains)
    own = {}
    for name, both in gains.items():
        pairs = [(max(x, -10), max(y, -10)) for x, y in both if not (math.isnan(x) or math.isnan(y))]
        mu = sum(x + y for x, y in pairs) / 2 / len(pairs)
        own[name] = max(0.001, sum((x - mu) * (y - mu) for x, y in pairs) / len(pairs))
        assert found[name].mean == pytest.approx(mu)
    for name in gains:
        assert found[name].variance == pytest.approx((own[name] + sorted(own.values())[1]) / 2)


def test_the_variance_between_sets_is_found_without_that_of_the_halves() -> None:
    rng = np.random.default_rng(1)
    true = rng.normal(0.5, 2.0, size=(4000, 1))
    found = prior.estimate({"loss": true + rng.normal(scale=1.5, size=(4000, 2))})["loss"]
    assert found.mean == pytest.approx(0.5, abs=0.15)
    assert found.variance == pytest.approx(4.0, rel=0.1)
