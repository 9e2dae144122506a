"""The command as its users meet it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import lossfit
from command import refused, run
from forks import Forks
from lossfit.compare.candidates import candidates
from lossfit.compare.plan import QUICK_TRIALS
from trainings import short_trainings

ROWS = 60


@pytest.fixture
def table(tmp_path: Path) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "age": [20.0 + (7 * i) % 40 for i in range(ROWS)],
            "city": [("Rome", "Oslo", "Lima")[i % 3] for i in range(ROWS)],
            "note": [f"{'good' if i % 2 else 'bad'} service, {'came' if i % 3 else 'left'} again" for i in range(ROWS)],
            "churned": [("no", "yes")[(i // 2) % 2] for i in range(ROWS)],
        }
    )


@pytest.mark.usefixtures("_quick")
class TestCompare:
    """lossfit compare."""

    @pytest.fixture
    def _quick(self) -> Iterator[None]:
        with short_trainings():
            yield

    def test_a_file_of_ones_own(self, table: pl.DataFrame, tmp_path: Path) -> None:
        out = tmp_path / "out"
        table.write_csv(tmp_path / "customers.csv")
        options = ("--losses", "focal", "--folds", 3, "--repeats", 1, "--trials", 2, "--workers", 1, "--out", out)
        found = run("compare", tmp_path / "customers.csv", "--target", "churned", "--text", "note", *options)
        assert found.exit_code == 0, found.output
        assert sorted(p.name for p in out.iterdir()) == [
            "parts",
            "passes.parquet",
            "plan.json",
            "report.html",
            "results.parquet",
            "summary.json",
        ]
        summary = json.loads((out / "summary.json").read_text())
        assert pl.read_parquet(out / "results.parquet").height == 2 * 3 * 2
        assert pl.read_parquet(out / "passes.parquet").height == 2 * 2
        assert summary["trainings"] == 2 * 3 * 2
        assert "Focal loss" in found.stdout
        assert "Cross-entropy" in found.stdout
        assert f"Report: {out / 'report.html'}" in found.stdout
        assert found.stdout.rstrip().endswith("# where nn.CrossEntropyLoss stood")

    def test_parquet_gives_the_same(self, table: pl.DataFrame, tmp_path: Path) -> None:
        table = table.drop("note")
        table.write_csv(tmp_path / "t.csv")
        table.write_parquet(tmp_path / "t.parquet")
        found = []
        for suffix in ("csv", "parquet"):
            options = (
                "--losses",
                "focal",
                "--folds",
                3,
                "--repeats",
                1,
                "--trials",
                1,
                "--workers",
                1,
                "--out",
                tmp_path / suffix,
            )
            assert run("compare", tmp_path / f"t.{suffix}", "--target", "churned", *options).exit_code == 0
            found.append(pl.read_parquet(tmp_path / suffix / "results.parquet").drop("seconds"))
        assert found[0].equals(found[1])

    def test_the_folder_is_named_after_the_source(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        options = (
            "--losses",
            "focal",
            "--folds",
            3,
            "--repeats",
            1,
            "--trials",
            1,
            "--workers",
            1,
            "--model",
            "linear",
        )
        assert run("compare", "yeast", *options).exit_code == 0
        assert (tmp_path / "lossfit-yeast" / "report.html").is_file()
        assert "exists. Pass --resume" in refused("compare", "yeast", *options)

    def test_a_quick_one_has_few_losses_settings_and_trainings(self, table: pl.DataFrame, tmp_path: Path) -> None:
        table.drop("note").write_csv(tmp_path / "t.csv")
        quick = ("--quick", "--metric", "roc_auc", "--model", "linear", "--folds", 3, "--out", tmp_path / "out")
        found = run("compare", tmp_path / "t.csv", "--target", "churned", *quick)
        assert found.exit_code == 0, found.output
        summary = json.loads((tmp_path / "out" / "summary.json").read_text())
        assert (summary["metric"], summary["repeats"], summary["trials"]) == ("auc", 1, QUICK_TRIALS)
        assert {e["loss"] for e in summary["losses"]} == {"cross_entropy", *candidates.QUICK}
        assert summary["trainings"] == 3 * QUICK_TRIALS * len(summary["losses"])
        assert "Area under the ROC curve" in (tmp_path / "out" / "report.html").read_text()

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (("tweet",), "one of tweets, yeast or a .csv, .tsv, .txt, .json, .jsonl, .xlsx, .arrow"),
            (("missing.csv", "--target", "y"), "There is no file 'missing.csv'"),
            (("t.csv",), "Name the column with the classes by --target. The columns are: age, city, note, churned."),
            (("t.csv", "--target", "churn"), "there is no column 'churn'. The columns are: age, city, note, churned."),
            (("t.csv", "--target", "age", "--drop", "nota"), "--drop: there is no column 'nota'"),
            (("t.parquet", "--target", "churned", "--text", "age"), "Expected the column 'age' to hold text"),
            (("empty.csv", "--target", "y"), "The file 'empty.csv' is empty"),
            (("header.csv", "--target", "y"), "has a header but no rows"),
            (("binary.csv", "--target", "y"), "is not in UTF-8 (see line 2), and its encoding cannot be told"),
            (("binary.parquet", "--target", "y"), "cannot be read as .parquet"),
            (("twice.csv", "--target", "y"), "several columns of the same name: 'x'"),
            (("nan.csv", "--target", "y"), "Values are missing in 'x' (1 rows). Pass --impute"),
            (("inf.csv", "--target", "y"), "The column 'x' is infinite in 1 rows, the first of them row 2"),
            (("one.csv", "--target", "y"), "has one class only, 'a'"),
            (("rare.csv", "--target", "y"), "Every class needs at least 3 rows"),
            (("yeast", "--target", "y"), "The bundled set 'yeast' needs no --target"),
            (("yeast", "--metric", "macro_f2"), "got 'macro_f2'. Did you mean 'macro_f1'?"),
            (("yeast", "--metric", "f1"), "--metric f1 is for two classes, but there are 10."),
            (("yeast", "--losses", "gamma"), "got 'gamma'. Did you mean 'gamma_cross_entropy'?"),
            (("yeast", "--folds", "2"), "--folds of at least 3, but got 2"),
            (("yeast", "--label-noise", "2"), "--label-noise in [0, 1), but got 2.0"),
            (("yeast", "--workers", "0"), "'--workers': Input should be greater than or equal to 1"),
            (("t.csv", "--target", "churned", "--embedding", "x"), "--embedding needs a text column"),
        ],
    )
    def test_bad_input_is_named(
        self,
        table: pl.DataFrame,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        arguments: tuple[str, ...],
        told: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        table.write_csv("t.csv")
        table.write_parquet("t.parquet")
        for name, text in {
            "empty": "",
            "header": "x,y\n",
            "twice": "x,x,y\n1,2,a\n3,4,b\n",
            "nan": "x,y\n1,a\n,b\n3,a\n4,b\n",
            "inf": "x,y\n1,a\ninf,b\n3,a\n4,b\n",
            "one": "x,y\n1,a\n2,a\n3,a\n",
            "rare": "x,y\n1,a\n2,a\n3,a\n4,b\n",
        }.items():
            Path(f"{name}.csv").write_text(text)
        for suffix in ("csv", "parquet"):
            Path(f"binary.{suffix}").write_bytes(bytes(range(256)) * 4)
        assert told in refused("compare", *arguments, "--out", "out")
        assert not Path("out").exists()


class TestList:
    """lossfit list."""

    def test_every_loss_with_formula_hyper_parameters_and_source(self) -> None:
        found = run("list")
        assert found.exit_code == 0
        for name in lossfit.available_losses():
            cls = lossfit.registry.get(name)
            assert f"\n{name}\n" in f"\n{found.stdout}"
            assert cls.formula in found.stdout
            assert cls.source in found.stdout
            for hyper in cls.hypers:
                assert f"    {hyper} " in found.stdout

    def test_one_loss_in_full(self) -> None:
        found = run("list", "focal")
        assert "lossfit.FocalLoss(" in found.stdout
        assert "Example:" in found.stdout

    def test_an_unknown_one(self) -> None:
        assert "Did you mean 'focal'?" in refused("list", "fokal")


class TestPlot:
    """lossfit plot."""

    @pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG\r\n"), ("svg", b"<svg")])
    def test_a_picture(self, tmp_path: Path, suffix: str, magic: bytes) -> None:
        path = tmp_path / f"losses.{suffix}"
        found = run("plot", "cross_entropy", "focal:gamma=1", "exact:log=true", "hinge", "--out", path)
        assert found.exit_code == 0, found.output
        assert found.stdout == f"Wrote {path}\n"
        assert path.read_bytes().startswith(magic)

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (("focal", "--out", "x.jpg"), "Expected --out to end in .png or .svg, but got 'x.jpg'"),
            (("fokal",), "Did you mean 'focal'?"),
            (("focal:gama=1",), "focal has no setting 'gama'; it has gamma"),
            (("focal:gamma",), "Expected name:setting=value,setting=value, but got 'focal:gamma'"),
            (("focal:gamma=-1",), "Expected `gamma` in [0, inf), but got -1"),
            (("focal", "--against", "q"), "`against` to be one of 'p', 'gap', but got 'q'"),
        ],
    )
    def test_bad_input_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], told: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert told in refused("plot", *arguments)
        assert not list(tmp_path.iterdir())


def test_help_has_examples() -> None:
    for command in ("compare", "export", "predict", "list", "plot"):
        found = run(command, "--help")
        assert found.exit_code == 0
        examples = [line.strip() for line in found.stdout.splitlines() if line.strip().startswith(f"lossfit {command}")]
        assert len(examples) >= 2, found.stdout
        assert "\\b" not in found.stdout


def test_version() -> None:
    assert run("--version").stdout == f"lossfit {lossfit.__version__}\n"


def test_as_a_module() -> None:
    found = subprocess.run([sys.executable, "-m", "lossfit", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout == f"lossfit {lossfit.__version__}\n"


# Makes the import of a package fail as if it were not installed.
_WITHOUT = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
import torch  # which looks for some of them, and does without
sys.meta_path.insert(0, Without())
{code}
"""
_EXTRAS = ("altair", "jinja2", "numpy", "polars", "pyarrow", "rich", "scipy", "sklearn", "typer", "vl_convert")


def without(forks: Forks, packages: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    return forks.run(_WITHOUT.format(packages=packages, code=code))


def test_the_losses_need_torch_alone(forks: Forks) -> None:
    code = (
        "import torch, lossfit; print(lossfit.FocalLoss()(torch.zeros(2, 4), torch.tensor([0, 1])).isfinite().item())"
    )
    assert without(forks, _EXTRAS, code).stdout == "True\n"


@pytest.mark.parametrize("package", ["typer", "polars", "sklearn"])
def test_a_missing_extra_is_named(package: str, forks: Forks) -> None:
    code = "from lossfit.__main__ import main; sys.argv = ['lossfit', 'compare', '--help']; main()"
    found = without(forks, (package,), code)
    assert found.returncode == 1
    assert "Traceback" not in found.stderr
    assert f"needs {package}, which comes with: pip install 'lossfit[compare]'" in found.stderr
