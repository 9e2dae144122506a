"""The gap's kernels against float64 truth and against plain PyTorch of the same type."""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

import lossfit
from helpers import INF, LOWEST, class_last, torch_gap

pytest.importorskip("triton")
from lossfit.core.numerics import accumulation_dtype
from lossfit.gaps.autograd_functions import Backward, Forward
from lossfit.gaps.blocks import backward_block, forward_block
from lossfit.kernels import launch

KINDS = ["soft", "hard"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 2e-6, torch.float16: 2e-6, torch.float64: 1e-14}
Five = tuple[Tensor | None, ...]


def batch(rows: int, classes: int, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, targets, which rows count, weights."""
    z = (3 * torch.randn(rows, classes)).to(dtype)
    valid = torch.arange(rows) % 3 != 1
    made = z, torch.randint(classes, (rows,)), valid, torch.rand(classes)
    return tuple(v.to(device) for v in made)


def truth(z: Tensor, y: Tensor, kind: str, weight: Tensor | None = None) -> tuple[Tensor, ...]:
    """Target, rivals, mean and entropy of scores (N, C), by PyTorch's own functions in float64."""
    own, rivals = torch_gap(z, y, kind)
    log_p = z.log_softmax(1)
    w = 1.0 if weight is None else weight.double()
    return own, rivals, (z * w).mean(1), -(log_p.exp() * log_p).sum(1)


def upstream(like: Tensor, kind: str) -> list[Tensor | None]:
    """Gradients of target, rivals, mean and entropy."""
    found: list[Tensor | None] = [torch.randn_like(like) for _ in range(4)]
    if kind == "hard":
        found[3] = None
    return found


def error(value: Tensor, exact: Tensor) -> float:
    return (value.double() - exact.double()).abs().max().item() if exact.numel() else 0.0


def cut_off(exact: Tensor, dtype: torch.dtype) -> float:
    """The interpreter cuts bfloat16 off where a GPU rounds to nearest."""
    if dtype != torch.bfloat16 or exact.is_cuda:
        return 0.0
    return torch.finfo(dtype).eps * exact.abs().max().item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("classes", "block"), [(5, 4096), (37, 16), (48, 16), (5000, 4096)])
def test_as_near_to_the_truth_as_pytorch(
    kind: str, dtype: torch.dtype, classes: int, block: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One block, many with a rest, many without, and the usual one with a rest."""
    monkeypatch.setattr(launch, "_BLOCK", block)
    z, y, valid, weight = batch(4, classes, dtype, device)
    exact_z = z.double().clone().requires_grad_()
    exact = truth(exact_z, y, kind, weight)
    options = kind == "hard", True, True, True
    found = launch.forward(z, y, None, weight, *options)
    torch_path = forward_block(z, y, None, weight, *options)
    assert found[3] is not None
    assert found[3].tolist() == (z.argmax(1) == y).tolist()
    for field in (0, 1, 2, 4):
        value, other = found[field], torch_path[field]
        if kind == "hard" and field == 4:
            assert value is None
            continue
        assert value is not None
        assert other is not None
        assert value.dtype == accumulation_dtype(z)
        true = exact[min(field, 3)]
        scale = max(1.0, true.abs().max().item())
        assert error(value, true) <= error(other, true) + ROUNDING[dtype] * scale
    grads = upstream(found[0], kind)
    wanted = [(v, g.double()) for v, g in zip(exact, grads, strict=True) if g is not None]
    (true,) = torch.autograd.grad([v for v, _ in wanted], exact_z, [g for _, g in wanted])
    arguments = z, y, None, weight, *(v for v in (found[0], found[1], found[4])), *grads, kind == "hard"
    grad = launch.backward(*arguments)
    assert grad.dtype == dtype
    other = backward_block(z, weight, kind == "hard", None, y, None, *arguments[4:-1])
    assert error(grad, true) <= error(other, true) + 5 * ROUNDING[dtype] + cut_off(true, dtype)
    # Rows that do not count get 0 everywhere, and the others are as they were.
    some = launch.forward(z, y, valid, weight, *options)
    for value, all_rows in zip(some, found, strict=True):
        if value is not None:
            assert (value[~valid] == 0).all()
            assert torch.equal(value[valid], all_rows[valid])
    some_grad = launch.backward(z, y, valid, *arguments[3:])
    assert (some_grad[~valid] == 0).all()
    assert torch.equal(some_grad[valid], grad[valid])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_gradient_is_the_float32_one_rounded_once(dtype: torch.dtype, device: str) -> None:
    z, y, _, weight = batch(5, 33, dtype, device)
    own, rivals, *_, entropy = launch.forward(z, y, None, weight, False, True, False, True)
    grads = upstream(own, "soft")
    rest = y, None, weight, own, rivals, entropy, *grads, False
    grad, in_float32 = launch.backward(z, *rest), launch.backward(z.float(), *rest)
    if cut_off(in_float32, dtype):
        in_float32 = (in_float32.view(torch.int32) >> 16 << 16).view(torch.float32)
    assert torch.equal(grad, in_float32.to(dtype))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [1, 3, 20])
def test_nothing_is_left_of_what_the_memory_held(kind: str, classes: int, device: str, dirty_memory: None) -> None:
    z, y, valid, _ = batch(6, classes, torch.float32, device)
    z[~valid] = torch.nan
    found = launch.forward(z, y, valid, None, kind == "hard", True, True, True)
    own, rivals, _, _, entropy = found
    assert own is not None
    assert rivals is not None
    grad = launch.backward(z, y, valid, None, own, rivals, entropy, *upstream(own, kind), kind == "hard")
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
    own, rivals, _, hit, entropy = launch.forward(z, y, None, None, kind == "hard", False, True, True)
    assert own.tolist() == [1.0, -INF, 5.0, 3.0]
    three = 2.0 if kind == "hard" else math.log(1 + math.exp(1) + math.exp(2))
    by_hand = torch.tensor([2.0, three, LOWEST[dtype], 3.0], dtype=torch.float64)
    assert_close(rivals.double().cpu(), by_hand, rtol=1e-6, atol=0)
    assert hit.tolist() == [False, False, True, True]
    if kind == "soft":
        _, _, _, exact = truth(torch.where(z == -INF, -1e4, z.double()), y, kind)
        assert_close(entropy.double(), exact, rtol=1e-6, atol=1e-6)
    one = torch.ones_like(own)
    grad = launch.backward(z, y, None, None, own, rivals, entropy, -one, one, None, None, kind == "hard")
    assert grad.isfinite().all()
    assert grad[2].tolist() == [-1.0, 0.0, 0.0, 0.0]
    assert grad[3].tolist() == [0.0, -1.0, 0.0, 1.0]


def test_scores_that_are_no_numbers_are_seen(device: str) -> None:
    z = torch.tensor([[1.0, torch.nan, 0.0], [torch.nan, 1.0, 0.0], [2.0, 1.0, 0.0]], device=device)
    y = torch.zeros(3, dtype=torch.int64, device=device)
    for hard in (False, True):
        own, rivals, mean, hit, entropy = launch.forward(z, y, None, None, hard, True, True, True)
        assert own.isnan().tolist() == [False, True, False]
        assert rivals.isnan().tolist() == [True, False, False]
        assert mean.isnan().tolist() == [True, True, False]
        assert hit.tolist() == [False, False, True]
        assert hard or entropy.isnan().tolist() == [True, True, False]


@pytest.mark.parametrize("kind", KINDS)
def test_ties(kind: str, device: str) -> None:
    z = torch.tensor([[2.0, 2.0, 1.0, 2.0], [2.0, 2.0, 2.0, 0.0]], device=device)
    y = torch.tensor([1, 0], device=device)
    own, rivals, _, hit, _ = launch.forward(z, y, None, None, kind == "hard", False, True, False)
    assert hit.tolist() == [False, True]
    one = torch.ones_like(own)
    grad = launch.backward(z, y, None, None, own, rivals, None, None, one, None, None, kind == "hard")
    expected = [[0.5, 0.0, 0.0, 0.5], [0.0, 0.5, 0.5, 0.0]]
    if kind == "soft":
        shares = z.scatter(1, y.unsqueeze(1), -INF).softmax(1)
        assert_close(grad, shares, rtol=1e-6, atol=0)
    else:
        assert grad.tolist() == expected


def test_a_target_far_ahead_keeps_the_digits_of_its_rivals(device: str) -> None:
    z = torch.tensor([[1000.0, 0.25, -1.0, -2.0]], device=device)
    y = torch.zeros(1, dtype=torch.int64, device=device)
    own, rivals, *_, entropy = launch.forward(z, y, None, None, False, False, False, True)
    assert_close(rivals, z[:, 1:].logsumexp(1), rtol=1e-6, atol=0)
    assert entropy.item() == 0
    one = torch.ones_like(own)
    grad = launch.backward(z, y, None, None, own, rivals, entropy, None, one, None, None, False)
    assert_close(grad[:, 1:], z[:, 1:].softmax(1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_one_class_and_no_rows(kind: str, device: str) -> None:
    hard = kind == "hard"
    z = torch.tensor([[3.0], [4.0]], device=device)
    own, rivals, mean, hit, entropy = launch.forward(z, torch.zeros(2).long().to(device), None, None, hard, *[True] * 3)
    assert own.tolist() == mean.tolist() == [3.0, 4.0]
    assert_close(rivals.cpu(), torch.full((2,), LOWEST[torch.float32]))
    assert hit.tolist() == [True, True]
    assert hard or entropy.tolist() == [0.0, 0.0]
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
    fields = [
        launch.forward(v, t, valid, None, kind == "hard", True, True, True) for v, t in ((z, every_other), (packed, y))
    ]
    for value, expected in zip(*fields, strict=True):
        assert value is None or torch.equal(value, expected)
    own, rivals, *_, entropy = fields[0]
    grads = upstream(own, kind)
    rest = valid, None, own, rivals, entropy, *grads, kind == "hard"
    expected_grad = launch.backward(packed, y, *rest)
    assert torch.equal(launch.backward(z, every_other, *rest), expected_grad)
    assert torch.equal(z, packed)
    for make in LAYOUTS.values():
        if make is LAYOUTS["one row repeated"]:
            continue
        out = make(torch.empty_like(packed))
        assert launch.backward(z, y, *rest, out=out) is out
        assert torch.equal(out, expected_grad)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_in_place_of_the_scores(kind: str, dtype: torch.dtype, device: str) -> None:
    z, y, valid, weight = batch(5, 21, dtype, device)
    own, rivals, *_, entropy = launch.forward(z, y, valid, weight, kind == "hard", True, False, True)
    rest = y, valid, weight, own, rivals, entropy, *upstream(own, kind), kind == "hard"
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
    own, rivals, *_ = launch.forward(z, y, None, None, True, False, False, False)
    assert own.tolist() == [3.0, 0.0, 5.0]
    assert rivals.tolist() == [2.0, 0.0, 6.0]
    one = torch.ones_like(own)
    launch.backward(z, y, None, None, own, rivals, None, -one, one, None, None, True, out=z)
    assert z.tolist() == [[0.0, 1.0, -1.0], [-1.0, 0.5, 0.5], [1.0, -1.0, 0.0]]


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_two_dimensions(kind: str, device: str) -> None:
    z, weight = torch.randn(3, 4, 5, device=device, dtype=torch.float64), torch.rand(4, device=device)
    y, valid = torch.randint(4, (3, 5), device=device), torch.rand(3, 5, device=device) > 0.3
    hard = kind == "hard"
    found = launch.forward(z, y, valid, weight, hard, True, True, True)
    expected = Forward.forward(z, y, valid, weight, hard, True, True, not hard, None)
    for value, right in zip(found, expected, strict=True):
        assert (value is None) == (right is None)
        assert value is None or value.shape == (3, 5)
        assert value is None or error(value, right) < 1e-14
    own, rivals, *_, entropy = expected
    rest = y, valid, weight, own, rivals, entropy, *upstream(own, kind), hard
    grad = Backward.forward(z, *rest, None)
    assert_close(launch.backward(z, *rest), grad, rtol=1e-13, atol=1e-14)
    out = torch.empty_like(z)
    assert launch.backward(z, *rest, out=out) is out
    assert_close(out, grad, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_without_the_target(kind: str, device: str) -> None:
    """Where the target is elsewhere, no column is left out and ``own`` is 0; the entropy is the rivals'."""
    z, y, _, weight = batch(6, 9, torch.float64, device)
    valid = torch.tensor([True] * 5 + [False], device=device)
    here = torch.tensor([True, False] * 3, device=device)
    hard = kind == "hard"
    own, rivals, mean, hit, among = launch.forward(z, y, valid, weight, hard, True, True, True, here)
    left_out = here & valid
    others = z.masked_fill(torch.nn.functional.one_hot(y, 9).bool() & here.unsqueeze(1), -INF)
    expected = others.amax(1) if hard else others.logsumexp(1)
    assert_close(rivals[valid], expected[valid], rtol=1e-14, atol=1e-14)
    assert_close(own, z.gather(1, y.unsqueeze(1)).squeeze(1) * left_out, rtol=0, atol=0)
    assert_close(mean[valid], (z * weight).mean(1)[valid], rtol=1e-14, atol=1e-14)
    assert hit.tolist() == ((z.argmax(1) == y) & left_out).tolist()
    shares = others.softmax(1)
    if not hard:
        entropy = -torch.xlogy(shares, shares).sum(1)
        assert_close(among[valid], entropy[valid], rtol=1e-13, atol=1e-13)
    g_target, g_rivals, *_ = upstream(own, kind)
    grad = launch.backward(z, y, valid, None, own, rivals, None, g_target, g_rivals, None, None, hard, here)
    to_rivals = (others == expected.unsqueeze(1)).double() if hard else shares
    by_hand = g_rivals.unsqueeze(1) * to_rivals
    by_hand = by_hand.scatter_add(1, y.unsqueeze(1), (g_target * here).unsqueeze(1))
    assert_close(grad, by_hand * valid.unsqueeze(1), rtol=1e-13, atol=1e-14)
    # In plain PyTorch the same arguments mean the same.
    found = Forward.forward(z, y, valid, weight, hard, True, False, not hard, here)
    for value, right in zip((own, rivals, mean, None, among), found, strict=True):
        assert value is None or error(value, right) < 1e-13
    rest = y, valid, None, own, rivals, None, g_target, g_rivals, None, None, hard, here
    assert_close(grad, Backward.forward(z, *rest), rtol=1e-13, atol=1e-14)


def test_two_halves_of_the_classes_make_the_whole(device: str) -> None:
    z, y, valid, _ = batch(6, 10, torch.float64, device)
    whole = launch.forward(z, y, valid, None, False, True, False, True)
    parts, places = [], []
    for start, stop in ((0, 4), (4, 10)):
        here = (y >= start) & (y < stop)
        at = (y - start).clamp(0, stop - start - 1)
        places.append((at, here))
        parts.append(launch.forward(z[:, start:stop], at, valid, None, False, True, False, True, here))
    own = parts[0][0] + parts[1][0]
    rivals = torch.logaddexp(parts[0][1], parts[1][1])[valid]
    assert_close(own, whole[0], rtol=0, atol=0)
    assert_close(rivals, whole[1][valid], rtol=1e-14, atol=1e-14)
    grads = upstream(own, "soft")
    grads[2] = None
    rest = own, whole[1], whole[4], *grads, False
    halves = [
        launch.backward(z[:, a:b], at, valid, None, *rest, here)
        for (a, b), (at, here) in zip(((0, 4), (4, 10)), places, strict=True)
    ]
    assert_close(torch.cat(halves, 1), launch.backward(z, y, valid, None, *rest), rtol=1e-13, atol=1e-15)


def test_a_target_out_of_range_gives_no_number(device: str) -> None:
    z = torch.randn(3, 4, device=device)
    own, rivals, _, hit, _ = launch.forward(
        z, torch.tensor([4, 0, -1], device=device), None, None, False, False, True, False
    )
    assert own.isnan().tolist() == [True, False, True]
    assert not hit[0]
    assert not hit[2]
    assert rivals.isfinite().all()


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
    torch.library.opcheck(launch._forward, (z, y, valid, valid, weight, False, True, True, True))
    torch.library.opcheck(launch._forward, (z, y, None, None, None, True, False, False, False))
    own, rivals, *_, entropy = launch.forward(z, y, valid, weight, False, True, True, True)
    rest = y, valid, None, own, rivals, entropy, *upstream(own, "soft"), weight, False
    torch.library.opcheck(launch._backward, (z, *rest))
    torch.library.opcheck(launch._backward_into, (torch.empty_like(z), z, *rest, 0.0, None, None, None))
    torch.library.opcheck(launch._backward_into, (z.clone(), None, *rest, 0.0, None, None, None))


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
