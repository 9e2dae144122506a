"""New rows as people bring them: nothing is changed or filled in without a word."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from lossfit.compare.data import dataset
from lossfit.compare.errors import InputError
from lossfit.compare.export import final
from lossfit.compare.export.model import Model, load
from lossfit.compare.plan import Plan

ROWS = 60


def table(rows: int = ROWS) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    flag = rng.random(rows) < 0.5
    days = [datetime.date(2024, 1, 1) + datetime.timedelta(days=int(d)) for d in rng.integers(0, 400, rows)]
    return pl.DataFrame(
        {
            "id": [f"{i:04d}" for i in range(rows)],
            "flag": [str(value) for value in flag],
            "price": [f"${price:,}" for price in rng.integers(500, 3000, rows)],
            "zip": [("00501", "02139", "94105", "501")[v] for v in rng.integers(0, 4, rows)],
            "day": [day.strftime("%d.%m.%Y") for day in days],
            "vip": [("1.10", "1.9")[v] for v in rng.integers(0, 2, rows)],
            "y": [("True" if f ^ (rng.random() < 0.2) else "False") for f in flag],
        }
    )


def entry(loss: str) -> dict[str, Any]:
    """As a summary has one."""
    training = {"learning_rate": 0.02, "weight_decay": 0.1, "steps": 300, "of": 400, "batch": 128}
    return {"loss": loss, "params": {}, "training": training, "step": []}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    table().write_csv(folder / "t.csv")
    plan = Plan(str(folder / "t.csv"), "y", model="linear")
    final.fit(plan, plan.load(), entry("cross_entropy"), "linear").save(folder / "model")
    return load(folder / "model")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[pl.DataFrame], str]:
    def to(frame: pl.DataFrame) -> str:
        frame.write_csv(tmp_path / "new.csv")
        return str(tmp_path / "new.csv")

    return to


def test_what_was_read_is_stored_with_the_model(model: Model) -> None:
    told = {name: found.describe() for name, found in model.reading.formats.items()}
    assert told == {
        "flag": "boolean",
        "price": "$, thousands by commas",
        "day": "date: year, month, weekday, days",
        "vip": "",
    }
    assert model.reading.categorical == ["zip"]
    assert model.classes == ["False", "True"]


def test_rows_in_any_spelling_are_predicted_alike(model: Model, write: Callable[[pl.DataFrame], str]) -> None:
    new = table().head(20)
    found = model.predictions(write(new))
    assert found.labelled == 20
    assert found.notes == []
    numbers = new["price"].str.replace_all(r"[$,]", "").cast(pl.Int64)
    days = new["day"].str.to_date("%d.%m.%Y")
    others = [
        new.with_columns(flag=new["flag"].str.to_uppercase(), y=new["y"].str.to_lowercase()),
        new.with_columns(flag=pl.when(new["flag"] == "True").then(pl.lit("yes")).otherwise(pl.lit("no"))),
        new.with_columns(price=numbers.cast(pl.String)),
        new.with_columns(zip=" " + new["zip"] + " "),
        new.rename({"price": "Price", "y": "Y"}),
    ]
    for other in others:
        again = model.predictions(write(other))
        assert again.table.equals(found.table)
        assert again.metrics == found.metrics
    typed = new.with_columns(flag=new["flag"] == "True", price=numbers, day=days, y=new["y"] == "True")
    again = model.predictions(typed)
    assert again.table.equals(found.table)
    assert again.metrics == found.metrics


def test_a_cell_that_cannot_be_read_is_counted_and_named(model: Model, write: Callable[[pl.DataFrame], str]) -> None:
    new = table().head(20)
    stray = new.with_columns(flag=pl.when(pl.col("id") == "0003").then(pl.lit("unknown")).otherwise("flag"))
    told = "The column 'flag' is of booleans, but holds 'unknown' in row 4 (1 of 20 rows are no booleans)."
    with pytest.raises(InputError) as caught:
        model.predict(write(stray))
    assert str(caught.value) == f"{told} Pass --impute to take these for missing."
    found = model.predictions(write(stray), impute=True)
    assert found.notes == [f"{told} They are filled in by the median of the training rows."]
    same = np.arange(20) != 3
    assert found.table.filter(same).equals(model.predict(write(new)).filter(same))


def test_a_column_of_which_much_cannot_be_read_is_refused(model: Model, write: Callable[[pl.DataFrame], str]) -> None:
    new = table().head(20)
    with pytest.raises(InputError, match=r"\(20 of 20 rows are no numbers\)\. That is more than 20% of the rows"):
        model.predict(write(new.with_columns(price=pl.lit("cheap"))), impute=True)


def test_missing_cells_are_counted(model: Model, write: Callable[[pl.DataFrame], str]) -> None:
    new = (
        table()
        .head(20)
        .with_columns(
            price=pl.when(pl.col("id") < "0002").then(pl.lit("n/a")).otherwise("price"),
            day=pl.lit(""),
            zip=pl.lit("NA"),
        )
    )
    with pytest.raises(InputError) as caught:
        model.predict(write(new))
    assert len(str(caught.value).splitlines()) == 3
    notes = model.predictions(write(new), impute=True).notes
    assert notes[:3] == [
        "Filled in by the median of the training rows: 'price' in 2 rows, among them 'n/a' (2).",
        "Filled in by the median of the training rows: 'day' in 20 rows, which is every row.",
        "Filled in by the category 'missing': 'zip' in 20 rows, which is every row, among them 'NA' (20).",
    ]


def test_categories_that_were_not_there_are_named(model: Model, write: Callable[[pl.DataFrame], str]) -> None:
    new = table().head(20).with_columns(zip=pl.when(pl.col("id") == "0001").then(pl.lit("K1A")).otherwise("zip"))
    assert model.predictions(write(new)).notes == [
        "The column 'zip' holds categories that the model was not trained on in 1 rows, 'K1A': each is taken for none "
        "of them."
    ]


def test_columns_are_passed_on_as_they_are_written(model: Model, write: Callable[[pl.DataFrame], str]) -> None:
    more = pl.DataFrame({"version": ["1.10", "2.0"] * 10, "land": ["NA", "ZA"] * 10, "note": ["", " x "] * 10})
    new = pl.concat([table().head(20), more], how="horizontal")
    kept = ("id", "Zip", "version", "land", "note")
    found = model.predict(write(new), keep=kept)
    assert found.select("id", "zip", "version", "land", "note").equals(new.select("id", "zip", *more.columns))


def test_classes_that_the_model_does_not_know_are_named(model: Model, write: Callable[[pl.DataFrame], str]) -> None:
    some = table().head(20)
    part = model.predictions(write(some.filter(pl.col("y") == "True")))
    assert part.labelled == (some["y"] == "True").sum()
    new = some.with_columns(y=pl.when(pl.col("id") == "0001").then(pl.lit("perhaps")).otherwise("y"))
    found = model.predictions(write(new))
    assert found.labelled == 19
    assert found.notes == [
        "1 rows without a known class in 'y' are not in the metrics, which the model knows no class of: 'perhaps'."
    ]
    none = model.predictions(write(some.with_columns(y=pl.lit("perhaps"))))
    assert none.labelled == 0
    assert "knows no class of: 'perhaps'" in none.notes[0]


def test_tags_of_new_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=80)
    tags = ["|".join(name for name, c in (("a", -0.5), ("b", 0.5)) if v > c) for v in x]
    pl.DataFrame({"x": x, "tags": tags}).write_csv(tmp_path / "t.csv")
    plan = Plan(str(tmp_path / "t.csv"), "tags", model="linear", multi_label=True, metric="micro_f1")
    fitted = final.fit(plan, plan.load(), entry("bce"), "linear")
    fitted.save(tmp_path / "model")
    found = load(tmp_path / "model").predictions(str(tmp_path / "t.csv"))
    assert found.table.columns == ["a", "b", "p_a", "p_b"]
    assert found.labelled == 80
    truth = np.array([["a" in tag, "b" in tag] for tag in tags])
    right = found.table.select("a", "b").to_numpy() == truth
    assert found.metrics["subset_accuracy"] == pytest.approx(right.all(1).mean())
    assert right.mean() > 0.9


def test_images_of_another_depth_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 6, 6), dtype=np.uint8)
    pixels[::2] //= 2
    np.savez(tmp_path / "t.npz", X=pixels, y=np.arange(40) % 2)
    plan = Plan(str(tmp_path / "t.npz"), model="linear")
    data = dataset.load(plan.source if isinstance(plan.source, str) else plan.source[0])
    fitted = final.fit(plan, data, entry("cross_entropy"), "linear")
    assert fitted.predict(pixels).height == 40
    with pytest.raises(InputError, match="Expected images of 8 bits, from 0 to 255, but the table holds float32 from"):
        fitted.predict(pixels / np.float32(255))
