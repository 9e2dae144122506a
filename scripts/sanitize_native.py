"""The tests of the native kernels under the address and undefined-behaviour sanitizers of the compiler.

python scripts/sanitize_native.py [arguments of pytest]

The kernels are compiled anew with them, beside the library that is installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import hatch_build  # noqa: E402

SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O1"]


def runtime(command: list[str]) -> str:
    """The sanitizer's library, which must be there before Python's own allocations."""
    found = subprocess.run([*command, "-print-file-name=libasan.so"], check=True, capture_output=True, text=True)
    return str(Path(found.stdout.strip()).resolve())


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "kernels.so")
        command = hatch_build.compiler()
        hatch_build.build(library, command, extra=SANITIZERS)
        environment = {
            **os.environ,
            "LOSSFIT_NATIVE": str(library),
            "LD_PRELOAD": runtime(command),
            "ASAN_OPTIONS": "detect_leaks=0",  # Python keeps what it has at its end
            "OMP_NUM_THREADS": "2",
        }
        tests = sys.argv[1:] or [str(ROOT / "tests" / "native")]
        return subprocess.run([sys.executable, "-m", "pytest", "-p", "no:xdist", *tests], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
