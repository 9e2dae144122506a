"""Classes spread over ranks, against one process that has them all.

The ranks are processes of their own that run this file; each writes down how far it is from one process.
"""

import itertools
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

import lossfit
from lossfit.core.limits import limited

sys.path.append(str(Path(__file__).parents[1]))
from helpers import PATHS, build, case_id, every_case, join, run_ranks
from interpreter import quicken

# On 4 ranks the last one has no class of 9.
CLASSES = {2: 7, 3: 10, 4: 9}
ROWS, FEATURES = 11, 4
# In Triton's interpreter.
KERNELS = find_spec("triton") is not None and not torch.cuda.is_available()
WAYS: dict[str, dict[str, object]] = {
    "mean": {},
    "none": {"reduction": "none"},
    "smooth": {"label_smoothing": 0.1, "reduction": "sum"},
    "weighted": {"weight": True, "label_smoothing": 0.2},
    "scored": {"temperature": True, "class_prior": True, "weight": True},
}
MARGINS: dict[str, lossfit.Margin | None] = {
    "none": None,
    "additive": lossfit.AdditiveMargin(0.3),
    "arc": lossfit.ArcMargin(0.4),
    "angular": lossfit.AngularMargin(2.0, annealing=1.0),
}


def losses_of(classes: int, dtype: torch.dtype, fast: bool) -> dict[str, lossfit.SingleLabelLoss]:
    """By case and way; on two ranks a loss for each path. EXACT with smoothing is many integrals: once is enough."""
    found = {}
    cases = PATHS if classes == CLASSES[2] else every_case()
    for case, (way, common) in itertools.product(cases, WAYS.items()):
        name, settings = case
        if (fast or settings) and way not in ("mean", "smooth"):
            continue
        if name == "exact" and (settings or fast) and way != "mean":
            continue
        common = dict(common)
        if "weight" in common:
            common["weight"] = torch.linspace(0.5, 2, classes, dtype=dtype)
        if "class_prior" in common:
            common["class_prior"] = torch.linspace(1, 9, classes, dtype=dtype)
        if "temperature" in common:
            common["temperature"] = torch.nn.Parameter(torch.tensor(1.5, dtype=dtype))
        found[f"{case_id(case)} {way}"] = build(name, **{**settings, **common})
    return found


def batch(classes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(classes)
    x = torch.randn(ROWS, FEATURES, dtype=torch.float64, generator=generator)
    weight = torch.randn(classes, FEATURES, dtype=torch.float64, generator=generator)
    bias = torch.randn(classes, dtype=torch.float64, generator=generator)
    target = torch.randint(classes, (ROWS,), generator=generator)
    target[3] = -100
    upstream = torch.rand(ROWS, dtype=torch.float64, generator=generator)
    return x.to(dtype), weight.to(dtype), bias.to(dtype), target, upstream.to(dtype)


def whole(value: Tensor | None) -> Tensor | None:
    return value.full_tensor() if isinstance(value, DTensor) else value


def distance(found: list[Tensor | None], expected: list[Tensor | None]) -> float:
    far = 0.0
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None and b.numel():
            far = max(far, ((whole(a) - b).abs() / (1 + b.abs())).max().item())
    return far


def measured(loss: lossfit.Loss, value: Tensor, upstream: Tensor, of: list[Tensor]) -> list[Tensor | None]:
    value = (value * upstream).sum() if value.ndim else value
    learnt = [p for p in loss.parameters() if p.requires_grad]
    return [value.detach(), *torch.autograd.grad(value, [*of, *learnt], retain_graph=True, allow_unused=True)]


def linear(mesh: DeviceMesh, classes: int, dtype: torch.dtype, backend: str, fast: bool) -> dict[str, float]:
    x, weight, bias, target, upstream = batch(classes, dtype)
    x.requires_grad_()
    here = [distribute_tensor(v, mesh, [Shard(0)]).requires_grad_() for v in (weight, bias)]
    there = [v.requires_grad_() for v in (weight, bias)]
    apart = {}
    for name, loss in losses_of(classes, dtype, fast).items():
        few = ("focal mean", "cross_entropy smooth") if mesh.size() > 2 else ("",)
        if backend == "triton" and not (name.startswith(few) and ("mean" in name or name.startswith("cross_entropy"))):
            continue
        value = loss.linear(x, here[0], target, here[1], backend=backend)
        found = measured(loss, value, upstream, [x, *here])
        again = measured(loss, value, upstream, [x, *here])
        expected = measured(loss, loss(x @ there[0].T + there[1], target), upstream, [x, *there])
        apart[f"{name} {backend} {dtype} {classes}"] = max(distance(found, expected), distance(again, expected))
    return apart


def masked(mesh: DeviceMesh, classes: int) -> dict[str, float]:
    """Scores of -inf for all classes of the last rank that has any."""
    x, weight, bias, target, upstream = batch(classes, torch.float64)
    bias[-3:] = -torch.inf
    target = torch.where(target < 0, target, target % (classes - 3))
    x.requires_grad_()
    here = [distribute_tensor(v, mesh, [Shard(0)]).requires_grad_() for v in (weight, bias)]
    there = [v.requires_grad_() for v in (weight, bias)]
    apart = {}
    for name in ("cross_entropy", "hinge", "smooth_accuracy", "exact"):
        loss = lossfit.make(name, reduction="none")
        found = measured(loss, loss.linear(x, here[0], target, here[1]), upstream, [x, *here])
        expected = measured(loss, loss(x @ there[0].T + there[1], target), upstream, [x, *there])
        apart[f"{name} masked {classes}"] = distance(found, expected)
    return apart


def logits(mesh: DeviceMesh, classes: int) -> dict[str, float]:
    """Scores that come as a DTensor; with soft targets too."""
    generator = torch.Generator().manual_seed(1)
    z = 2 * torch.randn(ROWS, classes, 3, dtype=torch.float64, generator=generator)
    target = torch.randint(classes, (ROWS, 3), generator=generator)
    soft = torch.rand(z.shape, dtype=torch.float64, generator=generator)
    apart = {}
    for (name, loss), (kind, labels) in itertools.product(
        losses_of(classes, torch.float64, True).items(), {"hard": target, "soft": soft}.items()
    ):
        here, there = distribute_tensor(z, mesh, [Shard(1)]).requires_grad_(), z.clone().requires_grad_()
        upstream = torch.ones((), dtype=torch.float64)
        found = measured(loss, loss(here, labels), upstream, [here])
        apart[f"{name} {kind} {classes}"] = distance(found, measured(loss, loss(there, labels), upstream, [there]))
    return apart


def gaps(mesh: DeviceMesh, classes: int) -> float:
    """All that a gap can tell, with ties."""
    x, weight, bias, target, upstream = batch(classes, torch.float64)
    weight[classes // 2] = weight[0]
    bias[classes // 2] = bias[0]
    x.requires_grad_()
    weight_here, there = distribute_tensor(weight, mesh, [Shard(0)]).requires_grad_(), weight.requires_grad_()
    far = 0.0
    ways = [*itertools.product(("soft", "hard"), ("dense", "chunked"), (True,))]
    ways += [("soft", "triton", False), ("soft", "triton", True)] if KERNELS else []
    for kind, backend, hit in ways:
        wanted = {"mean": True, "hit": hit, "entropy": True}
        a = lossfit.linear_gap(x, weight_here, target, bias, kind, **wanted, backend=backend)
        b = lossfit.gap(x @ there.T + bias, target, kind, **wanted)
        assert not hit or torch.equal(a.hit, b.hit)
        sums = [sum((v * upstream).sum() for v in (g.target, g.rivals, g.mean, g.entropy)) for g in (a, b)]
        far = max(
            far,
            distance(
                list(torch.autograd.grad(sums[0], [x, weight_here])), list(torch.autograd.grad(sums[1], [x, there]))
            ),
        )
        pairs = [(v, w) for v, w in zip(a, b, strict=True) if v is not None and v.dtype != torch.bool]
        far = max(far, *(distance([v], [w]) for v, w in pairs))
    return far


def heads(mesh: DeviceMesh, classes: int) -> dict[str, float]:
    x, weight, _, target, upstream = batch(classes, torch.float64)
    world, rank = distributed.get_world_size(), distributed.get_rank()
    x.requires_grad_()
    apart = {}
    for name, margin in MARGINS.items():
        for way, settings in {"": {}, "norm": {"scale": "norm"}, "learnt": {"learn_scale": True, "scale": 8.0}}.items():
            alone = lossfit.CosineHead(FEATURES, classes, margin=margin, **settings).double()
            spread = lossfit.CosineHead(FEATURES, classes, margin=margin, mesh=mesh, **settings).double()
            every = lossfit.CosineHead(
                FEATURES, classes, margin=margin, mesh=mesh, sample_rate=1 - 1e-9, **settings
            ).double()
            load(alone, weight)
            load(spread, distribute_tensor(weight, mesh, [Shard(0)]))
            load(every, distribute_tensor(weight, mesh, [Shard(0)]).to_local())
            for kind, loss in {
                "cross_entropy": lossfit.CrossEntropyLoss(),
                "focal": lossfit.FocalLoss(gamma=1.5, reduction="none"),
                "smooth": lossfit.CrossEntropyLoss(label_smoothing=0.1),
                "exact": lossfit.ExactLoss(),
            }.items():
                if kind == "exact" and way and world == 2:
                    continue
                key = f"{name} {way} {kind} {classes}"
                expected = measured(alone, alone.loss(x, target, loss), upstream, [x])
                apart[key] = distance(measured(spread, spread.loss(x, target, loss), upstream, [x]), expected)
                if kind in ("cross_entropy", "focal"):  # all classes are drawn
                    found = measured(every, every.loss(x, target, loss), upstream, [x])
                    at = distribute_tensor(expected[2], mesh, [Shard(0)]).to_local()
                    found[2] = found[2].to_dense()
                    apart[f"{key} sampled"] = distance(found, [*expected[:2], at, *expected[3:]])
            z = alone(x)
            apart[f"{name} {way} scores {classes}"] = distance([spread(x)], [z])
    # Rows of their own, gathered.
    alone, spread = (
        lossfit.CosineHead(FEATURES, classes, margin=lossfit.ArcMargin(0.3), **s).double()
        for s in ({}, {"mesh": mesh, "gather": True})
    )
    load(alone, weight)
    load(spread, distribute_tensor(weight, mesh, [Shard(0)]))
    mine = torch.arange(ROWS) % world == rank
    order = torch.cat([torch.arange(ROWS)[torch.arange(ROWS) % world == r] for r in range(world)])
    expected = measured(alone, alone.loss(x[order], target[order]), upstream, [x])
    found = measured(spread, spread.loss(x[mine], target[mine]), upstream, [x])
    expected[1] = torch.where(mine.unsqueeze(1), expected[1] * world, 0.0)
    apart[f"gathered {classes}"] = distance(found, expected)
    return apart


def load(head: lossfit.CosineHead, weight: Tensor) -> None:
    with torch.no_grad():
        head.weight.copy_(weight)


def offsets(mesh: DeviceMesh, classes: int) -> dict[str, float]:
    """How far values and gradients at an offset of the scores are from those of the same rounded scores without it."""
    generator = torch.Generator().manual_seed(5)
    rounded, target = 3 * torch.randn(ROWS, classes, generator=generator), torch.arange(ROWS) % classes
    far = {}
    for name in ("cross_entropy", "focal", "hinge", "sum_hinge", "exact"):
        for smoothing, offset in itertools.product((0.0, 0.1), (1e2, -1e4, 1e6, -1e8)):
            if smoothing and name in ("sum_hinge", "exact"):
                continue
            loss, results = lossfit.make(name, label_smoothing=smoothing), []
            shifted = rounded + offset
            for scores in (shifted, (shifted.double() - offset).float()):
                z = distribute_tensor(scores, mesh, [Shard(1)]).requires_grad_()
                value = loss(z, target)
                (grad,) = torch.autograd.grad(value, z)
                results.append((value.detach(), grad.full_tensor()))
            scales = [max(1.0, r.abs().max().item()) for r in results[1]]
            pairs = zip(*results, scales, strict=True)
            far[f"offset {offset} {name} {smoothing}"] = max(((a - b).abs().max() / s).item() for a, b, s in pairs)
    return far


@limited(least_rows=4, chunk_bytes=1)  # several chunks
def run_rank(rank: int, world: int, folder: Path) -> None:
    join(rank, world, folder, timeout=300)
    quicken()
    mesh = distributed.init_device_mesh("cpu", (world,))
    classes = CLASSES[world]
    found: dict[str, object] = {
        **linear(mesh, classes, torch.float64, "chunked", fast=world != 3),
        **(linear(mesh, classes, torch.float64, "dense", fast=True) if world < 4 else {}),
        **(linear(mesh, classes, torch.float32, "chunked", fast=True) if world < 4 else {}),
        **(linear(mesh, classes, torch.float64, "triton", fast=True) if world == 4 and KERNELS else {}),
        **masked(mesh, classes),
        **logits(mesh, classes),
        **heads(mesh, classes),
        "gaps": gaps(mesh, classes),
        **offsets(mesh, classes),
    }
    (folder / f"{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


@pytest.fixture(
    scope="module",
    params=[2, *(pytest.param(world, marks=pytest.mark.slow) for world in sorted(CLASSES) if world > 2)],
    ids="{} ranks".format,
)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    return run_ranks(__file__, request.param, tmp_path_factory.mktemp("ranks"), timeout=900)


def test_values_and_gradients_are_those_of_one_process(found: list[dict[str, float]]) -> None:
    assert len(found[0]) > (100 if len(found) == 2 else 200)
    for of_rank in found:
        far = {
            key: value
            for key, value in of_rank.items()
            if not value <= (2e-6 if "float32" in key or "offset" in key else 1e-7 if "exact" in key else 1e-11)
        }
        assert not far


if __name__ == "__main__":
    run_rank(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
