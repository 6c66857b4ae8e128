"""What a rule says when a service breaks it."""

from collections.abc import Iterator
from dataclasses import dataclass

Path = tuple[str, ...]

# Stands in a path for "one of these": a rule that counts blocks is moot where one of them was refused.
REFUSED = ""


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that a service breaks.

    Attributes:
        paths: the keys that the rule is about, the one to blame first: `(("scaling", "min"), ("scaling", "max"))`.
    """

    paths: tuple[Path, ...]
    message: str
    hint: str


Violations = Iterator[Violation]
