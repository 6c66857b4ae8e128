"""How fast an engine gets through its batches, as measured while it serves."""

from collections.abc import Callable

from nomadserve_runtime import policy
from nomadserve_runtime.calibration import Calibration


class Pace:
    """The rate of one engine; only the event loop touches it.

    parallel: how many batches the engine computes at the same time.  clock: monotonic seconds.

    Attributes:
        rows_per_second: over the last batches; 0.0 until the first came back.
        slowness: how much longer batches take, one after the other, than they took alone when calibrated.
    """

    def __init__(self, calibration: Calibration, *, parallel: int, clock: Callable[[], float]) -> None:
        self.rows_per_second = 0.0
        self.slowness = 1.0
        self._calibration = calibration
        self._parallel = parallel
        self._clock = clock
        self._busy_since = clock()
        self._rows = 0.0
        self._seconds = 0.0

    @property
    def running_s(self) -> float:
        """Since the engine got busy, or since the last batch came back."""
        return self._clock() - self._busy_since

    def start(self) -> None:
        """The engine gets its first batch after it had none."""
        self._busy_since = self._clock()

    def count(self, rows: int, *, is_answered: bool) -> None:
        """A batch came back; its rows count only where they were answered."""
        took_s = self.running_s
        self.start()
        self._rows = self._rows * policy.RATE_MEMORY + (rows if is_answered else 0)
        self._seconds = self._seconds * policy.RATE_MEMORY + took_s
        if self._seconds > 0:
            self.rows_per_second = self._rows / self._seconds
        calibrated_s = self._calibration.batch_s(rows) / self._parallel
        if calibrated_s > 0:
            self.slowness += (took_s / calibrated_s - self.slowness) * (1 - policy.RATE_MEMORY)
