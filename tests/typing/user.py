"""What a user writes, under `mypy --strict`."""

import torch
from torch import Tensor

import lossfit


def train(model: torch.nn.Linear, inputs: Tensor, labels: Tensor) -> float:
    loss_function: torch.nn.Module = lossfit.GammaCrossEntropyLoss(gamma=0.1, label_smoothing=0.05)
    optimizer = torch.optim.AdamW(model.parameters())
    loss = lossfit.FocalLoss(gamma=2.0)(model(inputs), labels, sample_weight=torch.ones(len(labels)))
    fused: Tensor = lossfit.CrossEntropyLoss().linear(inputs, model.weight, labels, bias=model.bias)
    (loss + fused).backward()
    optimizer.step()
    return float(loss_function(model(inputs), labels))


def gaps(z: Tensor, labels: Tensor) -> Tensor:
    found: lossfit.Gap = lossfit.gap(z, labels)
    return found.log_odds


def own(link: float) -> lossfit.SingleLabelLoss:
    return lossfit.LinkLoss(lambda d: torch.nn.functional.softplus(link - d))


def on_scores(z: Tensor, labels: Tensor) -> Tensor:
    return lossfit.make("focal", gamma=2.0)(z, labels)


def by_metric(z: Tensor, labels: Tensor) -> Tensor:
    return lossfit.for_metric("macro_f1")(lossfit.calibration.TemperatureScaling()(z), labels)


head: torch.nn.Module = lossfit.CosineHead(128, 1000, scale=30.0, margin=lossfit.ArcMargin(0.5))
names: list[str] = lossfit.available_losses("single_label")
