"""Losses that are the same at the ends of their hyper-parameters, and losses that others have published."""

import math

import pytest
import torch
from scipy import stats
from torch.nn import functional
from torch.testing import assert_close

import lossfit

N, C = 7, 5
GAPS = ["hard", "soft", "sum"]


def one_over(p: torch.Tensor) -> torch.Tensor:
    return 1 / p


CROSS_ENTROPY = {
    "focal(0)": lossfit.FocalLoss(0.0),
    "gamma_cross_entropy(0)": lossfit.GammaCrossEntropyLoss(0.0),
    "gamma_cross_entropy(tensor 0)": lossfit.GammaCrossEntropyLoss(torch.zeros((), dtype=torch.float64)),
    "poly()": lossfit.PolyLoss(),
    "generalized_cross_entropy(0)": lossfit.GeneralizedCrossEntropyLoss(0.0),
    "symmetric_cross_entropy(1, 0)": lossfit.SymmetricCrossEntropyLoss(1.0, 0.0),
    "logistic_margin(0)": lossfit.LogisticMarginLoss(0.0),
    "sensitivity(1 / p)": lossfit.SensitivityLoss(one_over),
}
EXPECTED_ACCURACY = {
    "expected_accuracy": lossfit.ExpectedAccuracyLoss(),
    "gamma_cross_entropy(1)": lossfit.GammaCrossEntropyLoss(1.0),
    "generalized_cross_entropy(1)": lossfit.GeneralizedCrossEntropyLoss(1.0),
    "smooth_accuracy(1) on the soft gap": lossfit.SmoothAccuracyLoss(1.0, gap="soft"),
}


@pytest.fixture
def z() -> torch.Tensor:
    return (2 * torch.randn(N, C, dtype=torch.float64)).requires_grad_()


@pytest.fixture
def y() -> torch.Tensor:
    return torch.randint(C, (N,))


def agree(z: torch.Tensor, found: torch.Tensor, expected: torch.Tensor, rtol: float = 1e-12) -> None:
    """In value and in gradient."""
    assert_close(found, expected, rtol=rtol, atol=1e-14)
    slopes = [torch.autograd.grad(value.sum(), z, retain_graph=True)[0] for value in (found, expected)]
    assert_close(*slopes, rtol=100 * rtol, atol=1e-14)


@pytest.mark.parametrize("name", CROSS_ENTROPY)
def test_cross_entropy(name: str, z: torch.Tensor, y: torch.Tensor) -> None:
    agree(z, CROSS_ENTROPY[name](z, y), functional.cross_entropy(z, y))
    q = torch.rand(N, C, dtype=torch.float64)
    agree(z, CROSS_ENTROPY[name](z, q), functional.cross_entropy(z, q))


@pytest.mark.parametrize("name", EXPECTED_ACCURACY)
def test_expected_accuracy(name: str, z: torch.Tensor, y: torch.Tensor) -> None:
    p = z.softmax(1)
    agree(z, EXPECTED_ACCURACY[name](z, y), 1 - p[range(N), y].mean())
    # It is half of the mean absolute error of the probabilities.
    one_hot = functional.one_hot(y, C).double()
    agree(z, EXPECTED_ACCURACY[name](z, y), (p - one_hot).abs().sum(1).mean() / 2)


def test_gamma_of_1_has_the_gradient_of_p_times_cross_entropy(z: torch.Tensor, y: torch.Tensor) -> None:
    log_p = z.log_softmax(1)[range(N), y]
    weighted = -(log_p.exp().detach() * log_p).mean()
    found = torch.autograd.grad(lossfit.GammaCrossEntropyLoss(1.0)(z, y), z)[0]
    assert_close(found, torch.autograd.grad(weighted, z)[0], rtol=1e-12, atol=1e-15)


def published(p: torch.Tensor) -> dict[str, tuple[lossfit.SingleLabelLoss, torch.Tensor]]:
    """Losses and their formulas as printed, of the target's probability."""
    log_p = p.log()
    return {
        "gamma_cross_entropy": (lossfit.GammaCrossEntropyLoss(0.3), -(0.3 + 0.7 * p).log() / 0.7),
        "focal": (lossfit.FocalLoss(1.5), -((1 - p) ** 1.5) * log_p),
        "poly": (lossfit.PolyLoss([1.0, -0.3]), -log_p + (1 - p) - 0.3 * (1 - p) ** 2),
        "poly, scaled": (
            lossfit.PolyLoss([0.5, 0.2], form="scaled"),
            -1.7 * log_p + 0.5 * (1 - p) + 0.2 * (1 - p) ** 2,
        ),
        "generalized_cross_entropy": (lossfit.GeneralizedCrossEntropyLoss(0.7), (1 - p**0.7) / 0.7),
        "symmetric_cross_entropy": (lossfit.SymmetricCrossEntropyLoss(0.1, 1.0), -0.1 * log_p + 4 * (1 - p)),
        "squared": (lossfit.SquaredLoss(), (1 - p) ** 2),
        "exponential": (lossfit.ExponentialLoss(), (-p).exp()),
        "logistic_margin": (lossfit.LogisticMarginLoss(1.0), (1 + math.e * (1 - p) / p).log()),
        "exponential_margin": (lossfit.ExponentialMarginLoss(0.5), ((1 - p) / p) ** 0.5),
        "smooth_accuracy": (lossfit.SmoothAccuracyLoss(2.0, gap="soft"), 1 / (1 + (p / (1 - p)) ** 2)),
        "hinge": (lossfit.HingeLoss(1.0, gap="soft"), (1 - (p / (1 - p)).log()).relu()),
    }


@pytest.mark.parametrize("name", published(torch.tensor(0.5)))
@pytest.mark.parametrize("shape", [(N, C), (3, C, 4)])
def test_the_formula_as_printed(name: str, shape: tuple[int, ...]) -> None:
    z = (2 * torch.randn(shape, dtype=torch.float64)).requires_grad_()
    y = torch.randint(C, (shape[0], *shape[2:]))
    p = z.softmax(1).gather(1, y.unsqueeze(1)).squeeze(1)
    loss, expected = published(p)[name]
    loss.reduction = "none"
    agree(z, loss(z, y), expected)


def test_a_margin_is_taken_off_the_targets_score(z: torch.Tensor, y: torch.Tensor) -> None:
    shifted = z - 1.3 * functional.one_hot(y, C).double()
    agree(z, lossfit.LogisticMarginLoss(1.3)(z, y), functional.cross_entropy(shifted, y))


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("margin", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_hinge_over_all_rivals_is_the_multi_margin_loss(
    squared: bool, margin: float, weighted: bool, z: torch.Tensor, y: torch.Tensor
) -> None:
    weight = torch.rand(C, dtype=torch.float64) if weighted else None
    loss = lossfit.SumHingeLoss(margin, squared=squared, weight=weight, reduction="none")
    expected = functional.multi_margin_loss(z, y, p=1 + squared, margin=margin, weight=weight, reduction="none")
    agree(z, loss(z, y), C * expected)


@pytest.mark.parametrize("squared", [False, True])
def test_hard_hinge_is_that_of_crammer_and_singer(squared: bool, z: torch.Tensor, y: torch.Tensor) -> None:
    rows = []
    for scores, c in zip(z.tolist(), y.tolist(), strict=True):
        best = max(s for k, s in enumerate(scores) if k != c)
        rows.append(max(0.0, 1.5 - (scores[c] - best)) ** (1 + squared))
    found = lossfit.HingeLoss(1.5, squared=squared, reduction="none")(z, y)
    assert found.tolist() == pytest.approx(rows, rel=1e-14)


def test_soft_hinge_without_margin_is_the_last_step_to_softmax(z: torch.Tensor, y: torch.Tensor) -> None:
    rivals = z.masked_fill(functional.one_hot(y, C).bool(), -math.inf)
    expected = (rivals.logsumexp(1) - z[range(N), y]).relu()
    agree(z, lossfit.HingeLoss(0.0, gap="soft", reduction="none")(z, y), expected)


def test_hinges_are_in_order(z: torch.Tensor, y: torch.Tensor) -> None:
    hard, soft = (lossfit.HingeLoss(gap=gap, reduction="none")(z, y) for gap in ("hard", "soft"))
    assert (hard <= soft + 1e-12).all()
    assert (soft <= hard + math.log(C - 1) + 1e-12).all()


def test_two_rivals_make_the_gaps_the_same() -> None:
    z, y = torch.randn(N, 2, dtype=torch.float64), torch.randint(2, (N,))
    for kind, options in ((lossfit.HingeLoss, {}), (lossfit.SmoothAccuracyLoss, {"beta": 3.0})):
        found = [kind(gap=gap, **options)(z, y) for gap in ("hard", "soft")]
        assert_close(*found, rtol=1e-13, atol=0)


def test_steep_smooth_accuracy_is_the_error_rate(z: torch.Tensor, y: torch.Tensor) -> None:
    found = lossfit.SmoothAccuracyLoss(1e6)(z, y).item()
    assert found == pytest.approx((z.argmax(1) != y).double().mean().item(), abs=1e-12)


def test_on_the_soft_gap_it_is_the_rate_of_targets_below_one_half(z: torch.Tensor, y: torch.Tensor) -> None:
    found = lossfit.SmoothAccuracyLoss(1e6, gap="soft")(z, y).item()
    assert found == pytest.approx((z.softmax(1)[range(N), y] < 0.5).double().mean().item(), abs=1e-12)
    right = torch.tensor([[1.0, 0.9, 0.9]])  # the arg max, yet below one half
    assert lossfit.SmoothAccuracyLoss(1e3, gap="soft")(right, torch.tensor([0])).item() == pytest.approx(1)
    assert lossfit.SmoothAccuracyLoss(1e3, gap="hard")(right, torch.tensor([0])).item() == pytest.approx(0)


def test_exact_with_two_classes_is_the_probit() -> None:
    z, y = 3 * torch.randn(N, 2, dtype=torch.float64), torch.randint(2, (N,))
    lead = (z[range(N), y] - z[range(N), 1 - y]).numpy() / (1.7 * math.sqrt(2))
    found = lossfit.ExactLoss(1.7, reduction="none")(z, y)
    assert_close(found, torch.from_numpy(stats.norm.sf(lead)), rtol=1e-9, atol=0)
    found = lossfit.ExactLoss(1.7, log=True, reduction="none")(z, y)
    assert_close(found, torch.from_numpy(-stats.norm.logcdf(lead)), rtol=1e-9, atol=0)


def test_smoothing_over_the_other_classes_only(z: torch.Tensor, y: torch.Tensor) -> None:
    """Eps / (C - 1) on each of the others is PyTorch's form with eps C / (C - 1)."""
    eps = 0.15
    share = torch.full((N, C), eps / (C - 1), dtype=torch.float64)
    share[range(N), y] = 1 - eps
    expected = -(share * z.log_softmax(1)).sum(1).mean()
    agree(z, lossfit.CrossEntropyLoss(label_smoothing=eps * C / (C - 1))(z, y), expected)


def test_smoothing_only_rescales_the_expected_accuracy(z: torch.Tensor, y: torch.Tensor) -> None:
    eps = 0.2
    plain = lossfit.ExpectedAccuracyLoss()(z, y)
    agree(z, lossfit.ExpectedAccuracyLoss(label_smoothing=eps)(z, y), (1 - eps) * plain + eps * (C - 1) / C)
