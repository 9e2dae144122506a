"""The build of the native CPU kernels: a hook of hatchling, and `python hatch_build.py` in a checkout.

LOSSFIT_NATIVE=0 leaves the kernels out, LOSSFIT_NATIVE=1 demands them; otherwise they are built where a C++ compiler
works, and lossfit is pure Python where none does. CXX names the compiler, CXXFLAGS are added to its arguments. For
another machine than this one, LOSSFIT_MACHINE names it and LOSSFIT_PLATFORM is what the name of the wheel ends in.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent / "src" / "lossfit" / "native" / "csrc"
LIBRARY = SOURCES.parent / "kernels.so"

# No C++ library is needed: neither exceptions nor type information, and statics without guards. Comparisons with NaN
# and infinities keep their meaning; only error numbers and floating-point traps are given up.
FLAGS = [
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-threadsafe-statics",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-Wall",
    "-Wextra",
    "-Wno-psabi",
]


class BuildError(Exception):
    """No library came out, with the reason."""


def levels(machine: str, by_zig: bool = False) -> dict[str, list[str]]:
    """The entries of the library, and what each is compiled for."""
    if machine not in ("x86_64", "AMD64"):
        return {"lossfit_base": []}
    flag, dash = ("-mcpu=", "_") if by_zig else ("-march=", "-")
    return {f"lossfit_{name}": [f"{flag}x86{dash}64{dash}v{level}"] for name, level in (("base", 2), ("avx2", 3))}


def compiler() -> list[str]:
    if "CXX" in os.environ:
        return shlex.split(os.environ["CXX"])
    found = next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if found is None:
        raise BuildError("no C++ compiler was found")
    return [found]


def build(
    to: Path = LIBRARY, command: list[str] | None = None, machine: str = "", extra: list[str] | None = None
) -> None:
    """Compile the library to a file.

    Args:
        to: the file.
        command: the compiler with arguments of its own; the system's by default.
        machine: what to compile for; this machine by default.
        extra: arguments for every step.
    """
    command, machine = command or compiler(), machine or os.environ.get("LOSSFIT_MACHINE") or platform.machine()
    by_zig = "ziglang" in command or command[0].endswith("zig")
    if not sys.platform.startswith(("linux", "darwin")):
        raise BuildError(f"the kernels are not built on {sys.platform}")
    extra = [*(extra or []), *shlex.split(os.environ.get("CXXFLAGS", ""))]
    with tempfile.TemporaryDirectory() as folder:
        entries = levels(machine, by_zig)
        objects = {name: str(Path(folder, f"{name}.o")) for name in (*entries, "dispatch")}
        steps = [
            [*FLAGS, *extra, *for_level, f"-DENTRY={name}", "-c", str(SOURCES / "kernels.cpp"), "-o", objects[name]]
            for name, for_level in entries.items()
        ]
        steps.append([*FLAGS, *extra, "-c", str(SOURCES / "dispatch.cpp"), "-o", objects["dispatch"]])
        _run([[*command, *step] for step in steps])
        link = ["-shared", "-static-libgcc"] if sys.platform == "linux" and not by_zig else ["-shared"]
        if by_zig:  # its c++ would link a C++ library
            command = ["cc" if word == "c++" else word for word in command]
        made = to.with_suffix(".new")
        _run([[*command, *extra, *link, "-o", str(made), *objects.values()]])
        made.replace(to)  # processes that have the old one keep it


def _run(commands: list[list[str]]) -> None:
    """Run commands side by side."""
    try:
        jobs = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for c in commands]
    except OSError as error:
        raise BuildError(f"the compiler does not start: {error}") from error
    outputs = [job.communicate()[0] for job in jobs]
    for job, output in zip(jobs, outputs, strict=True):
        if job.returncode:
            raise BuildError(f"the compiler failed:\n{output}")


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand
    BuildHookInterface = None

if BuildHookInterface is not None:

    class NativeBuildHook(BuildHookInterface):  # type: ignore[misc]
        """Adds the library to wheels and to editable installs."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            wish = os.environ.get("LOSSFIT_NATIVE", "")
            LIBRARY.unlink(missing_ok=True)
            if wish == "0":
                return
            try:
                build()
            except BuildError as error:
                if wish == "1":
                    raise
                self.app.display_warning(f"lossfit is built without its native CPU kernels: {error}")
                return
            build_data["artifacts"].append("/src/lossfit/native/kernels.so")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_platform_tag()}"


def _platform_tag() -> str:
    """What the name of a wheel for this machine ends in."""
    if "LOSSFIT_PLATFORM" in os.environ:
        return os.environ["LOSSFIT_PLATFORM"]
    import sysconfig

    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


if __name__ == "__main__":
    try:
        build()
    except BuildError as error:
        sys.exit(f"The native CPU kernels are not built: {error}.")
    print(LIBRARY)
