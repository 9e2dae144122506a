"""The site, built once for the tests that look at it."""

import functools
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("mkdocs.yml", "CHANGELOG.md", "CONTRIBUTING.md", "docs", "scripts/site", "src", "benchmarks/results")


def _is_new(site: Path) -> bool:
    """Whether nothing that the site is made from is newer."""
    if not (site / "index.html").is_file():
        return False
    files = [path for name in SOURCES for path in [ROOT / name, *(ROOT / name).rglob("*")]]
    newest = max(path.stat().st_mtime for path in files if path.is_file() and "__pycache__" not in path.parts)
    return newest < (site / "index.html").stat().st_mtime


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, as ``make docs`` left it or built anew. A warning fails the build."""
    if _is_new(ROOT / "site"):
        return ROOT / "site"
    if not all(find_spec(name) for name in ("mkdocs", "material", "mkdocstrings")):
        pytest.skip("needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    found = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert found.returncode == 0, found.stderr
    return folder


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()
