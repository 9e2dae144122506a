"""Comparisons on a Ray cluster of two nodes: the numbers are those of one process, whatever is lost on the way."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import command
import trainings
from lossfit.compare.errors import InputError
from lossfit.compare.outcome import Outcome
from lossfit.compare.plan import Plan
from lossfit.compare.running import cluster, engine
from lossfit.compare.running.job import Job, Part
from lossfit.compare.training.models import Architecture
from lossfit.compare.training.task import Limits
from lossfit.compare.verdict.summary import summarise

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

LONG = Limits(steps=2500)
"""So that a task takes seconds, and one is under way on the node that dies."""
PLAN = Plan("yeast", losses="focal,logit_adjustment", folds=4, trials=4, seed=3)
NODE = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 << 20}


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        started = Cluster(initialize_head=True, head_node_args=NODE)
        yield started
        started.shutdown()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return engine.run(PLAN, tmp_path_factory.mktemp("whole") / "out", limits=LONG)


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in ("seconds", "seconds_per_training")}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def numbers(results: pl.DataFrame) -> pl.DataFrame:
    return results.drop("seconds")


def parts(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "parts").glob("*.parquet")}


def test_a_node_that_dies_half_way(tmp_path: Path, nodes: Any, whole: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    node, sent, seen = nodes.add_node(**NODE), [], []
    send: Callable[..., None] = cluster._Run._send
    monkeypatch.setattr(cluster._Run, "_send", lambda run, one: (sent.append(one), send(run, one))[1])

    def progress(name: str, done: float, trainings: int) -> None:
        seen.append(done)
        if done >= 0.1 and node in nodes.list_all_nodes():
            nodes.remove_node(node, allow_graceful=False)

    found = engine.run(PLAN, tmp_path / "out", engine="ray", ray_address=nodes.address, progress=progress, limits=LONG)
    assert any(one.lost for one in sent)
    assert len(sent) > len({one.index for one in sent})
    assert numbers(found.results).equals(numbers(whole.results))
    assert found.passes.equals(whole.passes)
    assert without_times(summarise(found)) == without_times(summarise(whole))
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_an_interruption_keeps_what_is_finished(tmp_path: Path, nodes: Any, whole: Outcome) -> None:
    out = tmp_path / "out"

    def progress(name: str, done: float, trainings: int) -> None:
        if parts(out):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.run(PLAN, out, engine="ray", ray_address=nodes.address, workers=1, progress=progress, limits=LONG)
    before = parts(out)
    assert 0 < len(before) < 12
    found = engine.run(PLAN, out, resume=True, limits=LONG)  # here, as no number depends on where
    assert {name: parts(out)[name] for name in before} == before
    assert numbers(found.results).equals(numbers(whole.results))
    assert found.passes.equals(whole.passes)


def run_one(tmp_path: Path, nodes: Any, **changes: Any) -> None:
    kept: list[Job] = []
    job = Job(trainings.changed(trainings.task(), **changes), Part("cross_entropy", 0))
    try:
        cluster.run_jobs(iter([job]), 1, None, lambda job, _: kept.append(job), lambda *_: None, nodes.address)
    finally:
        assert not kept


def test_a_training_that_fails_is_not_tried_again(tmp_path: Path, nodes: Any) -> None:
    with pytest.raises(InputError, match=r"^Training cross_entropy failed. KeyError: 'no metric'$"):
        run_one(tmp_path, nodes, metrics=("no metric",))


def test_a_training_that_ends_its_worker_is_given_up(
    tmp_path: Path, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "TRIES", 2)
    (tmp_path / "deadly.py").write_text("import os\n\ndef make(features, classes):\n    os._exit(1)\n")
    with pytest.raises(InputError, match=r"^Training cross_entropy was begun 2 times, and its worker was lost."):
        run_one(tmp_path, nodes, model=Architecture("deadly:make", 5, 3, folder=str(tmp_path)))


def test_a_machine_with_another_version(tmp_path: Path, nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_versions", lambda: ("0.0.1", "1.13.0"))
    with pytest.raises(InputError, match=r"but the command runs with lossfit 0.0.1 and PyTorch 1.13.0"):
        run_one(tmp_path, nodes)


class TestAddresses:
    """Nothing is begun at an address where there is no cluster."""

    def refused(self, tmp_path: Path, *arguments: str) -> str:
        told = command.refused("compare", "yeast", "--out", tmp_path / "out", *arguments)
        assert not (tmp_path / "out").exists()
        return told

    def test_with_nobody_there(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        told = self.refused(tmp_path, "--engine", "ray", "--ray-address", f"127.0.0.1:{port}")
        assert f"--ray-address 127.0.0.1:{port}: no cluster answers there" in told
        assert "Start one by `ray start --head`" in told

    def test_with_something_else_there(self, tmp_path: Path) -> None:
        """Ray itself gives up then."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
            options = ("--losses", "focal", "--engine", "ray", "--ray-address", address)
            told = command.refused("compare", "yeast", "--out", tmp_path / "out", *options)
        assert f"--ray-address {address}: no cluster (" in told

    @pytest.mark.parametrize("address", ["host", "host:port", "ray://host:10001", ":6379", "host:65536"])
    def test_that_are_none(self, tmp_path: Path, address: str) -> None:
        told = self.refused(tmp_path, "--engine", "ray", "--ray-address", address)
        assert f"Expected --ray-address as HOST:PORT, or auto, but got '{address}'." in told

    def test_without_the_engine(self, tmp_path: Path) -> None:
        assert "--ray-address needs --engine ray." in self.refused(tmp_path, "--ray-address", "host:1")


def test_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = command.refused("compare", "yeast", "--engine", "rya")
    assert "`--engine` to be one of 'local', 'ray', but got 'rya'. Did you mean 'ray'?" in told
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    told = command.refused("compare", "yeast", "--engine", "ray", "--out", tmp_path / "out")
    assert "--engine ray needs an extra: pip install 'lossfit[ray]'." in told
    assert not (tmp_path / "out").exists()
