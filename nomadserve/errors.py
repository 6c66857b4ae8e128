"""Everything that a user, or the world, can cause to go wrong.

    NomadserveError            exit code 1
    ├── WrongInput             exit code 2   the command line, the service file, a state that forbids the request
    ├── TimedOut               exit code 3   gave up waiting
    └── BlockedOnCapacity      exit code 4   nothing has room for it now

An error says what is wrong (`message`) and the way out (`hint`); the command line prints both and exits with
`exit_code`. Foreign exceptions are translated at the one module that talks to the library they come from.
"""

from typing import ClassVar


class NomadserveError(Exception):
    """Base of all errors a user may read.

    Attributes:
        message: what is wrong; lower case, no full stop; may span lines.
        hint: the way out, or an empty string where there is none to give.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class WrongInput(NomadserveError):
    """The request itself can't be granted as it stands."""

    exit_code = 2


class TimedOut(NomadserveError):
    """The wait ended before the thing waited for."""

    exit_code = 3


class BlockedOnCapacity(NomadserveError):
    """No node can take the work now."""

    exit_code = 4
