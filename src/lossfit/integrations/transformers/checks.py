"""What is asked of losses and models before training starts."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lossfit.losses.base import Loss
from lossfit.losses.sequence.tokens import TokenLoss
from lossfit.losses.single_label.base import SingleLabelLoss

IGNORED = -100
"""The target that Trainer and the models leave out."""

_LOOKS = 10

AnyLoss = TypeVar("AnyLoss", bound=nn.Module)


def check_loss(loss: nn.Module, kinds: tuple[type[Loss], ...] = (SingleLabelLoss, TokenLoss)) -> None:
    """Raise unless the loss counts as Trainer counts."""
    if not isinstance(loss, kinds):
        named = " or ".join(f"a {kind.__name__}" for kind in kinds)
        raise TypeError(f"Expected `loss` to be {named}, but got {type(loss).__name__}.")
    if loss.reduction != "mean":
        raise ValueError(f"Expected `loss` with reduction='mean', but got {loss.reduction!r}.")
    if isinstance(loss, TokenLoss) and loss.normalise != "token":
        raise ValueError(
            f"Expected `loss` with normalise='token', since Trainer counts the tokens of a step and not its "
            f"sequences, but got {loss.normalise!r}."
        )
    inner = of_rows(loss) if isinstance(loss, SingleLabelLoss | TokenLoss) else loss
    if inner.ignore_index != IGNORED:
        raise ValueError(
            f"Expected `loss` with ignore_index={IGNORED}, which Trainer counts by, but got {inner.ignore_index}."
        )


def of_rows(loss: SingleLabelLoss | TokenLoss) -> SingleLabelLoss:
    """The loss of rows, whatever they are rows of, with their mean."""
    if not isinstance(loss, TokenLoss):
        return loss
    inner = copy.copy(loss.loss)
    inner.reduction = "mean"
    return inner


def base_of(model: nn.Module) -> PreTrainedModel:
    """The model, without what peft puts around it."""
    unwrap: Callable[[], nn.Module] | None = getattr(model, "get_base_model", None)
    base = model if unwrap is None else unwrap()
    if not isinstance(base, PreTrainedModel):
        raise TypeError(f"Expected `model` to be a model of transformers, but got {type(base).__name__}.")
    return base


def shift_of(model: PreTrainedModel) -> int:
    """1 where a position's target is that of the next one, as Trainer tells; 0 where it is its own."""
    name, kind = type(model).__name__, getattr(model, "loss_type", None)
    if getattr(model.config, "is_encoder_decoder", False):
        return 0
    if kind is None and name not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        raise ValueError(
            f"Expected `shift`, 1 for a causal language model or 0: what {name}'s labels stand for is not known."
        )
    return int(kind is None or LOSS_MAPPING.get(kind) is ForCausalLMLoss)


def check_problem(model: PreTrainedModel, several: bool = False) -> None:
    """Raise unless labels are one of several classes, or any number of them."""
    problem = getattr(model.config, "problem_type", None)
    if problem is None and "Classification" in type(model).__name__ and model.config.num_labels == 1:
        problem = "regression"  # as the models take it
    if several:
        if problem in ("regression", "single_label_classification"):
            raise ValueError(f"Expected `model` with any number of right classes, but its problem_type is {problem!r}.")
    elif problem in ("regression", "multi_label_classification"):
        raise ValueError(f"Expected `model` with one right class among several, but its problem_type is {problem!r}.")


def on_device(loss: AnyLoss, device: torch.device) -> AnyLoss:
    """The loss, moved to the device of the scores if its class weights are elsewhere."""
    return loss.to(device) if any(b.device != device for b in loss.buffers()) else loss


class LabelWatch:
    """Warns once when all labels of a batch are left out, which trains nothing.

    To look at labels on a GPU is to wait for it, so that there the first ten batches alone are looked at.
    """

    def __init__(self) -> None:
        self.looks = 0
        self.warned = False

    def look(self, labels: Tensor) -> None:
        if self.warned or torch.compiler.is_compiling() or (labels.device.type != "cpu" and self.looks >= _LOOKS):
            return
        self.looks += 1
        if labels.numel() and not labels.is_floating_point() and bool((labels == IGNORED).all()):
            self.warned = True
            warnings.warn(
                f"All labels of a batch are {IGNORED}, so that nothing is learnt from it: the loss is 0. If this is "
                "not meant, see what masks the labels, such as a prompt longer than the rows that are cut off.",
                stacklevel=3,
            )
