"""Losses from features and weights against the losses of their scores."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

import lossfit
from families import EXAMPLES
from helpers import PATHS, build, case_id, every_case
from interpreter import quicken
from lossfit.core.limits import limited

quicken()
# The interpreter computes with numpy, which warns of the infinities that the kernels mean.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")

CASES = every_case()
N, D, C = 11, 5, 7
COMMON: list[dict[str, object]] = [
    {},
    {"reduction": "sum", "label_smoothing": 0.1},
    {"reduction": "none", "weight": torch.linspace(0.5, 2, C, dtype=torch.float64)},
    {"temperature": 2.0, "class_prior": torch.linspace(1, 9, C, dtype=torch.float64), "label_smoothing": 0.2},
]


@pytest.fixture(autouse=True)
def several_chunks() -> Iterator[None]:
    with limited(least_rows=4, chunk_bytes=1):
        yield


def layer(
    dtype: torch.dtype = torch.float64, rows: int = N, seed: int = 0, backend: str = "dense"
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, weight, bias and targets; for the kernels few, and on a GPU where there is one."""
    device = "cpu"
    if backend == "triton":
        pytest.importorskip("triton")
        rows, device = min(rows, 5), "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(seed)
    x, weight, bias = (torch.randn(*s, dtype=torch.float64, generator=generator) for s in ((rows, D), (C, D), (C,)))
    target = torch.randint(C, (rows,), generator=generator)
    x, weight, bias = (t.to(device, dtype).requires_grad_() for t in (x, weight, bias))
    return x, weight, bias, target.to(device)


def gradients(value: Tensor, of: list[Tensor], **options: object) -> list[Tensor]:
    upstream = torch.linspace(0.5, 2, value.numel(), dtype=value.dtype).view(value.shape) * (
        -3 if value.ndim == 0 else 1
    )
    return [value, *torch.autograd.grad(value, of, upstream, **options)]


def close(found: list[Tensor], expected: list[Tensor], case: str = "") -> None:
    rtol, atol = (1e-7, 1e-9) if case == "exact" else (1e-10, 1e-12)
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, rtol=rtol, atol=atol)


def marks(case: tuple[str, dict[str, object]], backend: str, soft: bool = False) -> list[pytest.MarkDecorator]:
    """The kernels are interpreted: a loss for each path is enough where time counts, and of EXACT, where each class
    with a share is an integral of its own, one with shares.
    """
    slow = backend == "triton" and (case not in PATHS or (soft and case[0] == "exact"))
    return [pytest.mark.slow] if slow else []


def ways() -> Iterator[object]:
    """Every case in every setting by every backend."""
    for case in CASES:
        for common in COMMON:
            for backend in ("chunked", "dense", "auto", "triton"):
                if backend != "triton" or not common or case in PATHS:
                    named = f"{case_id(case)}-{'-'.join(common)}-{backend}"
                    yield pytest.param(
                        case, common, backend, id=named, marks=marks(case, backend, "label_smoothing" in common)
                    )


@pytest.mark.parametrize(("case", "common", "backend"), list(ways()))
def test_linear_is_the_loss_of_the_scores(
    case: tuple[str, dict[str, object]], common: dict[str, object], backend: str
) -> None:
    name, settings = case
    x, weight, bias, target = layer(backend=backend)
    target[3] = -100
    loss = build(name, **{**settings, **common}).to(x.device)
    sample_weight = torch.linspace(0.1, 1, len(x), dtype=torch.float64, device=x.device)
    expected = gradients(loss(x @ weight.T + bias, target, sample_weight=sample_weight), [x, weight, bias])
    value = loss.linear(x, weight, target, bias, sample_weight=sample_weight, backend=backend)
    for _ in range(1 if backend == "triton" and common else 2):  # the second time what was made ahead is gone
        close(gradients(value, [x, weight, bias], retain_graph=True), expected, name)


@pytest.mark.parametrize(
    ("case", "backend"),
    [
        pytest.param(case, backend, id=f"{case_id(case)}-{backend}", marks=marks(case, backend))
        for case in CASES
        for backend in ("chunked", "dense", "triton")
    ],
)
def test_probabilities_as_targets(case: tuple[str, dict[str, object]], backend: str) -> None:
    name, settings = case
    x, weight, bias, _ = layer(backend=backend, rows=2 if (name, backend) == ("exact", "triton") else N)
    target = torch.rand(len(x), C, dtype=torch.float64, device=x.device)
    loss = build(name, **{**settings, "weight": torch.linspace(0.5, 2, C, dtype=torch.float64)}).to(x.device)
    expected = gradients(loss(x @ weight.T + bias, target), [x, weight, bias])
    close(gradients(loss.linear(x, weight, target, bias, backend=backend), [x, weight, bias]), expected, name)


@pytest.mark.parametrize("backend", ["chunked", "triton"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2)])
def test_only_what_wants_a_gradient_gets_one(wanted: tuple[int, ...], reduction: str, backend: str) -> None:
    tensors = [t.detach().requires_grad_(i in wanted) for i, t in enumerate(layer(backend=backend)[:3])]
    target, loss = layer(backend=backend)[3], lossfit.FocalLoss(reduction=reduction)
    of = [tensors[i] for i in wanted]
    expected = gradients(loss(tensors[0] @ tensors[1].T + tensors[2], target), of)
    value = loss.linear(tensors[0], tensors[1], target, tensors[2], backend=backend)
    close(gradients(value, of), expected)
    with torch.no_grad():
        assert not loss.linear(tensors[0], tensors[1], target, tensors[2], backend=backend).requires_grad


@pytest.mark.parametrize("backend", ["chunked", "triton"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_learnt_numbers_rows_and_weights(reduction: str, backend: str) -> None:
    """A number, one per row, a learnt sample weight, a learnt temperature."""
    x, weight, _, target = layer(backend=backend)
    gamma = torch.nn.Parameter(torch.tensor(0.3, dtype=torch.float64, device=x.device))
    per_row = torch.linspace(0.1, 0.9, len(x), dtype=torch.float64, device=x.device).requires_grad_()
    temperature = torch.nn.Parameter(torch.tensor(1.7, dtype=torch.float64, device=x.device))
    mass = torch.rand(len(x), dtype=torch.float64, device=x.device).requires_grad_()
    for g in (gamma, per_row):
        loss = lossfit.GammaCrossEntropyLoss(g, reduction=reduction, temperature=temperature)
        of = [x, weight, g, temperature, mass]
        expected = gradients(loss(x @ weight.T, target, sample_weight=mass), of)
        value = loss.linear(x, weight, target, sample_weight=mass, backend=backend)
        close(gradients(value, of), expected)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("cross_entropy", "chunked"),
        ("cross_entropy", "triton"),
        ("exact", "chunked"),
        pytest.param("exact", "triton", marks=marks(("exact", {}), "triton", soft=True)),
    ],
)
def test_learnt_targets_priors_and_class_weights(name: str, reduction: str, backend: str) -> None:
    x, weight, _, target = layer(backend=backend)
    per_class = torch.linspace(0.5, 2, C, dtype=torch.float64, device=x.device).requires_grad_()
    soft = torch.rand(len(x), C, dtype=torch.float64, device=x.device).requires_grad_()
    ways = [
        (lossfit.make(name, weight=per_class, label_smoothing=0.1, reduction=reduction), target, per_class),
        (lossfit.make(name, class_prior=per_class, reduction=reduction), target, per_class),
        (lossfit.make(name, reduction=reduction), soft, soft),
    ]
    for loss, labels, learnt in ways:
        of = [x, weight, learnt]
        expected = gradients(loss(x @ weight.T, labels), of)
        close(gradients(loss.linear(x, weight, labels, backend=backend), of), expected, name)


@pytest.mark.parametrize("backend", ["chunked", "triton"])
def test_what_a_users_link_holds_gets_its_gradient(backend: str) -> None:
    x, weight, _, target = layer(backend=backend)
    net = torch.nn.Sequential(torch.nn.Linear(1, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)).to(x)
    raw = torch.nn.Parameter(torch.tensor(0.3).to(x))
    factor = torch.sigmoid(raw)
    loss = lossfit.LinkLoss(lambda d: factor * net(d.unsqueeze(-1)).squeeze(-1).square())
    of = [x, weight, raw, *net.parameters()]
    expected = gradients(loss(x @ weight.T, target), of, retain_graph=True)
    close(gradients(loss.linear(x, weight, target, backend=backend), of), expected)


@pytest.mark.parametrize("backend", ["chunked", "triton"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_second_derivatives(reduction: str, backend: str) -> None:
    x, weight, bias, target = layer(backend=backend)
    loss = lossfit.FocalLoss(gamma=1.5, reduction=reduction)
    found = []
    for value in (loss.linear(x, weight, target, bias, backend=backend), loss(x @ weight.T + bias, target)):
        once = torch.autograd.grad(value.sum(), [x, weight, bias], create_graph=True)
        found.append(list(torch.autograd.grad(sum(g.square().sum() for g in once), [x, weight, bias])))
    close(*found)


def test_any_leading_shape_and_rows_that_do_not_count() -> None:
    x, weight, bias, target = layer(rows=24)
    target[::5] = -100
    with torch.no_grad():
        x[::5] = torch.nan
    loss = lossfit.CrossEntropyLoss(reduction="none")
    expected = loss((x @ weight.T + bias).nan_to_num(), target)
    for shape in ((24,), (4, 6), (2, 3, 4), (1, 24)):
        rows = loss.linear(x.view(*shape, D), weight, target.view(shape), bias, backend="chunked")
        close([rows], [expected.view(shape)])
    value = lossfit.CrossEntropyLoss().linear(x.view(4, 6, D), weight, target.view(4, 6), bias, backend="chunked")
    close([value], [expected.sum() / (target >= 0).sum()])
    grad, to_weight = torch.autograd.grad(value, [x, weight])
    assert grad[::5].eq(0).all()
    assert to_weight.isfinite().all()
    close([loss.linear(x[1], weight, target[1], bias)], [expected[1]])


def test_rows_that_do_not_count_are_not_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, _, target = layer()
    target[2:] = -100
    seen = []
    multiply = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b, **k: (seen.append(len(a)), multiply(a, b, **k))[1])
    lossfit.CrossEntropyLoss().linear(x, weight, target, backend="chunked").backward()
    assert seen[0] == 2


@pytest.mark.parametrize("backend", ["chunked", "dense", "triton"])
def test_no_rows_and_none_that_count(backend: str) -> None:
    x, weight, bias, target = layer(backend=backend)
    for rows, labels in ((x[:0], target[:0]), (x, torch.full_like(target, -100))):
        found = gradients(lossfit.FocalLoss().linear(rows, weight, labels, bias, backend=backend), [x, weight, bias])
        assert all(v.eq(0).all() for v in found)


def test_shifted_targets_are_those_of_later_positions() -> None:
    x, weight, _, target = layer(rows=24)
    x, target = x.view(4, 6, D), target.view(4, 6)
    mass = torch.rand(4, 6, dtype=torch.float64)
    loss = lossfit.CrossEntropyLoss()
    expected = loss((x[:, :-2] @ weight.T).flatten(0, 1), target[:, 2:].flatten(), sample_weight=mass[:, 2:].flatten())
    close([loss.linear(x, weight, target, sample_weight=mass, shift=2)], [expected])
    assert lossfit.CrossEntropyLoss(reduction="none").linear(x, weight, target, shift=1).shape == (4, 5)
    assert loss.linear(x, weight, target, shift=6) == 0


@pytest.mark.parametrize("backend", ["chunked", "dense", "triton"])
@pytest.mark.parametrize("name", ["cross_entropy", "smooth_accuracy", "exact"])
def test_extras_caps_and_the_z_loss(name: str, backend: str) -> None:
    x, weight, bias, target = layer(backend=backend)
    target[4] = -100
    z = 3 * torch.tanh((x @ weight.T + bias) / 3)
    lse, log_p = z.logsumexp(1), z.log_softmax(1)
    counts = target >= 0
    safe = target.clamp(min=0)
    loss = lossfit.make(name)
    rows = loss.__class__(reduction="none")(z, target) + torch.where(counts, 0.3 * lse.square(), 0.0)
    expected = gradients(rows.sum() / counts.sum(), [x, weight, bias], retain_graph=True)
    options = {"backend": backend, "softcap": 3.0, "z_loss": 0.3}
    found = loss.linear(x, weight, target, bias, **options, extras=("log_prob", "hit", "entropy", "lse"))
    close(gradients(found.loss, [x, weight, bias]), expected, name)
    own = log_p.gather(1, safe.unsqueeze(1)).squeeze(1)
    want = [own, -(log_p.exp() * log_p).sum(1), lse]
    close([found.log_prob, found.entropy, found.lse], [torch.where(counts, w, 0.0).detach() for w in want])
    assert torch.equal(found.hit, (z.argmax(1) == safe) & counts)
    assert loss.linear(x, weight, target, bias, **options).requires_grad


def test_linear_gap_is_differentiable_in_all_it_tells() -> None:
    x, weight, bias, target = layer()
    for kind in ("soft", "hard"):
        wanted = {"mean": True, "hit": True, "entropy": True}
        a = lossfit.linear_gap(x, weight, target, bias, kind, **wanted, backend="chunked")
        b = lossfit.gap(x @ weight.T + bias, target, kind, **wanted)
        assert torch.equal(a.hit, b.hit)
        each = [gradients(g.target + 2 * g.rivals.sin() + g.mean * g.entropy, [x, weight, bias]) for g in (a, b)]
        close(*each)


def test_an_explicit_denominator() -> None:
    x, weight, _, target = layer()
    loss = lossfit.CrossEntropyLoss()
    whole = loss.linear(x, weight, target)
    parts = [loss.linear(x[at], weight, target[at], denominator=N) for at in (slice(0, 4), slice(4, N))]
    close([sum(parts)], [whole])


@pytest.mark.parametrize(("rows", "width", "spread"), [(256, 64, 0.3), (1024, 32, 0.1)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_exact_as_without_chunks(dtype: torch.dtype, rows: int, width: int, spread: float) -> None:
    """Against float32 truth, the error is at most 1.1 times that of cross-entropy on half-precision scores."""
    generator = torch.Generator().manual_seed(3)
    classes = 300
    x = torch.randn(rows, width, generator=generator).to(dtype).requires_grad_()
    weight = (spread * torch.randn(classes, width, generator=generator)).to(dtype).requires_grad_()
    target = torch.randint(classes, (rows,), generator=generator)
    truth = [t.detach().double().requires_grad_() for t in (x, weight)]
    F.cross_entropy(truth[0] @ truth[1].T, target).backward()
    plain = torch.autograd.grad(F.cross_entropy(x @ weight.T, target), [x, weight])
    with limited(least_rows=64):
        value = lossfit.CrossEntropyLoss().linear(x, weight, target, backend="chunked")
        found = torch.autograd.grad(value, [x, weight])
    assert all(g.dtype == dtype for g in found)
    assert value.dtype == torch.float32
    for g, p, t in zip(found, plain, truth, strict=True):
        assert (g.double() - t.grad).norm() <= 1.1 * (p.double() - t.grad).norm() + 1e-12


def test_small_gradients_in_half_precision_do_not_vanish() -> None:
    """The loss is scaled up after its gradients are made, as a gradient scaler does it."""
    x, weight, _, target = layer(torch.float16, rows=64)
    value = lossfit.CrossEntropyLoss().linear(x, weight, target, denominator=1e6, backend="chunked")
    (found,) = torch.autograd.grad(1e6 * value, [x])
    (expected,) = torch.autograd.grad(F.cross_entropy(x.float() @ weight.float().T, target, reduction="sum"), [x])
    assert_close(found, expected, rtol=2e-2, atol=2e-2)


def test_autocast() -> None:
    x, weight, bias, target = layer(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        value = lossfit.FocalLoss().linear(x, weight, target, bias, backend="chunked")
    expected = gradients(lossfit.FocalLoss()(x @ weight.T + bias, target), [x, weight, bias])
    for a, b in zip(gradients(value, [x, weight, bias]), expected, strict=True):
        assert a.dtype == torch.float32
        assert_close(a, b, rtol=0.05, atol=0.05)


def test_numbers_that_are_not_finite_give_such_losses() -> None:
    for bad in (torch.nan, torch.inf):
        x, weight, bias, target = layer()
        with torch.no_grad():
            x[2, 1] = bad
        rows = lossfit.CrossEntropyLoss(reduction="none").linear(x, weight, target, bias, backend="chunked")
        assert rows.isfinite().tolist() == [i != 2 for i in range(N)]


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # looked at where the graph breaks
def test_compiled_and_transformed() -> None:
    x, weight, _, target = layer()
    loss = lossfit.FocalLoss()
    value = torch.compile(loss.linear, backend="eager")(x, weight, target, backend="chunked")
    close(gradients(value, [x, weight]), gradients(loss(x @ weight.T, target), [x, weight]))
    grads = torch.func.grad(lambda w: loss.linear(x.detach(), w, target))(weight.detach())
    close([grads], [torch.autograd.grad(loss(x @ weight.T, target), weight)[0]])


HEADS = [
    lossfit.CosineHead(D, C, scale=8.0),
    lossfit.CosineHead(D, C, scale=8.0, margin=lossfit.AdditiveMargin(torch.nn.Parameter(torch.tensor(0.3)))),
    lossfit.CosineHead(D, C, scale="norm", margin=lossfit.AngularMargin(2.5, annealing=1.0)),
    lossfit.CosineHead(D, C, scale=8.0, margin=lossfit.ArcMargin(torch.linspace(0.1, 0.5, C)), sub_centers=3),
    lossfit.CosineHead(D, C, scale=8.0, learn_scale=True, margin=lossfit.CombinedMargin(1.3, 0.2, 0.1)),
    lossfit.LinearHead(D, C),
    lossfit.LinearHead(D, C, margin=lossfit.AngularMargin(2.0)),
]


@pytest.mark.parametrize(
    "loss",
    [lossfit.CrossEntropyLoss(label_smoothing=0.1), lossfit.FocalLoss(reduction="none"), lossfit.ExactLoss()],
    ids=lambda loss: loss.name,
)
@pytest.mark.parametrize("head", HEADS, ids=str)
def test_heads(head: lossfit.CosineHead, loss: lossfit.SingleLabelLoss) -> None:
    head = copy.deepcopy(head).double()
    x, _, _, target = layer()
    target[2] = -100
    with torch.no_grad():
        x[5] = 0
    of = [x, *head.parameters()]
    expected = gradients(head.loss(x, target, loss, backend="dense"), of)
    close(gradients(head.loss(x, target, loss, backend="chunked"), of), expected, loss.name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_head_of_another_type_than_its_features(dtype: torch.dtype) -> None:
    head, (x, _, _, target) = lossfit.LinearHead(D, C).to(dtype), layer(torch.float32)
    of = [x, *head.parameters()]
    expected = gradients(head.loss(x, target, backend="dense"), of)
    found = gradients(head.loss(x, target, backend="chunked"), of)
    assert found[0].dtype == expected[0].dtype
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("name", lossfit.available_losses("multi_label"))
def test_multi_label_losses(name: str) -> None:
    x, weight, bias, _ = layer()
    labels = torch.rand(N, C, dtype=torch.float64).round()
    labels[1, 2], labels[4] = -100, -100
    listed = torch.tensor([[0, 3, -100], [-100] * 3, [6, -100, 1]] * 4)[:N]
    for target, reduction in ((labels, "mean"), (listed, "sum"), (labels, "none")):
        loss = lossfit.make(name, reduction=reduction)
        expected = gradients(loss(x @ weight.T + bias, target), [x, weight, bias])
        for backend in ("chunked", "dense"):
            found = loss.linear(x, weight, target, bias, backend=backend)
            close(gradients(found, [x, weight, bias]), expected)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_distillation(alpha: float, reduction: str) -> None:
    x, weight, bias, target = layer()
    teacher_x, teacher_weight = torch.randn(N, 3, dtype=torch.float64), torch.randn(C, 3, dtype=torch.float64)
    target[3] = -100
    inner = lossfit.FocalLoss(weight=torch.linspace(0.5, 2, C, dtype=torch.float64))
    loss = lossfit.DistillationLoss(3.0, alpha, loss=inner, reduction=reduction)
    mass = torch.rand(N, dtype=torch.float64)
    expected = gradients(
        loss(x @ weight.T + bias, teacher_x @ teacher_weight.T, target, sample_weight=mass), [x, weight, bias]
    )
    for backend in ("chunked", "dense"):
        found = loss.linear(x, weight, teacher_x, teacher_weight, target, bias, sample_weight=mass, backend=backend)
        close(gradients(found, [x, weight, bias]), expected)


def test_distillation_of_later_targets() -> None:
    x, weight, _, target = layer(rows=24)
    x, target = x.view(4, 6, D), target.view(4, 6)
    teacher_x, teacher_weight = torch.randn(4, 6, 3, dtype=torch.float64), torch.randn(C, 3, dtype=torch.float64)
    target[1, 3] = -100
    mass, loss = torch.rand(4, 6, dtype=torch.float64), lossfit.DistillationLoss(3.0, 0.4)
    rows = [t.flatten(0, 1) for t in (x[:, :-1], teacher_x[:, :-1], target[:, 1:], mass[:, 1:])]
    expected = loss(rows[0] @ weight.T, rows[1] @ teacher_weight.T, rows[2], sample_weight=rows[3])
    found = loss.linear(x, weight, teacher_x, teacher_weight, target, sample_weight=mass, backend="chunked", shift=1)
    close(gradients(found, [x, weight]), gradients(expected, [x, weight]))


def test_distillation_under_autocast() -> None:
    """Features come in half precision then, and the weights of both models stay as they are."""
    x, weight, bias, target = layer(torch.float32)
    teacher_x, teacher_weight = torch.randn(N, 3), torch.randn(C, 3)
    loss = lossfit.DistillationLoss()
    expected = loss(x @ weight.T + bias, teacher_x @ teacher_weight.T, target)
    for backend in ("chunked", "dense"):
        with torch.autocast("cpu", torch.bfloat16):
            halves = x.bfloat16(), teacher_x.bfloat16()
            found = loss.linear(halves[0], weight, halves[1], teacher_weight, target, bias, backend=backend)
        assert_close(found, expected, rtol=0.02, atol=0.02)


def test_a_list_of_no_classes() -> None:
    x, weight, bias, target = layer()
    none, loss = target.new_zeros(N, 0), lossfit.ZLPRLoss()
    close([loss.linear(x, weight, none, bias, backend="chunked")], [loss(x @ weight.T + bias, none)])


def test_info_nce_does_not_make_its_similarities() -> None:
    first, second = EXAMPLES["info_nce"]()
    of = [first.requires_grad_(), second.requires_grad_()]
    loss = lossfit.InfoNCELoss(0.4, symmetric=True)
    found = gradients(loss(first, second), of)
    with limited(least_rows=1000):
        close(found, gradients(loss(first, second), of))


X, WEIGHT, BIAS, TARGET = (t.detach() for t in layer())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": [1.0]}, TypeError, "`x` to be a torch.Tensor, but got list"),
        ({"x": X.long()}, TypeError, "`x` to hold floating-point features, but got torch.int64"),
        ({"x": X[:, :4]}, ValueError, r"`x` of shape \(..., 5\) for `weight` of shape \(7, 5\), but got \(11, 4\)"),
        ({"weight": WEIGHT[0]}, ValueError, r"`weight` of shape \(C, D\)"),
        ({"weight": WEIGHT.float()}, TypeError, "`weight` of the type of `x`, torch.float64, but got torch.float32"),
        ({"weight": WEIGHT.to("meta")}, ValueError, "`weight` on the device of `x`, cpu, but got meta"),
        ({"bias": BIAS[:3]}, ValueError, r"`bias` of shape \(7,\), one entry per class, but got \(3,\)"),
        ({"target": TARGET[:3]}, ValueError, r"`target` of shape \(11,\).*, but got \(3,\)"),
        ({"target": TARGET + 7}, IndexError, r"class indices in \[0, 7\)"),
        ({"target": torch.rand(N, 3)}, ValueError, r"`target` of shape \(11, 7\)"),
        (
            {"backend": "cuda"},
            ValueError,
            "`backend` to be one of 'auto', 'dense', 'chunked', 'triton', but got 'cuda'",
        ),
        ({"x": X[0], "target": TARGET[0], "shift": 1}, ValueError, r"`x` \(..., T, D\) and `target` \(..., T\)"),
        ({"shift": -1}, ValueError, "`shift` to be a whole number of at least 0"),
        ({"shift": True}, ValueError, "`shift` to be a whole number of at least 0"),
        ({"softcap": 0.0}, ValueError, "`softcap` to be positive"),
        ({"softcap": float("inf")}, ValueError, "`softcap` to be positive and finite, but got inf"),
        ({"softcap": "30"}, TypeError, "`softcap` to be a number, but got str"),
        ({"z_loss": -1.0}, ValueError, "`z_loss` of at least 0"),
        ({"z_loss": None}, TypeError, "`z_loss` to be a number, but got NoneType"),
        ({"denominator": "3"}, TypeError, "`denominator` to be a number, but got str"),
        ({"denominator": torch.ones(2)}, ValueError, r"`denominator` to be one number, but got shape \(2,\)"),
        ({"weight": WEIGHT[:0]}, ValueError, r"`weight` of shape \(C, D\) with C of at least 1, but got \(0, 5\)"),
        ({"target": TARGET.double()}, TypeError, r"`target` of shape \(11,\) to hold integer class indices, but got"),
        ({"extras": "hit"}, TypeError, "`extras` to be a tuple or list of names, but got 'hit'"),
        ({"extras": ("prob",)}, ValueError, "`extras` to be one of .*Did you mean 'log_prob'"),
        ({"target": torch.rand(N, C), "extras": ("hit",)}, ValueError, "without 'hit' where targets are prob"),
        ({"sample_weight": torch.ones(3)}, ValueError, r"`sample_weight` of shape \(11,\)"),
    ],
)
def test_bad_input(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    given = {"x": X, "weight": WEIGHT, "target": TARGET, "bias": BIAS, **arguments}
    with pytest.raises(error, match=message):
        lossfit.CrossEntropyLoss().linear(**given)


TEACHER = torch.zeros(N, 3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"backend": "cuda"},
            ValueError,
            "`backend` to be one of 'auto', 'dense', 'chunked', 'triton', but got 'cuda'",
        ),
        ({"x": [1.0], "target": None}, TypeError, "`x` to be a torch.Tensor, but got list"),
        ({"teacher_x": TEACHER[:4]}, ValueError, r"`teacher_x` of shape \(11, 'E'\), but got \(4, 3\)"),
        ({"teacher_x": TEACHER.float()}, TypeError, "`teacher_weight` of the type of `teacher_x`, torch.float32"),
        ({"teacher_weight": TEACHER[:C].to("meta")}, ValueError, "`teacher_weight` on the device of `x`, cpu"),
        ({"teacher_bias": [0.0] * C}, TypeError, "`teacher_bias` to be a floating-point tensor, but got list"),
    ],
)
def test_bad_input_of_distillation(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    given = {"x": X, "weight": WEIGHT, "teacher_x": TEACHER, "teacher_weight": TEACHER[:C], "target": TARGET}
    with pytest.raises(error, match=message):
        lossfit.DistillationLoss(alpha=1.0).linear(**{**given, **arguments})
