"""`nomadserve build`: ONNX models become TensorRT plans, here or on a node of the cluster."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from nomadserve.cli import output
from nomadserve.cli.build_progress import BuildProgress
from nomadserve.cli.progress import tell
from nomadserve.cli.quantities import mebibytes
from nomadserve.cli.service_file import read_service
from nomadserve.cli.shapes import PRECISIONS, profile
from nomadserve.errors import NomadserveError, WrongInput
from nomadserve.operations.build import build_on_cluster
from nomadserve.operations.cluster import cluster_from

BUILT_WITHIN_S = 3600.0
EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), help="The plan's file; the cache otherwise.")
@click.option("--precision", type=click.Choice(PRECISIONS), help="Fastest number format for layers (default tf32).")
@click.option("--max-batch", type=click.IntRange(1), help="Rows of the largest batch, without a profile (default 32).")
@click.option(
    "--profile", "profiles", type=profile, multiple=True, metavar="INPUT=MIN:OPT:MAX", help="Shapes. May be repeated."
)
@click.option("--calibration", type=click.Path(path_type=Path), help="An .npz of input rows, for int8.")
@click.option("--compute-capability", metavar="8.9", help="Of the GPU to build for, with TensorRT-RTX.")
@click.option("--optimization-level", type=click.IntRange(0, 5), help="0 builds fast, 5 runs fast.")
@click.option("--workspace", type=mebibytes, metavar="SIZE", help="Scratch memory for layers, such as '4 GiB'.")
@click.option("--log-level", type=click.Choice(("debug", "info", "warning")), default="warning", show_default=True)
@click.option("--on-cluster", "file", type=EXISTING, metavar="FILE", help="Build a service file's models on a node.")
@click.option("--var", "variables", multiple=True, metavar="NAME=VALUE", help="A variable of FILE. May be repeated.")
@click.option("--var-file", "var_files", multiple=True, type=EXISTING, help="A file of variables. May be repeated.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), help="Seconds to follow FILE for (default 3600).")
@click.option("--json", "as_json", is_flag=True, help="Print all that is known about the plans.")
def command(
    model: Path | None,
    target: Path | None,
    log_level: str,
    file: Path | None,
    variables: tuple[str, ...],
    var_files: tuple[Path, ...],
    timeout: float | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Make a TensorRT plan of the ONNX file MODEL, for the GPU that is here.

    Without `-o` the plan goes into the cache, where the replicas of this node find it. Without MODEL, NOMADSERVE_MODELS
    names the models. With `--on-cluster` a node with the GPU that the service file asks for builds the file's models,
    and keeps their plans. Ctrl-C stops all of that and leaves nothing half done.

    Exits with 0 when built, 1 when that failed, 2 on wrong input, 3 when the wait ended, 4 when no node has room.
    """
    wishes = wishes_of(options)
    if file is not None:
        if model is not None or target is not None or wishes:
            hint = "the service file says how its models are built"
            raise WrongInput("`--on-cluster` takes no model file and no options of one", hint=hint)
        service = read_service(file, variables, var_files)
        with cluster_from() as everywhere:
            cluster = everywhere.at(namespace=service.namespace, region=service.region)
            tell(build_on_cluster(cluster, service, timeout_s=timeout or BUILT_WITHIN_S), as_json=as_json)
        return 0
    if variables or var_files or timeout is not None:
        raise WrongInput("`--var`, `--var-file` and `--timeout` are for a service file", hint="add `--on-cluster FILE`")
    return build_here(model, target, wishes, log_level=log_level, as_json=as_json)


def build_here(
    model: Path | None, target: Path | None, wishes: dict[str, Any], *, log_level: str, as_json: bool
) -> int:
    """Build on this machine, and say what was built."""
    # Imported here: `nomadserve build --help` needs none of the runtime.
    from nomadserve_runtime.build import build_file, build_models
    from nomadserve_runtime.logs import start_log

    require_no_contradiction(model, target, wishes)
    with translated(), BuildProgress() as progress:
        start_log(level=log_level, form="text", path="", is_access_logged=False)
        if model is None:
            built = build_models(os.environ, progress=progress)
        else:
            built = [build_file(model, output=target, wishes=wishes, progress=progress)]
    for each in built:
        what, where = each.metadata, f"for compute capability {each.metadata.compute_capability}"
        made = f"built in {what.build_s:.1f} s" if each.origin == "built" else "was built already"
        place = f"on {what.gpu}, {where}" if what.gpu else where if what.compute_capability else "portable"
        output.say(f"{each.model}: {made}: {what.flavour} {what.version}, {what.precision}, {place}")
    if as_json:
        output.emit_json(built)
    else:
        for each in built:
            output.emit(each.path)
    return 0


def wishes_of(options: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, under the names that the runtime has for it."""
    found = {name: value for name, value in options.items() if value not in (None, ())}
    if "workspace" in found:
        found["workspace_mib"] = int(found.pop("workspace"))
    if "calibration" in found:
        found["calibration"] = str(found["calibration"].absolute())
    return found


def require_no_contradiction(model: Path | None, target: Path | None, wishes: dict[str, Any]) -> None:
    """Options are for a file; the models of a job bring their own."""
    if model is not None:
        return
    given = [f"`--{name.replace('_', '-')}`" for name in wishes] + (["`-o`"] if target else [])
    if given:
        raise WrongInput(f"{', '.join(given)} without a model file", hint="`nomadserve build MODEL` names the file")
    if not os.environ.get("NOMADSERVE_MODELS"):
        raise WrongInput("no model to build", hint="name a file: `nomadserve build model.onnx -o model.plan`")


@contextmanager
def translated() -> Iterator[None]:
    """The runtime's errors as those of the command line."""
    from nomadserve_runtime.errors import CannotStart

    try:
        yield
    except CannotStart as error:
        kind = WrongInput if error.exit_code == WrongInput.exit_code else NomadserveError
        raise kind(error.message, hint=error.hint) from error
