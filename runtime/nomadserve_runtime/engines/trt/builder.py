"""An ONNX model → a plan and what is known about it, with whatever TensorRT is here."""

import logging
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from nomadserve_runtime.engines.trt import translate
from nomadserve_runtime.engines.trt.bindings import Bindings, find_bindings
from nomadserve_runtime.engines.trt.calibrator import calibrate_with
from nomadserve_runtime.engines.trt.device import Gpu, find_gpu
from nomadserve_runtime.engines.trt.half import convert_to_fp16
from nomadserve_runtime.engines.trt.metadata import Metadata
from nomadserve_runtime.engines.trt.model import OnnxModel, read_model
from nomadserve_runtime.engines.trt.monitor import Phases, attach
from nomadserve_runtime.engines.trt.options import BuildOptions, Profile
from nomadserve_runtime.engines.trt.precision import Recipe, recipe_for
from nomadserve_runtime.engines.trt.profiles import Input, profiles_for
from nomadserve_runtime.engines.trt.progress import Progress
from nomadserve_runtime.engines.trt.timing import TimingCache
from nomadserve_runtime.errors import CannotStart, WrongSetting

log = logging.getLogger("nomadserve.tensorrt")

# A portable plan of TensorRT-RTX leaves this one out: https://docs.nvidia.com/deeplearning/tensorrt-rtx (CPU engines).
_TURING = "7.5"

# A thread that has not begun by then was never started: Ctrl-C came before.
STARTED_WITHIN_S = 1.0


@dataclass(frozen=True)
class Build:
    """One build, with all that decides what comes of it.

    Attributes:
        gpu: what TensorRT times its layers on; None for TensorRT-RTX, which needs none.
        compute_capability: of the GPU to build for; empty for a plan that is portable.
    """

    model: OnnxModel
    options: BuildOptions
    bindings: Bindings
    recipe: Recipe
    gpu: Gpu | None
    compute_capability: str


def prepare(path: Path, options: BuildOptions) -> Build:
    """Everything that can be known before the builder starts.

    Raises:
        WrongSetting: the model, or what is asked for, can't be built by the TensorRT that is here.
        CannotStart: TensorRT, or the GPU that it needs, is not there.
    """
    bindings, gpu = find_bindings(), find_gpu()
    model = read_model(path)
    recipe = recipe_for(options, model, bindings)
    if bindings.is_rtx:
        capability = options.compute_capability or (_TURING if gpu and gpu.compute_capability == _TURING else "")
        return Build(model, options, bindings, recipe, None, capability)
    if gpu is None:
        raise CannotStart(
            f"{bindings.title} times every layer on the GPU that it builds for, and there is none here",
            hint="build on a node that has one: `nomadserve build --on-cluster`",
        )
    if options.compute_capability not in ("", gpu.compute_capability):
        raise WrongSetting(
            f"{bindings.title} builds for the GPU that is here alone: {gpu.name}, compute capability "
            f"{gpu.compute_capability}, not {options.compute_capability}",
            hint="build on a node that has one: `nomadserve build --on-cluster`",
        )
    return Build(model, options, bindings, recipe, gpu, gpu.compute_capability)


def run(build: Build, *, timing: TimingCache, progress: Progress | None) -> tuple[bytes, Metadata]:
    """Build the plan; takes seconds to an hour. Ctrl-C in the main thread stops it at the builder's next step.

    Raises:
        WrongSetting: the model can't be built, or not with these options.
        CannotStart: the GPU does not suffice.
        KeyboardInterrupt: it was stopped.
    """
    started_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nomadserve-build-") as folder:
        path = build.model.path
        if build.recipe.converts_to_fp16:
            path = convert_to_fp16(path, Path(folder))
        data, profiles = _serialize(build, path, timing=timing, progress=progress)
    build_s = time.monotonic() - started_at
    log.info("%s: built by %s in %.1f s, %d bytes", build.model.path.name, build.bindings.title, build_s, len(data))
    return data, _metadata(build, data, profiles, build_s)


def _serialize(
    build: Build, path: Path, *, timing: TimingCache, progress: Progress | None
) -> tuple[bytes, tuple[Profile, ...]]:
    bindings, title = build.bindings, build.bindings.title
    bindings.errors.clear()
    builder = bindings.module.Builder(bindings.logger)
    network = builder.create_network(_network_flags(build))
    parser = bindings.module.OnnxParser(network, bindings.logger)
    bindings.module.init_libnvinfer_plugins(bindings.logger, "")
    if progress:
        progress.moving("reading the model", 0.0)
    if not parser.parse_from_file(str(path)):
        raise translate.parse_failure(build.model.path, title, translate.parser_errors(parser), bindings.errors)
    inputs = _inputs(network, build.model.path)
    profiles = profiles_for(inputs, build.options)
    config = builder.create_builder_config()
    _configure(config, build)
    for profile in profiles:
        _add_profile(builder, config, profile)
    calibrator = None
    if build.recipe.calibrates:
        calibrator = calibrate_with(build.options, bindings, inputs, builder, network, config)
    timing.attach(config)
    phases = Phases(progress)
    monitor = attach(bindings.module, config, phases)
    data = _interruptible(builder, network, config, phases, kept=(monitor, calibrator))
    if data is None:
        raise translate.build_failure(build.model.path, title, list(bindings.errors))
    timing.keep(config)
    if progress:
        progress.moving("built", 1.0)
    return data, profiles


def _network_flags(build: Build) -> int:
    """11 and RTX know nothing but strongly typed networks, and may have dropped the flag for them."""
    if build.recipe.is_strongly_typed and build.bindings.has("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"):
        return 1 << int(build.bindings.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    return 0


def _inputs(network: Any, path: Path) -> Sequence[Input]:
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    for tensor in tensors:
        if tensor.is_shape_tensor:
            raise WrongSetting(
                f"the input `{tensor.name}` of `{path.name}` is a shape: sizes inside the model depend on its values",
                hint='fix it when the model is exported, or serve it with `engine = "onnxruntime"`',
            )
    return [Input(tensor.name, tuple(tensor.shape)) for tensor in tensors]


def _configure(config: Any, build: Build) -> None:
    module, options = build.bindings.module, build.options
    for flag in ("TF32", *(build.recipe.flags - {"TF32"})):
        member = getattr(module.BuilderFlag, flag)
        config.set_flag(member) if flag in build.recipe.flags else config.clear_flag(member)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if build.bindings.is_rtx and build.compute_capability:
        config.num_compute_capabilities = 1
        config.set_compute_capability(_member_for(build.compute_capability, build.bindings), 0)


def _member_for(capability: str, bindings: Bindings) -> Any:
    """For "8.9", ComputeCapability.SM89."""
    members = getattr(bindings.module.ComputeCapability, "__members__", {})
    name = "SM" + capability.replace(".", "")
    if name not in members:
        known = (f"{member[2:-1]}.{member[-1]}" for member in members if member.startswith("SM"))
        raise WrongSetting(
            f"{bindings.title} does not build for compute capability {capability}", hint=f"it knows {', '.join(known)}"
        )
    return members[name]


def _add_profile(builder: Any, config: Any, profile: Profile) -> None:
    made = builder.create_optimization_profile()
    for name, shapes in profile.items():
        made.set_shape(name, shapes.min, shapes.opt, shapes.max)
    config.add_optimization_profile(made)


def _interruptible(builder: Any, network: Any, config: Any, phases: Phases, *, kept: tuple[Any, ...]) -> bytes | None:
    """The plan, or None where the builder failed. In a thread of its own, as Ctrl-C reaches nobody inside.

    kept: what the builder calls, and holds no reference to. The thread does, however early Ctrl-C comes.
    """
    found: list[bytes] = []
    ended = threading.Event()

    def build(*_: Any) -> None:
        try:
            memory = builder.build_serialized_network(network, config)
            if memory is not None:
                found.append(bytes(memoryview(memory)))
        finally:
            ended.set()

    thread = threading.Thread(target=build, args=kept, name="tensorrt-builder")
    try:
        thread.start()
        # Not `join`: where it is interrupted, CPython 3.11 takes the thread for ended (`_wait_for_tstate_lock`), and
        # goes away itself while TensorRT still calls it.
        ended.wait()
    except KeyboardInterrupt:
        phases.cancel()
        while not ended.wait(STARTED_WITHIN_S) and thread.is_alive():
            pass
        raise
    return found[0] if found else None


def _metadata(build: Build, data: bytes, profiles: tuple[Profile, ...], build_s: float) -> Metadata:
    options = msgspec.to_builtins(build.options)
    return Metadata(
        plan_sha256=sha256(data).hexdigest(),
        onnx_sha256=build.model.sha256,
        flavour=build.bindings.flavour,
        version=build.bindings.version,
        gpu=build.gpu.name if build.gpu else "",
        compute_capability=build.compute_capability,
        precision=build.options.precision,
        profiles=profiles,
        options={name: options[name] for name in ("max_batch", "calibration", "optimization_level", "workspace_mib")},
        nomadserve=version("nomadserve"),
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        build_s=round(build_s, 3),
    )
