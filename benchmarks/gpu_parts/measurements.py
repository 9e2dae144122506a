"""The parts: ceilings, dense scores, features and weights, links, EXACT, and sweeps of sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from dense import links as links_of_the_catalogue
from torch import Tensor

import lossfit
from gpu_parts import peers, problems
from gpu_parts.contest import Contender, Part, contest, tell
from gpu_parts.device import spread
from gpu_parts.problems import Problem, Truth
from lossfit import kernels
from lossfit.gaps import gaussian

Sizes = dict[str, Any]
Truths = Callable[[str, Problem], Truth]


def ceilings(part: Part, sizes: Sizes) -> None:
    """How fast memory is copied and matrices are multiplied, on random numbers."""
    device, size = part.device, sizes["matrix"]
    options: dict[str, Any] = {"device": device.name, "dtype": device.dtype, "generator": device.generator()}
    a = torch.randn(sizes["copy_bytes"] // device.dtype.itemsize, **options)
    b = torch.empty_like(a)
    left, right = torch.randn(size, size, **options), torch.randn(size, size, **options)
    out = torch.empty_like(left)
    work: dict[str, tuple[Callable[[], object], float, str]] = {
        "copy": (lambda: b.copy_(a), 2 * sizes["copy_bytes"] / 1e9, "gb_per_s"),
        "matrix": (lambda: torch.mm(left, right, out=out), 2 * size**3 / 1e12, "tflop_per_s"),
    }
    for name, (run, amount, unit) in work.items():
        for _ in range(3):
            run()
        times = []
        for turn in range(sizes["rounds"][1]):
            times.append(device.milliseconds(run))
            if turn == 0:
                device.look()
        rates = spread([amount / t * 1e3 for t in times])
        part.found[name] = {unit: rates, "ms": [round(t, 4) for t in times], "clocks_while_timed": device.seen()}
        print(f"    {name}: {rates['median']:.0f} {unit}", flush=True)
        part.flush()


def dense(part: Part, sizes: Sizes) -> None:
    problem = problems.dense(part.device, sizes["dense"])
    check = problems.dense(part.device, sizes["dense_check"], seed=1)
    _cross_entropy(part, part.found, peers.dense(part.device), problem, check, sizes["rounds"], 15.0)


def linear(part: Part, sizes: Sizes) -> None:
    part.found["by_spread"] = []
    for wide in sizes["spreads"]:
        print(f"  scores of standard deviation {wide:g}")
        problem = problems.linear(part.device, sizes["linear"], wide)
        # Sharp enough for the softmax's part of the gradient to be seen.
        check = problems.linear(part.device, sizes["linear_check"], max(wide, 4.0), seed=1)
        where: dict[str, Any] = {"spread": wide}
        part.found["by_spread"].append(where)
        _cross_entropy(part, where, peers.linear(part.device), problem, check, sizes["rounds"], 20.0)
        del problem, check
        part.device.free()


def links(part: Part, sizes: Sizes) -> None:
    """Every other link against cross-entropy, from scores and from features."""
    every = links_of_the_catalogue()
    names = sizes["links"] or ["cross_entropy", *(name for name in every if name != "cross_entropy")]

    @cache
    def truth(name: str, check: Problem) -> Truth:
        """By plain PyTorch in float64."""
        loss = every[name]
        with kernels.using("torch"):
            if len(check.source) == 1:
                return problems.by_autograd(check, loss)
            return problems.by_autograd(check, lambda x, weight, y: loss(x @ weight.T, y))

    for kind in ("dense", "linear"):
        print(f"  {kind}")
        where = part.found[kind] = {}
        if kind == "dense":
            contenders = [Contender(n, lambda n=n: peers.on_kernels(every[n])) for n in names]
            problem = problems.dense(part.device, sizes["dense"])
            check = problems.dense(part.device, sizes["links_check"][::2], seed=1)
        else:
            contenders = [Contender(n, lambda n=n: peers.fused(every[n])) for n in names]
            problem = problems.linear(part.device, sizes["linear"], sizes["spreads"][0])
            check = problems.linear(part.device, sizes["links_check"], 4.0, seed=1)
        contest(part, where, contenders, problem, check, truth, sizes["links_rounds"], 20.0)
        del problem, check
        truth.cache_clear()
        part.device.free()


def exact(part: Part, sizes: Sizes) -> None:
    loss = lossfit.ExactLoss()

    def plain_pytorch(z: Tensor, y: Tensor) -> Tensor:
        with kernels.using("torch"):
            return loss(z, y)

    @cache
    def truth(_: str, check: Problem) -> Truth:
        return problems.by_autograd(check, plain_pytorch)

    part.found["by_shape"] = []
    for shape in sizes["exact"]:
        nodes = gaussian.node_count(shape[1])
        print(f"  {shape}, {nodes} nodes")
        contenders = [
            Contender("lossfit", lambda: peers.on_kernels(loss)),
            Contender("32 Gauss-Hermite nodes", lambda: gauss_hermite),
        ]
        problem = problems.dense(part.device, shape, led=True)
        check = problems.dense(part.device, (sizes["exact_check_rows"], shape[1]), seed=1, led=True)
        where: dict[str, Any] = {"nodes": nodes}
        part.found["by_shape"].append(where)
        contest(part, where, contenders, problem, check, truth, sizes["links_rounds"], 8.0)
        truth.cache_clear()
        del problem, check
        part.device.free()


def _hermite(nodes: int) -> tuple[list[float], list[float]]:
    """Places and weights for the mean over a standard normal number, from the matrix of their recurrence."""
    off = torch.arange(1, nodes, dtype=torch.float64).sqrt()
    places, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return places.tolist(), vectors[0].square().tolist()


HERMITE = _hermite(32)


def gauss_hermite(scores: Tensor, target: Tensor) -> Tensor:
    """EXACT by the usual rule, node after node."""
    z = scores.float()
    lead = z.gather(1, target.unsqueeze(1)) - z
    own = F.one_hot(target, z.shape[1]).bool()
    total = torch.zeros_like(z[:, 0])
    for x, w in zip(*HERMITE, strict=True):
        total = total + w * torch.special.log_ndtr(lead + x).masked_fill(own, 0.0).sum(1).exp()
    return (1 - total).mean()


def classes(part: Part, sizes: Sizes) -> None:
    """As many scores, of ever more classes; and rows of features, for ever more classes."""
    part.found |= {"dense": [], "linear": []}
    for count in sizes["classes"]:
        _size(part, sizes, "dense", (max(1, sizes["classes_scores"] // count), count))
        _size(part, sizes, "linear", (sizes["classes_rows"], sizes["sweep_features"], count))


def rows(part: Part, sizes: Sizes) -> None:
    part.found |= {"dense": [], "linear": []}
    for count in sizes["rows"]:
        _size(part, sizes, "dense", (count, sizes["rows_classes"]))
        _size(part, sizes, "linear", (count, sizes["sweep_features"], sizes["rows_classes"]))


def _size(part: Part, sizes: Sizes, kind: str, shape: tuple[int, ...]) -> None:
    """One size of a sweep: without what compiles for each, and unless no time is left."""
    where: dict[str, Any] = {"shape": list(shape)}
    part.found[kind].append(where)
    part.device.free()
    print(f"  {kind} {shape}", flush=True)
    if part.left() < 5:
        where |= {"contenders": {}, "status": "skipped", "why": "no time was left"}
        return
    check_rows, features = sizes["sweep_check"]
    try:
        if kind == "dense":
            problem = problems.dense(part.device, (shape[0], shape[1]))
            check = problems.dense(part.device, (check_rows, shape[1]), seed=1)
            contenders = peers.dense(part.device, others=False)
        else:
            problem = problems.linear(part.device, (shape[0], shape[1], shape[2]), sizes["spreads"][0])
            check = problems.linear(part.device, (check_rows, features, shape[2]), 4.0, seed=1)
            contenders = peers.linear(part.device, others=False)
        _cross_entropy(part, where, contenders, problem, check, sizes["sweep_rounds"], 2.0)
    except Exception as error:  # of the problem itself, as where it does not fit
        tell(part, where, error)


def _cross_entropy(
    part: Part,
    where: dict[str, Any],
    contenders: list[Contender],
    problem: Problem,
    check: Problem,
    rounds: tuple[int, int],
    seconds: float,
) -> None:
    @cache
    def truth(check: Problem) -> Truth:
        return problems.cross_entropy(check, torch.float64, keep=True)

    whole = problems.cross_entropy(problem, torch.float32, keep=False)
    if not math.isfinite(whole.loss):
        raise RuntimeError("the right loss is not finite: the benchmark's own batch is wrong")
    contest(part, where, contenders, problem, check, lambda _, c: truth(c), rounds, seconds, whole)


MEASUREMENTS: dict[str, Callable[[Part, Sizes], None]] = {
    "ceilings": ceilings,
    "dense": dense,
    "linear": linear,
    "links": links,
    "exact": exact,
    "classes": classes,
    "rows": rows,
}
