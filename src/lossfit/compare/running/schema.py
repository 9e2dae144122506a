"""Whether a summary is what ``summary.schema.json`` says, for those that come from a file.

As much of JSON Schema (draft 2020-12) as that file uses.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from lossfit.compare.scoring.tasks import KINDS

MOST = 100_000_000
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


def fault(summary: Any) -> str:
    """The first thing that is wrong with a summary, as the end of a sentence; nothing if it is sound."""
    found = next(_faults(summary, _schema(), "summary"), "")
    if found:
        return found
    return next(_misfits(summary), "")


def _misfits(summary: dict[str, Any]) -> Iterator[str]:
    """Where its parts do not fit each other."""
    kind, advised, recommended = KINDS[summary["labels"]], summary["advised"], summary["recommended"]
    if summary["metric"] not in kind.choices():
        yield f"summary.metric is no metric of {summary['labels']}"
        return
    metrics = kind.measured(summary["metric"])
    names = [entry["loss"] for entry in summary["losses"]]
    for key in ("tested", "folds", "repeats"):
        if summary[key] > MOST:
            yield f"summary.{key} is {summary[key]}"
    told = {"reference": summary["reference"], "free": summary["free"], "advised.loss": advised["loss"]}
    told |= {f"alternatives[{i}]": loss for i, loss in enumerate(summary["alternatives"])}
    for key, loss in told.items():
        if names.count(loss) != 1:
            yield f"summary.{key} is not once among the losses"
    if recommended["loss"] != advised["loss"]:
        yield "summary.recommended.loss is not the advised one"
    for entry in summary["losses"]:
        own = f"the entry of {_short(entry['loss'])}"
        if names.count(entry["loss"]) > 1:
            yield f"{own} is there twice"
        if entry["test"].keys() != metrics.keys() or not entry["differences"].keys() <= metrics.keys():
            yield f"{own} has other metrics than {summary['labels']}"
        ran = entry["vs_cross_entropy"] is not None
        if ran and not all(map(_is_told, (entry["vs_cross_entropy"], *entry["differences"].values()))):
            yield f"{own} has no number for its difference"
        if ran and (entry["expected"] is None or entry["probability_best"] is None):
            yield f"{own} has no number for what is expected of it"
        needed = {advised["loss"], *summary["alternatives"]} - {summary["reference"]}
        if not ran and entry["loss"] in needed:
            yield f"{own} is advised without a difference"


def _is_told(change: dict[str, Any]) -> bool:
    return None not in (change["difference"], *change["ci95"])


@cache
def _schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((files("lossfit.compare") / "summary.schema.json").read_text(encoding="utf-8"))
    return found


def _faults(value: Any, schema: dict[str, Any], at: str) -> Iterator[str]:
    if "$ref" in schema:
        yield from _faults(value, _schema()["$defs"][schema["$ref"].rpartition("/")[2]], at)
    kinds = schema.get("type", list(_TYPES))
    if not any(_is(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        yield f"{at} is {_short(value)}, not {kinds if isinstance(kinds, str) else ' or '.join(kinds)}"
        return
    if "anyOf" in schema and all(next(_faults(value, each, at), None) for each in schema["anyOf"]):
        yield f"{at} is {_short(value)}"
    if ("const" in schema and value != schema["const"]) or ("enum" in schema and value not in schema["enum"]):
        yield f"{at} is {_short(value)}"
    if isinstance(value, dict):
        yield from _object_faults(value, schema, at)
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{at} has {len(value)} entries"
        for i, each in enumerate(value):
            yield from _faults(each, schema.get("items", {}), f"{at}[{i}]")
    elif isinstance(value, str) and len(value) < schema.get("minLength", 0):
        yield f"{at} is empty"
    elif isinstance(value, int | float):
        yield from _number_faults(value, schema, at)


def _object_faults(value: dict[str, Any], schema: dict[str, Any], at: str) -> Iterator[str]:
    lacking = [name for name in schema.get("required", ()) if name not in value]
    if lacking:
        yield f"{at} lacks {lacking[0]!r}"
    if len(value) < schema.get("minProperties", 0):
        yield f"{at} has {len(value)} entries"
    properties = schema.get("properties", {})
    for name, each in value.items():
        yield from _faults(name, schema.get("propertyNames", {}), f"a name in {at}")
        yield from _faults(each, properties.get(name, schema.get("additionalProperties", {})), f"{at}.{name}")


def _number_faults(value: float, schema: dict[str, Any], at: str) -> Iterator[str]:
    inside = schema.get("minimum", value) <= value <= schema.get("maximum", value)
    below = value < schema["exclusiveMaximum"] if "exclusiveMaximum" in schema else True
    above = value > schema["exclusiveMinimum"] if "exclusiveMinimum" in schema else True
    # A file may write 1e999, which JSON reads as infinity.
    if not (inside and below and above and -math.inf < value < math.inf):
        yield f"{at} is {_short(value)}"


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _short(value: Any) -> str:
    told = repr(value)
    return told if len(told) <= 40 else f"{told[:37]}..."
