"""summary.json is what its published schema says, for comparisons of every kind."""

import copy
import json
import math
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import polars as pl
import pytest

from lossfit.commands.compare import _finite
from lossfit.compare.plan import Plan
from lossfit.compare.running import engine
from lossfit.compare.scoring.tasks import CARDS, KINDS
from lossfit.compare.verdict import summary

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
    options = {"metric": metric, "losses": losses, "splits": 2, "trials": 1, "drop": drop, "model": "linear", **given}
    outcome = engine.run(Plan(str(table(tmp_path)), **options), tmp_path / "out")
    found = summary.summarise(outcome)
    check(found)
    assert set(found["losses"][0]["test"]) == set(KINDS[found["labels"]].metrics)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> engine.Outcome:
    plan = Plan("yeast", losses="focal", splits=3, trials=2, model="linear")
    return engine.run(plan, tmp_path_factory.mktemp("yeast") / "out")


@pytest.mark.parametrize(
    ("loss", "splits"), [("focal", 1), ("focal", 2), ("focal", 3), ("cross_entropy", 1), ("cross_entropy", 3)]
)
def test_summaries_with_failed_losses_too(outcome: engine.Outcome, loss: str, splits: int) -> None:
    failed = (pl.col("loss") == loss) & (pl.col("split") < splits)
    rows = outcome.results.with_columns(
        failed=pl.col("failed") | failed,
        validation=pl.when(failed).then(-math.inf).otherwise(pl.col("validation")),
    )
    found = summary.summarise(engine.Outcome(outcome.plan, outcome.data, rows, 1.0, outcome.model, outcome.device))
    assert found["failed_trainings"] == 2 * splits
    check(found)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.pop("recommended"), "'recommended' is a required property"),
        (lambda s: s.update(version=2), "1 was expected"),
        (lambda s: s.update(metric="f0"), "'f0' is not one of"),
        (lambda s: s["losses"][0]["test"].update(f0={"mean": 0.5, "std": 0.1}), "'f0' is not one of"),
        (lambda s: s["losses"][0]["test"]["accuracy"].pop("std"), "'std' is a required property"),
        (lambda s: s["losses"][0].update(params={"gamma": "2"}), "'2' is not of type 'number'"),
        (lambda s: s["recommended"].update(better_than_cross_entropy=None), "None is not of type 'boolean'"),
        (lambda s: s["data"]["classes"].clear(), "non-empty|enough properties"),
        (lambda s: s.update(news=1), "Additional properties are not allowed"),
    ],
)
def test_other_summaries_are_refused(outcome: engine.Outcome, change: Any, told: str) -> None:
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
