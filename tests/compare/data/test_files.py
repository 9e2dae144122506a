"""Small files as people bring them, in tests/files, each with what is expected of its reading beside it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from lossfit.compare.data.dataset import Dataset, load
from lossfit.compare.data.sources.dialect import FileOptions
from lossfit.compare.errors import InputError

FILES = Path(__file__).parents[2] / "files"
EXPECTED = {path.name.removesuffix(".json"): path for path in sorted(FILES.glob("*.*.json"))}


def expected(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(EXPECTED[name].read_text(encoding="utf-8"))
    return found


def read(name: str, meta: dict[str, Any]) -> Dataset:
    options = {key: tuple(v) if isinstance(v, list) else v for key, v in meta.get("options", {}).items()}
    names = {field.name for field in dataclasses.fields(FileOptions)}
    files = FileOptions(**{key: v for key, v in options.items() if key in names})
    target = meta.get("target", "y")
    target = tuple(target) if isinstance(target, list) else target
    return load(str(FILES / name), target, files=files, **{k: v for k, v in options.items() if k not in names})


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_is_read_as_expected(name: str) -> None:
    meta = expected(name)
    if "refused" in meta:
        with pytest.raises(InputError) as caught:
            read(name, meta)
        for part in meta["refused"]:
            assert part in str(caught.value)
        return
    found = read(name, meta)
    assert {c.name: c.type for c in found.columns if c.type != "target"} == meta["columns"]
    assert found.rows == meta["rows"]
    assert found.classes == meta.get("classes", found.classes)
    values = {**found.numeric.to_dict(), **found.categorical.to_dict(), **found.text.to_dict()}
    for column, first in meta.get("first", {}).items():
        assert values[column].head(len(first)).to_list() == first
    counted = {c.name: c.missing for c in found.columns if c.missing and c.type not in ("target", "empty (left out)")}
    assert counted == meta.get("missing", {})
    if "labels" in meta:
        assert found.labels[: len(meta["labels"])].astype(int).tolist() == meta["labels"]
    for part in meta.get("notes", []):
        assert any(part in note for note in found.notes), found.notes
    if not meta.get("notes") and not meta.get("options"):
        assert all(note.startswith(("Left out:", "Read as text:", "Each row of")) for note in found.notes)


def test_there_are_files_of_every_kind_and_all_have_expectations() -> None:
    assert len(EXPECTED) >= 80
    assert {path.name for path in FILES.iterdir()} == {*EXPECTED} | {f"{name}.json" for name in EXPECTED}
    kinds = [expected(name)["kind"] for name in EXPECTED]
    assert min(kinds.count(kind) for kind in set(kinds)) >= 5
