"""`nomadserve serve` after a storm: what clients and the engine do wrong must leave nothing behind."""

import contextlib
import json
import random
import socket
import struct
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.contract.serve_process import PLAIN, Server, serving, until
from tests.unit.runtime.models import write_fake

CLIENTS, STEPS = 16, 60
GROWTH_NBYTES_MAX = 24 * 1024 * 1024


def one_row(value: float) -> bytes:
    return json.dumps({"inputs": {"x": [[value]]}}).encode()


def request(body: bytes, length: int | None = None, *, headers: str = "") -> bytes:
    nbytes = len(body) if length is None else length
    return f"POST {PLAIN} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {nbytes}\r\n\r\n".encode() + body


def hang_up(connection: socket.socket) -> None:
    """Close by a reset, as a client that was killed does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def storm(server: Server, seed: int) -> Counter[str]:
    """One client that does everything wrong, and sometimes something right."""
    chance, seen = random.Random(seed), Counter[str]()
    kinds = {
        "good": request(one_row(1)),
        "engine error": request(one_row(666)),
        "bad body": request(b"[1, 2"),
        "late": request(one_row(1), headers="x-nomadserve-timeout-ms: 1\r\n"),
        "cut off": request(one_row(1), 1000),
        "gone": request(one_row(1)),
        "garbage": b"\x00\x01\x02 nothing\r\n\r\n",
    }
    for _ in range(STEPS):
        kind = chance.choice(list(kinds))
        with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", server.port), 20) as client:
            client.sendall(kinds[kind])
            if kind in ("cut off", "gone"):
                hang_up(client)
                seen[kind] += 1
                continue
            seen[f"{kind}: {client.recv(65536).split(b' ', 2)[1].decode()}"] += 1
    return seen


def open_files(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def threads(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))


def resident_nbytes(server: Server) -> int:
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * 4096


def test_a_storm_leaves_no_row_no_request_no_file_and_no_thread_behind(tmp_path: Path) -> None:
    model = write_fake(tmp_path / "m.json", delay_ms=5, fail_on=666)
    options = ("--engine", "fake", "--max-batch", "4", "--queue-max", "8", "--log-level", "error")
    with serving(tmp_path, str(model), *options) as server:
        server.ask("POST", PLAIN, one_row(1))
        files, tasks = open_files(server), threads(server)  # with perhaps a connection that is just being closed
        with ThreadPoolExecutor(CLIENTS) as pool:
            seen = sum(pool.map(lambda seed: storm(server, seed), range(CLIENTS)), Counter[str]())
        for claim in ("good: 200", "engine error: 500", "bad body: 400", "garbage: 400", "cut off", "gone"):
            assert seen[claim] > 0, seen
        for gauge in ("in_flight", "queued_rows", "backlog_seconds"):
            until(lambda gauge=gauge: server.metric(f'nomadserve_{gauge}{{model="m"}}') == 0)  # type: ignore[misc]
        until(lambda: open_files(server) <= files and threads(server) <= tasks)
        # Every row has its place again: a full queue of them is answered.
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: server.ask("POST", PLAIN, one_row(1)).status, range(8))) == {200}
        server.tell_to_end()
        assert server.wait() == 0


def test_memory_stays_where_it_is(tmp_path: Path) -> None:
    def ask(count: int) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda seed: many(server, count, seed), range(8)))

    with serving(tmp_path, str(write_fake(tmp_path / "m.json")), "--engine", "fake") as server:
        ask(150)
        before = resident_nbytes(server)
        ask(500)
        assert resident_nbytes(server) - before < GROWTH_NBYTES_MAX


def many(server: Server, count: int, seed: int) -> None:
    connection = server.connect()
    for step in range(count):
        server.ask("POST", PLAIN, one_row(seed * 1000 + step), over=connection)
    connection.close()
