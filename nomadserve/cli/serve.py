"""`nomadserve serve`: the runtime on a model file, here and now; inside a job, without arguments."""

import os
import re
from pathlib import Path
from typing import Any

import click
import msgspec

from nomadserve.cli.shapes import PRECISIONS, profile
from nomadserve.errors import WrongInput

# Option → variable of the runtime that it sets.
VARIABLES = {
    "service": "NOMADSERVE_SERVICE",
    "version": "NOMADSERVE_VERSION",
    "host": "NOMADSERVE_HOST",
    "port": "NOMADSERVE_PORT",
    "queue_max": "NOMADSERVE_QUEUE_MAX",
    "queue_timeout": "NOMADSERVE_QUEUE_TIMEOUT",
    "max_delay": "NOMADSERVE_BATCH_MAX_DELAY",
    "drain_delay": "NOMADSERVE_DRAIN_DELAY",
    "drain_timeout": "NOMADSERVE_DRAIN_TIMEOUT",
    "latency_target": "NOMADSERVE_BATCH_LATENCY_TARGET",
    "log_level": "NOMADSERVE_LOG_LEVEL",
    "log_format": "NOMADSERVE_LOG_FORMAT",
    "log_file": "NOMADSERVE_LOG_FILE",
}
# Switches: given or not.
SWITCHES = {
    "access_log": "NOMADSERVE_ACCESS_LOG",
    "repository": "NOMADSERVE_REPOSITORY",
}
# Option → key of the model in NOMADSERVE_MODELS.
MODEL_KEYS = ("name", "engine", "max_batch", "threads", "warmup", "instances", "precision", "profiles")


@click.command()
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option("--name", help="What the model is called; from the file's name if left away.")
@click.option("--engine", help="onnxruntime (default), tensorrt, or fake.")
@click.option("--max-batch", type=int, help="Rows of the largest batch (default 32).")
@click.option("--threads", type=int, help="Threads of the engine for one batch; its own choice if left away.")
@click.option("--warmup", type=int, help="Runs of each batch size before it is timed (default 1).")
@click.option("--instances", type=int, help="TensorRT: how often the model is set up on each GPU (default 1).")
@click.option("--precision", type=click.Choice(PRECISIONS), help="TensorRT: that an ONNX file is built with.")
@click.option(
    "--profile",
    "profiles",
    type=profile,
    multiple=True,
    metavar="INPUT=MIN:OPT:MAX",
    help="Shapes of rows that may differ.",
)
@click.option("--service", help="What the service is called; as the model if left away.")
@click.option("--version", help="Version of the service, in every reply (default dev).")
@click.option("--host", help="Address to listen on (default 127.0.0.1).")
@click.option("--port", type=int, help="Port to listen on (default 8000).")
@click.option("--queue-max", type=int, help="Rows that may wait; more are refused with 503 (default 256).")
@click.option("--queue-timeout", help="Deadline of a request to be launched, such as 30s (default none).")
@click.option("--max-delay", help="How long an idle engine waits for more rows, such as 2ms (default 0s).")
@click.option(
    "--latency-target", help="How long an answer may take; the wait for more rows adapts to it (default none)."
)
@click.option("--drain-delay", help="How long to go on answering after SIGTERM (default 0s).")
@click.option("--drain-timeout", help="When to end after SIGTERM, whatever is left (default 25s).")
@click.option("--log-level", help="debug, info (default), warning or error.")
@click.option("--log-format", help="text (default), or json.")
@click.option("--log-file", help="A file for the log, rotated at 50 MB; stderr if left away.")
@click.option("--access-log", is_flag=True, help="A line in the log for every request.")
@click.option("--repository", is_flag=True, help="Let clients load and unload the models.")
def command(model: Path | None, **options: Any) -> int:
    """Serve the model file MODEL, without a cluster.

    Each option sets a variable of the environment; without MODEL, NOMADSERVE_MODELS names the models. That is how a
    job of `nomadserve up` starts it.
    """
    # Imported here: `nomadserve serve --help` needs none of the runtime.
    from nomadserve_runtime.__main__ import main

    return main({**os.environ, **settings(model, options)})


def settings(model: Path | None, options: dict[str, Any]) -> dict[str, str]:
    """The variables that the command line sets; options that were not given are None and set nothing."""
    given = {option: value for option, value in options.items() if value not in (None, ())}
    variables = {VARIABLES[option]: str(value) for option, value in given.items() if option in VARIABLES}
    variables |= {variable: "1" for switch, variable in SWITCHES.items() if given.get(switch)}
    of_model = {key: given[key] for key in MODEL_KEYS if key in given}
    if model is not None:
        entry = {"name": model_name(model), "path": str(model.absolute()), **of_model}
        variables["NOMADSERVE_MODELS"] = msgspec.json.encode([entry]).decode()
    elif of_model:
        options_given = ", ".join(f"`--{key.replace('_', '-')}`" for key in of_model)
        raise WrongInput(f"{options_given} without a model file", hint="`nomadserve serve MODEL` names the file")
    elif not os.environ.get("NOMADSERVE_MODELS"):
        raise WrongInput(
            "no model to serve",
            hint="name a file, `nomadserve serve model.onnx`, or set `NOMADSERVE_MODELS` as a job does",
        )
    return variables


def model_name(model: Path) -> str:
    """The name of the file, without its ending, as a name that URLs take."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model.stem).strip("._-") or "model"
