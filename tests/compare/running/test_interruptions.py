"""What may happen to a comparison while it runs and between runs: in processes of their own, on real files."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from command import refused, run
from trainings import short_trainings

COMMAND = [
    sys.executable,
    "-m",
    "lossfit",
    "compare",
    "t.csv",
    "--target",
    "y",
    "--losses",
    "focal,poly",
    "--out",
    "out",
]
COMMAND += ["--folds", "3", "--repeats", "1", "--trials", "2", "--model", "linear"]
OPTIONS = COMMAND[4:]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    frame = pl.DataFrame({"x": rng.normal(size=80) + y, "z": rng.normal(size=80), "y": y})
    frame.write_csv(tmp_path / "t.csv")
    monkeypatch.chdir(tmp_path)
    with short_trainings():
        yield tmp_path


def numbers() -> pl.DataFrame:
    return pl.read_parquet("out/results.parquet").drop("seconds")


def leftovers() -> list[Path]:
    return [path for path in Path("out").rglob(".*") if path.is_file()]


def test_damaged_files_are_found_and_made_again(here: Path) -> None:
    assert run("compare", *OPTIONS, "--workers", 1).exit_code == 0
    whole = numbers()
    parts = sorted(Path("out/parts").glob("*.parquet"))
    assert len(parts) == 6
    parts[0].write_bytes(parts[0].read_bytes()[:-100])
    parts[3].write_bytes(parts[5].read_bytes())
    kept = parts[5].stat().st_mtime_ns
    Path("out/parts/seconds").write_text("")
    Path("out/parts/.focal-0-passes.parquet.4000000.partial").write_text("half")
    found = run("compare", *OPTIONS, "--workers", 1, "--resume")
    assert found.exit_code == 0, found.output
    damaged = [parts[0].name, parts[3].name]
    names = ", ".join(map(repr, damaged))
    told = f"Set aside in out/parts/set-aside, since they are damaged or of another comparison: {names}."
    assert told in found.stdout
    assert sorted(p.name for p in Path("out/parts/set-aside").iterdir()) == damaged
    assert parts[5].stat().st_mtime_ns == kept
    assert numbers().equals(whole)
    assert not leftovers()
    again = run("compare", *OPTIONS, "--workers", 1, "--resume")
    assert "Set aside" not in again.stdout
    Path("out/plan.json").write_text("{")
    assert "'out/plan.json' cannot be read as JSON" in refused("compare", *OPTIONS, "--resume")


def test_data_that_has_changed_is_not_gone_on_with(here: Path) -> None:
    assert run("compare", *OPTIONS, "--workers", 1).exit_code == 0
    before = numbers()
    Path("t.csv").write_text(Path("t.csv").read_text() + "0.5,0.5,1\n")
    told = refused("compare", *OPTIONS, "--resume")
    assert "The data has changed since the comparison in 'out' was begun" in told
    assert numbers().equals(before)


@pytest.mark.slow
def test_a_full_disk_is_told_in_a_line_and_loses_nothing(here: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000))

    found = subprocess.run(
        [*COMMAND, "--workers", "2"], capture_output=True, text=True, check=False, preexec_fn=limited
    )
    assert found.returncode == 2, found.stderr
    (line,) = found.stderr.strip().splitlines()
    assert "The file 'out/parts/" in line
    assert "cannot be written: File too large. What" in line
    assert line.endswith("What is finished is kept; the same command with --resume goes on.")
    assert not leftovers()
    assert run("compare", *OPTIONS, "--workers", 1, "--resume").exit_code == 0
    assert json.loads(Path("out/summary.json").read_text())["trainings"] == 18


def test_a_part_of_other_data_is_trained_again(here: Path) -> None:
    """The same losses and splits, and another file of the same name."""
    assert run("compare", *OPTIONS, "--workers", 1).exit_code == 0
    other = Path("other")
    other.mkdir()
    pl.read_csv("t.csv").with_columns(pl.col("x") + 1).write_csv("other/t.csv")
    found = run("compare", "other/t.csv", *OPTIONS[1:-6], "--out", "o2", *OPTIONS[-6:], "--workers", 1)
    assert found.exit_code == 0, found.output
    whole = numbers()
    names = sorted(path.name for path in Path("out/parts").glob("*.parquet"))
    for name in names[:2]:
        shutil.copy(f"o2/parts/{name}", f"out/parts/{name}")
    Path("out/parts/strange-0000.parquet").write_bytes(Path("o2/parts", names[0]).read_bytes())
    found = run("compare", *OPTIONS, "--workers", 1, "--resume")
    assert found.exit_code == 0, found.output
    for name in (*names[:2], "strange-0000.parquet"):
        assert repr(name) in found.stdout
    assert numbers().equals(whole)


def test_parts_behind_a_link_are_not_touched(here: Path) -> None:
    assert run("compare", *OPTIONS, "--workers", 1).exit_code == 0
    Path("out/parts").rename("elsewhere")
    Path("elsewhere/.mine").write_text("")
    Path("elsewhere/mine.parquet").write_text("")
    Path("out/parts").symlink_to(here / "elsewhere")
    before = sorted(path.name for path in Path("elsewhere").iterdir())
    assert "'out/parts' is a link" in refused("compare", *OPTIONS, "--workers", 1, "--resume")
    assert sorted(path.name for path in Path("elsewhere").iterdir()) == before


@pytest.mark.slow
def test_control_c_twice_ends_at_once_without_a_word(here: Path) -> None:
    more = ["--workers", "2", "--folds", "6", "--repeats", "4"]
    command = [*COMMAND, *more]
    running = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    _wait(lambda: any(Path("out/parts").glob("*.parquet")))
    workers = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    before = {path: path.stat().st_mtime_ns for path in Path("out/parts").glob("*.parquet")}
    for _ in range(2):
        os.killpg(running.pid, signal.SIGINT)
        time.sleep(0.005)
    _, errors = running.communicate(timeout=600)
    assert running.returncode == 130
    assert errors == ""
    _wait(lambda: not any(_alive(pid) for pid in workers))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert run("compare", *OPTIONS, *more, "--workers", 1, "--resume").exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not leftovers()


def _wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def _alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
