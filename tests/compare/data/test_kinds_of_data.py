"""The command on data of every kind, from the file to the report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from lossfit.commands.app import app
from lossfit.compare.errors import InputError
from lossfit.compare.plan import Plan
from lossfit.compare.running import engine
from trainings import QUICK, short_trainings

ROWS = 80
RNG = np.random.default_rng(0)
Y = np.arange(ROWS) % 2
FRAME = pl.DataFrame(
    {
        "x": Y + RNG.normal(size=ROWS),
        "z": RNG.normal(size=ROWS),
        "y": [("no", "yes")[c] for c in Y],
        "site": np.arange(ROWS) // 2 % 10,
        "w": RNG.random(ROWS) + 0.5,
        "held": np.arange(ROWS) // 2 % 4 == 0,
        "neg": np.where(Y == 0, 3, 1),
        "pos": np.where(Y == 1, 4, 0),
        "day": [20200100 + i for i in range(ROWS)],
    }
)
OPTIONS = ("--losses", "focal", "--folds", "3", "--repeats", "1", "--trials", "1", "--workers", "1", "--out", "out")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def compare(*arguments: object) -> Result:
    with short_trainings():
        return CliRunner().invoke(app, ["compare", *(str(a) for a in arguments), *OPTIONS])


def done(*arguments: object) -> dict[str, Any]:
    """The summary of a comparison that ran; the notes are in the report, and what was read on the screen."""
    found = compare(*arguments)
    assert found.exit_code == 0, found.output
    summary: dict[str, Any] = json.loads(Path("out/summary.json").read_text())
    assert summary["trainings"] == 2 * 3
    assert pl.read_parquet("out/passes.parquet").height in (4, 6, 8, 12)
    assert summary["failed_settings"] == 0
    report = Path("out/report.html").read_text()
    for note in summary["data"]["notes"]:
        assert note.replace("'", "&#39;") in report.replace("&#x27;", "&#39;")
        assert note in " ".join(found.stdout.split())
    assert "Column" in found.stdout.splitlines()[1]
    return summary


def refused(*arguments: object) -> str:
    found = compare(*arguments)
    assert found.exit_code == 2, found.output
    assert (found.stdout, "Traceback" in found.stderr, Path("out").exists()) == ("", False, False)
    return " ".join(found.stderr.split())


def test_arrays() -> None:
    np.savez("a.npz", X=RNG.normal(size=(ROWS, 3)), y=Y)
    assert done("a.npz")["data"]["classes"] == {"0": 40, "1": 40}


def test_a_folder_of_images() -> None:
    for c, name in enumerate(("cat", "dog")):
        Path("photos", name).mkdir(parents=True)
        for i in range(20):
            pixels = (RNG.random((9, 7)) * 100 + 100 * c).astype(np.uint8)
            Image.fromarray(pixels).save(Path("photos", name, f"{i}.png"))
    found = done("photos")
    assert found["data"]["notes"] == ["Images of 9 x 7 pixels, grey."]
    assert found["losses"][0]["test"]["accuracy"]["mean"] > 0.9


def test_every_option_at_once() -> None:
    FRAME.with_columns(held=pl.col("site") < 2).write_csv("a.csv")
    found = done(
        "a.csv", "--votes", "neg,pos", "--group", "site", "--weight", "w", "--test-column", "held", "--drop", "y"
    )  # fmt: skip
    notes = " ".join(found["data"]["notes"])
    assert "The classes are the columns neg, pos" in notes
    assert "No value of 'site' is in two folds; there are 10 of them." in notes
    assert "Rows count by 'w', in training and in the metrics." in notes
    assert "Left out: the column 'day', an id, different in every row; --numeric or --categorical keeps it." in notes
    assert "Every model is tested on the 16 rows that are given for it" in notes


def test_a_test_file_and_fewer_rows() -> None:
    columns = FRAME.select("x", "z", "y")
    columns[:60].write_csv("train.csv")
    pl.concat([columns[60:], columns[:2]]).write_csv("test.csv")
    found = done("train.csv", "--target", "y", "--test", "test.csv", "--max-rows", 40)
    notes = found["data"]["notes"]
    assert notes[0] == ("Of 60 rows 40 take part (--max-rows).")
    assert notes[1] == "Every model is tested on the 22 rows that are given for it; folds are made of the others."
    assert notes[2].startswith("Duplicates: 4 of 82 rows have the same features as another row. On average ")


def test_groups_of_very_different_sizes() -> None:
    sizes = [30, 20, 10, 10, 10]
    FRAME.with_columns(site=np.repeat(np.arange(5), sizes)).select("x", "y", "site").write_csv("a.csv")
    done("a.csv", "--target", "y", "--group", "site")


def test_given_test_rows_without_a_class() -> None:
    held = np.arange(ROWS) % 8 == 0
    FRAME.with_columns(held=held).select("x", "y", "held").write_csv("a.csv")
    found = done("a.csv", "--target", "y", "--test-column", "held")
    assert "No row to test on has the class 'yes'." in found["data"]["notes"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("gone",), "Expected SOURCE to be one of tweets, yeast or a .csv, .tsv, .txt, .json, .jsonl, .xlsx, .arrow"),
        (("gone.npz",), "There is no file 'gone.npz'"),
        (("empty",), "Expected the folder 'empty' to hold a folder of images for each class"),
        (("broken.npz",), "cannot be read as .npz: it is no archive"),
        (("t.csv",), "Name the column with the classes by --target"),
        (("t.csv", "--target", "y", "--votes", "neg,pos"), "one of --target and --votes, but got both"),
        (("t.csv", "--votes", "neg"), "--votes to name a column for each class"),
        (("t.csv", "--target", "y", "--group", "sit"), "--group: there is no column 'sit'"),
        (("t.csv", "--target", "y", "--weight", "z"), "Expected weights of at least 0 in the column 'z'"),
        (("t.csv", "--target", "y", "--numeric", "y"), "--numeric: the column 'y' is named by --target already"),
        (("t.csv", "--target", "day"), "Each of the 80 rows has a class of its own"),
        (("t.csv", "--target", "one"), "Every class needs at least 3 rows, so that each training has one."),
        (("t.csv", "--target", "y", "--test", "other.csv"), "lack the columns 'neg', 'pos'"),
        (("t.csv", "--target", "y", "--test-column", "x"), "Expected the column 'x' to tell the rows to test on"),
        (("t.csv", "--target", "y", "--max-rows", "-1"), "Expected --max-rows of at least 0"),
        (("yeast", "--group", "y"), "The bundled set 'yeast' needs no"),
        (("yeast", "--test", "t.csv"), "The bundled set 'yeast' needs no"),
    ],
)  # fmt: skip
def test_bad_input_is_named(arguments: tuple[str, ...], told: str) -> None:
    FRAME.with_columns(one=pl.Series(["a", *((ROWS - 1) * ["b"])])).write_csv("t.csv")
    FRAME.drop("neg", "pos").with_columns(one=pl.lit("b")).write_csv("other.csv")
    Path("broken.npz").write_bytes(b"PK no")
    Path("empty").mkdir()
    assert told in refused(*arguments)


def test_classes_of_one_row_are_named_and_counted() -> None:
    FRAME.with_columns(y=pl.Series([f"c{i}" for i in range(20)] + 60 * ["b"])).write_csv("t.csv")
    assert "'c0' (1), 'c1' (1)" in (told := refused("t.csv", "--target", "y"))
    assert "and 10 more." in told


def test_the_same_data_from_any_file_gives_the_same_results(tmp_path: Path) -> None:
    frame = FRAME.select("x", "z", "y")
    frame.write_csv("a.csv")
    np.savez("a.npz", X=frame.select("x", "z").to_numpy(), y=frame["y"].to_numpy().astype(str))
    plans = [
        Plan(source, target, losses="focal", folds=3, repeats=1, trials=2)
        for source, target in (("a.csv", "y"), ("a.npz", None))
    ]
    found = [engine.run(plan, tmp_path / plan.source[-3:], limits=QUICK).results for plan in plans]
    assert found[0].drop("seconds").equals(found[1].drop("seconds"))


def test_the_test_file_is_part_of_what_is_resumed(tmp_path: Path) -> None:
    FRAME.select("x", "z", "y").write_csv("a.csv")
    FRAME[::2].select("x", "z", "y").write_csv("b.csv")
    plan = Plan("a.csv", "y", losses="focal", folds=3, repeats=1, trials=1, test="b.csv")
    engine.run(plan, tmp_path / "out", limits=QUICK)
    FRAME[::4].select("x", "z", "y").write_csv("b.csv")
    with pytest.raises(InputError, match="The data has changed since the comparison"):
        engine.run(plan, tmp_path / "out", resume=True)
