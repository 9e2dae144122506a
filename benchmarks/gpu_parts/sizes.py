"""What is measured, and for how long: as the targets ask, and tiny for a smoke run."""

from __future__ import annotations

from typing import Any

SCHEMA = 1

PARTS = ("ceilings", "dense", "linear", "links", "exact", "language_model", "classes", "rows")
"""In the order of their importance: what comes last is skipped first."""

SECONDS = {
    "ceilings": 40.0,
    "dense": 90.0,
    "linear": 130.0,
    "links": 90.0,
    "exact": 70.0,
    "language_model": 120.0,
    "classes": 80.0,
    "rows": 80.0,
}
"""The most that a part may take, its imports and compilations included."""

VOCABULARY = 128_256

FULL: dict[str, Any] = {
    "copy_bytes": 4 << 30,
    "matrix": 8192,
    "dense": (8192, VOCABULARY),
    "dense_check": (67, VOCABULARY),
    "linear": (16384, 4096, VOCABULARY),
    "linear_check": (1031, 512, VOCABULARY),
    # How far the scores are spread: at random, and as in a trained model, where few classes have most probability.
    "spreads": (2.0, 5.0),
    "links": None,  # all
    "links_check": (67, 96, 8191),
    # Rows and classes.
    "exact": ((8192, 1000), (1024, 32000)),
    "exact_check_rows": 65,
    "sweep_features": 2048,
    "sweep_check": (67, 128),
    "classes": (1000, 4000, 16_000, 64_000, 256_000, 1_000_000),
    "classes_scores": 1 << 29,
    "classes_rows": 4096,
    "rows": (1024, 4096, 16_384, 65_536),
    "rows_classes": VOCABULARY,
    "text": {
        "vocabulary": VOCABULARY,
        "groups": 16,
        "features": 1024,
        "layers": 4,
        "heads": 8,
        "positions": 1024,
        "batch": 8,
        "steps": 300,
    },
    "rounds": (7, 40),
    "links_rounds": (7, 40),
    "sweep_rounds": (5, 15),
}

SMOKE: dict[str, Any] = {
    "copy_bytes": 1 << 16,
    "matrix": 32,
    "dense": (2, 300),
    "dense_check": (2, 300),
    "linear": (3, 8, 50),
    "linear_check": (2, 8, 50),
    "spreads": (2.0, 5.0),
    "links": ("cross_entropy", "focal", "hinge", "sensitivity"),
    "links_check": (1, 6, 21),
    "exact": ((1, 5), (1, 9)),
    "exact_check_rows": 1,
    "sweep_features": 8,
    "sweep_check": (1, 8),
    "classes": (10, 40),
    "classes_scores": 40,
    "classes_rows": 2,
    "rows": (1, 2),
    "rows_classes": 30,
    "text": {
        "vocabulary": 80,
        "groups": 8,
        "features": 16,
        "layers": 1,
        "heads": 2,
        "positions": 4,
        "batch": 1,
        "steps": 8,
    },
    "rounds": (2, 2),
    "links_rounds": (1, 1),
    "sweep_rounds": (1, 1),
}
