"""Noise-contrastive estimation and sampled softmax against enumeration, the full softmax and scipy."""

import math

import numpy
import pytest
import scipy.special
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional
from torch.testing import assert_close

import lossfit
from helpers import REQUIRED

N, C, D = 4, 30, 5


def layer(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, weight, bias = torch.randn(N, D, dtype=dtype), torch.randn(C, D, dtype=dtype), torch.randn(C, dtype=dtype)
    return x, weight, bias, torch.tensor([3, 17, 3, 29])


def full_scores() -> tuple[Tensor, Tensor, Tensor]:
    """The scores of all classes, the targets, and the sum over the rivals of exp(z_k - z_y)."""
    x, weight, bias, target = layer()
    z = x @ weight.T + bias
    at = target.unsqueeze(1)
    return z, target, (z.scatter(1, at, -math.inf) - z.gather(1, at)).exp().sum(1)


def many_draws(
    loss: lossfit.Loss, z: Tensor, target: Tensor, size: int, draws: int, log_q: float | None = None
) -> Tensor:
    """The losses of the rows in many draws (draws, N), all in one call."""
    generator = torch.Generator().manual_seed(5)
    drawn = [lossfit.sample_rivals(target, C, size, generator=generator) for _ in range(draws)]
    samples = torch.stack([s for s, _ in drawn]).unsqueeze(1).expand(draws, N, size)
    rivals = z.expand(draws, N, C).gather(2, samples).flatten(0, 1)
    own = z.gather(1, target.unsqueeze(1)).squeeze(1).repeat(draws)
    hits = (samples == target.unsqueeze(1)).flatten(0, 1)
    correction = drawn[0][1] if log_q is None else torch.full((size,), log_q)
    return loss(own, rivals, correction, hits).view(draws, N)


class TestSampledSoftmax:
    def test_by_hand(self) -> None:
        own, rivals = torch.tensor([0.5, -1.0]).double(), torch.tensor([[1.0, 2.0, 0.0], [0.3, -4.0, 1.0]]).double()
        q = [0.5, 0.1, 2.0]
        hits = torch.tensor([[False, True, False], [False, False, False]])
        expected = []
        for i in range(2):
            total = sum(math.exp(rivals[i, k]) / q[k] for k in range(3) if not hits[i, k])
            expected.append(-math.log(math.exp(own[i]) / (math.exp(own[i]) + total)))
        loss = lossfit.SampledSoftmaxLoss(reduction="none")
        log_q = torch.tensor(q).double().log()
        found = loss(own, rivals, log_q, hits)
        assert found.tolist() == pytest.approx(expected)
        assert_close(loss(own, rivals, log_q.expand(2, 3), hits), found)

    def test_all_classes_are_the_full_softmax(self) -> None:
        x, weight, bias, target = layer()
        parts = [t.requires_grad_() for t in (x, weight, bias)]
        samples, log_q = lossfit.sample_rivals(target, C, C)
        assert sorted(samples.tolist()) == list(range(C))
        assert (log_q == 0).all()
        found = lossfit.SampledSoftmaxLoss().linear(x, weight, target, samples, log_q, bias)
        expected = functional.cross_entropy(x @ weight.T + bias, target)
        assert_close(found, expected)
        for grad, wanted in zip(torch.autograd.grad(found, parts), torch.autograd.grad(expected, parts), strict=True):
            assert_close(grad, wanted)

    def test_the_sum_over_rivals_is_unbiased(self) -> None:
        """exp(-d) of a row is its sum over rivals divided by exp(z_y); its mean over draws must be that of all."""
        z, target, exact = full_scores()
        loss = lossfit.SampledSoftmaxLoss(lossfit.ExponentialMarginLoss(scale=1.0), reduction="none")
        found = many_draws(loss, z, target, 12, 3000)
        spread = found.std(0) / math.sqrt(3000)
        assert ((found.mean(0) - exact).abs() < 4 * spread).all()
        assert (spread < 0.02 * exact).all()
        same_for_all = many_draws(loss, z, target, 12, 3000, log_q=math.log(12 / C))
        assert ((same_for_all.mean(0) - exact).abs() > 8 * spread).any()

    @pytest.mark.parametrize("temperature", [2.0, torch.tensor([2.0, 3.0, 2.5, 4.0]).double()])
    def test_a_temperature_leaves_the_sum_unbiased(self, temperature: float | Tensor) -> None:
        z, target, _ = full_scores()
        of_all = lossfit.CrossEntropyLoss(reduction="none", temperature=temperature)
        exact = of_all(z, target).expm1()
        loss = lossfit.SampledSoftmaxLoss(of_all, reduction="none")
        generator = torch.Generator().manual_seed(5)
        drawn = [lossfit.sample_rivals(target, C, 12, generator=generator) for _ in range(1000)]
        found = torch.stack([loss.linear(z, torch.eye(C).double(), target, *one).expm1() for one in drawn])
        spread = found.std(0) / math.sqrt(len(found))
        assert ((found.mean(0) - exact).abs() < 4 * spread).all()
        assert (spread < 0.03 * exact).all()

    def test_the_loss_is_below_that_of_the_full_softmax_on_average(self) -> None:
        z, target, _ = full_scores()
        loss = lossfit.SampledSoftmaxLoss(reduction="none")
        exact = functional.cross_entropy(z, target).item()
        means = [many_draws(loss, z, target, size, 1000).mean().item() for size in (6, 15, 29)]
        assert means[0] < means[1] < means[2] < exact + 0.01
        assert means[2] == pytest.approx(exact, abs=0.02)

    def test_an_accidental_hit_gets_no_gradient(self) -> None:
        x, weight, _, target = layer()
        weight.requires_grad_()
        log_q = torch.zeros(3, dtype=torch.float64)
        loss = lossfit.SampledSoftmaxLoss(reduction="none")
        rows = loss.linear(x, weight, target, torch.tensor([3, 8, 3]), log_q)
        only = loss.linear(x, weight, target, torch.tensor([8]), log_q[:1])
        assert_close(rows[[0, 2]], only[[0, 2]])
        own = (x @ weight.T)[:, 3] - (x @ weight.T)[:, 17]
        assert_close(rows[1] > only[1], torch.tensor(True))
        assert own[1].isfinite()

    @pytest.mark.parametrize("inner", lossfit.available_losses("single_label"))
    def test_any_single_label_loss_with_hits(self, inner: str) -> None:
        own, rivals = torch.randn(N).double().requires_grad_(), torch.randn(N, 5).double().requires_grad_()
        hits = torch.zeros(N, 5, dtype=torch.bool)
        hits[0, 1] = hits[2] = True
        inner_loss = lossfit.make(inner, **REQUIRED.get(inner, {}))
        loss = lossfit.SampledSoftmaxLoss(inner_loss, reduction="none")
        value = loss(own, rivals, torch.full((5,), -0.5).double(), hits)
        grads = torch.autograd.grad(value.sum(), (own, rivals))
        assert value.isfinite().all()
        assert all(g.isfinite().all() for g in grads)
        assert (grads[1][hits] == 0).all()
        kept = torch.tensor([0, 2, 3, 4])
        alone = loss(own[:1], rivals[:1, kept], torch.full((4,), -0.5).double())
        assert_close(value[:1], alone, rtol=1e-7, atol=1e-9)

    def test_gradients(self) -> None:
        own = torch.randn(N, dtype=torch.float64, requires_grad=True)
        rivals = torch.randn(N, 3, dtype=torch.float64, requires_grad=True)
        log_q = -torch.rand(3, dtype=torch.float64)
        hits = torch.tensor([[False, True, False]] * N)
        weight = torch.rand(N, dtype=torch.float64)
        assert gradcheck(
            lambda o, r: lossfit.SampledSoftmaxLoss()(o, r, log_q, hits, sample_weight=weight), (own, rivals)
        )

    def test_ignored_rows_may_hold_anything(self) -> None:
        x, weight, _, target = layer()
        x[1] = math.nan
        x.requires_grad_()
        weight.requires_grad_()
        target[1] = -100
        samples, log_q = lossfit.sample_rivals(target, C, 9)
        assert 17 not in samples[:2]
        value = lossfit.SampledSoftmaxLoss().linear(x, weight, target, samples, log_q)
        kept = [0, 2, 3]
        expected = lossfit.SampledSoftmaxLoss().linear(x[kept], weight, target[kept], samples, log_q)
        assert_close(value, expected)
        grad_x, grad_weight = torch.autograd.grad(value, (x, weight))
        assert (grad_x[1] == 0).all()
        assert grad_weight.isfinite().all()

    def test_weights_and_denominator(self) -> None:
        own, rivals, log_q = torch.randn(N), torch.randn(N, 3), -torch.rand(3)
        rows = lossfit.SampledSoftmaxLoss(reduction="none")(own, rivals, log_q)
        weight = torch.tensor([1.0, 0.0, 2.0, 0.5])
        assert_close(
            lossfit.SampledSoftmaxLoss()(own, rivals, log_q, sample_weight=weight), (rows * weight).sum() / 3.5
        )
        assert_close(lossfit.SampledSoftmaxLoss()(own, rivals, log_q, denominator=8), rows.sum() / 8)
        assert lossfit.SampledSoftmaxLoss()(own[:0], rivals[:0], log_q).item() == 0


class TestSampleRivals:
    def test_targets_first_then_others_evenly(self) -> None:
        generator = torch.Generator().manual_seed(3)
        target = torch.tensor([[4, 1], [4, -100]])
        counts = torch.zeros(8)
        for _ in range(2000):
            samples, log_q = lossfit.sample_rivals(target, 8, 5, generator=generator)
            assert samples[:2].tolist() == [1, 4]
            assert len(set(samples.tolist())) == 5
            counts[samples] += 1
        assert_close(log_q, torch.tensor([0.0, 0.0] + [math.log(0.5)] * 3))
        assert (counts[[1, 4]] == 2000).all()
        # 1000 of 2000, with a standard deviation of 22.
        assert ((counts[[0, 2, 3, 5, 6, 7]] - 1000).abs() < 100).all()

    def test_where_all_classes_are_targets(self) -> None:
        samples, log_q = lossfit.sample_rivals(torch.arange(4), 4, 2)
        assert samples.tolist() == [0, 1, 2, 3]
        assert (log_q == 0).all()

    def test_bad_input(self) -> None:
        with pytest.raises(ValueError, match=r"`num_samples` of at least 3.*got 2"):
            lossfit.sample_rivals(torch.tensor([0, 1]), 9, 2)
        with pytest.raises(IndexError, match=r"`target` to hold class indices below 9, but got 9"):
            lossfit.sample_rivals(torch.tensor([0, 9]), 9, 5)


class TestNCE:
    def test_against_scipy(self) -> None:
        own, noise = torch.randn(N, dtype=torch.float64) * 5, torch.randn(N, 3, dtype=torch.float64) * 5
        log_q, noise_log_q = -torch.rand(N).double(), -torch.rand(N, 3).double()
        right = own.numpy() - 0.7 - math.log(3) - log_q.numpy()
        wrong = noise.numpy() - 0.7 - math.log(3) - noise_log_q.numpy()
        expected = -scipy.special.log_expit(right) - scipy.special.log_expit(-wrong).sum(1)
        found = lossfit.NCELoss(0.7, reduction="none")(own, noise, log_q, noise_log_q)
        numpy.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
        assert_close(lossfit.NCELoss(0.7)(own, noise, log_q, noise_log_q), found.mean())
        same = noise_log_q[:1].expand(N, 3)
        assert_close(lossfit.NCELoss()(own, noise, log_q, noise_log_q[0]), lossfit.NCELoss()(own, noise, log_q, same))

    def test_the_gradient_is_0_at_the_log_probabilities(self) -> None:
        """The expectation over data p and one noise sample q, by enumeration of all pairs."""
        p, q = torch.rand(6).double().softmax(0), torch.rand(6).double().softmax(0)
        y, j = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
        y, j = y.flatten(), j.flatten()
        chance = p[y] * q[j]

        def expected(scores: Tensor, log_z: Tensor) -> Tensor:
            loss = lossfit.NCELoss(log_z, reduction="sum")
            return loss(scores[y], scores[j].unsqueeze(1), q.log()[y], q.log()[j].unsqueeze(1), sample_weight=chance)

        scores = (p.log() + 1.3).requires_grad_()
        log_z = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
        for grad in torch.autograd.grad(expected(scores, log_z), (scores, log_z)):
            assert grad.abs().max() < 1e-14
        off = (p.log() + 1.3 + 0.1 * torch.randn(6)).requires_grad_()
        assert torch.autograd.grad(expected(off, log_z), off)[0].abs().max() > 1e-3

    def test_training_finds_normalised_probabilities(self) -> None:
        generator = torch.Generator().manual_seed(0)
        p = torch.tensor([0.5, 0.3, 0.15, 0.05])
        scores = torch.nn.Parameter(torch.zeros(4))
        log_q = torch.full((4,), 0.25).log()
        loss, optimizer = lossfit.NCELoss(), torch.optim.Adam([scores], lr=0.1)
        for _ in range(100):
            y = torch.multinomial(p, 512, True, generator=generator)
            samples = torch.multinomial(log_q.exp(), 64, True, generator=generator)
            optimizer.zero_grad()
            loss.linear(torch.ones(512, 1), scores.unsqueeze(1), y, samples, log_q).backward()
            optimizer.step()
        assert_close(scores.detach().exp(), p, rtol=0.15, atol=0.02)

    def test_gradients(self) -> None:
        own = torch.randn(N, dtype=torch.float64, requires_grad=True)
        noise = torch.randn(N, 3, dtype=torch.float64, requires_grad=True)
        log_z = torch.randn(N, dtype=torch.float64, requires_grad=True)
        log_q, noise_log_q = -torch.rand(N).double(), -torch.rand(3).double()
        assert gradcheck(lambda o, n, z: lossfit.NCELoss(z)(o, n, log_q, noise_log_q), (own, noise, log_z))

    def test_far_scores_keep_their_digits(self) -> None:
        own, noise = torch.tensor([60.0], requires_grad=True), torch.tensor([[-60.0]], requires_grad=True)
        value = lossfit.NCELoss()(own, noise, torch.zeros(1), torch.zeros(1))
        assert value.item() == pytest.approx(2 * math.exp(-60), rel=1e-5)
        grads = torch.autograd.grad(value, (own, noise))
        assert [g.item() for g in grads] == pytest.approx([-math.exp(-60), math.exp(-60)], rel=1e-5)
        assert lossfit.NCELoss()(-own, -noise, torch.zeros(1), torch.zeros(1)).item() == 120

    def test_linear_is_the_call_on_its_scores(self) -> None:
        x, weight, bias, target = layer()
        samples, log_q = torch.tensor([3, 0, 3, 12]), torch.randn(C).double().log_softmax(0)
        z = x @ weight.T + bias
        own = z.gather(1, target.unsqueeze(1)).squeeze(1)
        expected = lossfit.NCELoss(0.5)(own, z[:, samples], log_q[target], log_q[samples])
        assert_close(lossfit.NCELoss(0.5).linear(x, weight, target, samples, log_q, bias), expected)
        x[0] = math.nan
        x.requires_grad_()
        target[0] = -100
        value = lossfit.NCELoss(0.5).linear(x, weight, target, samples, log_q, bias)
        rest = lossfit.NCELoss(0.5).linear(x[1:], weight, target[1:], samples, log_q, bias)
        assert_close(value, rest)
        assert (torch.autograd.grad(value, x)[0][0] == 0).all()


OWN, RIVALS, LOG_Q = torch.zeros(4), torch.zeros(4, 3), torch.zeros(3)
X, WEIGHT, TARGET = torch.zeros(4, 5), torch.zeros(9, 5), torch.tensor([0, 1, 2, 8])
SAMPLES = torch.tensor([1, 2, 3])


@pytest.mark.parametrize(
    ("error", "match", "make"),
    [
        (TypeError, r"`rivals` to be a torch.Tensor", lambda s, n: s(OWN, [0.0], LOG_Q)),
        (TypeError, r"`input` to hold floating-point", lambda s, n: s(OWN.long(), RIVALS, LOG_Q)),
        (ValueError, r"`input` of shape \(N,\)", lambda s, n: s(RIVALS, RIVALS, LOG_Q)),
        (ValueError, r"`rivals` of shape \(4, S\).*\(3, 3\)", lambda s, n: s(OWN, RIVALS[:3], LOG_Q)),
        (ValueError, r"`rivals` of shape \(4, S\).*at least 1", lambda s, n: s(OWN, RIVALS[:, :0], LOG_Q[:0])),
        (ValueError, r"`log_q` of shape \(3,\) or \(4, 3\), but got \(2,\)", lambda s, n: s(OWN, RIVALS, LOG_Q[:2])),
        (ValueError, r"`log_q` to be finite.*-inf", lambda s, n: s(OWN, RIVALS, LOG_Q - math.inf)),
        (TypeError, r"`log_q` to be a tensor of logarithms", lambda s, n: s(OWN, RIVALS, 0.0)),
        (TypeError, r"`hits` to be a bool tensor", lambda s, n: s(OWN, RIVALS, LOG_Q, RIVALS)),
        (TypeError, r"`hits` to be a bool tensor.*list", lambda s, n: s(OWN, RIVALS, LOG_Q, [True])),
        (ValueError, r"`hits` of shape \(4, 3\)", lambda s, n: s(OWN, RIVALS, LOG_Q, RIVALS[:1] > 0)),
        (ValueError, r"`weight` of shape \(C, 5\)", lambda s, n: s.linear(X, WEIGHT[:, :4], TARGET, SAMPLES, LOG_Q)),
        (ValueError, r"`x` of 2 dimensions", lambda s, n: s.linear(X[0], WEIGHT, TARGET, SAMPLES, LOG_Q)),
        (ValueError, r"`target` of shape \(4,\)", lambda s, n: s.linear(X, WEIGHT, TARGET[:3], SAMPLES, LOG_Q)),
        (TypeError, r"`samples` to be a tensor of", lambda s, n: s.linear(X, WEIGHT, TARGET, LOG_Q, LOG_Q)),
        (ValueError, r"`samples` to hold at least", lambda s, n: s.linear(X, WEIGHT, TARGET, SAMPLES[:0], LOG_Q[:0])),
        (IndexError, r"`samples` in \[0, 9\).*7 to 9", lambda s, n: s.linear(X, WEIGHT, TARGET, SAMPLES + 6, LOG_Q)),
        (IndexError, r"`target` to hold class.*9", lambda s, n: s.linear(X, WEIGHT, TARGET + 1, SAMPLES, LOG_Q)),
        (TypeError, r"`weight` to be a floating-point.*list", lambda s, n: s.linear(X, [0], TARGET, SAMPLES, LOG_Q)),
        (ValueError, r"`target` of 1 dimension", lambda s, n: s.linear(X, WEIGHT, X.long(), SAMPLES, LOG_Q)),
        (TypeError, r"`log_q` to be a tensor.*list", lambda s, n: n.linear(X, WEIGHT, TARGET, SAMPLES, [0.0])),
        (ValueError, r"`bias` to have one entry", lambda s, n: s.linear(X, WEIGHT, TARGET, SAMPLES, LOG_Q, OWN)),
        (ValueError, r"`noise` of shape \(4, S\)", lambda s, n: n(OWN, RIVALS[:2], OWN, LOG_Q)),
        (ValueError, r"`log_q` of shape \(4,\)", lambda s, n: n(OWN, RIVALS, LOG_Q, LOG_Q)),
        (ValueError, r"`noise_log_q` of shape \(3,\)", lambda s, n: n(OWN, RIVALS, OWN, OWN)),
        (ValueError, r"`log_q` of shape \(9,\)", lambda s, n: n.linear(X, WEIGHT, TARGET, SAMPLES, LOG_Q)),
        (ValueError, r"`loss` without `label_smoothing`", lambda s, n: smooth()),
        (TypeError, r"`log_z` to be a number", lambda s, n: lossfit.NCELoss("1")),
    ],
)
def test_bad_input(error: type[Exception], match: str, make: object) -> None:
    with pytest.raises(error, match=match):
        make(lossfit.SampledSoftmaxLoss(), lossfit.NCELoss())


def smooth() -> lossfit.Loss:
    return lossfit.SampledSoftmaxLoss(lossfit.CrossEntropyLoss(label_smoothing=0.1))
