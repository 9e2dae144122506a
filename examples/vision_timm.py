"""A timm model on mislabelled pictures: one line changes.

    make vision                                       # installs timm beside the environment, in .timm, and runs this
    python examples/vision_timm.py --timm .timm --model resnet10t --noise 0.4

scikit-learn's digits, scaled up to 32 x 32 pixels; 40% of the training labels are another digit's. A timm model learns
them with each loss, from the same weights and batches, and is tested on clean labels.

timm needs torchvision, and the registry's torchvision, built for CUDA, does not load beside the CPU build of torch: two
compiled operators are missing, and everything that imports torchvision breaks. So both live in a folder of their own,
and this script declares the two operators before anything looks for them. With torch and torchvision of one build,
`pip install timm` and `import timm` are enough, and --timm is not needed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import lossfit

LOSSES = {
    "cross-entropy": lossfit.CrossEntropyLoss(),
    "gamma, 0.1": lossfit.GammaCrossEntropyLoss(gamma=0.1),
    "expected accuracy": lossfit.ExpectedAccuracyLoss(),
}


def use_folder(folder: Path) -> None:
    """Import from ``folder``, whose torchvision has no compiled operators."""
    sys.path.insert(0, str(folder))
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    use_folder.library = library  # type: ignore[attr-defined]  # it declares them as long as it lives


def digits(noise: float, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pictures (N, 1, 32, 32) and labels, to train and to test on."""
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    x = nn.functional.interpolate(x, scale_factor=4, mode="bilinear")
    y = torch.tensor(data.target)
    train, test = train_test_split(torch.arange(len(y)), test_size=0.5, stratify=y, random_state=seed)
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(train), generator=generator) < noise
    shift = torch.randint(1, 10, (len(train),), generator=generator)
    seen = torch.where(wrong, (y[train] + shift) % 10, y[train])
    return x[train], seen, x[test], y[test]


def accuracy(name: str, loss: nn.Module, noise: float, steps: int, seed: int) -> float:
    import timm

    x, y, x_test, y_test = digits(noise, seed)
    torch.manual_seed(seed)
    model = timm.create_model(name, in_chans=1, num_classes=10)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        loss(model(x[rows]), y[rows]).backward()  # the line where nn.CrossEntropyLoss() stood
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        hits = model(x_test).argmax(1) == y_test
    return 100 * float(hits.float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timm", type=Path, help="a folder with timm and torchvision")
    parser.add_argument("--model", default="resnet10t", help="(default: %(default)s)")
    parser.add_argument("--noise", type=float, default=0.4, help="share of wrong labels (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=150, help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each loss (default: %(default)s)")
    options = parser.parse_args()
    if options.timm is not None:
        if not (options.timm / "timm").is_dir():
            parser.error(f"Expected --timm to be a folder with timm in it, but got {str(options.timm)!r}.")
        use_folder(options.timm)
    start = time.perf_counter()
    print(f"{options.model}, {options.noise:.0%} of the labels wrong, {options.seeds} seeds: accuracy, %")
    for name, loss in LOSSES.items():
        found = [accuracy(options.model, loss, options.noise, options.steps, seed) for seed in range(options.seeds)]
        print(f"{name:20} {statistics.fmean(found):5.1f}  {[round(f, 1) for f in found]}", flush=True)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
