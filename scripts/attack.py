"""Attack lossfit: extreme numbers, kills, damaged parts, mutated files, requests to `serve`, faulty ranks.

Every attack has a count and a seed. By default it is small; ``--full`` takes the counts that the page on reliability
names, and ``--json FILE`` keeps them::

    python scripts/attack.py [NAME ...] [--full] [--seed 0] [--json benchmarks/results/attack.json]
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

import torch

import lossfit

# Of each attack how many by default, and how many with --full.
COUNTS = {
    "numbers": (20_000, 120_000),
    "inputs": (100, 5_000),
    "parts": (20, 600),
    "serving": (20, 200),
    "kills": (2, 40),
    "ranks": (2, 20),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(COUNTS)}; all of them by default")
    parser.add_argument("--full", action="store_true", help="the counts of the page on reliability")
    parser.add_argument("--count", type=int, help="as many of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to keep what came of it, beside the attacks kept there")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(COUNTS)
    if unknown:
        parser.error(f"no such attack: {', '.join(sorted(unknown))}")
    wrong = 0
    for name in arguments.names or COUNTS:
        count = arguments.count or COUNTS[name][arguments.full]
        begun = time.monotonic()
        tally = importlib.import_module(f"attacks.{name}").run(count, arguments.seed)
        tally.seconds = round(time.monotonic() - begun, 1)
        wrong += tally.wrong
        print(f"{name}: {tally.wrong} wrong of {tally.tried} in {tally.seconds:.0f} s, seed {arguments.seed}")
        for example in tally.examples:
            print(f"  {example}")
        if arguments.json is not None:
            _keep(arguments.json, name, {"seed": arguments.seed, **tally.to_json()})
    return int(wrong > 0)


def _keep(path: Path, name: str, result: dict[str, object]) -> None:
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept["command"] = "python scripts/attack.py NAME ... --json benchmarks/results/attack.json"
    kept["versions"] = {"lossfit": lossfit.__version__, "torch": torch.__version__, "python": sys.version.split()[0]}
    kept.setdefault("attacks", {})[name] = result
    path.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
