"""What is asked of losses and models before training starts."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lossfit.losses.sequence import TokenLoss
from lossfit.losses.single import SingleLabelLoss

IGNORED = -100
"""The target that Trainer and the models leave out."""

AnyLoss = TypeVar("AnyLoss", bound=nn.Module)


def check_loss(loss: SingleLabelLoss | TokenLoss) -> SingleLabelLoss:
    """The loss of a row that counts as Trainer counts."""
    if not isinstance(loss, SingleLabelLoss | TokenLoss):
        raise TypeError(f"Expected `loss` to be a SingleLabelLoss or a TokenLoss, but got {type(loss).__name__}.")
    if loss.reduction != "mean":
        raise ValueError(f"Expected `loss` with reduction='mean', but got {loss.reduction!r}.")
    inner = loss
    if isinstance(loss, TokenLoss):
        if loss.normalise != "token":
            raise ValueError(
                f"Expected `loss` with normalise='token', since Trainer counts the tokens of a step and not its "
                f"sequences, but got {loss.normalise!r}."
            )
        inner = loss.loss
    assert isinstance(inner, SingleLabelLoss)
    if inner.ignore_index != IGNORED:
        raise ValueError(
            f"Expected `loss` with ignore_index={IGNORED}, which Trainer counts by, but got {inner.ignore_index}."
        )
    return inner


def base_of(model: nn.Module) -> PreTrainedModel:
    """The model, without what peft puts around it."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not isinstance(base, PreTrainedModel):
        raise TypeError(f"Expected `model` to be a model of transformers, but got {type(base).__name__}.")
    return base


def shift_of(model: PreTrainedModel) -> int:
    """1 where a position's target is that of the next one, as Trainer tells; 0 where it is its own."""
    name = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        return 0
    if model.loss_type is None and name not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        raise ValueError(
            f"Expected `shift`, 1 for a causal language model or 0: what {name}'s labels stand for is not known."
        )
    return int(model.loss_type is None or LOSS_MAPPING.get(model.loss_type) is ForCausalLMLoss)


def check_problem(model: PreTrainedModel) -> None:
    """Raise unless labels are one of several classes."""
    problem = getattr(model.config, "problem_type", None)
    if problem in ("regression", "multi_label_classification"):
        raise ValueError(f"Expected `model` with one right class among several, but its problem_type is {problem!r}.")


def on_device(loss: AnyLoss, device: torch.device) -> AnyLoss:
    """The loss, moved to the device of the scores if its class weights are elsewhere."""
    return loss.to(device) if any(b.device != device for b in loss.buffers()) else loss
