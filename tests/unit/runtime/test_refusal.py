import asyncio

import msgspec
import pytest

from nomadserve_runtime import refusal
from nomadserve_runtime.errors import Draining, QueueFull, Refused
from nomadserve_runtime.refusal import Doorman


class Client:
    """An exchange that notes what is done to it."""

    def __init__(self) -> None:
        self.replies: list[tuple[int, dict[str, str], bytes, bool]] = []
        self.is_held = False

    def response_fields(self, status: int, fields: str, body: bytes, *, is_last: bool) -> None:
        headers = dict(line.split(": ", 1) for line in fields.split("\r\n")[:-1])
        self.replies.append((status, headers, body, is_last))

    def hold(self) -> None:
        self.is_held = True

    def let_go(self) -> None:
        self.is_held = False


def refuse(
    doorman: Doorman,
    client: Client,
    *,
    refused: Refused | None = None,
    is_leaving: bool = False,
) -> None:
    doorman.refuse(
        refused or QueueFull(retry_after_s=1.5),
        client,  # type: ignore[arg-type]
        is_leaving=is_leaving,
    )


def test_a_refusal_says_why_and_when_to_come_back() -> None:
    async def test() -> None:
        doorman, client = Doorman([("x-a", "b")]), Client()
        refuse(doorman, client)
        status, headers, body, is_last = client.replies[0]
        assert (status, headers["retry-after"], headers["x-a"], is_last) == (503, "2", "b", False)
        assert msgspec.json.decode(body) == {
            "error": "the queue is full",
            "reason": "queue_full",
            "retry_after_ms": 1500,
        }

    asyncio.run(test())


def test_a_leaving_replica_closes_the_connections_of_those_it_refuses() -> None:
    async def test() -> None:
        doorman, client = Doorman([]), Client()
        refuse(doorman, client, refused=Draining(), is_leaving=True)
        refuse(doorman, client)
        assert [is_last for *_, is_last in client.replies] == [True, False]

    asyncio.run(test())


def test_a_few_refused_clients_are_not_held() -> None:
    async def test() -> None:
        doorman, clients = Doorman([]), [Client() for _ in range(int(refusal.BURST))]
        for client in clients:
            refuse(doorman, client)
        assert (doorman.held, any(client.is_held for client in clients)) == (0, False)

    asyncio.run(test())


def test_many_are_answered_at_once_and_let_go_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        doorman, clients = Doorman([]), [Client() for _ in range(int(refusal.BURST) + 100)]
        loop = asyncio.get_running_loop()
        now = loop.time()
        with monkeypatch.context() as standing_still:  # or the budget would fill again on a busy machine
            standing_still.setattr(loop, "time", lambda: now)
            for client in clients:
                refuse(doorman, client)
        assert all(len(client.replies) == 1 for client in clients)
        held = doorman.held
        assert held == 100
        assert [client.is_held for client in clients] == [False] * (len(clients) - held) + [True] * held
        async with asyncio.timeout(20):
            while doorman.held:
                await asyncio.sleep(0.001)
        assert not any(client.is_held for client in clients)

    asyncio.run(test())


def test_prepared_replies_do_not_pile_up() -> None:
    async def test() -> None:
        doorman = Doorman([])
        for number in range(3 * refusal.PREPARED_MAX):
            refuse(doorman, Client(), refused=QueueFull(retry_after_s=number / 1000))
        assert len(doorman._prepared) <= refusal.PREPARED_MAX

    asyncio.run(test())
