"""The sources as docs/layout.md shows them: every file is there, imports go down from room to room, and never round.

python tests/test_layout.py    # writes the tree in docs/layout.md anew
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "lossfit"
PAGE = ROOT / "docs" / "layout.md"

FLOORS = (
    ("core",),
    ("native",),
    ("kernels",),
    ("gaps",),
    ("linear",),
    ("losses",),
    ("registry",),
    ("heads",),
    ("calibration", "estimators", "functional", "meta", "monitor", "multitask", "plot", "schedules"),
    ("plot_margins", "page"),
    ("lossfit",),
    ("compare.errors",),
    ("compare.device", "compare.files", "compare.memory_limits", "compare.written_tables"),
    ("compare.data",),
    ("compare.features",),
    ("compare.scoring",),
    ("compare.candidates",),
    ("compare.training",),
    ("compare.plan",),
    ("compare.outcome",),
    ("compare.verdict",),
    ("compare.running",),
    ("compare.report", "compare.calibrate", "compare.export"),
    ("compare", "integrations"),
    ("claims",),
    ("commands",),
    ("__main__",),
)
"""The rooms, from the lowest floor up; a room imports from lower floors alone."""

UPWARDS = {
    ("losses.metric.for_metric", "registry"): "a metric's loss is made by its name, when it is asked for",
}
"""Imports that go up a floor, or stay on one, each with the reason."""


def modules() -> dict[str, Path]:
    """The files by their names below ``lossfit``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "lossfit"] = path
    return found


MODULES = modules()


def imported(path: Path) -> Iterator[str]:
    """The files that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name.removeprefix("lossfit.") in MODULES else node.module or "" for name in inside]
        else:
            continue
        yield from (name.removeprefix("lossfit.") for name in names if name.partition(".")[0] == "lossfit")


IMPORTS = {name: {*imported(path)} - {name} for name, path in MODULES.items()}


def room(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "compare" else parts[0]


FLOOR = {one: floor for floor, rooms in enumerate(FLOORS) for one in rooms}


def test_every_import_is_of_a_file() -> None:
    """Else the tests below would not see it."""
    assert {name for names in IMPORTS.values() for name in names} <= MODULES.keys()
    assert sum(map(len, IMPORTS.values())) > 500


def test_imports_go_down() -> None:
    assert {room(name) for name in MODULES} <= FLOOR.keys()
    up = {
        (name, other)
        for name, others in IMPORTS.items()
        for other in others
        if room(name) != room(other) and FLOOR[room(other)] >= FLOOR[room(name)]
    }
    assert up == UPWARDS.keys()


def test_no_imports_go_round() -> None:
    TopologicalSorter(IMPORTS).prepare()  # raises a CycleError that names the circle


def test_the_root_has_what_users_import() -> None:
    assert len([name for name in MODULES if "." not in name and MODULES[name].stem != "__init__"]) <= 12


def tree() -> str:
    """A line for each file and folder, with the first sentence of its docstring."""
    lines = []
    for path in sorted(PACKAGE.rglob("*.py"), key=lambda p: [(part != "__init__.py", part) for part in p.parts]):
        depth = len(path.relative_to(PACKAGE).parts)
        folder = path.stem == "__init__"
        shown = f"{path.parent.name}/" if folder else path.name
        told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert told, f"{path} has no docstring"
        summary = " ".join(told.split("\n\n")[0].split())
        lines.append(f"    {'  ' * (depth - folder)}{shown:<{28 - 2 * (depth - folder)}} {summary}")
    return "\n".join(lines) + "\n"


def with_tree(page: str) -> str:
    before, mark, rest = page.partition("    lossfit/")
    assert mark
    after = rest.partition("\n\n")[2]
    return f"{before}{tree()}\n{after}"


def test_the_page_shows_the_tree() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tree(page), "docs/layout.md shows another tree: run `python tests/test_layout.py`"


if __name__ == "__main__":
    PAGE.write_text(with_tree(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
