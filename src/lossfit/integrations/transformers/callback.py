"""A callback for Trainer: schedules are at the step of the optimiser, also after resuming."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lossfit.core.tunable import Tunable


class LossfitCallback(TrainerCallback):
    """Steps the schedules of losses and margins with the optimiser.

    When training starts and after every step of the optimiser, losses and margins with schedules move to step
    ``state.global_step``: with gradient accumulation that is once for several batches, and after
    ``resume_from_checkpoint`` the first step already has the values of that step.

    Args:
        modules: the losses that the model does not hold, as those of :func:`compute_loss_func` and :func:`fuse`. Losses
            and margins among the model's submodules are stepped anyway.

    Raises:
        TypeError: one of them is no module.

    Example:
        >>> from lossfit.integrations.transformers import LossfitCallback, compute_loss_func
        >>> loss = lossfit.GammaCrossEntropyLoss(lossfit.schedules.Linear(0.0, 1.0, steps=100))
        >>> Trainer(  # doctest: +SKIP
        ...     model, args, compute_loss_func=compute_loss_func(loss, model, args), callbacks=[LossfitCallback(loss)]
        ... )
    """

    def __init__(self, *modules: nn.Module) -> None:
        for module in modules:
            if not isinstance(module, nn.Module):
                raise TypeError(f"Expected `modules` to be losses or margins, but got {type(module).__name__}.")
        self.modules = modules

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._step(state.global_step, kwargs.get("model"))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._step(state.global_step, kwargs.get("model"))

    def _step(self, to: int, model: nn.Module | None) -> None:
        for module in (*self.modules, *([] if model is None else [model])):
            for part in module.modules():
                if isinstance(part, Tunable):
                    part.step(to)
