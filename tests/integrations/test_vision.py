"""The recipes with pictures, with fewer steps: timm in a process of its own, and segmentation."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import lossfit

ROOT = Path(__file__).parents[2]


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
    )


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".timm" / "ready").is_file(), reason="needs timm: make .timm/ready")
def test_a_timm_model_learns_with_each_loss() -> None:
    done = run(
        "examples/vision_timm.py",
        "--timm",
        ".timm",
        "--model",
        "test_resnet",
        "--noise",
        0,
        "--steps",
        60,
        "--seeds",
        1,
    )
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"^(cross-entropy|gamma, 0.1|expected accuracy) +([\d.]+)", done.stdout, re.MULTILINE))
    assert len(found) == 3
    assert float(found["cross-entropy"]) > 40


@pytest.mark.slow
def test_a_folder_without_timm_is_named(tmp_path: Path) -> None:
    done = run("examples/vision_timm.py", "--timm", tmp_path)
    assert done.returncode == 2
    assert "Expected --timm to be a folder with timm in it" in done.stderr


@pytest.fixture(scope="module")
def segmentation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("segmentation", ROOT / "examples" / "segmentation.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_scenes_have_pixels_of_every_class(segmentation: ModuleType) -> None:
    x, y = segmentation.scenes(60, seed=0)
    assert x.shape == (60, 1, 32, 32)
    assert y.unique().tolist() == [-100, *range(11)]


def test_a_network_learns_the_pixels(segmentation: ModuleType) -> None:
    train, test = segmentation.scenes(40, seed=0), segmentation.scenes(20, seed=1)
    before = segmentation.overlaps(lossfit.CrossEntropyLoss(), train, test, 1, seed=0).mean()
    for loss in segmentation.losses(train[1]).values():
        value = loss(torch.randn(2, 11, 32, 32), train[1][:2])
        assert value.isfinite()
    assert segmentation.overlaps(lossfit.FocalLoss(), train, test, 25, seed=0).mean() > before + 3
