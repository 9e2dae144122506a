"""Attack the library, and count what goes wrong.

    python scripts/attack.py                                     # all of it, into benchmarks/results/attack.json
    python scripts/attack.py --only inputs serving --share 0.05  # some of it, and fewer of each

numbers: rows at the ends of the numbers, for every loss and backend, against what is known of them.
parts:   damaged parts of a comparison, which must not be taken for whole ones.
kills:   commands killed (SIGKILL) at random moments and between any two steps, and gone on with.
inputs:  mutated files, each of which must be read or refused in a line.
serving: requests to lossfit serve over hostile folders.
ranks:   runs in which one rank brings something else, of which all ranks must raise the same error.

A wrong one is printed with what makes it again. Ends with 1 if there is one.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import torch

import lossfit

sys.path.insert(0, str(Path(__file__).parent))
from attacks import inputs, kills, numbers, parts, ranks, serving
from attacks.tally import Tally

ATTACKS = {
    "numbers": (numbers.run, 100_000),
    "parts": (parts.run, 600),
    "kills": (kills.run, 40),
    "inputs": (inputs.run, 5_000),
    "serving": (serving.run, 200),
    "ranks": (ranks.run, 20),
}
"""With how many are tried at least."""
RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "attack.json"


def attack(names: list[str], share: float, seed: int) -> dict[str, Tally]:
    """Each attack's tally; ``share`` of the whole counts are tried."""
    torch.set_num_threads(1)
    found = {}
    for name in names:
        run, count = ATTACKS[name]
        start = time.perf_counter()
        tally = run(max(1, round(share * count)), seed)
        tally.seconds = round(time.perf_counter() - start, 1)
        found[name] = tally
        print(f"{name}: {tally.tried:,} tried, {tally.wrong:,} wrong, in {tally.seconds:.0f} s", flush=True)
        for example in tally.examples:
            print(f"  wrong: {example}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--share", type=float, default=1.0, help="of the whole counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a .json file; if all of it runs, the one in benchmarks/results")
    asked = parser.parse_args()
    found = attack(asked.only, asked.share, asked.seed)
    out = asked.out or (RESULT if asked.share >= 1 and len(asked.only) == len(ATTACKS) else None)
    if out is not None:
        contents = {
            "command": "python scripts/attack.py",
            "versions": {
                "lossfit": lossfit.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "seed": asked.seed,
            "attacks": {name: tally.to_json() for name, tally in found.items()},
        }
        out.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    sys.exit(any(tally.wrong for tally in found.values()))


if __name__ == "__main__":
    main()
