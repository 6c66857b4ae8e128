"""How the versions of a service share `max_total`, the most replicas that all of them may have together. Pure.

Each version's share becomes the `max` of its own job, which Nomad itself keeps: it refuses a count above it, whoever
asks. So as long as the shares add up to no more than the ceiling, so do the counts, whatever the autoscaler does and
when.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claim:
    """What one version asks for.

    Attributes:
        least: replicas that it must be left.
        most: replicas that it can use; not less.
        weight: its percent of the traffic.
    """

    least: int
    most: int
    weight: float


class NoRoom(ValueError):
    """Not even the least that every version must be left fits below the ceiling."""


def shares(ceiling: int, claims: Mapping[str, Claim]) -> dict[str, int]:
    """How many replicas each version may have, together not more than `ceiling`.

    Each has its least. The rest is given out one by one, always to the version that has most traffic for one replica
    more; at equal traffic to the one with fewer, then to the one named first. So traffic decides while it can use
    the replicas, and what is left over goes to the versions without traffic.

    Raises:
        NoRoom: `claims` ask for more than `ceiling` at least.
    """
    found = {version: claim.least for version, claim in claims.items()}
    left = ceiling - sum(found.values())
    if left < 0:
        raise NoRoom
    while left and (below := [version for version in claims if found[version] < claims[version].most]):
        chosen = max(below, key=lambda version: (claims[version].weight / (found[version] + 1), -found[version]))
        found[chosen] += 1
        left -= 1
    return found
