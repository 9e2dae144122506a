"""A file of numbers is taken for what it says only if it is whole and of this comparison."""

import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lossfit.compare.errors import InputError
from lossfit.compare.running import store
from lossfit.compare.running.job import Part
from lossfit.compare.training.records import Records

RUN, OTHER = "a1" * 32, "b2" * 32
SETTINGS = [
    {"loss": "focal", "repeat": 0, "fold": k, "trial": t, "params": {"gamma": 2.0}, "validation": k / 7 + t, "step": []}
    for k in range(3)
    for t in range(4)
]
PASSES = [
    {"loss": "focal", "repeat": 0, "pass": j, "influence_accuracy": np.linspace(-1, 1, 50, dtype=np.float32)}
    for j in range(2)
]
PART = Part("focal", 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = store.part(tmp_path, PART, "settings")
    found.parent.mkdir()
    store.write_part(tmp_path, RUN, PART, Records(SETTINGS, PASSES), 0.5)
    return found


def test_what_is_written_is_read(path: Path) -> None:
    found = store.read_sealed(path, RUN)
    assert found["validation"].to_list() == [r["validation"] for r in SETTINGS]
    assert pl.read_parquet(path).equals(found)  # by anyone


def test_arrays_keep_their_precision(path: Path, tmp_path: Path) -> None:
    _, passes = store.read_parts(tmp_path, RUN, [PART], ["focal"])
    assert passes["influence_accuracy"].dtype == pl.List(pl.Float32)
    assert passes["influence_accuracy"].to_list() == [PASSES[0]["influence_accuracy"].tolist()] * 2


def test_a_task_in_which_all_failed(path: Path, tmp_path: Path) -> None:
    other = Part("poly", 0)
    store.write_part(tmp_path, RUN, other, Records([{**r, "loss": "poly"} for r in SETTINGS], []), 0.5)
    settings, passes = store.read_parts(tmp_path, RUN, [other, PART], ["focal", "poly"])
    assert settings["loss"].unique(maintain_order=True).to_list() == ["focal", "poly"]
    assert passes["loss"].unique().to_list() == ["focal"]
    assert store.read_parts(tmp_path, RUN, [other], ["poly"])[1].is_empty()


def test_any_single_bit(path: Path) -> None:
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(300):
        at = rng.randrange(8 * len(whole))
        changed = bytearray(whole)
        changed[at // 8] ^= 1 << at % 8
        path.write_bytes(changed)
        with pytest.raises(InputError, match=r"focal-0-settings\.parquet' is "):
            store.read_sealed(path, RUN)


@pytest.mark.parametrize("length", [0, 1, 100, -1, -8])
def test_cut_off(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match="is damaged"):
        store.read_sealed(path, RUN)


def test_of_another_comparison_or_name(path: Path) -> None:
    with pytest.raises(InputError, match="is of another comparison, or had another name"):
        store.read_sealed(path, OTHER)
    path.rename(path.with_name("poly-0-settings.parquet"))
    with pytest.raises(InputError, match="is of another comparison, or had another name"):
        store.read_sealed(path.with_name("poly-0-settings.parquet"), RUN)


def test_a_link_to_a_sound_one(path: Path, tmp_path: Path) -> None:
    path.rename(tmp_path / path.name)
    path.symlink_to(tmp_path / path.name)
    passes = store.part(tmp_path, PART, "passes")
    whole, aside = store.set_aside(tmp_path, RUN, {path, passes})
    assert (whole, aside) == ({passes}, [path.name])
    assert (tmp_path / path.name).is_file()


def test_what_is_not_expected_is_moved(path: Path, tmp_path: Path) -> None:
    strange = path.with_name("strange-0-settings.parquet")
    strange.write_bytes(path.read_bytes())
    passes = store.part(tmp_path, PART, "passes")
    whole, aside = store.set_aside(tmp_path, RUN, {path, passes, store.part(tmp_path, Part("poly", 0), "passes")})
    assert whole == {path, passes}
    assert aside == [strange.name]
    assert store.set_aside(tmp_path, OTHER, {path}) == (set(), [passes.name, path.name])
    assert sorted(p.name for p in (path.parent / store.ASIDE).iterdir()) == [passes.name, path.name, strange.name]


@pytest.mark.parametrize("contents", ["", "nan", "inf", "x" * 100])
def test_a_note_of_the_seconds_that_is_none(path: Path, tmp_path: Path, contents: str) -> None:
    (path.parent / "seconds").write_text(contents)
    assert store.read_seconds(tmp_path) == 0.0
    store.write_seconds(tmp_path, 1.25)
    assert store.read_seconds(tmp_path) == pytest.approx(1.2, abs=0.1)
