"""Do two pictures show the same digit, when neither digit was trained on?

    python examples/verification.py                         # a table, in under a minute on one core
    python examples/verification.py --pictures pictures/    # and the angles and boundaries, as .svg

A small network learns the digits 0 to 4 of scikit-learn's 8 x 8 pictures with several heads. Then the heads are thrown
away, and the features alone tell the digits 5 to 9 apart. Verification accuracy: pairs of pictures count as the same
digit if the cosine of their features is above a threshold, chosen on the pairs of one half of the pictures and measured
on those of the other half, both ways; as many pairs of one digit as of two. Recall@k, by torchmetrics: how often one of
the k nearest other pictures shows the same digit. The last line has the pixels themselves as features.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torchmetrics.retrieval import RetrievalHitRate

import lossfit

FEATURES, TRAINED, STEPS, ROWS = 32, 5, 300, 128
SCALE = 16.0

HEADS: dict[str, Callable[[], lossfit.LinearHead | lossfit.CosineHead]] = {
    "softmax": lambda: lossfit.LinearHead(FEATURES, TRAINED),
    "NormFace": lambda: lossfit.CosineHead(FEATURES, TRAINED, SCALE),
    "AM-Softmax": lambda: lossfit.CosineHead(FEATURES, TRAINED, SCALE, lossfit.AdditiveMargin(0.35)),
    "ArcFace": lambda: lossfit.CosineHead(FEATURES, TRAINED, SCALE, lossfit.ArcMargin(0.5)),
    "SphereFace": lambda: lossfit.CosineHead(
        FEATURES,
        TRAINED,
        "norm",
        lossfit.AngularMargin(4.0, annealing=lambda step: max(5.0, 1000 / (1 + 0.12 * 10 * step))),
    ),
}


def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    return torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)


def train(name: str, x: Tensor, y: Tensor, seed: int) -> tuple[nn.Module, nn.Module]:
    """A network from pictures to features, and the head it was trained with."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, FEATURES))
    head = HEADS[name]()
    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], lr=1e-3, weight_decay=1e-2)
    for _ in range(STEPS):
        rows = torch.randint(len(x), (ROWS,))
        optimizer.zero_grad()
        head.loss(network(x[rows]), y[rows]).backward()
        optimizer.step()
        if head.margin is not None:
            head.margin.step()
    return network, head


def verification(features: Tensor, labels: Tensor) -> float:
    """The accuracy over balanced pairs, with the threshold from the other half of the pictures."""
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    halves = [pairs(features[rows], labels[rows]) for rows in order.chunk(2)]
    found = [accuracy(*test, threshold(*chosen)) for chosen, test in (halves, halves[::-1])]
    return statistics.fmean(found)


def pairs(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The cosines of all pairs of one digit, and of as many pairs of two."""
    unit = nn.functional.normalize(features)
    first, second = torch.triu_indices(len(labels), len(labels), 1)
    cosine, same = (unit @ unit.T)[first, second], labels[first] == labels[second]
    others = cosine[~same]
    drawn = torch.randperm(len(others), generator=torch.Generator().manual_seed(0))[: int(same.sum())]
    return cosine[same], others[drawn]


def threshold(same: Tensor, other: Tensor) -> float:
    """Where the accuracy over the pairs is largest."""
    cosine, order = torch.cat([same, other]).sort()
    is_same = order < len(same)
    right_below = (~is_same).cumsum(0) + is_same.sum() - is_same.cumsum(0)
    return cosine[right_below.argmax()].item()


def accuracy(same: Tensor, other: Tensor, at: float) -> float:
    return ((same > at).float().mean().item() + (other <= at).float().mean().item()) / 2


def recall(features: Tensor, labels: Tensor, k: int) -> float:
    """How often one of the k nearest other pictures shows the same digit."""
    cosine = nn.functional.normalize(features) @ nn.functional.normalize(features).T
    others = ~torch.eye(len(labels), dtype=torch.bool)
    queries = torch.arange(len(labels)).unsqueeze(1).expand_as(cosine)
    same = labels.unsqueeze(1) == labels
    return float(RetrievalHitRate(top_k=k)(cosine[others], same[others], indexes=queries[others]))


def pictures(x: Tensor, y: Tensor, folder: Path) -> None:
    """The angles on the digits trained on, and the margins' boundaries."""
    from lossfit import plot, plot_margins

    folder.mkdir(parents=True, exist_ok=True)
    trained = {name: train(name, x, y, seed=0) for name in HEADS if name != "softmax"}
    shown = {name: (head, network(x), y) for name, (network, head) in trained.items()}
    plot.write(plot_margins.angles_chart(shown), folder / "angles.svg")
    margins = {name: head.margin for name, (_, head) in trained.items()} | {"SphereFace": lossfit.AngularMargin(4.0)}
    plot.write(plot_margins.boundaries_chart(margins), folder / "boundaries.svg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each head (default: %(default)s)")
    parser.add_argument("--pictures", type=Path, help="a folder for pictures")
    options = parser.parse_args()
    start = time.perf_counter()
    x, y = digits()
    known = y < TRAINED
    print(f"{int(known.sum())} pictures of 0 to 4 to train on, {int((~known).sum())} of 5 to 9 to verify")
    print(f"{options.seeds} seeds: mean and standard deviation\n")
    print(f"{'head':12} {'verification':>16} {'recall@1':>16} {'recall@5':>16} {'accuracy on 0-4':>18}")
    for name in HEADS:
        found = []
        for seed in range(options.seeds):
            network, head = train(name, x[known], y[known], seed)
            with torch.no_grad():
                features, labels = network(x[~known]), y[~known]
                right = (head(network(x[known])).argmax(1) == y[known]).float().mean().item()
            found.append((verification(features, labels), *(recall(features, labels, k) for k in (1, 5)), right))
        cells = [f"{statistics.fmean(v):6.1%} ± {statistics.stdev(v):5.1%}" for v in zip(*found, strict=True)]
        print(f"{name:12} {cells[0]:>16} {cells[1]:>16} {cells[2]:>16} {cells[3]:>18}")
    plain = x[~known], y[~known]
    found = [verification(*plain), *(recall(*plain, k) for k in (1, 5))]
    print(f"{'pixels':12} {found[0]:>8.1%} {found[1]:>16.1%} {found[2]:>16.1%}")
    if options.pictures:
        pictures(x[known], y[known], options.pictures)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
