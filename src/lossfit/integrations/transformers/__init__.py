"""Losses in Hugging Face's Trainer: on a model's scores, or in the place of its head and cross-entropy.

It needs an extra: ``pip install 'lossfit[transformers]'``.
"""

from importlib.util import find_spec

if find_spec("transformers") is None:
    raise ImportError("lossfit.integrations.transformers needs an extra: pip install 'lossfit[transformers]'.")

from lossfit.integrations.transformers.callback import LossfitCallback
from lossfit.integrations.transformers.fuse import fuse, unfuse
from lossfit.integrations.transformers.trainer import compute_loss_func

__all__ = ["LossfitCallback", "compute_loss_func", "fuse", "unfuse"]
