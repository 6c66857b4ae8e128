"""Everything that a client, or the world, can cause to go wrong in the runtime.

    CannotStart                exit code 1   the process ends before it serves
    └── WrongSetting           exit code 2   a variable, or the model file that it names

    EngineLost                               every request gets its 500, then the process ends, to be started anew

    Fault                                    one request fails; the process lives on
    ├── BadRequest      400 invalid          outcome "invalid"
    ├── Forbidden       403 forbidden        outcome "invalid"
    ├── NotFound        404 not_found        outcome "invalid"
    ├── TooSlow         408 too_slow         outcome "invalid"
    ├── TooLarge        413 too_large        outcome "invalid"
    ├── Unsupported     415 unsupported      outcome "invalid"
    ├── EngineFailed    500 failed           outcome "failed"
    ├── Refused         503                  outcome "refused"; carries when to come back
    │   ├── QueueFull   503 queue_full
    │   ├── Draining    503 draining
    │   └── Hopeless    503 deadline
    ├── Expired         504 deadline         outcome "expired"
    └── HungUp          499 hung_up          outcome "abandoned": the client went away, nobody reads this reply

A `Fault` becomes `{"error": message, "reason": reason}` with its status in one place, `app`.
"""

from typing import ClassVar


class CannotStart(Exception):
    """The process can't begin to serve.

    Attributes:
        message: what is wrong; lower case, no full stop; may span lines.
        hint: the way out, or an empty string where there is none to give.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class WrongSetting(CannotStart):
    """A variable of the environment, or the model file that one names, can't be used as it is."""

    exit_code = 2


class EngineLost(Exception):
    """The engine can't compute anything any more in this process, whatever it is given."""


class Fault(Exception):
    """One request can't be answered.

    Attributes:
        status: of HTTP.
        reason: one word for programs, in the reply.
        outcome: one word for the metrics.
        headers: that the reply carries beside the usual ones.
    """

    status: ClassVar[int] = 500
    reason: ClassVar[str] = "failed"
    outcome: ClassVar[str] = "failed"
    headers: tuple[tuple[str, str], ...] = ()

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadRequest(Fault):
    """The body does not say what the model takes."""

    status = 400
    reason = "invalid"
    outcome = "invalid"


class Forbidden(Fault):
    """This replica was not started to allow that."""

    status = 403
    reason = "forbidden"
    outcome = "invalid"


class NotFound(Fault):
    """No such model."""

    status = 404
    reason = "not_found"
    outcome = "invalid"


class TooSlow(Fault):
    """The body did not arrive in time."""

    status = 408
    reason = "too_slow"
    outcome = "invalid"


class TooLarge(Fault):
    """The body is longer than any valid one for this model."""

    status = 413
    reason = "too_large"
    outcome = "invalid"


class Unsupported(Fault):
    """The body comes in a form that this runtime does not read."""

    status = 415
    reason = "unsupported"
    outcome = "invalid"

    def __init__(self, message: str, *, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.headers = headers


class EngineFailed(Fault):
    """The engine raised while it ran the batch of this request; the client is told the first line."""

    def __init__(self, failure: Exception) -> None:
        summary = str(failure).strip().split("\n", 1)[0][:200] or type(failure).__name__
        super().__init__(f"the engine failed: {summary}")


class Refused(Fault):
    """Nothing is wrong with the request; this replica does not take it now.

    Attributes:
        retry_after_s: when to try again.
    """

    status = 503
    outcome = "refused"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFull(Refused):
    """The rows of this request don't fit into the queue now; how long that lasts follows from the measured rate."""

    reason = "queue_full"

    def __init__(self, *, retry_after_s: float) -> None:
        super().__init__("the queue is full", retry_after_s=retry_after_s)


class Draining(Refused):
    """The process is ending and takes nothing new; by the next try, requests go elsewhere."""

    reason = "draining"

    def __init__(self) -> None:
        super().__init__("this replica is shutting down", retry_after_s=1.0)


class Hopeless(Refused):
    """What waits already takes longer than this request may wait; to say so at once saves its client the time."""

    reason = "deadline"

    def __init__(self, *, retry_after_s: float) -> None:
        super().__init__("the deadline can't be met: too much is waiting", retry_after_s=retry_after_s)


class Expired(Fault):
    """The deadline of this request passed before its batch was launched."""

    status = 504
    reason = "deadline"
    outcome = "expired"

    def __init__(self) -> None:
        super().__init__("the deadline passed before the request was run")


class HungUp(Fault):
    """The client closed the connection before its batch was launched."""

    status = 499
    reason = "hung_up"
    outcome = "abandoned"

    def __init__(self) -> None:
        super().__init__("the client hung up")
