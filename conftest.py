"""Names that the examples in docstrings use without importing them."""

import pytest
import torch

import lossfit

# They hold no examples, and importing them needs Triton and settles whether it interprets.
collect_ignore_glob = ["src/lossfit/kernels/[!_]*.py"]


@pytest.fixture(autouse=True)
def _names_in_examples(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace.update(lossfit=lossfit, torch=torch)
