"""How much longer `import lossfit` and commands that train nothing take than `import torch`.

    python benchmarks/import_time.py [--rounds 15]    # some minutes; writes benchmarks/results/import-cpu.json

Each runs in a process of its own, and they take turns. The processor time of the whole process counts, since other
programs lengthen it the least; a ratio is the median over rounds of the quotient within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import torch

import lossfit

BASELINE = "import torch"
COMMANDS = {
    BASELINE: ["-c", "import torch"],
    "import lossfit": ["-c", "import lossfit"],
    "lossfit --version": ["-m", "lossfit", "--version"],
    "lossfit --help": ["-m", "lossfit", "--help"],
    "lossfit list": ["-m", "lossfit", "list"],
    "lossfit comapre": ["-m", "lossfit", "comapre"],
}


def seconds(arguments: list[str]) -> float:
    """Processor time, in user mode and in the kernel."""
    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=False, capture_output=True, env=compiled)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="rounds (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "import-cpu.json")
    args = parser.parse_args()
    for arguments in COMMANDS.values():
        seconds(arguments)  # files in the cache
    rounds = [{name: seconds(arguments) for name, arguments in COMMANDS.items()} for _ in range(args.rounds)]
    ratios = {
        name: statistics.median(taken[name] / taken[BASELINE] for taken in rounds)
        for name in COMMANDS
        if name != BASELINE
    }
    result = {
        "command": f"python benchmarks/import_time.py --rounds {args.rounds}",
        "hardware": {"cpu": platform.processor() or platform.machine(), "python": platform.python_version()},
        "versions": {"torch": torch.__version__, "lossfit": lossfit.__version__},
        "seconds": {name: [round(taken[name], 3) for taken in rounds] for name in COMMANDS},
        "median_s": {name: round(statistics.median(taken[name] for taken in rounds), 3) for name in COMMANDS},
        "ratio": {name: round(ratio, 3) for name, ratio in ratios.items()},
    }
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, ratio in ratios.items():
        print(f"{name:<18} {result['median_s'][name]:.2f} s, {ratio:.2f} x {BASELINE}")  # type: ignore[index]


if __name__ == "__main__":
    main()
