"""A wheel with the native kernels for every Linux of a processor from glibc 2.28 on, made by zig, without a container.

python scripts/release_wheel.py                 # dist/lossfit-...-manylinux_2_28_x86_64.whl
python scripts/release_wheel.py aarch64

Needs the packages build, hatchling and ziglang.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
GLIBC = (2, 28)


def build(machine: str) -> Path:
    target = f"{machine}-linux-gnu.{'.'.join(map(str, GLIBC))}"
    environment = {
        **os.environ,
        "CXX": f"{sys.executable} -m ziglang c++ -target {target}",
        "LOSSFIT_NATIVE": "1",
        "LOSSFIT_MACHINE": machine,
        "LOSSFIT_PLATFORM": f"manylinux_{GLIBC[0]}_{GLIBC[1]}_{machine}",
    }
    out = ROOT / "dist"
    before = {*out.glob("*.whl")}
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, env=environment)
    (made,) = [wheel for wheel in out.glob(f"*{machine}.whl") if wheel not in before] or [*out.glob(f"*{machine}.whl")]
    return made


def check(wheel: Path) -> None:
    """Raise unless its library needs nothing newer, and nothing but the C library."""
    with zipfile.ZipFile(wheel) as held:
        library = held.read("lossfit/native/kernels.so")
    newest = max(tuple(map(int, version.split(b"."))) for version in re.findall(rb"GLIBC_([\d.]+)\0", library))
    needed = {*re.findall(rb"\0(lib[\w+.-]*\.so[\d.]*)(?=\0)", library)}
    if newest > GLIBC or needed - {b"libc.so.6", b"libm.so.6", b"libpthread.so.0", b"libdl.so.2"}:
        raise SystemExit(f"{wheel.name} needs glibc {newest} and {needed}.")
    print(f"{wheel}: needs glibc {'.'.join(map(str, newest))}")


if __name__ == "__main__":
    check(build(sys.argv[1] if len(sys.argv) > 1 else "x86_64"))
