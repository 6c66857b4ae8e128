"""From ready to gone: the stages of the process, and the order in which it drains."""

import asyncio
import enum
import logging
from collections.abc import Sequence

from nomadserve_runtime.batcher import Batcher

log = logging.getLogger("nomadserve.lifecycle")


class Stage(enum.Enum):
    """What the process still does."""

    SERVING = enum.auto()
    LEAVING = enum.auto()  # not ready any more, and still answering until the word has spread
    DRAINING = enum.auto()  # refuses what is new, finishes what it took


class Lifecycle:
    """The stage of the process; the event loop moves it on, requests read it.

    Attributes:
        stage: where it is.
    """

    def __init__(self) -> None:
        self.stage = Stage.SERVING

    @property
    def is_ready(self) -> bool:
        """Whether new requests should be sent here."""
        return self.stage is Stage.SERVING

    async def drain(self, batchers: Sequence[Batcher], *, delay_s: float, timeout_s: float) -> bool:
        """Stop being ready, wait, refuse, finish. True where every request that was taken got its answer.

        delay_s: how long to go on answering while the word spreads (deregistration, health checks).
        timeout_s: for all of it.
        """
        try:
            async with asyncio.timeout(timeout_s):
                self.stage = Stage.LEAVING
                log.info("not ready any more; still answering for %g s", delay_s)
                await asyncio.sleep(delay_s)
                self.stage = Stage.DRAINING
                for batcher in batchers:
                    batcher.start_draining()
                log.info("refusing new requests; %d to finish", sum(batcher.in_flight for batcher in batchers))
                for batcher in batchers:
                    await batcher.wait_idle()
        except TimeoutError:
            left = sum(batcher.in_flight for batcher in batchers)
            log.error("gave up draining after %g s with %d requests unanswered", timeout_s, left)
            return False
        return True
