"""A million classes on four processes of one machine, each with a quarter of the last layer.

    torchrun --nproc-per-node 4 examples/train_sharded.py                     # sampled rivals
    torchrun --nproc-per-node 4 examples/train_sharded.py --sample-rate 1     # all rivals: takes several times as long
    torchrun --nproc-per-node 2 examples/train_sharded.py --classes 10000 --steps 60

Made-up identities: every one has a code of 16 numbers, a view of it adds noise and 48 numbers that tell nothing, and a
rotation hides which are which. As with photographs, few identities have most of the views. Each rank draws rows of its
own. A small network under FSDP turns them into features, and ``CosineHead(mesh=..., gather=True)`` brings the rows to
the ranks that have their classes. The matrix of scores is never there.

Recall@1: how often, of one view each of 1,000 identities drawn evenly, the nearest to another view of an identity is
its own. Most of them were never trained on, so what rises is what the network has learnt.

At the end, the model is written by torch.distributed.checkpoint in safetensors files (which needs ``pip install
safetensors``), each rank its part, and read into a new one.
"""

from __future__ import annotations

import argparse
import datetime
import math
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard

import lossfit

CODE, INPUTS, HELD_OUT = 16, 64, 1000


class Views:
    """Views of identities. Codes are computed from the number of the identity, so nothing is stored."""

    def __init__(self, classes: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.classes = classes
        self.rotation = torch.linalg.qr(torch.randn(INPUTS, INPUTS, generator=generator))[0]
        self.frequencies = torch.rand(CODE, generator=generator, dtype=torch.float64)

    def draw(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Views and their identities: the k-th is drawn about 1 / k as often as the first."""
        even = torch.rand(rows, generator=generator, dtype=torch.float64)
        identities = ((self.classes + 1) ** even - 1).long().clamp(max=self.classes - 1)
        return self.of(identities, generator), identities

    def of(self, identities: Tensor, generator: torch.Generator) -> Tensor:
        turns = (identities.double() + 1).unsqueeze(1) * self.frequencies
        code = math.sqrt(2) * torch.cos(2 * math.pi * turns).float()
        noise = torch.randn(len(identities), INPUTS, generator=generator)
        noise[:, :CODE] *= 0.1
        noise[:, :CODE] += code
        return noise @ self.rotation


class Model(nn.Module):
    """The network, sharded by FSDP, and the head, which shards itself."""

    def __init__(self, mesh: DeviceMesh, classes: int, features: int, sample_rate: float) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(INPUTS, 256), nn.ReLU(), nn.Linear(256, features))
        fully_shard(self.network, mesh=mesh)
        self.head = lossfit.CosineHead(
            features,
            classes,
            scale=32.0,
            margin=lossfit.AdditiveMargin(0.2),
            mesh=mesh,
            gather=True,
            sample_rate=sample_rate,
        )


def recall_at_1(network: nn.Module, first: Tensor, second: Tensor) -> float:
    with torch.no_grad():
        one, other = (nn.functional.normalize(network(views)) for views in (first, second))
    right = (other @ one.T).argmax(1) == torch.arange(len(one))
    return right.float().mean().item()


def train(model: Model, views: Views, rows: int, steps: int, held_out: tuple[Tensor, Tensor]) -> None:
    rank, every = distributed.get_rank(), max(1, steps // 10)
    generator = torch.Generator().manual_seed(1 + rank)
    # SGD without momentum takes the head's sparse gradient, changes the rows it has, and keeps no state of its own.
    optimizers = (torch.optim.Adam(model.network.parameters(), 3e-3), torch.optim.SGD(model.head.parameters(), 10.0))
    start = time.perf_counter()
    for step in range(steps + 1):
        x, y = views.draw(rows, generator)
        loss = model.head.loss(model.network(x), y)
        if step % every == 0 or step == steps:
            recall = recall_at_1(model.network, *held_out)
            say(f"step {step:3}  loss {loss.item():6.2f}  recall@1 {recall:6.1%}  {time.perf_counter() - start:5.1f} s")
        if step == steps:
            break
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def save(model: Model, folder: Path) -> None:
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    checkpoint.save(model.state_dict(), storage_writer=writer)


def load(model: Model, folder: Path) -> None:
    state = model.state_dict()
    checkpoint.load(state, storage_reader=HuggingFaceStorageReader(str(folder)))
    model.load_state_dict(state)


def peak() -> int:
    """The most memory this process has had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def of_all_ranks(number: int) -> list[int]:
    own = torch.tensor([number])
    found = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(found, own)
    return torch.cat(found).tolist()


def of_rank_0(name: str) -> str:
    encoded = torch.zeros(4096, dtype=torch.uint8)
    encoded[: len(name.encode())] = torch.tensor(list(name.encode()), dtype=torch.uint8)
    distributed.broadcast(encoded, 0)
    return bytes(encoded.tolist()).rstrip(b"\0").decode()


def say(line: str) -> None:
    if distributed.get_rank() == 0:
        print(line, flush=True)


def run(options: argparse.Namespace, folder: Path) -> None:
    world = distributed.get_world_size()
    mesh = init_device_mesh("cpu", (world,))
    views, generator = Views(options.classes), torch.Generator().manual_seed(0)
    identities = torch.randperm(options.classes, generator=generator)[:HELD_OUT]
    held_out = views.of(identities, generator), views.of(identities, generator)
    before = peak()
    torch.manual_seed(0)
    model = Model(mesh, options.classes, options.features, options.sample_rate)
    say(f"{model.head}\n{options.rows} rows on each of {world} ranks")
    train(model, views, options.rows, options.steps, held_out)

    weight = options.classes * options.features * 4
    scores = options.classes * options.rows * world * 4
    say("\nmemory of a rank, in MiB        peak   before the head")
    for rank, (most, first) in enumerate(zip(of_all_ranks(peak()), of_all_ranks(before), strict=True)):
        say(f"  rank {rank} {most / 2**20:27.0f} {first / 2**20:17.0f}")
    say(f"  weight of all classes {weight / 2**20:12.0f}, of a rank {weight / world / 2**20:.0f}")
    say(f"  matrix of scores {scores / 2**20:17.0f}, which is never made")

    recall = recall_at_1(model.network, *held_out)
    save(model, folder)
    del model
    again = Model(mesh, options.classes, options.features, options.sample_rate)
    load(again, folder)
    files = sorted(folder.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files) / 2**20
    say(f"\ncheckpoint of {len(files)} files, {size:.0f} MiB")
    say(f"recall@1 {recall:.1%}, after reading it back {recall_at_1(again.network, *held_out):.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1_000_000, help="identities (default: %(default)s)")
    parser.add_argument("--features", type=int, default=128, help="length of a feature (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=64, help="rows of a rank in a step (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=40, help="default: %(default)s")
    parser.add_argument("--sample-rate", type=float, default=0.1, help="share of the classes (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, help="a folder for it, which is kept; else it is thrown away")
    options = parser.parse_args()
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", timeout=datetime.timedelta(minutes=2))
    with tempfile.TemporaryDirectory() as temporary:
        run(options, Path(of_rank_0(str(options.checkpoint or temporary))))
        distributed.barrier()  # before rank 0 throws it away
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
