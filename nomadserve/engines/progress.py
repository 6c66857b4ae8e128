"""How long work tells what it does, without knowing who listens."""

from typing import Protocol


class Progress(Protocol):
    """What installing and starting report to; the command line shows it, tests collect it."""

    def say(self, text: str) -> None:
        """A step that stays readable."""

    def moving(self, text: str) -> None:
        """Where the step stands now; the next call replaces it."""
