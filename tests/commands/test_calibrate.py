"""lossfit calibrate, as its users meet it."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from torch import Tensor
from torchmetrics.classification import MulticlassCalibrationError
from typer.testing import Result

import command
from lossfit.calibration import MatrixScaling, TemperatureScaling
from lossfit.compare.calibrate import recalibrate
from lossfit.compare.calibrate.predictions import read

NAMES = ["cat", "dog", "bird"]
FAST = ("--resamples", 100, "--ridge", 1, "--picture", "svg")


def run(*arguments: object) -> Result:
    return command.run("calibrate", *arguments)


def refused(*arguments: object) -> str:
    return command.refused("calibrate", *arguments)


def predictions(rows: int = 300, classes: int = 3, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    """Logits `scale` times too large."""
    z = 1.5 * torch.randn(rows, classes, dtype=torch.float64)
    return scale * z, z.softmax(1).multinomial(1).squeeze(1)


def frame(z: Tensor, y: Tensor, before: str = "logit_", named: bool = True) -> pl.DataFrame:
    columns = {f"{before}{name}": z[:, c].numpy() for c, name in enumerate(NAMES)}
    return pl.DataFrame({**columns, "label": [NAMES[i] for i in y] if named else y.numpy()})


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def summary(folder: str = "lossfit-calibrate-t") -> dict:
    return json.loads(Path(folder, "calibration.json").read_text())


class TestAnswers:
    """What it finds."""

    def test_temperature_repairs_what_a_temperature_broke(self) -> None:
        frame(*predictions(600)).write_csv("t.csv")
        found = run("t.csv", "--target", "label", *FAST)
        assert found.exit_code == 0, found.output
        told = summary()
        assert told["recommended"] == "temperature"
        assert told["methods"]["temperature"]["temperature"] == pytest.approx(3, rel=0.2)
        assert told["scores"] == "logits"
        assert told["classes"] == NAMES
        assert told["test_rows"] == 300
        test = {m: v["test"] for m, v in told["methods"].items()}
        assert test["temperature"]["accuracy"] == test["as_is"]["accuracy"]
        for metric in ("log_loss", "brier", "calibration_error", "calibration_error_equal_mass"):
            assert test["temperature"][metric]["value"] < test["as_is"][metric]["value"]
            assert told["methods"]["temperature"]["vs_as_is"][metric]["ci95"][1] < 0
        assert "600 rows (300 to fit by, 300 to test), 3 classes, read as logits." in found.stdout
        assert "Temperature scaling lowers the log loss by" in found.stdout
        assert max(map(len, found.stdout.splitlines()[2:13])) <= 80
        assert "…" not in found.stdout

    def test_its_numbers_are_those_of_scikit_learn_and_torchmetrics(self) -> None:
        z, y = predictions()
        frame(z, y).write_csv("t.csv")
        assert run("t.csv", "--target", "label", *FAST).exit_code == 0
        table = pl.read_csv("lossfit-calibrate-t/calibrated.csv")
        test = (table["part"] == "test").to_numpy()
        assert table["label"].to_list() == [NAMES[i] for i in y]
        told = summary()["methods"]
        for method, p in (
            ("as_is", z.softmax(1).numpy()),
            ("temperature", table.select(f"p_{n}" for n in NAMES).to_numpy()),
        ):
            p, labels = p[test], y.numpy()[test]
            found = {k: v["value"] for k, v in told[method]["test"].items()}
            assert found["log_loss"] == pytest.approx(log_loss(labels, p, labels=range(3)), rel=1e-9)
            assert found["accuracy"] == (p.argmax(1) == labels).mean()
            assert found["brier"] == pytest.approx(((p - np.eye(3)[labels]) ** 2).sum(1).mean())
            error = MulticlassCalibrationError(3, n_bins=15)(torch.tensor(p), torch.tensor(labels)).item()
            assert found["calibration_error"] == pytest.approx(error, rel=1e-5)

    def test_the_scalings_saw_only_the_rows_to_fit_by(self) -> None:
        z, y = predictions()
        frame(z, y).write_csv("t.csv")
        assert run("t.csv", "--target", "label", "--test-share", 0.3, *FAST, "--ridge", 2).exit_code == 0
        part = pl.read_csv("lossfit-calibrate-t/calibrated.csv")["part"]
        by = torch.tensor((part == "fit").to_list())
        assert by.sum() == 210
        told = summary()["methods"]
        expected = TemperatureScaling().fit(z[by], y[by])
        assert told["temperature"]["temperature"] == pytest.approx(expected.temperature.item(), rel=1e-9)
        weight = MatrixScaling(3, ridge=2).fit(z[by], y[by]).weight
        np.testing.assert_allclose(told["matrix"]["state"]["weight"], weight.numpy(), rtol=1e-6)
        assert told["matrix"]["ridge"] == 2

    def test_folds_measure_every_row_by_the_others(self) -> None:
        z, y = predictions()
        frame(z, y).write_csv("t.csv")
        found = run("t.csv", "--target", "label", "--folds", 3, *FAST)
        assert found.exit_code == 0, found.output
        assert "300 rows (3 folds)" in found.stdout
        table = pl.read_csv("lossfit-calibrate-t/calibrated.csv")
        part = table["part"]
        assert part.value_counts().sort("part").rows() == [("fold 1", 100), ("fold 2", 100), ("fold 3", 100)]
        for k in (1, 2, 3):
            on = torch.tensor((part == f"fold {k}").to_list())
            expected = TemperatureScaling().fit(z[~on], y[~on])(z[on]).softmax(1)
            np.testing.assert_allclose(table.select(f"p_{n}" for n in NAMES).to_numpy()[on], expected, rtol=1e-9)
        told = summary()
        assert told["test_rows"] == 300
        temperature = TemperatureScaling().fit(z, y).temperature.item()
        assert told["methods"]["temperature"]["temperature"] == pytest.approx(temperature, rel=1e-9)

    def test_calibrated_predictions_are_left_as_they_are(self) -> None:
        frame(*predictions(400, scale=1.0)).write_csv("t.csv")
        found = run("t.csv", "--target", "label", *FAST)
        assert summary()["recommended"] == "as_is"
        assert "leave the predictions as they are" in found.stdout
        assert summary()["code"] == []

    @pytest.mark.parametrize("kind", ["temperature", "vector", "probabilities"])
    def test_the_lines_to_paste_give_the_probabilities_of_the_file(self, kind: str) -> None:
        z, y = predictions(600)
        z = z + (torch.tensor([0.0, 9.0, -9.0]) if kind == "vector" else 0)
        shown = z.softmax(1) if kind == "probabilities" else z
        frame(shown, y).write_csv("t.csv")
        found = run("t.csv", "--target", "label", *FAST)
        assert summary()["recommended"] == ("vector" if kind == "vector" else "temperature")
        code = "\n".join(line[4:] for line in found.stdout.splitlines() if line.startswith("    ") and "=" in line)
        assert code.splitlines()[-1] == summary()["code"][-1]
        names = {"logits": shown, "probabilities": shown}
        exec("\n".join(summary()["code"]), names)
        expected = pl.read_csv("lossfit-calibrate-t/calibrated.csv").select(f"p_{n}" for n in NAMES).to_numpy()
        np.testing.assert_allclose(names["probabilities"], expected, rtol=1e-4)

    def test_the_same_command_gives_the_same_files(self) -> None:
        frame(*predictions()).write_csv("t.csv")
        for out, seed in (("a", 0), ("b", 0), ("c", 1)):
            assert run("t.csv", "--target", "label", *FAST, "--seed", seed, "--out", out).exit_code == 0
        a, b, c = (summary(out)["methods"] for out in "abc")
        assert a == b
        assert a != c

    def test_digits(self) -> None:
        """A small network, trained for too long on few noisy digits, is overconfident; scaling repairs most of it."""
        x, y = load_digits(return_X_y=True)
        x, y = torch.tensor(x / 16).float(), torch.tensor(y)
        x = x + 0.25 * torch.randn_like(x)
        order = torch.randperm(len(x))
        train, rest = order[:600], order[600:]
        model = torch.nn.Sequential(torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Linear(48, 10))
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(300):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[train]), y[train]).backward()
            optimizer.step()
        p = model(x[rest]).softmax(1).detach()
        columns = {f"p{c}": p[:, c].numpy() for c in range(10)}
        pl.DataFrame({**columns, "digit": y[rest].numpy()}).write_parquet("t.parquet")
        found = run("t.parquet", "--target", "digit", *FAST, "--ridge", 10)
        assert found.exit_code == 0, found.output
        told = summary()
        assert told["scores"] == "probabilities"
        assert told["recommended"] != "as_is"
        before, after = (told["methods"][m]["test"] for m in ("as_is", "temperature"))
        assert after["calibration_error"]["value"] < before["calibration_error"]["value"] / 2
        assert told["methods"]["temperature"]["vs_as_is"]["log_loss"]["ci95"][1] < 0
        assert told["methods"]["temperature"]["temperature"] > 1.3


class TestFiles:
    """What it reads and writes."""

    @pytest.mark.parametrize("asked", [None, "logit_*", "logit_", "logit_cat, logit_dog,logit_bird"])
    @pytest.mark.parametrize("named", [True, False])
    def test_ways_to_name_the_same(self, asked: str | None, named: bool) -> None:
        z, y = predictions()
        frame(z, y, named=named).write_csv("t.csv")
        found = read(Path("t.csv"), "label", asked)
        assert found.columns == [f"logit_{n}" for n in NAMES]
        assert found.classes == NAMES
        assert torch.equal(found.logits, z)
        assert torch.equal(found.labels, y)

    def test_columns_are_matched_by_name(self) -> None:
        """Labels 1 to 3, columns in another order, and row numbers."""
        z, y = predictions()
        table = {"": range(300), "score 3": z[:, 2].numpy(), "score 1": z[:, 0].numpy(), "score 2": z[:, 1].numpy()}
        pl.DataFrame({**table, "y": (y + 1).double().numpy()}).write_csv("t.csv")
        found = read(Path("t.csv"), "y")
        assert found.classes == ["3", "1", "2"]
        assert torch.equal(found.logits, z[:, [2, 0, 1]])
        assert torch.equal(found.labels, (y + 1) % 3)

    def test_probabilities_are_told(self) -> None:
        z, y = predictions()
        p, rounded = z.softmax(1), z.softmax(1).round(decimals=3)
        for name, scores in {"z": z, "p": p, "r": rounded}.items():
            frame(scores, y).write_csv(f"{name}.csv")
        logits, exact, coarse = (read(Path(f"{name}.csv"), "label") for name in "zpr")
        assert logits.floor is None
        assert exact.notes == []
        torch.testing.assert_close(exact.logits, p.log().clamp(min=math.log(exact.floor)))
        assert coarse.floor == pytest.approx(rounded[rounded > 0].min() / 2)
        zeros = int((rounded == 0).sum())
        assert coarse.notes == [f"{zeros} probabilities of 0 are taken for 0.0005, half of the smallest other one."]
        assert coarse.logits.isfinite().all()

    def test_the_scale_may_be_given(self) -> None:
        z, y = predictions()
        frame(z.softmax(1), y).write_csv("t.csv")
        assert run("t.csv", "--target", "label", *FAST, "--scale", "logits").exit_code == 0
        assert summary()["scores"] == "logits"

    def test_many_classes_leave_matrix_scaling_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recalibrate, "MOST_CLASSES", 2)
        frame(*predictions()).write_csv("t.csv")
        found = run("t.csv", "--target", "label", "--resamples", 100, "--picture", "svg")
        assert "Matrix scaling is left out for more than 2 classes" in found.stdout
        assert "matrix" not in summary()["methods"]
        assert run("t.csv", "--target", "label", *FAST, "--out", "b").exit_code == 0
        assert "matrix" in summary("b")["methods"]

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (("missing.csv", "--target", "label"), "There is no file 'missing.csv'"),
            (("t.doc", "--target", "label"), "Expected SOURCE to be a table, in a file ending in .csv, .tsv, .txt"),
            (("t.csv",), "Name the column with the labels by --target. The columns are: logit_cat, logit_dog, logit_b"),
            (
                ("t.csv", "--target", "y"),
                "there is no column 'y'. The columns are: logit_cat, logit_dog, logit_bird, l",
            ),
            (("t.csv", "--target", "label", "--logits", "a,b"), "--logits: there is no column 'a' beside the target"),
            (
                ("t.csv", "--target", "label", "--logits", "p_"),
                "no column begins with 'p_'. The columns are: logit_cat",
            ),
            (("t.csv", "--target", "label", "--logits", "logit_cat"), "two at least, but found ['logit_cat']"),
            (("t.csv", "--target", "label", "--logits", "logit_cat,logit_cat"), "names 'logit_cat' more than once"),
            (
                ("t.csv", "--target", "logit_cat", "--logits", "label,logit_dog"),
                "'label' to hold numbers, but it is Str",
            ),
            (("t.csv", "--target", "label", "--logits", "logit_cat,logit_dog"), "The label 'bird' in row"),
            (
                ("id.csv", "--target", "label"),
                "No row has the label of the columns 'id'. Name the columns of the scores",
            ),
            (("sum.csv", "--target", "label"), "row 3 of the data sums to 1.2, with values from"),
            (("t.csv", "--target", "label", "--scale", "probabilities"), "Expected rows of probabilities"),
            (
                ("range.csv", "--target", "label"),
                "The label 3 in row 2 of the data is out of range: with 3 columns of s",
            ),
            (("negative.csv", "--target", "label"), "The label -1 in row 2 of the data is out of range"),
            (("one.csv", "--target", "label"), "has one class only, 'dog'; there is nothing to calibrate"),
            (
                ("nan.csv", "--target", "label"),
                "finite numbers in the column 'logit_dog', but row 5 of the data is miss",
            ),
            (
                ("inf.csv", "--target", "label"),
                "finite numbers in the column 'logit_dog', but row 5 of the data is -inf",
            ),
            (("null.csv", "--target", "label"), "The target 'label' is missing in row 4 of the data"),
            (("short.csv", "--target", "label"), "Expected at least 20 rows to fit and test by, but got 12"),
            (("empty.csv", "--target", "label"), "The file 'empty.csv' is empty"),
            (("t.csv", "--target", "label", "--folds", "1"), "--folds of at least 2 and at most 150, but got 1"),
            (("t.csv", "--target", "label", "--test-share", "1"), "--test-share in (0, 1), with two rows at least"),
            (("t.csv", "--target", "label", "--folds", "2", "--test-share", "0.5"), "Pass --test-share or --folds"),
            (("t.csv", "--target", "label", "--ridge", "-1"), "--ridge in [0, inf), but got -1"),
            (("t.csv", "--target", "label", "--resamples", "10"), "--resamples of at least 100, but got 10"),
            (("t.csv", "--target", "label", "--picture", "jpg"), "`--picture` to be one of 'png', 'svg', 'html', but"),
            (("t.csv", "--target", "label", "--scale", "logit"), "got 'logit'. Did you mean 'logits'?"),
            (("t.csv", "--target", "label", "--out", "full"), "The output 'full' exists; name another folder by --out"),
            (("t.csv", "--target", "label", "--out", "t.csv"), "The output 't.csv' exists"),
        ],
    )
    def test_bad_input_is_named(self, arguments: tuple[str, ...], told: str) -> None:
        z, y = predictions()
        at = pl.arange(300, eager=True)
        label, numbered = pl.col("label"), frame(z, y, named=False)
        frame(z, y).write_csv("t.csv")
        frame(z, y, "").insert_column(0, at.alias("id")).write_csv("id.csv")
        p = z.softmax(1)
        p[2] = torch.tensor([1.1, 0.1, 0.0])
        frame(p, y).write_csv("sum.csv")
        numbered.with_columns(pl.when(at == 1).then(3).otherwise(label).alias("label")).write_csv("range.csv")
        numbered.with_columns(pl.when(at == 1).then(-1).otherwise(label).alias("label")).write_csv("negative.csv")
        frame(z, y).with_columns(pl.lit("dog").alias("label")).write_csv("one.csv")
        dog = pl.col("logit_dog")
        frame(z, y).with_columns(pl.when(at == 4).then(None).otherwise(dog).alias("logit_dog")).write_csv("nan.csv")
        frame(z, y).with_columns(pl.when(at == 4).then(-np.inf).otherwise(dog).alias("logit_dog")).write_csv("inf.csv")
        frame(z, y).with_columns(pl.when(at == 3).then(None).otherwise(label).alias("label")).write_csv("null.csv")
        frame(z[:12], y[:12]).write_csv("short.csv")
        Path("empty.csv").write_text("")
        Path("full").mkdir()
        Path("full/mine.txt").write_text("")
        assert told in refused(*arguments)
        assert not list(Path().glob("lossfit-calibrate-*"))
        assert [p.name for p in Path("full").iterdir()] == ["mine.txt"]


def test_help_has_examples() -> None:
    told = run("--help").stdout
    assert told.count("    lossfit calibrate") + told.count(" lossfit calibrate") >= 3
    assert "\\b" not in told


def two(labels: tuple[str, str], columns: tuple[str, ...], rows: int = 200) -> tuple[pl.DataFrame, np.ndarray]:
    """Probabilities of two classes, and whether a row is of the second."""
    rng = np.random.default_rng(0)
    p = rng.uniform(0.05, 0.95, rows).round(4)
    second = rng.random(rows) < p
    each = dict(zip(columns, (1 - p, p) if len(columns) == 2 else (p,), strict=True))
    return pl.DataFrame({**each, "label": [labels[int(c)] for c in second]}), second


class TestNamesOfColumns:
    """Which column belongs to which class."""

    @pytest.mark.parametrize(
        ("labels", "columns"),
        [
            (("negative", "positive"), ("p_negative", "p_positive")),
            (("male", "female"), ("p_male", "p_female")),
            (("class1", "class2"), ("p_class1", "p_class2")),
            (("no", "not"), ("prob_no", "prob_not")),
            (("False", "True"), ("p_False", "p_True")),
            (("false", "true"), ("p_False", "p_True")),
            (("0", "1"), ("p_false", "p_true")),
            (("0", "1"), ("p_0", "p_1")),
            (("1", "2"), ("p_1.0", "p_2.0")),
            (("Cat", "Dog"), ("cat_score", "dog_score")),
            (("a", "b"), ("a", "b")),
            (("0", "1"), ("first", "second")),
        ],
    )
    def test_any_names(self, labels: tuple[str, str], columns: tuple[str, str]) -> None:
        frame, second = two(labels, columns)
        for name, given in (("t.csv", frame), ("r.csv", frame.select(columns[1], "label", columns[0]))):
            given.write_csv(name)
            found = read(Path(name), "label")
            flipped = columns == ("first", "second") and name == "r.csv"  # numbers are in the order of the columns
            assert sorted(found.columns) == sorted(columns)
            hit = (found.logits.argmax(1) == found.labels).double().mean().item()
            assert hit == pytest.approx(((frame[columns[1]] > 0.5).to_numpy() == (second ^ flipped)).mean())

    def test_the_output_of_predict(self) -> None:
        frame, second = two(("no", "yes"), ("p_no", "p_yes"))
        best = frame.select(confidence=pl.max_horizontal("p_no", "p_yes"))
        kept = pl.DataFrame({"id": range(200), "age": [30.5] * 200, "class": ["no"] * 200})
        pl.concat([kept, best, frame.rename({"label": "churned"})], how="horizontal").write_csv("p.csv")
        found = read(Path("p.csv"), "churned")
        assert found.columns == ["p_no", "p_yes"]
        assert found.classes == ["no", "yes"]
        assert found.labels.tolist() == second.astype(int).tolist()

    def test_a_class_that_no_row_has(self) -> None:
        frame, _ = two(("a", "b"), ("p_a", "p_b"))
        frame.select("p_a", pl.lit(0.0).alias("p_c"), "p_b", "label").write_csv("t.csv")
        assert read(Path("t.csv"), "label").classes == ["a", "c", "b"]

    @pytest.mark.parametrize(
        ("labels", "column", "classes"),
        [
            (("a", "b"), "p_b", ["a", "b"]),
            (("0", "1"), "score", ["0", "1"]),
            (("no", "yes"), "probability", ["no", "yes"]),
            (("unfit", "fit"), "p_fit", ["unfit", "fit"]),
            (("FALSE", "TRUE"), "p", ["FALSE", "TRUE"]),
        ],
    )
    def test_a_single_column(self, labels: tuple[str, str], column: str, classes: list[str]) -> None:
        frame, second = two(labels, (column,))
        frame.write_csv("t.csv")
        found = read(Path("t.csv"), "label")
        assert found.classes == classes
        assert found.labels.tolist() == second.astype(int).tolist()
        torch.testing.assert_close(found.logits.exp()[:, 1], torch.from_numpy(frame[column].to_numpy().copy()))
        ran = run("t.csv", "--target", "label", *FAST)
        assert ran.exit_code == 0, ran.output
        frame.with_columns((pl.col(column) / (1 - pl.col(column))).log()).write_csv("z.csv")
        logits = read(Path("z.csv"), "label")
        torch.testing.assert_close(logits.logits.softmax(1), found.logits.exp())

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (lambda p: p * 0.9, "rows do not sum to 1: row 1 of the data sums to 0.9, and rows to 0.9 in the mean"),
            (lambda p: p**0.5, "Probabilities of each class against the rest are none of one class among all"),
            (lambda p: p * 100, "if these are percentages, pass --scale percent"),
        ],
    )
    def test_scores_that_are_no_probabilities_are_never_read_as_logits(self, change: object, told: str) -> None:
        z, y = predictions()
        frame(change(z.softmax(1)), y, "p_").write_csv("t.csv")  # type: ignore[operator]
        assert told in refused("t.csv", "--target", "label")

    def test_percentages(self) -> None:
        z, y = predictions()
        frame(z.softmax(1), y, "p_").write_csv("t.csv")
        frame(100 * z.softmax(1), y, "p_").write_csv("p.csv")
        shares, percent = read(Path("t.csv"), "label"), read(Path("p.csv"), "label", scale="percent")
        torch.testing.assert_close(percent.logits, shares.logits)
        signs = pl.read_csv("p.csv").with_columns(pl.col(f"p_{n}").round(6).cast(pl.String) + "%" for n in NAMES)
        signs.write_csv("s.csv")
        signed = read(Path("s.csv"), "label", scale="percent")
        # The smallest ones are rounded to nothing.
        torch.testing.assert_close(signed.logits.exp(), shares.logits.exp(), atol=1e-7, rtol=0)

    @pytest.mark.parametrize(
        ("column", "values", "told"),
        [
            ("score", lambda p: p, "Which of the classes 'a', 'b' does it belong to? Name it so, such as 'p_b'."),
            ("p_b", lambda p: p * 100, "If these are percentages, pass --scale percent. If these are logits, pass"),
        ],
    )
    def test_a_single_column_that_is_asked_about(self, column: str, values: object, told: str) -> None:
        frame, _ = two(("a", "b"), (column,))
        frame.with_columns(values(pl.col(column))).write_csv("t.csv")  # type: ignore[operator]
        assert told in refused("t.csv", "--target", "label")
