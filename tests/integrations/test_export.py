"""Losses through torch.export, heads and models through ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lossfit
from families import EXAMPLES
from helpers import build
from lossfit.core.keywords import constructor

onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*(onnx|opset|axis name).*"),
]


def batch(name: str) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    if lossfit.registry.get(name).family == "single_label":
        return torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, -100])
    return EXAMPLES[name]()


@pytest.mark.parametrize("name", lossfit.available_losses())
def test_every_loss_exports(name: str) -> None:
    loss, rows = build(name), batch(name)
    program = torch.export.export(loss, rows)
    assert torch.allclose(program.module()(*rows), loss(*rows))
    others = (rows[0] + 0.5 * torch.rand_like(rows[0]), *rows[1:]) if name != "minimum_risk" else rows
    assert torch.allclose(program.module()(*others), loss(*others))


def test_an_exported_loss_takes_any_number_of_rows() -> None:
    loss, (z, y) = lossfit.GammaCrossEntropyLoss(gamma=0.1), batch("gamma_cross_entropy")
    rows = torch.export.Dim("rows")
    program = torch.export.export(loss, (z, y), dynamic_shapes=({0: rows}, {0: rows}))
    more, classes = torch.randn(11, 4, dtype=torch.float64), torch.randint(4, (11,))
    assert torch.allclose(program.module()(more, classes), loss(more, classes))


def test_an_exported_loss_survives_a_file(tmp_path: Path) -> None:
    loss, rows = lossfit.FocalLoss(gamma=2.0), batch("focal")
    torch.export.save(torch.export.export(loss, rows), tmp_path / "loss.pt2")
    assert torch.allclose(torch.export.load(tmp_path / "loss.pt2").module()(*rows), loss(*rows))


def test_a_schedule_is_not_frozen_silently() -> None:
    loss = lossfit.GammaCrossEntropyLoss(gamma=lambda step: step / 100)
    loss.step(to=50)
    with pytest.raises(ValueError, match=r"`gamma` is a function of the step: .* gamma=0.5 at this step"):
        torch.export.export(loss, batch("gamma_cross_entropy"))
    with pytest.raises(Exception, match="`gamma` is a function of the step"):
        torch.onnx.export(loss.eval(), batch("gamma_cross_entropy"), dynamo=True, verbose=False)


@pytest.mark.parametrize("name", lossfit.available_losses())
def test_no_schedule_of_any_loss_is_frozen_silently(name: str) -> None:
    loss, rows = build(name), batch(name)
    accepted = {parameter.name for parameter in constructor(type(loss))}
    for hyper in accepted & {*loss._hypers}:
        value = getattr(loss, hyper)
        if not isinstance(value, float):
            continue
        needed = {} if name != "sensitivity" else {"sensitivity": torch.ones_like}
        scheduled = lossfit.make(name, **{hyper: lambda step, value=value: value}, **needed)
        with pytest.raises(ValueError, match=f"`{hyper}` is a function of the step"):
            torch.export.export(scheduled, rows)


class Training(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head, self.loss = head, lossfit.CrossEntropyLoss()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.head.loss(x, y, self.loss)


def test_a_schedule_of_a_margin_is_not_frozen_silently() -> None:
    rows = torch.randn(6, 8), torch.randint(5, (6,))
    for head in (lossfit.CosineHead, lossfit.LinearHead):
        torch.export.export(Training(head(8, 5, margin=lossfit.ArcMargin(0.2))), rows)
        with pytest.raises(ValueError, match="`m` is a function of the step"):
            torch.export.export(Training(head(8, 5, margin=lossfit.ArcMargin(lambda step: 0.2))), rows)


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_a_trained_head_runs_in_onnx(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = (
        lossfit.CosineHead(8, 5, scale=16.0, margin=lossfit.ArcMargin(0.2))
        if kind == "cosine"
        else lossfit.LinearHead(8, 5)
    )
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), head)
    x, y = torch.randn(64, 3), torch.randint(5, (64,))
    optimizer, loss = torch.optim.AdamW(model.parameters(), 1e-2), lossfit.CrossEntropyLoss()
    for _ in range(5):
        optimizer.zero_grad()
        head.loss(model[:2](x), y, loss).backward()
        optimizer.step()
    model.eval()
    path = tmp_path / "model.onnx"
    rows = torch.export.Dim("rows")
    torch.onnx.export(model, (x[:4],), path, dynamo=True, dynamic_shapes=({0: rows},), verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x[:11].numpy()})
    np.testing.assert_allclose(found, model(x[:11]).detach().numpy(), rtol=1e-4, atol=1e-5)
