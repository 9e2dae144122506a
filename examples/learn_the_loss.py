"""Learn the loss while training: gamma, or the coefficients of a polynomial, by hyper-gradients.

The bundled tweets, with 40% of the training labels replaced by another class. A linear model on sentence vectors is
trained by gradient descent with cross-entropy; with gamma cross-entropy, gamma learnt; and with a polynomial, two
coefficients learnt. The learnt losses start as cross-entropy. Hyper-gradients use one half of the validation rows,
whose labels are not flipped; the validation accuracy is that of the other half. As a fourth, cross-entropy with the
first half among its training rows: what clean rows are worth without learning a loss.

All start from the same weights, take as many steps, report the weights of the last one, and have the same learning
rate and weight decay: of 0, 0.03, 0.1, 0.3 and 1, the one at which cross-entropy has the best validation accuracy with
seed 0.

It printed 62.5% test accuracy for cross-entropy, 66.8% with the clean rows added, 68.4% with gamma learnt and 68.3%
with the polynomial learnt, means of 3 seeds. Against cross-entropy all seeds agree; against the clean rows added, 3
seeds are too few to tell.

    pip install '.[compare]'
    python examples/learn_the_loss.py    # under a minute on one core
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

import lossfit
from lossfit.compare.data import dataset, folds
from lossfit.compare.features import make
from lossfit.meta import HyperGradient

SEEDS = 3
STEPS = 1500
BATCH = 128
RATE = 0.05
WEIGHT_DECAY = 0.3
HYPER_RATE = 0.01

Rows = tuple[Tensor, Tensor]


def load(seed: int) -> dict[str, Rows]:
    """Training rows, those to learn the loss on, to validate on and to test on."""
    tweets = dataset.load("tweets")
    drawn = folds.draw(tweets, 5, 1, seed, label_noise=0.4)
    pair, repeat = drawn.pairs[0], drawn.repeats[0]
    rows = make.Parts(drawn.train(0, pair), *drawn.held_out(0, pair))
    train, validation, test = (torch.from_numpy(m) for m in make.make(tweets, [rows])[0])
    half = len(validation) // 2
    labels = torch.from_numpy(repeat.chosen[rows.held_out])
    return {
        "train": (train, torch.from_numpy(repeat.trained[rows.train])),
        "learn": (validation[:half], labels[:half]),
        "validation": (validation[half:], labels[half:]),
        "test": (test, torch.from_numpy(tweets.labels[rows.test])),
    }


def zero() -> nn.Parameter:
    return nn.Parameter(torch.tensor(0.0))


LOSSES: dict[str, Callable[[], lossfit.Loss]] = {
    "cross-entropy": lossfit.CrossEntropyLoss,
    "cross-entropy, clean rows added": lossfit.CrossEntropyLoss,
    "gamma learnt": lambda: lossfit.GammaCrossEntropyLoss(gamma=zero()),
    "poly learnt": lambda: lossfit.PolyLoss([zero(), zero()]),
}


def train(name: str, rows: dict[str, Rows], seed: int) -> tuple[nn.Module, lossfit.Loss]:
    torch.manual_seed(seed)
    x, y = rows["train"]
    if name.endswith("added"):
        x, y = torch.cat([x, rows["learn"][0]]), torch.cat([y, rows["learn"][1]])
    model, loss = nn.Linear(x.shape[1], 3), LOSSES[name]()
    optimizer = torch.optim.SGD(model.parameters(), RATE, weight_decay=WEIGHT_DECAY)
    learner = None
    if any(p.requires_grad for p in loss.parameters()):
        learner = HyperGradient(model, loss, RATE, torch.optim.Adam(loss.parameters(), HYPER_RATE))
    for _ in range(STEPS):
        at = torch.randint(len(x), (BATCH,))
        if learner is not None:
            learner.step((x[at], y[at]), rows["learn"])
        optimizer.zero_grad()
        loss(model(x[at]), y[at]).backward()
        optimizer.step()
    return model, loss


def accuracy(model: nn.Module, rows: Rows) -> float:
    return (model(rows[0]).argmax(1) == rows[1]).double().mean().item()


def main() -> None:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in LOSSES}
    for seed in range(SEEDS):
        rows = load(seed)
        for name in LOSSES:
            model, loss = train(name, rows, seed)
            found[name].append((accuracy(model, rows["validation"]), accuracy(model, rows["test"])))
            learnt = ", ".join(f"{key} = {value.item():.2f}" for key, value in loss.named_parameters())
            print(f"seed {seed}  {name:32}{found[name][-1][0]:8.1%}{found[name][-1][1]:8.1%}  {learnt}")
    print(f"\nMean of {SEEDS} seeds{'':19}{'valid.':>8}{'test':>8}  test, less cross-entropy's, by seed")
    plain = np.array(found["cross-entropy"])[:, 1]
    for name, pairs in found.items():
        validation, test = np.array(pairs).T
        gains = "  ".join(f"{gain:+.1%}" for gain in test - plain)
        print(f"{name:34}{validation.mean():8.1%}{test.mean():8.1%}  {gains}")


if __name__ == "__main__":
    main()
