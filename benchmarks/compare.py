"""Trainings at once against the same trainings one at a time, and what a network on images takes.

    python benchmarks/compare.py [--repeats 3]

On yeast and tweets, networks with one hidden layer are trained by cross-entropy, on a repeat of five folds in pairs, 10
trainings with 8 settings each: as stacked weights; one at a time by the same loop; and one at a time as one writes it
in PyTorch, with `nn.Sequential`, `torch.optim.AdamW` and `nn.CrossEntropyLoss`, on the same batches and with the same
checkpoints. Of the latter two, a sample of trainings is timed. On one thread; wall time, and processor time, which
other processes disturb less. The ratios are those of the processor time against the faster way of training one at a
time. On scikit-learn's digits, and on these enlarged to 16 x 16 and 28 x 28 pixels, the time of the residual network.

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
from lossfit.compare.data import dataset
from lossfit.compare.data.folds import FOLDS, draw
from lossfit.compare.features import make
from lossfit.compare.running.engine import fold_rows
from lossfit.compare.scoring.metrics import accuracy
from lossfit.compare.training import models, train
from lossfit.compare.training.block import _batches
from lossfit.compare.training.task import FoldRows, Limits, Recipe, Task

TRIALS, SAMPLE = 8, 4

CHECKPOINTS = Limits().checkpoints


def task(name: str) -> Task:
    found = dataset.load(name)
    rows = fold_rows(found, draw(found, FOLDS, 1), 0, 0, make.reader(found)[0])
    network = models.choose("mlp", rows.matrices[0][0].shape[1], len(found.classes))
    candidate = candidates.candidate("cross_entropy")
    settings = candidates.settings(candidate, TRIALS, 0)
    limits = Limits().to_the_end
    return Task(Recipe(candidate, settings, len(found.classes), network, ("accuracy",), limits=limits), rows)


def one_by_one(whole: Task, sample: list[tuple[int, int]]) -> None:
    """Each training of the sample by the same loop, on all rows that it trains on."""
    recipe, rows = whole
    for m, t in sample:
        own, steps = replace(recipe, settings=[recipe.settings[t]]), recipe.limits.steps_for(len(rows.train[m]))
        labels = rows.trained[rows.train[m]]
        train.train_whole(own, rows.matrices[m][0], labels, None, rows.seeds[m], (steps, steps))


def plainly(whole: Task, m: int, t: int) -> float:
    """One training as one writes it; the accuracy of its best checkpoint on one of the folds that it leaves out."""
    recipe, rows = whole
    generator = torch.Generator().manual_seed(rows.seeds[m])
    torch.manual_seed(rows.seeds[m])
    model, own = recipe.model.module(), recipe.settings[t]
    x, held_out = (torch.from_numpy(matrix) for matrix in rows.matrices[m][:2])
    y = torch.from_numpy(rows.trained[rows.train[m]])
    first = len(rows.held_out[m][0])
    x_validation, x_test = held_out[:first], held_out[first:]
    y_validation, target = (torch.from_numpy(rows.labels[part]) for part in rows.held_out[m])
    weights = [p for p in model.parameters() if p.ndim > 1]
    biases = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": weights, "weight_decay": own["weight_decay"]}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=own["learning_rate"])
    steps, loss_function = recipe.limits.steps_for(len(x)), nn.CrossEntropyLoss()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    order, best, kept = _batches(generator, len(x), recipe.limits.batch), -1.0, {}
    for step in range(1, steps + 1):
        at = next(order)
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
    count = len(whole.rows.pairs) * TRIALS
    sample = [(m, t) for m in range(2) for t in range(0, TRIALS, 2 * TRIALS // SAMPLE)]
    ways: dict[str, tuple[Callable[[], Any], int]] = {
        "stacked": (lambda: train.train(whole), count),
        "same_loop": (lambda: one_by_one(whole, sample), len(sample)),
        "plain": (lambda: [plainly(whole, m, t) for m, t in sample], len(sample)),
    }
    seconds = {way: each(timed(run, repeats), trainings) for way, (run, trainings) in ways.items()}
    passes = train.train(whole)["accuracy"].passes
    faster = {of: min(seconds[way][of] for way in ("same_loop", "plain")) for of in ("wall", "processor")}
    return {
        "data": name,
        "trainings": count,
        "network": whole.recipe.model.sentence,
        "seconds_per_training": seconds,
        "ratio": {of: round(faster[of] / seconds["stacked"][of], 2) for of in faster},
        "accuracy": {
            "stacked, the best setting": round(float(np.mean([one["test_accuracy"] for one in passes])), 3),
            "plain, the sample": round(float(np.mean([plainly(whole, *p) for p in sample])), 3),
        },
    }


def images(size: int, repeats: int) -> dict[str, Any]:
    """One training of the residual network on digits of some size, tested on the last 397 of them."""
    digits = load_digits()
    large = np.kron(digits.images, np.ones((1, -(-size // 8), -(-size // 8))))[:, :size, :size]
    x = (large.reshape(len(large), -1) / 8 - 1).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    parts = order[:1000], (order[1000:1200], order[1200:1400]), order[1400:]
    rows = FoldRows(
        0, 2, [(0, 1)], [parts[0]], [parts[1]], [(x[parts[0]], x[np.concatenate(parts[1])], x[parts[2]])], [0],
        digits.target, digits.target, digits.target, np.sort(order[:1400]), parts[2],
    )  # fmt: skip
    network = models.choose("cnn", size * size, 10, (1, size, size))
    setting = {"learning_rate": 0.01, "weight_decay": 0.1}
    limits = Limits().to_the_end
    candidate = candidates.candidate("cross_entropy")
    one = Task(Recipe(candidate, [setting], 10, network, ("accuracy",), limits=limits), rows)
    accuracies: list[float] = []

    def run() -> None:
        (found,) = train.train(one)["accuracy"].passes
        accuracies.append(found["test_accuracy"])

    found = timed(run, repeats)
    steps = limits.steps_for(len(parts[0]))
    return {
        "pixels": [size, size],
        "network": network.sentence,
        "seconds_per_training": each(found, 1),
        "milliseconds_per_step": {of: round(1000 * seconds / steps, 2) for of, seconds in found.items()},
        "accuracy": round(accuracies[0], 3),
        "auto": models.resolve("auto", network.image, steps)[0],
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
