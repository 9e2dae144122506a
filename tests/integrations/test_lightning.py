"""The callback in real trainings of Lightning, on one process and on two."""

import importlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import lossfit

lightning = pytest.importorskip("lightning.pytorch")
from lossfit.integrations.lightning import LossfitCallback  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec", "ignore:.*num_workers", "ignore:.*lightning", "ignore::DeprecationWarning"
)
EXAMPLE = Path(__file__).parents[2] / "examples" / "lightning_callback.py"
RAMP = lossfit.schedules.Linear(0.0, 1.0, steps=20)


class Model(lightning.LightningModule):
    def __init__(self, plain: bool = False) -> None:
        super().__init__()
        self.head = lossfit.CosineHead(4, 3, 8.0, lossfit.AdditiveMargin(RAMP))
        self.loss = lossfit.FocalLoss(gamma=RAMP)
        self.plain = plain
        self.seen: list[tuple[Tensor, Tensor]] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> object:
        loss, logits = self.head.loss(*batch, self.loss), self.head(batch[0])
        self.seen.append((logits.detach(), batch[1]))
        return loss if self.plain else {"loss": loss, "logits": logits, "target": batch[1]}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def data() -> DataLoader:
    return DataLoader(TensorDataset(torch.randn(30, 4), torch.randint(3, (30,))), batch_size=6)


def trainer(*callbacks: object, **settings: object) -> object:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return lightning.Trainer(accelerator="cpu", callbacks=list(callbacks), **quiet, **settings)


@pytest.mark.parametrize(("accumulated", "steps"), [(1, 10), (2, 6)])
def test_schedules_advance_with_the_optimiser(accumulated: int, steps: int) -> None:
    model = Model()
    trainer(LossfitCallback(), max_epochs=2, accumulate_grad_batches=accumulated).fit(model, data())
    tunable = [part for part in model.modules() if isinstance(part, lossfit.Loss | lossfit.Margin)]
    assert len(tunable) == 2
    assert [part._step for part in tunable] == [steps, steps]


def test_schedules_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    model, again, first = Model(), Model(), trainer(LossfitCallback(), max_epochs=1)
    first.fit(model, data())
    first.save_checkpoint(tmp_path / "one.ckpt")
    second = trainer(LossfitCallback(), max_epochs=2)
    second.fit(again, data(), ckpt_path=tmp_path / "one.ckpt", weights_only=True)
    assert again.head.margin._step == 10


def test_the_monitor_sees_every_row_of_the_epoch() -> None:
    model, callback = Model(), LossfitCallback(lossfit.Monitor(bins=4))
    found = trainer(callback, max_epochs=2)
    found.fit(model, data())
    expected = lossfit.Monitor(bins=4)
    for logits, target in model.seen[5:]:
        expected.update(logits, target)
    torch.testing.assert_close(callback.last.sums, expected.sums)
    logged = {name: value.item() for name, value in found.callback_metrics.items()}
    summary = expected.summary()
    assert set(logged) > {"lossfit/accuracy", "lossfit/expected_error", "lossfit/cross_entropy"}
    assert logged == pytest.approx({name: summary[name.removeprefix("lossfit/")] for name in logged}, rel=1e-6)


def numbers(told: str) -> dict[str, float]:
    """What the example prints, each name with its number."""
    words = told[told.index("gamma") :].split()
    return {name: float(value) for name, value in zip(words[::2], words[1::2], strict=True)}


@pytest.mark.slow
def test_two_processes_are_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    two = subprocess.run(
        [sys.executable, str(EXAMPLE), "--epochs", "3", "--batch", "896", "--processes", "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert two.returncode == 0, two.stderr
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--epochs", "3", "--batch", "1792"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    one = numbers(capsys.readouterr().out)
    assert one["gamma"] == 1
    assert one["rows"] == 1792
    assert len(one) == 9
    assert numbers(two.stdout) == pytest.approx(one, abs=2e-5)


def test_what_it_refuses() -> None:
    with pytest.raises(TypeError, match=r"Expected `monitor` to be a lossfit\.Monitor, but got FocalLoss"):
        LossfitCallback(lossfit.FocalLoss())
    with pytest.raises(ValueError, match=r"a dictionary with the tensor 'logits', but got the keys \['loss'\]"):
        trainer(LossfitCallback(lossfit.Monitor()), max_epochs=1).fit(Model(plain=True), data())
    with pytest.raises(ValueError, match=r"with the tensor 'scores', but got the keys"):
        trainer(LossfitCallback(lossfit.Monitor(), input="scores"), max_epochs=1).fit(Model(), data())


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.delitem(sys.modules, "lossfit.integrations.lightning")
    with pytest.raises(ImportError, match=r"needs an extra: pip install 'lossfit\[lightning\]'"):
        importlib.import_module("lossfit.integrations.lightning")


class Skipping(Model):
    """Skips every second batch."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> object:
        return None if batch_idx % 2 else super().training_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:.training_step. returned .None.")
def test_batches_that_are_skipped_do_not_count() -> None:
    model, callback = Skipping(), LossfitCallback(lossfit.Monitor())
    training = trainer(callback, max_epochs=1)
    training.fit(model, data())
    expected = lossfit.Monitor()
    for logits, target in model.seen:
        expected.update(logits, target)
    assert expected.summary()["rows"] == 18
    torch.testing.assert_close(callback.last.sums, expected.sums)
    assert model.head.margin._step == training.global_step
