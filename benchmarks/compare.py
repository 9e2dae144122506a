"""Trainings at once against the same trainings one at a time, and what a network on images takes.

    python benchmarks/compare.py [--repeats 3]

On yeast and tweets, networks with one hidden layer are trained by cross-entropy, 10 splits with 8 settings each: as
stacked weights; one at a time by the same loop; and one at a time as one writes it in PyTorch, with `nn.Sequential`,
`torch.optim.AdamW` and `nn.CrossEntropyLoss`, on the same batches and with the same checkpoints. Of the latter two, a
sample of trainings is timed. On one thread; wall time, and processor time, which other processes disturb less. The
ratios are those of the processor time against the faster way of training one at a time. On scikit-learn's digits, and
on these enlarged to 16 x 16 and 28 x 28 pixels, the time of the residual network.

Writes benchmarks/results/compare-cpu.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from lossfit.compare.candidates import candidates
from lossfit.compare.data import dataset, splits
from lossfit.compare.features import make
from lossfit.compare.scoring.metrics import accuracy
from lossfit.compare.training import models, train
from lossfit.compare.training.task import Limits, Recipe, SplitRows, Task

SPLITS, TRIALS, SAMPLE = 10, 8, 4

CHECKPOINTS = Limits().checkpoints


def task(name: str) -> Task:
    found = dataset.load(name)
    drawn = splits.draw(found, SPLITS, 0)
    matrices = make.make(found, drawn)
    network = models.choose("mlp", matrices[0][0].shape[1], len(found.classes))
    candidate = candidates.candidate("cross_entropy")
    settings = candidates.settings(candidate, TRIALS, 0)
    seeds = list(range(SPLITS))
    recipe = Recipe(candidate, settings, len(found.classes), network, "accuracy", limits=Limits().to_the_end)
    return Task(recipe, SplitRows(drawn, matrices, seeds, found.labels))


def plainly(whole: Task, s: int, t: int) -> float:
    """One training as one writes it; the test accuracy of its best checkpoint."""
    generator = torch.Generator().manual_seed(whole.rows.seeds[s])
    torch.manual_seed(whole.rows.seeds[s])
    model, own, split = whole.recipe.model.module(), whole.recipe.settings[t], whole.rows.splits[s]
    x, x_validation, x_test = (torch.from_numpy(matrix) for matrix in whole.rows.matrices[s])
    y, y_validation = (torch.from_numpy(split.seen[rows]) for rows in (split.train, split.validation))
    weights = [p for p in model.parameters() if p.ndim > 1]
    biases = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": weights, "weight_decay": own["weight_decay"]}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=own["learning_rate"])
    steps, loss_function = whole.recipe.limits.steps_for(len(x)), nn.CrossEntropyLoss()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    order, best, kept = train._batches([generator], len(x), whole.recipe.limits.batch), -1.0, {}
    for step in range(1, steps + 1):
        at = next(order)[0]
        optimizer.zero_grad()
        loss_function(model(x[at]), y[at]).backward()
        optimizer.step()
        schedule.step()
        if step * CHECKPOINTS // steps > (step - 1) * CHECKPOINTS // steps:
            with torch.no_grad():
                value = float((model(x_validation).argmax(1) == y_validation).double().mean())
            if value > best:
                best, kept = value, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)
    with torch.no_grad():
        target = torch.from_numpy(whole.rows.labels[split.test])
        return float(accuracy(model(x_test)[None], target[None]))


def timed(run: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Medians of wall and processor seconds."""
    wall, processor = [], []
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        run()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    return {"wall": statistics.median(wall), "processor": statistics.median(processor)}


def each(found: dict[str, float], trainings: int) -> dict[str, float]:
    return {name: round(seconds / trainings, 5) for name, seconds in found.items()}


def batched(name: str, repeats: int) -> dict[str, Any]:
    whole = task(name)
    sample = [(s, t) for s in range(2) for t in range(0, TRIALS, 2 * TRIALS // SAMPLE)]
    ways = {
        "stacked": (lambda: train.train(whole), SPLITS * TRIALS),
        "same_loop": (
            lambda: [train.train(whole.part(range(s, s + 1), range(t, t + 1))) for s, t in sample],
            len(sample),
        ),
        "plain": (lambda: [plainly(whole, s, t) for s, t in sample], len(sample)),
    }
    seconds = {way: each(timed(run, repeats), count) for way, (run, count) in ways.items()}
    records = train.train(whole)
    found = np.mean([records[s * TRIALS + t]["test_accuracy"] for s, t in sample])
    faster = {of: min(seconds[way][of] for way in ("same_loop", "plain")) for of in ("wall", "processor")}
    return {
        "data": name,
        "trainings": SPLITS * TRIALS,
        "network": whole.recipe.model.sentence,
        "seconds_per_training": seconds,
        "ratio": {of: round(faster[of] / seconds["stacked"][of], 2) for of in faster},
        "accuracy": {
            "stacked": round(float(found), 3),
            "plain": round(np.mean([plainly(whole, *p) for p in sample]), 3),
        },
    }


def images(size: int, repeats: int) -> dict[str, Any]:
    """One training of the residual network on digits of some size."""
    digits = load_digits()
    large = np.kron(digits.images, np.ones((1, -(-size // 8), -(-size // 8))))[:, :size, :size]
    x = (large.reshape(len(large), -1) / 8 - 1).astype(np.float32)
    whole = task("yeast")
    order = np.random.default_rng(0).permutation(len(x))
    parts = order[:1000], order[1000:1400], order[1400:]
    one = replace(
        whole.part(range(1), range(1)),
        settings=[{"learning_rate": 0.01, "weight_decay": 0.1}],
        splits=[splits.Split(*parts, seen=digits.target)],
        matrices=[(x[parts[0]], x[parts[1]], x[parts[2]])],
        labels=digits.target,
        classes=10,
        model=models.choose("cnn", size * size, 10, (1, size, size)),
    )
    accuracies = []
    found = timed(lambda: accuracies.append(train.train(one)[0]["test_accuracy"]), repeats)
    steps = whole.recipe.limits.steps_for(len(parts[0]))
    told = models.resolve("auto", one.model.image, steps)
    return {
        "pixels": [size, size],
        "network": one.model.sentence,
        "seconds_per_training": each(found, 1),
        "milliseconds_per_step": {of: round(1000 * seconds / steps, 2) for of, seconds in found.items()},
        "accuracy": round(accuracies[0], 3),
        "auto": told[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    before = os.getloadavg()[0]
    found = {"stacked": [batched(name, asked.repeats) for name in ("yeast", "tweets")]}
    print(json.dumps(found, indent=1), flush=True)
    found["images"] = [images(size, asked.repeats if size == 8 else 1) for size in (8, 16, 28)]
    record = {"torch": torch.__version__, "cores": os.cpu_count(), "load": [before, os.getloadavg()[0]], **found}
    out = Path(__file__).parent / "results" / "compare-cpu.json"
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
