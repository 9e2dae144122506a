"""Training with the classes spread over ranks: with data parallelism, checkpoints, sampled rivals, faults, wrong input.

One process runs this file, and makes the ranks of all groups by fork, so that PyTorch is loaded once. Each rank writes
down what it found.
"""

import copy
import datetime
import json
import math
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard
from torch.nn.parallel import DistributedDataParallel

import lossfit

pytestmark = pytest.mark.slow
FEATURES, CLASSES, SAVED_CLASSES = 4, 10, 5  # the last of 4 ranks has 1 of them, and none
SIZES = (3, 1, 4, 2)
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.5, momentum=0.9),
    "plain sgd": lambda parameters: torch.optim.SGD(parameters, 0.5),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.05),
}
PATIENCE = 20  # seconds that a group waits where a rank fails


def rows(count: int, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, generator=generator), torch.randint(classes, (count,), generator=generator)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, FEATURES))


def make_head(classes: int = CLASSES, **settings: object) -> lossfit.CosineHead:
    torch.manual_seed(1)
    return lossfit.CosineHead(FEATURES, classes, 8.0, lossfit.AdditiveMargin(0.2), **settings)


def alone(head: lossfit.CosineHead) -> lossfit.CosineHead:
    """A head on one process with the same weights."""
    plain = make_head(head.num_classes, learn_scale=head.raw_scale is not None)
    plain.load_state_dict({name: full(value) for name, value in head.state_dict().items()})
    return plain


def full(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value.detach()


def distance(found: nn.Module, expected: nn.Module) -> float:
    """The largest one between the entries of two state dicts."""
    ours, theirs = (
        {name.removeprefix("module."): full(v) for name, v in m.state_dict().items()} for m in (found, expected)
    )
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


def train(
    network: nn.Module, head: nn.Module, x: Tensor, y: Tensor, name: str, between: Callable[[], None] | None = None
) -> None:
    """Two steps."""
    optimizer = OPTIMIZERS[name]([*network.parameters(), *head.parameters()])
    for _ in range(2):
        optimizer.zero_grad()
        head.loss(network(x), y).backward()
        if between is not None:
            between()
        optimizer.step()


def same_as_alone(
    network: nn.Module,
    head: lossfit.CosineHead,
    expected: tuple[nn.Module, lossfit.CosineHead],
    own: slice,
    total: int,
    optimizer: str,
    between: Callable[[], None] | None = None,
) -> float:
    before = copy.deepcopy(expected[1].state_dict())
    x, y = rows(total)
    train(network, head, x[own], y[own], optimizer, between)
    train(*expected, x, y, optimizer)
    moved = (expected[1].weight - before["weight"]).abs().max().item()
    assert moved > 0.01
    return max(distance(network, expected[0]), distance(head, expected[1]))


def data_and_classes(rank: int, world: int, folder: Path) -> dict[str, object]:
    """A mesh of 2 x 2: the rows over its one dimension, the classes over the other."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "classes"))
    group, each = mesh["data"].get_local_rank(), 4
    shared = slice(group * each, (group + 1) * each)
    own = slice(rank * 2, rank * 2 + 2)
    found: dict[str, object] = {}
    for optimizer in ("sgd", "adamw"):
        for gather in (False, True):
            head = make_head(mesh=mesh["classes"], gather=gather)
            expected = network(), alone(head)
            body = fully_shard(network(), mesh=mesh if gather else mesh["data"])
            fully_shard(head, mesh=mesh["data"])
            register_fsdp_forward_method(head, "loss")
            at = own if gather else shared
            found[f"wrapped {optimizer} {gather}"] = same_as_alone(body, head, expected, at, 2 * each, optimizer)
    # At this rate all classes are drawn, so that one process has the same loss.
    for name, rate in (("sgd", 1.0), ("plain sgd", 0.99)):
        head = make_head(mesh=mesh["classes"], learn_scale=True, sample_rate=rate)
        expected = network(), alone(head)
        body = fully_shard(network(), mesh=mesh["data"])

        def average(head: nn.Module = head) -> None:
            for parameter in head.parameters():
                grad = parameter.grad.to_local() if isinstance(parameter.grad, DTensor) else parameter.grad
                distributed.all_reduce(grad, group=mesh["data"].get_group())
                grad /= 2

        found[f"by hand {rate}"] = same_as_alone(body, head, expected, shared, 2 * each, name, average)
    return found


def rows_of_their_own(rank: int, world: int, folder: Path) -> dict[str, object]:
    """The same ranks for rows, as many as a rank likes, and for classes."""
    mesh = init_device_mesh("cpu", (world,))
    own = slice(sum(SIZES[:rank]), sum(SIZES[: rank + 1]))
    wraps: dict[str, Callable[[nn.Module], nn.Module]] = {
        "fsdp": lambda module: fully_shard(module, mesh=mesh),
        "ddp": DistributedDataParallel,
    }
    found: dict[str, object] = {}
    for optimizer in ("sgd", "adamw"):
        for name, wrap in wraps.items():
            head = make_head(mesh=mesh, gather=True, learn_scale=True)
            expected = network(), alone(head)
            found[f"{name} {optimizer}"] = same_as_alone(wrap(network()), head, expected, own, sum(SIZES), optimizer)
    return found


def model_of(**settings: object) -> nn.ModuleDict:
    return nn.ModuleDict({"network": network(), "head": make_head(SAVED_CLASSES, learn_scale=True, **settings)})


def save(rank: int, world: int, folder: Path) -> dict[str, object]:
    mesh = init_device_mesh("cpu", (world,))
    found: dict[str, object] = {}
    for name, rate in (("dense", 1.0), ("sampled", 0.5)):
        model = model_of(mesh=mesh, sample_rate=rate)
        fully_shard(model["network"], mesh=mesh)
        x, y = rows(6, SAVED_CLASSES)
        model["head"].loss(model["network"](x), y).backward()
        torch.optim.SGD(model.parameters(), 0.1).step()
        writer = HuggingFaceStorageWriter(str(folder / name), save_distributed=True)
        dcp.save(model.state_dict(), storage_writer=writer)
        found[name] = {key: full(value).tolist() for key, value in model.state_dict().items()}
    return found


def load(rank: int, world: int, folder: Path) -> dict[str, object]:
    """What is read into models of other seeds: those of one process have no mesh."""
    mesh = init_device_mesh("cpu", (world,)) if world > 1 else None
    found: dict[str, object] = {}
    for name in ("dense", "sampled"):
        for rate in (1.0, 0.5):
            model = model_of(mesh=mesh, sample_rate=rate)
            if mesh is not None:
                fully_shard(model["network"], mesh=mesh)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.zero_()
            state = model.state_dict()
            dcp.load(state, storage_reader=HuggingFaceStorageReader(str(folder / name)))
            model.load_state_dict(state)
            found[f"{name} into {rate}"] = {key: full(value).tolist() for key, value in model.state_dict().items()}
    return found


def sampled(rank: int, world: int, folder: Path) -> dict[str, object]:
    mesh = init_device_mesh("cpu", (world,))
    found: dict[str, object] = {}
    takes_sparse = {
        "sgd": lambda p: torch.optim.SGD(p, 0.5),
        "adagrad": lambda p: torch.optim.Adagrad(p, 0.5),
        "sparse_adam": lambda p: torch.optim.SparseAdam(p, 0.5),
    }
    with torch.sparse.check_sparse_tensor_invariants(False):
        for name, make in takes_sparse.items():
            head = make_head(101, mesh=mesh, sample_rate=0.2)  # 51 and 50 of them
            optimizer, before = make([head.weight]), head.weight.detach().clone()
            x, y = torch.randn(6, FEATURES, generator=torch.Generator().manual_seed(0)), torch.arange(0, 96, 16)
            head.loss(x, y).backward()
            grad = head.weight.grad
            touched = grad.coalesce().indices()[0]
            optimizer.step()
            changed = (head.weight.detach() != before).any(1).nonzero().squeeze(1)
            found[name] = {
                "sparse": grad.is_sparse,
                "touched": touched.tolist(),
                "changed": changed.tolist(),
                "start": 0 if rank == 0 else 51,
            }
    found["rivals"] = rival_sums(mesh)
    found["copies"] = [of_a_copy(make_head(mesh=mesh, sample_rate=rate)) for rate in (1.0, 0.5)]
    return found


def of_a_copy(head: lossfit.CosineHead) -> tuple[float, float]:
    """The losses of a head and of its copy, after the head itself has changed."""
    other, (x, y) = copy.deepcopy(head).eval(), rows(5)
    value = head.eval().loss(x @ torch.ones(3, FEATURES), y).item()
    with torch.no_grad():
        head.weight.zero_()
    return value, other.loss(x @ torch.ones(3, FEATURES), y).item()


def rival_sums(mesh: DeviceMesh) -> dict[str, float]:
    """The sum over rivals as the loss of sampled ones tells it, on average over draws, and the true one."""
    torch.manual_seed(1)
    head = lossfit.CosineHead(FEATURES, 61, 4.0, mesh=mesh, sample_rate=0.3)
    x, y = torch.randn(3, FEATURES, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 5, 60])
    each = lossfit.CrossEntropyLoss(reduction="none")
    torch.manual_seed(2 + mesh.get_local_rank())
    with torch.no_grad():
        # exp(loss) - 1 is the rivals' sum over the target's exponential.
        sums = torch.stack([head.loss(x, y, each).expm1().sum() for _ in range(1500)])
        head.eval()
        true = alone_sums(head, x, y)
        evaluated = head.loss(x, y, each).expm1().sum().item()
    error = sums.std().item() / math.sqrt(len(sums))
    return {"mean": sums.mean().item(), "error": error, "true": true, "evaluated": evaluated}


def alone_sums(head: lossfit.CosineHead, x: Tensor, y: Tensor) -> float:
    weight = full(head.state_dict()["weight"])
    z = 4 * nn.functional.normalize(x) @ nn.functional.normalize(weight).T
    own = z.gather(1, y.unsqueeze(1))
    return ((z - own).exp().sum(1) - 1).sum().item()


def waiting(rank: int, world: int, folder: Path, fail: Callable[[], None]) -> dict[str, object]:
    """What ranks say whose last one fails in the second step."""
    mesh = init_device_mesh("cpu", (world,))
    head, body = make_head(mesh=mesh, gather=True), network()
    x, y = rows(4)
    head.loss(body(x), y).backward()
    if rank == world - 1:
        fail()
    try:
        head.loss(body(x), y).backward()
    except RuntimeError as error:
        return {"error": str(error)}
    return {"error": ""}


def dies(rank: int, world: int, folder: Path) -> dict[str, object]:
    return waiting(rank, world, folder, lambda: os._exit(3))


def sleeps(rank: int, world: int, folder: Path) -> dict[str, object]:
    def sleep() -> None:
        others = [folder / f"sleeps-{world}-{other}.json" for other in range(world - 1)]
        while not all(file.exists() for file in others):  # or until this process is killed
            time.sleep(0.1)

    return waiting(rank, world, folder, sleep)


def refused(rank: int, world: int, folder: Path) -> dict[str, object]:
    """What is said of wrong input. Where a rank does not say it, the others would wait for it at the barrier."""
    found: dict[str, object] = {}
    for name, call in wrong(rank, world):
        try:
            call()
            found[name] = "nothing"
        except (TypeError, ValueError, IndexError, NotImplementedError) as error:
            found[name] = f"{type(error).__name__}: {error}"
        distributed.barrier()
    found["values"] = not_finite(init_device_mesh("cpu", (world,)), rank)
    return found


def wrong(rank: int, world: int) -> Iterator[tuple[str, Callable[[], object]]]:
    mesh = init_device_mesh("cpu", (world,))
    x, y = torch.ones(4, FEATURES), torch.arange(4)
    for rate in (0.0, -0.5, 1.5, math.nan, True, "0.5"):
        yield f"sample_rate {rate}", lambda rate=rate: make_head(mesh=mesh, sample_rate=rate)
    square = init_device_mesh("cpu", (world, 1), mesh_dim_names=("data", "classes"))
    yield "square mesh", lambda: make_head(mesh=square)
    yield "gather without mesh", lambda: make_head(gather=True)
    yield "split centres", lambda: make_head(10, mesh=mesh, sub_centers=2)
    together, gathered = make_head(mesh=mesh), make_head(mesh=mesh, gather=True)
    each = lossfit.CrossEntropyLoss(reduction="none")
    yield "none gathered", lambda: gathered.loss(x, y, each)
    yield "probabilities gathered", lambda: gathered.loss(x, torch.full((4, CLASSES), 0.1))
    yield "other targets", lambda: together.loss(x, y + rank)
    yield "other rows", lambda: together.loss(x[rank:], y[rank:])
    yield "other targets, some outside", lambda: together.loss(x, y + (CLASSES if rank else 0))
    yield "target outside", lambda: together.loss(x, y + CLASSES - 2)
    yield "target below", lambda: together.loss(x, y - 1)
    yield "target of one rank outside", lambda: gathered.loss(x, y + (CLASSES if rank else 0))
    few = make_head(mesh=mesh, sample_rate=0.5)
    yield "sampled target outside", lambda: few.loss(x, y + CLASSES - 2)
    yield "sampled exact", lambda: few.loss(x, y, lossfit.ExactLoss())
    yield "sampled smoothing", lambda: few.loss(x, y, lossfit.CrossEntropyLoss(label_smoothing=0.1))
    loss = lossfit.CrossEntropyLoss()
    # The counts' mean is that of the middle rank, which sees nothing wrong by itself.
    short = DTensor.from_local(torch.ones(4 - rank, FEATURES), mesh, [Shard(0)], run_check=False)
    yield "shards that do not cover", lambda: loss.linear(x, short, y)
    weight = together.weight.detach()
    yield "other rows of probabilities", lambda: loss.linear(x[rank:], weight, torch.full((4, CLASSES), 0.1)[rank:])
    yield "sharded bias alone", lambda: loss.linear(x, torch.ones(CLASSES, FEATURES), y, weight[:, 0])
    yield "sharded sample weight", lambda: loss.linear(x, weight, y, sample_weight=weight[:4, 0])
    scores = together(x)
    yield "sharded scores of a metric", lambda: lossfit.BalancedAccuracyLoss()(scores, y % 2)
    yield "sharded scores of several labels", lambda: lossfit.ZLPRLoss()(scores, y.unsqueeze(1))
    yield "sharded teacher", lambda: lossfit.DistillationLoss().linear(x, torch.ones(CLASSES, FEATURES), x, weight, y)
    columns = DTensor.from_local(torch.ones(CLASSES, 2), mesh, [Shard(1)], run_check=False)
    yield "sharded features", lambda: loss.linear(torch.ones(4, 2 * world), columns, y)
    yield (
        "weight on a square mesh",
        lambda: loss.linear(
            x, DTensor.from_local(torch.ones(4, FEATURES), square, [Shard(0), Shard(0)], run_check=False), y
        ),
    )


def not_finite(mesh: DeviceMesh, rank: int) -> dict[str, list[float]]:
    """Losses where the last class's weight, on the last rank, or a feature of the first row is not a number."""
    found = {}
    x, y = rows(3)[0] @ torch.ones(3, FEATURES) + torch.eye(3, FEATURES), torch.arange(3)
    for name, loss in (("cross_entropy", lossfit.CrossEntropyLoss()), ("exact", lossfit.ExactLoss())):
        head = make_head(mesh=mesh)
        fine = head.loss(x, y, loss).item()
        bad = x.clone()
        bad[0, 0] = torch.nan
        of_feature = head.loss(bad, y, loss).item()
        with torch.no_grad():
            local = head.weight.to_local()
            if rank == mesh.size() - 1:
                local[-1] = torch.nan
        found[name] = [fine, of_feature, head.loss(x, y, loss).item()]
    return found


JOBS = [
    (data_and_classes, 4),
    (rows_of_their_own, 4),
    (save, 4),
    (load, 1),
    (load, 2),
    (load, 3),
    (sampled, 2),
    (dies, 3),
    (sleeps, 3),
    (refused, 3),
]


def run_rank(job: Callable[[int, int, Path], dict[str, object]], rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    if job is not load or world > 1:
        distributed.init_process_group(
            "gloo",
            init_method=f"file://{folder}/{job.__name__}-{world}.store",
            rank=rank,
            world_size=world,
            timeout=datetime.timedelta(seconds=PATIENCE if job in (dies, sleeps) else 300),
        )
    name = folder / f"{job.__name__}-{world}-{rank}.json"
    name.write_text(json.dumps(job(rank, world, folder)))
    sys.stdout.flush()
    os._exit(0)  # a group whose rank has died cannot be left in order


def run_all(folder: Path) -> None:
    fork = multiprocessing.get_context("fork")
    for job, world in JOBS:
        ranks = [fork.Process(target=run_rank, args=(job, rank, world, folder)) for rank in range(world)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(300)
            if process.is_alive():
                print(f"{job.__name__} on {world} ranks has not ended", flush=True)
                process.kill()
                process.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    with (folder / "log").open("w") as log:
        subprocess.run(
            [sys.executable, __file__, str(folder)], env=environment, stdout=log, stderr=log, timeout=1500, check=True
        )
    return folder


def found(folder: Path, job: Callable[..., object], world: int, ranks: int | None = None) -> list[dict]:
    files = [folder / f"{job.__name__}-{world}-{rank}.json" for rank in range(world if ranks is None else ranks)]
    missing = [file.name for file in files if not file.exists()]
    assert not missing, (folder / "log").read_text()
    return [json.loads(file.read_text()) for file in files]


def test_with_fsdp_on_a_mesh_of_two_dimensions_training_is_that_of_one_process(folder: Path) -> None:
    for of_rank in found(folder, data_and_classes, 4):
        assert len(of_rank) == 6
        assert max(of_rank.values()) <= 1e-10, of_rank


def test_with_rows_of_their_own_training_is_that_of_one_process(folder: Path) -> None:
    for of_rank in found(folder, rows_of_their_own, 4):
        assert of_rank.keys() == {"fsdp sgd", "fsdp adamw", "ddp sgd", "ddp adamw"}
        assert max(of_rank.values()) <= 1e-10, of_rank


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_checkpoint_of_4_ranks_loads_on_another_number(folder: Path, world: int) -> None:
    saved = found(folder, save, 4)[0]
    for of_rank in found(folder, load, world):
        assert len(of_rank) == 4
        for name, state in of_rank.items():
            assert state == saved[name.split()[0]]
            of_network = (f"network.{i}.{name}" for i in (0, 2) for name in ("weight", "bias"))
            assert state.keys() == {"head.weight", "head.raw_scale", *of_network}
            assert len(state["head.weight"]) == SAVED_CLASSES


def test_a_checkpoint_has_no_pickle(folder: Path) -> None:
    found(folder, save, 4)
    assert {file.suffix for name in ("dense", "sampled") for file in (folder / name).iterdir()} == {".safetensors"}


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "sparse_adam"])
def test_sampled_rivals_change_the_rows_looked_at_alone(folder: Path, optimizer: str) -> None:
    for of_rank in found(folder, sampled, 2):
        step = of_rank[optimizer]
        assert step["sparse"]
        assert len(step["touched"]) == 10  # a fifth of 51 and of 50
        here = [c - step["start"] for c in range(0, 96, 16) if (c >= 51) == (step["start"] > 0)]
        assert set(here) <= set(step["touched"])
        assert step["changed"] == step["touched"]


def test_the_expected_sum_over_sampled_rivals_is_that_over_all(folder: Path) -> None:
    for of_rank in found(folder, sampled, 2):
        rivals = of_rank["rivals"]
        assert rivals["evaluated"] == pytest.approx(rivals["true"], rel=1e-12)
        assert rivals["error"] < 0.01 * rivals["true"]
        assert abs(rivals["mean"] - rivals["true"]) < 4 * rivals["error"]


def test_a_copy_of_a_head_has_its_own_weight_and_the_same_ranks(folder: Path) -> None:
    for of_rank in found(folder, sampled, 2):
        for value, copied in of_rank["copies"]:
            assert value > 0
            assert copied == value


def test_a_rank_that_dies_is_an_error_on_the_others(folder: Path) -> None:
    for of_rank in found(folder, dies, 3, ranks=2):
        assert of_rank["error"]


def test_a_rank_that_sleeps_is_an_error_on_the_others(folder: Path) -> None:
    for of_rank in found(folder, sleeps, 3, ranks=2):
        assert of_rank["error"]


REFUSALS = {
    **{f"sample_rate {rate}": r"ValueError: .*`sample_rate` in \(0, 1\]" for rate in (0.0, -0.5, 1.5, "nan", True)},
    "sample_rate 0.5": r"ValueError: .*`sample_rate` in \(0, 1\], but got '0.5'",
    "square mesh": "ValueError: .*`mesh` of one dimension, but got 2",
    "gather without mesh": "ValueError: .*`gather` only with `mesh`",
    "split centres": "ValueError: .*`num_classes` such that no class's 2 sub-centres",
    "none gathered": "ValueError: .*`loss` with reduction 'mean' or 'sum'.*'none'",
    "probabilities gathered": r"ValueError: .*`target` of class indices of shape \(4,\)",
    "other targets": "ValueError: .*the same `target` on all ranks",
    "other rows": r"ValueError: .*the same `target` on all ranks.*rank 0 has int64 \(4,\), .*rank 2 has int64 \(2,\)",
    "other targets, some outside": "ValueError: .*the same `target` on all ranks",
    "target outside": "IndexError: .*`target`",
    "target below": "IndexError: .*`target`",
    "target of one rank outside": "IndexError: .*`target`",
    "sampled target outside": "IndexError: .*`target`",
    "sampled exact": "ValueError: .*`loss` on the soft gap",
    "sampled smoothing": "ValueError: .*`loss` without `label_smoothing`",
    "shards that do not cover": r"ValueError: .*shards of `weight` to cover.*\[4, 3, 2\] of \[12, 9, 6\]",
    "other rows of probabilities": r"ValueError: .*the same `target` on all ranks.*rank 2 has float\d+ \(2, ",
    "sharded bias alone": "ValueError: .*`bias` as a tensor on one process, but got a DTensor",
    "sharded sample weight": "ValueError: .*`sample_weight` as a tensor on one process, but got a DTensor",
    "sharded scores of a metric": "ValueError: .*`input` as a tensor on one process, but got a DTensor",
    "sharded scores of several labels": "ValueError: .*`input` as a tensor on one process, but got a DTensor",
    "sharded teacher": "ValueError: .*`teacher_weight` as a tensor on one process, but got a DTensor",
    "sharded features": "ValueError: .*`weight` as a DTensor sharded on dimension 0",
    "weight on a square mesh": "ValueError: .*`weight` as a DTensor.*mesh of one dimension",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_wrong_input_is_refused_on_every_rank(folder: Path, name: str) -> None:
    for of_rank in found(folder, refused, 3):
        assert len(of_rank) == len(REFUSALS) + 1
        with pytest.raises(AssertionError, match=REFUSALS[name]):
            raise AssertionError(of_rank[name])


@pytest.mark.parametrize("loss", ["cross_entropy", "exact"])
def test_what_is_not_finite_gives_a_loss_that_is_not(folder: Path, loss: str) -> None:
    for of_rank in found(folder, refused, 3):
        fine, *bad = of_rank["values"][loss]
        assert math.isfinite(fine)
        assert not any(map(math.isfinite, bad))


if __name__ == "__main__":
    run_all(Path(sys.argv[1]))
