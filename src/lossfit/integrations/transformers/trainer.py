"""A loss for Trainer's ``compute_loss_func``, on the scores that the model gives."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from lossfit.integrations.transformers import checks
from lossfit.losses.multi_label.zlpr import MultiLabelLoss
from lossfit.losses.sequence.tokens import TokenLoss
from lossfit.losses.single_label.base import SingleLabelLoss


class ComputeLoss(Protocol):
    """What Trainer calls."""

    def __call__(
        self, outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor: ...


def compute_loss_func(
    loss: SingleLabelLoss | TokenLoss | MultiLabelLoss,
    model: nn.Module | None = None,
    args: TrainingArguments | None = None,
    *,
    shift: int | None = None,
) -> ComputeLoss:
    r"""A function for the ``compute_loss_func`` of ``transformers.Trainer``: the loss of a model's scores.

    The sum of the losses is divided by ``num_items_in_batch``, as Trainer counts it over the batches of a step and over
    the processes, so that accumulated and parallel batches train like one. Without that number the loss is the mean
    over the batch. Labels of -100 do not count; where all are -100, the loss and its gradients are 0, which is warned
    of once. Trainer takes this loss in evaluation too. Schedules need :class:`LossfitCallback`.

    Args:
        loss: a single-label loss or a ``TokenLoss`` over tokens, with reduction "mean" and ignore_index -100. Class
            weights enter the sum, and not ``num_items_in_batch``. They move to the device of the scores. Or a
            multi-label loss, for a classifier with ``problem_type="multi_label_classification"`` and labels (N, L) of
            floating point; Trainer counts labels, so its rows are divided by ``num_items_in_batch / L``.
        model: the model to train, also wrapped by peft. It tells whether targets are those of the next position.
        args: the training arguments, to refuse a ``label_smoothing_factor``, which Trainer would leave out in silence.
        shift: in place of ``model``: 1 where targets are those of the next position, as for causal language models, 0
            where they are the position's own, as for sequence-to-sequence models and token classification.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came; also a ``label_smoothing_factor``
            beside this function, which says to smooth by the loss.

    Example:
        >>> from transformers import Trainer  # doctest: +SKIP
        >>> from lossfit.integrations.transformers import compute_loss_func
        >>> loss = lossfit.GammaCrossEntropyLoss(0.1)
        >>> Trainer(model, args, compute_loss_func=compute_loss_func(loss, model, args))  # doctest: +SKIP
        >>> compute_loss_func(loss, shift=0)({"logits": torch.zeros(2, 3)}, torch.tensor([0, -100]))
        tensor(1.0181)
    """
    checks.check_loss(loss, (SingleLabelLoss, TokenLoss, MultiLabelLoss))
    several = isinstance(loss, MultiLabelLoss)
    if args is not None and args.label_smoothing_factor:
        raise ValueError(
            f"Expected `args.label_smoothing_factor` of 0, since Trainer leaves it out beside a `compute_loss_func`, "
            f"but got {args.label_smoothing_factor}. Labels are smoothed by the loss: label_smoothing=..."
        )
    if model is not None:
        base = checks.base_of(model)
        checks.check_problem(base, several)
        shift = checks.shift_of(base) if shift is None and not several else shift
    if shift not in ((0, None) if several else (0, 1)):
        raise ValueError(f"Expected `shift` of 0 or 1, or a `model` that tells it, but got {shift!r}.")

    watch = checks.LabelWatch()

    def compute(outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        _check(logits, labels, several)
        assert labels is not None
        watch.look(labels)
        labels = labels.to(logits.device)
        if shift and logits.ndim == 3:  # the scores stay where they are
            labels = nn.functional.pad(labels[..., 1:], (0, 1), value=checks.IGNORED)
        items = denominator(num_items_in_batch, logits.device)
        here = checks.on_device(loss, logits.device)
        if several and items is not None:
            items = items / logits.shape[1]
        elif isinstance(here, SingleLabelLoss):
            logits, labels = logits.flatten(0, -2), labels.flatten()
        found: Tensor = here(logits, labels, denominator=items)
        return found

    return compute


def denominator(items: Tensor | int | None, device: torch.device) -> Tensor | int | None:
    """``num_items_in_batch`` as a number that can divide."""
    if isinstance(items, Tensor):
        return items.to(device).reshape(()).clamp(min=1) if items.numel() == 1 else items.to(device).clamp(min=1)
    return None if items is None else max(items, 1)


def _check(logits: Any, labels: Tensor | None, several: bool) -> None:
    if not isinstance(logits, Tensor):
        raise TypeError(f"Expected scores in the outputs as a tensor `logits`, but got {type(logits).__name__}.")
    if labels is None:
        raise ValueError("Expected `labels` in the batch, but got None.")
    if several:
        if logits.ndim != 2 or labels.shape != logits.shape or not labels.is_floating_point():
            raise ValueError(
                f"Expected `labels` of floating point with the shape of the scores, {tuple(logits.shape)}, but got "
                f"{labels.dtype} of shape {tuple(labels.shape)}."
            )
    elif logits.ndim < 2 or labels.shape != logits.shape[:-1] or labels.is_floating_point():
        raise ValueError(
            f"Expected `labels` of class indices of shape {tuple(logits.shape[:-1])} for scores of shape "
            f"{tuple(logits.shape)}, but got {labels.dtype} of shape {tuple(labels.shape)}."
        )
