"""After training: scaled logits, prediction sets, uncertainties, and how well the confidence tells the accuracy."""

from lossfit.calibration.conformal import ConformalClassifier, conformal_threshold
from lossfit.calibration.reliability import Reliability, calibration_error, reliability
from lossfit.calibration.scaling import MatrixScaling, TemperatureScaling, VectorScaling
from lossfit.calibration.selective import RiskCoverage, aurc, risk_coverage
from lossfit.calibration.uncertainty import entropy, log_odds, margin, max_probability

__all__ = [
    "ConformalClassifier",
    "MatrixScaling",
    "Reliability",
    "RiskCoverage",
    "TemperatureScaling",
    "VectorScaling",
    "aurc",
    "calibration_error",
    "conformal_threshold",
    "entropy",
    "log_odds",
    "margin",
    "max_probability",
    "reliability",
    "risk_coverage",
]
