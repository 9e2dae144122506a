"""Losses to test, and references that share no code with the library."""

import datetime
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

import lossfit

INF = math.inf
LOWEST = {dtype: torch.finfo(dtype).min for dtype in (torch.float32, torch.float64)}


def weak_sensitivity(p: Tensor) -> Tensor:
    """S(p) of gamma cross-entropy at gamma = 0.2. A module's function, so that losses with it pickle."""
    return 1 / (0.2 + 0.8 * p)


# What a loss cannot be made without.
REQUIRED = {"sensitivity": {"sensitivity": weak_sensitivity}}

# Settings beside the default ones, for laws that hold for all of them.
SETTINGS = {
    "gamma_cross_entropy": [{"gamma": 0.0}, {"gamma": 1.0}, {"gamma": 0.3, "floor": 0.2}],
    "focal": [{"gamma": 0.5}],
    "poly": [{"coefficients": [1.5, -0.5]}, {"coefficients": [0.7, 0.2], "form": "scaled"}],
    "generalized_cross_entropy": [{"q": 0.0}, {"q": 1.0}],
    "logistic_margin": [{"gap": "hard"}],
    "exponential_margin": [{"gap": "hard", "scale": 0.3}],
    "hinge": [{"gap": "soft"}, {"squared": True}],
    "sum_hinge": [{"squared": True}],
    "smooth_accuracy": [{"gap": "soft", "beta": 2.0}],
    "exact": [{"log": True, "sigma": 1.5}],
}


def build(name: str, **settings: object) -> lossfit.SingleLabelLoss:
    """The loss of this name, with what it requires."""
    return lossfit.make(name, **{**REQUIRED.get(name, {}), **settings})


def every_case() -> list[tuple[str, dict[str, object]]]:
    """Every loss of the registry in its default settings and in those of SETTINGS."""
    return [
        (name, settings)
        for name in lossfit.available_losses("single_label")
        for settings in [{}, *SETTINGS.get(name, [])]
    ]


def case_id(case: tuple[str, dict[str, object]]) -> str:
    name, settings = case
    return "-".join([name, *(f"{key}={value}" for key, value in settings.items())])


PATHS: list[tuple[str, dict[str, object]]] = [
    ("cross_entropy", {}),
    ("focal", {}),
    ("hinge", {}),
    ("sum_hinge", {}),
    ("exact", {}),
]
"""A loss for each path of the code: the soft gap without and with a number, the hard gap, the sum over rivals, and
EXACT's own rows. What is around a link is the same code for all losses of a path, and the link is data there."""


def promises_value_gradient(name: str, settings: dict[str, object]) -> bool:
    """Whether the gradient is the derivative of the value."""
    return not lossfit.registry.get(name).designed_gradient and not settings.get("floor")


def has_second_derivative(name: str, settings: dict[str, object]) -> bool:
    return name != "exact"


def number_settings(name: str, settings: dict[str, object]) -> dict[str, float]:
    """The loss's own numbers in a case, by the names of its attributes.

    Not a floor of 0: with a floor the loss is another one.
    """
    loss = build(name, **settings)
    found = {key: getattr(loss, key) for key in loss._hypers if key not in ("label_smoothing", "temperature")}
    return {key: value for key, value in found.items() if key != "floor" or value > 0}


def with_numbers(
    name: str, settings: dict[str, object], numbers: dict[str, object], **common: object
) -> lossfit.SingleLabelLoss:
    """The loss of a case with some of its numbers replaced."""
    settings = {**settings, **common}
    if name == "poly":
        each = {**number_settings(name, {k: v for k, v in settings.items() if k == "coefficients"}), **numbers}
        settings["coefficients"] = list(each.values())
    else:
        settings.update(numbers)
    return build(name, **settings)


def torch_gap(z: Tensor, y: Tensor, kind: str = "soft") -> tuple[Tensor, Tensor]:
    """Target and rival score by PyTorch's own logsumexp and amax, differentiable. (N, C, ...)"""
    at = y.unsqueeze(1)
    own = z.gather(1, at).squeeze(1)
    others = z.scatter(1, at, -INF)
    return own, others.logsumexp(1) if kind == "soft" else others.amax(1)


def class_last(z: Tensor) -> Tensor:
    """(N, C, d1, ...) -> (rows, C)."""
    return z.movedim(1, -1).reshape(-1, z.shape[1])


def run_ranks(file: str, world: int, folder: Path, timeout: float, *more: str) -> list[dict[str, Any]]:
    """Run a file as so many processes, with rank, world, folder and more as arguments; what each wrote to RANK.json."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    started = []
    for rank in range(world):
        with (folder / f"{rank}.log").open("w") as log:
            command = [sys.executable, file, str(rank), str(world), str(folder), *more]
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    try:
        codes = [process.wait(timeout=timeout) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert not any(codes), "".join((folder / f"{rank}.log").read_text() for rank in range(world))
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]


def join(rank: int, world: int, folder: Path, timeout: float) -> None:
    """Make this process one of the ranks."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=timeout),
    )
