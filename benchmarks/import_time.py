"""How much longer `import lossfit` takes than `import torch`.

    python benchmarks/import_time.py [--rounds 15]    # about a minute; writes benchmarks/results/import-cpu.json

Each import runs in a process of its own; the two take turns, and the ratio of the medians is what counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import torch

import lossfit

CLOCKED = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def seconds(module: str) -> float:
    command = [sys.executable, "-c", CLOCKED.format(module)]
    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=compiled).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="rounds (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "import-cpu.json")
    args = parser.parse_args()
    found: dict[str, list[float]] = {"torch": [], "lossfit": []}
    for module in found:
        seconds(module)  # files in the cache
    for _ in range(args.rounds):
        for module, taken in found.items():
            taken.append(seconds(module))
    medians = {module: statistics.median(taken) for module, taken in found.items()}
    ratio = medians["lossfit"] / medians["torch"]
    result = {
        "hardware": {"cpu": platform.processor() or platform.machine(), "python": platform.python_version()},
        "versions": {"torch": torch.__version__, "lossfit": lossfit.__version__},
        "seconds": {module: [round(s, 4) for s in taken] for module, taken in found.items()},
        "median_s": {module: round(s, 4) for module, s in medians.items()},
        "ratio": round(ratio, 4),
    }
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"import torch {medians['torch']:.3f} s, import lossfit {medians['lossfit']:.3f} s: {ratio:.3f}")


if __name__ == "__main__":
    main()
