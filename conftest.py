"""Names that the examples in docstrings use without importing them; and where Triton's kernels run."""

import os
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from _pytest.doctest import DoctestModule

# Without a GPU in Triton's interpreter, which must be chosen before anything imports Triton.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

import lossfit

collect_ignore = [
    f"src/lossfit/integrations/{path}"
    for extra, path in (("lightning", "lightning.py"), ("transformers", "transformers"), ("trl", "trl.py"))
    if not find_spec(extra)
]
# They hold no examples, and importing them needs Triton and settles whether it interprets.
collect_ignore_glob = ["src/lossfit/kernels/[!_]*.py"]


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Scripts that tests run are not run by looking for examples in them."""
    inside = Path(__file__).parent / "tests" in collection_path.parents
    return True if inside and collection_path.suffix == ".py" and not collection_path.name.startswith("test_") else None


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Tests hold no examples, and looking for some would run each file of them once more."""
    found = yield
    inside = Path(__file__).parent / "tests" in file_path.parents
    return [one for one in found if not (inside and isinstance(one, DoctestModule))]


@pytest.fixture(autouse=True)
def _names_in_examples(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace.update(lossfit=lossfit, torch=torch)
