"""A folder from someone else chooses neither code nor paths: each attack is a folder that worked or crashed once."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from command import refused, run
from lossfit.compare import load_model
from lossfit.compare.errors import InputError
from lossfit.compare.export import final

NETWORK = """
import pathlib
pathlib.Path("ran").write_text("")
from torch import nn

def make(features, classes):
    return nn.Sequential(nn.Linear(features, classes))
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of a network that is someone's own, and its model."""
    folder = tmp_path_factory.mktemp("original")
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    pl.DataFrame({"x": rng.normal(size=60) + y, "z": rng.normal(size=60), "y": y}).write_csv(folder / "t.csv")
    (folder / "own_network.py").write_text(NETWORK)
    before = Path.cwd()
    os.chdir(folder)
    try:
        quick = ("--losses", "focal", "--folds", 3, "--repeats", 1, "--trials", 1, "--workers", 1)
        found = run("compare", "t.csv", "--target", "y", *quick, "--model", "own_network:make", "--out", "out")
        assert found.exit_code == 0, found.output
        assert "lossfit export out --model own_network:make" in found.stdout
        found = run("export", "out", "--model", "own_network:make")
        assert found.exit_code == 0, found.output
        assert "lossfit predict out new.csv --model own_network:make" in found.stdout
        (folder / "ran").unlink()
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(original, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    contents = json.loads(path.read_text())
    change(contents)
    path.write_text(json.dumps(contents))


def test_a_network_of_ones_own_runs_when_it_is_named(here: Path) -> None:
    for command in (("predict", "out", "t.csv"), ("export", "out")):
        told = refused(*command)
        assert "A file does not choose what code runs" in told
        assert "--model own_network:make" in told
    with pytest.raises(InputError, match="architecture='own_network:make'"):
        load_model("out")
    with pytest.raises(InputError, match="--model own_network:make"):
        final.export(Path("out"))
    assert run("predict", "out", "t.csv", "--model", "own_network:make").exit_code == 0
    assert run("export", "out", "--model", "own_network:make", "--out", "again").exit_code == 0
    expected = load_model("out", architecture="own_network:make").predict("t.csv")
    assert pl.read_csv("predictions.csv")["class"].cast(pl.String).equals(expected["class"])


@pytest.mark.parametrize("kind", ["os:abort", "http.server:test", "ran_away:make", "own_network:make"])
def test_no_file_chooses_code(here: Path, kind: str) -> None:
    Path("out/ran_away.py").write_text("open('ran', 'w')")
    Path("ran_away.py").write_text("open('ran', 'w')")
    for name in ("out/model/model.json", "out/summary.json"):
        edit(Path(name), lambda c: c["architecture"].update(kind=kind, folder=str(here / "out")))
    edit(Path("out/plan.json"), lambda c: c.update(model=kind))
    for command in (("predict", "out", "t.csv"), ("export", "out"), ("diff", "out", "out"), ("serve", "out")):
        if command[0] in ("predict", "export"):
            assert "code runs" in refused(*command)
    assert run("diff", "out", "out").exit_code == 0
    assert not Path("ran").exists()


def test_a_factory_that_does_not_fit_is_told(here: Path) -> None:
    Path("wrong.py").write_text("from torch import nn\ndef make(features, classes): return nn.Linear(3, 3)\n")
    assert "Expected the weights" in refused("predict", "out", "t.csv", "--model", "wrong:make")
    assert "there is no module 'none'" in refused("predict", "out", "t.csv", "--model", "none:make")
    edit(Path("out/model/model.json"), lambda c: c["architecture"].update(kind="linear"))
    edit(Path("out/summary.json"), lambda c: c["architecture"].update(kind="linear"))
    assert "leave out --model" in refused("predict", "out", "t.csv", "--model", "own_network:make")
    assert "leave out --model" in refused("export", "out", "--model", "own_network:make")


def test_no_file_chooses_an_embedding_model(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lossfit.compare.features import make

    monkeypatch.setattr(make, "embed", lambda *a: pytest.fail("an embedding model was loaded"))
    edit(Path("out/model/model.json"), lambda c: c["reading"].update(reader="sentence", embedding="./evil", text=["y"]))
    told = refused("predict", "out", "t.csv", "--model", "own_network:make")
    assert "the embedding model './evil', which may bring code of its own" in told
    edit(Path("out/plan.json"), lambda c: c.update(embedding="./evil", text_features="sentence"))
    assert "--embedding ./evil" in refused("export", "out", "--model", "own_network:make")


@pytest.mark.parametrize("source", ["/etc/hostname.csv", "../t.csv", "a/../../t.csv", "~/../../t.csv"])
def test_no_file_chooses_a_path(here: Path, source: str) -> None:
    edit(Path("out/plan.json"), lambda c: c.update(source=source))
    told = refused("export", "out", "--model", "own_network:make")
    assert "outside of the current folder. A file does not choose what is read: name it by --source" in told


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_links_of_a_model_are_refused_by_name(here: Path, name: str) -> None:
    path = Path("out/model") / name
    path.rename("elsewhere")
    path.symlink_to(here / "elsewhere")
    assert f"{str(path)!r} is a link" in refused("predict", "out", "t.csv", "--model", "own_network:make")
    path.unlink()
    Path("elsewhere").rename(path)
    Path("out/model").rename("moved")
    Path("out/model").symlink_to(here / "moved")
    for command in (("predict", "out", "t.csv"), ("export", "out")):
        assert "'out/model' is a link" in refused(*command, "--model", "own_network:make")


def test_pipes_and_great_files_are_told(here: Path) -> None:
    path = Path("out/model/model.json")
    path.unlink()
    os.mkfifo(path)
    assert "holds no model.json" in refused("predict", "out/model", "t.csv")
    path.unlink()
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert "to have at most 64 MiB" in refused("predict", "out", "t.csv")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["architecture"].update(kind="mlp", hidden=1 << 40), "Expected 'hidden' to be a number"),
        (lambda c: c["architecture"].update(kind="mlp", hidden=1 << 30), "Expected the weights"),
        (lambda c: c["architecture"].update(kind="linear", features=1 << 30), "Expected a network of 2 features"),
        (lambda c: c["architecture"].update(kind="cnn", image=[1 << 20, 1 << 20, 1]), "a feature for each of their"),
        (lambda c: c["architecture"].update(kind=["linear"]), "Expected a network of kind linear"),
        (lambda c: c.update(temperature="1"), "Expected a positive number or null as 'temperature'"),
        (lambda c: c.update(temperature=0.0), "Expected a positive number or null as 'temperature'"),
        (lambda c: c.update(offset=[1e999, 0.0]), "Infinity|numbers or null"),
        (lambda c: c.update(target="y"), "names of columns as 'target'"),
        (lambda c: c.update(params=[]), "numbers by name as 'params'"),
        (lambda c: c.update(params={"gamma": -1.0}), "cannot be rebuilt: Expected `gamma` in"),
        (lambda c: c.update(params={"rho": 1.0}), "Expected the settings 'gamma' of focal"),
        (lambda c: c.update(classes=["0", "0"]), "all different"),
        (lambda c: c.update(trained=3), "an object as 'trained'"),
        (lambda c: c["reading"].update(numeric="xz"), "names of columns are strings"),
        (lambda c: c["reading"].update(numeric=["x", "x"]), "has two roles"),
        (lambda c: c["reading"].update(images=[1 << 30] * 3), "images have height, width"),
        (lambda c: c["reading"].update(formats={"x": {"kind": "code"}}), "code"),
        (lambda c: c["preparation"].update(numeric=3, images={}), "cannot be rebuilt"),
    ],
)
def test_types_and_sizes_that_a_model_may_not_have(here: Path, change: Callable[[Any], Any], told: str) -> None:
    edit(Path("out/model/model.json"), lambda c: (c["architecture"].update(kind="linear"), c.update(loss="focal")))
    edit(Path("out/model/model.json"), lambda c: c.update(params={"gamma": 1.0}))
    edit(Path("out/model/model.json"), change)
    with pytest.raises(InputError, match=told):
        load_model("out")
    assert "out/model" in refused("predict", "out", "t.csv")
