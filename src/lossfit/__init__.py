"""lossfit: train the metric you report.

Losses for classification that fit the metric, called as ``torch.nn.CrossEntropyLoss`` is, and the command
``lossfit compare`` that finds out on your data which of them to use.
"""

from lossfit import calibration, estimators, functional, meta, multitask, registry, schedules
from lossfit.crf import LinearChainCRF
from lossfit.gaps import Gap, gap
from lossfit.heads import CosineHead, LinearHead, normface_scale
from lossfit.losses import (
    AUCLoss,
    AveragePrecisionLoss,
    CRFLoss,
    CrossEntropyLoss,
    ExactLoss,
    ExpectedAccuracyLoss,
    ExponentialLoss,
    ExponentialMarginLoss,
    FocalLoss,
    GammaCrossEntropyLoss,
    GeneralizedCrossEntropyLoss,
    HingeLoss,
    InfoNCELoss,
    LinkLoss,
    LogisticMarginLoss,
    Loss,
    MinimumRiskLoss,
    NTXentLoss,
    PartialAUCLoss,
    PolyLoss,
    ReinforceLoss,
    SensitivityLoss,
    SingleLabelLoss,
    SmoothAccuracyLoss,
    SquaredLoss,
    SupConLoss,
    SymmetricCrossEntropyLoss,
    TokenLoss,
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
    "CRFLoss",
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
    "InfoNCELoss",
    "LinearChainCRF",
    "LinearHead",
    "LinkLoss",
    "LogisticMarginLoss",
    "Loss",
    "Margin",
    "MinimumRiskLoss",
    "Monitor",
    "NTXentLoss",
    "PartialAUCLoss",
    "PolyLoss",
    "ReinforceLoss",
    "SensitivityLoss",
    "SingleLabelLoss",
    "SmoothAccuracyLoss",
    "SquaredLoss",
    "SupConLoss",
    "SymmetricCrossEntropyLoss",
    "TokenLoss",
    "UncertaintyWeighting",
    "available_losses",
    "calibration",
    "class_balanced_weight",
    "estimators",
    "functional",
    "gap",
    "inverse_frequency_weight",
    "make",
    "meta",
    "multitask",
    "normface_scale",
    "registry",
    "schedules",
]
