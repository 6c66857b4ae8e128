"""What is known of a subject before any load: its model, the requests, and how long a single one takes."""

import statistics
from dataclasses import dataclass

from nomadserve.errors import WrongInput
from nomadserve.operations.bench import payload as payloads
from nomadserve.operations.bench.payload import Payload
from nomadserve.operations.bench.replica import Replica
from nomadserve.operations.bench.subject import Subject
from nomadserve.operations.bench.wishes import Wishes
from nomadserve.operations.load import Aim

SINGLES = 8  # requests one by one
WARM_UP = 3  # of which these do not count
START_SHARE = 0.5  # of what one request after the other would make: a first rate that nearly always passes


@dataclass(frozen=True, slots=True)
class Singles:
    """A subject that answered.

    Attributes:
        single_s: seconds that one request takes while nothing else runs.
        start: the first rate to offer, requests a second.
    """

    model: str
    payload: Payload
    aim: Aim
    single_s: float
    start: float


def ask_singly(subject: Subject, wishes: Wishes) -> Singles:
    """Send the first requests, one after the other.

    Raises:
        WrongInput: the payload does not fit the model.
        NoReplica: it does not answer.
    """
    replica = subject.replica
    model = wishes.model or _only_model(replica, subject)
    payload = _payload(replica, model, wishes)
    singles = [replica.post(payload.path, payload.bodies[n % len(payload.bodies)]) for n in range(SINGLES)]
    single_s = statistics.median(singles[WARM_UP:])
    return Singles(model, payload, _aim(replica, payload), single_s, wishes.start or START_SHARE / single_s)


def _only_model(replica: Replica, subject: Subject) -> str:
    models = replica.models()
    if len(models) != 1:
        known = "it serves " + ", ".join(f"`{name}`" for name in models) if models else "it names none"
        raise WrongInput(f"which model of {subject.words}? {known}", hint="name it with `--model`")
    return models[0]


def _payload(replica: Replica, model: str, wishes: Wishes) -> Payload:
    if wishes.data is not None:
        return payloads.from_text(wishes.data, model=model, origin=wishes.data_origin)
    return payloads.from_metadata(replica.metadata(model), rows=wishes.rows, model=wishes.model)


def _aim(replica: Replica, payload: Payload) -> Aim:
    return Aim(
        address=replica.address,
        port=replica.port,
        host=replica.host,
        path=payload.path,
        bodies=payload.bodies,
        headers=replica.headers,
    )
