import asyncio

from nomadserve_runtime import heads
from nomadserve_runtime.connection import Connection
from nomadserve_runtime.heads import KnownHeads
from nomadserve_runtime.request import Request
from nomadserve_runtime.rsgi import Exchange, Scope
from nomadserve_runtime.server import Server
from tests.unit.runtime.http import Wire

POST = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n"


def test_only_so_many_heads_are_kept_and_the_oldest_goes_first() -> None:
    async def test() -> None:
        server, wire = Server(Noting()), Wire()
        protocol = server.connect()
        assert isinstance(protocol, Connection)
        protocol.connection_made(wire)
        kept = KnownHeads()
        for number in range(heads.HEADS_MAX + 2):
            request = Request(protocol, "POST", f"/{number}", "", {"content-length": "3"}, {})
            kept.learn(b"%d" % number, request, is_large=False)
        assert len(kept) == heads.HEADS_MAX
        assert b"1" not in kept
        assert (kept[b"2"].path, kept[b"2"].body_nbytes) == ("/2", 3)

    asyncio.run(test())


class Noting:
    """Answers with how often it saw the head before, in a later turn."""

    def __call__(self, scope: Scope, exchange: Exchange) -> None:
        scope.notes["seen"] = scope.notes.get("seen", 0) + 1
        text = str(scope.notes["seen"]).encode()
        asyncio.get_running_loop().call_soon(exchange.response_bytes, 200, [], text)


def test_requests_with_the_same_head_share_what_the_application_noted_of_it_over_all_connections() -> None:
    async def test() -> list[bytes]:
        server, bodies = Server(Noting()), []
        for request in (POST, POST, POST.replace(b"/a", b"/b"), POST):
            protocol, wire = server.connect(), Wire()
            assert isinstance(protocol, asyncio.Protocol)
            protocol.connection_made(wire)
            protocol.data_received(request + b"abc")
            await asyncio.sleep(0)
            answer = wire.take_answer()
            assert answer is not None
            bodies.append(answer.body)
        return bodies

    assert asyncio.run(test()) == [b"1", b"2", b"1", b"3"]


def test_a_head_whose_body_has_another_length_is_parsed_as_ever() -> None:
    async def test() -> list[int]:
        server = Server(Noting())
        protocol, wire = server.connect(), Wire()
        assert isinstance(protocol, asyncio.Protocol)
        protocol.connection_made(wire)
        found = []
        for pieces in ((POST + b"abc",), (POST + b"a", b"bc"), (POST + b"abc" + POST + b"def",)):
            for piece in pieces:
                protocol.data_received(piece)
                for _ in range(4):
                    await asyncio.sleep(0)
            while (answer := wire.take_answer()) is not None:
                found.append(answer.status)
        return found

    assert asyncio.run(test()) == [200] * 4
