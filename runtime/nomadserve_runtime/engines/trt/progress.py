"""What a build reports while it runs."""

from typing import Protocol


class Progress(Protocol):
    """Told by `plan_for`, from any thread, one call at a time."""

    def say(self, text: str) -> None:
        """A step that is worth a line."""
        ...

    def moving(self, phase: str, share: float) -> None:
        """Which phase the builder is in, and how much of the whole is done, from 0 to 1; it never goes back."""
        ...
