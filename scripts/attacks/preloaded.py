"""What a forked victim has imported already."""

import attacks.folders
from lossfit.commands import calibrate, compare, diff, export, predict

__all__ = ["attacks", "calibrate", "compare", "diff", "export", "predict"]
