"""The networks that a comparison trains."""

from lossfit.compare.training.models.architecture import BUILT_IN, HIDDEN, Architecture, check_name, choose, resolve
from lossfit.compare.training.models.base import Models
from lossfit.compare.training.models.modules import Modules
from lossfit.compare.training.models.stacked import Stacked

__all__ = ["BUILT_IN", "HIDDEN", "Architecture", "Models", "Modules", "Stacked", "check_name", "choose", "resolve"]
