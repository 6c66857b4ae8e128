"""How far a build is: a bar on a terminal, now and then a plain line elsewhere."""

import time
from types import TracebackType

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from nomadserve.cli import output
from nomadserve.cli.working import PLAIN_EVERY_S


class BuildProgress:
    """What the runtime's builder reports to, from any of its threads; use as a context."""

    def __init__(self) -> None:
        self._console = output.talk()
        columns = TextColumn("{task.description:<34}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._task = self._bar.add_task("starting", total=1.0)
        self._plain_at = time.monotonic()

    def __enter__(self) -> "BuildProgress":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def say(self, text: str) -> None:
        """A step that stays readable."""
        self._bar.console.print(text, markup=False, highlight=False)
        self._plain_at = time.monotonic()

    def moving(self, phase: str, share: float) -> None:
        """Where the builder is, and how much of the whole is done."""
        self._bar.update(self._task, description=phase, completed=share)
        if not self._console.is_terminal and time.monotonic() - self._plain_at >= PLAIN_EVERY_S:
            self.say(f"  {share:.0%} {phase}")
