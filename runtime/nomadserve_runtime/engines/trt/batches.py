"""Which batch sizes are prepared, and which of them a batch is padded to: pure answers."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nomadserve_runtime.calibration import buckets
from nomadserve_runtime.engines.trt.signature import RowRange


class Candidate(NamedTuple):
    """A batch size in one optimization profile."""

    rows: int
    profile: int


def batch_max_of(profiles: Sequence[RowRange], wanted: int) -> int:
    """Rows of the largest batch: as wanted, as far as the profiles reach."""
    return max(min(wanted, max(profile.most for profile in profiles)), min(profile.least for profile in profiles))


def batch_max_of_all(profiles: Sequence[RowRange], wanted: int) -> int:
    """The same where the rows of a batch decide on its profile: as far as every one of them reaches."""
    return min(max(wanted, max(profile.least for profile in profiles)), min(profile.most for profile in profiles))


def candidates(profiles: Sequence[RowRange], batch_max: int) -> list[Candidate]:
    """1, 2, 4, … `batch_max`, and the bounds and best sizes of the profiles, wherever a profile covers them."""
    sizes = set(buckets(batch_max))
    for profile in profiles:
        sizes |= {profile.least, profile.best, profile.most}
    return [
        Candidate(rows, number)
        for rows in sorted(size for size in sizes if size <= batch_max)
        for number, profile in enumerate(profiles)
        if profile.least <= rows <= profile.most
    ]


def chosen(seconds: Mapping[Candidate, float], batch_max: int) -> list[Candidate]:
    """For 1, 2, … `batch_max` rows the candidate that is done soonest with them; of equals the smallest.

    seconds: how long each takes. One of them has `batch_max` rows.
    """
    return [
        min((candidate for candidate in seconds if candidate.rows >= rows), key=lambda found: (seconds[found], found))
        for rows in range(1, batch_max + 1)
    ]
