"""The PromQL that the Nomad Autoscaler asks: a number of replicas that can be acted on as it stands.

What Autoscaler 0.5.0 does with an answer (read in its source, tried live), and what is done about it here:

- several series of an instant query: it takes one of them. Ours are sums; a user's query counts only while single.
- NaN or no series: the whole policy stops, its schedules too. Both are dropped, then "as many as there are" is asked.
- a fraction is cut off: rounded up. Infinity becomes a negative count: bounded by `max`.
- `cooldown` waits for nothing before a scale-down, blocks scale-ups after one, and is forgotten by a restart: we go
  down only to the highest wish of the last `cooldown`, which Prometheus keeps; the autoscaler's own rest is short.
- `max_scale_up` counts from what runs, so that a lost or starting replica makes it lower the count: ours counts from
  the most replicas of the last `cooldown`.
- with `min = 0` there may be no replica that could tell of load: then the gateway tells, by the requests that it has or
  had for the version, whoever answered them.
"""

import math

from nomadserve.spec import Scaling, Service

PROMETHEUS = "prometheus"
"""Name of the Consul service, and of the job by which a Prometheus scrapes itself."""

GPU_UTILIZATION = "nomadserve_gpu_utilization"
"""The runtime's series of each GPU of a replica: percent of the last seconds in which it computed, 0 to 100."""

WAKES = "nomadserve-wakes"
"""Job by which Prometheus asks the gateways, every 2 s, for nothing but what `awake` needs.

Its series are Envoy's `envoy_cluster_upstream_…`, renamed to `nomadserve_gateway_…` (`jobs/prometheus.nomad.hcl.j2`).
"""

# The highest wish is found among samples this far apart: no load is answered later than this because of it.
STEP_S = 5
# A replaced replica and its successor are both known for a moment: only a number that lasted is a number of replicas.
LASTING_S = 15


def selector(service: Service) -> str:
    """What selects the series of one version's replicas."""
    return f'service="{service.name}",version="{service.version}"'


def single(query: str) -> str:
    """A user's query as one series without labels, dropped (NaN) where it has none or several."""
    # A comment ends with its line, and must not swallow what follows.
    return f"vector(scalar(\n{query.strip()}\n))"


def replicas(wanted: str, service: Service) -> str:
    """The whole query of one check.

    wanted: PromQL for the replicas that the load of now asks for; one series without labels, fractions allowed.
    """
    scaling = service.scaling
    assert scaling is not None
    known = f"count(up{{{selector(service)}}})"
    held = f"{_held(wanted, known, scaling)} or {known} or vector(0)"
    count = f"clamp_max({_limited(held, known, scaling)}, {scaling.max})"
    if service.on_demand_min:  # these have a group of their own; the autoscaler counts the others
        count = f"clamp_min({count} - {service.on_demand_min}, 0)"
    return f"{count} unless on() ({_is_young(scaling)})"


def at_gateway(service: Service) -> str:
    """What selects the gateways' series of requests for one version, whoever answered them.

    With a failover, Envoy counts at each of its targets (`failover-target~1~digits-v1`), and at the version's own name
    only what found nobody. All of these series are there, at 0, from when the gateway learns of the version.
    """
    return f'envoy_cluster_name=~"(failover-target~[0-9]+~)?{service.job_id}"'


def awake(service: Service) -> str:
    """The whole query of the check that decides on the last replica: 1 or 0, where `min` is 0.

    1 while something is in flight or was within `idle`, at the gateways or at a replica, and while no replica has been
    ready for `idle`. Where the gateways can't tell, as many as there are: who can't be woken must not fall asleep.
    """
    scaling = service.scaling
    assert scaling is not None
    past = f"[{math.ceil(scaling.idle)}s]"
    gateway, replica = at_gateway(service), selector(service)
    known = f"count(up{{{replica}}})"
    ready = f"count(up{{{replica}}} == 1)"
    ready_then = f"count(up{{{replica}}} offset {math.ceil(scaling.idle)}s == 1)"
    asked = (
        f"sum(increase(nomadserve_gateway_rq_total{{{gateway}}}{past}))",
        f"sum(increase(nomadserve_gateway_cx_none_healthy{{{gateway}}}{past}))",
        f"sum(max_over_time(nomadserve_gateway_rq_active{{{gateway}}}{past}))",
        f"(sum(increase(nomadserve_requests_total{{{replica}}}{past})) or vector(0))",
        f"(sum(max_over_time(nomadserve_in_flight{{{replica}}}{past})) or vector(0))",
        f"({ready} unless on() {ready_then} or vector(0))",
    )
    busy = f"({' + '.join(asked)}) > bool 0"
    return f"clamp_max({busy} or {known} or vector(0), {scaling.max}) unless on() ({_is_young(scaling)})"


def beyond_the_last(wanted: str, scaling: Scaling) -> str:
    """Nothing instead of one replica where `min` is 0: for loads that are never quite 0, so that `awake` decides."""
    return f"({wanted.strip()}) * (({wanted.strip()}) > bool 1)" if scaling.sleeps else wanted


def settling_s(scaling: Scaling) -> int:
    """How long a Prometheus has to run until what it says of every replica is whole."""
    windows = [target.window for target in scaling.targets if target.window is not None]
    return math.ceil(max(windows, default=30.0)) + 10


def number(value: float) -> str:
    """A number without a needless fraction."""
    return f"{round(value, 9):.12g}"


def _held(wanted: str, known: str, scaling: Scaling) -> str:
    """The highest wish of the last `cooldown`; not fewer than there are, where there are more than there were then."""
    spare = f" * {number(1 + scaling.overprovision)}" if scaling.overprovision else ""
    wish = f"ceil(({wanted}){spare}) >= 0"  # NaN compares to nothing
    past_s = math.ceil(scaling.cooldown)
    if past_s <= STEP_S:
        return f"({wish})"
    load = f"max_over_time(({wish})[{past_s}s:{STEP_S}s])"
    if past_s <= LASTING_S:
        return load
    now, before = (f"min_over_time({known}[{seconds}s:{STEP_S}s])" for seconds in (LASTING_S, past_s))
    growth = f"({now} > {before})"
    # Without a label to tell them apart, `or` would drop the second.
    return f"max({_labelled(load, 'load')} or {_labelled(growth, 'growth')})"


def _labelled(query: str, label: str) -> str:
    return f'label_replace({query}, "by", "{label}", "", "")'


def _limited(held: str, known: str, scaling: Scaling) -> str:
    """Not more than `max_scale_up` above the most replicas of the last `cooldown`."""
    if scaling.max_scale_up is None:
        return held
    past_s = max(math.ceil(scaling.cooldown), LASTING_S)
    most = f"scalar(max_over_time({known}[{past_s}s:{STEP_S}s]) or vector(0))"
    return f"clamp_max({held}, {most} + {scaling.max_scale_up})"


def _is_young(scaling: Scaling) -> str:
    """A series while a Prometheus that scrapes itself has just started."""
    return f'time() - process_start_time_seconds{{job="{PROMETHEUS}"}} < {settling_s(scaling)}'
