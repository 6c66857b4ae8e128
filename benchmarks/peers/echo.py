"""The limit: nothing but the HTTP server, which sends the body back."""

from typing import Any


async def rsgi(scope: Any, protocol: Any) -> None:
    """In granian's own interface."""
    body = await protocol()
    protocol.response_bytes(200, [("content-type", "application/json")], body)


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """In ASGI, without a framework."""
    assert scope["type"] in ("http", "lifespan")
    if scope["type"] == "lifespan":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
