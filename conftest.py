"""Names that the examples in docstrings use without importing them."""

from importlib.util import find_spec

import pytest
import torch

import lossfit

collect_ignore = [] if find_spec("lightning") else ["src/lossfit/integrations/lightning.py"]


@pytest.fixture(autouse=True)
def _names_in_examples(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace.update(lossfit=lossfit, torch=torch)
