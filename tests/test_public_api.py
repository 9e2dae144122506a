"""The public names and their signatures, frozen. Record a change that is meant by `python tests/test_public_api.py`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

FROZEN = Path(__file__).with_name("public_api.txt")
MODULES = (
    "lossfit",
    "lossfit.calibration",
    "lossfit.estimators",
    "lossfit.functional",
    "lossfit.meta",
    "lossfit.multitask",
    "lossfit.registry",
    "lossfit.schedules",
    "lossfit.integrations.lightning",
    "lossfit.compare",
    "lossfit.integrations.sklearn",
    "lossfit.integrations.transformers",
    "lossfit.integrations.trl",
)


def public() -> Iterator[str]:
    """A line for each name: what it is called with, or what it is."""
    for module in map(importlib.import_module, MODULES):
        for name in sorted(getattr(module, "__all__", None) or own(module)):
            value = getattr(module, name)
            yield f"{module.__name__}.{name}{called(value)}"
            if inspect.isclass(value):
                yield from (f"{module.__name__}.{name}.{method}" for method in methods(value))


def methods(cls: type) -> Iterator[str]:
    """Those that the class defines itself, and what its calls end up in."""
    for name, value in sorted(vars(cls).items()):
        if name[0] != "_" and inspect.isfunction(value):
            yield f"{name}{called(value)}"


def own(module: object) -> list[str]:
    """Names without an underscore that the module itself defines."""
    return [n for n, v in vars(module).items() if n[0] != "_" and getattr(v, "__module__", None) == module.__name__]


def called(value: object) -> str:
    if inspect.ismodule(value) or not callable(value):
        return f": {type(value).__name__}"
    parameters = inspect.signature(value).parameters.values()
    return "(" + ", ".join(shown(p) for p in parameters) + ")"


def shown(parameter: inspect.Parameter) -> str:
    star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**", parameter.KEYWORD_ONLY: "kw:"}
    default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
    return star.get(parameter.kind, "") + parameter.name + default


def test_it_is_as_recorded() -> None:
    there, found = FROZEN.read_text(encoding="utf-8").splitlines(), list(public())
    gone, new = sorted({*there} - {*found}), sorted({*found} - {*there})
    assert not gone, f"no longer there or changed: {gone}; now {new}; record it by python {__file__}"
    assert not new, f"not recorded: {new}; record them by python {__file__}"


def test_it_has_no_address_in_memory() -> None:
    assert " at 0x" not in FROZEN.read_text(encoding="utf-8")


if __name__ == "__main__":
    FROZEN.write_text("\n".join(public()) + "\n", encoding="utf-8")
