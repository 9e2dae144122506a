"""The gap: values against longhand, gradients of both orders, every way of calling it."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import lossfit
from helpers import INF, LOWEST, class_last, torch_gap
from lossfit import gap

KINDS = ["soft", "hard"]
SHAPES = [(5, 3), (4, 3, 2), (2, 4, 3, 2), (6, 2)]


def scores(*shape: int, dtype: torch.dtype = torch.float64, scale: float = 2.0) -> torch.Tensor:
    return (scale * torch.randn(*shape, dtype=torch.float64)).to(dtype)


def targets(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randint(shape[1], (shape[0], *shape[2:]))


def longhand(row: list[float], y: int, kind: str, weight: list[float] | None = None) -> dict[str, float]:
    """The fields of the gap of one row, with nothing but the math module."""
    rivals = [s for k, s in enumerate(row) if k != y]
    top = max(rivals)
    whole = max(row)
    total = math.fsum(math.exp(s - whole) for s in row)
    p = [math.exp(s - whole) / total for s in row]
    weight = weight or [1.0] * len(row)
    score = top if kind == "hard" else top + math.log(math.fsum(math.exp(s - top) for s in rivals))
    return {
        "target": row[y],
        "rivals": score,
        "log_odds": row[y] - score,
        "over_mean": math.fsum(w * (row[y] - s) for w, s in zip(weight, row, strict=True)) / len(row),
        "mean": math.fsum(w * s for w, s in zip(weight, row, strict=True)) / len(row),
        "hit": row.index(whole) == y,
        "entropy": -math.fsum(q * math.log(q) for q in p if q > 0),
    }


def one(z: torch.Tensor, y: torch.Tensor, kind: str, weight: torch.Tensor | None = None) -> torch.Tensor:
    """A single number that depends on every field, differently in every row."""
    found = gap(z, y, kind, mean=True, entropy=True, mean_weight=weight)
    rows = found.target * found.rivals + found.mean.sin() + found.entropy**2 + found.log_odds.tanh()
    return (rows * torch.arange(1, rows.numel() + 1, dtype=rows.dtype).view(rows.shape)).sum()


def reference(z: torch.Tensor, y: torch.Tensor, kind: str, weight: torch.Tensor | None = None) -> torch.Tensor:
    """The same number by PyTorch's own functions."""
    own, rivals = torch_gap(z, y, kind)
    w = 1 if weight is None else weight.view(1, -1, *(1,) * (z.ndim - 2))
    log_p = z.log_softmax(1)
    entropy = -(log_p.exp() * log_p).sum(1)
    rows = own * rivals + (z * w).mean(1).sin() + entropy**2 + (own - rivals).tanh()
    return (rows * torch.arange(1, rows.numel() + 1, dtype=rows.dtype).view(rows.shape)).sum()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_those_of_longhand(kind: str, shape: tuple[int, ...]) -> None:
    z, y, weight = scores(*shape), targets(shape), torch.rand(shape[1], dtype=torch.float64)
    for w in (None, weight):
        found = gap(z, y, kind, mean=True, hit=True, entropy=True, mean_weight=w)
        for field, value in found._asdict().items():
            assert value.shape == y.shape
            by_hand = [
                longhand(row.tolist(), int(c), kind, None if w is None else w.tolist())[field]
                for row, c in zip(class_last(z), y.flatten(), strict=True)
            ]
            assert_close(value, torch.tensor(by_hand, dtype=value.dtype).view(y.shape), rtol=1e-14, atol=1e-14)


def test_fields_not_asked_for_are_none() -> None:
    assert gap(scores(4, 3), targets((4, 3)))[3:] == (None,) * 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, (3,)])
def test_gradients_of_both_orders(kind: str, weighted: bool, shape: tuple[int, ...]) -> None:
    z = scores(*shape).requires_grad_()
    y = targets(shape) if len(shape) > 1 else torch.tensor(1)
    weight = torch.rand(shape[1 if len(shape) > 1 else 0], dtype=torch.float64) if weighted else None

    def fields(z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = gap(z, y, kind, mean=True, entropy=True, mean_weight=weight)
        return found.target, found.rivals, found.mean, found.entropy

    assert gradcheck(fields, z)
    assert gradgradcheck(fields, z)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_is_that_of_pytorch(kind: str, shape: tuple[int, ...]) -> None:
    z, y, weight = scores(*shape).requires_grad_(), targets(shape), torch.rand(shape[1], dtype=torch.float64)
    found = torch.autograd.grad(one(z, y, kind, weight), z)[0]
    assert_close(found, torch.autograd.grad(reference(z, y, kind, weight), z)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_no_batch_dimension(kind: str) -> None:
    z = scores(4)
    found = gap(z, torch.tensor(2), kind, mean=True, hit=True, entropy=True)
    for field, value in found._asdict().items():
        assert value.shape == ()
        assert value.item() == pytest.approx(longhand(z.tolist(), 2, kind)[field], rel=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 2), (2, 3, 0)])
def test_zero_rows(kind: str, shape: tuple[int, ...]) -> None:
    z = torch.zeros(shape, requires_grad=True)
    found = gap(z, torch.zeros(shape[0], *shape[2:], dtype=torch.int64), kind, mean=True, hit=True, entropy=True)
    assert all(value.shape == (shape[0], *shape[2:]) for value in found)
    assert torch.autograd.grad(found.log_odds.sum() + found.entropy.sum(), z)[0].shape == shape


@pytest.mark.parametrize("kind", KINDS)
def test_one_class_has_no_rival(kind: str) -> None:
    z = torch.tensor([[3.0], [-2.0]], requires_grad=True)
    found = gap(z, torch.tensor([0, 0]), kind, mean=True, hit=True, entropy=True)
    assert found.rivals.tolist() == pytest.approx([LOWEST[torch.float32]] * 2, rel=1e-6)
    assert found.hit.all()
    assert found.entropy.tolist() == [0, 0]
    loss = torch.nn.functional.softplus(-found.log_odds) + found.entropy
    assert loss.tolist() == [0, 0]
    assert torch.autograd.grad(loss.sum(), z)[0].tolist() == [[0], [0]]


@pytest.mark.parametrize("kind", KINDS)
def test_some_rivals_at_minus_infinity(kind: str) -> None:
    z = torch.tensor([[1.0, -INF, 2.0, 0.5], [-INF, 0.0, 1.0, -INF]], dtype=torch.float64)
    y = torch.tensor([0, 2])
    found = gap(z, y, kind, hit=True, entropy=True)
    for i, row in enumerate(z.tolist()):
        expected = longhand(row, int(y[i]), kind)
        for field in ("target", "rivals", "hit", "entropy"):
            assert getattr(found, field)[i].item() == pytest.approx(expected[field], rel=1e-14)
    z.requires_grad_()
    found = gap(z, y, kind, entropy=True)
    grad = torch.autograd.grad((found.log_odds + found.entropy).sum(), z)[0]
    assert grad.isfinite().all()
    assert (grad[z == -INF] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_rivals_at_minus_infinity(kind: str, dtype: torch.dtype) -> None:
    z = torch.tensor([[-INF, 3.0, -INF], [-INF, -INF, -7.0]], dtype=dtype, requires_grad=True)
    found = gap(z, torch.tensor([1, 2]), kind, hit=True, entropy=True)
    assert found.rivals.tolist() == pytest.approx([LOWEST[dtype]] * 2, rel=1e-6)
    assert found.hit.all()
    assert found.entropy.tolist() == [0, 0]
    grad = torch.autograd.grad((torch.nn.functional.softplus(-found.log_odds) + found.entropy).sum(), z)[0]
    assert grad.tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("kind", KINDS)
def test_target_at_minus_infinity(kind: str) -> None:
    z = torch.tensor([[-INF, 1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    found = gap(z, torch.tensor([0]), kind, hit=True)
    assert found.target.item() == found.log_odds.item() == -INF
    assert not found.hit
    grad = torch.autograd.grad(found.rivals.sum(), z)[0]
    expected = [0, 1, 0] if kind == "hard" else [0, *torch.tensor([1.0, 0.5], dtype=torch.float64).softmax(0).tolist()]
    assert grad[0].tolist() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("masked", [-1e4, -1e7, -1e9, -1e10, -1e20, -1e30, "lowest"])
def test_rivals_masked_with_large_negative_scores(dtype: torch.dtype, masked: float | str) -> None:
    m = torch.finfo(dtype).min if masked == "lowest" else masked
    rows = [[0.5, m, m], [0.5, 1.0, m], [m, 1.0, m]]
    z, y = torch.tensor(rows, dtype=dtype, requires_grad=True), torch.zeros(3, dtype=torch.int64)
    found = gap(z, y, entropy=True)
    assert found.entropy.tolist() == pytest.approx([0, longhand([0.5, 1.0], 0, "soft")["entropy"], 0], rel=1e-6)
    loss = torch.nn.functional.softplus(-found.log_odds)
    by_torch = torch.nn.functional.cross_entropy(z.double(), y, reduction="none")
    assert_close(loss.double(), by_torch, rtol=1e-6, atol=1e-6)
    grad = torch.autograd.grad((loss + found.entropy).sum(), z)[0]
    entropy = torch.distributions.Categorical(logits=z.double()).entropy()
    expected = torch.autograd.grad((by_torch + entropy).sum(), z)[0]
    assert_close(grad.float(), expected.float(), rtol=torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("masked", [-1e4, -1e9, -1e20, -3e38])
def test_a_row_masked_altogether_has_a_bounded_gradient(masked: float) -> None:
    z = torch.full((1, 4), masked, requires_grad=True)
    loss = torch.nn.functional.softplus(-gap(z, torch.tensor([0])).log_odds)
    assert loss.isfinite().all()
    assert (torch.autograd.grad(loss.sum(), z)[0].abs() <= 1).all()


def test_tied_rivals_share_the_gradient_of_the_hard_gap() -> None:
    z = torch.tensor([[0.0, 2.0, 2.0, 1.0], [5.0, 5.0, 5.0, 5.0]], requires_grad=True)
    found = gap(z, torch.tensor([0, 1]), "hard", hit=True)
    assert found.hit.tolist() == [False, False]  # the first of tied scores is the prediction
    grad = torch.autograd.grad(found.rivals.sum(), z)[0]
    assert_close(grad, torch.tensor([[0, 0.5, 0.5, 0], [1 / 3, 0, 1 / 3, 1 / 3]]))


def test_the_hit_is_the_first_arg_max() -> None:
    z = torch.randint(3, (200, 4)).double()
    for c in range(4):
        y = torch.full((200,), c)
        assert_close(gap(z, y, hit=True).hit, z.argmax(1) == y)


def test_rivals_keep_their_digits_far_behind_the_target() -> None:
    z = torch.tensor([[700.0, 1e-3, 2e-3]], dtype=torch.float64)
    expected = math.log(math.exp(1e-3) + math.exp(2e-3))
    assert gap(z, torch.tensor([0])).rivals.item() == pytest.approx(expected, rel=1e-15)


def test_entropy_of_a_sharp_row_keeps_its_digits() -> None:
    # With p = 1 - 2 e, H = -(1 - 2e) log1p(-2e) - 2 e log e.
    e = math.exp(-50) / (1 + 2 * math.exp(-50))
    expected = -(1 - 2 * e) * math.log1p(-2 * e) - 2 * e * math.log(e)
    found = gap(torch.tensor([[50.0, 0.0, 0.0]], dtype=torch.float64), torch.tensor([0]), entropy=True)
    assert found.entropy.item() == pytest.approx(expected, rel=1e-12)


LAYOUTS = {
    "transposed": lambda z: z.transpose(0, 1).contiguous().transpose(0, 1),
    "every other class": lambda z: z.repeat_interleave(2, 1)[:, ::2],
    "channels last": lambda z: z.movedim(1, -1).contiguous().movedim(-1, 1),
    "expanded rows": lambda z: z[:1].expand(z.shape),
    "expanded classes": lambda z: z[:, :1].expand(z.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2), (2, 4, 3, 2), (900, 300), (3, 300, 400)])
def test_memory_layouts(layout: str, kind: str, shape: tuple[int, ...]) -> None:
    z, y = LAYOUTS[layout](scores(*shape)), targets(shape)
    plain = z.clone(memory_format=torch.contiguous_format).requires_grad_()
    z = z.detach().requires_grad_()
    assert_close(one(z, y, kind), one(plain, y, kind), rtol=1e-13, atol=1e-10)
    grad = torch.autograd.grad(one(z, y, kind), z)[0]
    assert_close(grad, torch.autograd.grad(reference(plain, y, kind), plain)[0], rtol=1e-10, atol=1e-10)


def test_gradients_with_strides_of_zero() -> None:
    z, y = scores(5, 3).requires_grad_(), targets((5, 3))
    ones = torch.ones((), dtype=torch.float64).expand(5)
    found = torch.autograd.grad(gap(z, y).log_odds, z, ones)[0]
    own, rivals = torch_gap(z, y)
    assert_close(found, torch.autograd.grad((own - rivals).sum(), z)[0])


# 2 MiB of scores are one block: many rows, a split last dimension, rows larger than a block.
BIG = [(5000, 61), (3, 200, 900), (2, 40, 8000), (2, 300_000), (2, 30, 100, 90)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", BIG)
def test_several_blocks_are_the_same_as_one(kind: str, shape: tuple[int, ...]) -> None:
    z, y = scores(*shape).requires_grad_(), targets(shape)
    y.view(-1)[::7] = -100
    weight = torch.rand(shape[1], dtype=torch.float64)
    found = gap(z, y, kind, mean=True, hit=True, entropy=True, mean_weight=weight)
    valid = y != -100
    own, rivals = torch_gap(z, y.clamp(min=0), kind)
    per_class = weight.view(1, -1, *(1,) * (z.ndim - 2))
    expected = {
        "target": own,
        "rivals": rivals,
        "mean": (z * per_class).mean(1),
        "entropy": torch.distributions.Categorical(logits=z.movedim(1, -1)).entropy(),
        "hit": z.argmax(1) == y,
    }
    for field, value in expected.items():
        assert_close(getattr(found, field), value.masked_fill(~valid, 0), rtol=1e-11, atol=1e-11)
    up = {field: torch.randn(y.shape, dtype=torch.float64) for field in expected if field != "hit"}
    loss = sum((up[field] * getattr(found, field)).sum() for field in up)
    by_torch = sum((up[field] * expected[field] * valid).sum() for field in up)
    grad = torch.autograd.grad(loss, z)[0]
    assert_close(grad, torch.autograd.grad(by_torch, z)[0], rtol=1e-11, atol=1e-11)
    rows = class_last(z)
    for i in (1, y.numel() // 2, y.numel() - 1):
        alone = gap(rows[i], y.flatten()[i], kind, mean=True, hit=True, entropy=True, mean_weight=weight)
        for field, value in alone._asdict().items():
            assert_close(getattr(found, field).flatten()[i], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(6, 4), (4000, 150), (2, 40, 9000)])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    z, y = scores(*shape, dtype=dtype).requires_grad_(), targets(shape)
    found = gap(z, y, mean=True, entropy=True)
    assert all(v.dtype == torch.float32 for v in found if v is not None)
    exact = z.detach().float().requires_grad_()
    own, rivals = torch_gap(exact, y)
    assert_close(found.target, own, rtol=0, atol=0)
    assert_close(found.rivals, rivals, rtol=1e-6, atol=1e-6)
    grad = torch.autograd.grad(found.log_odds.sum(), z)[0]
    assert grad.dtype == dtype
    expected = torch.autograd.grad((own - rivals).sum(), exact)[0]
    assert_close(grad.float(), expected, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).smallest_normal)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(6, 4), (5000, 61), (2, 40, 8000)])
def test_inputs_are_left_alone(kind: str, shape: tuple[int, ...]) -> None:
    z, y = scores(*shape), targets(shape)
    y.view(-1)[0] = -100
    before = z.clone(), y.clone()
    with torch.no_grad():
        gap(z, y, kind, mean=True, hit=True, entropy=True)
    z.requires_grad_()
    up = torch.randn(y.shape, dtype=torch.float64)
    up_before = up.clone()
    gap(z, y, kind).log_odds.backward(up)
    for now, then in zip((z, y, up), (*before, up_before), strict=True):
        assert torch.equal(now.detach(), then)


def test_no_grad_and_inference_mode_record_nothing() -> None:
    z, y = scores(4, 3).requires_grad_(), targets((4, 3))
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert not gap(z, y).log_odds.requires_grad


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(50, 40), (6, 30, 11), (5000, 61)])
def test_nothing_of_the_size_of_the_scores_is_kept_but_the_scores(kind: str, shape: tuple[int, ...]) -> None:
    z, y = scores(*shape).requires_grad_(), targets(shape)
    kept = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        gap(z, y, kind, mean=True, entropy=True)
    assert kept
    assert all(t.data_ptr() == z.data_ptr() for t in kept if t.numel() >= z.numel())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 5)])
def test_compiled_is_eager(kind: str, shape: tuple[int, ...]) -> None:
    torch._dynamo.reset()
    z, y, weight = scores(*shape).requires_grad_(), targets(shape), torch.rand(shape[1], dtype=torch.float64)
    y.view(-1)[2] = -100

    def fields(z: torch.Tensor) -> lossfit.Gap:
        return gap(z, y, kind, mean=True, hit=True, entropy=True, mean_weight=weight)

    eager, compiled = fields(z), torch.compile(fields, fullgraph=True, backend="aot_eager")(z)
    for field in eager._fields:
        assert_close(getattr(compiled, field), getattr(eager, field), rtol=1e-12, atol=1e-12)
    up = torch.randn(eager.target.shape, dtype=torch.float64)
    for a in ("target", "rivals", "mean", "entropy"):
        grads = [torch.autograd.grad((getattr(g, a) * up).sum(), z, retain_graph=True)[0] for g in (compiled, eager)]
        assert_close(*grads, rtol=1e-12, atol=1e-12)


def test_compiled_with_rivals_at_minus_infinity() -> None:
    torch._dynamo.reset()
    z = torch.tensor([[-INF, 3.0, -INF], [-INF, 1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([1, 1])

    def number(z: torch.Tensor) -> torch.Tensor:
        found = gap(z, y, entropy=True)
        return (torch.nn.functional.softplus(-found.log_odds) + found.entropy).sum()

    compiled = torch.compile(number, fullgraph=True, backend="aot_eager")
    assert_close(compiled(z), number(z))
    assert_close(torch.autograd.grad(compiled(z), z)[0], torch.autograd.grad(number(z), z)[0])


def test_compiled_by_inductor() -> None:
    torch._dynamo.reset()
    z, y = scores(6, 5, dtype=torch.float32).requires_grad_(), targets((6, 5))
    loss = torch.compile(lambda z: gap(z, y).log_odds.tanh().sum(), fullgraph=True)(z)
    own, rivals = torch_gap(z, y)
    expected = (own - rivals).tanh().sum()
    assert_close(loss, expected)
    assert_close(torch.autograd.grad(loss, z)[0], torch.autograd.grad(expected, z)[0])


@pytest.mark.parametrize("kind", KINDS)
class TestTransformations:
    """torch.func and its kin, against PyTorch's own functions run the plain way."""

    def test_grad(self, kind: str) -> None:
        z, y = scores(5, 3), targets((5, 3))
        found = torch.func.grad(one)(z, y, kind)
        assert_close(found, torch.func.grad(reference)(z, y, kind))

    def test_vmap(self, kind: str) -> None:
        z, y = scores(4, 5, 3), torch.randint(3, (4, 5))
        expected = torch.stack([reference(a, b, kind) for a, b in zip(z, y, strict=True)])
        assert_close(torch.func.vmap(lambda a, b: one(a, b, kind))(z, y), expected)

    def test_vmap_over_scores_only_and_over_another_dimension(self, kind: str) -> None:
        z, y = scores(5, 3, 4), torch.randint(3, (5,))
        found = torch.func.vmap(lambda a: gap(a, y, kind).log_odds, in_dims=2, out_dims=1)(z)
        own, rivals = torch_gap(z, y[:, None].expand(5, 4), kind)
        assert_close(found, own - rivals)

    def test_vmap_of_single_rows(self, kind: str) -> None:
        z, y = scores(5, 3), targets((5, 3))
        own, rivals = torch_gap(z, y, kind)
        assert_close(torch.func.vmap(lambda a, b: gap(a, b, kind).log_odds)(z, y), own - rivals)

    def test_vmap_of_grad(self, kind: str) -> None:
        z, y = scores(4, 5, 3), torch.randint(3, (4, 5))
        found = torch.func.vmap(torch.func.grad(lambda a, b: one(a, b, kind)))(z, y)
        for i in range(4):
            assert_close(found[i], torch.func.grad(reference)(z[i], y[i], kind))

    def test_grad_of_vmap(self, kind: str) -> None:
        z, y = scores(4, 5, 3), torch.randint(3, (4, 5))
        found = torch.func.grad(lambda a: torch.func.vmap(lambda a, b: one(a, b, kind))(a, y).sum())(z)
        for i in range(4):
            assert_close(found[i], torch.func.grad(reference)(z[i], y[i], kind))

    def test_grad_of_grad(self, kind: str) -> None:
        z, y, v = scores(5, 3), targets((5, 3)), scores(5, 3)
        found, expected = (
            torch.func.grad(lambda a, f=f: (torch.func.grad(f)(a, y, kind) * v).sum())(z) for f in (one, reference)
        )
        assert_close(found, expected)

    def test_jacobian_of_grad(self, kind: str) -> None:
        z, y = scores(4, 3), targets((4, 3))
        found, expected = (torch.func.jacrev(torch.func.grad(f))(z, y, kind) for f in (one, reference))
        assert_close(found, expected)

    def test_many_gradients_at_once(self, kind: str) -> None:
        z, y = scores(5, 3).requires_grad_(), targets((5, 3))
        up = torch.randn(7, 5, dtype=torch.float64)
        found = torch.autograd.grad(gap(z, y, kind).log_odds, z, up, is_grads_batched=True)[0]
        own, rivals = torch_gap(z, y, kind)
        for i in range(7):
            assert_close(found[i], torch.autograd.grad(own - rivals, z, up[i], retain_graph=True)[0])

    @pytest.mark.parametrize("reentrant", [False, True])
    def test_checkpoint(self, kind: str, reentrant: bool) -> None:
        z, y = scores(5, 3).requires_grad_(), targets((5, 3))
        loss = checkpoint(one, z, y, kind, use_reentrant=reentrant)
        assert_close(torch.autograd.grad(loss, z)[0] if not reentrant else _backward(loss, z), _grad(z, y, kind))

    def test_autocast(self, kind: str) -> None:
        z, y = scores(5, 3, dtype=torch.float32).requires_grad_(), targets((5, 3))
        with torch.autocast("cpu", torch.bfloat16):
            loss = one(z, y, kind)
        plain = one(z, y, kind)
        assert loss.dtype == torch.float32
        assert_close(loss, plain)
        assert_close(torch.autograd.grad(loss, z)[0], torch.autograd.grad(plain, z)[0])


def _backward(loss: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    loss.backward()
    return z.grad


def _grad(z: torch.Tensor, y: torch.Tensor, kind: str) -> torch.Tensor:
    return torch.autograd.grad(reference(z, y, kind), z)[0]


def test_a_class_weight_per_sample_is_refused_under_vmap() -> None:
    z, y, weight = scores(4, 5, 3), torch.randint(3, (4, 5)), torch.rand(4, 3)
    with pytest.raises(NotImplementedError, match="mean_weight"):
        torch.func.vmap(lambda a, b, w: gap(a, b, mean=True, mean_weight=w).mean)(z, y, weight)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ignore_index", [-100, 1, 7, -1, 255])
@pytest.mark.parametrize("junk", [0.0, math.nan, INF, -INF])
@pytest.mark.parametrize("where", [[0], [4], [1, 2], [0, 1, 2, 3, 4]])
def test_ignored_rows_give_zero_whatever_they_hold(kind: str, ignore_index: int, junk: float, where: list[int]) -> None:
    z, y = scores(5, 3), torch.tensor([0, 2, 0, 2, 2])
    expected = {row: longhand(z[row].tolist(), int(y[row]), kind) for row in range(5) if row not in where}
    z[where], y[where] = junk, ignore_index
    z.requires_grad_()
    found = gap(z, y, kind, mean=True, hit=True, entropy=True, ignore_index=ignore_index)
    for field, value in found._asdict().items():
        assert (value[where] == 0).all()
        for row, by_hand in expected.items():
            assert value[row].item() == pytest.approx(by_hand[field], rel=1e-13)
    rows = found.target + found.rivals**2 + found.mean + found.entropy
    grad = torch.autograd.grad(rows.sum(), z, create_graph=True)[0]
    assert grad.isfinite().all()
    assert (grad[where] == 0).all()
    second = torch.autograd.grad(grad.square().sum(), z)[0]
    assert second.isfinite().all()
    assert (second[where] == 0).all()


def test_targets_of_every_integer_type() -> None:
    z, y = scores(5, 3), targets((5, 3))
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
        assert torch.equal(gap(z, y.to(dtype)).log_odds, gap(z, y).log_odds)


Z, Y = torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (TypeError, r"`input` to hold floating-point scores, but got torch.int64", (Z.long(), Y)),
        (TypeError, r"`input` to be a torch.Tensor, but got list", ([[0.0, 1.0]], Y)),
        (TypeError, r"`target` to be a torch.Tensor, but got int", (Z, 1)),
        (ValueError, r"`target` of shape \(4,\) for `input` of shape \(4, 3\), but got \(5,\)", (Z, Y.new_zeros(5))),
        (ValueError, r"one-hot target must be floating point", (Z, Y.new_zeros(4, 3))),
        (ValueError, r"`target` of shape \(4, 2\)", (torch.zeros(4, 3, 2), Y)),
        (ValueError, r"`target` of shape \(\)", (torch.zeros(3), Y)),
        (ValueError, r"single number", (torch.zeros(()), Y)),
        (ValueError, r"at least one class, but got shape \(4, 0\)", (torch.zeros(4, 0), Y)),
        (ValueError, r"at least one class", (torch.zeros(0), torch.tensor(0))),
        (TypeError, r"`target` to hold integer class indices, but got torch.bool", (Z, Y.bool())),
        (TypeError, r"`target` to hold integer class indices of shape \(4,\)", (Z, Y.float())),
        (TypeError, r"`target` to hold integer class indices", (Z, Z)),
        (IndexError, r"\[0, 3\) or ignore_index=-100, but got 3 at position \(2,\)", (Z, torch.tensor([0, 2, 3, 0]))),
        (IndexError, r"but got -1 at position \(0,\) \(2 of 4", (Z, torch.tensor([-1, 2, 9, 0]))),
        (
            IndexError,
            r"but got 5 at position \(1, 0\)",
            (torch.zeros(2, 3, 2), torch.tensor([[0, 1], [5, 0]])),
        ),
        (ValueError, r"`kind` to be one of 'soft', 'hard', but got 'harrd'. Did you mean 'hard'\?", (Z, Y, "harrd")),
    ],
)
def test_errors_name_the_argument(error: type[Exception], match: str, arguments: tuple[object, ...]) -> None:
    with pytest.raises(error, match=match):
        gap(*arguments)


def test_a_mean_weight_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`mean_weight` to have one entry per class, \(3,\), but got \(4,\)"):
        gap(Z, Y, mean=True, mean_weight=torch.ones(4))


@pytest.mark.parametrize("scale", [1e4, 1e7, 1e10, 1e30])
def test_gradients_of_scores_of_any_size_are_shares(scale: float) -> None:
    z = torch.tensor([[1.0, 1.0, 0.5], [2.0, -1.0, 1.0], [1.0, 0.0, -1.0]]).mul(scale).requires_grad_()
    (grad,) = torch.autograd.grad(gap(z, torch.tensor([0, 1, 2])).rivals.sum(), z)
    expected = [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    torch.testing.assert_close(grad, torch.tensor(expected), rtol=0, atol=1e-6)


def test_entropy_where_the_target_is_excluded() -> None:
    """A class of probability 0 adds nothing."""
    z = torch.tensor([[-torch.inf, 1.0, 0.0, 2.0]], dtype=torch.float64)
    p = z[:, 1:].softmax(1)
    assert_close(gap(z, torch.tensor([0]), entropy=True).entropy, -(p * p.log()).sum(1))
