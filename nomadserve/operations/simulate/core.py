"""Traffic, replicas and autoscaler, tick by tick. Pure: no clock, no file, no network.

Nomad's part: a change of the count starts replicas at once and stops the youngest; it begins a deployment, which ends
when every replica has been healthy for `min_healthy_time`, and during which the autoscaler can change nothing.
"""

import math
from dataclasses import dataclass
from datetime import timedelta

from nomadserve.operations.simulate.autoscaler import Action, Autoscaler, Bounds, action_of
from nomadserve.operations.simulate.clock import Window
from nomadserve.operations.simulate.ledger import Ledger
from nomadserve.operations.simulate.queries import SIMULATED, Check, Known
from nomadserve.operations.simulate.replicas import Capacity, Replica, forget, scrape
from nomadserve.operations.simulate.result import Assumptions, Change
from nomadserve.operations.simulate.trace import Trace
from nomadserve.operations.simulate.waiting import Awake, WaitingRoom
from nomadserve.promql import STEP_S
from nomadserve.spec import RequestsPerSecond, Scaling, Service

TICK_S = 0.25
TICK_S_LONG = 1.0
LONG_S = 7200.0  # traces longer than that are ticked through in `TICK_S_LONG`
FORGET_EVERY_S = 300.0


@dataclass(frozen=True, slots=True)
class Played:
    """A played trace."""

    ledger: Ledger
    changes: list[Change]


class Cluster:
    """The replicas as Nomad has them.

    Attributes:
        replicas: all of them, those that stopped a while ago too.
        count: how many Nomad was told to have.
        deploying_until: when the last change will be healthy.
    """

    def __init__(self, count: int, service: Service, assumptions: Assumptions) -> None:
        self.replicas = [Replica(-math.inf, -math.inf) for _ in range(count)]
        self.count = count
        self.deploying_until = -math.inf
        self._healthy_s = service.update.min_healthy_time
        self._assumptions = assumptions

    def running(self, now: float) -> int:
        """How many Nomad counts as running."""
        return sum(replica.is_running(now) for replica in self.replicas)

    def ready(self, now: float) -> list[Replica]:
        """Those that get requests."""
        return [replica for replica in self.replicas if replica.is_ready(now)]

    def scale(self, now: float, count: int) -> None:
        """Start or stop replicas."""
        living = [replica for replica in self.replicas if replica.stopped_at == math.inf]
        assumed = self._assumptions
        for replica in living[count:]:
            replica.stopped_at = now
        for _ in range(count - len(living)):
            self.replicas.append(Replica(now + assumed.placement_s, now + assumed.startup_s))
        ready_at = max((replica.ready_at for replica in self.replicas if replica.stopped_at == math.inf), default=now)
        self.deploying_until = max(now, ready_at) + self._healthy_s
        self.count = count


class Player:
    """One service under one trace."""

    def __init__(self, service: Service, trace: Trace, assumptions: Assumptions) -> None:
        scaling = service.scaling
        assert scaling is not None
        self._scaling = scaling
        self._trace = trace
        self._assumptions = assumptions
        timeout_s = service.queue.timeout if service.queue.timeout is not None else math.inf
        self._capacity = Capacity(
            rate=assumptions.capacity,
            queued_max=min(service.queue.max, timeout_s * assumptions.capacity),
            latency_s=assumptions.latency_s,
        )
        self._cluster = Cluster(first_count(scaling, trace, assumptions), service, assumptions)
        bounds = Bounds(scaling.min, scaling.max, scaling.max_scale_down)
        self._autoscaler = Autoscaler(
            bounds, rest_s=scaling.cooldown_on_scale_up, rest_after_down_s=scaling.rest_after_scale_down
        )
        self._awake = Awake(scaling)
        self._room = WaitingRoom(scaling, expected_s=assumptions.startup_s + scaling.evaluated_every)
        self._checks = [Check(target, scaling, self._capacity) for target in scaling.targets if _is_simulated(target)]
        self._windows = [Window(schedule, trace.starts_at) for schedule in scaling.schedules]
        self._known = Known(scaling.cooldown)
        self._changes: list[Change] = []

    def play(self) -> Played:
        """The whole trace; before it, its first rate is taken to have lasted as long as the policy looks back."""
        tick_s = TICK_S_LONG if self._trace.seconds > LONG_S else TICK_S
        ticks = math.ceil(self._trace.seconds / tick_s)
        ledger = Ledger(tick_s=tick_s, ticks=ticks)
        look_back_s = self._scaling.cooldown + max((check.target.window for check in self._checks), default=0.0)
        rates = rates_of(self._trace, tick_s)
        for number in range(-math.ceil(look_back_s / tick_s), ticks):
            now = number * tick_s
            ready = self._cluster.ready(now)
            offered = rates[max(number, 0)] * tick_s
            tick = self._room.serve(now, ready, offered, tick_s, self._capacity)
            self._awake.note(now, offered, ready)
            self._measure(number, tick_s)
            if number >= 0:
                ledger.note(now, tick, count=self._cluster.count, ready=len(ready))
                if number and _falls_on(number, self._scaling.evaluated_every, tick_s):
                    self._evaluate(now)
        ledger.close_moment()
        return Played(ledger, self._changes)

    def _measure(self, number: int, tick_s: float) -> None:
        """What Prometheus does at this tick."""
        now, replicas = number * tick_s, self._cluster.replicas
        if _falls_on(number, self._assumptions.scrape_s, tick_s):
            scrape(replicas, now, self._capacity)
        if _falls_on(number, STEP_S, tick_s):
            self._known.note(now, self._cluster.running(now))
            for check in self._checks:
                check.note(now, replicas)
        if _falls_on(number, FORGET_EVERY_S, tick_s):
            forget(replicas, now)

    def _evaluate(self, now: float) -> None:
        running, bounds = self._cluster.running(now), self._autoscaler.bounds
        actions = [self._wish(check, now, running) for check in self._checks]
        at = self._trace.starts_at + timedelta(seconds=now)
        for window in self._windows:
            if window.is_active(at):
                why = f"schedule {window.name}"
                actions.append(action_of(window.min, running, bounds, why=why, is_limited=False))
        if self._scaling.sleeps:
            actions.append(action_of(self._awake.answer(now, self._cluster.replicas), running, bounds, why="awake"))
        elif not self._scaling.targets and self._scaling.query is None:  # what holds outside of every schedule
            actions.append(action_of(bounds.min, running, bounds, why="min", is_limited=False))
        is_deploying = now < self._cluster.deploying_until
        action = self._autoscaler.decide(now, running, actions, is_deploying=is_deploying)
        if action is not None and action.count != self._cluster.count:
            self._changes.append(Change(at_s=now, before=self._cluster.count, after=action.count, why=action.why))
            self._cluster.scale(now, action.count)

    def _wish(self, check: Check, now: float, running: int) -> Action:
        value = check.answer(now, self._cluster.replicas, self._known)
        return action_of(value, running, self._autoscaler.bounds, why=check.target.kind)


def first_count(scaling: Scaling, trace: Trace, assumptions: Assumptions) -> int:
    """Replicas at the start: as given, else what the first rate asks for, between `min` and `max`."""
    if assumptions.replicas is not None:
        return assumptions.replicas
    wishes = [
        math.ceil(round(trace.points[0][1] / target.value * (1 + scaling.overprovision), 9))
        for target in scaling.targets
        if isinstance(target, RequestsPerSecond)
    ]
    return min(max(scaling.min, *wishes, 0), scaling.max)


def rates_of(trace: Trace, tick_s: float) -> list[float]:
    """The rate of every tick: the one that holds at its start."""
    rates, place = [], 0
    for number in range(math.ceil(trace.seconds / tick_s)):
        while place + 1 < len(trace.points) and trace.points[place + 1][0] <= number * tick_s:
            place += 1
        rates.append(trace.points[place][1])
    return rates


def _is_simulated(target: object) -> bool:
    return isinstance(target, SIMULATED)


def _falls_on(number: int, every_s: float, tick_s: float) -> bool:
    """Whether something that happens every so many seconds happens at this tick."""
    return number % max(1, round(every_s / tick_s)) == 0
