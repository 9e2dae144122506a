"""EXACT's kernels: the normal distribution against mpmath, and P against the float64 path, itself tested in mpmath."""

import mpmath as mp
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from helpers import INF
from lossfit import kernels
from lossfit.gaps import gaussian

triton = pytest.importorskip("triton")
import triton.language as tl

from lossfit.kernels import exact, normal

TYPES = {torch.float32: tl.float32, torch.float64: tl.float64}
RTOL = {torch.float32: 1e-6, torch.float64: 1e-14}
# Where the density is near underflow.
FAR = {torch.float32: 12.9, torch.float64: 37.0}


@triton.jit
def everywhere(u, log_cdf_out, hazard_out, other_out, count, DTYPE: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    x = tl.load(u + i, mask=i < count, other=0.0)
    log_cdf, hazard = normal.log_cdf_and_hazard(x, DTYPE)
    tl.store(log_cdf_out + i, log_cdf, mask=i < count)
    tl.store(hazard_out + i, hazard, mask=i < count)
    tl.store(other_out + i, normal.hazard(x, DTYPE), mask=i < count)


@pytest.mark.parametrize("dtype", TYPES)
def test_the_normal_distribution(dtype: torch.dtype, device: str) -> None:
    """Log Phi and phi / Phi, near 0, where 1 - Phi is all that is left, and where Phi is far below underflow."""
    parts = [torch.linspace(-40, FAR[dtype], 400), torch.logspace(-6, 0, 30), -torch.logspace(-6, 6, 60)]
    u = torch.cat(parts).to(dtype).to(device)
    log_cdf, hazard, other = (torch.empty_like(u) for _ in range(3))
    everywhere[(1,)](u, log_cdf, hazard, other, len(u), TYPES[dtype], 512)
    assert torch.equal(hazard, other)
    with mp.workdps(30):
        for x, log, h in zip(u.tolist(), log_cdf.tolist(), hazard.tolist(), strict=True):
            x = mp.mpf(x)
            cdf, tail = mp.erfc(-x / mp.sqrt(2)) / 2, mp.erfc(x / mp.sqrt(2)) / 2
            true = mp.log(cdf) if x < 0 else mp.log1p(-tail)
            assert abs(log / true - 1) < RTOL[dtype], x
            assert abs(h / (mp.npdf(x) / cdf) - 1) < RTOL[dtype], x


def leads(rows: int, classes: int, device: str) -> Tensor:
    return 4 * torch.randn(rows, classes, dtype=torch.float64, device=device) + 1


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("classes", [1, 5, 700])
def test_sums_over_the_classes(dtype: torch.dtype, classes: int, device: str) -> None:
    """By PyTorch's own functions in float64. 700 classes take more than one block."""
    lead = leads(3, classes, device).to(dtype)
    x = torch.randn(3, 11, dtype=dtype, device=device)
    rtol = {torch.float32: 3e-6, torch.float64: 1e-13}[dtype]
    u = lead.double().unsqueeze(1) + x.double().unsqueeze(2)
    log_cdf = torch.special.log_ndtr(u)
    h = every_h = torch.exp(-0.5 * u * u - log_cdf) / (2 * torch.pi) ** 0.5
    a, s = exact.sums_at(lead, x.t().contiguous().t())
    assert_close(a.double(), log_cdf.sum(2), rtol=rtol, atol=rtol)
    assert_close(s.double(), h.sum(2), rtol=rtol, atol=0)

    found = exact.hazard_sums(lead, x[:, 2])
    u, h = u[:, 2], h[:, 2]
    first, second = -h * (u + h), h * ((u + h) * (u + 2 * h) - 1)
    size = first.abs().sum(1).max().item()
    for value, each in zip(found, (h, first, second), strict=True):
        assert_close(value.double(), each.sum(1), rtol=rtol, atol=30 * rtol * size)

    weight = torch.randn(x.shape, dtype=dtype, device=device)
    pushed = exact.push(lead, x, weight)
    by_hand = (weight.double().unsqueeze(2) * every_h).sum(1)
    assert_close(pushed.double(), by_hand, rtol=10 * rtol, atol=10 * rtol)


def hard_rows(classes: int) -> tuple[Tensor, Tensor]:
    """Rows that are won, lost, open and drawn, by little and by far."""
    z = 2 * torch.randn(7, classes, dtype=torch.float64)
    y = torch.randint(classes, (7,))
    for i, ahead in enumerate([60.0, 8.0, 1.0, 0.0, -3.0, -12.0, -INF]):
        rivals = z[i].clone().scatter(0, y[i], -INF)
        z[i, y[i]] = rivals.max() + ahead
    z[3] = 0.0
    return z, y


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    ("classes", "dtype"),
    [(2, torch.float32), pytest.param(20, torch.float32, marks=pytest.mark.slow), (20, torch.float64)],
)
def test_the_loss_and_its_gradients(classes: int, dtype: torch.dtype, log: bool, device: str) -> None:
    """The gradient of the last row, a million noises behind, has no digits in any path; it is finite."""
    z, y = hard_rows(classes)
    sigma = torch.rand(7, dtype=torch.float64) + 0.5
    found = []
    for backend, at, kind in (("torch", "cpu", torch.float64), ("triton", device, dtype), ("torch", "cpu", dtype)):
        scores, scale = (v.to(dtype).to(at, kind).requires_grad_() for v in (z, sigma))
        with kernels.using(backend):
            rows = gaussian.exact_rows(scores, y.to(at), scale, log)
            grads = torch.autograd.grad(rows.sum(), (scores, scale))
        found.append([v.detach().cpu() for v in (rows, *grads)])
    tiny = torch.finfo(dtype).tiny
    rtol = {torch.float32: 1e-5, torch.float64: 1e-9}[dtype]
    assert_close(found[1][0].double(), found[0][0], rtol=rtol, atol=tiny)
    for true, value, baseline in list(zip(*found, strict=True))[1:]:
        assert value.isfinite().all()
        true, value, baseline = (v[:-1].double() for v in (true, value, baseline))
        near = 10 * rtol * true.abs() + 10 * tiny
        assert ((value - true).abs() <= 2 * (baseline - true).abs() + near).all()


def test_no_rows(device: str) -> None:
    z = torch.zeros(0, 3, device=device, requires_grad=True)
    with kernels.using("triton"):
        rows = gaussian.exact_rows(z, torch.zeros(0, dtype=torch.int64, device=device), 1.0, True)
        assert torch.autograd.grad(rows.sum(), z)[0].shape == (0, 3)
