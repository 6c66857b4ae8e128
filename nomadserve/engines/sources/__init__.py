"""The places an engine may come from; the installer tries an engine's sources in order."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nomadserve.engines.progress import Progress
from nomadserve.engines.versions import Version
from nomadserve.errors import NomadserveError


class Unavailable(NomadserveError):
    """This source can't deliver here and now; the next one may."""


class Refused(NomadserveError):
    """A source delivered something other than what was asked for: nothing of it is used, and no other is tried."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a source is asked for.

    Attributes:
        program: the file name of the executable.
        version: the release that is wanted.
        folder: becomes the installed folder as it is; the source puts the executable there, and its licence if any.
        scratch: for everything on the way; removed afterwards.
    """

    program: str
    version: Version
    folder: Path
    scratch: Path


class Source(Protocol):
    """One way to get an engine."""

    def bring(self, order: Order, progress: Progress) -> str:
        """Put the program into `order.folder` and say where it came from, in a few words.

        Raises:
            Unavailable: not from here; the installer goes on to the next source.
            Refused: what came is not what was asked for.
        """
