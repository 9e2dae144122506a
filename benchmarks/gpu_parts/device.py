"""The device: its clock, its memory, its caches, and what it says of itself."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch

import lossfit

MIB = 2**20
PACKAGES = ("torch", "triton", "numpy", "liger-kernel", "cut-cross-entropy", "quack-kernels", "nvidia-cutlass-dsl")
ABOUT = (
    "name",
    "driver_version",
    "memory.total",
    "power.limit",
    "power.default_limit",
    "clocks.max.sm",
    "clocks.max.mem",
)
NOW = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu", "clocks_event_reasons.active")


class Device:
    """A GPU; or, in a smoke run, the CPU, whose numbers mean nothing."""

    def __init__(self, smoke: bool) -> None:
        self.smoke = smoke
        self.name = "cpu" if smoke else "cuda"
        self.dtype = torch.bfloat16
        # Many times the cache. Written before each timed run; meanwhile the host runs ahead of the device.
        self._cold = None if smoke else torch.empty(1 << 28, device="cuda")
        self._look: subprocess.Popen[str] | None = None

    def generator(self, seed: int = 0) -> torch.Generator:
        return torch.Generator(self.name).manual_seed(seed)

    def synchronize(self) -> None:
        if not self.smoke:
            torch.cuda.synchronize()

    def cool(self) -> None:
        if self._cold is not None:
            self._cold.zero_()

    def milliseconds(self, run: Callable[[], object]) -> float:
        """Of one run, from the device's point of view, with cold caches."""
        if self.smoke:
            begin = time.perf_counter()
            run()
            return (time.perf_counter() - begin) * 1e3
        self.cool()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    def mark(self) -> int | None:
        """Bytes that are held now, from where the peak is to be told; a CPU does not tell."""
        if self.smoke:
            return None
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()

    def above(self, mark: int) -> int:
        """Bytes at the peak since then, beyond what was held."""
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - mark

    def peak(self, run: Callable[[], object]) -> int | None:
        """Bytes that a run allocates at its peak beyond what is held before."""
        self.free()
        mark = self.mark()
        run()
        return None if mark is None else self.above(mark)

    def free(self) -> None:
        """Give unused memory back to the device."""
        if not self.smoke:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()

    def broken(self) -> bool:
        """Whether an error has ended this process's use of the device, as an illegal access does."""
        try:
            self.synchronize()
        except Exception:
            return True
        return False

    def look(self) -> None:
        """Begin to read the clocks, while the device is at work."""
        if not self.smoke and self._look is None and shutil.which("nvidia-smi"):
            self._look = subprocess.Popen(_query(NOW), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def seen(self) -> dict[str, str] | None:
        """The clocks, power and temperature last read."""
        if self._look is None:
            return None
        look, self._look = self._look, None
        try:
            return _fields(NOW, look.communicate(timeout=20)[0])
        except subprocess.TimeoutExpired:
            look.kill()
            return None

    def about(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "device": "CPU" if self.smoke else torch.cuda.get_device_name(),
            "python": platform.python_version(),
            "cuda": torch.version.cuda,
            "lossfit": lossfit.__version__,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "packages": {name: _version(name) for name in PACKAGES},
        }
        if not self.smoke:
            properties = torch.cuda.get_device_properties(0)
            found |= {"multiprocessors": properties.multi_processor_count, "memory_mib": properties.total_memory // MIB}
            if shutil.which("nvidia-smi"):
                out = subprocess.run(_query(ABOUT), capture_output=True, text=True, check=False).stdout
                found["nvidia_smi"] = _fields(ABOUT, out)
        return found


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return {"median": round(statistics.median(values), 4), "low": round(low, 4), "high": round(high, 4)}


def _query(fields: tuple[str, ...]) -> list[str]:
    return ["nvidia-smi", "--id=0", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]


def _fields(names: tuple[str, ...], line: str) -> dict[str, str]:
    values = [value.strip() for value in line.split(",")]
    return dict(zip(names, values, strict=True)) if len(values) == len(names) else {"said": line.strip()}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
