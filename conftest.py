"""Names that the examples in docstrings use without importing them."""

import pytest
import torch

import lossfit


@pytest.fixture(autouse=True)
def _names_in_examples(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace.update(lossfit=lossfit, torch=torch)
