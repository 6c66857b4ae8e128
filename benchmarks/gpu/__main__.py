"""`python -m benchmarks.gpu`: everything, or what `--network`, `--precision` and `--seconds` leave of it."""

import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.gpu import bare
from benchmarks.gpu.correctness import Difference, compare, right_answers
from benchmarks.gpu.load import request_of
from benchmarks.gpu.networks import NETWORKS, Network
from benchmarks.gpu.report import Line, Result, text
from benchmarks.gpu.serving import Served, serving
from nomadserve_runtime import gpu
from nomadserve_runtime.calibration import buckets
from nomadserve_runtime.config import ModelConfig
from nomadserve_runtime.engine import AheadEngine, open_engine
from nomadserve_runtime.engines.trt import cuda
from nomadserve_runtime.engines.trt.bindings import find_bindings
from nomadserve_runtime.engines.trt.engine import GRAPHS
from nomadserve_runtime.errors import CannotStart

FOLDER = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "nomadserve" / "benchmarks-gpu"
ROWS_COMPARED = 8
# Rows of a request: a client with one image, and one that sends some at once.
REQUEST_ROWS = (1, 8)


@click.command()
@click.option("--network", "networks", multiple=True, type=click.Choice(list(NETWORKS)), default=list(NETWORKS))
@click.option("--precision", "precisions", multiple=True, default=["tf32", "fp16"], help="Of the plan; repeatable.")
@click.option("--max-batch", default=64, help="Rows of the largest batch.")
@click.option("--connections", default=256, help="Of all clients together.")
@click.option("--processes", default=max(1, (os.cpu_count() or 2) // 2), help="That the clients run in.")
@click.option("--seconds", default=5.0, help="For each measurement.")
@click.option("--output", type=click.Path(path_type=Path), default=FOLDER / "results.json", help="All figures.")
def main(
    networks: Sequence[str],
    precisions: Sequence[str],
    max_batch: int,
    connections: int,
    processes: int,
    seconds: float,
    output: Path,
) -> None:
    """Measure the engine `tensorrt` on the GPU of this machine."""
    gpu.show_only_given(os.environ)
    try:
        machine = f"{cuda.start()} × {gpu_name()}, {find_bindings().title}, {os.cpu_count()} cores"
    except CannotStart as error:
        raise click.ClickException(f"{error.message}\nhint: {error.hint}") from error
    results = []
    for name, precision in itertools.product(networks, precisions):
        network = NETWORKS[name](FOLDER)
        say(f"{name}, {precision}")
        model = ModelConfig(
            name=name, path=str(network.path), engine="tensorrt", max_batch=max_batch, precision=precision
        )
        right, lines = in_process(network, model, seconds=seconds)
        served = served_by(
            [str(Path(sys.executable).parent / "nomadserve"), "serve"],
            network,
            model,
            connections=connections,
            processes=processes,
            seconds=seconds,
        )
        results.append(Result(name, precision, right, lines, served))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps([dataclasses.asdict(result) for result in results], indent=1))
    click.echo(text(results, machine=machine))


def in_process(network: Network, model: ModelConfig, *, seconds: float) -> tuple[Difference, tuple[Line, ...]]:
    """The engine alone: right or wrong, and how fast with batches of every size."""
    right = right_answers(network, rows=ROWS_COMPARED)
    engine = opened(model, has_graphs=True)
    difference = compare(engine, network, precision=model.precision or "tf32", right=right)
    sizes = buckets(engine.batch_max)
    graphs = [bare.measure(engine, network, rows=rows, seconds=seconds) for rows in sizes]
    pageable = [bare.measure(engine, network, rows=rows, seconds=seconds, is_pinned=False) for rows in sizes]
    engine.close()
    engine = opened(model, has_graphs=False)
    plain = [bare.measure(engine, network, rows=rows, seconds=seconds) for rows in sizes]
    engine.close()
    return difference, tuple(map(Line, sizes, graphs, plain, pageable))


def opened(model: ModelConfig, *, has_graphs: bool) -> AheadEngine:
    """The engine, with or without CUDA graphs."""
    os.environ[GRAPHS] = "1" if has_graphs else "0"
    engine = open_engine(model)
    assert isinstance(engine, AheadEngine)
    return engine


def served_by(
    command: Sequence[str],
    network: Network,
    model: ModelConfig,
    *,
    connections: int,
    processes: int,
    seconds: float,
) -> dict[int, Served]:
    """The whole server, with clients that send requests of several sizes."""
    models = json.dumps([{key: value for key, value in settings_of(model).items() if value}])
    served = {}
    with serving(
        command,
        log=Path(model.path).with_suffix(".log"),
        NOMADSERVE_MODELS=models,
        NOMADSERVE_QUEUE_MAX=str(16 * connections),
        **{GRAPHS: "1"},
    ) as server:
        names = server.input_names(model.name)
        for rows in REQUEST_ROWS:
            if rows > model.max_batch:
                continue
            say(f"  {connections} connections, {rows} rows a request")
            request = request_of(network, names, model=model.name, rows=rows)
            served[rows] = server.measure(
                request, rows=rows, connections=connections, processes=processes, seconds=seconds
            )
    return served


def settings_of(model: ModelConfig) -> dict[str, object]:
    """The model as `NOMADSERVE_MODELS` has it."""
    return {name: getattr(model, name) for name in model.__struct_fields__}


def gpu_name() -> str:
    """Of the first GPU."""
    return cuda.driver.Device(0).name()


def say(line: str) -> None:
    """Into stderr: what goes on."""
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
