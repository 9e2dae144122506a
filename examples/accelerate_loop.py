"""A loss with a schedule and a monitor in a loop with Accelerate, on one process or several.

    python examples/accelerate_loop.py
    torchrun --nproc-per-node 2 examples/accelerate_loop.py

The monitors of all processes are merged by adding their sums. Accelerate repeats rows where the last batches are not
full on all processes, and they are counted again.
"""

from __future__ import annotations

import math

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

import lossfit

EPOCHS, BATCH = 10, 64


def main() -> dict[str, float]:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    torch.manual_seed(0)
    x, y = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    batches = DataLoader(TensorDataset(x.float() / 16, y), BATCH, shuffle=True)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model, optimizer, batches = accelerator.prepare(model, optimizer, batches)
    steps = EPOCHS * math.ceil(len(batches) / accelerator.gradient_accumulation_steps)
    loss = lossfit.GammaCrossEntropyLoss(gamma=lossfit.schedules.Linear(0.0, 1.0, steps=steps))
    monitor = lossfit.Monitor(loss)
    for epoch in range(EPOCHS):
        monitor.reset()
        for inputs, labels in batches:
            with accelerator.accumulate(model):
                logits = model(inputs)
                accelerator.backward(loss(logits, labels))
                optimizer.step()
                optimizer.zero_grad()
                if accelerator.sync_gradients:
                    loss.step()
            monitor.update(logits, labels)
        monitor.sums = accelerator.reduce(monitor.sums, reduction="sum")
        found = monitor.summary()
        accelerator.print(
            f"epoch {epoch + 1:2}  rows {found['rows']}  gamma {loss.gamma:.2f}  accuracy {found['accuracy']:.1%}"
        )
    return {"rows": found["rows"], "accuracy": found["accuracy"], "gamma": loss.gamma}


if __name__ == "__main__":
    main()
