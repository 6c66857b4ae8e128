"""Where batches are computed: in a thread of their own, or by the event loop itself where that is sooner done."""

import asyncio
import time
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Protocol

from nomadserve_runtime.engine import AheadEngine, Engine
from nomadserve_runtime.interpreter import take_turns
from nomadserve_runtime.slots import Slot

# Called on the event loop when a batch came back: slot, its rows, and what the engine raised, if it did.
Done = Callable[[Slot, int, Exception | None], None]


class Runner(Protocol):
    """Computes one batch after the other, in the order in which they were started."""

    def start(self, slot: Slot, rows: int) -> None:
        """Have a batch computed; `Done` is called when it is."""
        ...

    def close(self) -> None:
        """Return when everything that was started is computed."""
        ...


class ThreadRunner:
    """Only its thread calls the engine."""

    def __init__(self, engine: Engine, done: Done) -> None:
        self._engine = engine
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._inbox: SimpleQueue[tuple[Slot, int] | None] = SimpleQueue()
        # A daemon, so that a forced exit does not wait for a batch.
        self._thread = Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def start(self, slot: Slot, rows: int) -> None:
        """Put the batch behind those that are there."""
        self._inbox.put((slot, rows))

    def close(self) -> None:
        """End the thread after the batches that it has."""
        self._inbox.put(None)
        self._thread.join()

    def _work(self) -> None:
        take_turns()
        while (batch := self._inbox.get()) is not None:
            failure = compute(self._engine, *batch)
            self._loop.call_soon_threadsafe(self._done, *batch, failure)


class AheadRunner:
    """For engines with threads of their own: a batch goes to them as soon as it is started."""

    def __init__(self, engine: AheadEngine, done: Done) -> None:
        self._engine = engine
        self._done = done
        self._loop = asyncio.get_running_loop()

    def start(self, slot: Slot, rows: int) -> None:
        """Put the batch behind those that the engine has."""
        self._engine.start(slot, rows, lambda failure: self._tell(slot, rows, failure))

    def close(self) -> None:
        """The engine itself ends when it is closed."""

    def _tell(self, slot: Slot, rows: int, failure: Exception | None) -> None:
        self._loop.call_soon_threadsafe(self._done, slot, rows, failure)


class InlineRunner:
    """For engines that are done sooner than a thread would hear of it."""

    def __init__(self, engine: Engine, done: Done) -> None:
        self._engine = engine
        self._done = done

    def start(self, slot: Slot, rows: int) -> None:
        """Compute the batch; `Done` is called before this returns."""
        self._done(slot, rows, compute(self._engine, slot, rows))

    def close(self) -> None:
        """Nothing is ever under way."""


def runner_for(engine: Engine, done: Done, *, is_inline: bool) -> Runner:
    """The way to run an engine; on the event loop where calibration says so."""
    if isinstance(engine, AheadEngine):
        return AheadRunner(engine, done)
    return InlineRunner(engine, done) if is_inline else ThreadRunner(engine, done)


def compute(engine: Engine, slot: Slot, rows: int) -> Exception | None:
    """Run one batch and note its times in the slot; what the engine raises fails this batch, and no other."""
    slot.started_at = time.monotonic()
    try:
        engine.run(slot, rows)
    except Exception as error:
        return error
    finally:
        slot.ended_at = time.monotonic()
    return None
