"""How fast an engine gets through its batches, as measured while it serves."""

import math
from collections.abc import Callable

from nomadserve_runtime import policy
from nomadserve_runtime.calibration import Calibration


class Pace:
    """The rate of one engine; only the event loop touches it.

    parallel: how many batches the engine computes at the same time.  clock: monotonic seconds.

    Attributes:
        rows_per_second: over the last batches; 0.0 until the first came back.
        batch_s: after which time one more batch comes back, of as many rows as make one, at this slowness.
        slowness: how much longer batches take, one after the other, than they took alone when calibrated.
        unevenness: by how much that differs from batch to batch, at the mean.
    """

    def __init__(self, calibration: Calibration, *, parallel: int, clock: Callable[[], float]) -> None:
        self.rows_per_second = 0.0
        self.slowness = 1.0
        self.unevenness = 0.0
        self._calibration = calibration
        batch_rows = calibration.worthwhile_rows(1)
        self._batch_s = self.batch_s = calibration.batch_s(batch_rows) / parallel
        self._row_s = self._batch_s / batch_rows
        self._parallel = parallel
        self._clock = clock
        self._busy_since = clock()
        # As if the largest batch had come back once, in time.
        self._took_s = self._calibrated_s = calibration.batch_s_max / parallel
        self._off_s = 0.0
        self._rows = 0.0
        self._seconds = 0.0

    @property
    def running_s(self) -> float:
        """Since the engine got busy, or since the last batch came back."""
        return self._clock() - self._busy_since

    def answer_by(self, rows: int) -> float:
        """By when the last of so many rows, queued and running, will be answered as far as one can tell.

        Monotonic seconds; infinite where nothing was measured at start.
        """
        if not self._row_s:
            return math.inf
        slowness = self.slowness + max(policy.DEVIATIONS * self.unevenness, policy.ROOM_MIN * self.slowness)
        now = self._clock()
        return now + policy.answered_within_s(
            rows=rows,
            row_s=self._row_s * slowness,
            running_s=now - self._busy_since,
            batch_s=self._batch_s * slowness,
        )

    def start(self) -> None:
        """The engine gets its first batch after it had none."""
        self._busy_since = self._clock()

    def count(self, rows: int, *, is_answered: bool) -> None:
        """A batch came back; its rows count only where they were answered."""
        took_s = self.running_s
        self.start()
        memory = policy.rate_memory(took_s)
        self._rows = self._rows * memory + (rows if is_answered else 0)
        self._seconds = self._seconds * memory + took_s
        if self._seconds > 0:
            self.rows_per_second = self._rows / self._seconds
        calibrated_s = self._calibration.batch_s(rows) / self._parallel
        if calibrated_s > 0:
            # By their time: a short batch that the event loop held up says little about long ones.
            self._took_s = self._took_s * memory + took_s
            self._calibrated_s = self._calibrated_s * memory + calibrated_s
            self.slowness = self._took_s / self._calibrated_s
            self.batch_s = self._batch_s * self.slowness
            self._off_s = self._off_s * memory + abs(took_s - calibrated_s * self.slowness)
            self.unevenness = self._off_s / self._calibrated_s
