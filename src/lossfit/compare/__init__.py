"""Which loss should I train with? Train them all on the user's data, fairly, and compare.

The data's way is data -> features -> candidates -> training (in running) -> scoring -> verdict -> report. A source
becomes a :class:`~lossfit.compare.data.dataset.Dataset`, which is split again and again and turned into matrices. Every
candidate loss gets the same number of settings, trained side by side as stacked weights and measured. Running has the
engine, which runs what is missing and keeps what is finished.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lossfit.compare.export.model import Model

__all__ = ["load_model"]


def load_model(folder: str | Path, *, architecture: str | None = None, embedding: str | None = None) -> Model:
    """A model that `lossfit export` wrote, from its folder or the folder of its comparison.

    Its ``predict`` takes a file, a folder of images, a table or an array: see
    :class:`~lossfit.compare.export.model.Model`. Nothing in the files is run or chooses what is run: weights are
    numbers in the safetensors format, the rest is JSON.

    Args:
        folder: where it is.
        architecture: ``package.module:factory``, needed for a network of your own.
        embedding: the model of sentence-transformers that reads texts, needed if it is not lossfit's own.

    Raises:
        InputError: there is no model, its files are cut off, edited, or of another version, or it needs code that is
            not named.

    Example:
        >>> model = lossfit.compare.load_model("lossfit-yeast")  # doctest: +SKIP
        >>> model.predict("new.csv", keep=("id",))  # doctest: +SKIP
    """
    from lossfit.compare.export import model

    return model.load(folder, architecture=architecture, embedding=embedding)
