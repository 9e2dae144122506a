"""Chunks by kernels: parts of rows, memory, the operators, and real size."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

import lossfit
from lossfit import kernels
from lossfit.core.limits import Limits, limited
from lossfit.linear import budget
from lossfit.linear.job import GapProgram

pytest.importorskip("triton")
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.row_stats import RowInputs, RowStats, Upstream, Wanted
from lossfit.gaps.fields import to_gap
from lossfit.kernels import launch
from lossfit.kernels.launch import Scoring
from lossfit.linear import compiled

pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch does it
HALF = [torch.bfloat16, torch.float16]


def layer(
    rows: int, features: int, classes: int, dtype: torch.dtype, device: str, sure: float = 0.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, weight, bias, targets; with ``sure`` rows lean that far to a class, most of them to their target."""
    weight, bias = torch.randn(classes, features), torch.randn(classes)
    target = torch.randint(classes, (rows,))
    x = torch.randn(rows, features) / features**0.5 + sure * F.normalize(weight[target])
    target[::4] = torch.randint(classes, (len(target[::4]),))
    made = [t.to(device, dtype).requires_grad_() for t in (x, weight, bias)]
    return made[0], made[1], made[2], target.to(device)


def far(found: Tensor, true: Tensor) -> float:
    return ((found.double() - true).norm() / true.norm()).item()


def truth(of: list[Tensor], target: Tensor) -> list[Tensor]:
    """Cross-entropy and its gradients in float64."""
    x, weight, bias = (t.detach().double().requires_grad_() for t in of)
    value = F.cross_entropy(x @ weight.T + bias, target)
    return [value.detach(), *torch.autograd.grad(value, [x, weight, bias])]


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("kind", ["soft", "hard"])
@limited(kernel_block=32)
def test_rows_in_parts(kind: str, entropy: bool, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows of many classes are worked on by several programs each: the same fields and gradients."""
    z, y = 3 * torch.randn(3, 150, dtype=torch.float64, device=device), torch.tensor([149, 0, 31], device=device)
    z[0, 20:] = z[0, :1]
    valid = torch.tensor([True, True, False], device=device)
    weight, hard = torch.rand(150, dtype=torch.float64, device=device), kind == "hard"
    here = torch.tensor([True, False, True], device=device)
    for where in (None, here):
        rows = RowInputs(y, valid, where, None if where is None else z[:, 7].clone(), weight)
        given = z, rows, Wanted(hard, True, True, entropy)
        whole = launch.forward(*given)
        monkeypatch.setattr(launch, "_programs", lambda device: 10)
        parts = launch.forward(*given)
        for a, b in zip(whole, parts, strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                assert a.shape == b.shape
                assert (b[2] == 0).all()
                assert_close(a, b, rtol=1e-14, atol=1e-14)
        one = torch.ones_like(whole.own) + 0.5
        rest = rows, whole, Upstream(-one, one, one, one if entropy and not hard else None), hard
        split = launch.backward(z, *rest)
        monkeypatch.undo()
        assert_close(launch.backward(z, *rest), split, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_scores_are_made_of_logits_on_the_way(dtype: torch.dtype, device: str) -> None:
    """Capped, divided and shifted, as near to the truth as the same in plain PyTorch; also where the cap is flat."""
    logits = (
        torch.randn(6, 40, device=device) * torch.tensor([1e-4, 1e-2, 1.0, 10.0, 300.0, 1.0], device=device)[:, None]
    )
    logits = logits.to(dtype)
    y, shift = torch.arange(6, device=device), torch.randn(40, device=device, dtype=torch.float64)
    divisor = torch.linspace(0.5, 2, 6, device=device, dtype=torch.float64)
    own_type = accumulation_dtype(logits)

    def plain(z: Tensor, kind: torch.dtype) -> tuple[list[Tensor], Tensor]:
        z = z.to(kind).requires_grad_()
        scores = 5.0 * torch.tanh(z / 5.0) / divisor.to(kind)[:, None] + shift.to(kind)
        found = lossfit.gap(scores, y, mean=True, entropy=True, backend="torch")
        fields = [found.target, found.rivals, found.mean, found.entropy]
        return [f.detach() for f in fields], torch.autograd.grad(sum(f.sum() for f in fields), z)[0]

    exact, exact_grad = plain(logits, torch.float64)
    usual, usual_grad = plain(logits, own_type)
    scoring = Scoring(5.0, divisor.to(own_type), shift.to(own_type))
    rows = RowInputs(y)
    stats = launch.forward(logits, rows, Wanted(False, True, True, True), scoring)
    leaves = {n: getattr(stats, n).requires_grad_() for n in Upstream._fields}
    gap = to_gap(stats, rows, 40, *scoring[1:3])
    rounding = 50 * torch.finfo(own_type).eps
    made = gap.target, gap.rivals, gap.mean, gap.entropy
    for value, other, true in zip(made, usual, exact, strict=True):
        assert (value - true).abs().max() <= (other - true).abs().max() + rounding * true.abs().max()
    scores = 5.0 * torch.tanh(logits.double() / 5.0) / divisor[:, None] + shift
    assert gap.hit.tolist() == (scores.argmax(1) == y).tolist()
    upstream = Upstream(*torch.autograd.grad(sum(v.sum() for v in made), list(leaves.values())))
    stats = RowStats(*(v.detach() for v in stats))
    grad = launch.backward(logits, rows, stats, upstream, False, scoring=scoring)
    cut = 2 * torch.finfo(dtype).eps if dtype == torch.bfloat16 else 0.0
    error = (grad.double() - exact_grad).abs()
    assert (error <= (usual_grad.double() - exact_grad).abs().max() + (rounding + cut) * exact_grad.abs() + 1e-7).all()
    if dtype == torch.float32:  # relatively precise near 0
        own = gap.target.detach()
        assert far(own[:2] * divisor[:2] - shift[:2] * divisor[:2], logits.double()[[0, 1], [0, 1]]) < 1e-2


def test_the_chunks_fit_the_memory() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    gib = 1 << 30
    # A language model's head on a GPU: no float32 sum of the weight's gradient, and chunks of many rows.
    found = budget.allot(16384, 128_256, 4096, torch.bfloat16, cuda)
    assert not found.exact
    assert 1024 <= found.height < 16384
    assert found.height % 128 == 0
    assert found.height * 128_256 * 2 < gib
    # With memory for it there is one; float16 always has it.
    more = budget.allot(16384, 128_256, 4096, torch.bfloat16, cuda, 6 * gib)
    assert more.exact
    assert more.height * 128_256 * 2 + 128_256 * 4096 * 4 <= 6 * gib
    assert budget.allot(16384, 128_256, 4096, torch.float16, cuda).exact
    # Two at a time are half as high, and there are always some rows.
    assert budget.allot(10_000, 1000, 8, torch.float32, cpu, 1 << 22, buffers=2).height <= 524
    assert budget.allot(10_000, 10**9, 8, torch.float32, cpu, 1).height == Limits().least_rows
    assert budget.allot(0, 5, 8, torch.float32, cpu).height == 1
    heights = [budget.allot(rows, 1000, 8, torch.float32, cpu, 1 << 22).height for rows in (100, 1048, 1049, 5000)]
    assert heights == [100, 1048, 640, 1024]


@pytest.mark.parametrize("memory", [1, 1 << 30])
@pytest.mark.parametrize("dtype", HALF)
@limited(least_rows=16)
def test_half_precision_is_as_exact_as_without_chunks(dtype: torch.dtype, memory: int, device: str) -> None:
    """With a float32 sum of the weight's gradient, and with bfloat16 rounded once a chunk: 4 chunks."""
    *of, target = layer(64, 32, 90, dtype, device)
    true = truth(of, target)
    plain = torch.autograd.grad(F.cross_entropy(of[0] @ of[1].T + of[2], target), of)
    value = lossfit.CrossEntropyLoss().linear(of[0], of[1], target, of[2], backend="triton", memory=memory)
    assert value.dtype == torch.float32
    assert abs(value - true[0]) < 1e-2
    for found, other, exact in zip(torch.autograd.grad(value, of), plain, true[1:], strict=True):
        assert found.dtype == dtype
        # The interpreter cuts bfloat16 off where a GPU rounds.
        assert far(found, exact) <= 1.2 * far(other, exact) + (4e-3 if dtype == torch.bfloat16 else 1e-4)


LOSSES = [
    lossfit.CrossEntropyLoss(label_smoothing=0.1, weight=torch.rand(7), class_prior=torch.rand(7), temperature=2.0),
    lossfit.FocalLoss(1.5, reduction="none"),
    lossfit.HingeLoss(reduction="sum"),
    lossfit.LinkLoss(lambda d: F.softplus(1 - d)),
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@limited(least_rows=4, chunk_bytes=1)
def test_compiled_whole(loss: lossfit.SingleLabelLoss, device: str) -> None:
    loss = loss.to(device)
    *of, target = layer(9, 5, 7, torch.float32, device)
    target[2] = -100
    with torch.no_grad():
        of[0][2] = torch.nan

    def step(x: Tensor, weight: Tensor, bias: Tensor, backend: str) -> Tensor:
        z_loss = 0.0 if isinstance(loss, lossfit.HingeLoss) else 0.1
        return loss.linear(x, weight, target, bias, backend=backend, softcap=9.0, z_loss=z_loss).sum()

    value = torch.compile(step, fullgraph=True, backend="aot_eager")(*of, "triton")
    expected = step(*of, "chunked")
    assert_close(value, expected, rtol=1e-5, atol=1e-6)
    for a, b in zip(torch.autograd.grad(value, of), torch.autograd.grad(expected, of), strict=True):
        assert_close(a, b, rtol=1e-4, atol=1e-6)


@limited(least_rows=2)
def test_operators_keep_their_promises(device: str) -> None:
    x, weight, bias, target = layer(3, 4, 5, torch.float32, device)
    valid, per_class, per_row = target > 0, torch.rand(5, device=device), torch.rand(3, device=device) + 0.5
    settings = 3.0, False, True, True, True, 1
    torch.library.opcheck(compiled._forward, (x, weight, bias, target, valid, per_class, per_row, per_class, *settings))
    torch.library.opcheck(compiled._forward, (x, weight, None, target, *(None,) * 4, 0.0, True, *(False,) * 3, None))
    g = [torch.rand(3, device=device) for _ in range(7)]
    given = (t.detach() for t in (x, weight, bias))
    rest = (target, valid, per_class, per_row, per_class, *g, 3.0, False, 1)
    torch.library.opcheck(compiled._backward, (*given, *rest, [True, False, True]))
    how = False, 3.0, per_row, torch.rand(4, device=device)
    given = x.detach().clone(), None, target, valid, None, None, None, *g, *how
    torch.library.opcheck(launch._backward_into, given)


@pytest.mark.parametrize("classes", [1, 2])
def test_few_classes_and_no_rows(classes: int, device: str) -> None:
    *of, target = layer(3, 4, classes, torch.float32, device)
    for rows in (3, 0):
        x = of[0][:rows]
        values = [
            lossfit.CrossEntropyLoss().linear(x, of[1], target[:rows], of[2], backend=b) for b in ("triton", "dense")
        ]
        assert_close(*values)
        for a, b in zip(*(torch.autograd.grad(v, of, allow_unused=True) for v in values), strict=True):
            assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_rows_of_any_layout(device: str) -> None:
    """Features and weights whose rows are not next to each other, or are columns of something else."""
    *of, target = layer(6, 4, 5, torch.float32, device)
    x, weight = (t.detach() for t in of[:2])
    loss = lossfit.FocalLoss()
    strange = [(x.t().contiguous().t(), weight.t().contiguous().t()), (torch.stack([x, x], 2)[..., 0], weight[:, :])]
    strange.append((x[:1].expand(6, 4), torch.cat([weight, weight], 1)[:, :4]))
    for a, b in strange:
        found, expected = (
            torch.autograd.grad(loss.linear(*pair, target, backend=backend), pair)
            for backend, pair in (
                ("triton", [a.detach().requires_grad_(), b.detach().requires_grad_()]),
                ("dense", [a.detach().clone().requires_grad_(), b.detach().clone().requires_grad_()]),
            )
        )
        for v, e in zip(found, expected, strict=True):
            assert_close(v, e, rtol=1e-5, atol=1e-7)


def test_the_gradient_takes_the_place_of_the_scores(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call of the kernel writes where it reads; losses of the scores themselves are worked on by PyTorch."""
    seen: list[bool] = []
    real = launch.backward
    monkeypatch.setattr(launch, "backward", lambda z, *a, **k: (seen.append(z is a[4]), real(z, *a, **k))[1])
    *of, target = layer(6, 4, 5, torch.float32, device)
    lossfit.CrossEntropyLoss(temperature=2.0).linear(*of[:2], target, of[2], backend="triton", softcap=4.0).backward()
    assert seen == [True]


X, WEIGHT, TARGET = torch.randn(3, 4), torch.randn(5, 4), torch.tensor([0, 1, 4])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": X.to(torch.float8_e5m2), "weight": WEIGHT.to(torch.float8_e5m2)}, TypeError, "got torch.float8_e5m2"),
        ({"x": X.to("meta"), "weight": WEIGHT.to("meta"), "target": TARGET.to("meta")}, ValueError, "got one on meta"),
        ({"target": TARGET + 1}, IndexError, r"class indices in \[0, 5\)"),
        ({"memory": 0}, ValueError, "`memory` to be a number of bytes of at least 1, or None, but got 0"),
        ({"memory": 1.5}, ValueError, "`memory` .* but got 1.5"),
    ],
)
def test_bad_input(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    given = {"x": X, "weight": WEIGHT, "target": TARGET, "backend": "triton", **arguments}
    with pytest.raises(error, match=message):
        lossfit.CrossEntropyLoss().linear(**given)
    with pytest.raises(error, match=message):
        lossfit.linear_gap(**given)


def test_a_cpu_without_the_interpreter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    for call in (lossfit.CrossEntropyLoss().linear, lossfit.linear_gap, lossfit.ZLPRLoss().linear):
        target = torch.ones(3, 5) if call == lossfit.ZLPRLoss.linear else TARGET
        with pytest.raises(ValueError, match=r"Expected CUDA tensors .* but got one on cpu"):
            call(X, WEIGHT, target if "ZLPR" not in str(call) else torch.ones(3, 5), backend="triton")
    assert not kernels.available(X)
    assert lossfit.CrossEntropyLoss().linear(X, WEIGHT, TARGET).isfinite()


def test_inside_of_a_transformation_it_is_refused() -> None:
    loss = lossfit.CrossEntropyLoss()
    with pytest.raises(ValueError, match=r"'auto' or 'dense' inside of torch\.func, but got 'triton'"):
        torch.func.grad(lambda w: loss.linear(X, w, TARGET, backend="triton"))(WEIGHT)


def test_what_is_no_gap_has_no_form() -> None:
    """Soft targets, smoothed ones but for cross-entropy, EXACT, and a learnt temperature."""
    forms: list[GapProgram | None] = []
    seen = pytest.MonkeyPatch()
    real = lossfit.linear.chunked.run
    seen.setattr(lossfit.linear.chunked, "run", lambda job, layer: (forms.append(job.form), real(job, layer))[1])
    temperature = torch.nn.Parameter(torch.tensor(2.0))
    soft = torch.rand(3, 5)
    for loss, target, has in (
        (lossfit.CrossEntropyLoss(label_smoothing=0.1), TARGET, True),
        (lossfit.GammaCrossEntropyLoss(torch.nn.Parameter(torch.tensor(0.3))), TARGET, True),
        (lossfit.FocalLoss(label_smoothing=0.1), TARGET, False),
        (lossfit.CrossEntropyLoss(), soft, False),
        (lossfit.SumHingeLoss(), TARGET, False),
        (lossfit.ExactLoss(), TARGET, False),
        (lossfit.CrossEntropyLoss(temperature=temperature), TARGET, False),
    ):
        loss.linear(X, WEIGHT, target)
        assert (forms[-1] is not None) == has, loss
    seen.undo()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_at_real_size(dtype: torch.dtype) -> None:
    """Against float64 truth and plain PyTorch of the same type; the host never waits."""
    *of, target = layer(1024, 256, 32_003, dtype, "cuda")
    true = truth(of, target)
    plain = torch.autograd.grad(F.cross_entropy(of[0] @ of[1].T + of[2], target), of)
    loss = lossfit.CrossEntropyLoss()
    loss.linear(of[0], of[1], target, of[2]).backward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        value = loss.linear(of[0], of[1], target, of[2], memory=32 << 20)
        found = torch.autograd.grad(value, of)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for v, other, exact in zip(found, plain, true[1:], strict=True):
        assert far(v, exact) <= 1.2 * far(other, exact) + 1e-6


@pytest.mark.gpu
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_compiled_at_real_size(reduction: str) -> None:
    *of, target = layer(512, 128, 50_257, torch.bfloat16, "cuda")
    loss = lossfit.FocalLoss(reduction=reduction)

    def step(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return loss.linear(x, weight, target, bias, backend="triton").sum()

    found, expected = (f(*of) for f in (torch.compile(step, fullgraph=True), step))
    assert_close(found, expected, rtol=1e-3, atol=1e-3)
    for a, b in zip(torch.autograd.grad(found, of), torch.autograd.grad(expected, of), strict=True):
        assert far(a, b.double()) < 1e-2


@pytest.mark.gpu
def test_a_graph_is_captured_and_replayed() -> None:
    x, weight, bias, target = layer(512, 128, 20_011, torch.bfloat16, "cuda")
    loss = lossfit.CrossEntropyLoss()

    def step() -> Tensor:
        x.grad = weight.grad = bias.grad = None
        value = loss.linear(x, weight, target, bias, backend="triton")
        value.backward()
        return value

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = step()
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
        target.copy_(torch.randint_like(target, 20_011))
    graph.replay()
    torch.cuda.synchronize()
    found = [v.clone() for v in (value.detach(), x.grad, weight.grad, bias.grad)]
    assert_close(found[0], step().detach())
    for a, b in zip(found[1:], (x.grad, weight.grad, bias.grad), strict=True):
        assert_close(a, b)


@pytest.mark.gpu
def test_more_classes_than_32_bits_count() -> None:
    classes = (1 << 31) + 5
    z = torch.zeros(1, classes, dtype=torch.float16, device="cuda")
    z[0, -1], y = 30.0, torch.tensor([classes - 1], device="cuda")
    found = launch.forward(z, RowInputs(y), Wanted(hit=True))
    assert_close((found.top + found.log_sum).cpu(), torch.tensor([classes - 1.0]).log(), rtol=1e-4, atol=0)
    assert found.own.item() == 30.0
    assert found.hit.item()
