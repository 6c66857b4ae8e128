"""`nomadserve build` on this machine: files, or the models of a job, become plans before anybody waits for them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from nomadserve_runtime.config import ModelConfig, load_config
from nomadserve_runtime.engines.trt import builder, cache
from nomadserve_runtime.engines.trt.files import write_whole
from nomadserve_runtime.engines.trt.metadata import Metadata, metadata_path
from nomadserve_runtime.engines.trt.options import BuildOptions, options_of
from nomadserve_runtime.engines.trt.progress import Progress
from nomadserve_runtime.errors import CannotStart, WrongSetting
from nomadserve_runtime.gpu import show_only_given
from nomadserve_runtime.loading import check_sum


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """One plan.

    Attributes:
        origin: `built`, or `cached` where it was there already.
    """

    model: str
    path: str
    origin: str
    metadata: Metadata


def build_file(model: Path, *, output: Path | None, wishes: Mapping[str, Any], progress: Progress) -> Built:
    """Build one ONNX file into `output`, or into the cache where the replicas of this node find it.

    wishes: fields of `BuildOptions`.

    Raises:
        WrongSetting, CannotStart: as `plan_for`; also where the wishes can't be meant, or `output` can't be written.
        KeyboardInterrupt: it was stopped; neither a plan nor a part of one is left.
    """
    show_only_given(os.environ)
    if model.suffix in cache.PLAN_SUFFIXES:
        raise WrongSetting(f"`{model}` is a plan already", hint="`nomadserve serve` takes it as it is")
    try:
        options = msgspec.convert(dict(wishes), BuildOptions)
    except msgspec.ValidationError as error:
        raise WrongSetting(f"the model can't be built like that: {error}", hint="see docs/tensorrt.md") from error
    if output is None:
        return _into_cache(model.name, model, options, progress)
    _require_place(output)
    build = builder.prepare(model.absolute(), options)
    data, metadata = builder.run(build, timing=cache.timing_cache(build), progress=progress)
    try:
        metadata_path(output).unlink(missing_ok=True)  # never beside a plan that it is not about
        write_whole(output, data)
        write_whole(metadata_path(output), msgspec.json.format(msgspec.json.encode(metadata), indent=2))
    except OSError as error:
        raise CannotStart(f"can't write `{output}`: {error.strerror}", hint="name another file with `-o`") from error
    return Built(model=model.name, path=str(output), origin="built", metadata=metadata)


def build_models(environ: Mapping[str, str], *, progress: Progress) -> list[Built]:
    """Build, into the cache, every model of a job that TensorRT is to run; with the options that its replicas have.

    Raises:
        WrongSetting, CannotStart: as `plan_for`; also where the job has no such model, or a file is another one.
    """
    show_only_given(os.environ)
    wanted = [model for model in load_config(environ).models if _is_to_be_built(model)]
    if not wanted:
        raise WrongSetting(
            'no model of this job is built: none is an ONNX file with `engine = "tensorrt"`',
            hint="`nomadserve build model.onnx` builds a file",
        )
    for model in wanted:
        if model.checksum:
            check_sum(Path(model.path), model.checksum)
    return [_into_cache(model.name, Path(model.path), options_of(model), progress) for model in wanted]


def _is_to_be_built(model: ModelConfig) -> bool:
    return model.engine == "tensorrt" and Path(model.path).suffix not in cache.PLAN_SUFFIXES


def _into_cache(name: str, path: Path, options: BuildOptions, progress: Progress) -> Built:
    plan = cache.plan_for(path.absolute(), options, progress=progress)
    assert plan.metadata is not None, "what is built or cached has its metadata"
    return Built(model=name, path=str(plan.path), origin=plan.origin, metadata=plan.metadata)


def _require_place(output: Path) -> None:
    """Said before the build, not after an hour of it."""
    if output.suffix not in cache.PLAN_SUFFIXES:
        raise WrongSetting(f"`{output}` does not look like a plan", hint="end its name in `.plan`")
    if not output.parent.is_dir():
        raise WrongSetting(f"there is no folder `{output.parent}`", hint="make it first, or name another file")
    if output.is_dir() or not os.access(output.parent, os.W_OK):
        raise WrongSetting(f"`{output}` can't be written", hint="name another file with `-o`")
