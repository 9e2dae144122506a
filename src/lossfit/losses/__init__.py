"""The losses. Importing this package fills the registry, in the order of the catalogue."""
# ruff: noqa: I001

from lossfit.losses.base import Loss
from lossfit.losses.single import SingleLabelLoss
from lossfit.losses.link import LinkLoss
from lossfit.losses.likelihood import CrossEntropyLoss, ExpectedAccuracyLoss, GammaCrossEntropyLoss
from lossfit.losses.weighted import FocalLoss, PolyLoss, SensitivityLoss
from lossfit.losses.robust import (
    GeneralizedCrossEntropyLoss,
    SymmetricCrossEntropyLoss,
    SquaredLoss,
    ExponentialLoss,
)
from lossfit.losses.margin import LogisticMarginLoss, ExponentialMarginLoss, HingeLoss, SmoothAccuracyLoss
from lossfit.losses.exact import ExactLoss
from lossfit.losses.contrastive import ContrastiveLoss, InfoNCELoss, NTXentLoss, SupConLoss
from lossfit.losses.sampled import NCELoss, SampledSoftmaxLoss
from lossfit.losses.distillation import DistillationLoss
from lossfit.losses.sequence import TokenLoss, ReinforceLoss, MinimumRiskLoss
from lossfit.losses.crf import CRFLoss
from lossfit.losses.ranking import AUCLoss, PartialAUCLoss, AveragePrecisionLoss
from lossfit.losses.confusion import BalancedAccuracyLoss, FBetaLoss, MatthewsLoss, CohenKappaLoss
from lossfit.losses.leading import TopKAccuracyLoss, RecallAtPrecisionLoss
from lossfit.losses.brier import BrierLoss
from lossfit.losses.metric import MetricLoss
from lossfit.losses.multilabel import MultiLabelLoss, ZLPRLoss
from lossfit.losses.binary import BCELoss, FocalBCELoss, AsymmetricLoss
from lossfit.losses.multiway import MultiWayLoss

__all__ = [
    "AUCLoss",
    "AsymmetricLoss",
    "AveragePrecisionLoss",
    "BCELoss",
    "BalancedAccuracyLoss",
    "BrierLoss",
    "CRFLoss",
    "CohenKappaLoss",
    "ContrastiveLoss",
    "CrossEntropyLoss",
    "DistillationLoss",
    "ExactLoss",
    "ExpectedAccuracyLoss",
    "ExponentialLoss",
    "ExponentialMarginLoss",
    "FBetaLoss",
    "FocalBCELoss",
    "FocalLoss",
    "GammaCrossEntropyLoss",
    "GeneralizedCrossEntropyLoss",
    "HingeLoss",
    "InfoNCELoss",
    "LinkLoss",
    "LogisticMarginLoss",
    "Loss",
    "MatthewsLoss",
    "MetricLoss",
    "MinimumRiskLoss",
    "MultiLabelLoss",
    "MultiWayLoss",
    "NCELoss",
    "NTXentLoss",
    "PartialAUCLoss",
    "PolyLoss",
    "RecallAtPrecisionLoss",
    "ReinforceLoss",
    "SampledSoftmaxLoss",
    "SensitivityLoss",
    "SingleLabelLoss",
    "SmoothAccuracyLoss",
    "SquaredLoss",
    "SupConLoss",
    "SymmetricCrossEntropyLoss",
    "TokenLoss",
    "TopKAccuracyLoss",
    "ZLPRLoss",
]
