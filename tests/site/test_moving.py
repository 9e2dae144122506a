"""docs/moving.md: what is said to be equal is. Formulas are written out; a library that is installed is asked too."""

import math
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import lossfit

N, D, C = 12, 16, 7


@pytest.fixture
def rows() -> tuple[Tensor, Tensor, Tensor]:
    """Features, the weights of a head and classes."""
    return torch.randn(N, D).double(), torch.randn(C, D).double(), torch.randint(C, (N,))


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-10) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance * max(1.0, theirs.abs().max().item())


def cosine_loss(margin: lossfit.Margin | None, scale: float | str, x: Tensor, w: Tensor, y: Tensor) -> Tensor:
    head = lossfit.CosineHead(D, C, scale, margin).double()  # type: ignore[arg-type]
    head.weight.data.copy_(w)
    return head.loss(x, y)


def by_hand(change: object, scale: Tensor | float, x: Tensor, w: Tensor, y: Tensor) -> Tensor:
    cosine = F.normalize(x) @ F.normalize(w).T
    scores = cosine.clone()
    for i, label in enumerate(y.tolist()):
        scores[i, label] = change(cosine[i, label].item())  # type: ignore[operator]
    return F.cross_entropy(scores * scale, y)


def pml_arc(cosine: float, m: float) -> float:
    angle = math.acos(cosine)
    return math.cos(angle + m) if angle + m <= math.pi else cosine - m * math.sin(m)


def pml_sphere(cosine: float, m: int) -> float:
    angle = math.acos(cosine)
    k = int(m * angle / math.pi)
    return (-1) ** k * math.cos(m * angle) - 2 * k


def test_pytorch(rows: tuple[Tensor, Tensor, Tensor]) -> None:
    x, w, y = rows
    z, labels, v = x @ w.T, torch.randint(2, (N, C)).double(), torch.rand(C).double()
    given = {"weight": v, "ignore_index": 2, "label_smoothing": 0.2}
    close(lossfit.CrossEntropyLoss(**given)(z, y), torch.nn.CrossEntropyLoss(**given)(z, y))
    close(lossfit.BCELoss(pos_weight=v)(z, labels), torch.nn.BCEWithLogitsLoss(pos_weight=v)(z, labels))
    close(lossfit.SumHingeLoss(1.5)(z, y) / C, torch.nn.MultiMarginLoss(margin=1.5)(z, y))


@pytest.mark.parametrize("m", [0.5, 2.9])  # the second one is past pi for most rows
def test_arc_margin(rows: tuple[Tensor, Tensor, Tensor], m: float) -> None:
    close(cosine_loss(lossfit.ArcMargin(m, beyond="pml"), 64.0, *rows), by_hand(lambda c: pml_arc(c, m), 64.0, *rows))


def test_other_margins(rows: tuple[Tensor, Tensor, Tensor]) -> None:
    lengths = rows[0].norm(dim=1, keepdim=True)
    close(cosine_loss(lossfit.AdditiveMargin(0.35), 64.0, *rows), by_hand(lambda c: c - 0.35, 64.0, *rows))
    close(cosine_loss(lossfit.AngularMargin(4.0), "norm", *rows), by_hand(lambda c: pml_sphere(c, 4), lengths, *rows))


@pytest.mark.skipif(not find_spec("pytorch_metric_learning"), reason="needs pytorch-metric-learning")
def test_pytorch_metric_learning_itself(rows: tuple[Tensor, Tensor, Tensor]) -> None:
    from pytorch_metric_learning import losses

    x, w, y = (rows[0].float(), rows[1].float(), rows[2])
    pairs = [
        (losses.ArcFaceLoss(C, D, margin=28.6, scale=64), lossfit.ArcMargin(math.radians(28.6), beyond="pml"), 64.0),
        (losses.CosFaceLoss(C, D, margin=0.35, scale=64), lossfit.AdditiveMargin(0.35), 64.0),
        (losses.SphereFaceLoss(C, D, margin=4, scale=1), lossfit.AngularMargin(4.0), "norm"),
    ]
    for theirs, margin, scale in pairs:
        theirs.W.data.copy_(w.T)
        head = lossfit.CosineHead(D, C, scale, margin)  # type: ignore[arg-type]
        head.weight.data.copy_(w)
        close(head.loss(x, y), theirs(x, y), 1e-4)
    close(lossfit.SupConLoss(temperature=0.1)(x, y), losses.SupConLoss(temperature=0.1)(x, y), 1e-4)
    found = losses.NTXentLoss(temperature=0.1)(torch.cat([x, 2 * x + w[:1]]), torch.arange(N).repeat(2))
    close(lossfit.NTXentLoss(temperature=0.1)(x, 2 * x + w[:1]), found, 1e-4)


def test_contrastive(rows: tuple[Tensor, Tensor, Tensor]) -> None:
    x, w, y = rows
    both = F.normalize(torch.cat([x, x + w[:1]]))
    s = (both @ both.T / 0.1).fill_diagonal_(-math.inf)
    partner = torch.cat([torch.arange(N, 2 * N), torch.arange(N)])
    close(lossfit.NTXentLoss(temperature=0.1)(x, x + w[:1]), F.cross_entropy(s, partner))
    log_p = (F.normalize(x) @ F.normalize(x).T / 0.1).fill_diagonal_(-math.inf).log_softmax(1)
    found = []
    for i in range(N):
        positives = [j for j in range(N) if j != i and y[j] == y[i]]
        if positives:
            found.append(-torch.stack([log_p[i, j] for j in positives]).mean())
    close(lossfit.SupConLoss(temperature=0.1)(x, y), torch.stack(found).mean())


def test_liger(rows: tuple[Tensor, Tensor, Tensor]) -> None:
    x, w, y = rows
    z = 3 * torch.tanh(x @ w.T / 3)
    expected = F.cross_entropy(z, y) + 1e-2 * z.logsumexp(1).square().mean()
    close(lossfit.CrossEntropyLoss().linear(x, w, y, softcap=3.0, z_loss=1e-2), expected)
    w.requires_grad_()
    nats = F.cross_entropy(x @ w.T, y, reduction="none")
    scaled = (nats.neg().exp().detach() * nats).mean()
    ours = lossfit.GammaCrossEntropyLoss(gamma=1.0, floor=1e-30).linear(x, w, y)
    close(ours, scaled)
    (expected,) = torch.autograd.grad(scaled, w)
    close(torch.autograd.grad(ours, w)[0], expected)
    close(torch.autograd.grad(lossfit.GammaCrossEntropyLoss(gamma=1.0).linear(x, w, y), w)[0], expected)


def test_cut_cross_entropy() -> None:
    x, w, y = torch.randn(2, 6, D).double(), torch.randn(C, D).double(), torch.randint(C, (2, 6))
    z = 30 * torch.tanh(x @ w.T / 30)
    expected = F.cross_entropy(z[:, :-1].flatten(0, 1), y[:, 1:].flatten())
    close(lossfit.CrossEntropyLoss().linear(x, w, y, shift=1, softcap=30.0), expected)


@pytest.mark.parametrize("alpha", [0.25, None])
def test_torchvision_focal(alpha: float | None) -> None:
    z, t = torch.randn(N, C).double(), torch.randint(2, (N, C)).double()
    p = torch.sigmoid(z)
    nats = F.binary_cross_entropy_with_logits(z, t, reduction="none")
    each = nats * (1 - (p * t + (1 - p) * (1 - t))) ** 2
    if alpha is not None:
        each = each * (alpha * t + (1 - alpha) * (1 - t))
    close(lossfit.FocalBCELoss(2.0, alpha)(z, t), each.mean())
    close(lossfit.FocalBCELoss(2.0, alpha, reduction="sum")(z, t) * C, each.sum())


def test_softmax_focal(rows: tuple[Tensor, Tensor, Tensor]) -> None:
    x, w, y = rows
    alpha = torch.rand(C).double()
    log_p = (x @ w.T).log_softmax(1).gather(1, y.unsqueeze(1)).squeeze(1)
    expected = -alpha[y] * (1 - log_p.exp()) ** 2 * log_p
    close(lossfit.FocalLoss(2.0, weight=alpha, reduction="none")(x @ w.T, y), expected)


def test_bert4keras() -> None:
    scores, labels = torch.randn(4, C).double(), torch.randint(2, (4, C)).double()
    zero = torch.zeros(4, 1).double()
    wrong = torch.cat([scores - labels * 1e12, zero], 1).logsumexp(1)
    right = torch.cat([-scores - (1 - labels) * 1e12, zero], 1).logsumexp(1)
    close(lossfit.ZLPRLoss(reduction="none")(scores, labels), wrong + right)
    lists = torch.tensor([[0, 3], [2, -100], [5, 1], [4, -100]])
    sparse = torch.zeros(4, C).double()
    for row, classes in enumerate(lists.tolist()):
        for c in classes:
            if c >= 0:
                sparse[row, c] = 1
    loss = lossfit.ZLPRLoss(reduction="none")
    close(loss(scores, lists), loss(scores, sparse))


def test_smoothing_over_the_other_classes(rows: tuple[Tensor, Tensor, Tensor]) -> None:
    x, w, y = rows
    eps = 0.2
    q = torch.full((N, C), eps / (C - 1), dtype=torch.float64).scatter(1, y.unsqueeze(1), 1 - eps)
    expected = -(q * (x @ w.T).log_softmax(1)).sum(1).mean()
    close(lossfit.CrossEntropyLoss(label_smoothing=eps * C / (C - 1))(x @ w.T, y), expected)


def test_insightface(rows: tuple[Tensor, Tensor, Tensor]) -> None:
    expected = by_hand(lambda c: math.cos(math.acos(c) + 0.5), 64.0, *rows)
    close(cosine_loss(lossfit.ArcMargin(0.5, beyond="insightface"), 64.0, *rows), expected)
