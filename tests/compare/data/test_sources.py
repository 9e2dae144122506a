"""Files and folders: arrays, images, saved data sets, and given test rows."""

import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

from lossfit.compare import memory_limits
from lossfit.compare.data.dataset import load
from lossfit.compare.errors import InputError

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 3)), np.arange(40) % 3


def refused(match: str, source: Path, **options: Any) -> None:
    with pytest.raises(InputError, match=match) as caught:
        load(str(source), **options)
    assert "\n" not in str(caught.value)


class TestArrays:
    """.npz files."""

    @pytest.fixture
    def save(self, tmp_path: Path) -> Callable[..., Path]:
        def to(**arrays: np.ndarray) -> Path:
            np.savez(tmp_path / "some.npz", **arrays)  # type: ignore[arg-type]
            return tmp_path / "some.npz"

        return to

    def test_numbers(self, save: Callable[..., Path]) -> None:
        found = load(str(save(X=X, y=Y)))
        assert (found.name, found.rows, found.classes) == ("some", 40, ["0", "1", "2"])
        assert np.array_equal(found.numeric.to_numpy(), X)
        assert found.numeric.columns == ["x0", "x1", "x2"]
        assert np.array_equal(found.labels, Y)
        assert (found.test, found.images, found.notes) == (None, None, [])

    @pytest.mark.parametrize("kind", [np.float32, np.uint8, np.int64, bool])
    def test_numbers_of_all_types(self, save: Callable[..., Path], kind: type) -> None:
        x = (X > 0).astype(kind)
        found = load(str(save(X=x, y=Y)))
        assert np.array_equal(found.numeric.to_numpy(), x)
        assert set(found.numeric.dtypes) == {pl.Float32}

    def test_names_of_classes(self, save: Callable[..., Path]) -> None:
        found = load(str(save(X=X, y=np.array(["b", "a", "é"])[Y])))
        assert found.classes == ["a", "b", "é"]
        assert found.labels.tolist() == [(1, 0, 2)[y] for y in Y]

    @pytest.mark.parametrize("shape", [(40, 5, 4), (40, 5, 4, 3)])
    def test_images(self, save: Callable[..., Path], shape: tuple[int, ...]) -> None:
        x = RNG.integers(0, 256, shape, dtype=np.uint8)
        found = load(str(save(X=x, y=Y)))
        assert found.images is not None
        assert found.images.dtype == np.uint8
        assert np.array_equal(found.images.reshape(shape), x)
        assert found.images.ndim == 4
        assert found.numeric.width == 0
        assert found.notes == ["Images of 5 x 4 pixels" + (" in 3 channels." if len(shape) == 4 else ".")]

    def test_a_given_test_set(self, save: Callable[..., Path]) -> None:
        found = load(str(save(X=X[:30], y=Y[:30], X_test=X[30:], y_test=Y[30:])))
        assert np.array_equal(found.numeric.to_numpy(), X)
        assert np.array_equal(found.labels, Y)
        assert found.test is not None
        assert found.test.tolist() == 30 * [False] + 10 * [True]

    def test_constant_columns_of_arrays_are_left_out_and_numbered_rows_are_not(self, save: Callable[..., Path]) -> None:
        x = np.column_stack([np.arange(40), np.ones(40), X[:, 0], np.zeros(40)])
        found = load(str(save(X=x, y=Y)))
        assert found.numeric.columns == ["x0", "x2"]
        assert found.notes == ["Left out: 2 columns, the same in every row: 'x1', 'x3'."]

    @pytest.mark.parametrize(
        ("arrays", "match"),
        [
            ({"X": X, "y": Y, "ids": Y, "more": X}, r"Expected the arrays X and y .* also holds 'ids', 'more'\."),
            ({"X": X}, r"lacks 'y'; it holds 'X'\."),
            ({"X": X, "y": Y, "X_test": X}, r"lacks 'y_test'; it holds 'X', 'y', 'X_test'\."),
            ({}, r"lacks 'X' and 'y'; it holds nothing\."),
            ({"X": X, "y": Y[:9]}, r"Expected y .* each of the 40 rows of X, but got int64 of shape \(9,\)"),
            ({"X": X, "y": np.eye(3)[Y]}, r"Expected y .* but got float64 of shape \(40, 3\)"),
            ({"X": X[:, 0], "y": Y}, r"Expected X .* but got float64 of shape \(40,\)"),
            ({"X": X.astype(str), "y": Y}, r"Expected X .* to hold numbers .* but got <U"),
            ({"X": X + 1j, "y": Y}, r"Expected X .* but got complex128"),
            ({"X": X[:, :0], "y": Y}, r"X in .* has shape \(40, 0\)"),
            ({"X": X, "y": Y * 0}, r"The target 'y' has one class only, '0'"),
            ({"X": np.where(X > 2, np.inf, X), "y": Y}, r"The column 'x\d' is infinite"),
            ({"X": np.full((40, 2, 2), np.nan), "y": Y}, r"The images in X .* are not finite"),
            ({"X": X, "y": Y, "X_test": X[:, :2], "y_test": Y}, r"test rows in 'X_test' lack the columns 'x2' of 'X'"),
        ],
    )
    def test_arrays_that_are_none(self, save: Callable[..., Path], arrays: dict[str, np.ndarray], match: str) -> None:
        refused(match, save(**arrays))

    def test_pickles_are_never_read(self, save: Callable[..., Path], tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> Any:
                return (Path(tmp_path / "sprung").touch, ())

        trap = np.array([Trap()] * 40, dtype=object)
        for arrays in ({"X": X, "y": trap}, {"X": trap, "y": Y}):
            refused(r"holds Python objects, which are never read", save(**arrays))
        assert not (tmp_path / "sprung").exists()

    def test_files_that_are_none(self, tmp_path: Path, save: Callable[..., Path]) -> None:
        whole = save(X=X, y=Y).read_bytes()
        path = tmp_path / "broken.npz"
        for content in (b"", b"no archive", whole[:-60], whole[:60] + 40 * b"\xff" + whole[100:]):
            path.write_bytes(content)
            refused(r"The file '.*broken\.npz' cannot be read as \.npz: ", path)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("X.npy", b"nothing like it")
            archive.writestr("y.npy", b"nothing like it")
        refused(r"broken\.npz'", path)


def picture(size: tuple[int, int], value: int, mode: str = "L") -> Image.Image:
    return Image.new(mode, size[::-1], value if mode == "L" else (value, 0, 255 - value))


class TestImages:
    """Folders of images."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Callable[..., Path]:
        def make(
            mode: str = "L", sizes: tuple[tuple[int, int], ...] = ((6, 5),), parts: tuple[str, ...] = ("",)
        ) -> Path:
            root = tmp_path / "photos"
            for part in parts:
                for c, name in enumerate(("cat", "dog")):
                    (root / part / name).mkdir(parents=True)
                    for i in range(4):
                        image = picture(sizes[i % len(sizes)], 60 * i + 10 * c, mode)
                        image.save(root / part / name / f"{i}.{('png', 'bmp')[i % 2]}")
            return root

        return make

    def test_a_folder_for_each_class(self, folder: Callable[..., Path]) -> None:
        root = folder()
        (root / "readme.txt").write_text("of the photos")
        (root / "cat" / "notes.txt").write_text("of the cats")
        (root / ".hidden").mkdir()
        (root / "cat" / ".ipynb_checkpoints").mkdir()
        picture((6, 5), 7).save(root / "cat" / ".ipynb_checkpoints" / "0-checkpoint.png")
        picture((6, 5), 7).save(root / "beside.png")
        found = load(str(root))
        assert (found.name, found.classes, found.labels.tolist()) == ("photos", ["cat", "dog"], 4 * [0] + 4 * [1])
        assert found.images is not None
        assert found.images.shape == (8, 6, 5, 1)
        assert found.images[:, 0, 0, 0].tolist() == [0, 60, 120, 180, 10, 70, 130, 190]
        assert (found.images == found.images[:, :1, :1]).all()
        assert found.notes == [
            "Images of 6 x 5 pixels, grey.",
            "Left out: 1 hidden files.",
            "Left out: 1 files that are no images of a kind that is read: .txt (1).",
            "Left out: 1 images beside the folders of classes, such as 'beside.png'.",
        ]
        assert [(c.name, c.type) for c in found.columns] == [("class", "target")]

    def test_colours(self, folder: Callable[..., Path]) -> None:
        found = load(str(folder("RGB")))
        assert found.images is not None
        assert found.images.shape == (8, 6, 5, 3)
        assert found.images[1, 0, 0].tolist() == [60, 0, 195]
        assert found.notes == ["Images of 6 x 5 pixels, in colour."]

    def test_other_sizes_are_resized(self, folder: Callable[..., Path]) -> None:
        found = load(str(folder(sizes=((100, 40), (6, 50)))))
        assert found.images is not None
        assert found.images.shape == (8, 32, 32, 1)
        assert found.images[:, 7, 9, 0].tolist() == [0, 60, 120, 180, 10, 70, 130, 190]
        assert found.notes == [
            "Images of 32 x 32 pixels, grey, resized from heights of 6 to 100 and widths of 40 to 50."
        ]

    def test_folders_of_parts(self, folder: Callable[..., Path]) -> None:
        found = load(str(folder(parts=("train", "test", "val"))))
        assert found.rows == 24
        assert found.classes == ["cat", "dog"]
        assert found.test is not None
        assert found.test.sum() == 8
        assert found.notes[1].startswith("The validation rows join the rows to train on")
        assert found.test[:8].all()  # the parts in the order of their names: test, train, val

    def test_the_fingerprint_is_of_pixels_and_classes(self, folder: Callable[..., Path]) -> None:
        root = folder()
        first = load(str(root)).fingerprint
        assert load(str(root)).fingerprint == first
        (root / "dog").rename(root / "fox")
        renamed = load(str(root)).fingerprint
        assert renamed != first
        picture((6, 5), 1).save(root / "cat" / "0.png")
        assert load(str(root)).fingerprint not in (first, renamed)

    def test_a_folder_of_test_images_is_brought_to_the_size(self, folder: Callable[..., Path], tmp_path: Path) -> None:
        root = folder()
        for name in ("cat", "dog"):
            (tmp_path / "later" / name).mkdir(parents=True)
            picture((60, 60), 99).save(tmp_path / "later" / name / "big.png")
        found = load(str(root), test=str(tmp_path / "later"))
        assert found.images is not None
        assert found.images.shape == (10, 6, 5, 1)
        assert found.test is not None
        assert found.test.tolist() == 8 * [False] + 2 * [True]
        assert (found.images[8:] == 99).all()

    def test_folders_that_are_none(self, folder: Callable[..., Path], tmp_path: Path) -> None:
        empty = tmp_path / "empty"
        empty.mkdir()
        refused(r"Expected the folder '.*empty' to hold a folder of images for each class", empty)
        root = folder()
        refused(r"--target: there is no column 'dog'\. The columns are: class\.", root, target="dog")
        (root / "fox").mkdir()
        refused(r"The folder '.*fox' of a class holds no image", root)
        (root / "fox" / "1.jpg").write_bytes(b"no image")
        refused(r"The image '.*1\.jpg' cannot be read: ", root)
        whole = io.BytesIO()
        picture((300, 300), 7).save(whole, "png")
        (root / "fox" / "1.jpg").write_bytes(whole.getvalue()[:-90])
        refused(r"The image '.*1\.jpg' cannot be read: ", root)

    def test_images_too_large_to_hold(self, folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
        root = folder()
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
        refused(r"The image '.*0\.png' cannot be read: Image size \(30 pixels\) exceeds limit", root)


def save_dataset(path: Path, columns: dict[str, Any], features: dict[str, Any], files: int = 2) -> Path:
    """The files that `Dataset.save_to_disk` writes, with what the reader looks at."""
    path.mkdir(parents=True)
    table = pa.table(columns)
    names = [f"data-{i:05d}-of-{files:05d}.arrow" for i in range(files)]
    length = -(-len(table) // files)
    for i, name in enumerate(names):
        with pa.OSFile(str(path / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table.slice(i * length, length))
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": n} for n in names], "_split": "train"}))
    (path / "dataset_info.json").write_text(json.dumps({"features": features}))
    return path


VALUE = {"dtype": "float64", "_type": "Value"}
LABEL = {"names": ["neg", "pos", "never"], "_type": "ClassLabel"}
FEATURES = {"x": VALUE, "text": {"dtype": "string", "_type": "Value"}, "label": LABEL}


def columns(rows: int = 20) -> dict[str, Any]:
    return {
        "x": [float(i * i % 7) for i in range(rows)],
        "text": [f"word{i} and more" for i in range(rows)],
        "label": [i % 2 for i in range(rows)],
    }


class TestSaved:
    """Data sets that Hugging Face's datasets saved."""

    def test_one_data_set(self, tmp_path: Path) -> None:
        found = load(str(save_dataset(tmp_path / "reviews", columns(), FEATURES)), text="text")
        assert (found.name, found.classes, found.rows) == ("reviews", ["neg", "pos"], 20)
        assert found.labels.tolist() == [i % 2 for i in range(20)]
        assert found.text["text"].to_list() == columns()["text"]
        assert found.numeric.to_dict(as_series=False) == {"x": columns()["x"]}

    def test_splits_give_the_rows_to_test_on(self, tmp_path: Path) -> None:
        for name, rows in (("train", 20), ("test", 10), ("validation", 6)):
            save_dataset(tmp_path / "d" / name, columns(rows), FEATURES)
        (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test", "validation"]}')
        found = load(str(tmp_path / "d"), drop=("text",))
        assert found.test is not None
        assert found.test.tolist() == 20 * [False] + 10 * [True] + 6 * [False]
        assert found.rows == 36
        assert found.notes == ["The validation rows join the rows to train on: each split divides them anew."]

    @pytest.mark.parametrize("label", [LABEL, {"dtype": "int64", "_type": "Value"}])
    def test_a_split_whose_labels_are_kept_secret(self, tmp_path: Path, label: dict[str, Any]) -> None:
        features = {**FEATURES, "label": label}
        save_dataset(tmp_path / "d" / "train", columns(20), features)
        save_dataset(tmp_path / "d" / "test", {**columns(10), "label": [-1] * 10}, features)
        (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
        found = load(str(tmp_path / "d"), "label", drop=("text",))
        assert (found.rows, found.test) == (20, None)
        assert found.notes == ["Left out: the split 'test', which has no labels."]

    def test_images(self, tmp_path: Path) -> None:
        encoded = []
        for i in range(6):
            file = io.BytesIO()
            picture((4, 3), 40 * i).save(file, "png")
            encoded.append({"bytes": file.getvalue(), "path": None})
        features = {"image": {"_type": "Image"}, "label": LABEL}
        found = load(str(save_dataset(tmp_path / "d", {"image": encoded, "label": [0, 1] * 3}, features)))
        assert found.images is not None
        assert found.images.shape == (6, 4, 3, 1)
        assert found.images[:, 1, 1, 0].tolist() == [0, 40, 80, 120, 160, 200]
        outside = [{"bytes": None, "path": "a.png"}] * 2
        path = save_dataset(tmp_path / "e", {"image": outside, "label": [0, 1]}, features)
        refused(r"The image in row 1 of the column 'image' is not in the dataset itself", path)

    def test_the_fingerprint_is_of_the_content(self, tmp_path: Path) -> None:
        prints = [
            load(str(save_dataset(tmp_path / str(i), columns(rows), FEATURES)), drop=("text",)).fingerprint
            for i, rows in enumerate((20, 20, 21))
        ]
        assert prints[0] == prints[1] != prints[2]

    def test_a_missing_label(self, tmp_path: Path) -> None:
        path = save_dataset(tmp_path / "d", {**columns(), "label": [-1, *columns()["label"][1:]]}, FEATURES)
        refused(r"The target 'label' is missing in 1 rows, the first of them row 1", path, drop=("text",))

    def test_votes_take_the_place_of_the_label(self, tmp_path: Path) -> None:
        votes = {"a": [3, 1] * 10, "b": [1, 4] * 10}
        path = save_dataset(tmp_path / "d", {**columns(), **votes}, {**FEATURES, "a": VALUE, "b": VALUE})
        found = load(str(path), votes=("a,b",), drop=("text",))
        assert found.classes == ["a", "b"]
        assert found.labels.tolist() == [0, 1] * 10
        assert (found.numeric.columns, found.categorical.columns) == (["x"], [])
        assert [c.type for c in found.columns if c.name == "label"] == ["target (left out)"]

    def test_two_class_labels_leave_the_target_open(self, tmp_path: Path) -> None:
        path = save_dataset(tmp_path / "d", {**columns(), "x": [0, 1] * 10}, {**FEATURES, "x": LABEL})
        refused(r"Name the column with the classes by --target\. The columns are: x, text, label", path)
        assert load(str(path), "label", drop=("text",)).categorical["x"].to_list() == ["neg", "pos"] * 10

    @pytest.mark.parametrize(
        ("name", "content", "match"),
        [
            ("state.json", "{", r"state\.json' cannot be read as JSON"),
            ("state.json", "[]", r"Expected an object in the file '.*state\.json', but got list"),
            ("state.json", "{}", r"state\.json' names no data files"),
            ("state.json", '{"_data_files": [{"filename": "../secret"}]}', r"state\.json' names no data files"),
            (
                "state.json",
                '{"_data_files": [{"filename": "gone.arrow"}]}',
                r"There is no file '.*gone\.arrow', which state\.json names",
            ),
            ("state.json", '{"_indices_data_files": [{"filename": "i"}]}', r"is a selection of rows"),
            ("dataset_info.json", "", r"dataset_info\.json' cannot be read as JSON"),
            ("data-00000-of-00002.arrow", "nothing", r"data-00000-of-00002\.arrow' cannot be read as Arrow's stream"),
            ("dataset_dict.json", '{"splits": ["train", "unsupervised"]}', r"hold the splits train, and validation"),
            ("dataset_dict.json", '{"splits": ["train"]}', r"There is no file '.*train/state\.json'"),
            ("dataset_info.json", '{"features": {"label": {"_type": "ClassLabel"}}}', r"ClassLabel without names"),
            (
                "dataset_info.json",
                '{"features": {"label": {"_type": "ClassLabel", "names": ["a"]}}}',
                r"The column 'label' holds 1, but there are 1 classes",
            ),
            (
                "dataset_info.json",
                '{"features": {"label": {"_type": "ClassLabel", "names": ["a", "a"]}}}',
                r"a name that stands for several classes",
            ),
        ],
    )
    def test_data_sets_that_are_none(self, tmp_path: Path, name: str, content: str, match: str) -> None:
        path = save_dataset(tmp_path / "d", columns(), FEATURES)
        (path / name).write_text(content)
        refused(match, path, target="label", drop=("text",))

    def test_splits_of_other_features(self, tmp_path: Path) -> None:
        save_dataset(tmp_path / "d" / "train", columns(), FEATURES)
        save_dataset(tmp_path / "d" / "test", columns(), {**FEATURES, "label": {**LABEL, "names": ["p", "n"]}})
        (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
        refused(r"The splits in '.*' have different features", tmp_path / "d")


class TestGivenTest:
    """--test and --test-column."""

    @pytest.fixture
    def write(self, tmp_path: Path) -> Callable[..., str]:
        def to(name: str, **columns: list[Any]) -> str:
            pl.DataFrame(columns).write_csv(tmp_path / name)
            return str(tmp_path / name)

        return to

    def test_a_file(self, write: Callable[..., str]) -> None:
        rows = write("a.csv", x=[1, 2, 3, 4], c=["u", "v", "u", "v"], y=["p", "q", "p", "q"])
        test = write("b.csv", y=["q", "p"], c=["w", "u"], x=[0.5, 6.0], more=[1, 2])
        found = load(rows, "y", test=test)
        assert found.numeric["x"].to_list() == [1, 2, 3, 4, 0.5, 6]
        assert found.categorical["c"].to_list() == ["u", "v", "u", "v", "w", "u"]
        assert found.labels.tolist() == [0, 1, 0, 1, 1, 0]
        assert found.test is not None
        assert found.test.tolist() == 4 * [False] + 2 * [True]
        assert found.notes == ["Left out: 'more', which only the test rows have."]
        assert found.fingerprint not in (load(rows, "y").fingerprint, load(test, "y").fingerprint)

    def test_columns_that_are_dropped_may_lack(self, write: Callable[..., str]) -> None:
        rows = write("a.csv", x=[1, 2, 3], z=[1, 2, 3], y=[0, 1, 0])
        test = write("b.csv", x=[1, 2], y=[0, 1])
        refused(r"The test rows in '.*b\.csv' lack the columns 'z' of '.*a\.csv'", Path(rows), target="y", test=test)
        assert load(rows, "y", test=test, drop=("z,z",)).numeric["x"].len() == 5
        assert load(rows, "y", test=test, drop=("z",)).numeric["x"].to_list() == [1, 2, 3, 1, 2]

    def test_columns_of_other_types(self, write: Callable[..., str]) -> None:
        rows = write("a.csv", x=[1, 2, 3], y=[0, 1, 0])
        test = write("b.csv", x=["1", "many"], y=[0, 1])
        match = r"The column 'x' is of numbers, but holds 'many' in row 5 \(1 of 5 rows are no numbers\)"
        refused(match, Path(rows), target="y", test=test)

    def test_a_test_of_another_kind(self, write: Callable[..., str], tmp_path: Path) -> None:
        rows = write("a.csv", x=[1, 2, 3], y=[0, 1, 0])
        refused(r"There is no file '.*gone\.csv'", Path(rows), target="y", test=str(tmp_path / "gone.csv"))
        np.savez(tmp_path / "b.npz", X=np.zeros((2, 4, 4)), y=[0, 1])
        refused(r"lack the columns 'x'", Path(rows), target="y", test=str(tmp_path / "b.npz"))
        np.savez(tmp_path / "c.npz", X=X, y=Y, X_test=X, y_test=Y)
        refused(r"has test rows of its own", tmp_path / "c.npz", test=str(tmp_path / "c.npz"))

    @pytest.mark.parametrize(
        "values", [[True, False, False], [1, 0, 0], ["test", "train", "validation"], ["True", "no", "FALSE"]]
    )
    def test_a_column(self, write: Callable[..., str], values: list[Any]) -> None:
        found = load(write("a.csv", x=[1, 2, 3], held=values, y=[0, 1, 0]), "y", test_column="held")
        assert found.test is not None
        assert found.test.tolist() == [True, False, False]
        assert found.numeric.columns == ["x"]
        assert found.categorical.columns == []

    @pytest.mark.parametrize(
        ("values", "match"),
        [
            ([1, 2, 0], r"Expected the column 'held' to tell .* but it holds '2'"),
            ([1, None, 0], r"Expected the column 'held' to tell .* but it holds None"),
            (["a", "b", "b"], r"but it holds 'a'"),
            ([1, 1, 1], r"The column 'held' says that all rows are to test on"),
            ([0, 0, 0], r"The column 'held' says that no rows are to test on"),
        ],
    )
    def test_columns_that_tell_no_rows(self, write: Callable[..., str], values: list[Any], match: str) -> None:
        refused(match, Path(write("a.csv", x=[1, 2, 3], held=values, y=[0, 1, 0])), target="y", test_column="held")

    def test_not_both(self, write: Callable[..., str]) -> None:
        rows = write("a.csv", x=[1, 2, 3], held=[1, 0, 0], y=[0, 1, 0])
        refused(
            re.escape("given already; leave out --test-column"), Path(rows), target="y", test=rows, test_column="held"
        )


class TestForeignFiles:
    """Files of anyone's: too wide, unpacking to more than the memory, or leading elsewhere."""

    def test_a_wide_header_takes_no_time(self, tmp_path: Path) -> None:
        """By its operations, not by a clock: each name is counted once."""
        names = [f"column_{i}" for i in range(20_000)]
        (tmp_path / "t.csv").write_text(",".join([*names, "column_7"]) + "\n" + "1," * 20_000 + "1\n")
        with pytest.raises(InputError, match="several columns of the same name: 'column_7'"):
            load(str(tmp_path / "t.csv"), "y")

    def test_a_first_line_without_an_end(self, tmp_path: Path) -> None:
        with (tmp_path / "t.csv").open("wb") as file:
            file.write(b"a" * 1000)
            file.truncate(40 << 20)
        with pytest.raises(InputError, match="does not end within 16 MiB"):
            load(str(tmp_path / "t.csv"), "y")

    def test_what_is_compressed_is_unpacked_whatever_its_name(self, tmp_path: Path) -> None:
        packed = gzip.compress(b"x,y\n" + b"1,2\n3,5\n" * 50)
        (tmp_path / "t.csv").write_bytes(packed)
        assert load(str(tmp_path / "t.csv"), "y").rows == 100
        (tmp_path / "t.csv").write_bytes(packed[:-20])
        with pytest.raises(InputError, match="cannot be unpacked by gzip"):
            load(str(tmp_path / "t.csv"), "y")

    def test_archives_that_unpack_to_more_than_the_memory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        np.savez_compressed(tmp_path / "t.npz", X=np.zeros((4000, 50), np.float32), y=np.arange(4000) % 2)
        pl.DataFrame({"x": np.zeros(100_000), "y": np.zeros(100_000)}).write_parquet(tmp_path / "t.parquet")
        monkeypatch.setattr(memory_limits, "available", lambda: 500_000)
        for name in ("t.npz", "t.parquet"):
            with pytest.raises(InputError, match=rf"{name}' would take .* GiB of memory once unpacked, but"):
                load(str(tmp_path / name), "y")

    def test_pictures_behind_a_link(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / "p" / name).mkdir(parents=True)
            Image.new("L", (4, 4)).save(tmp_path / "p" / name / "1.png")
        Image.new("L", (4, 4)).save(tmp_path / "private.png")
        (tmp_path / "p" / "a" / "2.png").symlink_to(tmp_path / "p" / "a" / "1.png")
        assert load(str(tmp_path / "p")).rows == 3
        (tmp_path / "p" / "a" / "3.png").symlink_to(tmp_path / "private.png")
        with pytest.raises(InputError, match=r"3.png' is a link that leads out of the folder"):
            load(str(tmp_path / "p"))
        (tmp_path / "p" / "a" / "3.png").unlink()
        (tmp_path / "p" / "c").symlink_to(tmp_path / "p" / "a")
        with pytest.raises(InputError, match="c' is a link"):
            load(str(tmp_path / "p"))

    def test_a_name_that_a_shell_would_expand(self, tmp_path: Path) -> None:
        (tmp_path / "[t]*.csv").write_text("x,y\n" + "".join(f"{i % 7},{i % 2}\n" for i in range(30)))
        (tmp_path / "t1.csv").write_text("x,y\n1,2\n")
        assert load(str(tmp_path / "[t]*.csv"), "y").rows == 30

    def test_an_error_is_a_line_whatever_the_names_are(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text('"a\nb\x1b[2J' + "c" * 5000 + '",y\n1,2\n')
        with pytest.raises(InputError) as caught:
            load(str(tmp_path / "t.csv"), "z")
        assert len(str(caught.value)) <= 1500
        assert "\n" not in str(caught.value)
        assert "\x1b" not in str(caught.value)
