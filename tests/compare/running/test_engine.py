"""A comparison on disk: what is finished stays, whatever interrupts it, and the numbers do not depend on how it ran."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from lossfit.compare.errors import InputError
from lossfit.compare.outcome import Outcome
from lossfit.compare.plan import RACING, Plan
from lossfit.compare.running import engine
from lossfit.compare.verdict import evidence
from trainings import QUICK

PLAN = Plan("yeast", losses="focal,logit_adjustment", folds=4, trials=4, seed=3)
COMMAND = [sys.executable, "-m", "lossfit", "compare", "yeast", "--losses", "focal,logit_adjustment"]
COMMAND += ["--folds", "4", "--trials", "4", "--seed", "3"]


def numbers(results: pl.DataFrame) -> pl.DataFrame:
    return results.drop("seconds")


def same(found: Outcome, expected: Outcome) -> bool:
    return numbers(found.results).equals(numbers(expected.results)) and found.passes.equals(expected.passes)


def stop_after(share: float) -> Callable[[str, float, int], None]:
    def progress(name: str, done: float, trainings: int) -> None:
        if done > share:
            raise KeyboardInterrupt

    return progress


def parts(out: Path) -> dict[str, int]:
    """Finished tasks and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "parts").glob("*.parquet")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return engine.run(PLAN, tmp_path_factory.mktemp("whole") / "out", limits=QUICK)


def test_a_row_for_each_choice_and_setting_and_for_each_pass(whole: Outcome) -> None:
    results, passes = whole.results, whole.passes
    losses = ["cross_entropy", "focal", "logit_adjustment"]
    assert results["loss"].unique(maintain_order=True).to_list() == losses
    assert results.group_by("loss", "repeat", "fold").len()["len"].unique().to_list() == [4]
    assert set(results["fold"]) == set(range(4))
    assert set(results["repeat"]) == {0, 1}
    assert not results["failed"].any()
    assert (results["seconds"] > 0).all()
    assert results.group_by("loss", "repeat", "fold").agg(pl.col("chosen").sum())["chosen"].unique().to_list() == [1]
    pruned = results.group_by("loss", "repeat", "fold").agg(pl.col("pruned").sum())["pruned"]
    assert pruned.is_in([2, 3]).all()  # two of four, and one of two unless the fold ended before
    assert (results["steps"] == results["curve_steps"].list.last()).all()
    assert not results.filter(pl.col("pruned"))["stopped"].any()
    assert passes.group_by("loss", "repeat").len()["len"].unique().to_list() == [3]
    assert passes["influence_accuracy"].list.len().unique().to_list() == [len(whole.folds.tested)]
    took_part = results.select("loss", "repeat").unique().height
    assert whole.trainings == took_part * 6 * 4


def test_in_the_second_repeat_takes_part_what_may_be_the_best(whole: Outcome) -> None:
    first = whole.passes.filter(pl.col("repeat") == 0)
    chances = evidence.chances(first, whole.folds, whole.data, replace(PLAN, repeats=1))
    assert chances is not None
    expected = {"cross_entropy", *(name for name, chance in chances.items() if chance >= RACING)}
    assert set(whole.passes.filter(pl.col("repeat") == 1)["loss"]) == expected


def test_progress_ends_at_1_and_never_falls(tmp_path: Path) -> None:
    seen: list[tuple[float, int]] = []
    plan = Plan("yeast", losses="focal", folds=3, repeats=1, trials=1)
    engine.run(plan, tmp_path / "out", progress=lambda name, done, count: seen.append((done, count)), limits=QUICK)
    shares = [done for done, _ in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert {count for _, count in seen} == {6}


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_interruption_costs_nothing_that_was_finished(tmp_path: Path, whole: Outcome, workers: int) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        engine.run(PLAN, out, workers=workers, progress=stop_after(0.5), limits=QUICK)
    before = parts(out)
    assert 0 < len(before) < 12
    found = engine.run(PLAN, out, resume=True, workers=workers, limits=QUICK)
    after = parts(out)
    assert {name: after[name] for name in before} == before
    assert same(found, whole)
    assert not [path for path in (out / "parts").iterdir() if path.name.startswith(".")]


def test_resuming_what_is_complete_trains_nothing(tmp_path: Path) -> None:
    plan, out = Plan("yeast", losses="focal", folds=3, repeats=1, trials=1), tmp_path / "out"
    first = engine.run(plan, out, limits=QUICK)
    again = engine.run(plan, out, resume=True, progress=stop_after(-1), limits=QUICK)
    assert same(again, first)
    assert again.seconds >= first.seconds


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_command_goes_on(tmp_path: Path, kind: signal.Signals) -> None:
    out = tmp_path / "out"
    command = [*COMMAND, "--out", str(out), "--workers", "2"]
    running = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    _wait(lambda: out.is_dir() and any((out / "parts").glob("*.parquet")))
    workers = _children(running.pid)
    assert len(workers) >= 2
    if kind == signal.SIGINT:  # Ctrl-C reaches all processes of a terminal
        os.killpg(running.pid, kind)
    else:
        running.send_signal(kind)
    told, errors = running.communicate(timeout=600)
    if kind == signal.SIGINT:
        assert running.returncode == 130, errors
        assert f"Stopped. What is finished is kept in {out}" in " ".join(told.split()).replace("/ ", "/")
    _wait(lambda: not any(_alive(pid) for pid in workers))
    assert 0 < len(parts(out)) < 12
    if kind == signal.SIGKILL:  # test_kill.py goes on
        return
    subprocess.run([*command, "--resume"], check=True, capture_output=True)
    whole = engine.run(PLAN, tmp_path / "whole")
    assert numbers(pl.read_parquet(out / "results.parquet")).equals(numbers(whole.results))
    assert pl.read_parquet(out / "passes.parquet").equals(whole.passes)
    assert json.loads((out / "summary.json").read_text())["trainings"] == whole.trainings


def _wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


class TestFolders:
    """What stands in the way of a comparison's folder."""

    PLAN = Plan("yeast", losses="focal", folds=3, repeats=1, trials=1)

    @pytest.fixture
    def out(self, tmp_path: Path) -> Path:
        engine.run(self.PLAN, tmp_path / "out", limits=QUICK)
        return tmp_path / "out"

    def test_that_is_there(self, out: Path) -> None:
        before = parts(out)
        with pytest.raises(InputError, match=r"exists. Pass --resume to go on with it, or name another"):
            engine.run(self.PLAN, out)
        assert parts(out) == before

    def test_of_another_comparison(self, out: Path) -> None:
        plan = Plan("yeast", losses="focal", folds=3, repeats=1, trials=1, seed=1)
        with pytest.raises(InputError, match=r"holds another comparison: seed is 0, not 1"):
            engine.run(plan, out, resume=True)

    def test_of_other_data(self, tmp_path: Path) -> None:
        path = tmp_path / "data.csv"
        rows = [f"{i % 7},{i % 2}" for i in range(40)]
        path.write_text("\n".join(["x,y", *rows]))
        plan = Plan(str(path), "y", losses="focal", folds=3, repeats=1, trials=1)
        engine.run(plan, tmp_path / "out", limits=QUICK)
        path.write_text("\n".join(["x,y", *rows, "3,1"]))
        with pytest.raises(InputError, match=r"The data has changed since the comparison"):
            engine.run(plan, tmp_path / "out", resume=True)

    def test_that_holds_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("years of work")
        for resume in (False, True):
            with pytest.raises(InputError, match=r"exists and holds something else; name another by --out"):
                engine.run(self.PLAN, tmp_path, resume=resume)
        assert (tmp_path / "thesis.tex").read_text() == "years of work"

    def test_that_is_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("")
        with pytest.raises(InputError, match=r"is a file; name a folder by --out"):
            engine.run(self.PLAN, path)

    def test_that_is_empty(self, tmp_path: Path) -> None:
        assert engine.run(self.PLAN, tmp_path, limits=QUICK).results.height == 6


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"folds": 2}, r"--folds of at least 3, but got 2"),
        ({"repeats": 0}, r"--repeats of at least 1, but got 0"),
        ({"trials": 0}, r"--trials of at least 1, but got 0"),
        ({"seed": -1}, r"--seed of at least 0, but got -1"),
        ({"seed": 1 << 32}, r"--seed below 2\^32, but got 4294967296"),
        ({"label_noise": 1.0}, r"--label-noise in \[0, 1\), but got 1.0"),
        ({"label_noise": -0.1}, r"--label-noise in \[0, 1\), but got -0.1"),
        ({"metric": "acuracy"}, r"`--metric` .* got 'acuracy'. Did you mean 'accuracy'\?"),
        ({"losses": "focal,fokal"}, r"`--losses` .* got 'fokal'. Did you mean 'focal'\?"),
        (
            {"model": "resnet"},
            r"`--model` to be one of 'auto', 'linear', 'mlp', 'cnn', 'package.module:factory', but got",
        ),
    ],
)
def test_a_plan_that_cannot_be_run(tmp_path: Path, settings: dict[str, object], match: str) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=match):
        engine.run(Plan("yeast", **settings), out)
    assert not out.exists()


def _ignores_interruptions(pid: int) -> bool:
    """Whether SIGINT is blocked or ignored in a process; true of one that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (OSError, ProcessLookupError):
        return True
    masks = {line.split(":")[0]: line.split()[1] for line in status if line.startswith(("SigBlk", "SigIgn", "State"))}
    bit = 1 << (signal.SIGINT - 1)
    return masks["State"] == "Z" or any(int(masks[name], 16) & bit for name in ("SigBlk", "SigIgn"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_workers_ignore_interruptions_from_their_first_instruction(tmp_path: Path) -> None:
    more = ["--trials", "1", "--model", "linear"]  # the first part is there soon
    command = [*COMMAND, *more, "--out", str(tmp_path / "out"), "--workers", "2"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    seen: set[int] = set()
    while running.poll() is None and not any((tmp_path / "out" / "parts").glob("*.parquet")):
        # Between fork and exec it is not yet the worker's program, but has its mask.
        children = _children(running.pid)
        assert all(_ignores_interruptions(pid) for pid in children)
        seen.update(children)
        time.sleep(0.001)
    running.send_signal(signal.SIGINT)
    assert running.communicate()[1] == ""
    assert running.returncode == 130
    assert len(seen) >= 3  # two workers, and the process that looks after semaphores
