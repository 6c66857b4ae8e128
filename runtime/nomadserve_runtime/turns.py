"""Long work on the event loop, one piece a turn: between two of them everybody else gets a turn, too."""

import asyncio
from collections import deque


class Turns:
    """Lets one through in each turn of the event loop.

    To read an image of JSON takes 5 ms, in one call that keeps the interpreter's lock: a thread would hold up the event
    loop just as long. So nobody waits for more than one of them, however many have come.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_planned = False

    async def __call__(self) -> None:
        """Return in a turn in which nobody else does, in the order of the calls."""
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[None] = loop.create_future()
        self._waiting.append(mine)
        if not self._is_planned:
            self._is_planned = True
            loop.call_soon(self._let_one_through)
        await mine

    def _let_one_through(self) -> None:
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():  # cancelled otherwise
                first.set_result(None)
                break
        self._is_planned = bool(self._waiting)
        if self._is_planned:
            asyncio.get_running_loop().call_soon(self._let_one_through)
