"""EXACT: the probability under Gaussian noise against an independent quadrature in mpmath."""

import json
import math
import runpy
from pathlib import Path

import mpmath as mp
import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import lossfit
from helpers import INF
from lossfit.gaps.gaussian import exact_rows

# Rivals are (offset behind the best of them, how many). scripts/exact_references.py made the file.
Rivals = tuple[tuple[float, int], ...]
FILE = Path(__file__).with_name("exact_references.json")
REFERENCES = {(one["field"], one["gap"]): one for one in json.loads(FILE.read_text(encoding="utf-8"))}


def by_mpmath(field: str, gap: float) -> tuple[Rivals, mp.mpf, mp.mpf, list[mp.mpf]]:
    """The rivals, P, 1 - P and dP/dz of one rival of each kind."""
    one = REFERENCES[field, gap]
    with mp.workdps(40):
        return one["rivals"], mp.mpf(one["win"]), mp.mpf(one["lose"]), [mp.mpf(slope) for slope in one["slopes"]]


@pytest.mark.slow
def test_the_file_is_what_its_script_makes() -> None:
    made = runpy.run_path(str(Path(__file__).parents[3] / "scripts" / "exact_references.py"))["references"]()
    assert json.loads(json.dumps(made)) == [*REFERENCES.values()]


def row(gap: float, rivals: Rivals, dtype: torch.dtype) -> torch.Tensor:
    """Logits with the target first."""
    return torch.cat([torch.tensor([gap], dtype=dtype), *(torch.full((n,), -b, dtype=dtype) for b, n in rivals)])


def test_the_reference_is_right_for_two_classes() -> None:
    with mp.workdps(40):
        for gap in (-30.0, -1.0, 12.0):
            _, win, lose, (slope,) = by_mpmath("1", gap)
            u = mp.mpf(gap) / mp.sqrt(2)
            assert abs(win / mp.ncdf(u) - 1) < 1e-30
            assert abs(lose / mp.ncdf(-u) - 1) < 1e-30
            assert abs(slope * mp.sqrt(2) / -mp.npdf(u) - 1) < 1e-30


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_two_classes_are_the_probit(dtype: torch.dtype) -> None:
    gaps = [i / 4 for i in range(-120, 121)]
    z = torch.tensor([[g, 0.0] for g in gaps], dtype=dtype, requires_grad=True)
    y = torch.zeros(len(gaps), dtype=torch.int64)
    rtol = 1e-9 if dtype == torch.float64 else 1e-5
    tiny = torch.finfo(dtype).tiny
    for log in (False, True):
        rows = exact_rows(z, y, 1.0, log)
        grad = torch.autograd.grad(rows.sum(), z)[0]
        with mp.workdps(150):
            for i, gap in enumerate(gaps):
                u = mp.mpf(gap) / mp.sqrt(2)
                exact = -mp.log(mp.ncdf(u)) if log else mp.ncdf(-u)
                slope = -mp.npdf(u) / mp.sqrt(2) / (mp.ncdf(u) if log else 1)
                for found, truth in ((rows[i], exact), (grad[i, 0], slope), (grad[i, 1], -slope)):
                    assert abs(found.item() - truth) <= rtol * abs(truth) + 2 * tiny, (gap, log)


@pytest.mark.parametrize(("field", "gap"), REFERENCES)
def test_probability_logarithm_and_gradient(field: str, gap: float) -> None:
    rivals, win, lose, slopes = by_mpmath(field, gap)
    for dtype, absolute, relative in ((torch.float64, 1e-8, 1e-6), (torch.float32, 1e-5, 1e-5)):
        z, y = row(gap, rivals, dtype).unsqueeze(0).requires_grad_(), torch.tensor([0])
        for log in (False, True):
            loss = exact_rows(z, y, 1.0, log)
            grad = torch.autograd.grad(loss.sum(), z)[0][0]
            with mp.workdps(40):
                exact = (-mp.log1p(-lose) if lose < 0.5 else -mp.log(win)) if log else lose
                assert abs(loss.item() - exact) <= absolute or log
                if exact > torch.finfo(dtype).tiny:
                    assert abs(loss.item() - exact) <= relative * exact
                scale = 1 / win if log else 1
                # The loss falls as P grows; the first rival of each kind stands for its equals.
                starts = [1 + sum(n for _, n in rivals[:k]) for k in range(len(rivals))]
                truth = [-s * scale for s in slopes]
                own = -mp.fsum(n * t for (_, n), t in zip(rivals, truth, strict=True))
                allowed = 10 * relative * max(map(abs, (own, *truth))) + 2 * torch.finfo(dtype).tiny
                for found, expected in zip(grad[[0, *starts]].tolist(), [own, *truth], strict=True):
                    assert abs(found - expected) <= allowed
            for start, (_, n) in zip(starts, rivals, strict=True):
                assert (grad[start : start + n] - grad[start]).abs().max() <= float(allowed)


@pytest.mark.parametrize("classes", [2, 3, 10, 50])
def test_probabilities_of_the_classes_sum_to_1(classes: int) -> None:
    z = 3 * torch.randn(8, classes, dtype=torch.float64)
    p = torch.stack([1 - exact_rows(z, torch.full((8,), c), 1.0, False) for c in range(classes)], 1)
    assert_close(p.sum(1), torch.ones(8, dtype=torch.float64), rtol=0, atol=1e-9)
    assert_close(lossfit.ExactLoss().probabilities(z), p, rtol=0, atol=1e-15)


def test_probabilities_take_sigma_and_temperature_and_positions() -> None:
    z = torch.randn(4, 3, 2, dtype=torch.float64)
    p = lossfit.ExactLoss(sigma=2.0, temperature=0.5, class_prior=torch.tensor([1, 2, 3])).probabilities(z)
    assert p.shape == z.shape
    one = exact_rows(z[:, :, 1], torch.full((4,), 2), 1.0, False)
    assert_close(p[:, 2, 1], 1 - one, rtol=0, atol=1e-12)


def test_samples_of_the_noise_agree() -> None:
    z = torch.tensor([1.0, 0.5, -0.3, 0.8], dtype=torch.float64)
    samples = 400_000
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(samples, 4, dtype=torch.float64, generator=generator)
    wins = torch.bincount((z / 1.5 + noise).argmax(1), minlength=4) / samples
    p = lossfit.ExactLoss(sigma=1.5).probabilities(z.unsqueeze(0))[0]
    assert_close(wins.double(), p, rtol=0, atol=4 * 0.5 / math.sqrt(samples))


class TestSigma:
    """The scale of the noise."""

    z = torch.tensor([[1.0, 0.0, -2.0], [0.5, 2.0, 1.0], [0.0, 0.1, 0.3], [3.0, -1.0, 0.5]], dtype=torch.float64)
    y = torch.tensor([0, 2, 1, 0])

    @pytest.mark.parametrize("log", [False, True])
    def test_it_divides_the_logits(self, log: bool) -> None:
        found = lossfit.ExactLoss(2.5, log=log, reduction="none")(self.z, self.y)
        assert_close(found, exact_rows(self.z / 2.5, self.y, 1.0, log), rtol=1e-12, atol=0)

    def test_one_for_each_row(self) -> None:
        sigma = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
        found = lossfit.ExactLoss(sigma, reduction="none")(self.z, self.y)
        for i, s in enumerate(sigma.tolist()):
            assert_close(found[i], exact_rows(self.z[i : i + 1], self.y[i : i + 1], s, False)[0])

    @pytest.mark.parametrize("log", [False, True])
    def test_its_gradient(self, log: bool) -> None:
        sigma = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64, requires_grad=True)
        z = self.z.clone().requires_grad_()
        assert gradcheck(lambda z, s: exact_rows(z, self.y, s, log), (z, sigma), eps=1e-4, atol=1e-6, rtol=1e-5)

    def test_a_single_number_that_learns(self) -> None:
        sigma = torch.nn.Parameter(torch.tensor(1.5, dtype=torch.float64))
        loss = lossfit.ExactLoss(sigma)
        assert list(dict(loss.named_parameters())) == ["sigma"]
        loss(self.z, self.y).backward()
        h = 1e-4
        up, down = (lossfit.ExactLoss(1.5 + s)(self.z, self.y) for s in (h, -h))
        assert sigma.grad.item() == pytest.approx(((up - down) / (2 * h)).item(), rel=1e-5)

    def test_the_output_of_a_head_of_the_network(self) -> None:
        head = torch.nn.Linear(5, 1, dtype=torch.float64)
        sigma = torch.nn.functional.softplus(head(torch.randn(4, 5, dtype=torch.float64))).squeeze(1)
        lossfit.functional.exact_loss(self.z, self.y, sigma).backward()
        assert head.weight.grad.abs().sum() > 0

    def test_a_schedule(self) -> None:
        loss = lossfit.ExactLoss(lambda step: 4.0 / (1 + step))
        loss.step(to=3)
        assert_close(loss(self.z, self.y), lossfit.ExactLoss(1.0)(self.z, self.y))

    def test_it_is_above_0(self) -> None:
        with pytest.raises(ValueError, match=r"`sigma` in \(0, inf\), but got 0"):
            lossfit.ExactLoss(0.0)
        with pytest.raises(ValueError, match=r"`sigma` in \(0, inf\), but got values from -1 to 2"):
            lossfit.ExactLoss(torch.tensor([-1.0, 2.0]))


@pytest.mark.parametrize("log", [False, True])
def test_soft_targets_and_label_smoothing_are_weighted_sums(log: bool) -> None:
    z = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    q, y = torch.rand(5, 4, dtype=torch.float64), torch.randint(4, (5,))
    each = torch.stack([exact_rows(z, torch.full((5,), c), 1.0, log) for c in range(4)], 1)
    smooth = torch.nn.functional.one_hot(y, 4).double() * 0.7 + 0.3 / 4
    for target, share, smoothing in ((q, q, 0.0), (y, smooth, 0.3)):
        loss = lossfit.ExactLoss(log=log, label_smoothing=smoothing, reduction="none")(z, target)
        expected = (share * each).sum(1)
        assert_close(loss, expected, rtol=1e-12, atol=0)
        grads = [torch.autograd.grad(v.sum(), z, retain_graph=True)[0] for v in (loss, expected)]
        assert_close(*grads, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("junk", [math.nan, INF, 5.0])
def test_ignored_rows(junk: float) -> None:
    z, y = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 9, 2, 9, 1])
    kept = [0, 2, 4]
    expected = exact_rows(z[kept], y[kept], 1.0, False)
    z[[1, 3]] = junk
    z.requires_grad_()
    rows = lossfit.ExactLoss(ignore_index=9, reduction="none")(z, y)
    assert_close(rows[kept], expected)
    assert rows[[1, 3]].tolist() == [0, 0]
    loss = lossfit.ExactLoss(ignore_index=9)(z, y)
    assert_close(loss, expected.mean())
    grad = torch.autograd.grad(loss, z)[0]
    assert grad.isfinite().all()
    assert not grad[[1, 3]].any()


@pytest.mark.parametrize("shape", [(4, 3, 5), (2, 3, 4, 5), (3,)])
def test_positions(shape: tuple[int, ...]) -> None:
    z = torch.randn(shape, dtype=torch.float64)
    y = torch.randint(3, (shape[0], *shape[2:]) if len(shape) > 1 else ())
    rows = lossfit.ExactLoss(reduction="none")(z, y)
    assert rows.shape == y.shape
    flat = z.movedim(1, -1).reshape(-1, 3) if len(shape) > 1 else z.unsqueeze(0)
    assert_close(rows.flatten(), exact_rows(flat, y.flatten(), 1.0, False))


@pytest.mark.parametrize("log", [False, True])
class TestTransformations:
    """torch.func and its kin, against plain calls."""

    z = torch.tensor([[[1.0, 0.0, -2.0], [0.5, 2.0, 1.0]], [[0.0, 0.1, 0.3], [3.0, -1.0, 0.5]]], dtype=torch.float64)
    y = torch.tensor([[0, 2], [1, 0]])
    sigma = torch.tensor([[0.5, 1.0], [2.0, 3.0]], dtype=torch.float64)

    def plain(self, i: int, log: bool) -> tuple[torch.Tensor, ...]:
        z, sigma = self.z[i].clone().requires_grad_(), self.sigma[i].clone().requires_grad_()
        rows = exact_rows(z, self.y[i], sigma, log)
        return rows.detach(), *torch.autograd.grad(rows.sum(), (z, sigma))

    def test_vmap(self, log: bool) -> None:
        found = torch.func.vmap(lambda z, y, s: exact_rows(z, y, s, log))(self.z, self.y, self.sigma)
        for i in range(2):
            assert_close(found[i], self.plain(i, log)[0])

    def test_grad_and_vmap_of_grad_and_grad_of_vmap(self, log: bool) -> None:
        def total(z: torch.Tensor, y: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
            return exact_rows(z, y, s, log).sum()

        batched = torch.func.vmap(torch.func.grad(total, (0, 2)))(self.z, self.y, self.sigma)
        over = torch.func.grad(lambda z, s: torch.func.vmap(total)(z, self.y, s).sum(), (0, 1))(self.z, self.sigma)
        for i in range(2):
            _, *expected = self.plain(i, log)
            assert_close(torch.func.grad(total, (0, 2))(self.z[i], self.y[i], self.sigma[i]), tuple(expected))
            assert_close((batched[0][i], batched[1][i]), tuple(expected))
            assert_close((over[0][i], over[1][i]), tuple(expected))

    def test_jacobian_and_batched_gradients(self, log: bool) -> None:
        z, y = self.z[0].clone().requires_grad_(), self.y[0]
        jacobian = torch.func.jacrev(lambda z: exact_rows(z, y, 1.0, log))(z.detach())
        rows = exact_rows(z, y, 1.0, log)
        eye = torch.eye(2, dtype=torch.float64)
        batched = torch.autograd.grad(rows, z, eye, is_grads_batched=True, retain_graph=True)[0]
        for i in range(2):
            expected = torch.autograd.grad(rows[i], z, retain_graph=True)[0]
            assert_close(jacobian[i], expected)
            assert_close(batched[i], expected)

    def test_a_second_derivative_is_refused(self, log: bool) -> None:
        z = self.z[0].clone().requires_grad_()
        first = torch.autograd.grad(exact_rows(z, self.y[0], 1.0, log).sum(), z, create_graph=True)[0]
        with pytest.raises(NotImplementedError, match="ExactLoss has no second derivative"):
            first.sum().backward()

    @pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch does it
    @pytest.mark.parametrize("learnt", [False, True])
    def test_compiled(self, log: bool, learnt: bool) -> None:
        torch._dynamo.reset()
        sigma = torch.nn.Parameter(torch.tensor(1.5, dtype=self.z.dtype)) if learnt else 1.5
        loss = lossfit.ExactLoss(log=log, sigma=sigma)
        z = self.z[0].clone().requires_grad_()
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(z, self.y[0])
        plain = loss(z, self.y[0])
        assert_close(compiled, plain)
        wanted = (z, sigma) if learnt else (z,)
        found, expected = torch.autograd.grad(compiled, wanted), torch.autograd.grad(plain, wanted)
        for mine, theirs in zip(found, expected, strict=True):
            assert_close(mine, theirs)

    def test_the_operators_keep_their_promises(self, log: bool) -> None:
        z, y, sigma = self.z[0], self.y[0], torch.full(self.y[0].shape, 1.5, dtype=self.z.dtype)
        tests = ("test_schema", "test_faketensor")
        torch.library.opcheck(torch.ops.lossfit.exact_forward, (z, y, sigma, log), test_utils=tests)
        saved = torch.ops.lossfit.exact_forward(z, y, sigma, log)[1:]
        grad = torch.ones_like(sigma)
        torch.library.opcheck(torch.ops.lossfit.exact_backward, (grad, z, y, sigma, *saved, log), test_utils=tests)


class Largest(TorchDispatchMode):
    """The most numbers in any tensor that is made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


def test_no_tensor_of_rows_by_classes_by_nodes_is_made() -> None:
    rows, classes = 256, 1000
    z = torch.randn(rows, classes, requires_grad=True)
    with Largest() as largest:
        exact_rows(z, torch.randint(classes, (rows,)), 1.0, False).sum().backward()
    assert rows * classes <= largest.numel <= 2 * rows * classes  # the gradient itself, and blocks


def test_many_rows_are_worked_through_in_blocks() -> None:
    z, y = torch.randn(70, 2000, dtype=torch.float64, requires_grad=True), torch.randint(2000, (70,))
    rows = exact_rows(z, y, 1.0, True)
    grad = torch.autograd.grad(rows.sum(), z)[0]
    for i in (0, 35, 69):
        one = z[i : i + 1].detach().requires_grad_()
        alone = exact_rows(one, y[i : i + 1], 1.0, True)
        assert_close(rows[i : i + 1], alone, rtol=1e-12, atol=0)
        assert_close(grad[i : i + 1], torch.autograd.grad(alone.sum(), one)[0], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("log", [False, True])
def test_everything_is_finite_far_out(dtype: torch.dtype, log: bool) -> None:
    gaps = [0.0, 20.0, 24.5, 27.0, 30.0, 38.0, 53.0, 61.0, 77.0, 100.0, 1e3, 1e4, 1e6, 1e8]
    gaps += [-g for g in gaps]
    z = torch.tensor([[g, 0.0, -1.0] for g in gaps], dtype=dtype, requires_grad=True)
    sigma = torch.ones(len(gaps), dtype=dtype, requires_grad=True)
    rows = exact_rows(z, torch.zeros(len(gaps), dtype=torch.int64), sigma, log)
    assert rows.isfinite().all()
    for grad in torch.autograd.grad(rows.sum(), (z, sigma)):
        assert grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("log", [False, True])
def test_masked_classes(dtype: torch.dtype, log: bool) -> None:
    z = torch.tensor([[1.0, -INF, 0.5], [2.0, -INF, -INF], [-INF, 1.0, -INF]], dtype=dtype, requires_grad=True)
    rows = exact_rows(z, torch.zeros(3, dtype=torch.int64), 1.0, log)
    pair = exact_rows(torch.tensor([[1.0, 0.5]], dtype=dtype), torch.tensor([0]), 1.0, log)
    assert_close(rows[0], pair[0])
    assert rows[1] == 0
    assert rows[2] == 1 or (log and rows[2] > 1e10)
    grad = torch.autograd.grad(rows.sum(), z)[0]
    assert grad.isfinite().all()
    assert (grad[:2][z[:2] == -INF] == 0).all()


def test_one_class_always_wins() -> None:
    z = torch.randn(3, 1, requires_grad=True)
    sigma = torch.ones(3, requires_grad=True)
    for log in (False, True):
        rows = exact_rows(z, torch.zeros(3, dtype=torch.int64), sigma, log)
        assert rows.tolist() == [0, 0, 0]
        for grad in torch.autograd.grad(rows.sum(), (z, sigma)):
            assert not grad.any()


def test_zero_rows() -> None:
    z, sigma = torch.zeros(0, 3, requires_grad=True), torch.ones(0, requires_grad=True)
    rows = exact_rows(z, torch.zeros(0, dtype=torch.int64), sigma, False)
    assert rows.shape == (0,)
    assert [g.shape for g in torch.autograd.grad(rows.sum(), (z, sigma))] == [(0, 3), (0,)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    z, y = torch.randn(6, 5).to(dtype).requires_grad_(), torch.randint(5, (6,))
    rows = exact_rows(z, y, 1.0, False)
    exact = z.detach().float().requires_grad_()
    expected = exact_rows(exact, y, 1.0, False)
    assert rows.dtype == torch.float32
    assert_close(rows, expected)
    grads = torch.autograd.grad(rows.sum(), z)[0], torch.autograd.grad(expected.sum(), exact)[0]
    assert grads[0].dtype == dtype
    assert_close(grads[0].float(), grads[1], rtol=torch.finfo(dtype).eps, atol=1e-6)


class TestLogOfTheMean:
    """-log of the mean of P, the second objective of the paper."""

    def test_it_is_that(self) -> None:
        z, y = torch.randn(7, 4, dtype=torch.float64, requires_grad=True), torch.tensor([0, 1, 2, 3, -100, 1, 2])
        share = torch.linspace(0, 2, 7, dtype=torch.float64)
        loss = lossfit.ExactLoss(1.5, log="mean")
        p = 1 - lossfit.ExactLoss(1.5, reduction="none")(z, y)
        counts = (y >= 0).double()
        for weight in (None, share):
            mass = counts if weight is None else counts * weight
            expected = -((mass * p).sum() / mass.sum()).log()
            value = loss(z, y, sample_weight=weight)
            torch.testing.assert_close(value, expected, rtol=1e-7, atol=1e-9)
            grads = [torch.autograd.grad(v, z, retain_graph=True)[0] for v in (value, expected)]
            torch.testing.assert_close(*grads, rtol=1e-6, atol=1e-8)
            chunked = loss.linear(z, torch.eye(4, dtype=torch.float64), y, sample_weight=weight, backend="chunked")
            torch.testing.assert_close(chunked, value, rtol=1e-9, atol=1e-9)

    def test_small_probabilities_keep_their_digits(self) -> None:
        z = torch.tensor([[-60.0, 0.0], [-70.0, 0.0]], requires_grad=True)
        value = lossfit.ExactLoss(log="mean")(z, torch.tensor([0, 0]))
        log_p = torch.special.log_ndtr(torch.tensor([-60.0, -70.0], dtype=torch.float64) / 2**0.5)
        assert value.item() == pytest.approx(-(log_p.logsumexp(0) - math.log(2)).item(), rel=1e-5)
        assert torch.autograd.grad(value, z)[0].isfinite().all()

    def test_nothing_counts(self) -> None:
        z = torch.zeros(2, 3, requires_grad=True)
        value = lossfit.ExactLoss(log="mean")(z, torch.tensor([-100, -100]))
        assert value == 0
        assert (torch.autograd.grad(value, z)[0] == 0).all()

    def test_what_is_refused(self) -> None:
        with pytest.raises(ValueError, match="`log` to be False, True or 'mean', but got 'sum'"):
            lossfit.ExactLoss(log="sum")
        with pytest.raises(ValueError, match="`reduction` 'mean' with log='mean', but got 'sum'"):
            lossfit.ExactLoss(log="mean", reduction="sum")
        with pytest.raises(ValueError, match="`target` to hold class indices, without label smoothing"):
            lossfit.ExactLoss(log="mean", label_smoothing=0.1)(torch.zeros(2, 3), torch.tensor([0, 1]))


@pytest.mark.parametrize(("classes", "rows"), [(10, 100), (1000, 20), (100_000, 2)])
def test_what_float32_promises(classes: int, rows: int) -> None:
    """The error of the numbers that the docstring states, against float64."""
    z, y = 3 * torch.randn(rows, classes), torch.randint(classes, (rows,))
    loss, results = lossfit.ExactLoss(log=True, reduction="none"), []
    for dtype in (torch.float32, torch.float64):
        scores = z.to(dtype).requires_grad_()
        value = loss(scores, y)
        results.append((value.detach().double(), torch.autograd.grad(value.sum(), scores)[0].double()))
    (single, slope), (double, exact) = results
    assert ((single - double).abs() <= 5e-6 * double.abs()).all()
    assert ((slope - exact).abs().amax(1) <= 2e-5 * exact.abs().amax(1)).all()
