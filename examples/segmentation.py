"""Pixels as rows: scores (N, C, H, W) and targets (N, H, W), as torchvision's segmentation models give and take them.

    python examples/segmentation.py        # a table, in about two minutes on two cores

Scenes of 32 x 32 pixels with scikit-learn's digits in them, 7 to 9 a tenth as often as the others. A small network of
convolutions says of every pixel which digit it belongs to, or none. Each loss takes the place of nn.CrossEntropyLoss;
mean intersection over union is torchmetrics', over all classes and over the rare digits.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torchmetrics.classification import MulticlassJaccardIndex

import lossfit

SIDE, CLASSES, RARE = 32, 11, slice(8, 11)


def scenes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures (N, 1, 32, 32), and the class of every pixel: 0 for none, 1 + digit elsewhere; -100 at edges."""
    data = load_digits()
    glyphs, labels = torch.tensor(data.images, dtype=torch.float32) / 16, torch.tensor(data.target)
    generator = torch.Generator().manual_seed(seed)
    chance = torch.where(labels > 6, 0.1, 1.0)
    x = 0.15 * torch.rand(count, 1, SIDE, SIDE, generator=generator)
    y = torch.zeros(count, SIDE, SIDE, dtype=torch.int64)
    for scene in range(count):
        for _ in range(4):
            which = int(torch.multinomial(chance, 1, generator=generator))
            top, left = (int(v) for v in torch.randint(SIDE - 8, (2,), generator=generator))
            at = slice(top, top + 8), slice(left, left + 8)
            x[scene, 0][at] = torch.maximum(x[scene, 0][at], glyphs[which])
            ink = glyphs[which] > 0.4
            y[scene][at][ink] = 1 + labels[which]
            y[scene][at][(glyphs[which] > 0.2) & ~ink] = -100
    return x, y


def network() -> nn.Module:
    layers: list[nn.Module] = []
    for before, after, dilation in [(1, 32, 1), (32, 32, 1), (32, 32, 2), (32, 32, 4)]:
        layers += [nn.Conv2d(before, after, 3, padding=dilation, dilation=dilation), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(32, CLASSES, 1))


def losses(y: Tensor) -> dict[str, nn.Module]:
    """Each called with scores (N, C, H, W) and targets (N, H, W)."""
    counts = torch.bincount(y[y >= 0], minlength=CLASSES)
    return {
        "cross-entropy": lossfit.CrossEntropyLoss(),
        "class weights": lossfit.CrossEntropyLoss(weight=lossfit.inverse_frequency_weight(counts).sqrt()),
        "logit adjustment": lossfit.CrossEntropyLoss(class_prior=counts / counts.sum()),
        "focal, 2": lossfit.FocalLoss(gamma=2.0),
        "gamma, 0.5": lossfit.GammaCrossEntropyLoss(gamma=0.5),
    }


Scenes = tuple[Tensor, Tensor]


def overlaps(loss: nn.Module, train: Scenes, test: Scenes, steps: int, seed: int) -> Tensor:
    """Intersection over union of each class, in percent."""
    torch.manual_seed(seed)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(train[0]), (16,))
        optimizer.zero_grad()
        loss(model(train[0][rows]), train[1][rows]).backward()
        optimizer.step()
        schedule.step()
    model.eval()
    score = MulticlassJaccardIndex(CLASSES, average=None, ignore_index=-100)
    with torch.no_grad():
        found: Tensor = 100 * score(model(test[0]).argmax(1), test[1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=400, help="to train on (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each loss (default: %(default)s)")
    options = parser.parse_args()
    start = time.perf_counter()
    train, test = scenes(options.scenes, seed=0), scenes(200, seed=1)
    share = float((train[1] > 7).sum() / (train[1] >= 0).sum())
    print(f"{options.scenes} scenes, {share:.1%} of the pixels in the digits 7 to 9")
    print(f"mean IoU in %, {options.seeds} seeds")
    print(f"{'loss':18} {'all classes':>14} {'digits 7 to 9':>14}")
    for name, loss in losses(train[1]).items():
        found = [overlaps(loss, train, test, options.steps, seed) for seed in range(options.seeds)]
        cells = [statistics.fmean(float(f[part].mean()) for f in found) for part in (slice(None), RARE)]
        print(f"{name:18} {cells[0]:>14.1f} {cells[1]:>14.1f}", flush=True)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
