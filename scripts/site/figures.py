"""The figures of the pages: each a function that computes its lines with the library."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from drawing import Line, Panel
from torch import Tensor

import lossfit
from lossfit import plot, plot_margins, schedules

POINTS = 81


def grid(low: float, high: float) -> Tensor:
    return torch.linspace(low, high, POINTS, dtype=torch.float64)


def line(x: Tensor, y: Tensor | Sequence[float]) -> Line:
    return x.tolist(), y.tolist() if isinstance(y, Tensor) else list(y)


def over_p(losses: Mapping[str, lossfit.SingleLabelLoss]) -> list[Panel]:
    """Value and sensitivity against the target's probability, on two classes."""
    found = {name: plot.curve(loss, "p") for name, loss in losses.items()}
    x = "probability of the target p"
    return [
        Panel(x, "loss", {n: (c["p"], c["loss"]) for n, c in found.items()}, top=5.0, bottom=0.0),
        Panel(
            x,
            "sensitivity -dl/dp",
            {n: (c["p"], c["sensitivity"]) for n, c in found.items()},
            top=100.0,
            bottom=0.05,
            logarithmic=True,
        ),
    ]


def over_gap(losses: Mapping[str, lossfit.SingleLabelLoss], top: float = 5.0) -> list[Panel]:
    """Value and pull against the gap, on two classes."""
    found = {name: plot.curve(loss, "gap", 5.0) for name, loss in losses.items()}
    x = "gap d = target - rivals"
    return [
        Panel(x, "loss", {n: (c["gap"], c["loss"]) for n, c in found.items()}, top=top, bottom=0.0),
        Panel(x, "pull -dl/dd", {n: (c["gap"], c["sensitivity"]) for n, c in found.items()}, top=3.0, bottom=0.0),
    ]


def likelihood() -> list[Panel]:
    return over_p(
        {
            "cross-entropy": lossfit.CrossEntropyLoss(),
            "gamma cross-entropy, 0.1": lossfit.GammaCrossEntropyLoss(0.1),
            "gamma cross-entropy, 0.5": lossfit.GammaCrossEntropyLoss(0.5),
            "expected accuracy": lossfit.ExpectedAccuracyLoss(),
        }
    )


def weighted() -> list[Panel]:
    return over_p(
        {
            "cross-entropy": lossfit.CrossEntropyLoss(),
            "focal, gamma 1": lossfit.FocalLoss(1.0),
            "focal, gamma 2": lossfit.FocalLoss(2.0),
            "poly, eps 1": lossfit.PolyLoss([1.0]),
            "poly, eps -0.5": lossfit.PolyLoss([-0.5]),
        }
    )


def robust() -> list[Panel]:
    return over_p(
        {
            "cross-entropy": lossfit.CrossEntropyLoss(),
            "generalised cross-entropy, q 0.7": lossfit.GeneralizedCrossEntropyLoss(0.7),
            "symmetric cross-entropy": lossfit.SymmetricCrossEntropyLoss(),
            "squared": lossfit.SquaredLoss(),
            "exponential": lossfit.ExponentialLoss(),
        }
    )


def margin_losses() -> list[Panel]:
    return over_gap(
        {
            "cross-entropy": lossfit.CrossEntropyLoss(),
            "logistic margin, m 1": lossfit.LogisticMarginLoss(1.0),
            "hinge, m 1": lossfit.HingeLoss(1.0),
            "squared hinge, m 1": lossfit.HingeLoss(1.0, squared=True),
            "exponential margin, s 0.5": lossfit.ExponentialMarginLoss(0.5),
            "smooth accuracy, beta 2": lossfit.SmoothAccuracyLoss(2.0),
        }
    )


def exact() -> list[Panel]:
    return (
        over_gap(
            {
                "expected accuracy": lossfit.ExpectedAccuracyLoss(),
                "EXACT, sigma 0.5": lossfit.ExactLoss(0.5),
                "EXACT, sigma 1": lossfit.ExactLoss(1.0),
                "EXACT, sigma 2": lossfit.ExactLoss(2.0),
            },
            top=1.0,
        )[:1]
        + over_gap(
            {
                "cross-entropy": lossfit.CrossEntropyLoss(),
                "-log P, sigma 0.5": lossfit.ExactLoss(0.5, log=True),
                "-log P, sigma 1": lossfit.ExactLoss(1.0, log=True),
                "-log P, sigma 2": lossfit.ExactLoss(2.0, log=True),
            }
        )[:1]
    )


def ladder() -> list[Panel]:
    """The target's score t against rivals at 0, -0.5 and -1."""
    t = grid(-4, 5)
    z = torch.stack([t, *(torch.full_like(t, rival) for rival in (0.0, -0.5, -1.0))], 1)
    target = torch.zeros(POINTS, dtype=torch.int64)
    steps = {
        "hinge over each rival, m 1": lossfit.SumHingeLoss(1.0, reduction="none"),
        "hinge over the best rival, m 1": lossfit.HingeLoss(1.0, reduction="none"),
        "the same, m 0": lossfit.HingeLoss(0.0, reduction="none"),
        "log-sum-exp for the maximum": lossfit.HingeLoss(0.0, gap="soft", reduction="none"),
        "softplus for the hinge: cross-entropy": lossfit.CrossEntropyLoss(reduction="none"),
    }
    found = {name: line(t, loss(z, target)) for name, loss in steps.items()}
    return [Panel("score of the target, rivals at 0, -0.5 and -1", "loss", found, top=8.0, bottom=0.0)]


def noises() -> list[Panel]:
    """The probability that the target wins, and the density under the integral of EXACT."""
    d = grid(-5, 5)
    z = torch.stack([d, torch.zeros_like(d)], 1)
    target = torch.zeros(POINTS, dtype=torch.int64)
    wins = {"Gumbel noise: softmax": torch.sigmoid(d)} | {
        f"Gaussian noise, sigma {sigma}": 1 - lossfit.ExactLoss(sigma, reduction="none")(z, target)
        for sigma in (0.5, 1.0, 2.0)
    }
    return [Panel("lead of the target over its only rival", "probability that it wins", _lines(d, wins), 1.0, 0.0)]


def integrand() -> list[Panel]:
    x = grid(-4, 6)
    density = torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    found = {}
    for rivals in (1, 10, 100, 1000):
        found[f"{rivals} rivals, all 2 below" if rivals > 1 else "1 rival, 2 below"] = (
            density * torch.special.ndtr(x + 2.0) ** rivals
        )
    return [Panel("noise of the target x", "under the integral", _lines(x, found), bottom=0.0)]


def multi_label() -> list[Panel]:
    s = grid(-5, 5)
    losses = {
        "ZLPR": lossfit.ZLPRLoss(reduction="none"),
        "BCE": lossfit.BCELoss(reduction="none"),
        "focal BCE, gamma 2": lossfit.FocalBCELoss(2.0, None, reduction="none"),
        "asymmetric, 0 and 4, clip 0.05": lossfit.AsymmetricLoss(reduction="none"),
    }
    return [
        Panel(
            "score of the class",
            f"loss where its label is {label}",
            {n: line(s, loss(s.unsqueeze(1), torch.full((POINTS, 1), float(label)))) for n, loss in losses.items()},
            top=5.0,
            bottom=0.0,
        )
        for label in (1, 0)
    ]


def crowd() -> list[Panel]:
    """One right class among many wrong ones, all with score 0: the pull on the right one."""
    counts = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    losses = {"ZLPR": lossfit.ZLPRLoss(), "BCE": lossfit.BCELoss(), "asymmetric": lossfit.AsymmetricLoss()}
    found: dict[str, Line] = {}
    for name, loss in losses.items():
        shares = []
        for count in counts:
            s = torch.zeros(1, count + 1, dtype=torch.float64, requires_grad=True)
            label = torch.zeros(1, count + 1)
            label[0, 0] = 1
            (grad,) = torch.autograd.grad(loss(s, label), s)
            shares.append(float(grad[0, 0].abs() / grad.abs().sum()))
        found[name] = ([math.log10(c) for c in counts], shares)
    return [Panel("log10 of the number of wrong classes", "share of the right class in the pull", found, 1.0, 0.0)]


def multi_way() -> list[Panel]:
    """One question of three answers: the right one's score against rivals at 0 and -1."""
    x = grid(-4, 6)
    s = torch.stack([x, torch.zeros_like(x), torch.full_like(x, -1.0)], 1).unsqueeze(1)
    target = torch.zeros(POINTS, 1, dtype=torch.int64)
    found = {
        kind: line(x, lossfit.MultiWayLoss(kind, reduction="none")(s, target))
        for kind in ("pairwise", "balanced", "centered")
    }
    found["cross-entropy"] = line(x, lossfit.CrossEntropyLoss(reduction="none")(s[:, 0], target[:, 0]))
    return [Panel("score of the right answer, others at 0 and -1", "loss", found, top=6.0, bottom=0.0)]


def ranking() -> list[Panel]:
    lead = grid(-4, 4)
    target = torch.tensor([1, 0])
    pair = torch.stack([lead, torch.zeros_like(lead)], 1)
    surrogates = ("logistic", "squared_hinge", "square", "hinge", "sigmoid")
    losses = {name.replace("_", " "): lossfit.AUCLoss(name) for name in surrogates}
    smooth = {f"average precision, tau {tau}": lossfit.AveragePrecisionLoss(tau) for tau in (0.1, 1.0)}
    x = "lead of the positive over the negative"
    first, second = (
        {n: line(lead, [loss(p, target).item() for p in pair]) for n, loss in each.items()} for each in (losses, smooth)
    )
    return [Panel(x, "AUC loss of one pair", first, 6.0, 0.0), Panel(x, "average precision loss", second, 0.5, 0.0)]


def metric() -> list[Panel]:
    """Ten rows of a rare class among 100: its probability varies, the other rows have p = 0.9."""
    p = grid(0.01, 0.99)
    labels = torch.tensor([1] * 10 + [0] * 90)
    common = math.log(0.9 / 0.1)
    names = {
        "cross-entropy": lambda steep: lossfit.CrossEntropyLoss() if steep else lossfit.ExpectedAccuracyLoss(),
        "balanced accuracy": lambda steep: lossfit.BalancedAccuracyLoss(steep=steep),
        "macro F1": lambda steep: lossfit.FBetaLoss(steep=steep),
        "Matthews": lambda steep: lossfit.MatthewsLoss(steep=steep),
    }

    def value(loss: lossfit.Loss, chance: float) -> float:
        d = torch.where(labels == 1, math.log(chance / (1 - chance)), common).double()
        z = torch.where(labels == 1, -d, d)
        return float(loss(torch.stack([z, torch.zeros_like(z)], 1), labels))

    x = "p of the rare class's rows"
    return [
        Panel(
            x, title, {n: line(p, [value(make(steep), c) for c in p.tolist()]) for n, make in names.items()}, top, 0.0
        )
        for title, steep, top in (("loss, steep (the default)", True, 4.0), ("loss, steep=False", False, 1.0))
    ]


def contrastive() -> list[Panel]:
    """A positive among seven rivals at similarity 0.2."""
    found = {}
    x = grid(-1, 1)
    for temperature in (0.05, 0.1, 0.5):
        loss = lossfit.InfoNCELoss(temperature, similarity="dot")
        values = []
        for similarity in x.tolist():
            matrix = torch.full((8, 8), 0.2, dtype=torch.float64)
            matrix.fill_diagonal_(similarity)
            values.append(float(loss(torch.eye(8, dtype=torch.float64), matrix)))
        found[f"T = {temperature}"] = line(x, values)
    return [Panel("similarity of the positive, seven rivals at 0.2", "InfoNCE", found, top=10.0, bottom=0.0)]


def distillation() -> list[Panel]:
    """A teacher that gives the target 0.8, two classes."""
    p = grid(0.02, 0.98)
    student = torch.stack([torch.logit(p), torch.zeros_like(p)], 1)
    teacher = torch.tensor([math.log(4.0), 0.0], dtype=torch.float64).expand_as(student)
    target = torch.zeros(POINTS, dtype=torch.int64)
    made = {
        "labels alone (alpha 0)": lossfit.DistillationLoss(temperature=1.0, alpha=0.0, reduction="none"),
        "alpha 0.5, T 1": lossfit.DistillationLoss(temperature=1.0, alpha=0.5, reduction="none"),
        "teacher alone, T 1": lossfit.DistillationLoss(temperature=1.0, alpha=1.0, reduction="none"),
        "teacher alone, T 4": lossfit.DistillationLoss(temperature=4.0, alpha=1.0, reduction="none"),
    }
    found = {name: line(p, loss(student, teacher, target)) for name, loss in made.items()}
    return [Panel("the student's p of the target (the teacher's is 0.8)", "loss", found, top=3.0, bottom=0.0)]


def sequence() -> list[Panel]:
    """Five tags of two kinds, each right one ahead by x; and minimum risk over two sequences."""
    x = grid(-3, 5)
    emissions = torch.stack([x, torch.zeros_like(x)], 1).unsqueeze(1).expand(-1, 5, -1)
    tags, flat = torch.zeros(POINTS, 5, dtype=torch.int64), torch.zeros(2, 2, dtype=torch.float64)
    links = {
        "cross-entropy": lossfit.CrossEntropyLoss(),
        "focal, gamma 2": lossfit.FocalLoss(2.0),
        "expected accuracy": lossfit.ExpectedAccuracyLoss(),
    }
    crf = {
        name: line(x, lossfit.CRFLoss(link, reduction="none")(emissions, tags, flat)) for name, link in links.items()
    }
    log_prob = torch.stack([x, torch.zeros_like(x)], 1)
    cost = torch.tensor([0.0, 1.0], dtype=torch.float64).expand_as(log_prob)
    risk = {
        f"minimum risk, alpha {alpha}": line(x, lossfit.MinimumRiskLoss(alpha, reduction="none")(log_prob, cost))
        for alpha in (0.2, 1.0)
    }
    return [
        Panel("lead of each of five right tags", "CRF loss of the sequence", crf, top=5.0, bottom=0.0),
        Panel("log-probability of the better sequence, less the other's", "expected cost", risk, 1.0, 0.0),
    ]


def margins() -> list[Panel]:
    made: dict[str, lossfit.Margin | None] = {
        "no margin": None,
        "AdditiveMargin(0.35)": lossfit.AdditiveMargin(0.35),
        "ArcMargin(0.5)": lossfit.ArcMargin(0.5),
        "AngularMargin(2)": lossfit.AngularMargin(2.0),
        "CombinedMargin(1, 0.3, 0.2)": lossfit.CombinedMargin(1.0, 0.3, 0.2),
    }
    scores = {name: plot_margins.curve(margin) for name, margin in made.items()}
    ties = {name: plot_margins.boundary(margin) for name, margin in made.items()}
    return [
        Panel(
            "angle to the target's weight, degrees", "score", {n: (c["angle"], c["score"]) for n, c in scores.items()}
        ),
        Panel(
            "angle to the target's weight, degrees",
            "angle to the rival where they tie",
            {n: (c["target"], c["rival"]) for n, c in ties.items()},
        ),
    ]


def over_steps() -> list[Panel]:
    steps = range(0, 121, 2)
    made = {
        "Linear(0, 1, 80, warmup=20)": schedules.Linear(0.0, 1.0, 80, 20),
        "Cosine(0, 1, 80, warmup=20)": schedules.Cosine(0.0, 1.0, 80, 20),
        "Exponential(0.01, 1, 80, warmup=20)": schedules.Exponential(0.01, 1.0, 80, 20),
        "Piecewise([0, 0.5, 1], [40, 80])": schedules.Piecewise([0.0, 0.5, 1.0], [40, 80]),
    }
    found = {name: ([float(s) for s in steps], [made_(s) for s in steps]) for name, made_ in made.items()}
    return [Panel("step", "value", found, 1.0, 0.0)]


def _lines(x: Tensor, found: Mapping[str, Tensor]) -> dict[str, Line]:
    return {name: line(x, y) for name, y in found.items()}


FIGURES: dict[str, Callable[[], list[Panel]]] = {
    f.__name__: f
    for f in (
        *(likelihood, weighted, robust, margin_losses, exact, ladder, noises, integrand, multi_label, crowd, multi_way),
        *(ranking, metric, contrastive, distillation, sequence, margins, over_steps),
    )
}
