"""Networks of all kinds, trained by one loop."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from lossfit.compare import device
from lossfit.compare.candidates import candidates
from lossfit.compare.errors import InputError
from lossfit.compare.plan import Plan
from lossfit.compare.running import engine
from lossfit.compare.training import models, train
from lossfit.compare.training.models import Architecture, Models, Modules, Stacked
from lossfit.compare.training.models.cnn import ResidualCNN
from lossfit.compare.training.records import Records
from lossfit.compare.training.task import Task
from lossfit.compare.verdict.summary import summarise
from trainings import CLASSES, FEATURES, QUICK, agree, changed, dealt, task

NETWORKS = '''
import torch
from torch import nn

class Plain(nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(features, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        self.last = nn.Linear(8, classes)
        self.unused = nn.Linear(2, 2)
        self.frozen = nn.Parameter(torch.randn(classes), requires_grad=False)

    def forward(self, x):
        assert x.ndim == 2
        return self.last(self.inner(x)) + self.frozen

def picture(shape, classes):
    layers = nn.Conv2d(shape[0], 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(classes)
    return nn.Sequential(*layers)

def plain(**offered):
    return nn.Sequential(nn.Flatten(), nn.Linear(offered["features"], offered["classes"]))

class Ends(nn.Module):
    """What goes wrong at the end."""

    def __init__(self, features, change):
        super().__init__()
        self.inner, self.change = nn.Linear(features, 3), change

    def forward(self, x):
        return self.change(self, self.inner(x))

constant = 3
one = nn.Linear(5, 3)
def same(features, classes): return one
def needs(features, layers): return nn.Linear(features, layers)
def positional(features, /): return nn.Linear(features, 3)
def raises(classes): raise KeyError("no such thing")
def returns(): return [1, 2]
def nothing(): return None
def empty(): return nn.Identity()
def wide(features, classes): return nn.Linear(features, classes + 1)
def narrow(classes): return nn.Linear(2, classes)
def whole(features): return Ends(features, lambda m, z: z.mean(0))
def whole_numbers(features): return Ends(features, lambda m, z: z.argmax(1, keepdim=True).expand(-1, 3))
def pair(features): return Ends(features, lambda m, z: (z, z) if m.training else z)
def cut(features): return Ends(features, lambda m, z: z.detach())
def squeezes(features): return Ends(features, lambda m, z: z.squeeze(0))
def tires(features): return Ends(features, lambda m, z: z if len(z) > 2 else {}[len(z)])
def measured(features): return Ends(features, lambda m, z: z if m.training else z[:, :2])
'''


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with networks of the user's own."""
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "networks.py").write_text(NETWORKS)
    (tmp_path / "broken.py").write_text("import nowhere_at_all")
    (tmp_path / "wrong.py").write_text("def (")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [n for n in sys.modules if n.split(".")[0] in ("my", "broken", "wrong")]:
        del sys.modules[name]


def digits(count: int = 3) -> Task:
    """Images of 8 x 8, in float32."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))[:450]
    x, labels = (data.data[order] / 8 - 1).astype(np.float32), data.target[order]
    whole = task(metric="accuracy")._replace(rows=dealt(x, labels, count))
    return changed(whole, classes=10, model=Architecture("cnn", 64, 10, image=(1, 8, 8)))


def trained(whole: Task) -> Records:
    return train.train(whole)[whole.recipe.metrics[0]]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("hidden", [0, 6])
def test_modules_are_trained_as_stacked_weights_are(
    hidden: int, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        whole = task("focal", count=4, hidden=hidden)
        if together:
            settings = candidates.settings(whole.recipe.candidate, 6, 0)
            whole = changed(whole, settings=settings, rungs=(2, 4), patience=3)
        expected = trained(whole)

        def make() -> nn.Module:
            seeded = torch.Generator().manual_seed(torch.initial_seed())
            module = whole.recipe.model.module()
            module.load_state_dict(Stacked(FEATURES, CLASSES, 1, hidden, [seeded]).state_dict(0, 0))
            return module

        def build(self: Architecture, settings: int, generators: list[torch.Generator], device: str = "cpu") -> Models:
            Stacked(FEATURES, CLASSES, settings, hidden, generators)  # takes from the generators what it takes there
            return Modules(make, settings, generators)

        monkeypatch.setattr(Architecture, "build", build)
        found = trained(whole)
        for a, b in zip(found.settings + found.passes, expected.settings + expected.passes, strict=True):
            agree(a, b)
        assert any(record["pruned"] for record in found.settings) == together
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_residual_network_learns_and_is_the_same_in_any_company() -> None:
    whole = changed(digits(), steps=60)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    records = trained(whole)
    assert torch.equal(torch.get_rng_state(), before)
    assert max(record["test_accuracy"] for record in records.passes) > 0.8
    alone = trained(changed(whole, settings=whole.recipe.settings[2:]))
    for record, expected in zip([r for r in records.settings if r["trial"] == 2], alone.settings, strict=True):
        assert {k: v for k, v in record.items() if k not in ("trial", "chosen")} == {
            k: v for k, v in expected.items() if k not in ("trial", "chosen")
        }
    pruned = trained(changed(whole, rungs=(2, 4)))
    for record, expected in zip(pruned.settings, records.settings, strict=True):
        assert record["pruned"] or record["validation"] == expected["validation"]


def test_the_residual_network_sees_images_and_other_columns() -> None:
    network = ResidualCNN((3, 9, 12), 2, 4)
    rows = torch.randn(5, 3 * 9 * 12 + 2)
    assert network(rows).shape == (5, 4)
    moved = rows.clone()
    moved[:, -1] += 1
    change = network(moved) - network(rows)
    torch.testing.assert_close(change, network.head.weight[:, -1].expand(5, -1), rtol=1e-4, atol=1e-5)
    images = rows[:, :-2].view(5, 9, 12, 3).permute(0, 3, 1, 2)
    inner = network.body(images).mean((2, 3))
    torch.testing.assert_close(network(rows), network.head(torch.cat([inner, rows[:, -2:]], 1)))
    torch.testing.assert_close(network(rows[2:3]), network(rows)[2:3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "image"), [("my.networks:Plain", None), ("my.networks:picture", (1, 8, 8)), ("my.networks:plain", None)]
)
def test_an_own_network_is_trained_and_can_be_made_again(
    folder: Path, kind: str, image: tuple[int, int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = digits() if image else task(count=3)
    architecture = models.choose(kind, 64 if image else FEATURES, whole.recipe.classes, image)
    whole = changed(whole, model=architecture)
    kept: list[Any] = []
    original = train.records

    def keeping(task: Task, data: Any, blocks: Any, best: Any) -> Records:
        kept[:] = [data, blocks[0], best]
        return original(task, data, blocks, best)

    monkeypatch.setattr(train, "records", keeping)
    records = trained(whole)
    assert trained(whole).settings == records.settings
    assert len({r["test_log_loss"] for r in records.passes}) == len(records.passes)
    data, block, best = kept
    (metric,) = whole.recipe.metrics
    module = Architecture.from_json(architecture.to_json()).module().eval()
    module.load_state_dict(block.model.state_dict(0, 0, block.kept_state(metric, 0, 1, 2)))
    fold = whole.rows.pairs[0][1]
    with torch.no_grad():
        expected = block.at_best(metric, 0, 1, 2, data.held_out[0])
        torch.testing.assert_close(module(data.held_out[0]), expected)
    buffers = [value for name, value in module.state_dict().items() if name.endswith("num_batches_tracked")]
    assert all(int(value) == best.step[fold, 2] for value in buffers)
    assert len(buffers) == (kind != "my.networks:plain")


def test_what_is_learnt_and_what_decays(folder: Path) -> None:
    made = models.choose("my.networks:Plain", 5, 3).build(2, [torch.Generator().manual_seed(s) for s in (1, 2)])
    assert [tuple(p.shape[2:]) for p in made.parameters] == [(8, 5), (8,), (8,), (8,), (3, 8), (3,), (2, 2), (2,)]
    assert made.decays == [True, False, False, False, True, False, True, False]
    first, frozen = made.parameters[0], made.state[8]
    assert torch.equal(first[0, 0], first[0, 1])
    assert not torch.equal(first[0, 0], first[1, 0])
    assert not torch.equal(frozen[0], frozen[1])
    x = torch.randn(2, 6, 5)
    assert torch.equal(made(x)[:, :, 0], made(x)[:, :, 1]) is False  # the steps draw other numbers
    z = made(x)
    assert torch.equal(z[:, :, 0], z[:, :, 1])  # and in a step all settings draw the same
    *grads, _, _ = made.gradients(z.square().sum())
    assert all(bool(grad.any()) for i, grad in enumerate(grads) if i != 1)
    assert not any(bool(grad.any()) for grad in made.gradients(made(x).sum())[-2:])


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("nowhere_at_all:f", r"there is no module 'nowhere_at_all', neither in the folder '.*' nor installed"),
        ("my.nothing:f", "there is no module 'my.nothing'"),
        ("broken:f", "importing 'broken' raised ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("wrong:f", "importing 'wrong' raised SyntaxError"),
        ("my.networks:", "Expected --model as package.module:factory, but got 'my.networks:'"),
        ("my.networks:absent", r"the module 'my.networks' has no 'absent'. It has "),
        ("my.networks:constant", "expected a function or a class, but got int"),
        ("my.networks:needs", "it needs 'layers', but is called with those of features, classes, shape"),
        ("my.networks:positional", "it needs 'features', but is called with"),
        ("my.networks:raises", r"raises\(classes=3\) raised KeyError: 'no such thing'"),
        ("my.networks:returns", r"expected returns\(\) to return a torch.nn.Module, but got list"),
        ("my.networks:nothing", r"to return a torch.nn.Module, but got None"),
        ("my.networks:empty", "expected a module with parameters to train, but it has none"),
        ("my.networks:same", "expected a new module in every call, but two calls share parameters"),
        ("my.networks:wide", r"shape \(rows, classes\) = \(4, 3\) in training mode, but got \(4, 4\)"),
        ("my.networks:whole", r"= \(4, 3\) in training mode, but got \(3,\)"),
        ("my.networks:measured", r"= \(4, 3\) in evaluation mode, but got \(4, 2\)"),
        ("my.networks:narrow", r"on 4 rows of \(5,\) it raised RuntimeError: mat1 and mat2"),
        ("my.networks:whole_numbers", "expected floating-point scores in training mode, but got torch.int64"),
        ("my.networks:pair", r"expected a tensor \(4, 3\) in training mode, but got tuple"),
        ("my.networks:cut", "the scores do not depend on the parameters"),
    ],
)
def test_what_is_wrong_with_an_own_network_is_told(folder: Path, name: str, match: str) -> None:
    def check() -> None:
        models.check_name(name)
        models.choose(name, 5, 3).check(torch.randn(4, 5))

    with pytest.raises(InputError, match=match) as caught:
        check()
    assert "\n" not in str(caught.value)
    assert str(folder) not in sys.path


@pytest.mark.parametrize(
    ("name", "rows", "match"),
    [
        ("my.networks:squeezes", 1, r"shape \(rows, classes\) = \(1, 3\) in training mode, but got \(3,\)"),
        ("my.networks:tires", 2, r"--model my.networks:tires: on 2 rows of \(5,\) it raised KeyError: 2"),
    ],
)
def test_what_goes_wrong_in_the_middle_of_a_training_is_told(folder: Path, name: str, rows: int, match: str) -> None:
    architecture = models.choose(name, 5, 3)
    architecture.check(torch.randn(4, 5))
    made = architecture.build(1, [torch.Generator().manual_seed(0)])
    with pytest.raises(InputError, match=match):
        made(torch.randn(1, rows, 5))


def test_the_network_for_images_is_chosen_by_its_cost() -> None:
    assert models.resolve("auto", None, 400) == ("mlp", "")
    assert models.resolve("mlp", (1, 8, 8), 400) == ("mlp", "")
    kind, told = models.resolve("auto", (1, 8, 8), 400)
    assert kind == "cnn"
    assert "takes about 1.7 s on one thread (--model mlp is faster)" in told
    kind, told = models.resolve("auto", (1, 28, 28), 940)
    assert kind == "mlp"
    assert "takes about 16.1 s on one thread (--model cnn takes it all the same)" in told
    assert models.resolve("auto", (1, 4, 20), 400)[0] == "mlp"
    with pytest.raises(InputError, match="--model cnn needs images"):
        models.resolve("cnn", None, 400)


@pytest.mark.parametrize("name", ["gpu", "cuda:1"])
def test_devices(name: str) -> None:
    assert device.choose("cpu") == "cpu"
    assert device.choose("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(InputError, match=f"Expected --device to be one of auto, cpu, cuda, but got '{name}'"):
        device.choose(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"--device cuda: no GPU is visible to PyTorch .* Use --device cpu"):
        Plan("yeast", device="cuda").check()


def test_a_comparison_of_an_own_network(folder: Path) -> None:
    data = load_digits()
    np.savez("digits.npz", X=data.images[:300].astype(np.float32), y=data.target[:300])
    plan = Plan("digits.npz", losses="cross_entropy", folds=3, repeats=1, trials=2, model="my.networks:picture")
    found = engine.run(plan, folder / "out", workers=2, limits=QUICK)
    told = summarise(found)["model"]
    assert told == "your own my.networks:picture: images of 8 x 8 pixels in 1 channel to 10 classes, 1,498 parameters"
    assert found.results.height == 6
    again = engine.run(plan, folder / "again", limits=QUICK)
    assert again.results.drop("seconds").equals(found.results.drop("seconds"))
    auto = engine.run(replace(plan, model="auto"), folder / "auto", limits=QUICK)
    assert "a small residual network: images of 8 x 8 pixels" in summarise(auto)["model"]
    assert any(note.startswith("The network is the residual one for images") for note in auto.data.notes)


def test_trainings_are_divided_as_memory_needs_without_changing() -> None:
    """Under a limit on the process's memory, PyTorch's allocator raises."""
    script = str(Path(__file__).parents[2] / "short_of_memory.py")
    given_back = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed is free for the limit at once
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, env=given_back)
    assert ran.returncode == 0, ran.stderr
    parts, same, told = ran.stdout.splitlines()
    assert int(parts) > 1
    assert same == "True"
    assert re.fullmatch(
        r"There is not enough memory for a repeat's trainings, on 165 rows of 3,000 features with 3 classes. Let there "
        r"be less by --trials, --max-rows, --workers 1 or a smaller --model. \(.*allocate .*\)",
        told,
    )
