"""The articles' claims: verdicts derived independently, and the page made of a run."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lossfit import claims
from lossfit.claims import report, tools
from lossfit.commands.app import app

HOLDS, CORRECTED, REFUTED = "holds", "holds with a correction", "refuted"

# Worked out by hand and with other programs, before these modules were written.
VERDICTS = {
    "toy_example": HOLDS,
    "temperature_repairs": CORRECTED,
    "low_temperature": REFUTED,
    "probit_numbers": CORRECTED,
    "gumbel_noise": CORRECTED,
    "exact_estimators": REFUTED,
    "monte_carlo_variance": HOLDS,
    "log_of_mean": REFUTED,
    "sensitivity_table": HOLDS,
    "adaptive_weight": CORRECTED,
    "focal_form": HOLDS,
    "smoothing_form": CORRECTED,
    "poly_form": CORRECTED,
    "logistic_hessian": CORRECTED,
    "convergence": CORRECTED,
    "contrastive_name": CORRECTED,
    "gamma_limits": CORRECTED,
    "gamma_stop_gradient": CORRECTED,
    "two_classes": HOLDS,
    "likelihood": HOLDS,
    "ladder": HOLDS,
    "gradient_properties": HOLDS,
    "softmax_numbers": HOLDS,
    "scale_of_scores": HOLDS,
    "margin_formula": REFUTED,
    "multiplicative_margin": CORRECTED,
    "multiway_attempts": HOLDS,
    "multiway_solution": CORRECTED,
    "log_balances": CORRECTED,
}
# These train on real data for a minute or so; what they come to is in the page, not here.
TRAINED = {"exact_real_data", "direct_accuracy", "late_cross_entropy", "gamma_tempers"}


def test_every_claim_is_here() -> None:
    assert set(VERDICTS) | TRAINED == set(claims.MODULES)
    assert [claim.name for claim in claims.every()] == list(claims.MODULES)


@pytest.mark.parametrize("name", VERDICTS)
def test_the_verdict(name: str) -> None:
    claim = claims.get(name)
    found = claim.run()
    assert found.verdict == VERDICTS[name], found.numbers
    assert found.numbers
    assert claim.statement.endswith((".", ")"))
    assert found.remark.endswith(".")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exact_real_data", "direct_accuracy", "gamma_tempers"])
def test_those_that_train_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tools.compare

    def small(source: str, losses: str, **plan: object) -> dict[str, object]:
        return plain("yeast", losses, **{**plan, "folds": 3, "repeats": 1, "trials": 1})

    claim = claims.get(name)
    monkeypatch.setitem(claim.run.__globals__, "compare", small)
    found = claim.run()
    assert found.verdict in report.VERDICTS
    assert all(len(row) == 3 for row in found.numbers)


@pytest.mark.parametrize(
    ("found", "printed", "agrees"),
    [(1.054, "1.05", True), (1.056, "1.05", False), (100.4, "100", True), (0.99005, "0.990", True)],
)
def test_printed_digits(found: float, printed: str, agrees: bool) -> None:
    assert tools.same(found, printed) is agrees


def run(*arguments: object) -> object:
    return CliRunner().invoke(app, ["claims", *map(str, arguments)])


def test_the_command_writes_a_page(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):  # its own files are made anew
        found = run("toy_example", "low_temperature", "--out", out)
        assert found.exit_code == 0, found.output
    assert "holds: 1, refuted: 1." in found.stdout
    contents = json.loads((out / "claims.json").read_text())
    assert [c["verdict"] for c in contents["claims"]] == [HOLDS, REFUTED]
    page, text = (out / "claims.html").read_text(), (out / "claims.md").read_text()
    for record in contents["claims"]:
        assert record["ran"] in text
        assert record["remark"].split(",")[0] in page
    assert "![toy example](toy_example.svg)" in text
    assert (out / "toy_example.svg").read_bytes().startswith(b"<svg")


def test_bad_input(tmp_path: Path) -> None:
    found = run("toy_exampel", "--out", tmp_path / "out")
    assert found.exit_code == 2
    assert "Did you mean 'toy_example'?" in " ".join(found.stderr.split())
    (tmp_path / "notes.txt").write_text("mine")
    found = run("toy_example", "--out", tmp_path)
    assert found.exit_code == 2
    assert "holds something else" in " ".join(found.stderr.split())
