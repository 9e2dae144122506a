"""benchmarks/gpu.py, tiny and on a CPU, with peers that are right, wrong, too large or not there; and its judge."""

import argparse
import copy
import importlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("triton")
FOLDER = Path(__file__).parents[2] / "benchmarks"
SCRIPT = FOLDER / "gpu.py"

QUACK = """
import torch
def cross_entropy(z, y):
    return 1.2 * torch.nn.functional.cross_entropy(z, y)
"""
LIGER = """
import torch
class Spoiling(torch.autograd.Function):
    '''Puts the gradient where the scores were, as Liger does.'''
    @staticmethod
    def forward(ctx, z, y):
        p = z.detach().float().softmax(1)
        loss = torch.nn.functional.nll_loss(p.log(), y)
        p[torch.arange(len(y)), y] -= 1
        z.data.copy_(p / len(y))
        ctx.save_for_backward(z.detach())
        return loss
    @staticmethod
    def backward(ctx, grad):
        return ctx.saved_tensors[0] * grad, None
class LigerCrossEntropyLoss:
    def __call__(self, z, y):
        return Spoiling.apply(z, y)
class LigerFusedLinearCrossEntropyLoss:
    def __call__(self, weight, x, y):
        return torch.nn.functional.cross_entropy(x.detach() @ weight.T, y)
"""
CCE = """
import torch
def linear_cross_entropy(x, weight, y):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 4 GiB.")
"""


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", SCRIPT, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("gpu")
    peers = folder / "peers"
    peers.mkdir()
    sources = {"quack/cross_entropy.py": QUACK, "liger_kernel/transformers.py": LIGER, "cut_cross_entropy.py": CCE}
    for name, source in sources.items():
        with zipfile.ZipFile(peers / f"{name.split('/')[0].removesuffix('.py')}-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr(name, source)
    done = run("--smoke", "--out", folder / "smoke.json", "--peers", peers)
    return folder / "smoke.json", done


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    """The script and the judge."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("gpu"), importlib.import_module("gpu_parts.judge")


def ours(found: Any) -> list[dict[str, Any]]:
    """All entries of the library's own, wherever they stand."""
    if isinstance(found, list):
        return [entry for item in found for entry in ours(item)]
    if not isinstance(found, dict):
        return []
    own = [entry for name, entry in found.get("contenders", {}).items() if name.startswith("lossfit")]
    return own + [entry for key, value in found.items() if key != "contenders" for entry in ours(value)]


def test_every_part_runs(smoke: tuple[Path, Any]) -> None:
    path, done = smoke
    assert done.returncode == 2, done.stderr
    found = json.loads(path.read_text())
    assert found["smoke"]
    assert found["complete"]
    assert found["hardware"]["packages"]["torch"]
    assert {name: part["status"] for name, part in found["parts"].items()} == dict.fromkeys(
        ("ceilings", "dense", "linear", "links", "exact", "language_model", "classes", "rows"), "ok"
    )
    dense = found["parts"]["dense"]["contenders"]
    for name in ("lossfit", "plain", "torch.compile", "lossfit, compiled"):
        assert dense[name]["status"] == "ok", dense[name]
        assert len(dense[name]["ms"]) == 2
        assert 0 < dense[name]["low_ms"] <= dense[name]["median_ms"] <= dense[name]["high_ms"]
        assert max(dense[name]["errors"].values()) < 0.02
    assert not [entry for entry in ours(found["parts"]) if entry["status"] != "ok"]
    assert set(found["parts"]["links"]["linear"]["contenders"]) == {"cross_entropy", "focal", "hinge", "sensitivity"}
    assert len(found["parts"]["language_model"]["contenders"]["lossfit"]["loss"]) == 8


def test_peers_are_checked_before_they_are_timed(smoke: tuple[Path, Any]) -> None:
    parts = json.loads(smoke[0].read_text())["parts"]
    dense, linear = parts["dense"]["contenders"], parts["linear"]["by_spread"][0]["contenders"]
    assert dense["liger"]["status"] == "ok", dense["liger"]
    assert dense["quack"]["status"] == "wrong"
    assert "loss off by" in dense["quack"]["why"]
    assert linear["liger"]["status"] == "failed"
    assert "gradient is missing" in linear["liger"]["why"]
    assert linear["cce"]["status"] == "out of memory"
    assert not any("ms" in entry for entry in (dense["quack"], linear["liger"], linear["cce"]))
    # What comes after the one that writes into the scores still finds them.
    assert dense["torch.compile"]["errors_at_full_size"]["loss"] < 0.01


def called(monkeypatch: pytest.MonkeyPatch, gpu: ModuleType, *arguments: object) -> int:
    """The script's status, without a process of its own."""
    monkeypatch.setattr(sys, "argv", ["gpu.py", *map(str, arguments)])
    status: int = gpu.main()
    return status


def test_a_smoke_run_is_no_evidence(
    smoke: tuple[Path, Any],
    modules: tuple[ModuleType, ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, done = smoke
    assert called(monkeypatch, modules[0], "--judge", path) == 2
    for text in (done.stdout, capsys.readouterr().out):
        assert "SMOKE RUN on a CPU" in text
        assert "no evidence" in text
        assert "pass" not in text
        assert "MISS" not in text


def test_pictures(
    smoke: tuple[Path, Any], modules: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vl_convert")
    assert called(monkeypatch, modules[0], "--plot", smoke[0]) == 0
    for name in ("times", "sweeps", "training"):
        assert "no evidence" in smoke[0].with_name(f"smoke-{name}.svg").read_text()


def ok(*ms: float, **more: Any) -> dict[str, Any]:
    return {"status": "ok", "ms": list(ms), "median_ms": sorted(ms)[len(ms) // 2], "extra_mib": 500.0, **more}


@pytest.fixture
def met(modules: tuple[ModuleType, ModuleType]) -> dict[str, Any]:
    """Made-up results of a run that meets every target, with the library at 10 ms."""
    sizes = json.loads(json.dumps(importlib.import_module("gpu_parts.sizes").FULL))
    rows, classes = sizes["dense"]
    others = {name: ok(11, 12, 13) for name in ("torch.compile", "liger", "quack", "cce", "torch")}
    every = {"lossfit": ok(10, 10, 10), "three products": ok(9, 9, 9), **others}
    gb = 3 * rows * classes * 2 / 10e6
    curve = [10 - 0.02 * step for step in range(300)]
    trained = {"loss": curve, "peak_mib": 900.0}
    parts = {
        "ceilings": {"status": "ok", "copy": {"gb_per_s": {"median": gb / 0.9}}},
        "dense": {"status": "ok", "shape": [rows, classes], "dtype": "bfloat16", "contenders": every},
        "linear": {"status": "ok", "by_spread": [{"spread": s, "contenders": every} for s in (2.0, 5.0)]},
        "links": {
            "status": "ok",
            **{key: {"contenders": {"cross_entropy": ok(10), "focal": ok(10.2)}} for key in ("dense", "linear")},
        },
        "exact": {"status": "ok", "by_shape": [{"nodes": 32, "contenders": every} for _ in sizes["exact"]]},
        "language_model": {
            "status": "ok",
            "contenders": {
                "lossfit": ok(10, **trained),
                "plain": ok(12, **trained | {"peak_mib": 5000.0}),
            },
        },
    }
    for name in ("classes", "rows"):
        runs = [{"contenders": every} for _ in sizes[name]]
        parts[name] = {"status": "ok", "dense": runs, "linear": runs}
    # Nothing is shared, so that a test may change one number.
    return json.loads(json.dumps({"schema": 1, "smoke": False, "sizes": sizes, "parts": parts}))


def verdicts(judge: ModuleType, found: dict[str, Any]) -> dict[str, str]:
    return {v.target: v.result for v in judge.judged(found)}


def test_all_targets_met(modules: tuple[ModuleType, ModuleType], met: dict[str, Any]) -> None:
    assert set(verdicts(modules[1], met).values()) == {"pass"}
    assert modules[1].report(met) == 0


CHANGES = [
    ("at least 85%", "MISS", ("ceilings", "copy", "gb_per_s", "median"), 1e6),
    ("at least 85%", "MISS", ("dense", "contenders", "lossfit", "status"), "wrong"),
    ("dense: ahead of quack", "MISS", ("dense", "contenders", "quack", "ms"), [9.9, 9.9, 9.9]),
    ("dense: ahead of quack", "not run", ("dense", "contenders", "quack", "status"), "absent"),
    ("dense: ahead of liger", "MISS", ("dense", "contenders", "lossfit", "status"), "out of memory"),
    ("three products", "MISS", ("linear", "by_spread", 1, "contenders", "three products", "ms"), [8.6, 8.6, 8.6]),
    ("under 1024 MiB", "MISS", ("linear", "by_spread", 0, "contenders", "lossfit", "extra_mib"), 1024.0),
    ("linear: ahead of cce", "MISS", ("linear", "by_spread", 1, "contenders", "cce", "ms"), [5, 5, 20]),
    ("linear: ahead of torch.compile", "not run", ("linear", "by_spread"), []),
    ("links, linear", "MISS", ("links", "linear", "contenders", "focal", "ms"), [10.4]),
    ("links, dense", "MISS", ("links", "dense", "contenders", "focal", "status"), "failed"),
    ("C = 32,000", "not run", ("exact", "by_shape", 1, "contenders"), {}),
    ("sweep of rows", "not run", ("rows", "linear", 3, "contenders"), {}),
    (
        "same loss curve",
        "MISS",
        ("language_model", "contenders", "lossfit", "loss"),
        [10 - 0.022 * i for i in range(300)],
    ),
    ("same loss curve", "MISS", ("language_model", "contenders", "plain", "loss"), [10.0] * 300),
    ("same loss curve", "not run", ("language_model", "contenders", "plain", "loss"), [9.0] * 100),
    ("step time", "MISS", ("language_model", "contenders", "lossfit", "median_ms"), 12.5),
    ("peak memory", "not run", ("language_model", "contenders", "lossfit", "peak_mib"), None),
]


@pytest.mark.parametrize(("target", "result", "place", "value"), CHANGES)
def test_a_target(
    target: str,
    result: str,
    place: tuple[Any, ...],
    value: Any,
    modules: tuple[ModuleType, ModuleType],
    met: dict[str, Any],
) -> None:
    changed = copy.deepcopy(met)
    inside = changed["parts"]
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    found = verdicts(modules[1], changed)
    name = next(name for name in found if target in name)
    assert found[name] == result
    assert modules[1].report(changed) == (1 if "MISS" in found.values() else 3)


def test_other_sizes_are_not_judged(modules: tuple[ModuleType, ModuleType], met: dict[str, Any]) -> None:
    met["sizes"]["dense"] = [8, 128]
    assert modules[1].report(met) == 2
    assert modules[1].report({"schema": 0}) == 2


def test_a_file_that_is_none_is_refused(
    modules: tuple[ModuleType, ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "bad.json").write_text("{")
    for name in ("bad.json", "absent.json"):
        with pytest.raises(SystemExit):
            called(monkeypatch, modules[0], "--judge", tmp_path / name)
        assert "Expected a file of results" in capsys.readouterr().err


def test_a_part_that_crashes_is_run_again_without_the_one_that_was_at_work(
    modules: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpu, seen = modules[0], []

    def ran(_: Any, parts: list[str], seconds: float, without: list[str], peers: Any, out: Path) -> str | int:
        seen.append((parts[0], list(without)))
        crashes = parts == ["dense"] and "liger" not in without
        entry = {"liger": {"status": "running"}} if crashes else {"plain": {"status": "ok"}}
        part = {"status": "running" if crashes else "ok", "contenders": entry}
        late = parts == ["linear"]
        if not late:
            out.write_text(json.dumps({"hardware": {"device": "?"}, "parts": {parts[0]: part}}))
        return "status -11" if crashes else "too slow" if late else 0

    monkeypatch.setattr(gpu, "run", ran)
    options = argparse.Namespace(
        smoke=False, budget=400.0, peers=None, parts=["dense", "linear", "rows"], out=tmp_path / "gpu.json"
    )
    found = gpu.measure(options, tmp_path)
    assert seen == [("dense", []), ("dense", ["liger"]), ("linear", []), ("rows", [])]
    assert {name: part["status"] for name, part in found["parts"].items()} == {
        "dense": "ok",
        "linear": "stopped",
        "rows": "ok",
    }
    assert json.loads(options.out.read_text()) == json.loads(json.dumps(found))


def test_where_contenders_are_slow_what_there_is_time_for_counts(modules: tuple[ModuleType, ModuleType]) -> None:
    contest, problems = (importlib.import_module(f"gpu_parts.{name}") for name in ("contest", "problems"))
    device = importlib.import_module("gpu_parts.device").Device(smoke=True)
    part = contest.Part(device, 0.0, lambda found: None, set())
    runs, entries = {"plain": lambda problem: None}, {"plain": {"status": "ok"}}
    times = contest._rounds(part, runs, entries, problems.dense(device, (1, 2)), (7, 40), 60.0)
    assert len(times["plain"]) == 1


def test_what_is_measured_lies_beside_the_script(
    modules: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A machine to measure on may have PyTorch and Triton alone, or another version of the library."""
    gpu, seen = modules[0], {}

    class Done:
        def __init__(self, command: list[str], env: dict[str, str], **_: Any) -> None:
            seen.update(env)

        def wait(self, timeout: float) -> int:
            return 0

    monkeypatch.setattr(gpu.subprocess, "Popen", Done)
    monkeypatch.setenv("PYTHONPATH", "further")
    options = argparse.Namespace(smoke=False, profile=None)
    assert gpu.run(options, ["dense"], 60.0, [], None, tmp_path / "part.json") == 0
    assert seen["PYTHONPATH"].split(os.pathsep) == [str(FOLDER.parent / "src"), "further"]


def test_a_contender_that_breaks_the_device_ends_its_process(
    modules: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    contest = importlib.import_module("gpu_parts.contest")
    device = importlib.import_module("gpu_parts.device").Device(smoke=True)
    written: list[dict[str, Any]] = []
    part = contest.Part(device, 60.0, lambda found: written.append(copy.deepcopy(found)), set())
    part.found["contenders"] = {"liger": {"status": "ok"}, "plain": {"status": "ok"}}

    def ended(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(contest.os, "_exit", ended)
    contest.tell(part, part.found["contenders"]["plain"], RuntimeError("a value was bad\nand more"))
    assert part.found["contenders"]["plain"] == {"status": "failed", "why": "RuntimeError: a value was bad"}
    monkeypatch.setattr(device, "broken", lambda: True)
    with pytest.raises(SystemExit):
        contest.tell(part, part.found["contenders"]["liger"], RuntimeError("CUDA error: an illegal memory access"))
    assert modules[0].running(written[-1]) == ["liger"]


def test_without_a_gpu_nothing_is_measured(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = run("--parts", "ceilings", "--out", tmp_path / "gpu.json")
    assert done.returncode == 2
    assert "needs a CUDA device" in done.stderr
    assert not (tmp_path / "gpu.json").exists()
