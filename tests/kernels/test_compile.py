"""Inside torch.compile, and for a GPU that is not there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import lossfit
from lossfit import kernels

pytest.importorskip("triton")
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch does it
SCRIPT = Path(__file__).parents[2] / "scripts" / "compile_kernels.py"


def odd(z: Tensor, y: Tensor, backend: str) -> Tensor:
    found = lossfit.gap(z, y, mean=True, hit=True, entropy=True, backend=backend)
    return (found.log_odds.tanh() + found.mean.sin() + found.entropy**2).where(found.hit, 2 * found.target).sum()


@pytest.mark.slow
def test_compiled_whole(device: str) -> None:
    z = torch.randn(4, 5, device=device, requires_grad=True)
    y = torch.tensor([1, 0, -100, 4], device=device)
    value = torch.compile(odd, fullgraph=True)(z, y, "triton")
    expected = odd(z, y, "torch")
    assert_close(value, expected, rtol=1e-6, atol=1e-6)
    grads = [torch.autograd.grad(v, z)[0] for v in (value, expected)]
    assert_close(*grads, rtol=1e-5, atol=1e-6)


def test_a_loss_compiled_whole(device: str) -> None:
    loss = lossfit.GammaCrossEntropyLoss(0.5)
    z = torch.randn(4, 5, device=device, requires_grad=True)
    y = torch.tensor([1, 0, -100, 4], device=device)
    with kernels.using("triton"):
        value = torch.compile(loss, fullgraph=True, backend="aot_eager")(z, y)
        grad = torch.autograd.grad(value, z)[0]
    expected = loss(z, y)
    assert_close(value, expected, rtol=1e-6, atol=1e-6)
    assert_close(grad, torch.autograd.grad(expected, z)[0], rtol=1e-5, atol=1e-7)


def test_a_compiled_graph_holds_the_operators(device: str) -> None:
    """And in auto, plain PyTorch, which a compiler can fuse."""
    names: list[str] = []

    def look(graph: torch.fx.GraphModule, _: object) -> object:
        names.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    z, y = torch.randn(4, 5, device=device), torch.tensor([1, 0, 2, 4], device=device)
    for backend, there in (("triton", True), ("auto", False)):
        torch.compiler.reset()
        names.clear()
        torch.compile(odd, fullgraph=True, backend=look)(z, y, backend)
        assert any("gap_forward" in name for name in names) == there


def test_a_target_out_of_range_is_refused(device: str) -> None:
    z = torch.randn(3, 4, device=device)
    if device == "cpu":
        with pytest.raises(IndexError, match=r"got 4 at position \(1,\)"):
            odd(z, torch.tensor([0, 4, 1]), "triton")
        with pytest.raises(RuntimeError, match=r"class indices in \[0, 4\)"):
            torch.compile(odd, fullgraph=True, backend="aot_eager")(z, torch.tensor([0, 4, 1]), "triton")


@pytest.mark.slow
def test_every_kernel_compiles_for_hopper_and_spills_nothing(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, SCRIPT, "bf16", "fp32"],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    rows = [re.split(r"\s{2,}", line) for line in done.stdout.splitlines()[1:]]
    assert {row[0].split(":")[0] for row in rows} == {"gap forward", "gap backward", "exact"}
    assert {row[1].split()[0] for row in rows} == {"bf16", "fp32"}
    for *_, registers, spilled in rows:
        assert 0 < int(registers) <= 255
        assert int(spilled) == 0


@pytest.mark.slow
def test_every_kernel_is_launched_where_the_gpu_alone_is_pretended(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("pretended_gpu.py")],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        "at_places",
        "backward",
        "forward",
        "push_kernel",
        "sums",
    ]
