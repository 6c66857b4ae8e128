"""What must hold between the keys of a service; every rule is asked, so that all that is broken is told at once."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import chain
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from nomadserve.spec.cron import BadCron, Cron, NotOneLine
from nomadserve.spec.engine_rules import engines
from nomadserve.spec.service import Gpu, Model, Preference, Scaling, Schedule, Service
from nomadserve.spec.violation import REFUSED, Path, Violation, Violations

LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_LABEL_RULE = "names become part of DNS names: up to 63 lower-case letters, digits and dashes, no dash at either end"
_MODEL_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")
_FETCHED = re.compile(r"https?://|(?:s3|gcs)::https://")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ATTRIBUTE = re.compile(r"(?:meta|attr|node)\.[\w.-]+")
_VERSIONS = re.compile(r"(?:>=|<=|>|<|=|!=|~>)?\s*\d+(?:\.\d+)*")
_OF_THE_USER = ("NOMADSERVE_LOG_LEVEL", "NOMADSERVE_TENSORRT", "NOMADSERVE_CUDA_GRAPHS")
_LOG_LEVELS = ("debug", "info", "warning", "error")
_LABEL_LENGTH_MAX = 63
IDLE_S_MIN = 10  # some evaluations and many scrapes


def violations(service: Service) -> list[Violation]:
    """Every rule that the service breaks."""
    return list(chain.from_iterable(rule(service) for rule in RULES))


def names(service: Service) -> Violations:
    """Name and version become a job, a Consul service and a DNS name."""
    for key, what, text in (("name", "service name", service.name), ("version", "version", service.version)):
        if not LABEL.fullmatch(text):
            yield Violation(((key,),), f'the {what} "{text}" can\'t be a DNS name', _tamed(text))
    if service.name == "nomadserve" or service.name.startswith("nomadserve-"):
        yield Violation((("name",),), f'the service name "{service.name}" belongs to the platform', "take another name")
    if len(service.job_id) > _LABEL_LENGTH_MAX and max(len(service.name), len(service.version)) <= _LABEL_LENGTH_MAX:
        message = f"name and version make `{service.job_id}`, which is longer than {_LABEL_LENGTH_MAX} characters"
        yield Violation((("name",), ("version",)), message, "shorten one of them")


def _tamed(text: str) -> str:
    """The nearest name that is allowed, as a hint."""
    tame = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_LABEL_LENGTH_MAX].strip("-")
    return f'write it as "{tame}"' if tame and tame != text else _LABEL_RULE


def models(service: Service) -> Violations:
    """There is something to serve, and every model's file can reach its replica."""
    if not service.models:
        yield Violation((("model", REFUSED),), "the service has no model", 'add `model "digits" { source = "…" }`')
    for model in service.models:
        path = ("model", model.name)
        if not _MODEL_NAME.fullmatch(model.name):
            hint = "letters, digits, dots, dashes and underscores make a model's name"
            yield Violation((path,), f'the model name "{model.name}" can\'t be part of an address', hint)
        if model.checksum is not None and not _CHECKSUM.fullmatch(model.checksum):
            hint = "write `sha256:` and the 64 hexadecimal digits that `sha256sum FILE` prints"
            yield Violation(((*path, "checksum"),), f'"{model.checksum}" is not a SHA-256 checksum', hint)
        yield from _source(model, service.driver, (*path, "source"))


def _source(model: Model, driver: str, path: Path) -> Violations:
    if not model.source:
        yield Violation(
            (path,), "`source` is empty", 'write `source = "models/digits.onnx"`, or an address: `https://…`'
        )
    elif "${" in model.source:
        yield Violation((path,), "Nomad would fill in the `${` in this path", "name the file without it")
    elif not model.is_remote and driver == "exec":
        hint = 'give an address (`https://…`), or take `driver = "raw_exec"`'
        yield Violation((path, ("driver",)), "a task of driver `exec` can't see files of its node", hint)
    elif model.is_remote and not _FETCHED.match(model.source):
        hint = "Nomad fetches `https://…`, `s3::https://…` and `gcs::https://…`"
        yield Violation((path,), f'models can\'t be fetched from "{model.source}"', hint)
    elif model.source.startswith("http://") and model.checksum is None:
        yield Violation(
            (path,), "anyone on the way can change what `http://` brings", "use `https://`, or add `checksum`"
        )


def driver(service: Service) -> Violations:
    """Containers need an image; nothing else can use one."""
    in_container = service.driver in ("docker", "podman")
    if in_container and not service.image:
        message = f"driver `{service.driver}` needs an `image`"
        yield Violation((("driver",), ("image",)), message, 'add `image = "…"`: one that holds nomadserve')
    if service.image is not None and not in_container:
        hint = 'take the image out, or add `driver = "docker"`'
        yield Violation((("image",), ("driver",)), f"driver `{service.driver}` has no use for an `image`", hint)


def placement(service: Service) -> Violations:
    """Lists and names that Nomad would refuse."""
    if not service.datacenters:
        yield Violation((("datacenters",),), "`datacenters` is empty", 'leave it out for all of them: `["*"]`')
    for key in ("namespace", "node_pool", "region"):
        if getattr(service, key) == "":
            yield Violation(((key,),), f"`{key}` is empty", f"leave `{key}` out for Nomad's own default")


def environment(service: Service) -> Violations:
    """The variables that the job itself sets are not the user's."""
    for name in service.env:
        path = (("env", name),)
        if not _ENV_NAME.fullmatch(name):
            yield Violation(path, f'"{name}" can\'t be the name of an environment variable', "letters, digits, `_`")
        elif name.startswith(("NOMADSERVE_", "NOMAD_")) and name not in _OF_THE_USER:
            yield Violation(
                path, f"`{name}` is set by the job itself", "the keys of this file set it; take it out here"
            )
    level = service.env.get("NOMADSERVE_LOG_LEVEL", "info")
    if level not in _LOG_LEVELS:
        hint = "there are " + ", ".join(f"`{word}`" for word in _LOG_LEVELS)
        yield Violation((("env", "NOMADSERVE_LOG_LEVEL"),), f'there is no log level "{level}"', hint)


def count(service: Service) -> Violations:
    """Either the user or the autoscaler counts replicas."""
    if service.replicas is not None and service.scaling:
        hint = "take `replicas` out: the count starts at `scaling.min` and then belongs to the autoscaler"
        yield Violation((("replicas",), ("scaling",)), "`replicas` and `scaling` exclude one another", hint)


def resources(service: Service) -> Violations:
    """Amounts that contradict one another."""
    asked = service.resources
    if asked.cpu is not None and asked.cores is not None:
        paths = (("resources", "cores"), ("resources", "cpu"))
        yield Violation(paths, "`cpu` and `cores` exclude one another", "keep the one you mean: MHz, or whole cores")
    if asked.memory_max is not None and asked.memory_max < asked.memory:
        message = f"`memory_max` ({asked.memory_max.text}) is less than `memory` ({asked.memory.text})"
        hint = "`memory_max` is the most a replica may use; `memory` is what is kept for it"
        yield Violation((("resources", "memory_max"), ("resources", "memory")), message, hint)


def gpu(service: Service) -> Violations:
    """Conditions on devices that Nomad could not evaluate."""
    if not service.gpu:
        return
    yield from _conditions(service.gpu, ("gpu",))
    if service.gpu.name.count("/") > 2 or not all(service.gpu.name.split("/")):
        hint = 'write `type`, `vendor/type` or `vendor/type/model`, like `name = "nvidia/gpu"`'
        yield Violation((("gpu", "name"),), f'"{service.gpu.name}" is not the name of a device', hint)
    for index, wish in enumerate(service.gpu.preferences):
        path = ("gpu", "prefer", str(index))
        if sum(value is not None for value in (wish.memory, wish.model, wish.driver_version)) != 1:
            hint = "write one `prefer` block for each of `memory`, `model`, `driver_version`"
            yield Violation((path,), "`prefer` takes exactly one wish", hint)
        if wish.weight == 0:
            yield Violation(((*path, "weight"),), "a `weight` of 0 wishes nothing", "1 to 100, or -1 to -100 to avoid")
        yield from _conditions(wish, path)


def _conditions(block: Gpu | Preference, path: Path) -> Violations:
    if block.model is not None and (problem := _regexp_problem(block.model)):
        hint = 'like `model = "A100|H100"`'
        yield Violation(((*path, "model"),), f"`model` is a regular expression, and {problem}", hint)
    versions = (block.driver_version or "1").split(",")
    if not all(_VERSIONS.fullmatch(version.strip()) for version in versions):
        message = f'"{block.driver_version}" is not a condition on a version'
        yield Violation(((*path, "driver_version"),), message, 'like `driver_version = ">= 550"` or `">= 550, < 580"`')


def _regexp_problem(pattern: str) -> str:
    if re.search(r"\(\?(?:[=!]|<[=!])", pattern):
        return "Nomad's know no look-around"
    try:
        re.compile(pattern)
    except re.error as error:
        return f"this one is broken: {error}"
    return "" if pattern else "an empty one matches everything"


def queue(service: Service) -> Violations:
    """A queue that can hold a batch, and waits that end before the request does."""
    for model in service.models:
        if model.max_batch > service.queue.max:
            message = (
                f"the queue holds {service.queue.max} rows, less than one batch of `{model.name}` ({model.max_batch})"
            )
            paths = (("queue", "max"), ("model", model.name, "max_batch"))
            yield Violation(paths, message, "raise `max` in `queue`, or lower `max_batch` in `model`")
    timeout, path = service.queue.timeout, ("queue", "timeout")
    if timeout is not None and timeout > service.request_timeout:
        message = f"a request may wait {timeout.text} in the queue, but is cut after {service.request_timeout.text}"
        yield Violation((path, ("request_timeout",)), message, "keep `timeout` below `request_timeout`")
    target = service.batching.latency_target
    if target is not None and not target:
        message = "a `latency_target` of 0 can't be met by any batch"
        yield Violation((("batching", "latency_target"),), message, "leave it away for no target")
    if timeout is not None and 0 < timeout <= service.batching.max_delay:
        message = f"requests expire after {timeout.text}, before a batch of {service.batching.max_delay.text} is sent"
        yield Violation((("batching", "max_delay"), path), message, "keep `max_delay` below the queue's `timeout`")
    for value, where in ((timeout, path), (service.request_timeout, ("request_timeout",))):
        if value is not None and not value:
            yield Violation((where,), f"a `{where[-1]}` of 0 answers nothing", "leave it out, or give a time above 0")


def scaling(service: Service) -> Violations:
    """Numbers in order, and at least one reason to scale."""
    wanted = service.scaling
    if not wanted:
        return
    low, high = ("scaling", "min"), ("scaling", "max")
    if wanted.min > wanted.max:
        yield Violation((low, high), f"`min` ({wanted.min}) is more than `max` ({wanted.max})", "swap or correct them")
    if wanted.max_total is not None and wanted.max_total < wanted.max:
        message = f"`max_total` ({wanted.max_total}) is less than `max` ({wanted.max})"
        hint = "`max` is for this version, `max_total` for all versions together"
        yield Violation((("scaling", "max_total"), high), message, hint)
    wakes_only = wanted.sleeps and wanted.max == 1
    if not (wanted.targets or wanted.schedules or wanted.query or wakes_only):
        parts = (("scaling", "target", REFUSED), ("scaling", "schedule", REFUSED), ("scaling", "query"))
        hint = 'add a `target "in_flight" { value = 4 }`, a `schedule` or a `query`'
        hint += "; `max = 1` needs none" if wanted.sleeps else ""
        yield Violation(parts, "`scaling` has nothing to scale by", hint)
    if wanted.query is not None and not wanted.query.strip():
        yield Violation((("scaling", "query"),), "`query` is empty", "write PromQL that gives the wanted replicas")
    yield from _rhythm(wanted)
    for target in wanted.targets:
        path = ("scaling", "target", target.kind)
        if target.window is not None and target.window < 1:
            yield Violation(((*path, "window"),), "a `window` is at least 1s", 'write it like `window = "60s"`')
        if target.kind == "cpu" and not service.resources.cores:
            message = "target `cpu` needs whole `cores`: a share in MHz is no bound, so a percentage of it says little"
            hint = "write `cores = 2` in `resources`, or take `in_flight` or `requests_per_second`"
            yield Violation((path, ("resources", "cores")), message, hint)
        if target.kind == "gpu" and not service.gpu:
            message = "target `gpu` needs a `gpu` block: without one, replicas have no GPUs that could be measured"
            hint = "add a `gpu` block, or take `in_flight` or `requests_per_second`"
            yield Violation((path, ("gpu",)), message, hint)
        if target.kind in ("cpu", "gpu") and target.value >= 100:
            message = (
                f"a target of 100 percent of the {target.kind.upper()} is never passed, so it never adds a replica"
            )
            yield Violation(((*path, "value"),), message, "leave room to see growth: `value = 70`")
    for schedule in wanted.schedules:
        yield from _schedule(schedule, wanted, ("scaling", "schedule", schedule.name))


def _rhythm(wanted: Scaling) -> Violations:
    if wanted.evaluated_every < 1:
        path = ("scaling", "evaluation_interval")
        yield Violation((path,), "an `evaluation_interval` is at least 1s", "10s is a good start")


def sleep(service: Service) -> Violations:
    """Times of a version that may have no replica."""
    wanted = service.scaling
    if not wanted:
        return
    usual = Scaling(min=0, max=1)
    for key in ("idle", "hold"):
        if not wanted.sleeps and getattr(wanted, key) != getattr(usual, key):
            hint = f"take `{key}` out, or write `min = 0`"
            yield Violation((("scaling", key), ("scaling", "min")), f"`{key}` is for a `min` of 0", hint)
    if wanted.sleeps and wanted.idle < IDLE_S_MIN:
        message = f"`idle` is at least {IDLE_S_MIN}s: shorter, a quiet moment would stop the last replica"
        yield Violation((("scaling", "idle"),), message, "10m is a good start; what starts slowly wants longer")
    if wanted.sleeps and wanted.hold > service.request_timeout:
        message = f"a request may be kept for {wanted.hold.text}, but is cut after {service.request_timeout.text}"
        yield Violation((("scaling", "hold"), ("request_timeout",)), message, "keep `hold` below `request_timeout`")


def _schedule(schedule: Schedule, wanted: Scaling, path: Path) -> Violations:
    if not wanted.min <= schedule.min <= wanted.max and wanted.min <= wanted.max:
        message = f"`min` ({schedule.min}) lies outside of the {wanted.min} to {wanted.max} replicas of `scaling`"
        hint = "a schedule moves the count within `scaling.min` and `scaling.max`"
        yield Violation(((*path, "min"), ("scaling", "min"), ("scaling", "max")), message, hint)
    try:
        zone = zone_of(schedule.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        hint = 'names look like "Europe/Berlin"; "UTC" is always known'
        yield Violation(((*path, "timezone"),), f'there is no time zone "{schedule.timezone}"', hint)
        zone = None
    for key in ("start", "end"):
        try:
            Cron(getattr(schedule, key)).in_utc(zone, datetime.now(UTC))
        except BadCron as error:
            hint = f'minute, hour, day, month, weekday: `{key} = "0 8 * * 1-5"`'
            yield Violation(((*path, key),), f"`{key}`: {error}", hint)
        except NotOneLine as error:
            hint = "the autoscaler counts in UTC, one line for each schedule: split it in two, or write it in UTC"
            yield Violation(((*path, key), (*path, "timezone")), f"`{key}`: {error}", hint)


def zone_of(name: str) -> ZoneInfo | None:
    """The zone of that name; None is UTC, which needs no time zone database."""
    return None if name == "UTC" else ZoneInfo(name)


def spot(service: Service) -> Violations:
    """One wish about spot nodes, and room for them."""
    wanted = service.spot
    if not wanted:
        return
    keys = tuple(("spot", key) for key in wanted.wishes) or (("spot",),)
    if len(wanted.wishes) != 1:
        given = " and ".join(f"`{key}`" for key in wanted.wishes) or "none of them"
        message = f"`spot` takes exactly one of `prefer`, `avoid` and `only`, and has {given}"
        yield Violation(keys, message, "keep the one you mean: `prefer = true`")
    if not _ATTRIBUTE.fullmatch(wanted.attribute):
        hint = 'like `attribute = "meta.nomadserve_spot"` or "attr.platform.aws.instance-life-cycle", without `${}`'
        yield Violation((("spot", "attribute"),), f'"{wanted.attribute}" is not an attribute of a node', hint)
    if not wanted.value:
        yield Violation((("spot", "value"),), "`value` is empty", 'say what a spot node has there: `value = "spot"`')
    if not wanted.replace_on_disconnect and service.progress_deadline <= wanted.wait:
        message = (
            f"a replica waits {wanted.wait.text} for its node, not less than `progress_deadline` "
            f"({service.progress_deadline.text})"
        )
        paths = (("update", "progress_deadline"), ("spot", "replace_on_disconnect"))
        yield Violation(paths, message, "raise `progress_deadline`: an update that runs meanwhile waits with it")
    yield from _on_demand(service, wanted.on_demand_min)


def _on_demand(service: Service, least: int) -> Violations:
    path, scaling = ("spot", "on_demand_min"), service.scaling
    if scaling and least > scaling.min:
        message = f"`on_demand_min` ({least}) is more than `min` ({scaling.min}) of `scaling`"
        yield Violation((path, ("scaling", "min")), message, "so many run at least: raise `min`, or lower it")
    most, key = (scaling.max, ("scaling", "max")) if scaling else (service.count, ("replicas",))
    if least and least >= most and not (scaling and least > scaling.min):
        message = (
            f"`on_demand_min` ({least}) leaves none of the {most} replica{'' if most == 1 else 's'} for spot nodes"
        )
        hint = f"lower it, or raise `{key[-1]}`"
        yield Violation((path, key), message, hint)


def update(service: Service) -> Violations:
    """Deadlines that Nomad would refuse, or that no deployment could meet."""
    healthy, progress, least = service.healthy_deadline, service.progress_deadline, service.update.min_healthy_time
    if progress <= healthy:
        shown = f"({progress.text}) is not longer than `healthy_deadline` ({healthy.text})"
        paths = (("update", "progress_deadline"), ("update", "healthy_deadline"))
        yield Violation(paths, f"`progress_deadline` {shown}", "give the whole more time than a single replica")
    if least >= healthy:
        shown = f"({least.text}) is not shorter than `healthy_deadline` ({healthy.text})"
        paths = (("update", "min_healthy_time"), ("update", "healthy_deadline"))
        yield Violation(paths, f"`min_healthy_time` {shown}", "it is how long a replica must stay healthy to count")


RULES: tuple[Callable[[Service], Violations], ...] = (
    names, models, engines, driver, placement, environment, count, resources, gpu, queue, scaling, sleep, spot, update,
)  # fmt: skip
