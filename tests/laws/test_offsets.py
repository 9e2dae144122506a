"""The same at any offset: a loss does not know where the zero of its scores is.

Scores z + v are rounded to their type. What the loss gives in that type, in value and gradient, must be that of the
rounded scores with v taken off again in float64, where nothing is lost.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import lossfit
from helpers import INF, build, case_id, every_case
from interpreter import quicken
from lossfit import kernels
from lossfit.core.batch import Targets
from lossfit.core.class_shards import Shard

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
OFFSETS = [0.0, *(sign * size for size in (1.0, 1e2, 1e4, 1e6, 1e8) for sign in (1.0, -1.0))]
COMMON: list[dict[str, Any]] = [
    {},
    {"label_smoothing": 0.1},
    {"label_smoothing": 0.1, "weight": torch.tensor([0.5, 2.0, 1.0, 0.1, 0.7, 1.5])},
    {"temperature": 3.0, "class_prior": torch.tensor([1.0, 100.0, 3.0, 20.0, 5.0, 7.0])},
]
ROWS, CLASSES = 8, 6
pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),  # PyTorch does it
]
# EXACT is an integral: its own accuracy in float32.
ACCURACY = {"exact": 5e-5}

Loss = Callable[[Tensor, Tensor], Tensor]


def shifted(dtype: torch.dtype) -> Iterator[tuple[str, Tensor, Tensor]]:
    """The offset, scores of a type, and the same without the offset in float64."""
    generator = torch.Generator().manual_seed(3)
    plain = 2 * torch.randn(ROWS, CLASSES, generator=generator, dtype=torch.float64)
    for offset in OFFSETS:
        if abs(offset) < torch.finfo(dtype).max:
            exactly = torch.tensor(offset).to(dtype).double()
            scores = (plain + exactly).to(dtype)
            yield f"offset {offset:g}", scores, scores.double() - exactly
    lowest = torch.finfo(dtype).min
    same = torch.full((ROWS, CLASSES), lowest, dtype=dtype)
    yield "all at the lowest number", same, torch.zeros(ROWS, CLASSES, dtype=torch.float64)


def targets() -> Tensor:
    return torch.arange(ROWS) % CLASSES


def soft_targets() -> Tensor:
    return torch.randn(ROWS, CLASSES, generator=torch.Generator().manual_seed(4), dtype=torch.float64).softmax(1)


def apart(loss: Loss, truth: Loss, scores: Tensor, exact: Tensor, y: Tensor) -> Tensor:
    """How far each row's value and gradient are from the true ones, in units of what the types allow."""
    scores, exact = scores.clone().requires_grad_(), exact.clone().requires_grad_()
    value = loss(scores, y.to(torch.float32) if y.is_floating_point() else y)
    true = truth(exact, y)
    (grad,) = torch.autograd.grad(value.sum(), scores)
    (true_grad,) = torch.autograd.grad(true.sum(), exact)
    assert value.dtype == torch.float32
    far = (value - true).abs() / (1 + true.abs())
    rounding = 0.0 if grad.dtype == torch.float32 else torch.finfo(grad.dtype).eps * true_grad.abs()
    far_grad = ((grad - true_grad).abs() - rounding).clamp(min=0) / (1 + true_grad.abs().amax(1, keepdim=True))
    assert value.isfinite().all()
    return torch.maximum(far.detach(), far_grad.amax(1))


def check(
    loss: Loss,
    y: Tensor,
    dtypes: list[torch.dtype],
    most: float,
    where: str,
    every: int = 1,
    truth: Loss | None = None,
) -> None:
    """At every one of the offsets, or at some and at the lowest number, which comes last; the rows of all of them are
    one batch.
    """
    for dtype in dtypes:
        names, scores, exact = zip(*[*shifted(dtype)][::-every], strict=True)
        far = apart(loss, truth or loss, torch.cat(scores), torch.cat(exact), torch.cat([y] * len(names)))
        for name, most_of_rows in zip(names, far.view(-1, ROWS).amax(1).tolist(), strict=True):
            assert most_of_rows <= most, f"{where}, {dtype}, {name}: {most_of_rows:.1e}"


def losses(names: set[str] | None = None) -> Iterator[tuple[str, str, Any]]:
    """Every loss of the catalogue, and each once with what all losses share."""
    for i, (name, settings) in enumerate(every_case()):
        if names is not None and name not in names:
            continue
        alone = [COMMON[1 + i % 3]] if name != "cross_entropy" else COMMON[1:]
        for common in [{}, *(alone if name != "exact" else COMMON[3:])]:
            shown = f"{case_id((name, settings))} {', '.join(common)}"
            yield name, shown, build(name, reduction="none", **settings, **common)


@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_dense(labels: str) -> None:
    y = targets() if labels == "hard" else soft_targets()
    for name, shown, loss in losses({"cross_entropy", "focal", "squared"} if labels == "soft" else None):
        check(loss, y, DTYPES, ACCURACY.get(name, 4e-6), f"{shown} {labels}")


def through_kernels(loss: Loss) -> Loss:
    def run(z: Tensor, y: Tensor) -> Tensor:
        with kernels.using("triton"):
            return loss(z, y)

    return run


def through_a_layer(loss: Any, backend: str) -> Loss:
    """Features that are the scores, and a layer that passes them on."""

    def run(z: Tensor, y: Tensor) -> Tensor:
        value: Tensor = loss.linear(z, torch.eye(CLASSES, dtype=z.dtype), y, backend=backend)
        return value

    return run


def sharded(loss: Any) -> Loss:
    """Over the ranks of a group of one."""

    def run(z: Tensor, y: Tensor) -> Tensor:
        shard = Shard(None, 0, CLASSES, CLASSES, CLASSES)
        targets, settings = Targets(y, CLASSES, shard=shard), loss._settings(y.shape, z.dtype, CLASSES)
        value: Tensor = loss._each(loss._adjusted(z, targets, settings)[0], targets, settings)
        return value

    return run


@pytest.mark.parametrize("way", ["triton", "chunked", "triton chunks", "sharded"])
def test_every_backend(way: str) -> None:
    if "triton" in way:
        pytest.importorskip("triton")
        quicken()
    wrap: dict[str, Callable[[Any], Loss]] = {
        "triton": through_kernels,
        "chunked": lambda loss: through_a_layer(loss, "chunked"),
        "triton chunks": lambda loss: through_a_layer(loss, "triton"),
        "sharded": sharded,
    }
    in_kernels = "triton" in way
    some = {"cross_entropy", "hinge"} if in_kernels else {"cross_entropy", "focal", "hinge", "exact"}
    for name, shown, loss in losses(some):
        if not (
            in_kernels
            and loss._fields(Targets(targets(), CLASSES), loss._settings((ROWS,), torch.float32, CLASSES)) is None
        ):
            dtypes = DTYPES[:1] if in_kernels else DTYPES[:2]
            every = 4 if in_kernels else 1
            check(wrap[way](loss), targets(), dtypes, ACCURACY.get(name, 4e-6), f"{way}, {shown}", every)


@pytest.mark.parametrize("triton", [False, True])
def test_compiled(triton: bool) -> None:
    if triton:
        pytest.importorskip("triton")
    for name, common in [("cross_entropy", COMMON[1]), ("focal", COMMON[3]), ("hinge", {})]:
        torch._dynamo.reset()
        loss = build(name, reduction="none", **common)
        inner = through_a_layer(loss, "triton") if triton else loss
        compiled = torch.compile(inner, backend="aot_eager", dynamic=False)
        check(compiled, targets(), DTYPES[:1], 4e-6, f"compiled, {name}, {triton}", 4, truth=loss)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_the_gap_itself(backend: str) -> None:
    if backend == "triton":
        pytest.importorskip("triton")
        quicken()
    weight = COMMON[2]["weight"]

    def run(z: Tensor, y: Tensor) -> Tensor:
        gap = lossfit.gap(z, y, mean=True, entropy=True, mean_weight=weight, backend=backend)
        assert gap.over_mean is not None
        assert gap.entropy is not None
        return gap.log_odds + 3 * gap.over_mean + 5 * gap.entropy

    check(run, targets(), DTYPES if backend == "torch" else DTYPES[:1], 4e-6, backend)


@pytest.mark.parametrize("extra", ["log_prob", "hit", "entropy"])
@pytest.mark.parametrize("backend", ["chunked", "dense", "triton"])
def test_extras(extra: str, backend: str) -> None:
    if backend == "triton":
        pytest.importorskip("triton")
        quicken()
    loss = lossfit.CrossEntropyLoss(temperature=3.0)
    for offset, scores, exact in shifted(torch.float32):
        found, true = (
            getattr(loss.linear(z, torch.eye(CLASSES, dtype=z.dtype), targets(), backend=b, extras=[extra]), extra)
            for z, b in ((scores, backend), (exact, "dense"))
        )
        assert torch.allclose(found.double(), true.double(), rtol=4e-6, atol=4e-6), f"{offset}: {found}, {true}"


@pytest.mark.parametrize("masked", [-INF, "lowest"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.1}, {"temperature": 3.0}])
def test_masked_classes_are_as_in_pytorch(masked: float | str, dtype: torch.dtype, settings: dict[str, float]) -> None:
    """Scores of -inf or the type's lowest number, of rivals, of the target, and of all classes but one or two."""
    lowest = torch.finfo(dtype).min if masked == "lowest" else -INF
    z = torch.randn(6, CLASSES).to(dtype)
    z[0, 1:3], z[1, 1], z[2, 1:], z[3, :4], z[4, 2:] = (lowest,) * 5
    y = torch.tensor([0, 1, 0, 4, 2, 3])
    ours, theirs = z.clone().requires_grad_(), z.float().clone().requires_grad_()
    value = lossfit.CrossEntropyLoss(**settings, reduction="none")(ours, y)
    temperature = settings.get("temperature", 1.0)
    smoothing = settings.get("label_smoothing", 0.0)
    expected = functional.cross_entropy(theirs / temperature, y, label_smoothing=smoothing, reduction="none")
    # PyTorch adds up the masked scores first, and overflows before a smoothed loss does.
    both = expected.isfinite()
    assert torch.allclose(value[both], expected[both], rtol=1e-5, atol=1e-5)
    assert value[expected == INF].gt(1e3).all()
    (grad,) = torch.autograd.grad(value.sum(), ours)
    (expected_grad,) = torch.autograd.grad(expected.sum(), theirs)
    if smoothing:  # an infinite loss of smoothed labels has no share of them at the target
        both = z.gather(1, y.unsqueeze(1)).squeeze(1) > -INF
        grad, expected_grad = grad[both], expected_grad[both]
    assert torch.allclose(grad.float(), expected_grad, rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_three_equal_scores() -> None:
    """The case of the report: log 3, wherever they are."""
    for v in (0.0, 1e4, 1e8, -1e9, torch.finfo(torch.float32).min, torch.finfo(torch.float32).max):
        z = torch.full((1, 3), v)
        value = lossfit.CrossEntropyLoss()(z, torch.tensor([0]))
        assert value.item() == pytest.approx(1.0986123, abs=2e-7), v


@pytest.mark.parametrize("offset", [1e2, -1e4, 1e6, -1e8])
def test_scores_of_samples_and_of_chains(offset: float) -> None:
    """Losses that take scores apart or sum them up themselves: as from the same rounded scores without the offset."""
    own, rivals, emissions = (3 * torch.randn(shape) + offset for shape in ((50,), (50, 20), (9, 6, 5)))
    log_q, tags, transitions = torch.randn(20), torch.randint(5, (9, 6)), torch.randn(5, 5)
    losses = {
        "sampled": (lambda *s: lossfit.SampledSoftmaxLoss(reduction="none")(*s, log_q), (own, rivals)),
        "chain": (lambda e: lossfit.CRFLoss(reduction="none")(e, tags, transitions), (emissions,)),
    }
    for name, (loss, scores) in losses.items():
        results = []
        for given in (scores, [(s.double() - offset).float() for s in scores]):
            given = [s.clone().requires_grad_() for s in given]
            value = loss(*given)
            results.append((value.detach(), *torch.autograd.grad(value.sum(), given)))
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, rtol=4e-6, atol=4e-6, msg=lambda m, name=name: f"{name}: {m}")
