"""Comparisons in which any number of classes may be right."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn
from typer.testing import CliRunner

from lossfit.commands.app import app
from lossfit.compare.data import dataset, folds
from lossfit.compare.errors import InputError
from lossfit.compare.scoring import multilabel_metrics

BUNDLED = Path(dataset.__file__).parent / "bundled"


def references(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    predicted = scores > 0
    f1 = {a: sklearn.f1_score(labels, predicted, average=a, zero_division=0) for a in ("micro", "macro", "samples")}
    return {
        "micro_f1": f1["micro"],
        "macro_f1": f1["macro"],
        "sample_f1": f1["samples"],
        "subset_accuracy": sklearn.accuracy_score(labels, predicted),
        "hamming_loss": sklearn.hamming_loss(labels, predicted),
        "ranking_loss": sklearn.label_ranking_loss(labels, scores),
        "ranking_precision": sklearn.label_ranking_average_precision_score(labels, scores),
    }


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(2, 6), st.floats(0.0, 1.0), st.booleans())
def test_metrics_are_those_of_scikit_learn(seed: int, rows: int, classes: int, share: float, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(2, rows, classes))
    scores = scores.round(0) if ties else scores
    labels = rng.random((2, rows, classes)) < share
    expected = [references(z, y) for z, y in zip(scores, labels, strict=True)]
    for name, card in multilabel_metrics.METRICS.items():
        found = card.function(torch.tensor(scores), torch.tensor(labels))
        assert found.tolist() == pytest.approx([each[name] for each in expected], abs=1e-12), name


def frame(rows: int = 300) -> pl.DataFrame:
    """Rows whose labels depend on their columns."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 4))
    right = x @ rng.normal(size=(4, 3)) + rng.normal(size=(rows, 3)) > (0.0, 0.5, 1.5)
    columns = {f"x{i}": x[:, i] for i in range(4)}
    return pl.DataFrame({**columns, "red": right[:, 0], "soft": right[:, 1].astype(int), "rare": right[:, 2]})


TARGETS = ("red", "soft", "rare")


def test_columns_of_booleans_and_of_ones_and_zeros() -> None:
    found = dataset.table(frame(), "toys", TARGETS)
    assert found.classes == list(TARGETS)
    assert found.labels.dtype == bool
    assert found.labels.tolist() == frame().select(pl.col(TARGETS).cast(bool)).to_numpy().tolist()
    assert found.counts.tolist() == found.labels.sum(0).tolist()
    assert found.numeric.columns == ["x0", "x1", "x2", "x3"]


@pytest.mark.parametrize(
    ("column", "match"),
    [
        (["a", "b"] * 150, r"each is a column of 0 and 1; 'soft' holds 'a'"),
        ([0, 2] * 150, r"'soft' holds 2"),
        ([0.0, 0.5] * 150, r"'soft' holds 0.5"),
        ([1] * 300, r"'soft' is 1 in every row"),
        ([None, 1, 0] * 100, r"'soft' is missing in 100 rows, first in row 1"),
    ],
)
def test_targets_that_are_none(column: list[object], match: str) -> None:
    with pytest.raises(InputError, match=match):
        dataset.table(frame().with_columns(pl.Series("soft", column)), "toys", TARGETS)


def test_a_class_too_rare_to_deal_out() -> None:
    rare = [True, True] + [False] * 298
    with pytest.raises(InputError, match=r"cannot be dealt out .*; 'rare' is the rarest"):
        folds.draw(dataset.table(frame().with_columns(rare=pl.Series(rare)), "toys", TARGETS))


def test_the_command_on_what_raters_of_tweets_found(tmp_path: Path) -> None:
    tweets = pl.read_csv(BUNDLED / "tweets.csv").head(600)
    votes = ("negative", "neutral", "positive")
    tweets.select("text", *((pl.col(name) > 5).alias(name) for name in votes)).write_csv(tmp_path / "found.csv")
    out = tmp_path / "out"
    targets = [word for name in votes for word in ("--target", name)]
    options = ["--text", "text", "--folds", "3", "--repeats", "1", "--trials", "2", "--workers", "1", "--out", str(out)]
    found = CliRunner().invoke(app, ["compare", str(tmp_path / "found.csv"), *targets, *options])
    assert found.exit_code == 0, found.output
    summary = json.loads((out / "summary.json").read_text())
    assert summary["metric"] == "micro_f1"
    assert summary["labels"] == "multi_label"
    assert {"bce", "zlpr"} <= {entry["loss"] for entry in summary["losses"]}
    for entry in summary["losses"]:
        assert set(entry["test"]) == set(multilabel_metrics.METRICS)
        assert entry["test"]["micro_f1"]["mean"] > 0.5
    assert summary["data"]["classes"] == {name: int((tweets[name] > 5).sum()) for name in votes}
    page = (out / "report.html").read_text()
    for card in multilabel_metrics.METRICS.values():
        assert card.title in page
    assert 'id="reliability"' not in page
    assert "Binary cross-entropy" in found.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--metric", "accuracy"], "Did you mean 'subset_accuracy'?"),
        (["--losses", "focal"], "Did you mean 'focal_bce'?"),
    ],
)
def test_names_of_the_other_kind_are_refused(tmp_path: Path, options: list[str], told: str) -> None:
    frame().write_csv(tmp_path / "toys.csv")
    targets = [word for name in TARGETS for word in ("--target", name)]
    found = CliRunner().invoke(
        app, ["compare", str(tmp_path / "toys.csv"), *targets, *options, "--out", str(tmp_path / "o")]
    )
    assert found.exit_code == 2
    assert told in " ".join(found.stderr.split())
