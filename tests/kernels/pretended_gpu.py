"""All that Triton does before a kernel runs on a GPU, with a driver that is pretended: it prints what it launched.

The interpreter skips it: what a kernel is specialised for, how it compiles then, and what is checked at every launch.
"""

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

launched: set[str] = set()


class Utils:
    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 232_448, "multiprocessor_count": 132}

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[int, ...]:
        return 0, 0, 32, 0, 1024


class Launcher:
    def __init__(self, source: triton.compiler.ASTSource, metadata: object) -> None:
        self.name = source.name

    def __call__(self, *arguments: object) -> None:
        launched.add(self.name)


class Driver:
    launcher_cls = Launcher
    utils = Utils()

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


driver.set_active(Driver())

import lossfit
from lossfit import kernels

kernels._interpreted = lambda: True
y = torch.tensor([0, 1, 2])
for loss in (lossfit.CrossEntropyLoss(), lossfit.ExactLoss()):
    for classes in (1, 5) if loss._no_other_grads else (5,):
        x, weight = torch.randn(3, 16, requires_grad=True), torch.randn(classes, 16, requires_grad=True)
        loss.linear(x, weight, y.clamp(max=classes - 1), backend="triton").backward()
z = torch.randn(3, 5, dtype=torch.bfloat16, requires_grad=True)
for kind in ("soft", "hard"):
    found = lossfit.gap(z, y, kind, mean=True, hit=True, entropy=kind == "soft", backend="triton")
    (found.log_odds + found.mean).sum().backward()
print(*sorted(launched))
