"""What is known about a plan: written as JSON beside it, read back to say why it fits, or does not."""

from pathlib import Path
from typing import Any

import msgspec

from nomadserve_runtime.engines.trt.options import Profile


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """Where a plan comes from. Fields of later releases are passed over.

    Attributes:
        plan_sha256: of the plan's own bytes: what differs was changed or cut off since.
        onnx_sha256: of the model and of every file that it keeps weights in.
        flavour: `tensorrt` or `tensorrt_rtx`.
        version: of TensorRT; a plan of `tensorrt` runs on exactly that one.
        gpu: name of the GPU that it was built on; empty where it was built without one.
        compute_capability: of the GPU that it was built for, such as "8.9"; empty for a portable one.
        precision: as asked for.
        profiles: as the plan has them, those made of `max_batch` included.
        options: everything else that was asked for.
        nomadserve: version that built it.
        built_at: ISO 8601, in UTC.
        build_s: how long that took.
    """

    plan_sha256: str
    onnx_sha256: str
    flavour: str
    version: str
    gpu: str
    compute_capability: str
    precision: str
    profiles: tuple[Profile, ...]
    options: dict[str, Any]
    nomadserve: str
    built_at: str
    build_s: float


def metadata_path(plan: Path) -> Path:
    """Where the metadata of a plan lies: `model.plan` → `model.plan.json`."""
    return plan.with_name(plan.name + ".json")


def read_metadata(plan: Path) -> Metadata | None:
    """What is known about the plan; None where nothing is, or what is there can't be read."""
    try:
        return msgspec.json.decode(metadata_path(plan).read_bytes(), type=Metadata)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
