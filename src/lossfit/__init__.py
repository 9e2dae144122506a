"""lossfit: train the metric you report.

Losses for classification that fit the metric, called as ``torch.nn.CrossEntropyLoss`` is, and the command
``lossfit compare`` that finds out on your data which of them to use.
"""

from lossfit import calibration, estimators, functional, multitask, registry, schedules
from lossfit.gaps import Gap, gap
from lossfit.heads import CosineHead, LinearHead, normface_scale
from lossfit.losses import (
    AUCLoss,
    AveragePrecisionLoss,
    CrossEntropyLoss,
    ExactLoss,
    ExpectedAccuracyLoss,
    ExponentialLoss,
    ExponentialMarginLoss,
    FocalLoss,
    GammaCrossEntropyLoss,
    GeneralizedCrossEntropyLoss,
    HingeLoss,
    LinkLoss,
    LogisticMarginLoss,
    Loss,
    PartialAUCLoss,
    PolyLoss,
    SensitivityLoss,
    SingleLabelLoss,
    SmoothAccuracyLoss,
    SquaredLoss,
    SymmetricCrossEntropyLoss,
)
from lossfit.margins import AdditiveMargin, AngularMargin, ArcMargin, CombinedMargin, Margin
from lossfit.monitor import Monitor
from lossfit.multitask import UncertaintyWeighting
from lossfit.registry import available_losses, make
from lossfit.scores import class_balanced_weight, inverse_frequency_weight

__version__ = "0.1.0"

__all__ = [
    "AUCLoss",
    "AdditiveMargin",
    "AngularMargin",
    "ArcMargin",
    "AveragePrecisionLoss",
    "CombinedMargin",
    "CosineHead",
    "CrossEntropyLoss",
    "ExactLoss",
    "ExpectedAccuracyLoss",
    "ExponentialLoss",
    "ExponentialMarginLoss",
    "FocalLoss",
    "GammaCrossEntropyLoss",
    "Gap",
    "GeneralizedCrossEntropyLoss",
    "HingeLoss",
    "LinearHead",
    "LinkLoss",
    "LogisticMarginLoss",
    "Loss",
    "Margin",
    "Monitor",
    "PartialAUCLoss",
    "PolyLoss",
    "SensitivityLoss",
    "SingleLabelLoss",
    "SmoothAccuracyLoss",
    "SquaredLoss",
    "SymmetricCrossEntropyLoss",
    "UncertaintyWeighting",
    "available_losses",
    "calibration",
    "class_balanced_weight",
    "estimators",
    "functional",
    "gap",
    "inverse_frequency_weight",
    "make",
    "multitask",
    "normface_scale",
    "registry",
    "schedules",
]
