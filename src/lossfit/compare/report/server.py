"""A server of the reports in a folder, for this machine alone.

It is bound to 127.0.0.1 and answers only requests that name it so in their Host header: a page elsewhere that has its
own name resolve to 127.0.0.1 (DNS rebinding) reads nothing. An address is looked up among the reports that were found,
never joined to a path.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote_from_bytes, urlsplit

from lossfit import page
from lossfit.compare.errors import InputError
from lossfit.compare.report import diff, wording

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")
# Vega compiles its expressions, which come from this package alone. Nothing is fetched from anywhere.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Found:
    """A report in the folder.

    Attributes:
        name: its folder below the one that is served, as it is shown.
        address: the same as part of an address, with a slash at its end; "" for the folder that is served.
        folder: where it is.
        source, metric, answer: what it is about, and its first sentence.
        changed: when it was written.
        comparable: whether it can be set beside another one: it is of one comparison, not of several.
    """

    name: str
    address: str
    folder: Path
    source: str
    metric: str
    answer: str
    changed: str
    comparable: bool


def find(root: Path) -> dict[str, Found]:
    """The reports in a folder and those below it, by address, in the order of their names.

    Links are not followed. What cannot be read is left out.
    """
    found = {}
    for folder, below, files in os.walk(root):
        below[:] = sorted(name for name in below if name != "parts" and not name.startswith("."))
        path = Path(folder)
        if "report.html" not in files or (path / "report.html").is_symlink():
            continue
        one = _found(root, path, "noise.json" in files)
        if one is not None:
            found[one.address] = one
    return found


def _found(root: Path, folder: Path, several: bool) -> Found | None:
    try:
        contents = json.loads((folder / ("noise.json" if several else "summary.json")).read_text(encoding="utf-8"))
        if several:
            answer = " ".join(f"{100 * level['label_noise']:g}%: {level['answer']}" for level in contents["levels"])
        else:
            answer = wording.answer(contents)[0]
        source, metric = str(contents["source"]), wording.phrase(contents["metric"])
        changed = datetime.fromtimestamp((folder / "report.html").stat().st_mtime)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, StopIteration):
        return None
    below = os.fsencode(folder.relative_to(root))
    return Found(
        below.decode("utf-8", "replace"),
        "" if below == b"." else f"{quote_from_bytes(below)}/",
        folder,
        source,
        metric,
        answer,
        f"{changed:%Y-%m-%d %H:%M}",
        not several,
    )


def overview(root: Path, found: dict[str, Found]) -> str:
    """The page that lists the reports."""
    return page.render("runs.html.j2", {}, root=str(root), runs=list(found.values()))


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "lossfit"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        host, port = self.headers.get("Host", ""), self.server.server_port
        if host not in [f"{name}:{port}" for name in _NAMES]:
            self._send(HTTPStatus.MISDIRECTED_REQUEST, "This server answers only under its own address.", "text/plain")
            return
        try:
            text = self._page()
        except InputError as error:
            self._send(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), "text/plain")
        except Exception as error:
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, f"This page could not be made: {error!r}", "text/plain")
        else:
            if text is None:
                self._send(HTTPStatus.NOT_FOUND, "There is no such page.", "text/plain")
            else:
                self._send(HTTPStatus.OK, text, "text/html")

    def _page(self) -> str | None:
        address = urlsplit(self.path)
        found = find(self.server.root)
        if address.path == "/":
            return overview(self.server.root, found)
        if address.path == "/diff":
            wanted = parse_qs(address.query, keep_blank_values=True)
            first, second = (found.get(wanted.get(side, ["/"])[0]) for side in ("first", "second"))
            if first is None or second is None:
                return None
            return diff.render(diff.read(first.folder, first.name), diff.read(second.folder, second.name))
        if address.path.startswith("/runs/") and address.path.endswith("/report.html"):
            one = found.get(address.path.removeprefix("/runs/").removesuffix("report.html"))
            return None if one is None else (one.folder / "report.html").read_text(encoding="utf-8")
        return None

    def _send(self, status: HTTPStatus, text: str, kind: str) -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": f"{kind}; charset=utf-8"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, root: Path, port: int) -> None:
        self.root = root
        super().__init__((HOST, port), _Handler)


def make(root: Path, port: int) -> ThreadingHTTPServer:
    """A server that is bound, and not yet at work; ``port`` 0 takes a free one.

    Raises:
        InputError: ``root`` is no folder, or the port is taken or out of range.
    """
    if not root.is_dir():
        raise InputError(f"There is no folder {str(root)!r}.")
    if not 0 <= port < 65536:
        raise InputError(f"Expected --port in [0, 65535], but got {port}.")
    try:
        return _Server(root, port)
    except OSError as error:
        raise InputError(
            f"Port {port} cannot be used ({error.strerror}); name another by --port, or 0 for any."
        ) from error
