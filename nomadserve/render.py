"""A service becomes the text of its Nomad job; the templates lie in `jobs/`, one for each scaling target."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nomadserve import promql
from nomadserve.spec import Cron, Gpu, Model, Preference, Profile, Scaling, Schedule, Service, zone_of

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ASSIGNMENTS = re.compile(r"(?:^ *\w+ *= .*\n){2,}", re.MULTILINE)
ENGINES_FOLDER = "/engines"  # where a host volume with the plans of TensorRT is mounted
_SPECIAL = re.compile(r'["\\\x00-\x1f\x7f]|[$%](?=\{)')


def jobs_dir() -> Path:
    """The shipped job templates: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "jobs"
    return inside if inside.is_dir() else package.parent / "jobs"


@dataclass(frozen=True, slots=True)
class Group:
    """Replicas of a version that run under the same conditions: a group of its job."""

    name: str
    count: int
    scaling: Scaling | None = None
    is_on_demand: bool = False


def groups(service: Service) -> list[Group]:
    """The version's groups, as they start; the first is the one that is scaled."""
    scaled = Group("serve", service.count - service.on_demand_min, scaling=service.scaling)
    if not service.on_demand_min:
        return [scaled]
    return [scaled, Group("on-demand", service.on_demand_min, is_on_demand=True)]


def render_job(service: Service) -> str:
    """The job of a service's version as HCL; it starts as many replicas as the service says."""
    return _rendered("service", service, verb="serve")


def render_build_job(service: Service) -> str:
    """The batch job that builds the plans of the service's models where one of its replicas could run, and ends."""
    return _rendered("build", service, verb="build")


def build_job_id(service: Service) -> str:
    """Name of that job."""
    return f"{service.job_id}-build"


def _rendered(name: str, service: Service, *, verb: str) -> str:
    template = _environment().get_template(f"{name}.nomad.hcl.j2")
    text = template.render(
        service=service,
        verb=verb,
        build_job_id=build_job_id(service),
        groups=groups(service),
        models_json=_models_json(service),
        fetched=[model for model in service.models if model.is_remote],
        mounted=[model for model in service.models if not model.is_remote and _is_container(service)],
        engines_folder=ENGINES_FOLDER,
        engine_cache=_engine_cache(service),
    )
    return _tidied(text)


def _engine_cache(service: Service) -> str | None:
    """Where the runtime keeps plans of TensorRT; None for its own choice, the user's cache folder on the node."""
    if not service.built:
        return None
    if service.driver == "raw_exec":
        return service.engine_cache
    # What lies in `data` moves on to whoever takes the allocation's place.
    return ENGINES_FOLDER if service.engine_cache is not None else "${NOMAD_ALLOC_DIR}/data/tensorrt"


def quote(value: object) -> str:
    """A text as an HCL literal: nothing in it is evaluated."""
    return '"' + _SPECIAL.sub(lambda match: _escaped(match[0]), str(value)) + '"'


def _escaped(char: str) -> str:
    if char in "$%":  # before a brace: doubled, it stands for itself
        return char * 2
    return _ESCAPES.get(char) or f"\\u{ord(char):04x}"


def _tidied(text: str) -> str:
    """The text as `nomad fmt` would leave it: aligned equal signs, no blank lines that templates left behind."""
    text = re.sub(r"\n\s*\n(?=\s*(?:\n|\}))", "\n", text)
    return _ASSIGNMENTS.sub(lambda run: _aligned(run[0]), text)


def _aligned(run: str) -> str:
    """Lines of `key = value` with their equal signs below one another."""
    pairs = [line.split("=", 1) for line in run.splitlines()]
    width = max(len(key.rstrip()) for key, _ in pairs)
    return "".join(f"{key.rstrip():{width}} ={value}\n" for key, value in pairs)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(jobs_dir()),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(hcl=quote, number=promql.number)
    environment.globals.update(
        conditions=_conditions,
        cron=Cron,
        fetched_name=_fetched_name,
        in_utc=_in_utc,
        model_path=_model_path,
        promql=promql,
    )
    return environment


def _is_container(service: Service) -> bool:
    return service.driver in ("docker", "podman")


def _models_json(service: Service) -> str:
    """The value of NOMADSERVE_MODELS: what the runtime loads, and from where."""
    return json.dumps([_model_entry(model, service) for model in service.models], separators=(",", ":"))


def _model_entry(model: Model, service: Service) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": model.name,
        "path": _model_path(model, service),
        "engine": service.engine_of(model),
        "max_batch": model.max_batch,
        "checksum": model.checksum,
        "threads": model.threads,
        "precision": model.precision,
        "profiles": [_profile_entry(profile) for profile in model.profiles] or None,
        "instances": model.instances if model.instances > 1 else None,
        "warmup": model.warmup if model.warmup > 1 else None,
    }
    return {key: value for key, value in entry.items() if value is not None}


def _profile_entry(profile: Profile) -> dict[str, dict[str, tuple[int, ...]]]:
    return {shapes.name: {"min": shapes.min, "opt": shapes.opt, "max": shapes.max} for shapes in profile.inputs}


def _model_path(model: Model, service: Service) -> str:
    """Where the runtime finds the file: fetched, mounted into its container, or as it lies on the node."""
    if model.is_remote:
        return f"${{NOMAD_TASK_DIR}}/models/{_fetched_name(model)}"
    if _is_container(service):
        return f"/models/{_fetched_name(model)}"
    return model.source


def _fetched_name(model: Model) -> str:
    """The model's name with the ending of its file."""
    return model.name + (model.suffix or ".onnx")


def _conditions(block: Gpu | Preference) -> list[tuple[str, str, str]]:
    """Conditions on a device: attribute, operator, value."""
    found = []
    if block.memory is not None:
        found.append(("device.attr.memory", block.memory.operator, block.memory.amount.text))
    if block.model is not None:
        found.append(("device.model", "regexp", block.model))
    if block.driver_version is not None:
        found.append(("device.attr.driver_version", "version", block.driver_version))
    return found


def _in_utc(schedule: Schedule, key: str) -> str:
    """A schedule's cron line in UTC, by the offset that its zone has today."""
    return Cron(getattr(schedule, key)).in_utc(zone_of(schedule.timezone), datetime.now(UTC))
