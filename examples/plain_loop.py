"""A loss with a schedule and a monitor in a plain training loop.

    python examples/plain_loop.py    # some seconds on one core

The digits of scikit-learn, with gamma cross-entropy from cross-entropy (gamma 0) to expected accuracy (gamma 1).
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

import lossfit

EPOCHS, BATCH = 10, 128


def digits() -> tuple[TensorDataset, TensorDataset]:
    x, y = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    x = x.float() / 16
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    return tuple(TensorDataset(x[at], y[at]) for at in (order[:1400], order[1400:]))  # type: ignore[return-value]


def main() -> float:
    torch.manual_seed(0)
    train, test = digits()
    batches = DataLoader(train, BATCH, shuffle=True)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    gamma = lossfit.schedules.Linear(0.0, 1.0, steps=EPOCHS * len(batches))
    loss = lossfit.GammaCrossEntropyLoss(gamma=gamma)
    monitor = lossfit.Monitor(loss)
    for epoch in range(EPOCHS):
        monitor.reset()
        for x, y in batches:
            logits = model(x)
            optimizer.zero_grad()
            loss(logits, y).backward()
            optimizer.step()
            loss.step()
            monitor.update(logits, y)
        found = monitor.summary()
        print(f"epoch {epoch + 1:2}  gamma {loss.gamma:.1f}  accuracy {found['accuracy']:.1%}  ", end="")
        print(f"E[1 - p] {found['expected_error']:.3f}  E[-log p] {found['cross_entropy']:.3f}")
    with torch.no_grad():
        x, y = test.tensors
        accuracy = (model(x).argmax(1) == y).float().mean().item()
    print(f"test accuracy {accuracy:.1%}")
    return accuracy


if __name__ == "__main__":
    main()
