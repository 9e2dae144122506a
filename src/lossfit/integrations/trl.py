"""TRL's SFTTrainer with a loss of this library, without the matrix of scores.

It needs an extra: ``pip install 'lossfit[trl]'``.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

if find_spec("trl") is None:
    raise ImportError("lossfit.integrations.trl needs an extra: pip install 'lossfit[trl]'.")

from torch import nn
from trl.trainer.sft_trainer import SFTTrainer as Base

from lossfit.integrations.transformers import checks
from lossfit.integrations.transformers.fuse import fuse, fusion_of, unfuse
from lossfit.losses.sequence.tokens import TokenLoss
from lossfit.losses.single_label.base import SingleLabelLoss


class SFTTrainer(Base):
    r"""TRL's ``SFTTrainer`` with one argument more: the loss.

    The model is fused (see :func:`lossfit.integrations.transformers.fuse`) after TRL has prepared it, with any
    ``peft_config``. The token accuracy and the entropy that TRL logs come from the same pass over the scores.
    Evaluation is TRL's, with its ``loss_type``: cross-entropy.

    Args:
        loss: a single-label loss or a ``TokenLoss`` over tokens, with reduction "mean" and ignore_index -100.
        args, kwargs: those of TRL's trainer.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came: a ``loss_type`` "dft", a
            ``compute_loss_func``, Liger's kernels or a ``label_smoothing_factor``, each of which is a loss of its own.

    Example:
        >>> from lossfit.integrations.trl import SFTTrainer  # doctest: +SKIP
        >>> SFTTrainer(model, train_dataset=data, loss=lossfit.GammaCrossEntropyLoss(0.1))  # doctest: +SKIP
    """

    def __init__(self, *args: Any, loss: SingleLabelLoss | TokenLoss, **kwargs: Any) -> None:
        checks.check_loss(loss)
        given: Any = kwargs.get("args", args[1] if len(args) > 1 else None)
        if getattr(given, "loss_type", None) == "dft":
            raise ValueError(
                "Expected one loss, but got `loss_type='dft'` beside `loss`; its gradients are those of "
                "GammaCrossEntropyLoss(1.0)."
            )
        if kwargs.get("compute_loss_func") is not None:
            raise ValueError("Expected one loss, but got `compute_loss_func` beside `loss`.")
        for name in ("use_liger_kernel", "label_smoothing_factor"):
            if getattr(given, name, 0):
                raise ValueError(f"Expected one loss, but got `{name}={getattr(given, name)}` beside `loss`.")
        first = kwargs.get("model", args[0] if args else None)
        if isinstance(first, nn.Module) and fusion_of(checks.base_of(first)) is not None:
            unfuse(first)  # TRL puts its own forward there
        super().__init__(*args, **kwargs)
        model: Any = self.model
        settings: Any = self.args
        base = checks.base_of(model)
        # TRL's own forward, where it has one, stays for evaluation.
        chunked = base.__dict__.pop("forward", None) if settings.loss_type == "chunked_nll" else None
        fuse(model, loss)
        fusion = base.__dict__["_lossfit_fusion"]
        base.__dict__["_lossfit_fusion"] = fusion._replace(otherwise=chunked, measured=chunked is not None)
