"""lossfit: train the metric you report.

Losses for classification that fit the metric, called as ``torch.nn.CrossEntropyLoss`` is, and the command
``lossfit compare`` that finds out on your data which of them to use.
"""

from lossfit import calibration, estimators, functional, losses, meta, multitask, registry, schedules
from lossfit.core.class_weights import class_balanced_weight, inverse_frequency_weight
from lossfit.gaps.gap import gap
from lossfit.gaps.types import Gap
from lossfit.heads.cosine_head import CosineHead, normface_scale
from lossfit.heads.linear_head import LinearHead
from lossfit.heads.margins import AdditiveMargin, AngularMargin, ArcMargin, CombinedMargin, Margin
from lossfit.kernels import show_config
from lossfit.linear.linear_gap import linear_gap
from lossfit.losses import *  # noqa: F403  -- its `__all__` is added below
from lossfit.losses.metric.for_metric import for_metric
from lossfit.losses.sampled import sample_rivals
from lossfit.losses.sequence.linear_chain_crf import LinearChainCRF
from lossfit.monitor import Monitor
from lossfit.multitask import UncertaintyWeighting
from lossfit.registry import available_losses, make

__version__ = "0.1.0"

__all__ = [
    "AdditiveMargin",
    "AngularMargin",
    "ArcMargin",
    "CombinedMargin",
    "CosineHead",
    "Gap",
    "LinearChainCRF",
    "LinearHead",
    "Margin",
    "Monitor",
    "UncertaintyWeighting",
    "available_losses",
    "calibration",
    "class_balanced_weight",
    "estimators",
    "for_metric",
    "functional",
    "gap",
    "inverse_frequency_weight",
    "linear_gap",
    "make",
    "meta",
    "multitask",
    "normface_scale",
    "registry",
    "sample_rivals",
    "schedules",
    "show_config",
]
__all__ += losses.__all__


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
