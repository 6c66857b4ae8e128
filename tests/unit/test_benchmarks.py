"""The benchmark is not run by the tests; its data and its pure parts are checked here."""

import ast
import asyncio
import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bodies
from benchmarks.aims import Aim, aims
from benchmarks.catalogue import OWN, PEERS, Peer
from benchmarks.client import Question
from benchmarks.open_loop import Counts, Load, predicted_s
from benchmarks.results import Key, Median, medians
from benchmarks.table import aims_table, tables

SERVERS = Path(__file__).parent.parent.parent / "benchmarks" / "peers"
HELPERS = {"__init__", "given"}
ROW = np.linspace(-1, 1, 64, dtype=np.float32)


def modules_of(peer: Peer) -> set[str]:
    """Modules of `benchmarks.peers` that the command names."""
    words = [word.partition(":")[0] for word in peer.command]
    return {word.removeprefix("benchmarks.peers.") for word in words if word.startswith("benchmarks.peers.")}


def median(answered: float, *, p99_ms: float = 1.0, cpu_us: float = 10.0) -> Median:
    return Median(3, answered, 0.0, 0.5, p99_ms, cpu_us, 50.0, 0, 0.0)


def test_every_server_file_is_in_the_catalogue_and_the_other_way_round() -> None:
    files = {path.stem for path in SERVERS.glob("*.py")} - HELPERS
    assert set.union(*(modules_of(peer) for peer in PEERS.values())) == files


@pytest.mark.parametrize("path", sorted(SERVERS.glob("*.py")), ids=lambda path: path.stem)
def test_server_file_parses(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("peer", PEERS.values(), ids=lambda peer: peer.name)
def test_peer_is_pinned(peer: Peer) -> None:
    assert all("==" in requirement for requirement in peer.requirements)


@pytest.mark.parametrize("peer", PEERS.values(), ids=lambda peer: peer.name)
def test_commands_have_no_unknown_placeholder(peer: Peer) -> None:
    known = dict.fromkeys(("bin", "python", "port", "model", "path", "queue_max", "folder", "tree"), "x")
    for text in (*peer.command, *peer.environ.values(), *(form.path for form in peer.forms.values())):
        assert "{" not in text.format(**known)


def test_binary_body_says_where_its_json_ends() -> None:
    body = bodies.PROTOCOL_BINARY.encode(ROW)
    length = int(bodies.PROTOCOL_BINARY.headers_of(body)[bodies.HEADER_LENGTH])
    assert json.loads(body[:length])["inputs"][0]["parameters"] == {"binary_data_size": ROW.nbytes}
    assert body[length:] == ROW.tobytes()


def test_binary_reply_is_read_from_its_end() -> None:
    scores = np.arange(10, dtype=np.float32)
    head = json.dumps({"outputs": [{"name": "y", "parameters": {"binary_data_size": scores.nbytes}}]}).encode()
    assert np.array_equal(bodies.PROTOCOL_BINARY.decode(head + scores.tobytes()), scores)


def test_json_body_keeps_every_bit() -> None:
    assert np.array_equal(bodies.ECHO.decode(bodies.PLAIN.encode(ROW)), ROW)


def test_question_is_a_whole_request() -> None:
    question = Question("/infer", {"Content-Type": "application/json"}, b"{}", ROW)
    assert question.as_http(8000) == (
        b"POST /infer HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )


def test_aim_is_met_from_the_wanted_ratio_on() -> None:
    keys = {name: Key(name, "mlp", "json", "steady", 64) for name in (OWN, "mosec")}
    for answered, verdict in ((1099.0, "not met"), (1100.0, "met")):
        found = aims({keys[OWN]: median(answered), keys["mosec"]: median(1000.0)})
        assert [aim.verdict for aim in found if aim.name == "MLP, JSON: requests/s ÷ mosec's at 64 connections"] == [
            verdict
        ]


def test_latency_aim_is_met_up_to_the_wanted_ratio() -> None:
    assert Aim("p99", 1.0, 0.9, at_most=True).is_met
    assert not Aim("p99", 1.0, 1.1, at_most=True).is_met


def test_what_was_not_measured_is_neither_met_nor_hidden() -> None:
    found = aims({})
    assert found
    assert {aim.verdict for aim in found} == {"not measured"}


def test_table_has_ratios_to_nomadserve() -> None:
    figures = {
        Key(name, "mlp", "json", "steady", 64): median(rate) for name, rate in ((OWN, 3000.0), ("mosec", 1500.0))
    }
    assert "1,500 (2.00)" in tables(figures)
    assert "| not measured |" in aims_table(aims(figures))


def test_no_measurement_no_medians() -> None:
    assert medians([]) == {}


def test_what_a_server_predicted_is_read_from_the_head_of_its_reply() -> None:
    line = b"HTTP/1.1 200 OK\r\nServer-Timing: queue;dur=1.5, total;dur=3.000%b\r\ncontent-length: 0\r\n"
    assert predicted_s(line % b", predicted;dur=1250.5") == 1.2505
    assert predicted_s(line % b"") is None


def test_percentiles_are_of_answers_and_of_what_was_predicted_for_them() -> None:
    counts = Counts()
    for latency_s, predicted in ((1.0, 2.0), (3.0, 2.0), (0.5, None)):
        counts.add(200, latency_s, predicted)
    counts.add(503, 9.0)
    found = counts.as_json()
    assert (found["answered"], found["refused"], found["predicted"]) == (3, 1, 2)
    assert (found["p99_ms"], found["p99_over_predicted"], found["p50_over_predicted"]) == (3000, 1.5, 1.5)


@pytest.mark.parametrize("is_closed", [True, False])
def test_the_load_counts_every_reply(is_closed: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                answers.append(1)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    async def test() -> Counts:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        load = Load(server.sockets[0].getsockname()[1], [b"GET / HTTP/1.1\r\n\r\n"])
        await (load.run_closed(3, 0.1) if is_closed else load.run_open(50, 0.1))
        for connection in load.idle:
            connection.close()
        server.close()
        await asyncio.sleep(0.01)
        return load.counts

    answers: list[int] = []
    counts = asyncio.run(test())
    assert len(counts.answered) == len(answers) >= (3 if is_closed else 5)
    assert not (counts.refused or counts.failed or counts.not_sent)
