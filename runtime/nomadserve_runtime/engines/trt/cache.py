"""The plan for a model file: read as it is, or built from an ONNX model once and kept for every replica of the node.

The folder holds, for each build, `<key>.plan`, its metadata `<key>.plan.json` and a lock `<key>.lock`. Whoever wants a
plan takes the lock first: of two replicas, one builds and the other waits. The kernel drops the lock of a process that
dies. Everything may be deleted at any time: what runs has its plan in memory.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from nomadserve_runtime.engines.trt import builder
from nomadserve_runtime.engines.trt.builder import Build
from nomadserve_runtime.engines.trt.files import write_whole
from nomadserve_runtime.engines.trt.metadata import Metadata, metadata_path, read_metadata
from nomadserve_runtime.engines.trt.options import BuildOptions
from nomadserve_runtime.engines.trt.progress import Progress
from nomadserve_runtime.engines.trt.timing import TimingCache
from nomadserve_runtime.errors import CannotStart, WrongSetting

log = logging.getLogger("nomadserve.tensorrt")

FOLDER = "NOMADSERVE_ENGINE_CACHE"
PLAN_SUFFIXES = (".plan", ".engine", ".trt")

# Changes whenever this package builds the same wishes in another way, so that older plans are not taken for it.
RECIPES = 1
# A plan that no replica has started from in that long most likely belongs to a model or a TensorRT that is gone.
UNUSED_S_MAX = 90 * 24 * 3600.0


@dataclass(frozen=True)
class Plan:
    """A serialized engine, ready for `Runtime.deserialize_cuda_engine`.

    Attributes:
        metadata: None for a plan that came without its JSON.
        path: where it lies.
    """

    data: bytes
    metadata: Metadata | None
    origin: Literal["built", "cached", "given"]
    path: Path


def plan_for(path: Path, options: BuildOptions, *, progress: Progress | None) -> Plan:
    """The plan of the model file at `path`. Blocks while it, or another process of this node, builds.

    Raises:
        WrongSetting: the file is missing, or no plan can be made of it with these options.
        CannotStart: TensorRT, the GPU that it needs, or a place to keep the plan is not there.
    """
    if not path.is_file():
        raise WrongSetting(f"there is no model file `{path}`", hint="check the path of the model")
    if path.suffix in PLAN_SUFFIXES:
        return _given(path)
    build = builder.prepare(path, options)
    folder = cache_folder()
    entry = folder / f"{key_of(build)}.plan"
    with _locked(entry, path, progress):
        if found := _read(entry, build):
            with contextlib.suppress(OSError):  # it may belong to another user of the node
                os.utime(metadata_path(entry))
            log.info("%s: the plan was built already: %s", path.name, entry)
            return found
        _remove_unused(folder)
        data, metadata = builder.run(build, timing=timing_cache(build), progress=progress)
        _write(entry, data, metadata)
        return Plan(data, metadata, "built", entry)


def discard(plan: Plan) -> bool:
    """Forget a plan that its GPU refused, so that the next `plan_for` builds it anew; False where it is not ours."""
    if plan.origin == "given":
        return False
    log.warning("the plan %s was refused by the GPU: discarded", plan.path)
    metadata_path(plan.path).unlink(missing_ok=True)
    return True


def cache_folder() -> Path:
    """Where plans are kept; made where it is not there."""
    folder = Path(os.environ.get(FOLDER) or Path.home() / ".cache" / "nomadserve" / "tensorrt")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStart(
            f"no plans can be kept in `{folder}`: {error.strerror}", hint=f"set `{FOLDER}` to a folder to write to"
        ) from error
    return folder


def key_of(build: Build) -> str:
    """What plan a build makes: the model, TensorRT, the GPU, the options, and the data that it calibrates with."""
    calibration = build.options.calibration
    try:
        data = hashlib.sha256(Path(calibration).read_bytes()).hexdigest() if calibration else ""
    except OSError as error:
        raise WrongSetting(
            f"can't read the calibration data `{calibration}`: {error.strerror}", hint="check the path"
        ) from error
    options = msgspec.to_builtins(msgspec.structs.replace(build.options, calibration="", compute_capability=""))
    gpu = build.gpu.name if build.gpu else ""
    what = [RECIPES, build.model.sha256, build.bindings.flavour, build.bindings.version, gpu, build.compute_capability]
    text = msgspec.json.encode([*what, options, data], order="sorted")
    return f"{build.model.path.stem[:40]}-{hashlib.sha256(text).hexdigest()[:32]}"


def timing_cache(build: Build) -> TimingCache:
    """The timings of this TensorRT on this kind of GPU, shared by all models."""
    name = f"timing-{build.bindings.flavour}-{build.bindings.version}-{build.compute_capability}.cache"
    return TimingCache(cache_folder() / name, build.bindings)


def _given(path: Path) -> Plan:
    try:
        return Plan(path.read_bytes(), read_metadata(path), "given", path)
    except OSError as error:
        raise WrongSetting(f"can't read `{path}`: {error.strerror}", hint="check the path of the model") from error


def _read(entry: Path, build: Build) -> Plan | None:
    """The plan that is kept, where it is whole and what its metadata says; what is not is told."""
    if not entry.exists():
        return None
    metadata = read_metadata(entry)
    try:
        data = entry.read_bytes()
    except OSError as error:
        log.warning("the plan %s can't be read (%s): built anew", entry, error.strerror)
        return None
    if metadata is None or metadata.plan_sha256 != hashlib.sha256(data).hexdigest():
        log.warning("the plan %s is corrupt, or was cut off half way: built anew", entry)
        return None
    if (metadata.onnx_sha256, metadata.version) != (build.model.sha256, build.bindings.version):
        log.warning("the plan %s is of another model or TensorRT: built anew", entry)
        return None
    return Plan(data, metadata, "cached", entry)


def _write(entry: Path, data: bytes, metadata: Metadata) -> None:
    """Metadata first taken away, then the plan, then the new metadata: what lies there is never of two builds."""
    try:
        metadata_path(entry).unlink(missing_ok=True)
        write_whole(entry, data)
        write_whole(metadata_path(entry), msgspec.json.format(msgspec.json.encode(metadata), indent=2))
    except OSError as error:
        # Built is built: the replica serves, only the next one has to build again.
        log.warning("the plan can't be kept in %s: %s", entry.parent, error.strerror)


@contextlib.contextmanager
def _locked(entry: Path, path: Path, progress: Progress | None) -> Iterator[None]:
    """Alone with an entry; waits for whoever builds it."""
    lock = entry.with_suffix(".lock")
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        with contextlib.suppress(OSError):  # other users of the node lock it, too, whatever our umask is
            os.fchmod(handle, 0o666)
    except OSError as error:
        raise CannotStart(
            f"no plans can be kept in `{entry.parent}`: {error.strerror}",
            hint=f"set `{FOLDER}` to a folder to write to",
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = f"{path.name}: another process of this node builds it already; waiting for its plan"
            log.info("%s", text)
            if progress:
                progress.say(text)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _remove_unused(folder: Path) -> None:
    """Bound the folder: what was used last long ago goes, and what writers left that were killed."""
    too_old = time.time() - UNUSED_S_MAX
    for metadata in folder.glob("*.plan.json"):
        plan = metadata.with_suffix("")
        with contextlib.suppress(OSError):
            if metadata.stat().st_mtime < too_old:
                log.info("the plan %s was not used for %d days: removed", plan, UNUSED_S_MAX / 86400)
                metadata.unlink()
                plan.unlink(missing_ok=True)
    for part in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            if part.stat().st_mtime < time.time() - 3600:  # nobody writes a file for an hour
                part.unlink()
