"""The linear-chain CRF against the sum over all sequences, written out."""

import itertools
import pickle

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lossfit
from helpers import weak_sensitivity
from lossfit.losses.sequence import chain


def model(tags: int, seed: int = 0, scale: float = 1.0) -> lossfit.LinearChainCRF:
    generator = torch.Generator().manual_seed(seed)
    crf = lossfit.LinearChainCRF(tags).double()
    for parameter in crf.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale)
    return crf


def batch(rows: int, length: int, tags: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed + 100)
    emissions = torch.randn(rows, length, tags, generator=generator, dtype=torch.float64) * 2
    return emissions, torch.randint(tags, (rows, length), generator=generator)


def weights(crf: lossfit.LinearChainCRF) -> tuple[Tensor, Tensor, Tensor]:
    return crf.transitions, crf.start, crf.end


def every_path(crf: lossfit.LinearChainCRF, emissions: Tensor) -> tuple[list[tuple[int, ...]], Tensor]:
    """All paths over emissions (T, K) and their scores."""
    paths = list(itertools.product(range(crf.num_tags), repeat=len(emissions)))
    scores = []
    for path in paths:
        score = crf.start[path[0]] + crf.end[path[-1]]
        for t, tag in enumerate(path):
            score = score + emissions[t, tag]
        for before, after in itertools.pairwise(path):
            score = score + crf.transitions[before, after]
        scores.append(score)
    return paths, torch.stack(scores)


SIZES = [(1, 1), (1, 3), (4, 1), (2, 5), (3, 4), (4, 3)]


@pytest.mark.parametrize(("tags", "length"), SIZES)
class TestEnumeration:
    def test_values(self, tags: int, length: int) -> None:
        crf, (emissions, target) = model(tags), batch(3, length, tags)
        partition, log_prob = crf.log_partition(emissions), crf.log_prob(emissions, target)
        for row in range(3):
            paths, scores = every_path(crf, emissions[row])
            at = paths.index(tuple(target[row].tolist()))
            torch.testing.assert_close(partition[row], scores.logsumexp(0), rtol=1e-13, atol=1e-13)
            torch.testing.assert_close(log_prob[row], scores.log_softmax(0)[at], rtol=1e-11, atol=1e-13)

    def test_gradients(self, tags: int, length: int) -> None:
        crf, (emissions, target) = model(tags), batch(3, length, tags)
        emissions.requires_grad_()
        wanted = [emissions, *weights(crf)]
        total = torch.zeros((), dtype=torch.float64)
        for row in range(3):
            paths, scores = every_path(crf, emissions[row])
            total = total + (row + 1) * scores.log_softmax(0)[paths.index(tuple(target[row].tolist()))]
        expected = torch.autograd.grad(total, wanted, allow_unused=True)
        found = torch.autograd.grad((torch.arange(1, 4) * crf.log_prob(emissions, target)).sum(), wanted)
        for f, e in zip(found, expected, strict=True):
            torch.testing.assert_close(f, torch.zeros_like(f) if e is None else e, rtol=1e-11, atol=1e-13)

    def test_marginals_and_the_best_path(self, tags: int, length: int) -> None:
        crf, (emissions, _) = model(tags), batch(3, length, tags)
        with torch.no_grad():
            marginals, best = crf.marginals(emissions), crf.viterbi(emissions)
        for row in range(3):
            paths, scores = every_path(crf, emissions[row])
            p = scores.detach().softmax(0)
            for t, tag in itertools.product(range(length), range(tags)):
                through = sum(p[i] for i, path in enumerate(paths) if path[t] == tag)
                assert marginals[row, t, tag].item() == pytest.approx(float(through), abs=1e-13)
            assert tuple(best[row].tolist()) == paths[int(scores.argmax())]

    def test_gaps(self, tags: int, length: int) -> None:
        crf, (emissions, target) = model(tags), batch(3, length, tags)
        soft = crf.log_odds(emissions, target)
        hinge = lossfit.CRFLoss(lossfit.HingeLoss(margin=50.0), reduction="none")
        hard = 50.0 - hinge(emissions, target, *weights(crf))
        for row in range(3):
            paths, scores = every_path(crf, emissions[row])
            at = paths.index(tuple(target[row].tolist()))
            rivals = torch.cat([scores[:at], scores[at + 1 :]])
            if len(rivals):
                torch.testing.assert_close(soft[row], scores[at] - rivals.logsumexp(0), rtol=1e-12, atol=1e-12)
                torch.testing.assert_close(hard[row], scores[at] - rivals.max(), rtol=1e-12, atol=1e-12)
            else:
                assert soft[row] == 1e300


class TestMasks:
    def test_a_shorter_row_is_a_row_of_its_own(self) -> None:
        crf, (emissions, target) = model(3), batch(4, 5, 3)
        lengths = torch.tensor([5, 1, 3, 2])
        mask = torch.arange(5) < lengths.unsqueeze(1)
        for form in (mask, lengths):
            found = crf.log_prob(emissions, target, form)
            partition, marginals = crf.log_partition(emissions, form), crf.marginals(emissions, form)
            best = crf.viterbi(emissions, form)
            for row, n in enumerate(lengths.tolist()):
                alone, tags = emissions[row : row + 1, :n], target[row : row + 1, :n]
                torch.testing.assert_close(found[row], crf.log_prob(alone, tags)[0], rtol=1e-12, atol=0)
                torch.testing.assert_close(partition[row], crf.log_partition(alone)[0], rtol=1e-13, atol=0)
                torch.testing.assert_close(marginals[row, :n], crf.marginals(alone)[0], rtol=1e-12, atol=1e-15)
                assert (marginals[row, n:] == 0).all()
                assert torch.equal(best[row, :n], crf.viterbi(alone)[0])
                assert (best[row, n:] == -100).all()

    def test_what_is_masked_may_hold_anything(self) -> None:
        crf, (emissions, target) = model(3), batch(2, 4, 3)
        mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
        dirty, tags = emissions.clone(), target.clone()
        dirty[0, 2], dirty[0, 3], tags[0, 2], tags[0, 3] = torch.nan, torch.inf, 99, -100
        dirty.requires_grad_()
        clean = emissions.clone().requires_grad_()
        loss = lossfit.CRFLoss()
        values = loss(dirty, tags, *weights(crf), mask), loss(clean, target, *weights(crf), mask)
        assert torch.equal(*values)
        found = torch.autograd.grad(values[0], dirty)[0]
        assert torch.equal(found, torch.autograd.grad(values[1], clean)[0])
        assert (found[0, 2:] == 0).all()

    def test_a_full_mask_is_none(self) -> None:
        crf, (emissions, target) = model(3), batch(2, 4, 3)
        full = torch.ones(2, 4, dtype=torch.bool)
        assert torch.equal(crf.log_odds(emissions, target, full), crf.log_odds(emissions, target))

    def test_no_rows(self) -> None:
        crf, (emissions, target) = model(3), batch(0, 4, 3)
        loss = lossfit.CRFLoss()(emissions.requires_grad_(), target, *weights(crf))
        assert loss == 0
        loss.backward()
        assert (crf.transitions.grad == 0).all()
        assert crf.viterbi(emissions).shape == (0, 4)


class TestStability:
    @pytest.mark.parametrize("scale", [0.1, 3.0, 30.0, 300.0])
    def test_the_log_odds_of_a_sequence_far_ahead_or_behind(self, scale: float) -> None:
        """Against 60 digits: the subtraction from 1 would leave nothing at a lead of 40."""
        crf, (emissions, target) = model(2, scale=0.5), batch(6, 4, 2)
        lead = torch.nn.functional.one_hot(target, 2) * torch.linspace(-scale, scale, 6).double().view(-1, 1, 1)
        emissions = emissions + lead
        found = crf.log_odds(emissions, target).tolist()
        with mpmath.workdps(400):
            for row in range(6):
                paths, scores = every_path(crf, emissions[row])
                at = paths.index(tuple(target[row].tolist()))
                each = [mpmath.exp(mpmath.mpf(s)) for s in scores.tolist()]
                rivals = mpmath.fsum(each[:at] + each[at + 1 :])
                assert found[row] == pytest.approx(float(mpmath.log(each[at] / rivals)), rel=1e-12, abs=1e-11)

    def test_a_likelihood_near_1_keeps_its_digits(self) -> None:
        emissions = torch.zeros(1, 3, 2, dtype=torch.float64)
        emissions[..., 0] = 50.0
        loss = lossfit.CRFLoss()(emissions, torch.zeros(1, 3, dtype=torch.int64), torch.zeros(2, 2))
        p = 1 / (1 + mpmath.exp(-50))
        assert loss.item() == pytest.approx(float(-3 * mpmath.log(p)), rel=1e-12)
        assert loss > 0

    @given(
        st.integers(1, 4),
        st.integers(2, 4),
        st.floats(0.0, 200.0),
        st.floats(0.0, 120.0),
        st.integers(0, 10_000),
    )
    @settings(max_examples=60, deadline=None, database=None, derandomize=True)
    def test_both_recursions_agree(self, length: int, tags: int, spread: float, range_: float, seed: int) -> None:
        """The one by matrix products, also where it hands over, and the plain one."""
        crf, (emissions, target) = model(tags, seed, 0.0), batch(3, length, tags, seed)
        generator = torch.Generator().manual_seed(seed)
        crf.transitions.data.copy_(torch.rand(tags, tags, generator=generator) * range_ * 20)
        emissions = (emissions * spread).requires_grad_()
        wanted = [emissions, *weights(crf)]
        fast = chain._total(chain.Chain(emissions.transpose(0, 1), *weights(crf), None), target.t(), "soft")
        slow = chain._plain(chain.Chain(emissions.transpose(0, 1), *weights(crf), None), target.t(), "soft")
        torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-11)
        found = torch.autograd.grad(fast.sum(), wanted)
        for f, s in zip(found, torch.autograd.grad(slow.sum(), wanted), strict=True):
            torch.testing.assert_close(f, s, rtol=1e-8, atol=1e-9)

    def test_forbidden_transitions(self) -> None:
        """-inf: the sum over the paths that are left."""
        crf, (emissions, _) = model(3), batch(2, 4, 3)
        crf.transitions.data[0, 1] = crf.transitions.data[2, 2] = crf.start.data[1] = -torch.inf
        target = torch.tensor([[0, 0, 2, 1], [2, 1, 1, 0]])
        emissions.requires_grad_()
        found = crf.log_prob(emissions, target)
        for row in range(2):
            paths, scores = every_path(crf, emissions[row])
            allowed = scores[scores.isfinite()]
            own = scores[paths.index(tuple(target[row].tolist()))]
            torch.testing.assert_close(found[row], own - allowed.logsumexp(0), rtol=1e-11, atol=0)
            assert not {(0, 1), (2, 2)} & set(itertools.pairwise(crf.viterbi(emissions)[row].tolist()))
        for gradient in torch.autograd.grad(found.sum(), [emissions, *weights(crf)]):
            assert gradient.isfinite().all()

    @pytest.mark.parametrize(("forbidden", "plain"), [(-1e4, False), (-700.0, False), (0.0, False), (1e3, True)])
    def test_which_recursion(self, forbidden: float, plain: bool) -> None:
        """A forbidden transition leaves the fast one in place, one so far above that the others vanish does not."""
        crf, (emissions, target) = model(3), batch(2, 4, 3)
        crf.transitions.data[0, 1] = forbidden
        found = crf.log_odds(emissions, target)
        assert found.grad_fn.next_functions[0][0].plain is plain
        for row in range(2):
            paths, scores = every_path(crf, emissions[row])
            at = paths.index(tuple(target[row].tolist()))
            rivals = torch.cat([scores[:at], scores[at + 1 :]])
            torch.testing.assert_close(found[row], scores[at] - rivals.logsumexp(0), rtol=1e-12, atol=1e-12)

    def test_an_impossible_target_is_finite(self) -> None:
        crf, (emissions, target) = model(2), batch(1, 3, 2)
        crf.transitions.data[:] = -torch.inf
        loss = lossfit.CRFLoss()(emissions.requires_grad_(), target, *weights(crf))
        loss.backward()
        assert loss.isfinite()
        assert emissions.grad.isfinite().all()

    def test_long_sequences_in_float32(self) -> None:
        crf, (emissions, target) = model(5), batch(2, 2000, 5)
        exact = crf.log_prob(emissions, target)
        rough = crf.float().log_prob(emissions.float(), target)
        torch.testing.assert_close(rough.double(), exact, rtol=3e-6, atol=0)


class TestDerivatives:
    def test_first_and_second(self) -> None:
        crf, (emissions, target) = model(3), batch(2, 3, 3)
        lengths = torch.tensor([3, 2])
        inputs = (emissions.requires_grad_(), *weights(crf))

        def log_odds(*values: Tensor) -> Tensor:
            read = lossfit.losses.sequence.linear_chain_crf.read_chain(*values, lengths)[0]
            return chain.log_odds(
                read,
                lossfit.losses.sequence.linear_chain_crf.read_tagged(values[0], target, *values[1:], lengths)[1],
                "soft",
            )

        assert torch.autograd.gradcheck(log_odds, inputs)
        assert torch.autograd.gradgradcheck(log_odds, inputs)
        assert torch.autograd.gradcheck(lambda e: crf.marginals(e, lengths), emissions)

    def test_many_gradients_at_once(self) -> None:
        crf, (emissions, target) = model(3), batch(2, 3, 3)
        emissions.requires_grad_()
        value = crf.log_prob(emissions, target)
        eye = torch.eye(2, dtype=torch.float64)
        (found,) = torch.autograd.grad(value, emissions, eye, is_grads_batched=True, retain_graph=True)
        for row in range(2):
            torch.testing.assert_close(found[row], torch.autograd.grad(value[row], emissions, retain_graph=True)[0])

    def test_torch_func(self) -> None:
        crf, (emissions, target) = model(3), batch(2, 3, 3)
        found = torch.func.grad(lambda e: crf.log_prob(e, target).sum())(emissions)
        emissions.requires_grad_()
        torch.testing.assert_close(found, torch.autograd.grad(crf.log_prob(emissions, target).sum(), emissions)[0])

    @pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch does it
    def test_compiled_is_eager(self) -> None:
        crf, (emissions, target) = model(3), batch(2, 3, 3)
        loss = lossfit.CRFLoss()
        compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(
            compiled(emissions, target, *weights(crf)), loss(emissions, target, *weights(crf)), rtol=1e-12, atol=0
        )

    def test_no_input_is_written_into(self) -> None:
        crf, (emissions, target) = model(3), batch(2, 4, 3)
        before = [value.clone() for value in (emissions, target, *weights(crf))]
        crf.log_prob(emissions, target, torch.tensor([4, 2])).sum().backward()
        crf.viterbi(emissions, torch.tensor([4, 2]))
        crf.marginals(emissions)
        assert all(map(torch.equal, before, (emissions, target, *weights(crf))))

    def test_a_second_backward_gives_the_same(self) -> None:
        crf, (emissions, target) = model(3), batch(2, 4, 3)
        emissions.requires_grad_()
        value = crf.log_prob(emissions, target).sum()
        first = torch.autograd.grad(value, (emissions, crf.transitions), retain_graph=True)
        assert all(map(torch.equal, first, torch.autograd.grad(value, (emissions, crf.transitions))))


LINKS = [
    name
    for name in lossfit.available_losses("single_label")
    if issubclass(lossfit.registry.get(name), lossfit.LinkLoss)
]


class TestLinks:
    @pytest.mark.parametrize("name", LINKS)
    def test_every_link_is_that_of_a_softmax_over_all_sequences(self, name: str) -> None:
        """The sequences as classes, each with its score as logit."""
        required = {"sensitivity": {"sensitivity": weak_sensitivity}}.get(name, {})
        crf, (emissions, target) = model(3), batch(4, 3, 3)
        emissions.requires_grad_()
        scores, at = [], []
        for row in range(4):
            paths, each = every_path(crf, emissions[row])
            scores.append(each)
            at.append(paths.index(tuple(target[row].tolist())))
        link = lossfit.make(name, **required)
        expected = link(torch.stack(scores), torch.tensor(at))
        found = lossfit.CRFLoss(link)(emissions, target, *weights(crf))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        wanted = [emissions, *weights(crf)]
        expected_gradients = torch.autograd.grad(expected, wanted)
        for f, e in zip(torch.autograd.grad(found, wanted), expected_gradients, strict=True):
            torch.testing.assert_close(f, e, rtol=1e-9, atol=1e-12)

    def test_a_link_of_your_own(self) -> None:
        crf, (emissions, target) = model(3), batch(4, 3, 3)
        link = lossfit.LinkLoss(lambda d: torch.nn.functional.softplus(1 - d))
        found = lossfit.CRFLoss(link, reduction="none")(emissions, target, *weights(crf))
        expected = torch.nn.functional.softplus(1 - crf.log_odds(emissions, target))
        torch.testing.assert_close(found, expected)

    def test_weights_and_reductions(self) -> None:
        crf, (emissions, target) = model(3), batch(4, 3, 3)
        call = (emissions, target, *weights(crf))
        rows = lossfit.CRFLoss(reduction="none")(*call)
        torch.testing.assert_close(rows, -crf.log_prob(emissions, target))
        torch.testing.assert_close(lossfit.CRFLoss(reduction="sum")(*call), rows.sum())
        w = torch.tensor([1.0, 0.0, 2.0, 0.5])
        torch.testing.assert_close(lossfit.CRFLoss()(*call, sample_weight=w), (rows * w).sum() / w.sum())
        torch.testing.assert_close(lossfit.CRFLoss()(*call, denominator=8.0), rows.sum() / 8)

    def test_schedules_and_learnt_numbers(self) -> None:
        crf, (emissions, target) = model(3), batch(4, 3, 3)
        loss = lossfit.CRFLoss(lossfit.GammaCrossEntropyLoss(gamma=lambda step: min(1.0, step / 10)))
        loss.step(to=5)
        half = lossfit.CRFLoss(lossfit.GammaCrossEntropyLoss(gamma=0.5))
        assert torch.equal(loss(emissions, target, *weights(crf)), half(emissions, target, *weights(crf)))
        gamma = torch.nn.Parameter(torch.full((4,), 2.0, dtype=torch.float64))
        learnt = lossfit.CRFLoss(lossfit.FocalLoss(gamma))
        assert list(learnt.parameters()) == [gamma]
        learnt(emissions, target, *weights(crf)).backward()
        assert (gamma.grad != 0).all()


class TestModule:
    def test_it_learns(self) -> None:
        """Tags that alternate, with emissions that say nothing beyond the first position."""
        target = torch.tensor([[0, 1, 0, 1, 0], [1, 0, 1, 0, 1]])
        emissions = torch.zeros(2, 5, 2)
        emissions[:, 0] = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
        crf, loss = lossfit.LinearChainCRF(2), lossfit.CRFLoss()
        optimizer = torch.optim.Adam(crf.parameters(), lr=0.2)
        for _ in range(40):
            optimizer.zero_grad()
            loss(emissions, target, crf.transitions, crf.start, crf.end).backward()
            optimizer.step()
        assert torch.equal(crf.viterbi(emissions), target)
        assert (crf.log_prob(emissions, target).exp() > 0.8).all()

    def test_half_precision(self) -> None:
        crf, (emissions, target) = model(3).float(), batch(2, 4, 3)
        half = emissions.bfloat16()
        found = crf.log_prob(half, target)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, crf.log_prob(half.float(), target))

    def test_pickles_and_shows_its_size(self) -> None:
        crf = pickle.loads(pickle.dumps(model(3)))
        assert repr(crf) == "LinearChainCRF(num_tags=3)"
        assert sorted(crf.state_dict()) == ["end", "start", "transitions"]


class TestBadInput:
    @pytest.mark.parametrize("num_tags", [0, -1])
    def test_too_few_tags(self, num_tags: int) -> None:
        with pytest.raises(ValueError, match="Expected `num_tags` of at least 1"):
            lossfit.LinearChainCRF(num_tags)

    def test_num_tags_of_another_type(self) -> None:
        with pytest.raises(TypeError, match="Expected `num_tags` to be an integer, but got float"):
            lossfit.LinearChainCRF(2.0)

    def test_tags(self) -> None:
        crf, (emissions, target) = model(3), batch(2, 4, 3)
        target[1, 2] = 3
        with pytest.raises(IndexError, match=r"Expected `tags` in \[0, 3\), but got 3 at position \(1, 2\)"):
            crf.log_prob(emissions, target)
        target[1, 2] = -1
        with pytest.raises(IndexError, match=r"got -1 at position \(1, 2\)"):
            crf.log_prob(emissions, target)
        with pytest.raises(TypeError, match=r"Expected `tags` to hold integer tags, but got torch.float32"):
            crf.log_prob(emissions, target.float())
        with pytest.raises(ValueError, match=r"Expected `tags` of shape \(2, 4\)"):
            crf.log_prob(emissions, target[:, 1:])
        with pytest.raises(TypeError, match=r"Expected `tags` to be a torch.Tensor"):
            crf.log_prob(emissions, target.tolist())

    def test_masks(self) -> None:
        crf, (emissions, _) = model(3), batch(2, 4, 3)
        empty = torch.tensor([[True] * 4, [False] * 4])
        for mask in (empty, torch.tensor([4, 0])):
            with pytest.raises(ValueError, match=r"at least one position in every row, but got 0 at position \(1,\)"):
                crf.marginals(emissions, mask)
        with pytest.raises(
            ValueError, match=r"Expected `mask` to hold lengths in \[0, 4\], but got 5 at position \(0,\)"
        ):
            crf.marginals(emissions, torch.tensor([5, 2]))
        with pytest.raises(ValueError, match=r"Expected `mask` of shape \(2, 4\), but got \(2, 3\)"):
            crf.marginals(emissions, empty[:, 1:])
        with pytest.raises(ValueError, match=r"Expected `mask` to hold lengths of shape \(2,\)"):
            crf.marginals(emissions, torch.tensor([4, 4, 4]))
        with pytest.raises(TypeError, match="Expected `mask` to be boolean"):
            crf.marginals(emissions, empty.float())
        with pytest.raises(TypeError, match="Expected `mask` to be boolean or to hold integer lengths"):
            crf.marginals(emissions, torch.tensor([4.0, 4.0]))
        with pytest.raises(TypeError, match=r"Expected `mask` to be a torch.Tensor, but got list"):
            crf.marginals(emissions, [4, 4])

    def test_emissions_and_weights(self) -> None:
        crf, (emissions, target) = model(3), batch(2, 4, 3)
        with pytest.raises(ValueError, match=r"Expected `emissions` of shape \(B, T, K\).*got \(2, 4\)"):
            crf.log_partition(emissions[..., 0])
        with pytest.raises(ValueError, match=r"Expected `emissions`.*at least one position.*got \(2, 0, 3\)"):
            crf.log_partition(emissions[:, :0])
        with pytest.raises(TypeError, match="Expected `emissions` to hold floating-point"):
            crf.log_partition(emissions.long())
        with pytest.raises(TypeError, match=r"Expected `emissions` to be a torch.Tensor"):
            crf.log_partition(emissions.tolist())
        with pytest.raises(ValueError, match=r"Expected `transitions` of shape \(4, 4\) for 4 tags, but got \(3, 3\)"):
            crf.log_partition(torch.zeros(2, 4, 4))
        with pytest.raises(ValueError, match=r"Expected `end` of shape \(3,\)"):
            lossfit.CRFLoss()(emissions, target, torch.zeros(3, 3), None, torch.zeros(2))
        with pytest.raises(TypeError, match=r"Expected `transitions` to be a torch.Tensor, but got LinearChainCRF"):
            lossfit.CRFLoss()(emissions, target, crf)

    @pytest.mark.parametrize(
        ("link", "error", "match"),
        [
            (
                lossfit.ExactLoss(),
                TypeError,
                "Expected `link` to be a loss that is a function of the gap, but got Exact",
            ),
            (lossfit.FocalLoss, TypeError, "Expected `link`.*but got type"),
            (lossfit.FocalLoss(weight=torch.ones(3)), ValueError, "Expected `link` without `weight`"),
            (lossfit.FocalLoss(class_prior=torch.ones(3)), ValueError, "Expected `link` without `class_prior`"),
            (lossfit.FocalLoss(label_smoothing=0.1), ValueError, "Expected `link` without `label_smoothing`"),
            (lossfit.FocalLoss(temperature=2.0), ValueError, "Expected `link` without `temperature`"),
            (lossfit.SumHingeLoss(), TypeError, "Expected `link` to be a loss that is a function of the gap"),
        ],
    )
    def test_links(self, link: object, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            lossfit.CRFLoss(link)


class TestPositionsThatAreTakenOut:
    """Padding and the later pieces of words, wherever they stand, as a token-classification collator leaves them."""

    def test_they_are_as_if_they_were_not_there(self) -> None:
        crf, (emissions, tags) = model(3), batch(3, 6, 3)
        mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 0], [0, 1, 1, 0, 1, 1]])
        short = [(emissions[i : i + 1, m], tags[i : i + 1, m]) for i, m in enumerate(mask.bool())]
        expected = torch.cat([crf.log_prob(*one) for one in short])
        decoded = [crf.viterbi(one[0])[0].tolist() for one in short]
        holds = emissions.masked_fill(~mask.bool().unsqueeze(-1), float("nan")).requires_grad_()
        labels = tags.masked_fill(mask == 0, -100)
        for target, marked in ((tags, mask), (tags, mask.bool()), (labels, None), (labels, torch.ones_like(mask))):
            torch.testing.assert_close(crf.log_prob(holds, target, marked), expected)
        torch.testing.assert_close(crf(holds, labels), -expected.mean())
        torch.testing.assert_close(
            lossfit.CRFLoss()(holds, labels, crf.transitions, crf.start, crf.end, mask), -expected.mean()
        )
        (grad,) = torch.autograd.grad(crf(holds, labels), holds)
        assert grad.isfinite().all()
        assert not grad[mask == 0].any()
        assert crf.decode(holds, mask) == decoded
        best, shares = crf.viterbi(holds, mask), crf.marginals(holds, mask)
        assert (best[mask == 0] == -100).all()
        assert not shares[mask == 0].any()
        for i, m in enumerate(mask.bool()):
            assert best[i, m].tolist() == decoded[i]
            torch.testing.assert_close(shares[i, m], crf.marginals(short[i][0])[0])

    def test_compiled_and_mapped(self) -> None:
        crf, (emissions, tags) = model(3), batch(3, 6, 3)
        tags[1, 2], tags[2, 0] = -100, -100
        compiled = torch.compile(crf, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(emissions, tags), crf(emissions, tags))
        mapped = torch.func.vmap(lambda e, y: crf.log_prob(e[None], y[None])[0])(emissions, tags)
        torch.testing.assert_close(mapped, crf.log_prob(emissions, tags))
