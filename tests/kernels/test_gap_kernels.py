"""The gap's kernels against float64 truth and against plain PyTorch of the same type."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

import lossfit
from helpers import INF, LOWEST, class_last, torch_gap
from lossfit.core.limits import limited

pytest.importorskip("triton")
from lossfit.core.numerics import accumulation_dtype
from lossfit.core.row_stats import RowInputs, RowStats, Upstream, Wanted, join
from lossfit.gaps.blocks import backward_block, forward_block
from lossfit.kernels import launch

KINDS = ["soft", "hard"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 2e-6, torch.float16: 2e-6, torch.float64: 1e-14}


def batch(rows: int, classes: int, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, targets, which rows count, weights."""
    z = (3 * torch.randn(rows, classes)).to(dtype)
    valid = torch.arange(rows) % 3 != 1
    made = z, torch.randint(classes, (rows,)), valid, torch.rand(classes)
    return tuple(v.to(device) for v in made)


def truth(z: Tensor, y: Tensor, kind: str, weight: Tensor | None = None) -> tuple[Tensor, ...]:
    """Target, rivals, mean relative to the target's constant score, and entropy among the rivals of scores (N, C), by
    PyTorch's own functions in float64.
    """
    own, rivals = torch_gap(z, y, kind)
    apart = torch.ones(z.shape[1], dtype=z.dtype, device=z.device) if weight is None else weight.double()
    mean = ((z - own.detach().unsqueeze(1)).scatter(1, y.unsqueeze(1), 0.0) * apart).mean(1)
    log_q = z.scatter(1, y.unsqueeze(1), -1e3).log_softmax(1)
    return own, rivals, mean, -(log_q.exp() * log_q).sum(1)


def numbers(stats: RowStats) -> tuple[Tensor | None, ...]:
    """What :func:`truth` tells."""
    return stats.own, stats.top + stats.log_sum, stats.mean, stats.among


def upstream(like: Tensor, kind: str) -> Upstream:
    """Gradients of target, rivals, mean and entropy among the rivals."""
    own, log_sum, mean, among = (torch.randn_like(like) for _ in range(4))
    return Upstream(own, log_sum, mean, None if kind == "hard" else among)


def error(value: Tensor, exact: Tensor) -> float:
    return (value.double() - exact.double()).abs().max().item() if exact.numel() else 0.0


def cut_off(exact: Tensor, dtype: torch.dtype) -> float:
    """The interpreter cuts bfloat16 off where a GPU rounds to nearest."""
    if dtype != torch.bfloat16 or exact.is_cuda:
        return 0.0
    return torch.finfo(dtype).eps * exact.abs().max().item()


@pytest.fixture
def block(request: pytest.FixtureRequest) -> Iterator[int]:
    with limited(kernel_block=request.param):
        yield request.param


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("classes", "block"), [(5, 4096), (37, 16), (48, 16), (5000, 4096)], indirect=["block"])
def test_as_near_to_the_truth_as_pytorch(kind: str, dtype: torch.dtype, classes: int, block: int, device: str) -> None:
    """One block, many with a rest, many without, and the usual one with a rest."""
    z, y, valid, weight = batch(4, classes, dtype, device)
    exact_z = z.double().clone().requires_grad_()
    exact = truth(exact_z, y, kind, weight)
    rows, wanted = RowInputs(y, weight=weight), Wanted(kind == "hard", True, True, kind == "soft")
    found, by_torch = launch.forward(z, rows, wanted), forward_block(z, rows, wanted)
    assert found.hit is not None
    assert found.hit.tolist() == (z.argmax(1) == y).tolist()
    for value, other, true in zip(numbers(found), numbers(by_torch), exact, strict=True):
        if value is None or other is None:
            assert kind == "hard"
            assert value is other
            continue
        assert value.dtype == accumulation_dtype(z)
        scale = max(1.0, true.abs().max().item())
        assert error(value, true) <= error(other, true) + ROUNDING[dtype] * scale
    grads = upstream(found.own, kind)
    pairs = [(v, g.double()) for v, g in zip(exact, grads, strict=True) if g is not None]
    (true,) = torch.autograd.grad([v for v, _ in pairs], exact_z, [g for _, g in pairs])
    grad = launch.backward(z, rows, found, grads, kind == "hard")
    assert grad.dtype == dtype
    other = backward_block(z, rows, found, grads, kind == "hard")
    assert error(grad, true) <= error(other, true) + 5 * ROUNDING[dtype] + cut_off(true, dtype)
    # Rows that do not count get 0 everywhere, and the others are as they were.
    some = launch.forward(z, rows._replace(valid=valid), wanted)
    for value, all_rows in zip(some, found, strict=True):
        if value is not None:
            assert (value[~valid] == 0).all()
            assert torch.equal(value[valid], all_rows[valid])
    some_grad = launch.backward(z, rows._replace(valid=valid), found, grads, kind == "hard")
    assert (some_grad[~valid] == 0).all()
    assert torch.equal(some_grad[valid], grad[valid])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_gradient_is_the_float32_one_rounded_once(dtype: torch.dtype, device: str) -> None:
    z, y, _, weight = batch(5, 33, dtype, device)
    rows = RowInputs(y, weight=weight)
    stats = launch.forward(z, rows, Wanted(mean=True, entropy=True))
    rest = rows, stats, upstream(stats.own, "soft"), False
    grad, in_float32 = launch.backward(z, *rest), launch.backward(z.float(), *rest)
    if cut_off(in_float32, dtype):
        in_float32 = (in_float32.view(torch.int32) >> 16 << 16).view(torch.float32)
    assert torch.equal(grad, in_float32.to(dtype))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [1, 3, 20])
def test_nothing_is_left_of_what_the_memory_held(kind: str, classes: int, device: str, dirty_memory: None) -> None:
    z, y, valid, _ = batch(6, classes, torch.float32, device)
    z[~valid] = torch.nan
    rows, hard = RowInputs(y, valid), kind == "hard"
    found = launch.forward(z, rows, Wanted(hard, True, True, True))
    grad = launch.backward(z, rows, found, upstream(found.own, kind), hard)
    for value in (*found, grad):
        assert value is None or not value.isnan().any()
        assert value is None or (value[~valid] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_infinite_scores(kind: str, dtype: torch.dtype, device: str) -> None:
    z = torch.tensor(
        [[1.0, -INF, 2.0, -INF], [-INF, 0.0, 1.0, 2.0], [5.0, -INF, -INF, -INF], [-INF, 3.0, -INF, 3.0]],
        dtype=dtype,
        device=device,
    )
    y = torch.tensor([0, 0, 0, 1], device=device)
    rows, hard = RowInputs(y), kind == "hard"
    stats = launch.forward(z, rows, Wanted(hard, False, True, True))
    own, rivals, _, among = numbers(stats)
    assert own.tolist() == [1.0, -INF, 5.0, 3.0]
    three = 2.0 if hard else math.log(1 + math.exp(1) + math.exp(2))
    by_hand = torch.tensor([2.0, three, LOWEST[dtype], 3.0], dtype=torch.float64)
    assert_close(rivals.double().cpu(), by_hand, rtol=1e-6, atol=0)
    assert stats.hit.tolist() == [False, False, True, True]
    if not hard:
        *_, exact = truth(torch.where(z == -INF, -1e4, z.double()), y, kind)
        assert_close(among.double()[[0, 1, 3]], exact[[0, 1, 3]], rtol=1e-6, atol=1e-6)
    one = torch.ones_like(own)
    grad = launch.backward(z, rows, stats, Upstream(-one, one), hard)
    assert grad.isfinite().all()
    assert grad[2].tolist() == [-1.0, 0.0, 0.0, 0.0]
    assert grad[3].tolist() == [0.0, -1.0, 0.0, 1.0]


def test_scores_that_are_no_numbers_are_seen(device: str) -> None:
    z = torch.tensor([[1.0, torch.nan, 0.0], [torch.nan, 1.0, 0.0], [2.0, 1.0, 0.0]], device=device)
    y = torch.zeros(3, dtype=torch.int64, device=device)
    for hard in (False, True):
        stats = launch.forward(z, RowInputs(y), Wanted(hard, True, True, True))
        own, rivals, mean, among = numbers(stats)
        assert own.isnan().tolist() == [False, True, False]
        assert rivals.isnan().tolist() == [True, False, False]
        assert mean.isnan().tolist() == [True, True, False]
        assert stats.hit.tolist() == [False, False, True]
        assert hard or among.isnan().tolist() == [True, False, False]


@pytest.mark.parametrize("kind", KINDS)
def test_ties(kind: str, device: str) -> None:
    z = torch.tensor([[2.0, 2.0, 1.0, 2.0], [2.0, 2.0, 2.0, 0.0]], device=device)
    y = torch.tensor([1, 0], device=device)
    rows, hard = RowInputs(y), kind == "hard"
    stats = launch.forward(z, rows, Wanted(hard, hit=True))
    assert stats.hit.tolist() == [False, True]
    grad = launch.backward(z, rows, stats, Upstream(log_sum=torch.ones_like(stats.own)), hard)
    expected = [[0.5, 0.0, 0.0, 0.5], [0.0, 0.5, 0.5, 0.0]]
    if kind == "soft":
        shares = z.scatter(1, y.unsqueeze(1), -INF).softmax(1)
        assert_close(grad, shares, rtol=1e-6, atol=0)
    else:
        assert grad.tolist() == expected


def test_a_target_far_ahead_keeps_the_digits_of_its_rivals(device: str) -> None:
    z = torch.tensor([[1000.0, 0.25, -1.0, -2.0]], device=device)
    y = torch.zeros(1, dtype=torch.int64, device=device)
    stats = launch.forward(z, RowInputs(y), Wanted())
    assert_close(stats.top + stats.log_sum, z[:, 1:].logsumexp(1), rtol=1e-6, atol=0)
    assert lossfit.gap(z, y, entropy=True, backend="triton").entropy.item() == 0
    grad = launch.backward(z, RowInputs(y), stats, Upstream(log_sum=torch.ones_like(stats.own)), False)
    assert_close(grad[:, 1:], z[:, 1:].softmax(1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_one_class_and_no_rows(kind: str, device: str) -> None:
    hard = kind == "hard"
    z = torch.tensor([[3.0], [4.0]], device=device)
    y = torch.zeros(2, dtype=torch.int64, device=device)
    found = lossfit.gap(z, y, kind, mean=True, hit=True, entropy=not hard, backend="triton")
    assert found.target.tolist() == found.mean.tolist() == [3.0, 4.0]
    assert_close(found.rivals.cpu(), torch.full((2,), LOWEST[torch.float32]))
    assert found.hit.tolist() == [True, True]
    assert hard or found.entropy.tolist() == [0.0, 0.0]
    for shape in ((0, 3), (0, 3, 2), (2, 3, 0)):
        none = torch.zeros(shape, device=device, requires_grad=True)
        y = torch.zeros(shape[0], *shape[2:], dtype=torch.int64, device=device)
        found = lossfit.gap(none, y, kind, mean=True, hit=True, entropy=True, backend="triton")
        assert all(v.shape == y.shape for v in found)
        assert torch.autograd.grad(found.log_odds.sum() + found.entropy.sum(), none)[0].shape == shape


LAYOUTS = {
    "columns first": lambda z: z.t().contiguous().t(),
    "every other row": lambda z: z.repeat_interleave(2, 0)[::2],
    "every other column": lambda z: z.repeat_interleave(2, 1)[:, ::2],
    "part of the columns": lambda z: torch.cat([z, z + 1], 1)[:, : z.shape[1]],
    "one row repeated": lambda z: z[:1].expand(z.shape),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_of_any_layout(layout: str, kind: str, device: str) -> None:
    plain, y, valid, _ = batch(5, 7, torch.float32, device)
    z = LAYOUTS[layout](plain)
    packed = z.contiguous()
    every_other = torch.stack([y, y], 1)[:, 0]
    wanted = Wanted(kind == "hard", True, True, True)
    rows = RowInputs(y, valid)
    all_stats = [launch.forward(v, rows._replace(target=t), wanted) for v, t in ((z, every_other), (packed, y))]
    for value, expected in zip(*all_stats, strict=True):
        assert value is None or torch.equal(value, expected)
    rest = all_stats[0], upstream(all_stats[0].own, kind), kind == "hard"
    expected_grad = launch.backward(packed, rows, *rest)
    assert torch.equal(launch.backward(z, rows._replace(target=every_other), *rest), expected_grad)
    assert torch.equal(z, packed)
    for make in LAYOUTS.values():
        if make is LAYOUTS["one row repeated"]:
            continue
        out = make(torch.empty_like(packed))
        assert launch.backward(z, rows, *rest, out=out) is out
        assert torch.equal(out, expected_grad)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_in_place_of_the_scores(kind: str, dtype: torch.dtype, device: str) -> None:
    z, y, valid, weight = batch(5, 21, dtype, device)
    rows = RowInputs(y, valid, weight=weight)
    stats = launch.forward(z, rows, Wanted(kind == "hard", True, False, True))
    rest = rows, stats, upstream(stats.own, kind), kind == "hard"
    before = z.clone()
    expected = launch.backward(z, *rest)
    assert torch.equal(z, before)
    for room in (z.clone(), torch.cat([z, z], 1)[:, :21], z.t().contiguous().t()):
        assert launch.backward(room, *rest, out=room) is room
        assert torch.equal(room, expected)


def test_offsets_are_64_bits_wide(device: str) -> None:
    """The last row is more than 2^31 entries away, though the stride is less; what lies between is not touched."""
    stride = (1 << 30) + 8
    room = torch.empty(3 * stride, dtype=torch.float16, device=device)
    z = room.as_strided((3, 3), (stride, 1))
    z.copy_(torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [6.0, 5.0, 4.0]]))
    y = torch.tensor([2, 0, 1], device=device)
    stats = launch.forward(z, RowInputs(y), Wanted(hard=True))
    assert stats.own.tolist() == [3.0, 0.0, 5.0]
    assert stats.top.tolist() == [2.0, 0.0, 6.0]
    one = torch.ones_like(stats.own)
    launch.backward(z, RowInputs(y), stats, Upstream(-one, one), True, out=z)
    assert z.tolist() == [[0.0, 1.0, -1.0], [-1.0, 0.5, 0.5], [1.0, -1.0, 0.0]]


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_two_dimensions(kind: str, device: str) -> None:
    z, weight = torch.randn(3, 4, 5, device=device, dtype=torch.float64), torch.rand(4, device=device)
    y, valid = torch.randint(4, (3, 5), device=device), torch.rand(3, 5, device=device) > 0.3
    hard = kind == "hard"
    rows, wanted = RowInputs(y, valid, weight=weight), Wanted(hard, True, True, not hard)
    found, expected = launch.forward(z, rows, wanted), forward_block(z, rows, wanted)
    for value, right in zip(found, expected, strict=True):
        assert (value is None) == (right is None)
        assert value is None or value.shape == (3, 5)
        assert value is None or error(value, right) < 1e-14
    rest = rows, expected, upstream(expected.own, kind), hard
    grad = backward_block(z, *rest)
    assert_close(launch.backward(z, *rest), grad, rtol=1e-13, atol=1e-14)
    out = torch.empty_like(z)
    assert launch.backward(z, *rest, out=out) is out
    assert_close(out, grad, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_without_the_target(kind: str, device: str) -> None:
    """Where the target is elsewhere, no column is left out; the mean is relative to its score, which is passed."""
    z, y, _, weight = batch(6, 9, torch.float64, device)
    valid = torch.tensor([True] * 5 + [False], device=device)
    here = torch.tensor([True, False] * 3, device=device)
    hard = kind == "hard"
    own = torch.randn(6, dtype=torch.float64, device=device)
    own = torch.where(here, z.gather(1, y.unsqueeze(1)).squeeze(1), own)
    rows, wanted = RowInputs(y, valid, here, own, weight), Wanted(hard, True, True, not hard)
    stats = launch.forward(z, rows, wanted)
    left_out = torch.nn.functional.one_hot(y, 9).bool() & here.unsqueeze(1)
    others = z.masked_fill(left_out, -INF)
    expected = others.amax(1) if hard else others.logsumexp(1)
    assert_close((stats.top + stats.log_sum)[valid], expected[valid], rtol=1e-14, atol=1e-14)
    assert_close(stats.own[here & valid], own[here & valid], rtol=0, atol=0)
    mean = ((z - own.unsqueeze(1)).masked_fill(left_out, 0.0) * weight).mean(1)
    assert_close(stats.mean[valid], mean[valid], rtol=1e-14, atol=1e-14)
    assert stats.hit.tolist() == ((z.argmax(1) == y) & here & valid).tolist()
    shares = others.softmax(1)
    if not hard:
        assert_close(stats.among[valid], -torch.xlogy(shares, shares).sum(1)[valid], rtol=1e-13, atol=1e-13)
    grads = upstream(stats.own, kind)._replace(mean=None, among=None)
    grad = launch.backward(z, rows, stats, grads, hard)
    to_rivals = (others == expected.unsqueeze(1)).double() if hard else shares
    by_hand = grads.log_sum.unsqueeze(1) * to_rivals
    by_hand = by_hand.scatter_add(1, y.unsqueeze(1), (grads.own * here).unsqueeze(1))
    assert_close(grad, by_hand * valid.unsqueeze(1), rtol=1e-13, atol=1e-14)
    # In plain PyTorch the same arguments mean the same.
    by_torch = forward_block(z, rows, wanted._replace(hit=False))
    for value, right in zip(stats._replace(own=None, hit=None), by_torch._replace(own=None), strict=True):
        assert value is None or error(value, right) < 1e-13
    assert_close(grad, backward_block(z, rows, stats, grads, hard), rtol=1e-13, atol=1e-14)


def test_two_halves_of_the_classes_make_the_whole(device: str) -> None:
    z, y, valid, _ = batch(6, 10, torch.float64, device)
    wanted = Wanted(entropy=True)
    whole = launch.forward(z, RowInputs(y, valid), wanted)
    halves, parts = ((0, 4), (4, 10)), []
    for start, stop in halves:
        here = (y >= start) & (y < stop)
        rows = RowInputs((y - start).clamp(0, stop - start - 1), valid, here)
        parts.append((rows, launch.forward(z[:, start:stop], rows, wanted)))
    stacked = zip(*(stats for _, stats in parts), strict=True)
    joined = join(RowStats(*(None if v[0] is None else torch.stack(v) for v in stacked)))
    for value, expected in zip(numbers(joined.masked(valid)), numbers(whole), strict=True):
        assert value is None or error(value, expected) < 1e-13
    rest = whole, upstream(whole.own, "soft")._replace(mean=None), False
    grads = [launch.backward(z[:, a:b], rows, *rest) for (a, b), (rows, _) in zip(halves, parts, strict=True)]
    assert_close(torch.cat(grads, 1), launch.backward(z, RowInputs(y, valid), *rest), rtol=1e-13, atol=1e-15)


def test_a_target_out_of_range_gives_no_number(device: str) -> None:
    z = torch.randn(3, 4, device=device)
    stats = launch.forward(z, RowInputs(torch.tensor([4, 0, -1], device=device)), Wanted(hit=True))
    assert stats.own.isnan().tolist() == [True, False, True]
    assert not stats.hit[0]
    assert not stats.hit[2]
    assert stats.top.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2, 3), (1, 3, 2)])
def test_gradients_of_both_orders(kind: str, shape: tuple[int, ...], device: str) -> None:
    z = torch.randn(shape, dtype=torch.float64, device=device, requires_grad=True)
    y = torch.randint(shape[1], (shape[0], *shape[2:]), device=device)
    y.view(-1)[0] = -100

    def fields(z: Tensor) -> tuple[Tensor, ...]:
        found = lossfit.gap(z, y, kind, mean=True, entropy=True, backend="triton")
        return found.target, found.rivals, found.mean, found.entropy

    assert gradcheck(fields, z, fast_mode=True)
    assert gradgradcheck(fields, z, fast_mode=True)


def odd(z: Tensor, y: Tensor, backend: str) -> Tensor:
    found = lossfit.gap(z, y, mean=True, entropy=True, backend=backend)
    return (found.log_odds.tanh() + found.mean.sin() + found.entropy**2).sum()


def test_functional_transformations(device: str) -> None:
    z = torch.randn(2, 3, 4, dtype=torch.float64, device=device)
    y = torch.randint(4, (2, 3), device=device)
    grad = torch.func.grad(odd)
    assert_close(grad(z[0], y[0], "triton"), grad(z[0], y[0], "torch"), rtol=1e-12, atol=1e-13)
    each = torch.vmap(grad, in_dims=(0, 0, None))
    assert_close(each(z, y, "triton"), each(z, y, "torch"), rtol=1e-12, atol=1e-13)
    curve = torch.func.jacrev(grad)
    assert_close(curve(z[0], y[0], "triton"), curve(z[0], y[0], "torch"), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_many_gradients_at_a_time(kind: str, device: str) -> None:
    z = torch.randn(3, 4, dtype=torch.float64, device=device, requires_grad=True)
    y = torch.randint(4, (3,), device=device)
    grads = torch.randn(5, 3, dtype=torch.float64, device=device)
    found = [lossfit.gap(z, y, kind, backend=b).log_odds for b in ("triton", "torch")]
    at_once = [torch.autograd.grad(v, z, grads, is_grads_batched=True)[0] for v in found]
    assert_close(*at_once, rtol=1e-12, atol=1e-13)


def test_operators_keep_their_promises(device: str) -> None:
    z, y, valid, weight = batch(3, 5, torch.float32, device)
    own = z[:, 0].clone()
    torch.library.opcheck(launch._forward, (z, y, valid, valid, own, weight, False, True, True, True))
    torch.library.opcheck(launch._forward, (z, y, *(None,) * 4, True, False, False, False))
    rows = RowInputs(y, valid, None, None, weight)
    stats = launch.forward(z, rows, Wanted(False, True, True, True))
    rest = *rows, stats.top, stats.log_sum, stats.among, *upstream(own, "soft"), False
    torch.library.opcheck(launch._backward, (z, *rest))
    torch.library.opcheck(launch._backward_into, (torch.empty_like(z), z, *rest, 0.0, None, None))
    torch.library.opcheck(launch._backward_into, (z.clone(), None, *rest, 0.0, None, None))


def test_what_an_operator_writes_to_has_no_default() -> None:
    """PyTorch 2.11 raises an IndexError where such an argument is left out, or None by default."""
    for argument in torch.ops.lossfit.gap_backward_into.default._schema.arguments:
        if argument.alias_info is not None and argument.alias_info.is_write:
            assert not argument.has_default_value()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "classes"), [(4096, 1000), (1024, 128_257), (16, 1_000_003)])
def test_at_full_size(dtype: torch.dtype, rows: int, classes: int) -> None:
    z, y, valid, _ = batch(rows, classes, dtype, "cuda")
    exact_z = class_last(z).double().requires_grad_()
    own, rivals = torch_gap(exact_z, y)
    d = lossfit.gap(z.requires_grad_(), y.where(valid, -100), backend="triton").log_odds
    assert_close(d.double(), (own - rivals) * valid, rtol=1e-5, atol=1e-5)
    (grad,) = torch.autograd.grad(d.sum(), z)
    (exact,) = torch.autograd.grad(((own - rivals) * valid).sum(), exact_z)
    assert_close(grad.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-5)
