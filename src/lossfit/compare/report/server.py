"""A server of the reports in a folder, for this machine alone.

It is bound to 127.0.0.1 and answers only requests that name it so in their Host header: a page elsewhere that has its
own name resolve to 127.0.0.1 (DNS rebinding) reads nothing. An address is looked up among the reports that were found,
never joined to a path.

Reports may be anyone's. One is shown in a frame of another origin than this server's, which runs its scripts and
nothing else: it reads no other page, sends no form, opens no window, and cannot lead this or its own frame elsewhere.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote_from_bytes, urlencode, urlsplit

from lossfit import page
from lossfit.compare import files
from lossfit.compare.errors import InputError, first_line
from lossfit.compare.report import diff, wording
from lossfit.compare.running import finished

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")
LARGEST_REPORT = 64 * files.MIB
MOST_FOLDERS = 100_000
"""Folders that are looked through for reports."""
_SECONDS = 30
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-DNS-Prefetch-Control": "off",
    "Cache-Control": "no-store",
}
_OWN = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
# Vega compiles its expressions. The frame's own policy does not say where it may go: the page around it does.
_FRAMED = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)


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


@dataclass(frozen=True)
class LeftOut:
    """A comparison that is not listed.

    Attributes:
        name: its folder below the one that is served, as it is shown.
        why: what is wrong with it.
    """

    name: str
    why: str


def find(root: Path) -> tuple[dict[str, Found], list[LeftOut]]:
    """The reports in a folder and those below it, by address, in the order of their names; and what is left out.

    Links are not followed.
    """
    found, left_out = {}, []
    for looked, (folder, below, names) in enumerate(os.walk(root)):
        if looked == MOST_FOLDERS:
            left_out.append(
                LeftOut(str(root), f"it holds more than {MOST_FOLDERS:,} folders, of which those are looked at")
            )
            break
        below[:] = sorted(name for name in below if name not in ("parts", "model") and not name.startswith("."))
        path = Path(folder)
        if not {"report.html", "plan.json", "noise.json"} & set(names):
            continue
        one = _found(root, path, names)
        if isinstance(one, Found):
            found[one.address] = one
        else:
            left_out.append(LeftOut(os.fsencode(path.relative_to(root)).decode("utf-8", "replace"), one))
    return found, left_out


def _is_file(path: Path) -> bool:
    """Whether it is a file, not a link, a pipe or a device."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _found(root: Path, folder: Path, names: list[str]) -> Found | str:
    """The report in a folder, or why there is none to list."""
    if "report.html" not in names:
        return "it is not finished; the same command with --resume goes on with it"
    if not _is_file(folder / "report.html"):
        return "its report is a link, a pipe or a device"
    several = "noise.json" in names
    if not several and "summary.json" not in names:
        return "summary.json is not there"
    try:
        if several:
            contents = files.read_json(folder / "noise.json", finished.LARGEST_SUMMARY)
            answer = " ".join(f"{100 * level['label_noise']:g}%: {level['answer']}" for level in contents["levels"])
        else:
            contents = finished.read_summary(folder)
            answer = wording.answer(contents)[0]
        source, metric = str(contents["source"]), wording.phrase(contents["metric"])
        changed = datetime.fromtimestamp((folder / "report.html").stat().st_mtime)
    except Exception as error:  # one bad file must not take the others down
        return f"{'noise.json' if several else 'summary.json'} cannot be read: {first_line(error)}"
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


def overview(root: Path, found: dict[str, Found], left_out: list[LeftOut], nonce: str) -> str:
    """The page that lists the reports, and what is left out; ``nonce`` marks the scripts that are its own."""
    runs = list(found.values())
    return page.render("runs.html.j2", {}, root=str(root), runs=runs, left_out=left_out, nonce=nonce)


def framed(title: str, address: str) -> str:
    """The page around a report, or around what differs between two."""
    return page.render("frame.html.j2", {}, title=title, address=address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SECONDS
    server_version = "lossfit"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        host, port = self.headers.get("Host", ""), self.server.server_port
        if host not in [f"{name}:{port}" for name in _NAMES] and not (port == 80 and host in _NAMES):
            self._send(HTTPStatus.MISDIRECTED_REQUEST, "This server answers only under its own address.")
            return
        try:
            found = self._page()
        except InputError as error:
            self._send(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        except Exception as error:
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, f"This page could not be made: {error!r}")
        else:
            if found is None:
                self._send(HTTPStatus.NOT_FOUND, "There is no such page.")
            else:
                text, policy = found
                self._send(HTTPStatus.OK, text, "text/html", policy)

    def _page(self) -> tuple[str, str] | None:
        """A page and its policy; None if there is none."""
        try:
            address = urlsplit(self.path)
        except ValueError:
            return None
        found, left_out = find(self.server.root)
        if address.path == "/":
            nonce = secrets.token_urlsafe(16)
            return overview(self.server.root, found, left_out, nonce), f"{_OWN}; script-src 'nonce-{nonce}'"
        area, _, rest = address.path.removeprefix("/").partition("/")
        # A frame's contents are shown in their frame alone.
        area = "runs" if area == "view" and self.headers.get("Sec-Fetch-Dest") == "document" else area
        if rest.endswith("diff"):
            return self._diff(area, address.query, found) if rest == "diff" else None
        one = found.get(rest.removesuffix("report.html")) if rest.endswith("report.html") else None
        if one is None or area not in ("runs", "view"):
            return None
        if area == "runs":
            return framed(one.name, f"/view/{one.address}report.html"), _OWN
        contents = files.read(one.folder / "report.html", LARGEST_REPORT)
        return contents.decode("utf-8", "replace"), _FRAMED

    def _diff(self, area: str, query: str, found: dict[str, Found]) -> tuple[str, str] | None:
        try:
            wanted = parse_qs(query, keep_blank_values=True, max_num_fields=10)
        except ValueError:
            return None
        first, second = (found.get(wanted.get(side, ["/"])[0]) for side in ("first", "second"))
        if first is None or second is None or area not in ("runs", "view"):
            return None
        if area == "runs":
            asked = urlencode({"first": first.address, "second": second.address})
            return framed(f"{first.name}, {second.name}", f"/view/diff?{asked}"), _OWN
        return diff.render(diff.read_run(first.folder, first.name), diff.read_run(second.folder, second.name)), _FRAMED

    def _send(self, status: HTTPStatus, text: str, kind: str = "text/plain", policy: str = _OWN) -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        headers = {"Content-Security-Policy": policy, "Content-Type": f"{kind}; charset=utf-8"}
        for name, value in {**_HEADERS, **headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
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

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no error."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


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
