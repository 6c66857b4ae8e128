"""Services, traces and assumptions for tests."""

from nomadserve.operations.simulate.result import Assumptions
from nomadserve.operations.simulate.trace import A_MONDAY, Trace
from nomadserve.spec import Model, Queue, RequestsPerSecond, Scaling, Seconds, Service

TARGET = RequestsPerSecond(value=10, window=Seconds(20))


def scaling(**keys: object) -> Scaling:
    """1 to 10 replicas by requests a second; short times."""
    defaults = {
        "min": 1,
        "max": 10,
        "targets": (TARGET,),
        "evaluation_interval": Seconds(5),
        "cooldown": Seconds(60),
        "cooldown_on_scale_up": Seconds(10),
    }
    return Scaling(**{**defaults, **keys})  # type: ignore[arg-type]


def service(**keys: object) -> Service:
    """A service that scales so."""
    return Service(
        name="digits",
        models=(Model(name="digits", source="/digits.onnx"),),
        queue=Queue(max=50),  # type: ignore[call-arg]
        scaling=scaling(**keys),
    )


def trace(*points: tuple[float, float], seconds: float) -> Trace:
    """A trace from Monday, 00:00 UTC."""
    return Trace(points=list(points), seconds=seconds, starts_at=A_MONDAY, origin="test")


ASSUMPTIONS = Assumptions(capacity=12, startup_s=8)
