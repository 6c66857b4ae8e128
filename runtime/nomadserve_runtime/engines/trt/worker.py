"""The two threads of a pipeline: one that makes every CUDA call, and one that sleeps until a batch is done.

With one thread for both, a batch that comes while it sleeps would be copied in only after the one before it was done.
"""

import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

from nomadserve_runtime.engines.trt import cuda
from nomadserve_runtime.engines.trt.pipeline import Flight, Pipeline
from nomadserve_runtime.errors import EngineLost
from nomadserve_runtime.interpreter import take_turns
from nomadserve_runtime.slots import Slot

Answer = TypeVar("Answer")
# Told once a batch is done: what went wrong, or None.
Done = Callable[[Exception | None], None]


@dataclass(slots=True)
class _Batch:
    """A batch that was enqueued, or failed to be."""

    slot: Slot
    done: Done
    started_at: float
    flight: Flight | None
    failure: Exception | None


class Worker:
    """A pipeline that can be called from any thread, one call at a time.

    gpu: its number, of those that CUDA sees.  open_pipeline: called in the worker's thread, where CUDA is current.

    Attributes:
        pipeline: what it works on; its attributes may be read from any thread, its methods are for the worker.
    """

    def __init__(self, gpu: int, open_pipeline: Callable[[], Pipeline]) -> None:
        self._gpu = gpu
        self._lost: EngineLost | None = None
        self._started = 0  # counted by who starts batches
        self._ended = 0  # counted by the thread that waits
        self._inbox: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._batches: SimpleQueue[_Batch | None] = SimpleQueue()
        opened: Future[Pipeline] = Future()
        # Daemons, so that a forced exit does not wait for a batch.
        self._thread = Thread(target=self._work, args=(opened, open_pipeline), name=f"gpu-{gpu}", daemon=True)
        self._thread.start()
        try:
            self.pipeline = opened.result()
        except BaseException:
            self._thread.join()  # everything is given back when this returns
            raise

    @property
    def under_way(self) -> int:
        """Batches that were started and are not done."""
        return self._started - self._ended

    def start(self, slot: Slot, rows: int, done: Done) -> None:
        """Have a batch computed behind those that are there; `done` is called in a thread of the worker."""
        self._started += 1
        self._inbox.put(lambda: self._enqueue(slot, rows, done))

    def call(self, question: Callable[[Pipeline], Answer]) -> Answer:
        """What `question` answers in the worker's thread."""
        answer: Future[Answer] = Future()
        self._inbox.put(lambda: _settle(answer, lambda: question(self.pipeline)))
        return answer.result()

    def close(self) -> None:
        """Finish what was started and give everything back."""
        self._inbox.put(None)
        self._thread.join()

    # -- the thread that calls CUDA -------------------------------------------------------------------------------

    def _work(self, opened: "Future[Pipeline]", open_pipeline: Callable[[], Pipeline]) -> None:
        take_turns()
        try:
            context = cuda.context_of(self._gpu)
            with cuda.current(context):
                if _settle(opened, open_pipeline):
                    self._serve(context)
        except BaseException as error:
            if opened.done():
                raise
            opened.set_exception(error)

    def _serve(self, context: "cuda.driver.Context") -> None:
        """Do what comes in, until `close`."""
        waiting = Thread(target=self._wait, args=(context,), name=f"gpu-{self._gpu}-done", daemon=True)
        waiting.start()
        while (job := self._inbox.get()) is not None:
            job()
        self._batches.put(None)
        waiting.join()
        if self._lost is None:  # a broken context takes nothing back
            self.pipeline.close()

    def _enqueue(self, slot: Slot, rows: int, done: Done) -> None:
        batch = _Batch(slot, done, time.monotonic(), None, self._lost)
        if self._lost is None:
            try:
                batch.flight = self.pipeline.enqueue(slot, rows)
            except Exception as error:
                batch.failure = self._judged(error)
        self._batches.put(batch)

    # -- the thread that waits ------------------------------------------------------------------------------------

    def _wait(self, context: "cuda.driver.Context") -> None:
        take_turns()
        with cuda.current(context):
            ended_at = 0.0
            while (batch := self._batches.get()) is not None:
                failure, batch.failure = batch.failure, None  # else it would hold itself, and CUDA with it
                if batch.flight is not None:
                    try:
                        batch.flight.wait()
                    except Exception as error:
                        failure = self._judged(error)
                # It began when the one before it was done, if it was enqueued behind it.
                batch.slot.started_at = max(batch.started_at, ended_at)
                batch.slot.ended_at = ended_at = time.monotonic()
                self._ended += 1
                batch.done(failure)

    def _judged(self, error: Exception) -> Exception:
        """The error itself, or that nothing goes any more."""
        if self._lost is None and cuda.is_broken():
            self._lost = EngineLost(f"GPU {self._gpu} failed: {str(error).strip() or type(error).__name__}")
        return self._lost or error


def _settle(future: "Future[Answer]", answer: Callable[[], Answer]) -> bool:
    """Put an answer, or what was raised instead, into a future. Whether it is an answer."""
    try:
        future.set_result(answer())
    except BaseException as error:
        # What the frames hold of CUDA must go in this thread, not wherever the error ends up.
        cause: BaseException | None = error
        while cause is not None:
            traceback.clear_frames(cause.__traceback__)
            cause = cause.__cause__ or cause.__context__
        future.set_exception(error)
        return False
    return True
