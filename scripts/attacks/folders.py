"""Small comparisons, models and data to attack."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from PIL import Image
from typer.testing import CliRunner, Result

from lossfit.commands.app import app

QUICK = (
    "--losses",
    "focal,poly",
    "--folds",
    "3",
    "--repeats",
    "1",
    "--trials",
    "2",
    "--workers",
    "1",
    "--model",
    "linear",
)


def run(*arguments: object) -> Result:
    """A command, in this process."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


def sound(*arguments: object) -> None:
    """A command that must end well."""
    found = run(*arguments)
    if found.exit_code:
        raise AssertionError(f"lossfit {' '.join(map(str, arguments))} ended with {found.exit_code}: {found.output}")


def table(rows: int = 80, seed: int = 0) -> pl.DataFrame:
    """Numbers, categories and texts, with three classes."""
    rng = np.random.default_rng(seed)
    label = np.arange(rows) % 3
    return pl.DataFrame(
        {
            "age": rng.normal(40, 9, rows) + 8 * label,
            "visits": rng.poisson(3, rows),
            "city": [("Rome", "Oslo", 'La "Paz", BO')[v] for v in (label + rng.integers(0, 2, rows)) % 3],
            "note": [
                f"{('fine', 'late', 'cold')[c]} service {'and more' if i % 2 else 'as ever'}"
                for i, c in enumerate(label)
            ],
            "grade": [("low", "mid", "high")[c] for c in label],
        }
    )


def predictions(rows: int = 60) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(rows, 3)) + 2 * np.eye(3)[np.arange(rows) % 3]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return pl.DataFrame(
        {"p_a": p[:, 0], "p_b": p[:, 1], "p_c": p[:, 2], "y": [("a", "b", "c")[i % 3] for i in range(rows)]}
    )


def saved_dataset(folder: Path) -> None:
    """As Hugging Face's datasets saves one."""
    folder.mkdir()
    rows = pa.table({"x": [float(i % 7) for i in range(40)], "label": [i % 2 for i in range(40)]})
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file,
        pa.ipc.new_stream(file, rows.schema) as stream,
    ):
        stream.write_table(rows)
    features = {
        "x": {"dtype": "float64", "_type": "Value"},
        "label": {"names": ["no", "yes"], "_type": "ClassLabel"},
    }
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_indices_data_files": None}
    (folder / "state.json").write_text(json.dumps(state))


def pictures(folder: Path) -> None:
    rng = np.random.default_rng(2)
    for i, suffix in enumerate(("png", "jpg", "gif", "bmp", "png", "webp", "png", "tif", "ppm", "png", "png", "png")):
        inside = folder / ("dark", "light")[i % 2]
        inside.mkdir(parents=True, exist_ok=True)
        pixels = (rng.integers(0, 100, (10, 10, 3)) + 120 * (i % 2)).astype(np.uint8)
        Image.fromarray(pixels).save(inside / f"{i:02d}.{suffix}")


def everything(root: Path) -> None:
    """Data of every kind, two comparisons with a model, and one over label noise; all paths are below ``root``."""
    frame = table()
    frame.write_csv(root / "t.csv")
    frame.write_csv(root / "t.tsv", separator="\t")
    frame.write_csv(root / "s.csv", separator=";")
    frame.write_parquet(root / "t.parquet")
    predictions().write_csv(root / "p.csv")
    rng = np.random.default_rng(3)
    y = np.arange(60) % 2
    np.savez_compressed(root / "t.npz", X=(rng.normal(size=(60, 3)) + y[:, None]).astype(np.float32), y=y)
    saved_dataset(root / "saved")
    pictures(root / "pictures")
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        named = ("--target", "grade", "--text", "note")
        sound("compare", root / "t.csv", *named, *QUICK, "--out", root / "out")
        sound("export", root / "out", "--source", root / "t.csv")
        sound("compare", root / "t.csv", "--target", "grade", "--drop", "note", *QUICK, "--out", root / "other")
        sound("compare", root / "t.npz", *QUICK, "--label-noise", "0,0.2", "--out", root / "noise")
