"""Make pictures/compare.png, the README's picture, from the results of ``make demo``: the first ten, the last four.

make demo
python scripts/readme_picture.py
"""

import json
from pathlib import Path

import altair as alt

from lossfit import plot
from lossfit.compare.report.charts import differences

ROOT = Path(__file__).parents[1]
TITLES = {
    "tweets": "tweets, as the raters labelled them",
    "tweets-noisy": "tweets, 40% of the training labels wrong",
    "yeast": "yeast, 10 classes of 438 down to 5 rows",
}


def main() -> None:
    both = []
    for name, title in TITLES.items():
        summary = json.loads((ROOT / "demo" / name / "summary.json").read_text(encoding="utf-8"))
        summary["losses"] = [*summary["losses"][:10], *summary["losses"][-4:]]  # most is expected first
        both.append(differences(summary, width=260, legend=True).properties(title=alt.Title(title, fontSize=12)))
    path = ROOT / "pictures" / "compare.png"
    path.parent.mkdir(exist_ok=True)
    plot.write(alt.hconcat(*both, spacing=30), path)
    print(f"Wrote {path}")


if __name__ == "__main__":
    main()
