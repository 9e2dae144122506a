"""Requests to ``lossfit serve`` over folders of which most are hostile: it answers, and shows nothing else."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import random
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import redirect_stderr
from http.server import ThreadingHTTPServer
from pathlib import Path

from attacks import folders, mutations
from attacks.tally import Tally
from lossfit.compare.report import server

_SECRET = "TOP-SECRET-7f3a"
_SECONDS = 20.0
_FILES = ("plan.json", "summary.json", "passes.parquet", "report.html")
_SPOILT = [(way, name) for way in ("link", "secret", "pipe", "deep", "large", "mutated") for name in _FILES]
_KINDS = (
    *("a page", "a hostile folder", "two runs", "another path", "another host", "a client that leaves", "no HTTP"),
)
_PATHS = (
    *("/runs/../secret.json", "/view/link/report.html", "/runs/%2e%2e/secret.json", "//secret.json", "/runs//", "//["),
    *("/view/other/summary.json", "/view/other/plan.json", "/diff", "/?" + "a" * 5000, "/runs/\x00/report.html"),
    *("/view/diff?first=../&second=other/", "/runs/diff?" + "first=&" * 99, "http://evil.example/"),
)
_NO_HTTP = (b"GET", b"GET / HTTP/9.9", b"G" * 70_000, b"\r\n" * 9, b"GET / HTTP/1.1\r\nHost", b"\x16\x03\x01\x02\x00")


def run(count: int, seed: int) -> Tally:
    tally = Tally()
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        original, served = Path(name) / "original", Path(name) / "served"
        original.mkdir()
        folders.everything(original)
        _make(original, served, Path(name), rng)
        errors = io.StringIO()
        with redirect_stderr(errors), _serving(served) as running:
            addresses = [f"{found}report.html" for found in server.find(served)]
            for i in range(count):
                kind = rng.choice(_KINDS)
                request = _request(kind, rng, addresses, running.server_port)
                told = _wrong(running.server_port, request, leave=kind == "a client that leaves")
                tally.add(kind, "" if not told else f"request {i} of seed {seed}: {told}")
        if errors.getvalue():
            tally.add("what it printed", errors.getvalue()[-500:])
    return tally


def _make(original: Path, served: Path, outside: Path, rng: random.Random) -> None:
    """Sound comparisons, and one for each way in which a file of one can be spoilt."""
    served.mkdir()
    for name in ("other", "noise"):
        shutil.copytree(original / name, served / name, ignore=shutil.ignore_patterns("parts"))
    (outside / "secret.json").write_text(f'{{"a": "{_SECRET}"}}')
    (served / "link").symlink_to(outside)
    for i, (way, name) in enumerate(_SPOILT):
        folder = served / f"bad{i}"
        shutil.copytree(original / "other", folder, ignore=shutil.ignore_patterns("parts"))
        path = folder / name
        whole = path.read_bytes()
        path.unlink()
        if way in ("link", "secret"):
            target = outside / f"{i}{path.suffix}"
            target.write_bytes(whole + _SECRET.encode() if way == "link" else _SECRET.encode())
            path.symlink_to(target)
        elif way == "pipe":
            os.mkfifo(path)
        elif way == "deep":
            path.write_text("[" * 300_000)
        elif way == "large":
            with path.open("wb") as file:
                file.truncate(400 << 20)
        else:
            path.write_bytes((mutations.json_of if path.suffix == ".json" else mutations.bytes_of)(whole, rng))


@contextlib.contextmanager
def _serving(folder: Path) -> Iterator[ThreadingHTTPServer]:
    running = server.make(folder, 0)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield running
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


def _request(kind: str, rng: random.Random, addresses: list[str], port: int) -> bytes:
    host, area = f"127.0.0.1:{port}", rng.choice(("runs", "view"))
    hostile = [f"bad{i}/" for i in range(len(_SPOILT))]
    if kind == "no HTTP":
        return rng.choice((rng.randbytes(200), *_NO_HTTP)) + b"\r\n\r\n"
    path = {
        "a page": rng.choice(("/", f"/{area}/{rng.choice(addresses)}")),
        "a hostile folder": f"/{area}/{rng.choice(hostile)}report.html",
        "two runs": f"/{area}/diff?first={rng.choice(['other/', *hostile])}&second={rng.choice(['other/', *hostile])}",
        "another path": rng.choice(_PATHS),
        "another host": "/",
        "a client that leaves": rng.choice(("/", "/view/other/report.html", "/view/diff?first=other/&second=other/")),
    }[kind]
    if kind == "another host":
        host = rng.choice(("evil.example", f"evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "[::1]"))
    method = rng.choice((*["GET"] * 12, *["HEAD"] * 3, "POST"))
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1")


def _wrong(port: int, request: bytes, *, leave: bool) -> str:
    """What is wrong with the answer, or with the server afterwards."""
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), _SECONDS) as connection:
            connection.sendall(request)
            if leave:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                connection.shutdown(socket.SHUT_WR)
                while more := connection.recv(1 << 16):
                    answer += more
    except TimeoutError:
        return f"no answer in {_SECONDS:.0f} s to {request[:80]!r}"
    except ConnectionError:  # what is no HTTP may be cut off
        pass
    status = answer[9:12]
    if status[:1] == b"5" and status not in (b"501", b"505"):
        return f"{status.decode()} to {request[:80]!r}: {answer[-200:]!r}"
    if _SECRET.encode() in answer:
        return f"what is outside was shown to {request[:80]!r}"
    if status == b"200" and b"Host: 127.0.0.1:%d\r\n" % port not in request:
        return f"another host was answered: {request[:80]!r}"
    after = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    after.request("GET", "/")
    found = after.getresponse()
    shown = b"/runs/other/report.html" in found.read()
    after.close()
    return "" if found.status == 200 and shown else f"after {request[:80]!r} the list is gone ({found.status})"
