"""Runs in which one rank brings something else: all ranks must raise the same error, in time."""

from __future__ import annotations

import contextlib
import datetime
import multiprocessing
import queue
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard

import lossfit
from attacks.tally import Tally

WORLD, ROWS, WIDTH, CLASSES = 2, 6, 4, 5
_TIMEOUT = 40.0
_SOON = 20.0
"""Seconds in which an error must come; a collective alone would wait for the time-out."""


class Given:
    """What a rank brings, the same on all of them until a fault changes it."""

    def __init__(self, mesh: DeviceMesh) -> None:
        generator = torch.Generator().manual_seed(0)
        self.mesh = mesh
        self.x = torch.randn(ROWS, WIDTH, generator=generator)
        self.weight = torch.randn(CLASSES, WIDTH, generator=generator)
        self.target = torch.randint(CLASSES, (ROWS,), generator=generator)
        self.soft = torch.rand(ROWS, CLASSES, generator=generator)
        self.sample_weight: Tensor | None = torch.rand(ROWS, generator=generator)
        self.denominator: float | None = None
        self.loss: Any = lossfit.FocalLoss(gamma=1.5)
        self.soft_loss: Any = lossfit.CrossEntropyLoss()
        self.head = lossfit.CosineHead(WIDTH, CLASSES, mesh=mesh, scale=8.0, gather=True)
        self.contrastive = lossfit.InfoNCELoss(gather=True)
        self.labels: Tensor = self.target

    def spread(self, whole: Tensor, dim: int) -> Tensor:
        return self.part(whole.tensor_split(WORLD, dim)[distributed.get_rank()], whole.shape, dim)

    def part(self, here: Tensor, shape: torch.Size, dim: int) -> Tensor:
        """A DTensor, of which this rank has what it says it has."""
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(
            here.contiguous(), self.mesh, [Shard(dim)], run_check=False, shape=shape, stride=stride
        )


def _linear(g: Given) -> Any:
    return g.loss.linear(g.x, g.spread(g.weight, 0), g.target, sample_weight=g.sample_weight, denominator=g.denominator)


def _soft_linear(g: Given) -> Any:
    return g.soft_loss.linear(g.x, g.spread(g.weight, 0), g.soft)


def _logits(g: Given) -> Any:
    return g.loss(g.spread(g.x @ g.weight.T, 1), g.target)


def _soft_logits(g: Given) -> Any:
    return g.soft_loss(g.spread(g.x @ g.weight.T, 1), g.soft)


def _head(g: Given) -> Any:
    return g.head.loss(g.x, g.labels, sample_weight=g.sample_weight)


def _contrastive(g: Given) -> Any:
    return g.contrastive(g.x, g.x.flip(0), sample_weight=g.sample_weight)


def _change(name: str, change: Callable[[Any], Any]) -> Callable[[Given], None]:
    return lambda g: setattr(g, name, change(getattr(g, name)))


def _second_column(soft: Tensor) -> Tensor:
    soft = soft.clone()
    soft[:, 1] += 0.1
    return soft


class _Gap:
    """In the place of a loss: another function of the same arguments."""

    @staticmethod
    def linear(x: Tensor, weight: Tensor, target: Tensor, **_: Any) -> Tensor:
        return lossfit.linear_gap(x, weight, target).log_odds.sum()


def _focal(**settings: Any) -> Callable[[Given], None]:
    return _change("loss", lambda _: lossfit.FocalLoss(**{"gamma": 1.5, **settings}))


_COOLER = _change("contrastive", lambda _: lossfit.InfoNCELoss(0.2, gather=True))

FAULTS: list[tuple[str, Callable[[Given], Any], Callable[[Given], None], str]] = [
    ("targets", _linear, _change("target", lambda t: t.flip(0)), "`target`"),
    ("the number of rows", _linear, _change("target", lambda t: t[1:]), "`target`"),
    ("a target out of range", _linear, _change("target", lambda t: t + CLASSES), "`target`"),
    ("the type of targets", _linear, _change("target", lambda t: t.float()), "`target`"),
    ("features", _linear, _change("x", lambda x: x + 0.01), "`x`"),
    ("the width of features", _linear, _change("x", lambda x: x[:, 1:]), "`x`"),
    ("the type of features", _linear, _change("x", lambda x: x.double()), "`weight`"),
    ("the number of features", _linear, _change("x", lambda x: x[1:]), "`x`"),
    ("sample weights", _linear, _change("sample_weight", lambda w: w + 1), "`sample_weight`"),
    ("no sample weights", _linear, _change("sample_weight", lambda w: None), "`sample_weight`"),
    ("a denominator", _linear, _change("denominator", lambda d: 3.0), "`denominator`"),
    ("a hyper-parameter", _linear, _focal(gamma=2.0), "`gamma`"),
    (
        "a tensor of a hyper-parameter",
        _linear,
        _focal(gamma=torch.tensor(1.5)),
        "`gamma`",
    ),
    ("the reduction", _linear, _focal(reduction="sum"), "`reduction`"),
    ("another loss", _linear, _change("loss", lambda _: lossfit.PolyLoss()), "same"),
    (
        "weights of classes",
        _linear,
        _focal(weight=torch.ones(CLASSES)),
        "`weight of the loss`",
    ),
    ("another call", _linear, _change("loss", lambda _: _Gap()), "the same call"),
    ("the second column of soft targets", _soft_linear, _change("soft", _second_column), "`target`"),
    ("soft targets of logits", _soft_logits, _change("soft", _second_column), "`target`"),
    ("the shape of logits", _logits, _change("x", lambda x: x[1:]), "`target`|`input`"),
    ("targets of logits", _logits, _change("target", lambda t: t.flip(0)), "`target`"),
    ("the labels of a head", _head, _change("labels", lambda t: t.float()), "`target`"),
    ("the width of a head's features", _head, _change("x", lambda x: x[:, 1:]), "`x`"),
    ("the rows of two views", _contrastive, _change("x", lambda x: x.double()), "`input`"),
    (
        "the temperature of two views",
        _contrastive,
        _change("contrastive", lambda _: lossfit.InfoNCELoss(0.2, gather=True)),
        "`temperature`",
    ),
    ("weights of two views", _contrastive, _change("sample_weight", lambda w: w[1:]), "`sample_weight`"),
]
"""What one rank has otherwise, the call, the change, and what the error must name."""


def run(count: int, seed: int) -> Tally:
    tally = Tally()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["attacks.ranks"])
    order = [(seed + i) % len(FAULTS) for i in range(max(count, len(FAULTS) if count >= 20 else count))]
    for i, fault in enumerate(order):
        name, _, _, told = FAULTS[fault]
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            said = context.Queue()
            ranks = [
                context.Process(target=_rank, args=(rank, folder, fault, i % WORLD, said)) for rank in range(WORLD)
            ]
            for rank in ranks:
                rank.start()
            errors: list[str] = []
            with contextlib.suppress(queue.Empty):
                errors = [said.get(timeout=_TIMEOUT + 20) for _ in ranks]
            for rank in ranks:
                rank.join(5)
                rank.kill()
        seconds = time.monotonic() - start
        tally.add(name, _wrong(errors, told, seconds))
    return tally


def _wrong(errors: list[str], told: str, seconds: float) -> str:
    if len(errors) < WORLD:
        return f"{len(errors)} of {WORLD} ranks said anything"
    if len(set(errors)) > 1:
        return f"the ranks said different things: {errors}"
    if not any(part in errors[0] for part in told.split("|")):
        return f"{told} is not named: {errors[0]}"
    return f"it took {seconds:.0f} s" if seconds > _SOON else ""


def _rank(rank: int, folder: str, fault: int, faulty: int, said: Any) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{Path(folder) / 'store'}",
        rank=rank,
        world_size=WORLD,
        timeout=datetime.timedelta(seconds=_TIMEOUT),
    )
    _, call, change, _ = FAULTS[fault]
    given = Given(init_device_mesh("cpu", (WORLD,)))
    try:
        call(given)  # all agree
        if rank == faulty:
            change(given)
        value = call(given)
        said.put(f"no error, but {value}")
    except Exception as error:
        said.put(f"{type(error).__name__}: {error}")
    distributed.barrier()
    distributed.destroy_process_group()
