"""Version numbers of engines: read from what they print, compared, and checked against the range that fits."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Version:
    """The three numbers of a release; whatever follows them (`-dev`, `+ent`) does not decide what fits."""

    major: int
    minor: int
    patch: int = 0

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


def parse_version(text: str) -> Version | None:
    """The first `1.2` or `1.2.3` in `text`, or None where there is none."""
    found = re.search(r"(?<![\w.])v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    if found is None:
        return None
    major, minor, patch = found.groups()
    return Version(int(major), int(minor), int(patch or 0))
