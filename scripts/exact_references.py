"""P, 1 - P and slopes of EXACT to 40 digits, by mpmath: what tests/losses/single_label/test_exact.py compares with.

python scripts/exact_references.py    # half a minute; writes tests/losses/single_label/exact_references.json
"""

from __future__ import annotations

import json
from pathlib import Path

import mpmath as mp

FILE = Path(__file__).parents[1] / "tests" / "losses" / "single_label" / "exact_references.json"

# Rivals as (offset behind the best of them, how many): equal ones enter as a power, so that many cost no more than one.
Rivals = tuple[tuple[float, int], ...]
FIELDS: dict[str, Rivals] = {
    "1": ((0.0, 1),),
    "2": ((0.0, 1), (0.75, 1)),
    "9, ladder": ((0.0, 1), (0.5, 2), (1.25, 1), (2.0, 3), (4.0, 2)),
    "99, three levels": ((0.0, 3), (1.5, 36), (4.0, 60)),
    "999, equal": ((0.0, 999),),
    "99999, one ahead": ((0.0, 1), (2.0, 998), (5.0, 99_000)),
}
GAPS = (-30.0, -11.0, -4.0, -1.0, 0.0, 0.5, 2.0, 5.0, 12.0, 30.0)


def log_cdf(u: mp.mpf) -> mp.mpf:
    return mp.log(mp.ncdf(u)) if u < 0 else mp.log1p(-mp.ncdf(-u))


def reference(gap: float, rivals: Rivals) -> dict[str, object]:
    """P, 1 - P and dP/dz of one rival of each kind, by the trapezoidal rule over the target's noise.

    The integrands are entire with Gaussian tails: with steps this fine the rule is right to more than 30 digits.
    """
    with mp.workdps(40):
        win, lose, slopes = mp.mpf(0), mp.mpf(0), [mp.mpf(0)] * len(rivals)
        step = mp.mpf(1) / 8
        for i in range(-38 * 8, 45 * 8):
            x = i * step
            leads = [x + gap + mp.mpf(behind) for behind, _ in rivals]
            logs = [log_cdf(u) for u in leads]
            a = mp.fsum(n * log for (_, n), log in zip(rivals, logs, strict=True))
            density = mp.npdf(x)
            win += density * mp.exp(a)
            lose -= density * mp.expm1(a)
            for k, (u, log) in enumerate(zip(leads, logs, strict=True)):
                slopes[k] -= density * mp.exp(a - log) * mp.npdf(u)
        return {"win": str(step * win), "lose": str(step * lose), "slopes": [str(step * s) for s in slopes]}


def references() -> list[dict[str, object]]:
    return [
        {"field": field, "gap": gap, "rivals": rivals, **reference(gap, rivals)}
        for field, rivals in FIELDS.items()
        for gap in GAPS
    ]


def main() -> None:
    FILE.write_text(json.dumps(references(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
