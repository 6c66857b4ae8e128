"""Progress of long work on stderr: a moving line on a terminal, now and then a plain line elsewhere."""

import time
from types import TracebackType

from rich.status import Status

from nomadserve.cli import output

PLAIN_EVERY_S = 15.0  # often enough to show life in a log, seldom enough to stay readable


class Working:
    """What engines report to (`engines.progress.Progress`); use as a context."""

    def __init__(self) -> None:
        self._console = output.talk()
        self._status: Status | None = None
        self._plain_at = time.monotonic()

    def __enter__(self) -> "Working":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    def say(self, text: str) -> None:
        """A step that stays readable."""
        self._clear()
        output.say(text)
        self._plain_at = time.monotonic()

    def moving(self, text: str) -> None:
        """Where the step stands now; the next call replaces it."""
        if self._console.is_terminal:
            if self._status is None:
                self._status = self._console.status(text)
                self._status.start()
            self._status.update(text)
        elif time.monotonic() - self._plain_at >= PLAIN_EVERY_S:
            output.say(f"  {text}")
            self._plain_at = time.monotonic()

    def _clear(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
