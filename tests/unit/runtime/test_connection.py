import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from nomadserve_runtime import connection, request
from nomadserve_runtime.connection import Connection
from nomadserve_runtime.errors import TooSlow
from nomadserve_runtime.rsgi import Exchange, Scope
from nomadserve_runtime.server import Server
from tests.unit.runtime.http import Answer, Wire

POST = b"POST /echo?a=1 HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n"


class Echo:
    """Answers with what it got, when it is told to."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.heads: list[tuple[str, str, str, dict[str, str]]] = []
        self.hung_up = 0
        self.faults: list[Exception] = []

    async def __call__(self, scope: Scope, exchange: Exchange) -> None:
        self.heads.append((scope.method, scope.path, scope.query_string, dict(scope.headers)))
        if scope.path == "/refuse":
            exchange.response_bytes(503, [], b"no")
            return
        if scope.path == "/bug":
            raise ZeroDivisionError
        try:
            body = await exchange() if scope.path != "/pieces" else b"|".join([piece async for piece in exchange])
        except (ConnectionError, TooSlow) as error:
            self.faults.append(error)
            exchange.response_bytes(408, [], b"")
            return
        exchange.on_hang_up(self._hung_up)
        await self.gate.wait()
        exchange.response_bytes(200, [("x-a", "b")], body)

    def _hung_up(self) -> None:
        self.hung_up += 1


class Talk:
    """An application, a server, and one connection to it."""

    def __init__(self) -> None:
        self.echo = Echo()
        self.server = Server(self.echo)
        found = self.server.connect()
        assert isinstance(found, Connection)
        self.connection, self.wire = found, Wire()
        self.wire.set_protocol(found)
        self.connection.connection_made(self.wire)

    async def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.wire.feed(piece)
            await rest()

    async def hear(self) -> Answer:
        async with asyncio.timeout(20):
            while (answer := self.wire.take_answer()) is None:
                await asyncio.sleep(0.001)
        return answer


async def rest() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def talking(test: Callable[[Talk], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test(Talk())

    asyncio.run(bounded())


def test_a_request_is_parsed_and_its_reply_written() -> None:
    async def test(talk: Talk) -> None:
        await talk.say(POST + b"abc")
        answer = await talk.hear()
        assert (answer.status, answer.body, answer.headers["x-a"], answer.headers["content-length"]) == (
            200,
            b"abc",
            "b",
            "3",
        )
        assert answer.headers["date"].endswith(" GMT")
        assert talk.echo.heads == [("POST", "/echo", "a=1", {"host": "x", "content-length": "3"})]

    talking(test)


def test_a_request_may_come_byte_by_byte() -> None:
    async def test(talk: Talk) -> None:
        await talk.say(*(bytes([byte]) for byte in POST + b"abc"))
        assert (await talk.hear()).body == b"abc"

    talking(test)


def test_the_same_head_again_brings_its_own_body() -> None:
    async def test(talk: Talk) -> None:
        for body in (b"abc", b"def", b"ghi"):
            await talk.say(POST + body)
            assert (await talk.hear()).body == body
        assert len(talk.echo.heads) == 3
        assert talk.echo.heads[0] == talk.echo.heads[2]
        # A known head whose body comes later, and another head of the same length.
        await talk.say(POST, b"jkl")
        assert (await talk.hear()).body == b"jkl"
        await talk.say(POST.replace(b"/echo", b"/ECHO") + b"mno")
        assert ((await talk.hear()).body, talk.echo.heads[-1][1]) == (b"mno", "/ECHO")

    talking(test)


def test_heads_that_always_differ_are_soon_not_remembered() -> None:
    async def test(talk: Talk) -> None:
        for number in range(connection.MISSES_MAX + 5):
            await talk.say(POST.replace(b"a=1", b"a=%d" % number) + b"abc")
            await talk.hear()
        assert len(talk.server.heads) == connection.MISSES_MAX
        await talk.say(POST.replace(b"a=1", b"a=0") + b"abc")  # one that is known
        await talk.hear()
        await talk.say(POST.replace(b"a=1", b"a=new") + b"abc")
        await talk.hear()
        assert len(talk.server.heads) == connection.MISSES_MAX + 1

    talking(test)


def test_requests_that_come_together_are_answered_in_their_order() -> None:
    async def test(talk: Talk) -> None:
        talk.echo.gate.clear()
        await talk.say(POST + b"abc" + POST + b"def" + POST + b"ghi")
        assert talk.wire.is_paused
        talk.echo.gate.set()
        assert [(await talk.hear()).body for _ in range(3)] == [b"abc", b"def", b"ghi"]
        assert not talk.wire.is_paused

    talking(test)


def test_a_chunked_body_is_read_whole_or_in_pieces() -> None:
    async def test(talk: Talk) -> None:
        for path, wanted in ((b"/echo", b"abcde"), (b"/pieces", b"abc|de")):
            head = b"POST %b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" % path
            await talk.say(head, b"3\r\nabc\r\n", b"2\r\nde\r\n", b"0\r\nx-trailer: 1\r\n\r\n")
            assert (await talk.hear()).body == wanted

    talking(test)


def test_a_target_is_decoded() -> None:
    async def test(talk: Talk) -> None:
        await talk.say(b"GET /a%20b?c=%20 HTTP/1.1\r\n\r\n")
        await talk.say(b"GET http://host:80/c?d HTTP/1.1\r\n\r\n")
        assert [head[1:3] for head in talk.echo.heads] == [("/a b", "c=%20"), ("/c", "d")]

    talking(test)


def test_headers_that_come_twice_stand_together() -> None:
    async def test(talk: Talk) -> None:
        await talk.say(b"GET / HTTP/1.1\r\nAccept: a\r\naccept: b\r\n\r\n")
        assert talk.echo.heads[0][3] == {"accept": "a, b"}

    talking(test)


def test_a_refused_client_keeps_its_connection_and_its_body_is_thrown_away() -> None:
    async def test(talk: Talk) -> None:
        await talk.say(b"POST /refuse HTTP/1.1\r\ncontent-length: 6\r\n\r\n")
        assert (await talk.hear()).status == 503
        await talk.say(b"abc", b"def", POST + b"xyz")
        assert (await talk.hear()).body == b"xyz"
        assert not talk.wire.is_closed

    talking(test)


def test_a_body_that_nobody_reads_is_thrown_away_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "DISCARD_NBYTES_MAX", 1000)

    async def test(talk: Talk) -> None:
        await talk.say(b"POST /refuse HTTP/1.1\r\ncontent-length: 100000\r\n\r\n", b"x" * 1000)
        assert not talk.wire.is_closed
        await talk.say(b"x")
        assert talk.wire.is_closed

    talking(test)


@pytest.mark.parametrize("head", [b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n"])
def test_a_client_that_wants_no_more_is_closed_after_its_reply(head: bytes) -> None:
    async def test(talk: Talk) -> None:
        await talk.say(head)
        assert (await talk.hear()).headers["connection"] == "close"
        assert talk.wire.is_closed

    talking(test)


def test_an_old_client_may_keep_its_connection() -> None:
    async def test(talk: Talk) -> None:
        await talk.say(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        assert (await talk.hear()).headers["connection"] == "keep-alive"
        assert not talk.wire.is_closed

    talking(test)


def test_a_client_that_asks_first_is_told_to_go_on_or_refused() -> None:
    async def test(talk: Talk) -> None:
        head = POST.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n")
        await talk.say(head)
        assert bytes(talk.wire.written) == b"HTTP/1.1 100 Continue\r\n\r\n"
        talk.wire.written.clear()
        await talk.say(b"abc")
        assert (await talk.hear()).body == b"abc"
        await talk.say(head.replace(b"/echo", b"/refuse"))
        assert (await talk.hear()).status == 503
        assert talk.wire.is_closed

    talking(test)


def test_head_requests_get_no_body() -> None:
    async def test(talk: Talk) -> None:
        await talk.say(b"HEAD / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc")
        assert talk.wire.written.endswith(b"\r\n\r\n")
        assert b"content-length: 3\r\n" in talk.wire.written

    talking(test)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01 no HTTP\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * connection.HEAD_NBYTES_MAX + b"\r\n\r\n", 431),
    ],
)
def test_what_is_no_request_is_sent_away(sent: bytes, status: int) -> None:
    async def test(talk: Talk) -> None:
        await talk.say(sent)
        answer = await talk.hear()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert talk.wire.is_closed
        assert talk.echo.heads == []

    talking(test)


def test_a_client_that_hangs_up_is_noticed_once() -> None:
    async def test(talk: Talk) -> None:
        talk.echo.gate.clear()
        await talk.say(POST + b"abc")
        talk.connection.connection_lost(None)
        talk.echo.gate.set()
        await rest()
        assert (talk.echo.hung_up, talk.server.connections, bytes(talk.wire.written)) == (1, set(), b"")

    talking(test)


def test_a_client_that_hangs_up_in_its_body_fails_the_read() -> None:
    async def test(talk: Talk) -> None:
        await talk.say(POST + b"a")
        talk.connection.connection_lost(None)
        await rest()
        assert [type(fault) for fault in talk.echo.faults] == [ConnectionResetError]

    talking(test)


def test_slow_heads_and_bodies_are_sent_away() -> None:
    async def test(talk: Talk) -> None:
        await talk.say(b"POST / HT")
        talk.connection.check_pace(talk.connection._head_since + connection.HEAD_S_MAX - 1)
        assert not talk.wire.is_closed
        talk.connection.check_pace(talk.connection._head_since + connection.HEAD_S_MAX + 1)
        assert ((await talk.hear()).status, talk.wire.is_closed) == (408, True)

        other = Talk()
        await other.say(POST + b"a")
        assert other.connection._receiving is not None
        other.connection.check_pace(other.connection._receiving.received_at + connection.BODY_S_MAX + 1)
        assert ((await other.hear()).status, other.wire.is_closed) == (408, True)
        assert [type(fault) for fault in other.echo.faults] == [TooSlow]

    talking(test)


def test_what_a_held_client_sends_waits_until_it_is_let_go() -> None:
    async def test(talk: Talk) -> None:
        await talk.say(POST + b"abc")
        assert (await talk.hear()).body == b"abc"
        talk.connection.hold()
        await talk.say(POST, b"def", POST + b"ghi")
        assert (talk.wire.take_answer(), len(talk.echo.heads)) == (None, 1)
        talk.connection.let_go()
        assert [(await talk.hear()).body for _ in range(2)] == [b"def", b"ghi"]
        talk.connection.let_go()
        assert len(talk.echo.heads) == 3

    talking(test)


def test_an_answered_request_is_gone_without_the_garbage_collector() -> None:
    class Call:
        def __init__(self, exchange: Exchange) -> None:
            self.exchange = exchange
            exchange.on_hang_up(self.hang_up)

        def hang_up(self) -> None:
            raise AssertionError

    calls: list[weakref.ref[Call]] = []

    def answer(_: Scope, exchange: Exchange) -> None:
        calls.append(weakref.ref(Call(exchange)))
        exchange.response_bytes(200, [], b"")

    async def test() -> None:
        protocol = Server(answer).connect()
        assert isinstance(protocol, asyncio.Protocol)
        protocol.connection_made(Wire())
        gc.collect()
        gc.disable()
        try:
            protocol.data_received(POST + b"abc")
            assert [call() for call in calls] == [None]
        finally:
            gc.enable()

    asyncio.run(test())


def test_no_more_than_a_little_is_read_from_a_held_client() -> None:
    async def test(talk: Talk) -> None:
        body = bytes(connection.KEPT_NBYTES_MAX)
        talk.connection.hold()
        await talk.say(POST.replace(b"3", str(len(body)).encode()))
        assert not talk.wire.is_paused
        await talk.say(body)
        assert talk.wire.is_paused
        talk.connection.let_go()
        assert not talk.wire.is_paused
        assert (await talk.hear()).body == body

    talking(test)


def test_a_held_client_that_hangs_up_is_not_answered() -> None:
    async def test(talk: Talk) -> None:
        talk.connection.hold()
        await talk.say(POST + b"abc")
        talk.connection.connection_lost(None)
        talk.connection.let_go()
        assert talk.echo.heads == []

    talking(test)


def test_a_bug_in_the_application_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    async def test(talk: Talk) -> None:
        await talk.say(b"GET /bug HTTP/1.1\r\n\r\n")
        assert (await talk.hear()).status == 500

    talking(test)
    assert "ZeroDivisionError" in caplog.text


def test_stopping_answers_what_is_there_and_closes_all() -> None:
    async def test(talk: Talk) -> None:
        talk.echo.gate.clear()
        await talk.say(POST + b"abc")
        stopping = asyncio.create_task(talk.server.stop())
        await asyncio.sleep(0.15)
        talk.echo.gate.set()
        assert (await talk.hear()).headers["connection"] == "close"
        assert talk.wire.is_closed
        talk.connection.connection_lost(None)
        await stopping

    talking(test)


def test_a_client_that_left_before_anybody_asked_is_noticed_all_the_same() -> None:
    async def test(talk: Talk) -> None:
        talk.echo.gate.clear()
        await talk.say(POST + b"abc")
        asked = talk.connection._answering
        assert asked is not None
        talk.connection.connection_lost(None)
        told: list[bool] = []
        asked.on_hang_up(lambda: told.append(True))
        assert told == [True]
        talk.echo.gate.set()

    talking(test)
