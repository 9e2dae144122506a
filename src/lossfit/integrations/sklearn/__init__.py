"""Estimators for scikit-learn: linear models and small networks, trained with the losses of this library.

They need an extra: ``pip install 'lossfit[sklearn]'``.
"""

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError as error:
    raise ImportError("lossfit.integrations.sklearn needs an extra: pip install 'lossfit[sklearn]'.") from error

from lossfit.integrations.sklearn.base import expected_failed_checks
from lossfit.integrations.sklearn.classifier import LossfitClassifier
from lossfit.integrations.sklearn.multilabel import LossfitMultiLabelClassifier

__all__ = ["LossfitClassifier", "LossfitMultiLabelClassifier", "expected_failed_checks"]
