"""From a finished comparison to predictions for new rows, on the command line and in Python."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss

from command import flat, refused, run
from lossfit.compare import load_model
from lossfit.compare.candidates import candidates
from lossfit.compare.data import dataset
from lossfit.compare.errors import InputError
from lossfit.compare.export import final
from lossfit.compare.export.model import Model
from lossfit.compare.plan import Plan

ROWS = 90
SETTING = {"learning_rate": 0.02, "weight_decay": 0.1}
STEPS = {"prior": (0.5, -0.2, 0.0), "temperature": (1.7,), "thresholds": (0.3, -0.4)}


def table(rows: int = ROWS, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    label = np.arange(rows) % 3
    return pl.DataFrame(
        {
            "id": [f"r-{i}" for i in rng.permutation(rows)],
            "age": rng.normal(40, 9, rows) + 8 * label,
            "visits": rng.poisson(3, rows),
            "city": [("Rome", "Oslo", "Lima", "Bern")[v] for v in (label + rng.integers(0, 2, rows)) % 4],
            "zip": rng.integers(100, 104, rows),
            "note": [
                f"{('fine', 'late', 'cold')[c]} service {'and more' if i % 2 else 'as ever'}"
                for i, c in enumerate(label)
            ],
            "grade": [("low", "mid", "high")[c] for c in label],
        }
    )


OPTIONS = ("--target", "grade", "--text", "note", "--categorical", "zip", "--metric", "log_loss")
QUICK = ("--losses", "focal", "--folds", 3, "--repeats", 1, "--trials", 1, "--workers", 1)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison, its data beside it, and an exported model."""
    folder = tmp_path_factory.mktemp("compared")
    table().write_csv(folder / "t.csv")
    found = run("compare", folder / "t.csv", *OPTIONS, *QUICK, "--out", folder / "out")
    assert found.exit_code == 0, found.output
    assert f"lossfit export {folder / 'out'} --source {folder / 't.csv'}\n" in found.stdout
    assert run("export", folder / "out", "--source", folder / "t.csv").exit_code == 0
    return folder


@pytest.fixture
def here(compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that a test may spoil."""
    shutil.copytree(compared, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.slow
def test_new_rows_are_predicted_in_a_process_of_its_own(here: Path) -> None:
    new = table(20, 1).drop("grade").sample(20, shuffle=True, seed=0)
    new.write_csv("new.csv")
    command = [sys.executable, "-m", "lossfit", "predict", "out", "new.csv", "--keep", "id,age"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told == "Wrote 20 rows to predictions.csv.\n"
    found = pl.read_csv("predictions.csv")
    p = found.select("p_high", "p_low", "p_mid")
    assert found.columns == ["id", "age", "class", "confidence", *p.columns]
    assert found["id"].equals(new["id"])
    assert p.sum_horizontal().to_list() == pytest.approx([1] * 20)
    assert found["confidence"].to_list() == pytest.approx(p.max_horizontal().to_list())
    at = p.to_numpy().argmax(1)
    assert found["class"].to_list() == [("high", "low", "mid")[i] for i in at]
    model = load_model("out")
    assert model.predict(new)["confidence"].to_list() == pytest.approx(found["confidence"].to_list(), rel=1e-5)


def test_the_setting_and_the_rows_are_those_of_the_comparison(here: Path) -> None:
    found = run("export", "out", "--loss", "focal", "--out", "other", "--source", "t.csv")
    assert found.exit_code == 0, found.output
    summary = json.loads(Path("out/summary.json").read_text())
    entry = next(e for e in summary["losses"] if e["loss"] == "focal")
    model = load_model("other")
    assert (model.loss, model.params) == ("focal", entry["params"])
    trained = {**model.trained["training"], **{k: model.trained[k] for k in ("steps", "of")}, "batch": 90}
    assert trained == entry["training"]
    assert model.trained["rows"] == ROWS
    advised = load_model("out")
    assert advised.loss == summary["advised"]["loss"]
    assert ([advised.temperature] if advised.temperature else []) == summary["losses"][0]["step"]
    assert "lossfit predict other new.csv" in flat(found.stdout)
    assert sorted(p.name for p in Path("other").iterdir()) == ["model.json", "model.safetensors"]


def test_metrics_are_shown_where_the_target_is_there(here: Path) -> None:
    new = table(30, 2).with_columns(pl.when(pl.col("id") == "r-7").then(None).otherwise("grade").alias("grade"))
    new.write_csv("new.csv")
    told = flat(run("predict", "out", "new.csv", "--out", "p.parquet").stdout)
    assert "On 29 rows with a known class" in told
    assert "1 rows without a known class in 'grade' are not in the metrics" in told
    found = load_model("out").predictions(new)
    known = new["grade"].is_not_null()
    truth, p = new.filter(known)["grade"], found.table.filter(known)
    expected = log_loss(truth, p.select("p_high", "p_low", "p_mid").to_numpy(), labels=["high", "low", "mid"])
    assert found.metrics["log_loss"] == pytest.approx(expected, rel=1e-5)
    assert found.metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, p["class"]))
    assert found.metrics["macro_f1"] == pytest.approx(f1_score(truth, p["class"], average="macro"))
    assert f"Log loss {found.metrics['log_loss']:.3f}" in told


def test_what_new_rows_may_hold_besides(here: Path) -> None:
    new = table(6, 3).with_columns(
        pl.Series("city", ["Rome", "Pisa", "Pisa", "Kiev", "Oslo", "Oslo"]), pl.lit(1).alias("more")
    )
    model = load_model("out")
    found = model.predictions(new)
    assert found.notes == [
        "The column 'city' holds categories that the model was not trained on in 3 rows, 'Pisa', 'Kiev': each is taken "
        "for none of them."
    ]
    for other in (new.with_columns(pl.col("visits").cast(pl.String)), new.with_columns(pl.col("zip").cast(pl.Float64))):
        assert model.predict(other).equals(found.table)
    assert model.predict(new.to_dict(as_series=False)).equals(found.table)
    assert model.predict(new.to_pandas()).equals(found.table)
    gone = new.with_columns(pl.lit(None).cast(pl.Float64).alias("age"))
    train = pl.read_csv("t.csv")["age"]
    filled = model.predict(gone, impute=True)
    middle = model.preparation.stored()[1]["numeric.median"][0]
    assert train.min() < middle < train.max()
    assert filled.equals(model.predict(new.with_columns(pl.lit(float(middle)).alias("age"))))
    assert model.predict(new.with_columns(pl.lit(None).cast(pl.String).alias("note")))["confidence"].is_finite().all()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda t: t.drop("age", "city"),
            "lacks the columns 'age', 'city', which the model reads. The columns are: id",
        ),
        (
            lambda t: t.with_columns(age=pl.lit("old")),
            "column 'age' is of numbers, but holds 'old' in row 1, 'old' in row 2, 'old' in row 3 and 2 more",
        ),
        (lambda t: t.with_columns(age=pl.lit(math.inf)), "The column 'age' is infinite in 5 rows"),
        (lambda t: t.with_columns(age=None), "missing in the column 'age' in 5 rows, the first of them row 1"),
        (lambda t: t.with_columns(city=None), "missing in the column 'city' in 5 rows"),
        (lambda t: t.with_columns(note=pl.lit(3)), "Expected the column 'note' to hold text, but it is Int"),
        (
            lambda t: t.with_columns(city=pl.lit([["a"]] * 5)),
            "Expected categories in the column 'city', but it is List",
        ),
        (lambda t: t.clear(), "a table with rows"),
    ],
)
def test_new_rows_that_cannot_be_read(compared: Path, change: Callable[[pl.DataFrame], Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        load_model(compared / "out").predict(change(table(5, 1)))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("out", "none.csv"), "There is no file or folder 'none.csv'"),
        (("out", "t.doc"), "Expected rows in a .csv, .tsv, .txt, .json, .jsonl, .xlsx"),
        (("out", "t.csv", "--keep", "nr"), "--keep: there is no column 'nr'. The columns are: id, age"),
        (("out", "t.csv", "--out", "p.txt"), "--out to end in .csv or .parquet, but got 'p.txt'"),
        (("out", "t.csv", "--out", "t.csv"), "The output 't.csv' is the input"),
        (("none", "t.csv"), "There is no folder 'none'"),
        (("fresh", "t.csv"), "holds a comparison, and no model yet; write it by: lossfit export fresh"),
        (("empty", "t.csv"), "The folder 'empty' holds no model.json"),
        (("out", "pictures"), "holds images, but the model reads columns: 'age'"),
    ],
)
def test_what_predict_refuses(here: Path, arguments: tuple[str, ...], told: str) -> None:
    for name in ("empty", "fresh", "pictures"):
        Path(name).mkdir()
    shutil.copy("out/plan.json", "fresh")
    Path("t.doc").write_text("a")
    Image.new("L", (4, 4)).save("pictures/a.png")
    assert told in refused("predict", *arguments)
    assert pl.read_csv("t.csv").equals(table())


def test_a_column_may_not_stand_twice(compared: Path) -> None:
    with pytest.raises(InputError, match="the predictions have a column 'class' of their own"):
        load_model(compared / "out").predict(table(4).with_columns(pl.lit(1).alias("class")), keep=("class",))
    with pytest.raises(TypeError, match="Expected a path, a table or an array, but got int"):
        load_model(compared / "out").predict(3)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda p: (p / "out/summary.json").unlink(), "'out' is not finished; --resume goes on with it"),
        (lambda p: (p / "out/plan.json").unlink(), "holds no comparison; `lossfit compare` writes one"),
        (lambda p: (p / "out/plan.json").write_text("{"), "cannot be read as JSON"),
        (lambda p: (p / "t.csv").rename(p / "moved.csv"), "is not there; --source names where it is"),
        (lambda p: table(seed=5).write_csv(p / "t.csv"), "it has changed since, or is other data"),
        (lambda p: _edit(p / "out/summary.json", version=1), "is no summary of this lossfit"),
        (lambda p: _edit(p / "out/plan.json", novelty=1, lossfit="9.0"), "was written by lossfit 9.0, whose plan"),
    ],
)
def test_what_export_refuses(here: Path, spoil: Callable[[Path], Any], told: str) -> None:
    _edit(here / "out/plan.json", source="t.csv")
    shutil.rmtree("out/model")
    spoil(here)
    assert told in refused("export", "out")
    assert not Path("out/model").exists()


def test_export_finds_moved_data_and_spares_other_folders(here: Path) -> None:
    Path("t.csv").rename("moved.csv")
    _edit(here / "out/plan.json", source="t.csv")
    assert run("export", "out", "--source", "moved.csv", "--out", "again").exit_code == 0
    weights = [load_file(f / "model.safetensors") for f in (Path("again"), Path("out/model"))]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[1])
    Path("full").mkdir()
    Path("full/thesis.txt").write_text("mine")
    assert "holds something else" in refused("export", "out", "--source", "moved.csv", "--out", "full")
    assert [p.name for p in Path("full").iterdir()] == ["thesis.txt"]
    assert "`--loss` to be one of" in refused("export", "out", "--loss", "poly", "--source", "moved.csv")


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _weights(path: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    """Other weights, and a digest that fits them."""
    import hashlib

    arrays = load_file(path / "model.safetensors")
    change(arrays)
    save_file(arrays, path / "model.safetensors")
    _edit(path / "model.json", weights_sha256=hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest())


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda p: _cut(p / "model.json"), "cannot be read as JSON"),
        (lambda p: _cut(p / "model.safetensors"), "is not the one that model.json was written with: it is cut off"),
        (lambda p: (p / "model.safetensors").unlink(), "lacks model.safetensors"),
        (lambda p: _edit(p / "model.json", version=2), "is of version 2; this lossfit reads version 1"),
        (lambda p: _edit(p / "model.json", format="x"), "does not describe a model of lossfit"),
        (lambda p: (p / "model.json").write_text("[]"), "Expected an object in the file"),
        (lambda p: _edit(p / "model.json", classes=["a", "b"]), "cannot be rebuilt: Expected a network of"),
        (lambda p: _edit(p / "model.json", classes="abc"), "Expected two classes or more, all different, as 'classes'"),
        (lambda p: _edit(p / "model.json", loss="fokal"), "There is no loss 'fokal'"),
        (lambda p: _edit(p / "model.json", offset=[1.0]), "Expected an offset for each of 3 classes"),
        (lambda p: _edit(p / "model.json", reading={}), "'numeric' is missing"),
        (lambda p: _edit(p / "model.json", reading=None), "cannot be rebuilt"),
        (lambda p: _edit(p / "model.json", preparation={}), "Expected the parts"),
        (lambda p: _edit(p / "model.json", metric="f7"), "There is no metric 'f7'"),
        (
            lambda p: _weights(p, lambda a: a.update({"network.0.weight": np.ones((2, 2), np.float32)})),
            "Expected torch.float32 of shape",
        ),
        (lambda p: _weights(p, lambda a: a.pop("network.0.bias")), "Expected the weights"),
        (lambda p: _weights(p, lambda a: a.update({"numeric.mean": np.ones(3)})), "preparation of numeric cannot be"),
    ],
)
def test_spoilt_models_are_told_in_a_line(here: Path, spoil: Callable[[Path], Any], told: str) -> None:
    spoil(here / "out" / "model")
    found = run("predict", "out", "t.csv")
    assert found.exit_code == 2, found.output
    assert len(found.stderr.strip().splitlines()) == 1
    with pytest.raises(InputError, match=told):
        load_model("out")


def fitted(
    rows: dataset.Dataset, name: str, plan: Plan, network: str = "mlp", step: tuple[float, ...] = (), **params: float
) -> Model:
    training = {k: params.pop(k, v) for k, v in SETTING.items()} | {"steps": 300, "of": 400, "batch": 128}
    entry = {"loss": name, "params": params, "training": training, "step": list(step)}
    return final.fit(plan, rows, entry, network)


@pytest.mark.parametrize(
    ("name", "params", "metric"),
    [
        ("exact", {"sigma": 0.5}, "accuracy"),
        ("class_weights", {"weight_power": 0.5}, "balanced_accuracy"),
        ("for_macro_f1", {"steep": 0.1}, "macro_f1"),
        ("cross_entropy+tuned_prior", {}, "balanced_accuracy"),
        ("cross_entropy+temperature", {}, "log_loss"),
    ],
)
def test_predictions_are_those_before_saving(tmp_path: Path, name: str, params: dict[str, float], metric: str) -> None:
    frame = table().with_columns(pl.Series("grade", ["high"] * 40 + ["low"] * 30 + ["mid"] * 20)).drop("id", "note")
    plan = Plan("t", "grade", metric=metric, model="linear")
    step = STEPS.get(candidates.candidate(name).tuned, ())
    before = fitted(dataset.table(frame, "t", "grade"), name, plan, "linear", step, **params)
    before.save(tmp_path / "model")
    after = load_model(tmp_path / "model")
    found, expected = after.predict(frame), before.predict(frame)
    assert found["class"].equals(expected["class"])
    for column in found.columns[1:]:
        assert found[column].to_list() == pytest.approx(expected[column].to_list(), abs=1e-6)
    if name == "exact":  # the loss's own probabilities, in double precision
        z = _logits(before, frame).double()
        p = candidates.make_loss(candidates.candidate(name), **params).probabilities(z)
        assert found.select("p_high", "p_low", "p_mid").to_numpy() == pytest.approx(p.numpy(), abs=1e-5)
    elif name.endswith("prior"):
        assert before.offset == [0.5, -0.2, 0.0]
        moved = (_logits(before, frame) + torch.tensor(before.offset)).softmax(1)
        assert found.select("p_high", "p_low", "p_mid").to_numpy() == pytest.approx(moved.numpy(), abs=1e-5)
    elif name.endswith("temperature"):
        scaled = (_logits(before, frame) / before.temperature).softmax(1)
        assert before.temperature == 1.7
        assert found.select("p_high", "p_low", "p_mid").to_numpy() == pytest.approx(scaled.numpy(), abs=1e-5)


@torch.no_grad()
def _logits(model: Model, frame: pl.DataFrame) -> torch.Tensor:
    rows = model.reading.read(frame, model.preparation).rows
    found: torch.Tensor = model.network(torch.from_numpy(model.preparation(rows)))
    return found


@pytest.mark.parametrize("name", ["bce", "bce+tuned_thresholds"])
def test_any_number_of_classes(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 3))
    labels = (x[:, :2] + rng.normal(0, 0.3, (ROWS, 2)) > 0).astype(int)
    frame = pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "drama": labels[:, 0], "crime": labels[:, 1]})
    plan = Plan("t", ("drama", "crime"), metric="micro_f1")
    step = STEPS.get(candidates.candidate(name).tuned, ())
    before = fitted(dataset.table(frame, "t", ("drama", "crime")), name, plan, step=step)
    before.save(tmp_path / "m")
    found = load_model(tmp_path / "m").predictions(frame)
    assert found.table.columns == ["drama", "crime", "p_drama", "p_crime"]
    scores = _logits(before, frame)
    if name != "bce":
        assert before.offset == [0.3, -0.4]
        scores = scores + torch.tensor(before.offset)
    assert found.table.select("p_drama", "p_crime").to_numpy() == pytest.approx(scores.sigmoid().numpy(), abs=1e-6)
    assert np.array_equal(found.table.select("drama", "crime").to_numpy(), (scores > 0).numpy())
    predicted = found.table.select("drama", "crime").to_numpy()
    assert found.metrics["micro_f1"] == pytest.approx(f1_score(labels, predicted, average="micro"))
    assert found.metrics["micro_f1"] > 0.8
    assert load_model(tmp_path / "m").predictions(frame.drop("crime")).metrics == {}


def test_arrays_and_given_test_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(ROWS) % 2
    x = (rng.normal(size=(ROWS, 4)) + y[:, None]).astype(np.float32)
    np.savez(tmp_path / "d.npz", X=x[:60], y=y[:60], X_test=x[60:], y_test=y[60:])
    np.savez(tmp_path / "new.npz", X=x[60:])
    model = fitted(dataset.load(str(tmp_path / "d.npz")), "focal", Plan("d"), gamma=1.0)
    assert model.trained["rows"] == 60  # those to test on stay out
    model.save(tmp_path / "m")
    after = load_model(tmp_path / "m")
    expected = after.predict(x[60:])
    assert after.predict(tmp_path / "new.npz").equals(expected)
    whole = after.predictions(tmp_path / "d.npz")
    assert whole.table[60:].equals(expected)
    assert whole.labelled == ROWS
    with pytest.raises(InputError, match="lacks the columns 'x3'"):
        after.predict(x[:, :3])


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_folders_of_images(tmp_path: Path, network: str) -> None:
    rng = np.random.default_rng(0)
    for i in range(40):
        folder = tmp_path / "photos" / ("dark", "light")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 120, (12, 12)) + 120 * (i % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02d}.png")
    plan = Plan(str(tmp_path / "photos"))
    before = fitted(plan.load(), "cross_entropy", plan, network)
    before.save(tmp_path / "m")
    after = load_model(tmp_path / "m")
    found = after.predictions(tmp_path / "photos", keep=("file",))
    assert found.table["file"].to_list()[:2] == ["dark/00.png", "dark/02.png"]
    assert found.labelled == 40
    assert found.metrics["accuracy"] == np.mean([f.split("/")[0] == c for f, c in found.table["file", "class"].rows()])
    assert found.metrics["accuracy"] > 0.9
    images = plan.load().images
    assert images is not None
    assert after.predict(images)["confidence"].to_list() == pytest.approx(
        before.predict(images)["confidence"].to_list(), abs=1e-6
    )
    one = after.predictions(tmp_path / "photos" / "light" / "01.png")
    assert one.table.height == 1
    assert one.labelled == 0
    Image.new("RGB", (30, 20), "white").save(tmp_path / "large.png")  # brought to the size, and to grey
    assert after.predict(tmp_path / "large.png")["class"].to_list() == ["light"]
    with pytest.raises(InputError, match="Expected images of 12 x 12 pixels in 1 channel, but the table holds images"):
        after.predict(np.zeros((2, 5, 5), np.uint8))
    with pytest.raises(InputError, match="but the table holds none"):
        after.predict(table(3))


def test_votes_and_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    votes = rng.integers(0, 4, (ROWS, 2)) + 0.5 * np.arange(2)
    frame = pl.DataFrame(
        {"x": votes[:, 1] - votes[:, 0], "no": votes[:, 0], "yes": votes[:, 1], "w": rng.uniform(size=ROWS)}
    )
    plan = Plan("t", votes=("no", "yes"), weight="w")
    rows = dataset.table(frame, "t", None, votes=("no", "yes"), weight="w")
    model = fitted(rows, "cross_entropy", plan)
    found = model.predictions(frame)
    right = found.table["class"].to_numpy() == np.where(votes[:, 1] > votes[:, 0], "yes", "no")
    assert found.metrics["accuracy"] == pytest.approx(np.average(right, weights=frame["w"]))
    assert found.labelled == ROWS


def test_it_is_trained_for_the_share_of_steps_that_the_comparison_found() -> None:
    """On more rows there are more steps."""
    frame = pl.concat([table(900, seed).drop("id", "note") for seed in range(8)])
    plan = Plan("t", "grade", model="linear")
    model = fitted(dataset.table(frame, "t", "grade"), "focal", plan, "linear", gamma=1.0)
    assert (model.trained["steps"], model.trained["of"]) == (420, 560)


def test_a_training_that_fails_is_told() -> None:
    plan = Plan("t", "grade", model="linear")
    frame = table().drop("id", "note")
    with pytest.raises(InputError, match="The training of focal did not end in finite numbers; no model was written"):
        fitted(dataset.table(frame, "t", "grade"), "focal", plan, "linear", gamma=1.0, learning_rate=math.inf)


def test_classes_with_the_names_of_others_probabilities_keep_theirs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    names = ("a", "p_a", "p_p_a")
    pl.DataFrame({"x": x, **{n: (x > c - 1).astype(int) for c, n in enumerate(names)}}).write_csv(tmp_path / "t.csv")
    out, targets = tmp_path / "out", [part for name in names for part in ("--target", name)]
    quick = ("--losses", "bce", "--folds", 3, "--repeats", 1, "--trials", 1, "--workers", 1)
    assert run("compare", tmp_path / "t.csv", *targets, *quick, "--out", out).exit_code == 0
    assert run("export", out, "--source", tmp_path / "t.csv").exit_code == 0
    found = load_model(out).predict(pl.DataFrame({"x": x}))
    assert found.columns == [*names, "p_p_p_a", "p_p_p_p_a", "p_p_p_p_p_a"]
    for name, column in zip(names, found.columns[3:], strict=True):
        assert ((found[column] > 0.5) == (found[name] == 1)).all()
