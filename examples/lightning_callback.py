"""A loss with a schedule and a monitor in Lightning, by a callback.

    python examples/lightning_callback.py                  # some seconds on one core
    python examples/lightning_callback.py --processes 2    # the same by data parallelism

The callback moves the schedule with the optimiser, adds the monitors of all processes, and logs what they found.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import lossfit
from lossfit.integrations.lightning import LossfitCallback


class Digits(LightningModule):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
        self.loss = lossfit.GammaCrossEntropyLoss(gamma=lossfit.schedules.Linear(0.0, 1.0, steps=steps))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Any]:
        inputs, labels = batch
        logits = self.model(inputs)
        return {"loss": self.loss(logits, labels), "logits": logits, "target": labels}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=5e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--batch", type=int, default=128, help="rows of a batch of each process (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    seed_everything(0, verbose=False)
    x, y = (torch.from_numpy(part)[:1792] for part in load_digits(return_X_y=True))
    batches = DataLoader(TensorDataset(x.float() / 16, y), options.batch, shuffle=True)
    steps = options.epochs * (len(y) // (options.batch * options.processes))
    module, callback = Digits(steps), LossfitCallback(lossfit.Monitor())
    trainer = Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        devices=options.processes,
        strategy="ddp" if options.processes > 1 else "auto",
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, batches)
    if trainer.is_global_zero:
        print(f"gamma {module.loss.gamma:.3f}  rows {callback.last.summary()['rows']}")
        for name, value in sorted(trainer.callback_metrics.items()):
            print(f"{name} {value.item():.6f}")


if __name__ == "__main__":
    main()
