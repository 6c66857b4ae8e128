import asyncio

import pytest

from nomadserve_runtime.connection import MISSES_MAX, Connection
from nomadserve_runtime.request import DISCARD_NBYTES_MAX
from nomadserve_runtime.rest import REST_NBYTES_MIN, Rest
from nomadserve_runtime.rsgi import Exchange, Scope
from tests.unit.runtime.test_connection import POST, Talk, rest, talking

IMAGE = bytes(range(256)) * (REST_NBYTES_MIN // 64)  # four times as long as it takes


def head(path: str, nbytes: int, *, more: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {nbytes}\r\n{more}\r\n".encode()


@pytest.mark.parametrize("with_head", [0, 1, 1000, 2 * REST_NBYTES_MIN])
def test_a_large_body_arrives_as_it_was_sent(with_head: int) -> None:
    async def test(talk: Talk) -> None:
        await talk.say(head("/echo", len(IMAGE)) + IMAGE[:with_head])
        assert isinstance(talk.wire.get_protocol(), Rest)
        await talk.say(IMAGE[with_head : with_head + 5], IMAGE[with_head + 5 : -1], IMAGE[-1:])
        assert (await talk.hear()).body == IMAGE

    talking(test)


def test_a_request_behind_a_large_body_is_one_of_its_own() -> None:
    async def test(talk: Talk) -> None:
        await talk.say(head("/echo", len(IMAGE)))
        await talk.say(IMAGE + POST + b"abc")
        assert (await talk.hear()).body == IMAGE
        assert (await talk.hear()).body == b"abc"
        await talk.say(head("/echo", len(IMAGE)), IMAGE, POST + b"def")
        assert (await talk.hear()).body == IMAGE
        assert (await talk.hear()).body == b"def"

    talking(test)


def test_a_body_that_comes_with_its_head_goes_through_the_parser() -> None:
    async def test(talk: Talk) -> None:
        await talk.say(head("/echo", len(IMAGE)) + IMAGE[:-100])
        assert isinstance(talk.wire.get_protocol(), Connection)
        await talk.say(IMAGE[-100:])
        assert (await talk.hear()).body == IMAGE

    talking(test)


def test_a_body_that_is_read_in_pieces_goes_through_the_parser() -> None:
    async def test(talk: Talk) -> None:
        await talk.say(head("/pieces", len(IMAGE)), IMAGE[:10], IMAGE[10:])
        assert (await talk.hear()).body.replace(b"|", b"") == IMAGE.replace(b"|", b"")

    talking(test)


def test_a_refused_body_is_thrown_away_and_the_connection_is_kept() -> None:
    async def test(talk: Talk) -> None:
        await talk.say(head("/refuse", len(IMAGE)) + IMAGE[:10])
        assert (await talk.hear()).status == 503
        place = talk.wire.get_protocol()
        assert isinstance(place, Rest)
        assert not place.is_kept
        await talk.say(IMAGE[10:] + POST + b"abc")
        assert (await talk.hear()).body == b"abc"

    talking(test)


def test_a_body_that_is_not_wanted_any_more_half_way_is_thrown_away() -> None:
    async def test(talk: Talk) -> None:
        await talk.say(head("/echo", len(IMAGE)), IMAGE[:10])
        place = talk.wire.get_protocol()
        assert isinstance(place, Rest)
        assert place.is_kept
        [request] = [talk.connection._receiving]
        assert request is not None
        request.response_bytes(500, [], b"")
        await asyncio.sleep(0)
        assert not place.is_kept
        await talk.say(IMAGE[10:])
        assert (await talk.hear()).status == 500
        await talk.say(POST + b"abc")
        assert (await talk.hear()).body == b"abc"

    talking(test)


def test_nobody_reads_more_than_a_bounded_rest_of_what_was_refused() -> None:
    async def test(talk: Talk) -> None:
        await talk.say(head("/refuse", DISCARD_NBYTES_MAX + 1))
        assert (await talk.hear()).status == 503
        for _ in range(DISCARD_NBYTES_MAX // len(IMAGE)):
            talk.wire.feed(IMAGE)
            assert not talk.wire.is_closed
        talk.wire.feed(IMAGE)
        assert talk.wire.is_closed

    talking(test)


def test_a_large_body_whose_head_came_before_is_received_in_the_turn_of_its_head() -> None:
    async def test(talk: Talk) -> None:
        for number in range(3):
            body = bytes([number]) + IMAGE[1:]
            talk.wire.feed(head("/echo", len(body)) + body[:10])
            assert isinstance(talk.wire.get_protocol(), Rest) == (number > 0)
            await rest()
            await talk.say(body[10:] + POST + b"abc")
            assert (await talk.hear()).body == body
            assert (await talk.hear()).body == b"abc"
        assert [path for _, path, _, _ in talk.echo.heads] == 3 * ["/echo", "/echo"]

    talking(test)


def test_a_refused_large_body_whose_head_came_before_is_thrown_away_in_the_turn_of_its_head() -> None:
    def refuse(_: Scope, exchange: Exchange) -> None:
        exchange.response_bytes(503, [], b"no")

    async def test(talk: Talk) -> None:
        first = head("/echo", len(IMAGE))
        await talk.say(first, IMAGE)
        assert (await talk.hear()).body == IMAGE
        talk.server.answer = refuse
        for _ in range(2):
            talk.wire.feed(first + IMAGE[:10])
            assert (await talk.hear()).status == 503
            place = talk.wire.get_protocol()
            assert isinstance(place, Rest)
            assert not place.is_kept
            talk.wire.feed(IMAGE[10:])
            assert talk.wire.get_protocol() is talk.connection
        await talk.say(first + b"x" * len(IMAGE))
        assert (await talk.hear()).status == 503

    talking(test)


def test_the_head_of_a_large_body_that_was_read_in_pieces_is_parsed_again() -> None:
    async def test(talk: Talk) -> None:
        for _ in range(3):
            await talk.say(head("/pieces", len(IMAGE)), IMAGE[:10], IMAGE[10:])
            assert (await talk.hear()).body.replace(b"|", b"") == IMAGE.replace(b"|", b"")
        assert not talk.server.heads

    talking(test)


def test_a_client_whose_large_bodies_have_a_new_head_each_time_is_not_learned_from_for_ever() -> None:
    async def test(talk: Talk) -> None:
        for number in range(MISSES_MAX + 5):
            await talk.say(head("/echo", len(IMAGE), more=f"id: {number}\r\n"), IMAGE)
            assert (await talk.hear()).body == IMAGE
        assert len(talk.server.heads) == MISSES_MAX

    talking(test)


def test_a_client_that_leaves_in_the_middle_of_a_large_body_is_noticed() -> None:
    async def test(talk: Talk) -> None:
        await talk.say(head("/echo", len(IMAGE)), IMAGE[:1000])
        place = talk.wire.get_protocol()
        assert isinstance(place, Rest)
        place.connection_lost(None)
        await asyncio.sleep(0.01)
        assert [type(fault) for fault in talk.echo.faults] == [ConnectionResetError]
        assert not talk.server.connections

    talking(test)


def test_a_client_that_waits_to_be_told_is_told() -> None:
    async def test(talk: Talk) -> None:
        await talk.say(head("/echo", len(IMAGE), more="expect: 100-continue\r\n"))
        assert talk.wire.written.startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        talk.wire.written.clear()
        await talk.say(IMAGE)
        assert (await talk.hear()).body == IMAGE

    talking(test)
