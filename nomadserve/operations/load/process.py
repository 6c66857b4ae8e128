"""The parent's end of the load generator: a process of its own, so that it has a core of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

import msgspec

from nomadserve.errors import NomadserveError
from nomadserve.operations.load.plan import Aim, Load, Outcome, Progress

END_WITHIN_S = 5.0


class GeneratorDied(NomadserveError):
    """The load generator's process ended before its work did."""


class LoadProcess:
    """Runs one load after the other on one aim; use as a context."""

    def __init__(self, aim: Aim) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nomadserve.operations.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._write(msgspec.json.encode(aim))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if kind is not None:
            self._process.terminate()
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def run(self, load: Load) -> Iterator[Progress | Outcome]:
        """Run one load; its `Outcome` comes last.

        Raises:
            GeneratorDied: its process is gone.
        """
        assert self._process.stdout is not None
        self._write(msgspec.json.encode(load))
        for line in self._process.stdout:
            message = msgspec.json.decode(line, type=Progress | Outcome)
            yield message
            if isinstance(message, Outcome):
                return
        raise GeneratorDied(f"the load generator ended with exit code {self._process.wait()}")

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise GeneratorDied("the load generator is gone") from error
