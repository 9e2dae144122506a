"""The kernels against plain PyTorch, on a small batch, where a device is used for the first time."""

from __future__ import annotations

import os
import threading
import warnings

import torch
from torch import Tensor

from lossfit import kernels
from lossfit.core.checks import check_choice

VARIABLE = "LOSSFIT_KERNELS"
MODES = ("check", "on", "off")
_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}

_lock = threading.Lock()
_passed: dict[tuple[torch.device, torch.dtype], bool] = {}


def trusted(tensor: Tensor) -> bool:
    """Whether "auto" may take the kernels for tensors of this type on this device.

    The environment variable LOSSFIT_KERNELS says so: "on", "off", or "check", the default, which compares both once a
    process and warns where they differ.

    Raises:
        ValueError: the variable is something else.
    """
    mode = os.environ.get(VARIABLE, "check")
    check_choice(VARIABLE, mode, MODES)
    if mode != "check":
        return mode == "on"
    key = tensor.device, tensor.dtype
    with _lock:
        if key not in _passed:
            if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
                return False  # nothing can be compared while a graph is captured
            _passed[key] = _check(*key)
        return _passed[key]


def _check(device: torch.device, dtype: torch.dtype) -> bool:
    try:
        fault = _difference(device, dtype)
    except Exception as error:  # whatever a compiler or a driver raises
        fault = f"{type(error).__name__}: {error}".partition("\n")[0]
    if fault:
        warnings.warn(
            f"The Triton kernels of lossfit are left out for {dtype} on {device}, and plain PyTorch computes: {fault}. "
            f"Please report this line, your GPU and the versions of PyTorch and Triton. {VARIABLE}=on takes the "
            f"kernels all the same, {VARIABLE}=off spares the check.",
            RuntimeWarning,
            stacklevel=4,
        )
    return not fault


def _difference(device: torch.device, dtype: torch.dtype) -> str:
    """In what the kernels differ from plain PyTorch; "" if in nothing."""
    plain, by_kernels = _results(device, dtype, "torch"), _results(device, dtype, "triton")
    tolerance = _TOLERANCES[dtype]
    for name, expected in plain.items():
        if not torch.allclose(by_kernels[name], expected, rtol=tolerance, atol=tolerance):
            apart = (by_kernels[name] - expected).abs().max().item()
            return f"{name} differs by {apart:.2g} from plain PyTorch's"
    return ""


def _results(device: torch.device, dtype: torch.dtype, backend: kernels.Backend) -> dict[str, Tensor]:
    """Values and gradients of rows of which one is masked, one excludes a class, and all have an offset."""
    from lossfit.gaps.gap import gap
    from lossfit.gaps.types import Kind
    from lossfit.losses.single_label.exact import ExactLoss

    z = torch.linspace(-3, 3, 5 * 19, dtype=torch.float64).sin().mul_(3).add_(8).view(5, 19)
    z[1, 4] = -torch.inf
    z = z.to(device, dtype).requires_grad_()
    target = torch.tensor([0, 7, -100, 18, 3], device=device)
    results: dict[str, Tensor] = {}
    kinds: tuple[Kind, ...] = ("soft", "hard")
    with torch.enable_grad(), torch.autocast(device.type, enabled=False), kernels.using(backend):
        for kind in kinds:
            rows = gap(z, target, kind, mean=True, hit=True)
            assert rows.over_mean is not None
            loss = rows.log_odds.tanh().sum() + rows.over_mean.clamp(max=100).tanh().sum()
            results[f"the {kind} gap"] = rows.log_odds.detach().double()
            results[f"the gradient of the {kind} gap"] = torch.autograd.grad(loss, z)[0].double()
        losses = ExactLoss(reduction="none")(z, target)
        results["EXACT"] = losses.detach().double()
        results["the gradient of EXACT"] = torch.autograd.grad(losses.sum(), z)[0].double()
    return results
