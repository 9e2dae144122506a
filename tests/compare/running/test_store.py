"""A file of numbers is taken for what it says only if it is whole and of this comparison."""

import random
from pathlib import Path

import polars as pl
import pytest

from lossfit.compare.errors import InputError
from lossfit.compare.running import store

RUN, OTHER = "a1" * 32, "b2" * 32
RECORDS = [
    {"loss": "focal", "split": s, "trial": t, "params": {"gamma": 2.0}, "validation": s / 7 + t, "failed": False}
    for s in range(3)
    for t in range(4)
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = store.part(tmp_path, "focal", 0)
    found.parent.mkdir()
    store.write_part(found, RUN, RECORDS, 0, 0.5)
    return found


def test_what_is_written_is_read(path: Path) -> None:
    found = store.read_sealed(path, RUN)
    assert found["validation"].to_list() == [r["validation"] for r in RECORDS]
    assert pl.read_parquet(path).equals(found)  # by anyone


def test_any_single_bit(path: Path) -> None:
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(300):
        at = rng.randrange(8 * len(whole))
        changed = bytearray(whole)
        changed[at // 8] ^= 1 << at % 8
        path.write_bytes(changed)
        with pytest.raises(InputError, match=r"focal-0000\.parquet' is "):
            store.read_sealed(path, RUN)


@pytest.mark.parametrize("length", [0, 1, 100, -1, -8])
def test_cut_off(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match="is damaged"):
        store.read_sealed(path, RUN)


def test_of_another_comparison_or_name(path: Path) -> None:
    with pytest.raises(InputError, match="is of another comparison, or had another name"):
        store.read_sealed(path, OTHER)
    path.rename(path.with_name("poly-0000.parquet"))
    with pytest.raises(InputError, match="is of another comparison, or had another name"):
        store.read_sealed(path.with_name("poly-0000.parquet"), RUN)


def test_a_link_to_a_sound_one(path: Path, tmp_path: Path) -> None:
    path.rename(tmp_path / path.name)
    path.symlink_to(tmp_path / path.name)
    whole, aside = store.set_aside(tmp_path, RUN, {path})
    assert (whole, aside) == (set(), [path.name])
    assert (tmp_path / path.name).is_file()


def test_what_is_not_expected_is_moved(path: Path, tmp_path: Path) -> None:
    strange = path.with_name("strange-0000.parquet")
    strange.write_bytes(path.read_bytes())
    whole, aside = store.set_aside(tmp_path, RUN, {path, store.part(tmp_path, "poly", 0)})
    assert whole == {path}
    assert aside == ["strange-0000.parquet"]
    assert store.set_aside(tmp_path, OTHER, {path}) == (set(), [path.name])
    assert sorted(p.name for p in (path.parent / store.ASIDE).iterdir()) == [path.name, "strange-0000.parquet"]


@pytest.mark.parametrize("contents", ["", "nan", "inf", "x" * 100])
def test_a_note_of_the_seconds_that_is_none(path: Path, tmp_path: Path, contents: str) -> None:
    (path.parent / "seconds").write_text(contents)
    assert store.read_seconds(tmp_path) == 0.0
    store.write_seconds(tmp_path, 1.25)
    assert store.read_seconds(tmp_path) == pytest.approx(1.2, abs=0.1)
