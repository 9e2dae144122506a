"""Token losses against loops; sequence losses against sums over every sequence of a small model."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lossfit

B, T, C = 4, 5, 3


def tokens(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(B, T, C, generator=generator, dtype=torch.float64) * 2
    target = torch.randint(C, (B, T), generator=generator)
    return logits, target, torch.tensor([5, 1, 0, 3])


def nll(logits: Tensor, target: Tensor, row: int, t: int) -> float:
    z = logits[row, t].tolist()
    return math.log(sum(math.exp(x) for x in z)) - z[int(target[row, t])]


class TestTokenLoss:
    def test_the_mean_over_tokens_and_over_sequences(self) -> None:
        logits, target, lengths = tokens()
        weight = torch.tensor([[0.5, 1.0, 2.0, 0.25, 1.5]] * B, dtype=torch.float64)
        each = [[nll(logits, target, i, t) for t in range(n)] for i, n in enumerate(lengths.tolist())]
        flat = [x for row in each for x in row]
        assert lossfit.TokenLoss()(logits, target, lengths).item() == pytest.approx(sum(flat) / len(flat))
        means = [sum(row) / len(row) for row in each if row]
        loss = lossfit.TokenLoss(normalise="sequence")
        assert loss(logits, target, lengths).item() == pytest.approx(sum(means) / len(means))
        weighted = [[(w, x) for w, x in zip(weight[0].tolist(), row, strict=False)] for row in each]
        flat_weighted = [pair for row in weighted for pair in row]
        found = lossfit.TokenLoss()(logits, target, lengths, sample_weight=weight).item()
        assert found == pytest.approx(sum(w * x for w, x in flat_weighted) / sum(w for w, _ in flat_weighted))
        means = [sum(w * x for w, x in row) / sum(w for w, _ in row) for row in weighted if row]
        found = loss(logits, target, lengths, sample_weight=weight).item()
        assert found == pytest.approx(sum(means) / len(means))

    def test_weights_of_sequences(self) -> None:
        logits, target, lengths = tokens()
        w = torch.tensor([1.0, 3.0, 7.0, 0.5], dtype=torch.float64)
        loss = lossfit.TokenLoss(normalise="sequence")
        rows = lossfit.TokenLoss(normalise="sequence", reduction="none")(logits, target, lengths)
        assert rows.shape == (B,)
        assert rows[2] == 0
        expected = (rows * w).sum() / (1.0 + 3.0 + 0.5)
        torch.testing.assert_close(loss(logits, target, lengths, sample_weight=w), expected)
        torch.testing.assert_close(loss(logits, target, lengths, denominator=10.0), rows.sum() / 10)
        by_token = lossfit.TokenLoss()(logits, target, lengths, sample_weight=w)
        expanded = lossfit.TokenLoss()(logits, target, lengths, sample_weight=w.unsqueeze(1).expand(B, T))
        torch.testing.assert_close(by_token, expanded)

    @pytest.mark.parametrize("normalise", ["token", "sequence"])
    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    def test_class_weights_are_those_of_pytorch(self, normalise: str, smoothing: float) -> None:
        logits, target, lengths = tokens()
        weight = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
        inner = lossfit.CrossEntropyLoss(weight=weight, label_smoothing=smoothing)
        found = lossfit.TokenLoss(inner, normalise=normalise)(logits, target, lengths)
        theirs = torch.nn.CrossEntropyLoss(weight=weight, label_smoothing=smoothing)
        masked = target.masked_fill(torch.arange(T) >= lengths.unsqueeze(1), -100)
        if normalise == "token":
            expected = theirs(logits.flatten(0, 1), masked.flatten())
        else:
            expected = torch.stack([theirs(logits[i], masked[i]) for i in (0, 1, 3)]).mean()
        torch.testing.assert_close(found, expected)

    @pytest.mark.parametrize("name", ["focal", "exact", "hinge", "gamma_cross_entropy"])
    @pytest.mark.parametrize("normalise", ["token", "sequence"])
    def test_what_is_masked_may_hold_anything(self, name: str, normalise: str) -> None:
        logits, target, lengths = tokens()
        mask = torch.arange(T) < lengths.unsqueeze(1)
        dirty = logits.masked_fill(~mask.unsqueeze(-1), math.nan).requires_grad_()
        clean = logits.clone().requires_grad_()
        loss = lossfit.TokenLoss(lossfit.make(name), normalise=normalise)
        found = loss(dirty, target.masked_fill(~mask, 99), mask)
        expected = loss(clean, target, mask)
        torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)
        found.backward()
        expected.backward()
        torch.testing.assert_close(dirty.grad, clean.grad, rtol=1e-14, atol=0)
        assert (dirty.grad[~mask] == 0).all()

    def test_a_mask_may_have_holes_and_ignored_targets_count_as_masked(self) -> None:
        logits, target, _ = tokens()
        mask = torch.rand(B, T, generator=torch.Generator().manual_seed(1)) < 0.6
        for ignore_index in (-100, 0):
            loss = lossfit.TokenLoss(lossfit.CrossEntropyLoss(ignore_index=ignore_index), reduction="sum")
            kept = mask & (target != ignore_index)
            expected = sum(nll(logits, target, *at) for at in kept.nonzero().tolist())
            assert loss(logits, target, mask).item() == pytest.approx(expected)

    @pytest.mark.parametrize("normalise", ["token", "sequence"])
    def test_no_token_is_left(self, normalise: str) -> None:
        logits, target, _ = tokens()
        logits.requires_grad_()
        loss = lossfit.TokenLoss(normalise=normalise)
        value = loss(logits, target, torch.zeros(B, dtype=torch.int64))
        value.backward()
        assert value == 0
        assert (logits.grad == 0).all()
        assert loss(logits[:0], target[:0]) == 0

    def test_reductions(self) -> None:
        logits, target, lengths = tokens()
        none = lossfit.TokenLoss(reduction="none")(logits, target, lengths)
        assert none.shape == (B, T)
        assert (none[1, 1:] == 0).all()
        torch.testing.assert_close(lossfit.TokenLoss(reduction="sum")(logits, target, lengths), none.sum())

    def test_the_inner_loss_stays_as_it_is(self) -> None:
        gamma = torch.nn.Parameter(torch.tensor(2.0))
        inner = lossfit.FocalLoss(gamma)
        outer = lossfit.TokenLoss(inner)
        assert inner.reduction == "mean"
        assert next(iter(outer.parameters())) is gamma

    def test_schedules_move(self) -> None:
        loss = lossfit.TokenLoss(lossfit.GammaCrossEntropyLoss(gamma=lambda step: min(1.0, step / 10)))
        loss.step(to=5)
        assert loss.loss.gamma == 0.5
        restored = lossfit.TokenLoss(lossfit.GammaCrossEntropyLoss(gamma=lambda step: min(1.0, step / 10)))
        restored.load_state_dict(loss.state_dict())
        assert restored.loss.gamma == 0.5

    @given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 1000))
    @settings(max_examples=40, deadline=None, database=None, derandomize=True)
    def test_padding_changes_nothing(self, rows: int, length: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(rows, length, C, generator=generator)
        target = torch.randint(C, (rows, length), generator=generator)
        lengths = torch.randint(length + 1, (rows,), generator=generator)
        for normalise in ("token", "sequence"):
            loss = lossfit.TokenLoss(lossfit.FocalLoss(), normalise=normalise)
            padded = torch.cat([logits, torch.full((rows, 2, C), torch.inf)], 1)
            more = torch.cat([target, torch.full((rows, 2), -1)], 1)
            torch.testing.assert_close(loss(padded, more, lengths), loss(logits, target, lengths))

    def test_compiled_is_eager(self) -> None:
        logits, target, lengths = tokens()
        for normalise in ("token", "sequence"):
            loss = lossfit.TokenLoss(normalise=normalise)
            compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
            torch.testing.assert_close(compiled(logits, target, lengths), loss(logits, target, lengths))

    def test_gradient(self) -> None:
        logits, target, lengths = tokens()
        for normalise in ("token", "sequence"):
            loss = lossfit.TokenLoss(lossfit.FocalLoss(), normalise=normalise)
            assert torch.autograd.gradcheck(lambda z, f=loss: f(z, target, lengths), logits.requires_grad_())

    def test_bad_input(self) -> None:
        logits, target, _ = tokens()
        loss = lossfit.TokenLoss()
        with pytest.raises(TypeError, match="Expected `loss` to be a SingleLabelLoss, but got CrossEntropyLoss"):
            lossfit.TokenLoss(torch.nn.CrossEntropyLoss())
        with pytest.raises(ValueError, match=r"Expected `normalise` to be one of.*but got 'tokens'.*'token'"):
            lossfit.TokenLoss(normalise="tokens")
        with pytest.raises(ValueError, match=r"Expected `input` of shape \(B, T, C\), but got \(4, 3\)"):
            loss(logits[:, 0], target[:, 0])
        with pytest.raises(ValueError, match=r"Expected `target` of shape \(4, 5\)"):
            loss(logits, target[:, 1:])
        with pytest.raises(TypeError, match="Expected `target` to hold"):
            loss(logits, target.double())
        with pytest.raises(IndexError, match="Expected `target` to hold class indices"):
            loss(logits, target + C)
        with pytest.raises(ValueError, match="Expected `sample_weight` of shape"):
            loss(logits, target, sample_weight=torch.ones(B, T - 1))
        with pytest.raises(ValueError, match="Expected `sample_weight` of shape"):
            lossfit.TokenLoss(normalise="sequence")(logits, target, sample_weight=torch.ones(B, T - 1))
        with pytest.raises(TypeError, match=r"Expected `sample_weight` to be a torch.Tensor"):
            lossfit.TokenLoss(normalise="sequence")(logits, target, sample_weight=[1.0] * B)
        with pytest.raises(TypeError, match="Expected `mask` to be boolean"):
            loss(logits, target, torch.ones(B, T))
        with pytest.raises(TypeError, match=r"Expected `target` to be a torch.Tensor, but got list"):
            loss(logits, target.tolist())


class TinyModel:
    """Two tokens, the second given the first, from a table of logits: C * C sequences, each with a reward."""

    def __init__(self, classes: int = 3) -> None:
        generator = torch.Generator().manual_seed(3)
        self.theta = torch.randn(1 + classes, classes, generator=generator, dtype=torch.float64).requires_grad_()
        self.sequences = list(itertools.product(range(classes), repeat=2))
        self.reward = torch.randn(len(self.sequences), generator=generator, dtype=torch.float64) * 3 + 5

    def log_prob(self) -> Tensor:
        """Of every sequence."""
        log_p = self.theta.log_softmax(1)
        return torch.stack([log_p[0, a] + log_p[1 + a, b] for a, b in self.sequences])

    def expected_gradient(self) -> Tensor:
        """Of minus the expected reward."""
        expected = (self.log_prob().exp() * self.reward).sum()
        return torch.autograd.grad(-expected, self.theta)[0]

    def every_draw(self, samples: int) -> Tensor:
        """The indices of all tuples of samples, (draws, M)."""
        return torch.cartesian_prod(*[torch.arange(len(self.sequences))] * samples).view(-1, samples)


class TestReinforce:
    @pytest.mark.parametrize(
        ("baseline", "samples", "factor"),
        [
            ("none", 1, 1),
            ("none", 3, 1),
            ("leave_one_out", 2, 1),
            ("leave_one_out", 3, 1),
            ("self_critical", 1, 1),
            ("self_critical", 3, 1),
            ("mean", 2, 1 / 2),
            ("mean", 3, 2 / 3),
        ],
    )
    def test_the_gradient_over_all_draws_is_that_of_the_expected_reward(
        self, baseline: str, samples: int, factor: float
    ) -> None:
        model = TinyModel()
        draws = model.every_draw(samples)
        log_prob = model.log_prob()
        chance = log_prob.detach()[draws].sum(1).exp()
        assert chance.sum().item() == pytest.approx(1.0)
        loss = lossfit.ReinforceLoss(baseline=baseline, reduction="sum")
        greedy = model.reward[log_prob.argmax()].expand(len(draws)) if baseline == "self_critical" else None
        value = loss(log_prob[draws], model.reward[draws], greedy, sample_weight=chance)
        (found,) = torch.autograd.grad(value, model.theta)
        torch.testing.assert_close(found, factor * model.expected_gradient(), rtol=1e-12, atol=1e-12)

    def test_baselines_lower_the_variance(self) -> None:
        """A reward of 100 and a little: without a baseline, the 100 is noise."""
        model = TinyModel()
        model.reward = 100 + 0.1 * model.reward
        draws = model.every_draw(2)
        chance = model.log_prob().detach()[draws].sum(1).exp()

        def spread(baseline: str) -> float:
            rows = lossfit.ReinforceLoss(baseline=baseline, reduction="none")
            log_prob = model.log_prob()
            (per_sequence,) = torch.autograd.grad(
                rows(log_prob[draws], model.reward[draws]),
                log_prob,
                torch.eye(len(draws), dtype=torch.float64),
                is_grads_batched=True,
            )
            return float((chance * per_sequence.square().sum(1)).sum())

        assert spread("leave_one_out") < 1e-4 * spread("none")

    def test_rewards_are_constants(self) -> None:
        log_prob = torch.tensor([[-1.0, -2.0]], requires_grad=True)
        reward = torch.tensor([[1.0, 2.0]], requires_grad=True)
        with pytest.raises(ValueError, match="`reward` without a gradient"):
            lossfit.ReinforceLoss()(log_prob, reward)
        with torch.no_grad():
            assert lossfit.ReinforceLoss()(log_prob, reward).isfinite()

    def test_integer_rewards_weights_and_no_rows(self) -> None:
        log_prob = torch.tensor([[-1.0, -2.0], [-3.0, -0.5]])
        reward = torch.tensor([[1, 0], [2, 5]])
        rows = torch.tensor([0.5, (2 * 3.0 + 5 * 0.5) / 2])
        loss = lossfit.ReinforceLoss("none")
        torch.testing.assert_close(loss(log_prob, reward), rows.mean())
        w = torch.tensor([3.0, 1.0])
        torch.testing.assert_close(loss(log_prob, reward, sample_weight=w), (rows * w).sum() / 4)
        assert loss(log_prob[:0], reward[:0]) == 0

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_rewards_that_are_not_finite(self, bad: float) -> None:
        log_prob, reward = torch.zeros(2, 3), torch.zeros(2, 3)
        reward[1, 2] = bad
        with pytest.raises(ValueError, match=rf"Expected `reward` to be finite, but got {bad} at position \(1, 2\)"):
            lossfit.ReinforceLoss()(log_prob, reward)
        with pytest.raises(
            ValueError, match=rf"Expected `greedy_reward` to be finite, but got {bad} at position \(0,\)"
        ):
            lossfit.ReinforceLoss("self_critical")(log_prob, torch.zeros(2, 3), torch.tensor([bad, 0.0]))
        with pytest.raises(ValueError, match=rf"Expected `cost` to be finite, but got {bad} at position \(1, 2\)"):
            lossfit.MinimumRiskLoss()(log_prob, reward)

    def test_bad_input(self) -> None:
        log_prob, reward = torch.zeros(2, 3), torch.zeros(2, 3)
        with pytest.raises(ValueError, match=r"Expected `baseline` to be one of.*Did you mean 'self_critical'"):
            lossfit.ReinforceLoss("critical")
        for baseline in ("mean", "leave_one_out"):
            with pytest.raises(ValueError, match=r"Expected `log_prob` of at least 2 samples a row.*but got 1"):
                lossfit.ReinforceLoss(baseline)(log_prob[:, :1], reward[:, :1])
        with pytest.raises(ValueError, match=r"Expected `greedy_reward` with baseline='self_critical'.*got None"):
            lossfit.ReinforceLoss("self_critical")(log_prob, reward)
        with pytest.raises(ValueError, match=r"Expected `greedy_reward` with.*got one with baseline='mean'"):
            lossfit.ReinforceLoss("mean")(log_prob, reward, torch.zeros(2))
        with pytest.raises(ValueError, match=r"Expected `greedy_reward` of shape \(2,\), but got \(3,\)"):
            lossfit.ReinforceLoss("self_critical")(log_prob, reward, torch.zeros(3))
        with pytest.raises(ValueError, match=r"Expected `reward` of shape \(2, 3\), but got \(2, 2\)"):
            lossfit.ReinforceLoss()(log_prob, reward[:, 1:])
        with pytest.raises(ValueError, match=r"Expected `log_prob` of shape \(B, M\).*got \(2, 0\)"):
            lossfit.ReinforceLoss()(log_prob[:, :0], reward[:, :0])
        with pytest.raises(ValueError, match=r"Expected `log_prob` of shape \(B, M\).*got \(3,\)"):
            lossfit.ReinforceLoss()(log_prob[0], reward[0])
        with pytest.raises(TypeError, match="Expected `log_prob` to hold floating-point"):
            lossfit.ReinforceLoss()(log_prob.long(), reward)
        with pytest.raises(TypeError, match=r"Expected `log_prob` to be a torch.Tensor"):
            lossfit.ReinforceLoss()(log_prob.tolist(), reward)
        with pytest.raises(TypeError, match=r"Expected `reward` to be a torch.Tensor"):
            lossfit.ReinforceLoss()(log_prob, reward.tolist())


class TestMinimumRisk:
    def test_over_every_sequence_it_is_the_expected_cost(self) -> None:
        model = TinyModel()
        value = lossfit.MinimumRiskLoss()(model.log_prob().unsqueeze(0), -model.reward.unsqueeze(0))
        expected = -(model.log_prob().exp() * model.reward).sum()
        torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)
        (found,) = torch.autograd.grad(value, model.theta)
        torch.testing.assert_close(found, model.expected_gradient(), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("alpha", [0.005, 0.5, 2.0])
    def test_longhand(self, alpha: float) -> None:
        log_prob = torch.tensor([[-3.0, -1.0, -2.5], [-40.0, -41.0, -300.0]], dtype=torch.float64).requires_grad_()
        cost = torch.tensor([[0.2, 0.9, 0.4], [1.0, 0.0, 0.5]], dtype=torch.float64)
        rows = []
        for nats, costs in zip(log_prob.tolist(), cost.tolist(), strict=True):
            mass = [math.exp(alpha * x) for x in nats]
            rows.append(sum(m * c for m, c in zip(mass, costs, strict=True)) / sum(mass))
        loss = lossfit.MinimumRiskLoss(alpha, reduction="none")
        assert loss(log_prob, cost).tolist() == pytest.approx(rows, rel=1e-13)
        assert torch.autograd.gradcheck(lambda x: loss(x, cost), log_prob)

    def test_lists_of_different_lengths(self) -> None:
        log_prob = torch.tensor([[-1.0, -2.0, math.nan], [-1.0, -0.5, -3.0]], requires_grad=True)
        cost = torch.tensor([[0.3, 0.8, math.nan], [0.1, 0.2, 0.7]])
        loss = lossfit.MinimumRiskLoss(reduction="none")
        found = loss(log_prob, cost, torch.tensor([2, 3]))
        torch.testing.assert_close(found[:1], loss(log_prob[:1, :2], cost[:1, :2]))
        torch.testing.assert_close(found[1:], loss(log_prob[1:], cost[1:]))
        found.sum().backward()
        assert log_prob.grad[0, 2] == 0
        assert log_prob.grad.isfinite().all()
        with pytest.raises(ValueError, match=r"at least one sequence in every row, but got 0 at position \(1,\)"):
            loss(log_prob, cost, torch.tensor([2, 0]))

    def test_a_sequence_without_probability(self) -> None:
        log_prob = torch.tensor([[-1.0, -math.inf]], requires_grad=True)
        value = lossfit.MinimumRiskLoss()(log_prob, torch.tensor([[0.25, 1.0]]))
        assert value == 0.25
        value.backward()
        assert log_prob.grad.isfinite().all()

    def test_alpha(self) -> None:
        log_prob, cost = torch.tensor([[-1.0, -2.0], [-1.0, -2.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
        alpha = torch.tensor([0.5, 2.0], requires_grad=True)
        found = lossfit.MinimumRiskLoss(alpha, reduction="none")(log_prob, cost)
        torch.testing.assert_close(found, torch.sigmoid(-alpha))
        found.sum().backward()
        assert (alpha.grad < 0).all()
        with pytest.raises(ValueError, match=r"Expected `alpha` in \(0, inf\), but got 0"):
            lossfit.MinimumRiskLoss(0.0)

    def test_compiled_is_eager(self) -> None:
        log_prob, cost = torch.tensor([[-1.0, -2.0]]), torch.tensor([[0.0, 1.0]])
        for loss in (lossfit.MinimumRiskLoss(), lossfit.ReinforceLoss()):
            compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
            torch.testing.assert_close(compiled(log_prob, cost), loss(log_prob, cost))
