"""Contrastive losses over ranks against one process with all rows.

The ranks are processes of their own that run this file; each writes down how far it is from one process.
"""

import copy
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed

import lossfit

sys.path.append(str(Path(__file__).parents[1]))
from helpers import join, run_ranks

SIZES = {2: [(3, 4), (5, 0)], 3: [(3, 1, 4), (0, 2, 3)]}
CASES = {
    "info_nce": {},
    "info_nce-symmetric": {"symmetric": True},
    "info_nce-dot": {"similarity": "dot"},
    "nt_xent": {},
    "sup_con": {},
    "sup_con-expected_accuracy": {"loss": lossfit.ExpectedAccuracyLoss()},
}
WAYS = ("mean", "weighted mean", "sum", "none", "float32")


def case(name: str, temperature: Tensor, **settings: object) -> lossfit.Loss:
    return lossfit.make(name.split("-")[0], temperature=temperature, **CASES[name], **settings)


def gradients(
    name: str, way: str, rows: slice, model: torch.nn.Module, everything: tuple[Tensor, ...], gather: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """The value, and the gradients of the model, the temperature and the features, on some of the rows."""
    inputs, others, labels, weights = (t[rows] for t in everything)
    dtype = torch.float32 if way == "float32" else torch.float64
    model = copy.deepcopy(model).to(dtype)
    temperature = torch.nn.Parameter(torch.tensor(0.5, dtype=dtype))
    reduction = way if way in ("sum", "none") else "mean"
    loss = case(name, temperature, gather=gather, reduction=reduction)
    features = model(inputs.to(dtype))
    features.retain_grad()
    target = labels if name.startswith("sup_con") else model(others.to(dtype))
    value = loss(features, target, sample_weight=weights if way == "weighted mean" else None)
    (value * value).sum().backward() if way == "none" else value.backward()
    found = {name: p.grad for name, p in model.named_parameters()}
    return value.detach(), {**found, "temperature": temperature.grad, "features": features.grad}


def distance(found: Tensor, expected: Tensor) -> float:
    return (found.double() - expected.double()).abs().max().item() if expected.numel() else 0.0


def compare(sizes: tuple[int, ...], rank: int, ways: tuple[str, ...]) -> dict[str, float]:
    generator = torch.Generator().manual_seed(sum(sizes))
    total, world = sum(sizes), len(sizes)
    everything = (
        torch.randn(total, 4, dtype=torch.float64, generator=generator),
        torch.randn(total, 4, dtype=torch.float64, generator=generator),
        torch.randint(2, (total,), generator=generator),
        torch.rand(total, dtype=torch.float64, generator=generator),
    )
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3, dtype=torch.float64)
    rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    apart = {}
    for name in CASES:
        for way in ways:
            expected_value, expected = gradients(name, way, slice(None), model, everything, False)
            value, found = gradients(name, way, rows, model, everything, True)
            scale = 1 if way in ("sum", "none") else world
            far = distance(found["features"], expected["features"][rows] * scale)
            if way == "none":
                far = max(far, distance(value, expected_value[rows]))
            else:
                distributed.all_reduce(value)
                far = max(far, distance(value / scale, expected_value))
            for key in ("weight", "bias", "temperature"):
                distributed.all_reduce(found[key])
                far = max(far, distance(found[key] / scale, expected[key]))
            apart[f"{sizes} {name} {way}"] = far
    return apart


def in_data_parallel(sizes: tuple[int, ...], rank: int) -> float:
    """Three steps of training under DistributedDataParallel, against one process."""
    torch.manual_seed(1)
    first, second = torch.randn(2, sum(sizes), 4, dtype=torch.float64)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).double()
    alone = copy.deepcopy(model)
    rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    together = lossfit.InfoNCELoss(0.3, symmetric=True, gather=True)
    single = lossfit.InfoNCELoss(0.3, symmetric=True)
    for m, loss, at in ((parallel, together, rows), (alone, single, slice(None))):
        optimizer = torch.optim.SGD(m.parameters(), lr=0.5)
        for _ in range(3):
            optimizer.zero_grad()
            both = m(torch.cat([first[at], second[at]]))
            loss(*both.chunk(2)).backward()
            optimizer.step()
    return max(distance(a, b) for a, b in zip(model.parameters(), alone.parameters(), strict=True))


def refusal(rank: int) -> str:
    """What is said of one row in all."""
    row = torch.ones(1 if rank == 0 else 0, 3)
    try:
        lossfit.InfoNCELoss(gather=True)(row, row)
    except ValueError as error:
        return str(error)
    return ""


def run_rank(rank: int, world: int, folder: Path) -> None:
    join(rank, world, folder, timeout=300)
    found: dict[str, object] = {}
    for sizes, ways in zip(SIZES[world], (WAYS, ("mean",)), strict=True):
        found.update(compare(sizes, rank, ways))
    if world == 2:  # it takes seconds to load
        found["trained"] = in_data_parallel(SIZES[world][0], rank)
    found["empty"] = lossfit.NTXentLoss(gather=True)(torch.ones(0, 3), torch.ones(0, 3)).item()
    found["refusal"] = refusal(rank)
    found["group"] = repr(lossfit.NTXentLoss(gather=distributed.group.WORLD))
    (folder / f"{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


@pytest.fixture(
    scope="module",
    params=[2, *(pytest.param(world, marks=pytest.mark.slow) for world in sorted(SIZES) if world > 2)],
    ids="{} ranks".format,
)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    return run_ranks(__file__, request.param, tmp_path_factory.mktemp("ranks"), timeout=600)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_one_process(found: list[dict[str, float]], name: str, way: str) -> None:
    for of_rank in found:
        distances = [far for key, far in of_rank.items() if key.endswith(f") {name} {way}")]
        assert len(distances) == (2 if way == "mean" else 1)
        assert max(distances) <= (1e-6 if way == "float32" else 1e-12)


def test_training_is_that_of_one_process(found: list[dict[str, float]]) -> None:
    assert all(of_rank.get("trained", 0) <= 1e-12 for of_rank in found)


def test_an_empty_batch_is_0_and_one_row_in_all_is_refused(found: list[dict[str, object]]) -> None:
    for of_rank in found:
        assert of_rank["empty"] == 0
        assert "`input` of at least 2 rows" in of_rank["refusal"]
        assert "gather=True" in of_rank["group"]


if __name__ == "__main__":
    run_rank(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
