"""A comparison that is killed at random moments. scripts/kill_test.py does it 20 times, by the command."""

import multiprocessing
import random
import time
from pathlib import Path

import polars as pl
import pytest

from lossfit.compare.outcome import Outcome
from lossfit.compare.plan import Plan
from lossfit.compare.running import engine
from lossfit.compare.verdict.summary import summarise

PLAN = Plan("yeast", losses="focal,poly,squared,hinge", folds=3, repeats=1, trials=1)
TIMES = ("seconds", "seconds_per_training")


def summary(outcome: Outcome) -> dict[str, object]:
    found = {k: v for k, v in summarise(outcome).items() if k not in TIMES}
    found["losses"] = [{k: v for k, v in entry.items() if k not in TIMES} for entry in found["losses"]]
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, float]:
    start = time.perf_counter()
    outcome = engine.run(PLAN, tmp_path_factory.mktemp("whole") / "out")
    return outcome, time.perf_counter() - start


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(3))
def test_killed_at_a_random_moment(tmp_path: Path, whole: tuple[Outcome, float], moment: int) -> None:
    out = tmp_path / "out"
    context = multiprocessing.get_context("forkserver")  # its children need not import PyTorch again
    context.set_forkserver_preload(["lossfit.compare.running.engine"])
    running = context.Process(target=engine.run, args=(PLAN, out))
    running.start()
    end = time.monotonic() + 600
    while not (out / "plan.json").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    running.join(random.Random(moment).uniform(0, whole[1]))
    running.kill()
    running.join()
    kept = {path: path.stat().st_mtime_ns for path in (out / "parts").glob("*.parquet")}
    assert all(pl.read_parquet(path).height == (3 if "settings" in path.name else 2) for path in kept)
    found = engine.run(PLAN, out, resume=True)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert found.results.drop("seconds").equals(whole[0].results.drop("seconds"))
    assert found.passes.equals(whole[0].passes)
    assert summary(found) == summary(whole[0])
