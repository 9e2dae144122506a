"""What one rank brings otherwise is an error on all ranks, the same one, and the ranks can go on after it."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

import lossfit

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "scripts")]
from attacks.ranks import FAULTS, Given

from helpers import join, run_ranks
from lossfit.core import roll_call

WORLD = 2


def told(rank: int) -> list[str]:
    """The error of each fault, which is now on one rank and now on the other."""
    mesh = init_device_mesh("cpu", (WORLD,))
    found = []
    for i, (_, call, change, _) in enumerate(FAULTS):
        given = Given(mesh)
        call(given)
        if rank == i % WORLD:
            change(given)
        try:
            call(given)
        except (TypeError, ValueError, IndexError) as error:
            found.append(f"{type(error).__name__}: {error}")
        else:
            found.append("")
    return found


def rounding(rank: int) -> float:
    """Features that two ranks computed each for itself."""
    mesh = init_device_mesh("cpu", (WORLD,))
    given = Given(mesh)
    given.x = given.x * (1 + 1e-7 * rank)
    return float(given.loss.linear(given.x, given.spread(given.weight, 0), given.target))


def empty(rank: int) -> dict[str, float]:
    """A rank without classes, in all that may be asked for at once."""
    mesh = init_device_mesh("cpu", (WORLD,))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, 3, dtype=torch.float64, generator=generator).requires_grad_()
    weight = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    soft = torch.rand(5, 4, dtype=torch.float64, generator=generator)
    target = torch.tensor([0, 3, 1, -100, 2])
    here = weight if rank == 0 else weight[:0]
    spread = DTensor.from_local(here, mesh, [Shard(0)], run_check=False, shape=weight.shape, stride=(3, 1))
    spread.requires_grad_()
    apart = {}
    for name, loss in (
        ("cross_entropy", lossfit.CrossEntropyLoss(label_smoothing=0.1)),
        ("focal", lossfit.FocalLoss(gamma=2.0)),
        ("hinge", lossfit.HingeLoss()),
        ("exact", lossfit.ExactLoss()),
    ):
        for kind, labels, extras in (
            ("soft", soft, ("entropy", "lse")),
            ("hard", target, ("log_prob", "hit", "entropy", "lse")),
        ):
            for backend in ("chunked", "dense"):
                for z_loss in (0.0, 0.1):
                    options = {"extras": extras, "backend": backend, "z_loss": z_loss}
                    found = loss.linear(x, spread, labels, **options)
                    expected = loss.linear(x, weight, labels, **options)
                    grads = [torch.autograd.grad(value.loss, x)[0] for value in (found, expected)]
                    far = [grads[0] - grads[1]]
                    for one, other in zip(found, expected, strict=True):
                        if isinstance(one, Tensor):
                            far.append(one.double() - other.double())
                    apart[f"{name} {kind} {backend} {z_loss}"] = max(v.abs().max().item() for v in far)
    return apart


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    return run_ranks(__file__, WORLD, tmp_path_factory.mktemp("ranks"), 300)


@pytest.mark.parametrize("fault", range(len(FAULTS)), ids=[name for name, *_ in FAULTS])
def test_all_ranks_raise_the_same(found: list[dict[str, list[str]]], fault: int) -> None:
    errors = {ranks["told"][fault] for ranks in found}
    assert len(errors) == 1, errors
    assert any(part in next(iter(errors)) for part in FAULTS[fault][3].split("|")), errors


def test_the_last_digit_of_features_is_no_difference(found: list[dict[str, float]]) -> None:
    assert found[0]["rounding"] == pytest.approx(found[1]["rounding"], rel=1e-5)


def test_a_rank_without_classes(found: list[dict[str, dict[str, float]]]) -> None:
    for ranks in found:
        assert {name: far for name, far in ranks["empty"].items() if not far < 1e-9} == {}


class TestDigest:
    """A digest of a tensor changes with any bit."""

    @pytest.mark.parametrize(
        "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.uint8]
    )
    def test_one_element(self, dtype: torch.dtype) -> None:
        value = (torch.arange(35) % 2).to(dtype)
        before = roll_call._digest(value)
        for i in (0, 7, 34):
            changed = value.clone()
            changed[i] = 1 - changed[i] if dtype != torch.bool else ~changed[i]
            assert roll_call._digest(changed) != before
        assert roll_call._digest(value.flip(0)) != before or bool((value == value.flip(0)).all())
        assert roll_call._digest(value.view(5, 7).t().contiguous().t()) == before

    def test_the_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(roll_call.VARIABLE, "never")
        assert not roll_call._looks(torch.device("cpu"))
        monkeypatch.setenv(roll_call.VARIABLE, "sometimes")
        with pytest.raises(ValueError, match="LOSSFIT_CHECK_RANKS to be always, first or never, but got 'sometimes'"):
            roll_call._looks(torch.device("cpu"))
        monkeypatch.delenv(roll_call.VARIABLE)
        monkeypatch.setattr(roll_call, "_calls", 0)
        looked = [roll_call._looks(torch.device("cuda")) for _ in range(roll_call.STEPS + 2)]
        assert looked == [True] * roll_call.STEPS + [False] * 2


if __name__ == "__main__":
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    join(rank, world, folder, 60)
    results = {"told": told(rank), "rounding": rounding(rank), "empty": empty(rank)}
    (folder / f"{rank}.json").write_text(json.dumps(results))
    distributed.destroy_process_group()
