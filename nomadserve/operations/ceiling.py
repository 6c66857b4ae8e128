"""`max_total`: the replicas of all versions of a service together, kept below it by each version's own `max` in Nomad.

A share is only ever raised after the others were lowered, and every write is refused where the job was changed since it
was read. A deployment that fails brings its job's last healthy revision back, with the share of then: as long as one
runs, that share counts too. The file's own `max` stays written down in the job's policy, as `own_max`, beside
`max_total`.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from nomadserve.errors import BlockedOnCapacity, WrongInput
from nomadserve.nomad_api import Job, JobChanged
from nomadserve.operations import groups
from nomadserve.operations.cluster import Cluster
from nomadserve.operations.shares import Claim, NoRoom, shares
from nomadserve.operations.status import jobs_of

MAX_TOTAL, OWN_MAX = "max_total", "own_max"
"""Keys of a scaling policy, which the Autoscaler ignores."""

# A share that was lowered is safe once its deployment is over, which takes seconds where no replica changes.
SETTLED_WITHIN_S = 30.0
POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Version:
    """One version that runs, as its job is registered now.

    Attributes:
        place: the cluster at the job's namespace and region.
    """

    name: str
    job: Job
    place: Cluster

    @property
    def scaling(self) -> dict[str, Any] | None:
        """The scaling block of its job, as Nomad's JSON has it."""
        found: dict[str, Any] | None = self.job["TaskGroups"][0].get("Scaling")
        return found

    @property
    def most(self) -> int:
        """The most replicas that it may have now."""
        return self.scaling["Max"] + groups.fixed(self.job) if self.scaling else groups.total(self.job)

    @property
    def reserved(self) -> int:
        """The same, should Nomad go back to the last healthy revision: it may, while a deployment runs."""
        if not self.scaling or self.job["Stable"]:
            return self.most
        former = self.place.nomad.stable_revision(self.job["ID"], before=self.job["Version"])
        return max(self.most, Version(self.name, former, self.place).most) if former else self.most

    @property
    def ceiling(self) -> int | None:
        """The `max_total` of its file."""
        return ceiling_of(self.job)

    def claim(self, weight: float) -> Claim:
        """What it asks for by its file."""
        return claim_of(self.job, weight)


@dataclass(frozen=True, slots=True)
class Change:
    """A share that is to change.

    Attributes:
        live: the replicas that the version has now.
        is_late: it was not changed, because the share that it would get may still come back to another version.
    """

    version: str
    before: int
    after: int
    live: int
    ceiling: int | None
    is_late: bool = False

    def __str__(self) -> str:
        if self.is_late:
            return (
                f"warning: {self.version} keeps {self.before} while another version is deployed: repeat it afterwards"
            )
        stopped = f", and so {self.live - self.after} of {self.live} stop" if self.live > self.after else ""
        plural = "" if self.before == 1 else "s"
        of = f" of {self.ceiling} for all versions" if self.ceiling else ""
        return f"{self.version} may have {self.after}{of}, not {self.before} replica{plural}{stopped}"


def ceiling_of(job: Mapping[str, Any]) -> int | None:
    """The `max_total` in a job's policy, or None."""
    found = policy_of(job).get(MAX_TOTAL)
    return int(found) if found else None


def policy_of(job: Mapping[str, Any]) -> Mapping[str, Any]:
    """The scaling policy of a job; empty where it has none."""
    return (job["TaskGroups"][0].get("Scaling") or {}).get("Policy") or {}


def claim_of(job: Mapping[str, Any], weight: float) -> Claim:
    """What a job asks for: one that is not scaled, its count, no more and no less."""
    scaling = job["TaskGroups"][0].get("Scaling")
    if not scaling:
        return Claim(groups.total(job), groups.total(job), weight)
    fixed = groups.fixed(job)
    most = int(policy_of(job).get(OWN_MAX) or scaling["Max"]) + fixed
    return Claim(max(scaling["Min"] + fixed, 1), most, weight)


def set_share(job: Job, share: int) -> None:
    """Let a job have so many replicas, and no more; its count falls with it. One that is not scaled stays as it is."""
    group = job["TaskGroups"][0]
    scaling = group.get("Scaling")
    if not scaling:
        return
    most = share - groups.fixed(job)
    own = int(policy_of(job).get(OWN_MAX) or scaling["Max"])
    policy = {key: value for key, value in (scaling.get("Policy") or {}).items() if key != OWN_MAX}
    group["Scaling"] = scaling | {"Max": most, "Policy": policy | ({OWN_MAX: own} if own != most else {})}
    group["Count"] = min(group["Count"], most)


def running(cluster: Cluster, service: str) -> list[Version]:
    """The versions that run, in the order of their names: the same for everybody who asks."""
    found = []
    for stub in jobs_of(cluster, service):
        place = cluster.at(namespace=stub["Namespace"], region=stub["Region"])
        job = place.nomad.job(stub["ID"])
        if job is not None and not job["Stop"]:
            found.append(Version(stub["Meta"]["nomadserve_version"], job, place))
    return sorted(found, key=lambda version: version.name)


def lowest(ceilings: Iterable[int | None]) -> int | None:
    """The ceiling that holds where versions have different ones: the lowest."""
    return min((ceiling for ceiling in ceilings if ceiling is not None), default=None)


def shares_by(versions: list[Version], weights: Mapping[str, float]) -> dict[str, int]:
    """The share of each version by its traffic; its file's own `max` where there is no ceiling.

    None is changed where not even the least of each fits, which `up` refuses and only another tool can bring about:
    traffic moves all the same.
    """
    claims = {version.name: version.claim(weights.get(version.name, 0)) for version in versions}
    ceiling = lowest(version.ceiling for version in versions)
    if ceiling is None:
        return {name: claim.most for name, claim in claims.items()}
    try:
        return shares(ceiling, claims)
    except NoRoom:
        return {}


def shares_to_lend(versions: list[Version], before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, int]:
    """The shares while traffic is still to move: who loses it lends what it does not use to those who gain it.

    No replica is taken away, and nobody gets more than its share afterwards.
    """
    afterwards = shares_by(versions, after)
    ceiling = lowest(version.ceiling for version in versions)
    if ceiling is None:
        return afterwards
    claims: dict[str, Claim] = {}
    for version in versions if afterwards else ():
        live, weight = groups.total(version.job), after.get(version.name, 0)
        gains = weight > before.get(version.name, 0)
        least = max(live, version.claim(weight).least)
        claims[version.name] = Claim(least, max(least, afterwards[version.name]) if gains else least, weight)
    return shares(ceiling, claims) if sum(claim.least for claim in claims.values()) <= ceiling else {}


def too_low(ceiling: int, claims: Mapping[str, Claim]) -> WrongInput:
    """What a user reads when the versions can't have their least."""
    asked = ", ".join(f"{version} {claim.least}" for version, claim in claims.items())
    return WrongInput(
        f"`max_total` ({ceiling}) has no room for the least that the versions need: {asked}",
        hint="raise `max_total`, lower a `min`, or take a version away: `nomadserve down SERVICE VERSION`",
    )


def shares_with(
    service: str, version: str, job: Job, versions: list[Version], weights: Mapping[str, float]
) -> dict[str, int]:
    """The shares once `job`, which is about to be registered, is the version's.

    A version that does not run yet takes no replica away from one that does. One that runs takes nobody's share, unless
    its file has moved what they share. Without a ceiling each has its file's own `max`.

    Raises:
        BlockedOnCapacity: what runs leaves no room for the `min` of a new version.
        WrongInput: the ceiling has no room for the `min` of every version.
    """
    others = [other for other in versions if other.name != version]
    claims = {other.name: other.claim(weights.get(other.name, 0)) for other in others}
    claims = dict(sorted((claims | {version: claim_of(job, weights.get(version, 0))}).items()))
    ceiling = lowest([ceiling_of(job), *(other.ceiling for other in others)])
    if ceiling is None:
        return {name: claim.most for name, claim in claims.items()}
    if sum(claim.least for claim in claims.values()) > ceiling:
        raise too_low(ceiling, claims)
    if len(others) < len(versions):
        kept = {each.name: min(each.most, claims[each.name].most) for each in versions}
        try:
            return shares(ceiling, holding(claims, kept))
        except NoRoom:
            return shares(ceiling, claims)
    live = {other.name: groups.total(other.job) for other in others}
    try:
        return shares(ceiling, holding(claims, live))
    except NoRoom:
        held = ", ".join(f"{name} has {count}" for name, count in live.items())
        needed = f"`{service}-{version}`, which needs {claims[version].least}"
        raise BlockedOnCapacity(
            f"`max_total` ({ceiling}) has no room for {needed}: {held}",
            hint="wait until fewer are needed, or raise `max_total`, in the file of each version",
        ) from None


def lower_elsewhere(version: str, job: Job, versions: list[Version]) -> list[str]:
    """A line where another version's file has a lower `max_total` than this job, whose own then does not hold."""
    others = [other for other in versions if other.name != version and other.ceiling is not None]
    holder = min(others, key=lambda other: other.ceiling or 0, default=None)
    own = ceiling_of(job)
    if holder is None or holder.ceiling is None or (own is not None and own <= holder.ceiling):
        return []
    asked = f", not the {own} of this file" if own else ", although this file has none"
    return [
        f"`max_total` is {holder.ceiling}, by the file of {holder.name}{asked}: the lowest holds until that is up, too"
    ]


def holding(claims: Mapping[str, Claim], held: Mapping[str, int]) -> dict[str, Claim]:
    """The claims, with what a version holds as the least that it must be left."""
    least = {name: max(claim.least, held.get(name, 0)) for name, claim in claims.items()}
    return {
        name: replace(claim, least=least[name], most=max(claim.most, least[name])) for name, claim in claims.items()
    }


def changes(versions: list[Version], wanted: Mapping[str, int]) -> list[Change]:
    """The shares that are not as they should be, those to be lowered first."""
    ceiling = lowest(version.ceiling for version in versions)
    found = [
        Change(version.name, version.most, wanted[version.name], groups.total(version.job), ceiling)
        for version in versions
        if version.scaling and version.name in wanted and version.most != wanted[version.name]
    ]
    return sorted(found, key=lambda change: change.after > change.before)


def write_share(version: Version, share: int) -> None:
    """Register a version's job with another share.

    Raises:
        JobChanged: somebody else changed the job since it was read.
    """
    job: Job = version.job | {"TaskGroups": [dict(group) for group in version.job["TaskGroups"]]}
    set_share(job, share)
    index = version.job["JobModifyIndex"]
    version.place.nomad.register(job, source="", modify_index=index, preserve_counts=False)


def apply(cluster: Cluster, service: str, wanted: Callable[[list[Version]], Mapping[str, int]]) -> list[Change]:
    """Bring the versions to the shares that `wanted` computes from them: lower first, then raise; what was changed.

    Everything is read again before each write: others write as well, and a share that was read must still be there.
    """
    done: list[Change] = []
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while True:
        versions = running(cluster, service)
        pending = changes(versions, wanted(versions))
        if not pending:
            return done
        if time.monotonic() > deadline:
            return [*done, *(replace(change, is_late=True) for change in pending)]
        change = pending[0]
        if change.after > change.before and not has_room(versions, change.version, change.after, change.ceiling):
            time.sleep(POLL_S)
            continue
        with suppress(JobChanged):  # the autoscaler counts as somebody else too
            write_share(next(version for version in versions if version.name == change.version), change.after)
            done.append(change)


def has_room(versions: list[Version], version: str, share: int, ceiling: int | None) -> bool:
    """Whether a version may have that share now, even if the others go back to what they had."""
    others = (other.reserved for other in versions if other.name != version)
    return ceiling is None or sum(others) + share <= ceiling


def wait_for_room(cluster: Cluster, service: str, version: str, job: Job) -> None:
    """Return once a version's job can be registered with the share that it holds.

    Raises:
        BlockedOnCapacity: a deployment of another version may still bring a higher share back.
    """
    share = Version(version, job, cluster).most
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while True:
        versions = running(cluster, service)
        own = next((each.most for each in versions if each.name == version), 0)
        ceiling = lowest([ceiling_of(job), *(each.ceiling for each in versions if each.name != version)])
        if share <= own or has_room(versions, version, share, ceiling):
            return
        if time.monotonic() > deadline:
            raise BlockedOnCapacity(
                f"`max_total` ({ceiling}) has no room for `{job['ID']}` yet: while another version is deployed, "
                "its former replicas may come back",
                hint=f"repeat the command once `nomadserve status {service}` shows the others healthy",
            )
        time.sleep(POLL_S)


def settle(cluster: Cluster, service: str, weights: Mapping[str, float]) -> list[Change]:
    """Bring the versions to their shares by these weights; what was changed."""
    return apply(cluster, service, lambda versions: shares_by(versions, weights))


def lend(cluster: Cluster, service: str, before: Mapping[str, float], after: Mapping[str, float]) -> list[Change]:
    """Make room for the versions that are about to gain traffic; what was changed."""
    return apply(cluster, service, lambda versions: shares_to_lend(versions, before, after))
