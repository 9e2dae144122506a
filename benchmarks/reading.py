"""What reading a .csv file of 50 MB takes until training can start, in time and memory, against an older lossfit.

    git worktree add /tmp/before c54b83a
    python benchmarks/reading.py --before /tmp/before/src     # minutes; writes benchmarks/results/reading-cpu.json

Each reading runs in a process of its own: from the path to the matrices of two splits. The two take turns, since other
programs lengthen both. The processor time in user mode counts, from after the imports on, and the largest memory of the
process; a ratio is the median over rounds of the quotient within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

ROWS = {"numbers": 310_000, "mixed": 560_000}
_READ = """
import json, resource, sys
from lossfit.compare.data import splits
from lossfit.compare.data.dataset import load
from lossfit.compare.features import make
before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
data = load(sys.argv[1], "y", impute=True)
matrices = make.make(data, splits.draw(data, 2, 0, 0.0, 20_000))
after = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"seconds": after.ru_utime - before, "megabytes": after.ru_maxrss / 1024, "rows": data.rows}))
"""


def write(kind: str, path: Path) -> None:
    """A file of about 50 MB: of numbers alone, or with whole numbers, words and missing cells."""
    rng, rows = np.random.default_rng(0), ROWS[kind]
    x = rng.normal(size=rows)
    columns = {"x": np.round(x, 4)}
    if kind == "numbers":
        columns |= {f"x{i}": np.round(rng.normal(size=rows), 4) for i in range(20)}
    else:
        columns |= {f"x{i}": np.round(rng.normal(size=rows), 4) for i in range(6)}
        columns |= {f"n{i}": rng.integers(0, 1000, rows) for i in range(4)}
        words = np.array(["red", "green", "light blue", "violet"])
        columns |= {f"c{i}": words[rng.integers(0, 4, rows)] for i in range(3)}
        columns["m"] = np.where(rng.random(rows) < 0.1, "NA", np.round(x, 2).astype(str))
    columns["y"] = np.where(x + rng.normal(size=rows) > 0, "yes", "no")
    pl.DataFrame(columns).write_csv(path)


def read(path: Path, src: str) -> dict[str, float]:
    """The time and memory of a process that reads the file with the sources in ``src``."""
    env = {**os.environ, "PYTHONPATH": src}
    done = subprocess.run([sys.executable, "-c", _READ, str(path)], capture_output=True, text=True, check=True, env=env)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, help="the sources of the older lossfit")
    parser.add_argument("--kinds", default="numbers,mixed", help="of files (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "reading-cpu.json")
    args = parser.parse_args()
    sources = {"before": args.before, "now": str(Path(__file__).parents[1] / "src")}
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in args.kinds.split(","):
            path = Path(folder) / f"{kind}.csv"
            write(kind, path)
            rounds = [{name: read(path, src) for name, src in sources.items()} for _ in range(args.rounds)]
            files[kind] = {"megabytes": round(path.stat().st_size / 1e6, 1), "rows": ROWS[kind], **_told(rounds)}
            print(kind, json.dumps(files[kind]))
    result = {
        "command": f"python benchmarks/reading.py --before SRC --kinds {args.kinds} --rounds {args.rounds}",
        "before": "c54b83a",
        "hardware": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), "polars": pl.__version__},
        "files": files,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _told(rounds: list[dict[str, dict[str, float]]]) -> dict[str, object]:
    def median(name: str, what: str) -> float:
        return round(statistics.median(taken[name][what] for taken in rounds), 2)

    ratios = {
        what: [taken["now"][what] / taken["before"][what] for taken in rounds] for what in ("seconds", "megabytes")
    }
    return {
        "before": {what: median("before", what) for what in ratios},
        "now": {what: median("now", what) for what in ratios},
        "ratio": {
            what: {"median": round(statistics.median(r), 3), "low": round(min(r), 3), "high": round(max(r), 3)}
            for what, r in ratios.items()
        },
    }


if __name__ == "__main__":
    main()
