"""What is released: the wheel, the guide to a new loss, and what belongs to a project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import lossfit
from forks import Forks

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the source distribution, and the wheel made from it without a compiler."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    pure = {**os.environ, "LOSSFIT_NATIVE": "0"}
    subprocess.run(command, check=True, capture_output=True, timeout=900, env=pure)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> list[str]:
    """The names of the files in the wheel."""
    (path,) = built.glob("*.whl")
    assert path.name == f"lossfit-{lossfit.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as held:
        return held.namelist()


def tracked(*under: str) -> list[str]:
    """The files that git knows."""
    found = subprocess.run(["git", "ls-files", *under], cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        pytest.skip("not a clone")
    return found.stdout.split()


def test_the_source_distribution_is_what_a_clone_has(built: Path) -> None:
    with tarfile.open(built / f"lossfit-{lossfit.__version__}.tar.gz") as held:
        names = {name.partition("/")[2] for name in held.getnames()}
    assert {*tracked()} - names <= {".gitignore"}


def test_the_wheel_has_every_file_of_the_package(wheel: list[str]) -> None:
    for path in tracked("src/lossfit"):
        assert path.removeprefix("src/") in wheel


def test_the_wheel_has_nothing_else(wheel: list[str]) -> None:
    for name in wheel:
        assert re.match(r"lossfit/|lossfit-[\d.]+\.dist-info/", name), name
    assert any(name.endswith("licenses/LICENSE") for name in wheel)


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler")
def test_a_compiler_adds_the_kernels_and_nothing_else(built: Path, wheel: list[str], tmp_path: Path) -> None:
    with tarfile.open(built / f"lossfit-{lossfit.__version__}.tar.gz") as held:
        held.extractall(tmp_path, filter="data")
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        str(tmp_path / f"lossfit-{lossfit.__version__}"),
    ]
    wanted = {**os.environ, "LOSSFIT_NATIVE": "1", "CXXFLAGS": "-O0"}
    subprocess.run(command, check=True, capture_output=True, timeout=900, env=wanted)
    (path,) = tmp_path.rglob("*.whl")
    assert re.search(r"-py3-none-(linux|macosx)_\w+\.whl$", path.name)
    with zipfile.ZipFile(path) as held:
        assert {*held.namelist()} - {*wheel} == {"lossfit/native/kernels.so"}


def test_importing_needs_torch_alone(forks: Forks) -> None:
    script = "import sys, torch; before = {*sys.modules}; import lossfit; print(*({*sys.modules} - before))"
    done = forks.run(script)
    assert "lossfit.gaps.gap" in done.stdout.split()
    assert [name for name in done.stdout.split() if name.split(".")[0] != "lossfit"] == []


def test_the_guide_adds_a_loss_by_its_diff(tmp_path: Path) -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (diff,) = re.findall(r"```diff\n(.*?)```", guide, re.DOTALL)
    assert len(re.findall(r"^\+\+\+ ", diff, re.MULTILINE)) == 2
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["git", "apply", "-p0", "-"], cwd=tmp_path, input=diff, text=True, check=True)
    script = """
import doctest, os, torch, lossfit
assert lossfit.__file__.startswith(os.environ["PYTHONPATH"])
z = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
y = torch.tensor([0, 1, 2, 3, 0])
loss = lossfit.make("taylor_cross_entropy")
assert torch.autograd.gradcheck(lambda z: loss(z, y), z)
assert torch.equal(lossfit.functional.taylor_cross_entropy(z, y), lossfit.TaylorCrossEntropyLoss()(z, y))
miss = 1 - z.softmax(1)[torch.arange(5), y]
torch.testing.assert_close(loss(z, y), (miss + miss**2 / 2).mean())
found = doctest.DocTestFinder().find(lossfit.TaylorCrossEntropyLoss, globs={"lossfit": lossfit, "torch": torch})
results = [doctest.DocTestRunner().run(test) for test in found]
assert any(r.attempted for r in results) and not any(r.failed for r in results)
"""
    run = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    subprocess.run([sys.executable, "-c", script], check=True, env=run, cwd=tmp_path, timeout=900)


def test_the_workflow_runs_what_ci_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    steps = [step.get("run") for job in workflow["jobs"].values() for step in job["steps"]]
    assert ".ci/run" in steps


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == lossfit.__version__
    assert citation["license"] == "Apache-2.0"
    assert f"## {lossfit.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["bug.yml", "loss.yml"])
def test_the_issue_forms_are_whole(name: str) -> None:
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE" / name).read_text(encoding="utf-8"))
    assert form["name"]
    assert form["description"]
    assert all(field["attributes"].get("label") or field["type"] == "markdown" for field in form["body"])
