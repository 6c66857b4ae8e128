import asyncio
from typing import Any

from nomadserve_runtime.bridge import AsgiBridge
from tests.unit.runtime.http import Client


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Says what it was asked, and reads its body."""
    body, pieces, more = b"", 0, True
    while more:
        message = await receive()
        body, more, pieces = body + message["body"], message["more_body"], pieces + 1
    head = (
        f"{scope['method']} {scope['path']} {scope['query_string'].decode()} {dict(scope['headers'])[b'x-a'].decode()}"
    )
    await send({"type": "http.response.start", "status": 202, "headers": [(b"x-c", b"d"), (b"content-length", b"9")]})
    await send({"type": "http.response.body", "body": head.encode() + b" ", "more_body": True})
    await send({"type": "http.response.body", "body": body})


def test_an_asgi_application_answers_through_it() -> None:
    async def test() -> None:
        client = Client(AsgiBridge(app, [("x-v", "1")]))  # type: ignore[arg-type]
        answer = await client("PUT", "/a%20b?c=d", b"abcdef", headers={"x-a": "7"}, chunks=3)
        assert (answer.status, answer.body) == (202, b"PUT /a b c=d 7 abcdef")
        assert (answer.headers["x-c"], answer.headers["x-v"]) == ("d", "1")
        assert answer.headers["content-length"] == str(len(answer.body))

    asyncio.run(test())


def test_it_tells_the_application_when_the_client_goes_away() -> None:
    async def test() -> None:
        seen: list[str] = []

        async def waiting(scope: Any, receive: Any, send: Any) -> None:
            seen.append((await receive())["type"])
            seen.append((await receive())["type"])

        client = Client(AsgiBridge(waiting, []))  # type: ignore[arg-type]
        asked = asyncio.create_task(client("GET", "/"))
        while not seen:
            await asyncio.sleep(0.001)
        client.hang_up()
        await asked
        assert seen == ["http.request", "http.disconnect"]

    asyncio.run(test())
