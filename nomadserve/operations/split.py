"""Share a service's traffic between its versions."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from nomadserve.consul_api import Entry, EntryChanged
from nomadserve.errors import NomadserveError, WrongInput
from nomadserve.operations import ceiling, traffic
from nomadserve.operations.capacity import held_up, job_of_version, shortages, wait_until_measured
from nomadserve.operations.cluster import Cluster
from nomadserve.operations.events import Done, Event, Note
from nomadserve.operations.gateways import wait_until_served
from nomadserve.operations.waking import is_asleep
from nomadserve.weights import Weights


class VersionNotHealthy(NomadserveError):
    """A version that is to have traffic has no healthy replica."""


def split(
    cluster: Cluster, service: str, wanted: Weights, *, is_forced: bool, scales_first: bool = False
) -> Iterator[Event]:
    """Write the weights and wait until every gateway serves them. A version not named gets nothing.

    scales_first: start the replicas that the measured load will need before the weights move.

    Raises:
        WrongInput: no such service or version.
        VersionNotHealthy: a version that would have traffic has no healthy replica (`is_forced` goes on anyway).
        EntryChanged: somebody else wrote weights meanwhile; theirs stand.
        TimedOut: the weights are written, but a gateway does not serve them.
        BlockedOnCapacity, DeploymentFailed: replicas that were to start first; no weight was changed.
    """
    before, splitter = existing_weights(cluster, service)
    after = completed(service, wanted, before)
    asleep = asleep_versions(cluster, service, after)
    if not is_forced:
        refuse_unhealthy(cluster, service, after, asleep)
    yield Note(text=f"before: {before}")
    yield Note(text=f"after:  {after}")
    lacking = shortages(cluster, service, before, after, asleep)
    for shortage in () if scales_first else lacking:
        way_out = "`--scale-first` starts them before the weights move"
        if shortage.version in asleep:
            way_out = f"its requests wake it, and wait or go elsewhere meanwhile; {way_out}"
        yield Note(text=f"warning: {shortage}; {way_out}")
    with shares_settled(cluster, service), held_up(cluster, lacking if scales_first else []) as scaling:
        if lacking and scales_first:
            yield from told(ceiling.lend(cluster, service, before.by_version, after.by_version))
        yield from scaling
        yield from traffic.write(cluster, traffic.reweigh(cluster, service, after, splitter=splitter, verb="split"))
        yield from wait_until_served(cluster, service)
        refuse_overtaken(cluster, service, after)
        yield from told(ceiling.settle(cluster, service, after.by_version))
        for shortage in lacking if scales_first else ():
            yield from wait_until_measured(cluster, shortage)
    yield Done(
        text=f"traffic of {service}: {after}" if before != after else f"nothing to change: {service} has {after}"
    )


@contextmanager
def shares_settled(cluster: Cluster, service: str) -> Iterator[None]:
    """Whatever ends a split before its end, the shares of `max_total` fit the weights that are then in force."""
    try:
        yield
    except BaseException:
        with suppress(NomadserveError):
            ceiling.settle(cluster, service, existing_weights(cluster, service)[0].by_version)
        raise


def told(changes: list[ceiling.Change]) -> Iterator[Event]:
    """The shares that were changed, for people."""
    return (Note(text=str(change)) for change in changes)


def refuse_overtaken(cluster: Cluster, service: str, weights: Weights) -> None:
    """Don't claim weights that somebody else has replaced by now."""
    current = existing_weights(cluster, service)[0]
    if current != weights:
        raise EntryChanged(
            f"weights {weights} of `{service}` were written, and then replaced by somebody else: {current}",
            hint=f"`nomadserve status {service}` shows who",
        )


def existing_weights(cluster: Cluster, service: str) -> tuple[Weights, Entry]:
    """The weights that the service has now, and the splitter that holds them.

    Raises:
        WrongInput: there is no such service.
    """
    found = traffic.current_weights(cluster, service)
    if found is None:
        raise WrongInput(
            f"there is no service `{service}`",
            hint="`nomadserve status` lists the services; `nomadserve up service.hcl.j2` deploys one",
        )
    return found


def completed(service: str, wanted: Weights, before: Weights) -> Weights:
    """`wanted` in the service's order of versions, those not named at nothing.

    Raises:
        WrongInput: a version is named that the service does not have.
    """
    unknown = [version for version in wanted.by_version if version not in before.by_version]
    if unknown:
        raise WrongInput(
            f"service `{service}` has no version {', '.join(f'`{version}`' for version in unknown)}; "
            f"it has {', '.join(f'`{version}`' for version in before.by_version)}",
            hint=f"`nomadserve up service.hcl.j2 --var version={unknown[0]}` deploys it first",
        )
    return Weights({version: wanted.by_version.get(version, 0) for version in before.by_version})


def asleep_versions(cluster: Cluster, service: str, weights: Weights) -> frozenset[str]:
    """Those with a weight that have no replica now, and get one with the first request."""
    versions = [version for version, weight in weights.by_version.items() if weight]
    return frozenset(version for version in versions if is_asleep(job_of_version(cluster, service, version)))


def refuse_unhealthy(cluster: Cluster, service: str, weights: Weights, asleep: frozenset[str]) -> None:
    """No traffic for a version that can't answer, unless it is merely asleep."""
    for version, weight in weights.by_version.items():
        if version in asleep or not weight:
            continue
        if not any(instance.is_passing for instance in cluster.consul.instances(f"{service}-{version}")):
            raise VersionNotHealthy(
                f"version `{version}` of `{service}` has no healthy replica; no weight was changed",
                hint=f"see `nomadserve status {service}`; `--force` splits all the same, and the other versions answer "
                "until it is healthy",
            )
