"""A cache of the test's own, a vendor on loopback, and engines that are shell scripts."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nomadserve.engines.platforms import architecture


class Talk:
    """Collects what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.moved: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def moving(self, text: str) -> None:
        self.moved.append(text)


class Vendor:
    """Serves `nomad` 1.11.1 in the layout of the real site, as wrongly or as slowly as a test wants."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.program = script("Nomad v1.11.1")
        self.sums: str | None = None
        self.hold_archive = threading.Event()  # cleared: the second half of the archive does not come
        self.hold_archive.set()
        self.half_sent = threading.Event()
        vendor = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                vendor.requests.append(self.path)
                body = vendor.archive() if self.path.endswith(".zip") else vendor.sums_text().encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2])
                if self.path.endswith(".zip"):
                    vendor.half_sent.set()
                    vendor.hold_archive.wait()
                try:
                    self.wfile.write(body[len(body) // 2 :])
                except (BrokenPipeError, ConnectionResetError):
                    return  # the installer was killed: what a test wanted

            def log_message(self, format: str, *args: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @property
    def archive_name(self) -> str:
        return f"nomad_1.11.1_linux_{architecture()}.zip"

    def archive(self) -> bytes:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as file:
            for name, text in (("nomad", self.program), ("LICENSE.txt", "terms"), ("../evil", "outside")):
                file.writestr(zipfile.ZipInfo(name), text)
        return packed.getvalue()

    def sums_text(self) -> str:
        digest = hashlib.sha256(self.archive()).hexdigest()
        return f"{'0' * 64}  another.zip\n{digest}  {self.archive_name}\n" if self.sums is None else self.sums


def script(prints: str) -> str:
    """A program that says its version, whatever it is asked."""
    return f"#!/bin/sh\necho '{prints}'\n"


@pytest.fixture
def talk() -> Talk:
    return Talk()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of installed engines."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return (tmp_path / "cache").resolve() / "nomadserve" / "engines"


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Puts programs on a PATH that starts empty."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(name: str, text: str) -> Path:
        program = folder / name
        program.write_text(text)
        program.chmod(0o755)
        return program

    return put


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vendor]:
    vendor = Vendor()
    monkeypatch.setenv("NOMADSERVE_HASHICORP_URL", vendor.url)
    thread = threading.Thread(target=vendor.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield vendor
    vendor.hold_archive.set()
    vendor.server.shutdown()
    thread.join()
    vendor.server.server_close()
