"""What a step with a loss takes on this machine, against PyTorch's cross-entropy in the same rounds.

One round times every step once, the baseline first. A ratio is taken within its round, so that a change of the
machine's speed touches all alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lossfit.losses.single_label.base import SingleLabelLoss

BASELINE = "F.cross_entropy"
# Steps are repeated until a measurement takes about so many seconds.
_SECONDS = 0.03

Step = Callable[[], None]


class Cost(NamedTuple):
    """Of a step, forward and backward.

    Attributes:
        milliseconds: the median over rounds.
        ratio, low, high: to the baseline in the same round: the median and the quartiles.
        peak_mib: memory beyond the inputs, in MiB; None but on a GPU.
    """

    milliseconds: float
    ratio: float
    low: float
    high: float
    peak_mib: float | None


def steps(
    losses: Mapping[str, SingleLabelLoss],
    rows: int,
    classes: int,
    features: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> dict[str, Step]:
    """A step of cross-entropy and of each loss, on the same random numbers.

    Args:
        losses: by name.
        rows, classes: the shape of the scores.
        features: make the scores of so many features and the weight of a last layer, by ``loss.linear``, with
            gradients of both; if None, of the scores alone.
        dtype, device: of the scores, or of features and weight.
    """
    generator = torch.Generator(device).manual_seed(0)

    def drawn(*shape: int, scale: float) -> Tensor:
        return (scale * torch.randn(shape, generator=generator, device=device)).to(dtype).requires_grad_()

    target = torch.randint(classes, (rows,), generator=generator, device=device)
    forms: dict[str, Callable[[], Tensor]]
    if features is None:
        z = drawn(rows, classes, scale=3.0)
        leaves = [z]
        forms = {BASELINE: partial(F.cross_entropy, z, target)}
        forms |= {name: partial(loss, z, target) for name, loss in losses.items()}
    else:
        x, w = drawn(rows, features, scale=1.0), drawn(classes, features, scale=2 * features**-0.5)
        leaves = [x, w]
        forms = {BASELINE: lambda: F.cross_entropy(x @ w.T, target)}
        forms |= {name: partial(loss.linear, x, w, target) for name, loss in losses.items()}
    return {name: partial(_step, form, leaves) for name, form in forms.items()}


def _step(form: Callable[[], Tensor], leaves: list[Tensor]) -> None:
    for leaf in leaves:
        leaf.grad = None
    form().backward()


def measure(
    found: Mapping[str, Step], rounds: int, device: str = "cpu", timed: Callable[[], None] = lambda: None
) -> dict[str, Cost]:
    """The cost of each step, the first of which is the baseline.

    Args:
        found: the steps by name.
        rounds: 2 or more.
        device: where they work.
        timed: called ``len(found) * (rounds + 1)`` times on the way.
    """
    peaks, calls = {}, {}
    for name, step in found.items():
        step()  # what is made on first use
        peaks[name] = _peak(step, device)
        calls[name] = max(1, round(_SECONDS / _seconds(step, 1, device)))
        timed()
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, step in found.items():
            times[name].append(_seconds(step, calls[name], device))
            timed()
    base = next(iter(times.values()))
    costs = {}
    for name, taken in times.items():
        low, middle, high = statistics.quantiles([t / b for t, b in zip(taken, base, strict=True)], n=4)
        costs[name] = Cost(1e3 * statistics.median(taken), middle, low, high, peaks[name])
    return costs


def _seconds(step: Step, calls: int, device: str) -> float:
    _wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        step()
    _wait(device)
    return (time.perf_counter() - start) / calls


def _peak(step: Step, device: str) -> float | None:
    if device != "cuda":
        return None
    _wait(device)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    _wait(device)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
