"""A callback for Lightning: schedules advance with the optimiser, and a monitor of the training is logged.

It needs an extra: ``pip install 'lossfit[lightning]'``.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lossfit.core.tunable import Tunable
from lossfit.monitor import Monitor

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError("lossfit.integrations.lightning needs an extra: pip install 'lossfit[lightning]'.") from error

_LOGGED = ("accuracy", "expected_error", "variance", "cross_entropy", "second_order", "excess", "bound")


class LossfitCallback(Callback):
    r"""Steps the schedules of a module's losses and margins, and logs what a :class:`lossfit.Monitor` finds.

    After every step of the optimiser, all losses and margins among the module's submodules move to step
    ``trainer.global_step``: with gradient accumulation that is once for several batches, and after resuming from a
    checkpoint they go on where they were.

    For the monitor, ``training_step`` returns a dictionary with the logits and the class indices besides the loss; a
    batch that it skips by returning None does not count. At
    the end of each epoch the sums of all ranks are added, and the numbers are logged as ``lossfit/accuracy``,
    ``lossfit/expected_error`` and so on; the monitor then starts anew, and keeps its last sums in ``last``.

    Args:
        monitor: None for none.
        input, target: the keys of the logits and of the class indices in what ``training_step`` returns.

    Attributes:
        last: the monitor of the last epoch, of all ranks; None before its end.

    Raises:
        TypeError: ``monitor`` is not a monitor.
        ValueError: ``training_step`` does not return what the monitor needs.

    Example:
        >>> from lightning.pytorch import Trainer  # doctest: +SKIP
        >>> trainer = Trainer(callbacks=[LossfitCallback(lossfit.Monitor())])  # doctest: +SKIP
    """

    def __init__(self, monitor: Monitor | None = None, *, input: str = "logits", target: str = "target") -> None:
        if monitor is not None and not isinstance(monitor, Monitor):
            raise TypeError(f"Expected `monitor` to be a lossfit.Monitor, but got {type(monitor).__name__}.")
        self.monitor = monitor
        self.input, self.target = input, target
        self.last: Monitor | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _step(pl_module, trainer.global_step)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.monitor is not None:
            self.monitor.reset()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        _step(pl_module, trainer.global_step)
        if self.monitor is not None and not _is_skipped(outputs):
            self.monitor.update(self._output(outputs, self.input), self._output(outputs, self.target))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.monitor is None:
            return
        # Sums, with one collective; a rank without a batch adds zeros.
        sums: Tensor = trainer.strategy.reduce(self.monitor.sums.to(pl_module.device), reduce_op="sum")
        self.last = Monitor(self.monitor.loss, bins=self.monitor.bins, ignore_index=self.monitor.ignore_index)
        self.last.sums = sums.cpu()
        found = self.last.summary()
        pl_module.log_dict({f"lossfit/{name}": found[name] for name in _LOGGED}, sync_dist=trainer.world_size > 1)

    @staticmethod
    def _output(outputs: Any, key: str) -> Tensor:
        if not isinstance(outputs, dict) or not isinstance(outputs.get(key), Tensor):
            found = f"the keys {sorted(outputs)}" if isinstance(outputs, dict) else type(outputs).__name__
            raise ValueError(
                f"Expected `training_step` to return a dictionary with the tensor {key!r}, but got {found}."
            )
        found_tensor: Tensor = outputs[key]
        return found_tensor.detach()


def _is_skipped(outputs: Any) -> bool:
    """Whether `training_step` returned None, of which Lightning may make a dictionary without a loss."""
    return outputs is None or (isinstance(outputs, dict) and outputs.get("loss") is None and set(outputs) <= {"loss"})


def _step(module: nn.Module, to: int) -> None:
    for part in module.modules():
        if isinstance(part, Tunable):
            part.step(to)
