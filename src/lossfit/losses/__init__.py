"""The losses. Importing this package fills the registry, in the order of the catalogue."""
# ruff: noqa: I001

from lossfit.losses.base import Loss
from lossfit.losses.single_label.base import SingleLabelLoss
from lossfit.losses.single_label.link import LinkLoss
from lossfit.losses.single_label.cross_entropy import CrossEntropyLoss, ExpectedAccuracyLoss, GammaCrossEntropyLoss
from lossfit.losses.single_label.focal import FocalLoss, PolyLoss, SensitivityLoss
from lossfit.losses.single_label.robust import (
    GeneralizedCrossEntropyLoss,
    SymmetricCrossEntropyLoss,
    SquaredLoss,
    ExponentialLoss,
)
from lossfit.losses.single_label.hinge import (
    LogisticMarginLoss,
    ExponentialMarginLoss,
    HingeLoss,
    SumHingeLoss,
    SmoothAccuracyLoss,
)
from lossfit.losses.single_label.exact import ExactLoss
from lossfit.losses.contrastive import ContrastiveLoss, InfoNCELoss, NTXentLoss, SupConLoss
from lossfit.losses.sampled import NCELoss, SampledSoftmaxLoss
from lossfit.losses.distillation import DistillationLoss
from lossfit.losses.sequence.tokens import TokenLoss
from lossfit.losses.sequence.rewards import ReinforceLoss, MinimumRiskLoss
from lossfit.losses.sequence.crf_loss import CRFLoss
from lossfit.losses.ranking.ranking import AUCLoss, PartialAUCLoss, AveragePrecisionLoss
from lossfit.losses.metric.confusion import BalancedAccuracyLoss, FBetaLoss, MatthewsLoss, CohenKappaLoss
from lossfit.losses.metric.top_k import TopKAccuracyLoss, RecallAtPrecisionLoss
from lossfit.losses.metric.brier import BrierLoss
from lossfit.losses.metric.base import MetricLoss
from lossfit.losses.multi_label.zlpr import MultiLabelLoss, ZLPRLoss
from lossfit.losses.multi_label.binary import BCELoss, FocalBCELoss, AsymmetricLoss
from lossfit.losses.multi_way import MultiWayLoss

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
    "SumHingeLoss",
    "SupConLoss",
    "SymmetricCrossEntropyLoss",
    "TokenLoss",
    "TopKAccuracyLoss",
    "ZLPRLoss",
]
