"""A model's own forward with a loss in the place of its head and cross-entropy."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import MethodType
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from lossfit.integrations.transformers import checks
from lossfit.integrations.transformers.scores import Call, head_forward, thread
from lossfit.integrations.transformers.trainer import denominator
from lossfit.losses.sequence.tokens import TokenLoss
from lossfit.losses.single_label.base import SingleLabelLoss
from lossfit.losses.single_label.from_features import Options

Model = TypeVar("Model", bound=nn.Module)

# Where classifiers have their last layer.
_HEADS = ("classifier", "score", "classifier.out_proj", "classification_head.out_proj")


class Fusion(NamedTuple):
    """What a fused model remembers.

    Attributes:
        loss, z_loss: see :func:`fuse`.
        otherwise: the forward in evaluation and without labels, where it is another one.
        measured: whether the counts of right tokens and the entropy come with the outputs of training.
        watch: warns of labels that are all left out.
    """

    loss: SingleLabelLoss | TokenLoss
    z_loss: float
    otherwise: Callable[..., Any] | None = None
    measured: bool = False
    watch: checks.LabelWatch = checks.LabelWatch()


def fuse(model: Model, loss: SingleLabelLoss | TokenLoss, *, head: str | None = None, z_loss: float = 0.0) -> Model:
    r"""Let a model of transformers train on ``loss.linear``, without its matrix of scores.

    In training with labels, the model's own forward runs up to the cross-entropy, where ``loss.linear`` takes the
    features and the weight of the head; soft-capping, factors on the scores and the choice of positions stay as the
    model has them. ``outputs.logits`` then are a stand-in, which makes the scores when something is computed from it.
    Evaluation, its loss too, generation and training without labels are those of the plain model, and so are its
    parameters, state dict, tied weights and ``save_pretrained``. The sum of the losses is divided by
    ``num_items_in_batch`` where Trainer gives it; where all labels are -100, loss and gradients are 0, which is warned
    of once. Schedules need :class:`LossfitCallback`.

    It works in place, before or after peft, and with gradient checkpointing; DDP and ``fully_shard`` of the model come
    after it. A model that is fused already takes the new loss.

    Args:
        model: with a head that is one ``nn.Linear`` and cross-entropy on its scores, also wrapped by peft.
        loss: a single-label loss or a ``TokenLoss`` over tokens, with reduction "mean" and ignore_index -100. Class
            weights enter the sum, and not ``num_items_in_batch``. They move to the device of the scores.
        head: the name of the last layer, such as "classifier.out_proj"; None to look for it.
        z_loss: a; each token's loss gets :math:`a\, \mathrm{logsumexp}(z)^2`.

    Returns:
        The model.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came: no head is found, the head is not
            one linear layer, the model is for regression or several right classes; in training, that a model does
            something else to its scores (an adapter on the head, say), that Trainer took the labels away
            (``label_smoothing_factor`` or ``compute_loss_func`` beside ``fuse``), or that something else has taken the
            place of the model's forward.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> from lossfit.integrations.transformers import fuse
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=8, n_embd=8, n_layer=1, n_head=1))
        >>> model = fuse(model, lossfit.GammaCrossEntropyLoss(0.1)).train()
        >>> tokens = torch.randint(50, (2, 8))
        >>> outputs = model(tokens, labels=tokens)
        >>> outputs.loss.backward()
        >>> outputs.logits
        Scores(shape=(2, 8, 50), dtype=torch.float32): not made in training
    """
    checks.check_loss(loss)
    base = checks.base_of(model)
    Options(z_loss=z_loss).check(False)
    checks.check_problem(base)
    layers = _head(base, head)
    checks.of_rows(loss)._check_classes(layers[0].out_features)
    if "labels" not in inspect.signature(type(base).forward).parameters:
        raise ValueError(f"Expected `model` whose forward takes `labels`, but {type(base).__name__}'s does not.")
    if fusion_of(base) is not None:
        unfuse(base)
    base.__dict__["_lossfit_fusion"] = Fusion(loss, z_loss, watch=checks.LabelWatch())
    if "_lossfit_before" not in base.__dict__:  # else our forward is there, under a wrapper
        base.__dict__["_lossfit_before"] = base.__dict__.get("forward")
        base.__dict__["forward"] = MethodType(_forward_of(type(base)), base)
    for layer in layers:
        layer.__dict__["forward"] = MethodType(head_forward, layer)
    body = base.base_model
    if body is not base:
        body.register_forward_pre_hook(_refuse_bypass)
    return model


def unfuse(model: Model) -> Model:
    """Give a model that was fused its own forward and head again, in place.

    Raises:
        ValueError: it is not fused.
    """
    base = checks.base_of(model)
    if fusion_of(base) is None:
        raise ValueError(f"Expected `model` to be fused, but this {type(base).__name__} is not.")
    del base.__dict__["_lossfit_fusion"]
    if hasattr(base.__dict__["forward"], "is_fused"):  # not under a wrapper, through which it stays as it is
        before = base.__dict__.pop("_lossfit_before")
        del base.__dict__["forward"]
        if before is not None:
            base.__dict__["forward"] = before
    for module in base.modules():
        if _is(module, head_forward):
            del module.__dict__["forward"]
        for key in [k for k, hook in module._forward_pre_hooks.items() if hook is _refuse_bypass]:
            del module._forward_pre_hooks[key]
    return model


def fusion_of(base: PreTrainedModel) -> Fusion | None:
    fusion: Fusion | None = base.__dict__.get("_lossfit_fusion")
    return fusion


def _head(base: PreTrainedModel, name: str | None) -> list[nn.Linear]:
    """The last layer, and copies of it that are trained in its place."""
    kind = type(base).__name__
    modules = dict(base.named_modules())
    if name is not None:
        if name not in modules:
            raise ValueError(f"Expected `head` to name a module of {kind}, but got {name!r}.")
        found = modules[name]
    else:
        named = [modules[n] for n in _HEADS if n in modules]
        linear = [m for m in named if isinstance(m, nn.Linear)]
        found = base.get_output_embeddings() or next(iter(linear or named), None)
    if found is None:
        raise ValueError(
            f"Expected `model` with an output head, but {kind} has none under the names known: give it by `head`."
        )
    if hasattr(found, "base_layer"):
        raise ValueError(
            f"Expected `model` without an adapter on its head, but {kind} has a {type(found).__name__} there: leave "
            f"the head out of its `target_modules`, or use `compute_loss_func(loss, model)`."
        )
    saved = getattr(found, "modules_to_save", None)  # copies that peft trains as a whole
    layers = [found] if saved is None else [found.original_module, *saved.values()]
    for layer in layers:
        if not (isinstance(layer, nn.Linear) and type(layer).__name__.endswith("Linear")):
            raise TypeError(
                f"Expected the head of `model` to be one nn.Linear, but {kind} has a {type(layer).__name__}: give its "
                f"last layer by `head`, or use `compute_loss_func(loss, model)`."
            )
        if "forward" in layer.__dict__ and not _is(layer, head_forward):
            raise ValueError(f"Expected the head of `model` with a forward of its own, but {kind}'s was replaced.")
    return layers


def _is(module: nn.Module, function: Callable[..., Any]) -> bool:
    return getattr(module.__dict__.get("forward"), "__func__", None) is function


def _forward_of(kind: type[nn.Module]) -> Callable[..., Any]:
    """A forward that looks like that of the class, which Trainer and peft inspect."""

    def forward(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        thread.depth += 1
        try:
            return _run(self, args, kwargs, position)
        finally:
            thread.depth -= 1

    signature = inspect.signature(kind.forward)
    position = list(signature.parameters).index("labels") - 1
    forward.__dict__.update(__signature__=signature, is_fused=True)
    return forward


def _run(model: PreTrainedModel, args: tuple[Any, ...], kwargs: dict[str, Any], position: int) -> Any:
    """The forward pass, in training with labels such that the loss takes the place of cross-entropy."""
    fusion = fusion_of(model)
    forward = model.__dict__["_lossfit_before"] or MethodType(type(model).forward, model)
    if fusion is None:
        return forward(*args, **kwargs)
    labels = args[position] if len(args) > position else kwargs.get("labels")
    items = kwargs.get("num_items_in_batch")
    name = type(model).__name__
    if not model.training or labels is None:
        if model.training and items is not None:
            raise ValueError(
                f"Expected `labels` for the fused {name}, but Trainer took them away for a loss of its own: leave out "
                f"`label_smoothing_factor`, `compute_loss_func` and any other `loss_type`, or `fuse`."
            )
        return (fusion.otherwise or forward)(*args, **kwargs)
    fusion.watch.look(labels)
    items = denominator(items, labels.device)
    if items is not None:
        kwargs["num_items_in_batch"] = items
    extras = ("hit", "entropy") if fusion.measured else ()
    call = Call(checks.of_rows(fusion.loss), name, items, fusion.z_loss, extras)
    outer, thread.call = thread.call, call
    try:
        outputs = forward(*args, **kwargs)
    finally:
        thread.call, call.live = outer, False
    if call.result is None or call.target is None:
        raise call.refuse("takes no cross-entropy of them")
    if fusion.measured:
        _, _, hit, entropy, _ = call.result
        assert hit is not None
        assert entropy is not None
        outputs["num_correct_tokens"], outputs["entropy_sum"] = hit.sum().float(), entropy.sum()
        outputs["num_valid_tokens"] = (call.target != checks.IGNORED).sum()
    return outputs


def _refuse_bypass(body: nn.Module, args: Any) -> None:
    if body.training and torch.is_grad_enabled() and not thread.depth:
        raise ValueError(
            f"Expected the forward of the fused model around its {type(body).__name__}, but something else runs that "
            f"in training, such as SFTTrainer with loss_type='chunked_nll' (use "
            f"`lossfit.integrations.trl.SFTTrainer`). For features alone, `unfuse` the model."
        )
