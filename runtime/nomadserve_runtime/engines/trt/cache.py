"""The plan for a model file: read as it is, or built from an ONNX model once and kept for every replica of the node."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nomadserve_runtime.engines.trt.metadata import Metadata, read_metadata
from nomadserve_runtime.engines.trt.options import BuildOptions
from nomadserve_runtime.engines.trt.progress import Progress
from nomadserve_runtime.errors import CannotStart, WrongSetting

PLAN_SUFFIXES = (".plan", ".engine", ".trt")


@dataclass(frozen=True)
class Plan:
    """A serialized engine, ready for `Runtime.deserialize_cuda_engine`.

    Attributes:
        metadata: None for a plan that came without its JSON.
    """

    data: bytes
    metadata: Metadata | None
    origin: Literal["built", "cached", "given"]


def plan_for(path: Path, options: BuildOptions, *, progress: Progress | None) -> Plan:
    """The plan of the model file at `path`. Blocks while it, or another process of this node, builds.

    Raises:
        WrongSetting: the file is missing, or no plan can be made of it with these options.
        CannotStart: TensorRT, or the GPU that it needs, is not there.
    """
    if not path.is_file():
        raise WrongSetting(f"there is no model file `{path}`", hint="check the path of the model")
    if path.suffix in PLAN_SUFFIXES:
        return _given(path)
    raise CannotStart(
        f"`{path}` has to be built for TensorRT first, which is not there yet", hint="give a `.plan` that trtexec built"
    )


def _given(path: Path) -> Plan:
    try:
        return Plan(path.read_bytes(), read_metadata(path), "given")
    except OSError as error:
        raise WrongSetting(f"can't read `{path}`: {error.strerror}", hint="check the path of the model") from error
