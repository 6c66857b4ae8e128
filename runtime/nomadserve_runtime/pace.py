"""How long what waits will take: the one formula behind `predicted`, `Retry-After`, the backlog and refused deadlines.

What waits is counted in batches as they will be formed, each by the time that calibration found for its size. That is
work; how much longer work takes under the load of now is its slowness, measured as batches come back:

    seconds until `rows` in `batches` are back = work × slowness - what has passed of the batch that runs

It differs from stretch to stretch: one small batch may meet all requests of a burst, a second of batches meets a bit of
everything. So each question has a slowness of its own. What is promised to a request is what the slowest of the last
stretches of as much work took; refused for its deadline is only what would be late at the pace of the quickest; and the
backlog, by which clients come back and replicas are added, goes by the mean of the last second.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence

from nomadserve_runtime import policy

# So many stretches are remembered; each is a batch, or as many quick ones as come back within the shortest stretch that
# is worth telling from others: with 10 ms, the few in which the event loop reads all of a thousand clients at once were
# lost among the others, and half of those who were told a time in them were late.
STRETCHES_MAX = 64
STRETCH_S_MIN = 0.002

# A shorter stretch is more uneven: with stretches of up to half as much work as waits, promises were a fifth too long.
STEPS = 4

# The last ones say what it is like now, if that is new: a flood that began with the one before.
NOW = 2


class Pace:
    """That of one engine; only the event loop touches it.

    times: of a batch of 1, 2, … rows, in seconds, alone; zeros where nothing was timed: until a batch has come back,
        nothing is known then.
    parallel: how many batches the engine computes at the same time.  clock: monotonic seconds.

    Attributes:
        batch_s: how long the largest batch takes at the mean of the last second; 0.0: not known.
    """

    def __init__(self, times: Sequence[float], *, parallel: int, clock: Callable[[], float]) -> None:
        is_timed = min(times) > 0
        # What nobody timed counts as if each row took a second; slowness then is seconds a row.
        alone = times if is_timed else [float(rows + 1) for rows in range(len(times))]
        self._parallel = parallel
        self._work_s = [0.0, *(seconds / parallel for seconds in alone)]
        self._clock = clock
        self._busy_since = clock()
        # As if the largest batch had come back once, in time.
        self._took_s = self._did_s = self._work_s[-1] if is_timed else 0.0
        self._slowness = 1.0 if is_timed else 0.0
        self.batch_s = self._work_s[-1] * self._slowness
        self._stretches: deque[tuple[float, float]] = deque(maxlen=STRETCHES_MAX)
        if is_timed:
            self._stretches.append((self._took_s, self._did_s))
        self._stretch_took_s = self._stretch_did_s = 0.0
        self._known: dict[int, tuple[float, float]] = {}

    def start(self) -> None:
        """The engine gets its first batch after it had none."""
        self._busy_since = self._clock()

    def count(self, rows: int) -> None:
        """A batch came back."""
        now = self._clock()
        took_s, did_s = now - self._busy_since, self._work_s[rows]
        self._busy_since = now
        memory = policy.rate_memory(took_s)
        self._took_s = self._took_s * memory + took_s
        self._did_s = self._did_s * memory + did_s
        self._slowness = self._took_s / self._did_s
        self.batch_s = self._work_s[-1] * self._slowness
        self._stretch_took_s += took_s
        self._stretch_did_s += did_s
        if self._stretch_took_s >= STRETCH_S_MIN:
            self._stretches.append((self._stretch_took_s, self._stretch_did_s))
            self._stretch_took_s = self._stretch_did_s = 0.0
            self._known.clear()

    def soonest_s(self, rows: int, batches: int) -> float:
        """Until so many rows, queued and running, are back in so many batches, if all goes as well as it ever did."""
        work_s = self._work(rows, batches)
        quickest = self._slowness_range(work_s)[0]
        # Several at a time share their time; one alone, under little load, takes it all, and is no slower for that.
        total_s = work_s * (min(1.0, quickest) if self._parallel > 1 else quickest)
        return max(0.0, total_s - self._passed_s(total_s / batches))

    def likely_s(self, rows: int, batches: int) -> float:
        """How long that takes in all at the mean of the last second, whatever has passed; 0.0: nothing is known."""
        return self._work(rows, batches) * self._slowness

    def latest_s(self, rows: int, batches: int) -> float:
        """The same if all goes as badly as it did lately; infinite where nothing is known."""
        work_s = self._work(rows, batches)
        total_s = work_s * self._slowness_range(work_s)[1]
        # What should be back by now is not, so there is something left of it.
        return max(total_s - self._passed_s(total_s / batches), total_s / rows)

    def _passed_s(self, batch_s: float) -> float:
        """How much of the batch that runs has passed, if it takes so long."""
        return min(self._clock() - self._busy_since, batch_s)

    def _work(self, rows: int, batches: int) -> float:
        """Seconds that so many rows take in so many batches, evenly filled, alone."""
        assert 0 < batches <= rows
        each, larger = divmod(rows, batches)
        times = self._work_s
        if each >= len(times) - 1:
            return times[-1] * rows / (len(times) - 1)
        return times[each] * (batches - larger) + times[each + 1] * larger

    def _slowness_range(self, work_s: float) -> tuple[float, float]:
        """Of a stretch of so much work, or a bit less: found out once for each of `STEPS` between powers of two."""
        step = math.floor(STEPS * math.log2(work_s))
        known = self._known.get(step)
        if known is None:
            known = self._known[step] = slowness_range(list(self._stretches), work_s=2.0 ** (step / STEPS))
        return known


def slowness_range(stretches: Sequence[tuple[float, float]], *, work_s: float) -> tuple[float, float]:
    """The least and the most that work took: in any row of stretches with at least `work_s` of it, and in the last.

    stretches: one after the other, how long each took and how much work that was, in seconds.
    Where all are less work than that: what they took together, and the last. From 0 to infinity where there are none.
    """
    if not stretches:
        return 0.0, math.inf
    found = [_slowness(stretches[-NOW:])]
    enough_s = work_s * (1 - 1e-9)  # ten tenths are a little less than one
    took_s = did_s = 0.0
    first = 0
    for its_took_s, its_did_s in stretches:
        took_s += its_took_s
        did_s += its_did_s
        while did_s - stretches[first][1] >= enough_s:
            took_s -= stretches[first][0]
            did_s -= stretches[first][1]
            first += 1
        if did_s >= enough_s:
            found.append(took_s / did_s)
    if len(found) == 1:
        found.append(_slowness(stretches))
    return min(found), max(found)


def _slowness(stretches: Sequence[tuple[float, float]]) -> float:
    return sum(took_s for took_s, _ in stretches) / sum(did_s for _, did_s in stretches)
