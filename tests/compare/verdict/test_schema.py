"""summary.json is what its published schema says, for comparisons of every kind."""

import copy
import json
import math
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import polars as pl
import pytest

from lossfit.commands.compare import _finite
from lossfit.compare.outcome import Outcome
from lossfit.compare.plan import Plan
from lossfit.compare.running import engine
from lossfit.compare.scoring.tasks import CARDS, KINDS
from lossfit.compare.verdict import summary
from trainings import QUICK

SCHEMA: dict[str, Any] = json.loads((files("lossfit.compare") / "summary.schema.json").read_text(encoding="utf-8"))
PAGE = Path(__file__).parents[3] / "docs" / "summary.md"
ROWS = 60


def strict(schema: Any) -> Any:
    """The schema with no other keys than it names."""
    if isinstance(schema, list):
        return [strict(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    return {"additionalProperties": False, **found} if isinstance(found.get("properties"), dict) else found


def check(contents: dict[str, Any]) -> None:
    """By the schema, and by what it leaves open for later."""
    told = json.loads(json.dumps(_finite(contents), allow_nan=False))
    for schema in (SCHEMA, strict(SCHEMA)):
        jsonschema.Draft202012Validator(schema).validate(told)


def table(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    labels = np.arange(ROWS) % 3
    frame = pl.DataFrame(
        {
            "x": rng.normal(size=ROWS) + labels,
            "z": rng.normal(size=ROWS),
            "y": [("a", "b", "c")[c] for c in labels],
            "first": (labels == 0).astype(int),
            "second": rng.integers(0, 2, ROWS),
            "group": np.arange(ROWS) // 2 % 20,
            "w": rng.uniform(0.5, 2, ROWS),
            "part": np.where(np.arange(ROWS) % 4 == 0, "test", "train"),
            "no": 3 * (labels == 0) + rng.integers(0, 2, ROWS),
            "yes": 3 * (labels != 0) + 0.5,
        }
    )
    frame.write_csv(folder / "t.csv")
    return folder / "t.csv"


OTHERS = {"first", "second", "group", "w", "part", "no", "yes", "y"}
KINDS_OF_PLANS: dict[str, dict[str, Any]] = {
    "single-label": {"target": "y"},
    "several": {"target": ("first", "second")},
    "weights": {"target": "y", "weight": "w", "metric": "log_loss"},
    "groups": {"target": "first", "group": "group", "metric": "macro_f1"},
    "votes": {"votes": ("no", "yes"), "metric": "brier"},
    "given test": {"target": "y", "test_column": "part"},
    "noise, hidden": {"target": "y", "label_noise": 0.3, "model": "mlp", "metric": "calibration_error"},
}


@pytest.mark.parametrize("kind", KINDS_OF_PLANS)
def test_summaries_of_every_kind_are_as_the_schema_says(tmp_path: Path, kind: str) -> None:
    given = KINDS_OF_PLANS[kind]
    named = {name for value in given.values() for name in (value if isinstance(value, tuple) else (value,))}
    metric = "micro_f1" if kind == "several" else "accuracy"
    drop = tuple(sorted(OTHERS - named))
    losses = "zlpr" if kind == "several" else "focal"
    options = {"metric": metric, "losses": losses, "folds": 3, "trials": 1, "drop": drop, "model": "linear", **given}
    outcome = engine.run(Plan(str(table(tmp_path)), **options), tmp_path / "out", limits=QUICK)
    found = summary.summarise(outcome)
    check(found)
    assert set(found["losses"][0]["test"]) == set(KINDS[found["labels"]].metrics)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    plan = Plan("yeast", losses="focal", folds=3, repeats=1, trials=2, model="linear", metric="macro_f1")
    return engine.run(plan, tmp_path_factory.mktemp("yeast") / "out", limits=QUICK)


@pytest.mark.parametrize("loss", ["focal", "cross_entropy", ""])
def test_summaries_with_failed_losses_too(outcome: Outcome, loss: str) -> None:
    """Or with all of them failed."""
    own = pl.col("loss").str.starts_with(loss)
    rows = outcome.results.with_columns(
        failed=pl.col("failed") | own, validation=pl.when(own).then(-math.inf).otherwise("validation")
    )
    passes = outcome.passes.filter(~own) if loss else pl.DataFrame()
    found = summary.summarise(replace(outcome, results=rows, passes=passes))
    assert found["failed_settings"] == 3 * 2 * (1 if loss else 2)
    check(found)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.pop("recommended"), "'recommended' is a required property"),
        (lambda s: s.update(version=1), "2 was expected"),
        (lambda s: s.update(metric="f7"), "'f7' is not one of"),
        (lambda s: s["losses"][0]["test"].update(f7={"mean": 0.5, "ci95": [0, 1]}), "'f7' is not one of"),
        (lambda s: s["losses"][0]["test"]["accuracy"].pop("ci95"), "'ci95' is a required property"),
        (lambda s: s["losses"][0].update(params={"gamma": "2"}), "'2' is not of type 'number'"),
        (lambda s: s["recommended"].update(better_than_cross_entropy=None), "None is not of type 'boolean'"),
        (lambda s: s["advised"].update(claim="best"), "'best' is not one of"),
        (lambda s: s["data"]["classes"].clear(), "non-empty|enough properties"),
        (lambda s: s.update(news=1), "Additional properties are not allowed"),
    ],
)
def test_other_summaries_are_refused(outcome: Outcome, change: Any, told: str) -> None:
    found = copy.deepcopy(summary.summarise(outcome))
    check(found)
    change(found)
    with pytest.raises(jsonschema.ValidationError, match=told):
        check(found)


def test_the_schema_is_sound_and_knows_every_metric() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["$defs"]["metric"]["enum"]) == set(CARDS)
    assert SCHEMA["properties"]["version"]["const"] == summary.VERSION
    assert set(SCHEMA["required"]) == set(SCHEMA["properties"])


def test_every_key_is_on_its_page() -> None:
    keys = {key for part in (SCHEMA, *SCHEMA["$defs"].values()) for key in _keys(part)}
    assert keys - set(re.findall(r"`(\w+)`", PAGE.read_text(encoding="utf-8"))) == set()


def _keys(schema: Any) -> set[str]:
    found = set(schema.get("properties", {}))
    return found.union(*(_keys(part) for part in schema.get("properties", {}).values()))
