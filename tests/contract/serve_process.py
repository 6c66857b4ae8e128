"""A real `nomadserve serve` process, and a client for it."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOMADSERVE = Path(sys.executable).parent / "nomadserve"
PATIENCE_S = 120.0

PLAIN = "/v1/inference"


@dataclass(frozen=True)
class Reply:
    """What a client gets to see."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        return json.loads(self.body)


class Server:
    """A running `nomadserve serve`."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        over: http.client.HTTPConnection | None = None,
    ) -> Reply:
        connection = over or self.connect()
        try:
            raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            known = {"content-type": "application/json"} if raw is not None else {}
            connection.request(method, path, raw, known | (headers or {}))
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            if over is None:
                connection.close()

    def metric(self, series: str) -> float:
        text = self.ask("GET", "/metrics").body.decode()
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return float(values[series])

    def tell_to_end(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(
    folder: Path, *arguments: str, command: Sequence[str | Path] = (NOMADSERVE, "serve"), **environ: str
) -> Iterator[Server]:
    """Start the command, wait until it is ready, and end it whatever happens."""
    port, log = free_port(), folder / f"serve-{time.monotonic_ns()}.log"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("NOMADSERVE_", "NOMAD_"))}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *arguments, "--port", str(port)],
            env=clean | environ,
            stdout=subprocess.DEVNULL,
            stderr=output,
        )
    server = Server(process, port, log)
    try:
        wait_until_ready(server)
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE_S)


def wait_until_ready(server: Server) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_at:
        assert server.process.poll() is None, server.log.read_text()
        with contextlib.suppress(ConnectionError):
            if server.ask("GET", "/v2/health/ready").status == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"not ready in time: {server.log.read_text()}")


def until(claim: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
